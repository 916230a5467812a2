"""The promotion gate: a new model takes over when it is not worse than the one that is served, and not too slow."""

import time
from dataclasses import dataclass, replace

import numpy as np

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.state import UserState, state_of
from rec_engine.errors import BundleError, DataError
from rec_engine.evaluation.evaluator import Task, some_users
from rec_engine.evaluation.metrics import DoubleArray
from rec_engine.evaluation.statistics import Estimate, paired_bootstrap
from rec_engine.pipeline.evaluate import TUNED_FOR, evaluate_bundle, reported_task
from rec_engine.registry import ModelRegistry
from rec_engine.serving.inference import Query, RecommendationInference
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import get_logger

K = 10
TRIES = 3
MATTERS_MS = 1.0
"""Of models that answer faster than this none is too slow: what a user waits for is the network."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What a candidate must keep to, and how much is measured to see whether it does.

    Attributes:
        max_p99_ms: of the request path, in process.
        max_slowdown: its median over the current model's.
        n_users: whose held-out items are looked for, at most.
        n_timed_users: for whom a request is timed, at most.
    """

    max_p99_ms: float = 50.0
    max_slowdown: float = 2.0
    n_users: int = 5_000
    n_timed_users: int = 300


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the request path takes over many users, without HTTP, cache and log."""

    median_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.median_ms:.1f} ms (p99 {self.p99_ms:.1f} ms)"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate beside the current model, on the same users.

    Attributes:
        current: version of the current model.
        n_users: whose held-out items were looked for.
        difference: NDCG@10 of the candidate less the current one's, with its 95% interval; nan of no users.
        latency: of the candidate.
        current_latency: of the current model.
    """

    current: str
    n_users: int
    difference: Estimate
    latency: Latency
    current_latency: Latency


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Whether a model may take over.

    Attributes:
        candidate: version of the model that was judged.
        comparison: what was measured; None where no model is current.
        objections: what speaks against it, each in words; it passes where nothing does.
    """

    candidate: str
    comparison: Comparison | None
    objections: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.objections

    @property
    def sentence(self) -> str:
        """The verdict for people, with its figures."""
        found = self.comparison
        if found is None:
            return f"{self.candidate} passes, as there is no current model to compare it with"
        if self.objections:
            head = f"{self.candidate} does not pass, as {' and '.join(self.objections)}"
        else:
            head = f"{self.candidate} passes, as it is neither significantly worse than {found.current} nor too slow"
        return f"{head}: {_quality(found)}; {_latency(found)}"


def judge_version(registry: ModelRegistry, version: str, limits: GateLimits | None = None) -> GateVerdict:
    """Return the verdict on a version, against the current one of its registry.

    A current version that this release cannot open, as after an upgrade, is no model to compare with.

    Raises:
        NotFoundError: if there is no such version.
        BundleError: if it cannot be opened.
        DataError: as `judge`.
    """
    candidate = open_bundle(registry.directory(version))
    return judge(candidate, _openable(registry, registry.current()), limits)


def judge(candidate: ModelBundle, current: ModelBundle | None, limits: GateLimits | None = None) -> GateVerdict:
    """Return whether a model may take the place of the current one.

    It may when the 95% interval of its NDCG@10 less the current one's, over the same users and the same held-out
    items, reaches up to 0, and its requests keep to the limits.

    Args:
        candidate: the new model.
        current: the one that is served; anything takes the place of None.
        limits: of latency and effort.

    Raises:
        DataError: if the two were trained on other data, or what was held out from one was not from the other.
    """
    if current is None:
        return GateVerdict(candidate.version, None, ())
    _check_comparable(candidate, current)
    limits = limits or GateLimits()
    task = some_users(reported_task(candidate.split), limits.n_users, seed=0)
    reached, reached_now = _ndcg(candidate, task), _ndcg(current, task)
    latency, current_latency = measure_latency(candidate, current, limits.n_timed_users)
    difference = paired_bootstrap(reached, reached_now).absolute
    comparison = Comparison(current.version, len(reached), difference, latency, current_latency)
    return GateVerdict(candidate.version, comparison, objections(comparison, limits))


def objections(found: Comparison, limits: GateLimits) -> tuple[str, ...]:
    """Return what speaks against a candidate after it was measured, each in words; nothing where it may take over."""
    allowed_ms = limits.max_slowdown * max(found.current_latency.median_ms, MATTERS_MS)
    checks = {
        f"its NDCG@10 is significantly worse than that of {found.current}": found.difference.high < 0,
        f"its slowest requests take longer than {limits.max_p99_ms:g} ms": found.latency.p99_ms > limits.max_p99_ms,
        f"it takes more than {limits.max_slowdown:g} times as long": found.latency.median_ms > allowed_ms,
    }
    return tuple(objection for objection, holds in checks.items() if holds)


def measure_latency(first: ModelBundle, second: ModelBundle, n_users: int) -> tuple[Latency, Latency]:
    """Return how long two models of the same users take for 10 items, timed by turns: a busy machine hinders both.

    Each user counts with the fastest of three requests, for what else the machine does is not the model's fault.

    Args:
        first: a model.
        second: another of the same data.
        n_users: drawn at random, at most.
    """
    paths = [RecommendationInference.of(bundle, RecommendationSettings()) for bundle in (first, second)]
    states = _some_states(first, n_users)
    times_ms = np.array([[_fastest_ms(path, state) for path in paths] for state in states])
    medians, p99s = np.quantile(times_ms, [0.5, 0.99], axis=0)
    of_first, of_second = (Latency(float(median), float(p99)) for median, p99 in zip(medians, p99s, strict=True))
    return of_first, of_second


def _some_states(bundle: ModelBundle, n_users: int) -> list[UserState]:
    now = int(bundle.history.timestamps.max()) + 1
    n_known = len(bundle.user_ids)
    chosen = np.random.default_rng(0).choice(n_known, min(n_users, n_known), replace=False)
    return [state_of(bundle.history, user_code, now) for user_code in chosen.tolist()]


def _fastest_ms(path: RecommendationInference, state: UserState) -> float:
    times_ns = []
    for _ in range(TRIES):
        # A state of its own, as every request has: the path remembers what it worked out for the latest one.
        query = Query(replace(state), K)
        started_ns = time.perf_counter_ns()
        path.recommend(query)
        times_ns.append(time.perf_counter_ns() - started_ns)
    return min(times_ns) / 1e6


def _ndcg(bundle: ModelBundle, task: Task) -> DoubleArray:
    """Return (n_users,) NDCG@10 of what the model serves."""
    return evaluate_bundle(bundle, task, (K,))[-1].per_user[TUNED_FOR]


def _quality(found: Comparison) -> str:
    if not found.n_users:
        return "NDCG@10 was not compared, as nothing is held out from any user"
    low, high = found.difference.low, found.difference.high
    return f"NDCG@10 {found.difference.mean:+.4f} [{low:+.4f}, {high:+.4f}] on {found.n_users:,} users"


def _latency(found: Comparison) -> str:
    return f"a request takes {found.latency}, with {found.current} {found.current_latency}"


def _check_comparable(candidate: ModelBundle, current: ModelBundle) -> None:
    if candidate.manifest.dataset_fingerprint != current.manifest.dataset_fingerprint:
        raise DataError(
            f"{candidate.version} was trained on other data than {current.version}",
            hint="only models of the same dataset can be compared; --force promotes it without",
        )
    if candidate.split.fingerprint != current.split.fingerprint:
        raise DataError(
            f"what was held out from {candidate.version} is not what was held out from {current.version}",
            hint="only models of the same split and data.repeat_items can be compared; --force promotes it without",
        )


def _openable(registry: ModelRegistry, version: str | None) -> ModelBundle | None:
    if version is None:
        return None
    try:
        return open_bundle(registry.model_dir / version)
    except BundleError as error:
        logger.warning("the current model cannot be compared with: %s", error)
        return None
