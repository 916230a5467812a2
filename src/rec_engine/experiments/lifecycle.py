"""How experiments come about and go on: each step is checked, and written as a new version with who did it and why."""

import time
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from rec_engine.data.experiment_log import ExperimentLog, ExperimentVersion
from rec_engine.errors import DataError, ExperimentError, NotFoundError
from rec_engine.experiments.checked import checked_value
from rec_engine.experiments.definition import MAX_PHASES, Experiment, Pause, Phase
from rec_engine.utils.logger import get_logger

logger = get_logger(__name__)


class Lifecycle:
    """The experiments of a log as they are, and the steps from one state to the next.

    Args:
        log: where they are kept.
        clock: Unix seconds.

    Attributes:
        by_id: experiments as of the latest look into the log; replaced as a whole, so any thread may read it.
    """

    def __init__(self, log: ExperimentLog, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._clock = clock
        self._n_seen = -1
        self.by_id: dict[str, Experiment] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Return whether anything has changed since the last look.

        Raises:
            StoreError: if the database fails.
        """
        if (n := self._log.n_versions()) == self._n_seen:
            return False
        read = [_read(version) for version in self._log.standing()]
        self.by_id = {experiment.experiment_id: experiment for experiment in read if experiment}
        self._n_seen = n
        return True

    def get(self, experiment_id: str) -> Experiment:
        """Return an experiment as it is known here.

        Raises:
            NotFoundError: if there is none of this id.
        """
        if (found := self.by_id.get(experiment_id)) is None:
            known = ", ".join(list(self.by_id)[:5]) or "none yet"
            raise NotFoundError(f"there is no experiment {experiment_id!r}", hint=f"those that there are: {known}")
        return found

    def create(self, experiment: Experiment, actor: str = "", reason: str = "") -> Experiment:
        """Return a new experiment, which waits for its start.

        Raises:
            DataError: if it could meet the users of another one in its layer.
            ExperimentError: if there is one of this id.
        """
        self.refresh()
        if experiment.experiment_id in self.by_id:
            raise ExperimentError(
                f"there is an experiment {experiment.experiment_id!r}", hint="ids are used once: give it another"
            )
        self._check_others(experiment)
        return self._write(experiment.model_copy(update={"version": 1, "status": "draft"}), "create", actor, reason)

    def start(self, experiment_id: str, actor: str = "", reason: str = "") -> Experiment:
        """Return an experiment that users meet from now on."""
        now = int(self._clock())
        started = self._current(experiment_id, "start", ("draft",))
        self._check_others(started)
        first = started.phases[-1].model_copy(update={"starts_at": now})
        update = {"status": "running", "started_at": now, "phases": (first,)}
        return self._next(started, update, "start", actor, reason)

    def pause(self, experiment_id: str, actor: str = "", reason: str = "") -> Experiment:
        """Return an experiment that nobody meets for the time being; users get what they would without it."""
        running = self._current(experiment_id, "pause", ("running",))
        pauses = (*running.pauses, Pause(starts_at=int(self._clock())))
        return self._next(running, {"status": "paused", "pauses": pauses}, "pause", actor, reason)

    def resume(self, experiment_id: str, actor: str = "", reason: str = "") -> Experiment:
        """Return an experiment that goes on; users meet the arms that they met before."""
        now, paused = int(self._clock()), self._current(experiment_id, "resume", ("paused",))
        *before, latest = paused.pauses or (Pause(starts_at=now),)  # none, if an earlier release has paused it
        pauses = (*before, latest.model_copy(update={"ends_at": now}))
        return self._next(paused, {"status": "running", "pauses": pauses}, "resume", actor, reason)

    def stop(self, experiment_id: str, actor: str = "", reason: str = "") -> Experiment:
        """Return an experiment that has ended for good; its results stay."""
        stopped = self._current(experiment_id, "stop", ("draft", "running", "paused"))
        update = {"status": "stopped", "stopped_at": int(self._clock())}
        return self._next(stopped, update, "stop", actor, reason)

    def allocate(
        self,
        experiment_id: str,
        *,
        shares: Sequence[float] | None = None,
        coverage: float | None = None,
        actor: str = "",
        reason: str = "",
    ) -> Experiment:
        """Return an experiment with another allocation, in a phase of its own.

        A larger coverage only adds users. With other shares, whoever met an arm stays in it.

        Args:
            experiment_id: of the experiment.
            shares: of the arms, in their order; without it as they are.
            coverage: share of those who may take part that does; without it as it is.
            actor: who does it.
            reason: why.

        Raises:
            DataError: if the coverage of an experiment that has begun would shrink, or shares are none.
            ExperimentError: if it has ended.
        """
        changed = self._current(experiment_id, "change the allocation of", ("draft", "running", "paused"))
        was = changed.phase
        coverage = was.coverage if coverage is None else checked_value("coverage", coverage)
        if changed.status != "draft" and coverage < was.coverage:
            raise DataError(
                f"{experiment_id}: coverage {coverage:g} is below {was.coverage:g}: users who met an arm would lose it",
                hint="stop the experiment, or start another one with fewer users",
            )
        if shares is not None and len(shares) != len(changed.arms):
            raise DataError(f"{experiment_id} has {len(changed.arms)} arms", hint="give a share for each of them")
        if shares is not None and changed.kind != "ab":
            raise DataError(f"{experiment_id} is of kind {changed.kind}: nobody sets the shares of its arms")
        if changed.status != "draft" and len(changed.phases) >= MAX_PHASES:
            raise ExperimentError(
                f"{experiment_id} has had {MAX_PHASES} allocations, and can have no more",
                hint="stop it, and create another one",
            )
        phase = _phase(int(self._clock()), was.shares if shares is None else tuple(shares), coverage)
        phases = (phase,) if changed.status == "draft" else (*changed.phases, phase)
        return self._next(changed, {"phases": phases}, "allocate", actor, reason)

    def next_batch(self, experiment: Experiment, shares: Sequence[float], actor: str, reason: str) -> Experiment:
        """Return a bandit whose arms have other shares from now on.

        Raises:
            ConflictError: if it is not as it was any more: another process was faster.
            DataError: if shares are none.
        """
        phase = _phase(int(self._clock()), tuple(shares), experiment.phase.coverage)
        return self._next(experiment, {"phases": (*experiment.phases, phase)}, "batch", actor, reason)

    def redefine(self, experiment: Experiment, actor: str = "", reason: str = "") -> Experiment:
        """Return another definition of an experiment that has not begun.

        Raises:
            ExperimentError: if it has begun: what it is to find, and by what, stands from the start.
        """
        draft = self.get(experiment.experiment_id)
        if draft.status != "draft":
            raise ExperimentError(
                f"{draft.experiment_id} has begun: its metrics, arms and rules stand",
                hint="stop it, and create another one",
            )
        self._check_others(experiment)
        update = {"version": draft.version, "status": "draft", "started_at": None, "stopped_at": None}
        return self._next(experiment.model_copy(update=update), {}, "redefine", actor, reason)

    def history(self, experiment_id: str) -> list[ExperimentVersion]:
        """Return every version of an experiment with who made it and why, the first one first.

        Raises:
            NotFoundError: if there is none of this id.
        """
        return self._log.versions(self.get(experiment_id).experiment_id)

    def _current(self, experiment_id: str, wanted: str, allowed: Sequence[str]) -> Experiment:
        self.refresh()
        found = self.get(experiment_id)
        if found.status not in allowed:
            raise ExperimentError(
                f"cannot {wanted} {experiment_id}: it is {found.status}", hint=f"it would have to be {_or(allowed)}"
            )
        return found

    def _next(
        self, experiment: Experiment, update: dict[str, object], action: str, actor: str, reason: str
    ) -> Experiment:
        later = experiment.model_copy(update={**update, "version": experiment.version + 1})
        return self._write(later, action, actor, reason)

    def _write(self, experiment: Experiment, action: str, actor: str, reason: str) -> Experiment:
        self._log.append(
            ExperimentVersion(
                experiment.experiment_id,
                experiment.version,
                int(self._clock()),
                action,
                actor,
                reason,
                experiment.model_dump_json(),
            )
        )
        self.refresh()
        return experiment

    def _check_others(self, experiment: Experiment) -> None:
        """Find out whether another experiment has some of the users, where it must not."""
        others = (each for each in self.by_id.values() if each.experiment_id != experiment.experiment_id)
        for other in (each for each in others if each.status != "stopped"):
            if experiment.layer and other.layer and experiment.layer.overlaps(other.layer):
                raise DataError(
                    f"{experiment.experiment_id} and {other.experiment_id} share users of the layer "
                    f"{experiment.layer.name!r}: [{other.layer.first:g}, {other.layer.last:g}) is taken",
                    hint="give it another part of the layer, or stop the other one",
                )
            if experiment.kind == other.kind == "interleaving" and not experiment.excludes(other):
                raise DataError(
                    f"{experiment.experiment_id} and {other.experiment_id} both fill the lists of the same users",
                    hint="put them into parts of one layer that do not overlap, or stop the other one",
                )
            if (both := experiment.varied & other.varied) and not experiment.excludes(other):
                raise DataError(
                    f"{experiment.experiment_id} and {other.experiment_id} both vary {', '.join(sorted(both))}",
                    hint="put them into parts of one layer that do not overlap, or stop the other one",
                )


def _phase(starts_at: int, shares: tuple[float, ...], coverage: float) -> Phase:
    try:
        return Phase(starts_at=starts_at, shares=shares, coverage=coverage)
    except ValidationError as error:
        raise DataError(f"allocation: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _read(version: ExperimentVersion) -> Experiment | None:
    try:
        return Experiment.model_validate_json(version.definition)
    except ValidationError as error:  # as of a later release
        logger.warning("experiment %s is left out, it cannot be read: %s", version.experiment_id, error)
        return None


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)
