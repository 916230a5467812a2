"""The tree of errors.

    RecEngineError
      ConfigError        a setting is unknown, of the wrong type or out of range
      DataError          a file, row or request value cannot be used
      NotFoundError      no such user, item, category or model
      ExperimentError    an experiment is in a state in which this is not possible
      BundleError        a model directory is damaged or of another format
      StoreError         the event store cannot be reached, or refuses to write
        ConflictError    somebody else's write came between a check and the write it was made for
      TrainingError      training cannot start or go on
      CheckError         a check was made, and its answer is no

The command line prints message and hint and exits with 3, after a check with 1; the API answers with both as problem
JSON (RFC 9457).
"""

from typing import ClassVar


class RecEngineError(Exception):
    """Base of every error that a user can do something about.

    Args:
        message: what is wrong and where, with the value that was found.
        hint: what to do about it.
    """

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(RecEngineError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(RecEngineError):
    """A file, row or request value cannot be used."""

    status = 422


class NotFoundError(RecEngineError):
    """No such user, item, category or model."""

    status = 404


class ExperimentError(RecEngineError):
    """An experiment is in a state in which this is not possible."""

    status = 409


class BundleError(RecEngineError):
    """A model directory is damaged or of another format."""

    status = 503


class StoreError(RecEngineError):
    """The event store cannot be reached, or refuses to write."""

    status = 503


class ConflictError(StoreError):
    """Somebody else's write came between a check and the write it was made for; check again and write again."""


class TrainingError(RecEngineError):
    """Training cannot start or go on."""


class CheckError(RecEngineError):
    """A check was made, and its answer is no."""

    status = 409
    exit_code = 1
