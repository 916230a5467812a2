"""What of the log may go: nothing that an experiment still measures."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

from rec_engine.data.experiment_log import ExperimentLog
from rec_engine.errors import StoreError
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.lifecycle import Lifecycle
from rec_engine.experiments.measuring import begins_at, selection_of


@dataclass(frozen=True, slots=True)
class CutOff:
    """The moment before which events may go.

    Attributes:
        before: Unix seconds.
        held_by: id of the experiment that needs what happened after it; None where none asks for less than was wanted.
        ended: ids of stopped experiments that cannot be measured any more without what happened before.
    """

    before: int
    held_by: str | None
    ended: tuple[str, ...]


def cut_off(url: str, wanted: int, now: int) -> CutOff:
    """Return the latest moment up to a wanted one that leaves every experiment that goes on what it needs.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.
        wanted: Unix seconds.
        now: Unix seconds.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database fails, or holds an experiment that this release cannot read.
    """
    with closing(ExperimentLog(url)) as log:
        known = list(Lifecycle(log).by_id.values())
        if len(known) != len(log.standing()):
            raise StoreError(
                "the store holds an experiment that this release cannot read, and what it needs is not known",
                hint="prune with the release that made it",
            )
    return cut_off_of(known, wanted, now)


def cut_off_of(experiments: Iterable[Experiment], wanted: int, now: int) -> CutOff:
    """Return the same of experiments that are at hand."""
    begun = [each for each in experiments if each.started_at is not None]
    needed = [(needed_since(each, now), each.experiment_id) for each in begun if each.status != "stopped"]
    earliest, holder = min(needed, default=(wanted, None))
    before = min(earliest, wanted)
    ended = (each for each in begun if each.status == "stopped" and begins_at(each, now) < before)
    return CutOff(before, holder if earliest < wanted else None, tuple(sorted(each.experiment_id for each in ended)))


def needed_since(experiment: Experiment, now: int) -> int:
    """Return from when on (Unix seconds) an experiment that goes on needs what happened.

    To reduce its variance it looks at as much time before a user's first exposure as after it: at most as long as its
    window, or as it takes to its end. Where neither is known it looks back further with every day; what is gone by then
    makes its intervals wider, of all arms alike.
    """
    begin = begins_at(experiment, now)
    selection = selection_of(experiment, now)
    if not selection.has_before:
        return begin
    span = max(now, experiment.ends_at or now) - begin
    return begin - (span if selection.window_seconds is None else min(span, selection.window_seconds))
