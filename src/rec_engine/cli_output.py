"""What commands print: JSON for programs, and what went wrong with a file."""

import sys
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic_core import to_json

AsJson = Annotated[bool, Parameter(name="--json", negative="")]


def print_json(found: Any) -> None:  # noqa: ANN401 - whatever JSON can hold of dataclasses, models and numbers
    """Write one JSON document to the standard output; a number that there is not is null."""
    sys.stdout.write(to_json(found, indent=2, inf_nan_mode="null").decode() + "\n")


def told(error: OSError) -> tuple[str, str]:
    """Return what went wrong, and what to do."""
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}", "is the path right, writable, and is there space left?"
    return (
        f"the output could not be written: {error.strerror}",
        "does whoever reads it read on, and is there space left?",
    )
