"""Two experiments on the people of a closed loop whose truth is known: an A/B test with a difference, and an A/A test.

The machinery is that of any experiment: users are assigned by hash, exposures go to the log of the service, clicks are
counted from its answers and feedback, and the analysis knows nothing of the world.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import ExternalId
from rec_engine.evaluation.ab_testing import ABTestManager
from rec_engine.experiments.proposal import TREATMENT
from rec_engine.experiments.results import Comparison
from rec_engine.pipeline.loop_service import Answering, Page
from rec_engine.retrieval.faiss_index import FAISSIndex

DIFFERENT, ALIKE = "a-b", "a-a"
CTR = "ctr"
MIN_USERS_AN_ARM = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What an experiment says.

    Attributes:
        users: of each arm, the control first.
        relative: the treatment's clicks an impression over the control's, less 1; None where it cannot be said.
        low: lower end of its 95% interval; None where it has none.
        high: upper end.
        p_value: of no difference.
        action: that is recommended.
    """

    users: tuple[int, ...]
    relative: float | None
    low: float | None
    high: float | None
    p_value: float | None
    action: str

    @property
    def is_found(self) -> bool:
        """Whether a difference was found, at 5%."""
        return self.p_value is not None and self.p_value < 0.05  # noqa: PLR2004 - the level


class DividedTraffic:
    """Answers each user by the arm that he is in, and runs an A/A test on the same users beside.

    Args:
        store_url: of the service's log.
        arms: CONTROL and TREATMENT to who answers.
        now: Unix seconds of the start.
    """

    def __init__(self, store_url: str, arms: Mapping[str, Answering], now: int) -> None:
        self._arms, self._now = arms, now
        self._manager = ABTestManager(MIN_USERS_AN_ARM, store=store_url, clock=lambda: self._now)
        for name in (DIFFERENT, ALIKE):
            self._manager.create_experiment(
                name, name, target_metrics=[CTR], reads_service=True, min_days=1, planned_looks=1
            )
            self._manager.start_experiment(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()

    def refresh(self) -> None:
        """Let answers go by the latest popularity and trends."""
        for model in self._arms.values():
            model.refresh()

    def answer(
        self, user_id: ExternalId, moment: int, request_id: str, k: int, shown_before: Sequence[ExternalId] = ()
    ) -> Page:
        """Return what the user's arm shows him, after taking note of his exposure; see `Answering`."""
        self._now = moment
        for name in (DIFFERENT, ALIKE):
            self._manager.record_exposure(name, user_id, timestamp=moment)
        arm = self._manager.get_variant(DIFFERENT, user_id)
        return self._arms[arm].answer(user_id, moment, request_id, k, shown_before)

    def findings(self, now: int) -> dict[str, Finding]:
        """Return what both experiments say when they end at a moment (Unix seconds)."""
        self._now = now
        return {name: self._finding(name) for name in (DIFFERENT, ALIKE)}

    def _finding(self, name: str) -> Finding:
        self._manager.stop_experiment(name)
        analysis = self._manager.analyze(name)
        found: Comparison = analysis.find(CTR, TREATMENT)
        low, high = found.relative_ci or (None, None)
        return Finding(analysis.users, found.relative, low, high, found.p_value, analysis.recommendation.action)


def spoilt(bundle: ModelBundle, seed: int) -> ModelBundle:
    """Return a version that is worse for certain: its item vectors mean nothing, and it has no re-ranker."""
    shape = bundle.index.vectors.shape
    vectors = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = FAISSIndex.build(vectors, bundle.index.settings, ids=bundle.item_ids.ids.to_list(), seed=seed)
    manifest = bundle.manifest.model_copy(update={"version": f"{bundle.version}-spoilt"})
    return replace(bundle, manifest=manifest, index=index, ranker=None)
