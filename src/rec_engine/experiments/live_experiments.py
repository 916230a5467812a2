"""The experiments as they are now, for who asks at every request: no look into the database, no wait for a disk."""

import time
from collections.abc import Callable, Mapping

from rec_engine.data.dataset import ExternalId
from rec_engine.data.experiment_log import ExperimentLog, Exposure
from rec_engine.errors import StoreError
from rec_engine.experiments.assignment import NO_ATTRIBUTES, Assignment, Draw
from rec_engine.experiments.definition import Experiment, met_as
from rec_engine.experiments.lifecycle import Lifecycle
from rec_engine.experiments.recorder import Recorder
from rec_engine.utils.background import BackgroundLoop
from rec_engine.utils.logger import get_logger

POLL_SECONDS = 1.0
SETTLE_SECONDS = 10.0
"""After which all workers know of a new allocation, and users who met an arm by the old one are in the log."""
MAX_REMEMBERED = 500_000
"""Exposures that are remembered, so that they are not written again; some 80 MB."""

logger = get_logger(__name__)


class LiveExperiments:
    """Assigns users and takes note of their exposures.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.
        clock: Unix seconds.
        full_seconds: how long whoever records waits for room; 0 for a service.

    Attributes:
        log: of the experiments.
        lifecycle: the experiments as they are, and their steps.
        recorder: writes exposures and measures.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database cannot be reached.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time, *, full_seconds: float = 0.0) -> None:
        self.clock = clock
        self.log = ExperimentLog(url)
        self.lifecycle = Lifecycle(self.log, clock)
        self.recorder = Recorder(self.log, full_seconds=full_seconds)
        self._draws: dict[str, Draw] = {}
        self._met: dict[str, dict[str, str]] = {}
        self._met_as_of: dict[str, tuple[int, bool]] = {}
        self._exposed: dict[str, dict[str, Assignment]] = {}
        self._n_exposed = 0
        self._is_behind = False
        self._look_up_arms()
        self._loop = BackgroundLoop("experiments", self._poll, first_seconds=POLL_SECONDS)
        self._loop.start()

    def refresh(self) -> bool:
        """Return whether an experiment has changed since the last look.

        Raises:
            StoreError: if the database fails.
        """
        has_changed = self.lifecycle.refresh()
        self._look_up_arms()
        return has_changed

    def assign(
        self, experiment: Experiment, user_id: ExternalId, attributes: Mapping[str, object] = NO_ATTRIBUTES
    ) -> Assignment:
        """Return what an experiment has for a user; nothing is written."""
        draw, unit, now = self._draw(experiment), str(user_id), self.clock()
        exposed = self._exposed.get(experiment.experiment_id)
        if exposed and draw.is_open(now) and (known := exposed.get(unit)) and draw.holds(known):
            return known
        met = self._met.get(experiment.experiment_id)
        return draw.assign(unit, now, attributes, met.get(unit) if met else None)

    def expose(self, experiment: Experiment, user_id: str, assignment: Assignment, timestamp: int) -> bool:
        """Take note that a user met the arm that he was assigned to; return whether it was not known here before."""
        found = self._unknown(experiment, user_id, assignment, timestamp, self.recorder.known)
        if found is not None and not self.recorder.add(found):
            return False
        self._remember(experiment, user_id, assignment)
        return found is not None

    def exposure(
        self, experiment: Experiment, user_id: str, assignment: Assignment, timestamp: int, known: int
    ) -> Exposure | None:
        """Return what the recorder, which asks for it, writes of a user who met his arm; None if that is known here.

        Args:
            experiment: that he met.
            user_id: as text.
            assignment: that he had.
            timestamp: Unix seconds at which he met it.
            known: position of the log at that moment, as the recorder knew it.
        """
        found = self._unknown(experiment, user_id, assignment, timestamp, known)
        self._remember(experiment, user_id, assignment)
        return found

    def _unknown(
        self, experiment: Experiment, user_id: str, assignment: Assignment, timestamp: int, known: int
    ) -> Exposure | None:
        arm, phase, name = assignment.arm, assignment.phase, experiment.experiment_id
        if arm is None or not assignment.in_experiment:
            return None
        before = self._exposed.get(name, {}).get(user_id)
        if before is assignment:
            return None
        met = met_as(experiment, arm, phase)
        if before is not None and met_as(experiment, before.arm or "", before.phase) == met:
            return None
        return Exposure(name, user_id, met, phase, timestamp, assignment.propensity, known)

    def _remember(self, experiment: Experiment, user_id: str, assignment: Assignment) -> None:
        if assignment.arm is None or not assignment.in_experiment:
            return
        name = experiment.experiment_id
        exposed = self._exposed.get(name) or self._exposed.setdefault(name, {})
        self._n_exposed += user_id not in exposed
        if self._n_exposed > MAX_REMEMBERED:
            self._forget()
        exposed[user_id] = assignment

    def _forget(self) -> None:
        for exposed in list(self._exposed.values()):
            exposed.clear()
        self._n_exposed = 1

    def _draw(self, experiment: Experiment) -> Draw:
        draw = self._draws.get(experiment.experiment_id)
        if draw is None or draw.experiment is not experiment:
            draw = self._draws[experiment.experiment_id] = Draw(experiment)
        return draw

    def close(self) -> None:
        """Write what is waiting, then end.

        Raises:
            StoreError: if it cannot be written.
        """
        self._loop.close()
        try:
            self.recorder.close()
        finally:
            self.log.close()

    def _poll(self) -> float:
        try:
            self.refresh()
            self._is_behind = False
        except StoreError as error:
            if not self._is_behind:
                logger.warning("experiments go on as they were: %s", error)
            self._is_behind = True
        return POLL_SECONDS

    def _look_up_arms(self) -> None:
        """Look up who met which arm, of experiments whose shares have changed: by his id alone he might change arms.

        Once at once, and once more when every worker knows of the change and has written what it did before.
        """
        for name, experiment in self.lifecycle.by_id.items():
            is_settled = self.clock() >= experiment.phase.starts_at + SETTLE_SECONDS
            as_of = len(experiment.phases), is_settled
            is_known = self._met_as_of.get(name) == as_of
            is_followed = experiment.kind == "ab" and experiment.has_moved_shares and experiment.status != "stopped"
            if is_followed and not is_known:
                self.recorder.flush()
                self._met[name] = self.log.arms_met(name)
                self._met_as_of[name] = as_of
