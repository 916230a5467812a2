"""The promotion gate: a new model takes over when it is not worse than the one that is served, and not too slow."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.dataset import ExternalId
from rec_engine.data.state import UserState, state_of
from rec_engine.errors import BundleError
from rec_engine.evaluation.evaluator import Task, evaluate, some_users
from rec_engine.evaluation.exposures import Exposures
from rec_engine.evaluation.metrics import DoubleArray
from rec_engine.evaluation.statistics import Estimate, paired_bootstrap
from rec_engine.pipeline.common_task import CommonTask, common_task
from rec_engine.pipeline.evaluate import TUNED_FOR, TrainedModel, assemble_path, measure
from rec_engine.registry import ModelRegistry
from rec_engine.serving.inference import Query, RecommendationInference, as_recommender
from rec_engine.utils.config import RecommendationSettings

K = 10
TRIES = 3
MIN_USERS = 20
"""Fewer say nothing: resampled, one or two users seem to be certain."""
MIN_SHARE_OF_WHOLE = 0.25
"""Whoever puts other things first finds less of what was shown; whoever finds hardly any of it shows just anything."""
MATTERS_MS = 1.0
"""Of models that answer faster than this none is too slow: what a user waits for is the network."""


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
        difference: NDCG@10 of the candidate less the current one's, with its 95% interval; nan where too few users
            have anything held out that neither has learned from.
        latency: of the candidate.
        current_latency: of the current model.
        n_learned: held-out interactions that do not count, as the current model has learned from them.
        n_new_items: items that came after the training of the current model.
        share_of_whole: None where the models were asked for the best of the whole catalogue. Else they ordered what
            users were shown, as the log tells it, and this is the candidate's NDCG@10 in the whole catalogue over that
            of the current model, which has shown what could be taken.
    """

    current: str
    n_users: int
    difference: Estimate
    latency: Latency
    current_latency: Latency
    n_learned: int = 0
    n_new_items: int = 0
    share_of_whole: float | None = None


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Whether a model may take over.

    Attributes:
        candidate: version of the model that was judged.
        comparison: what was measured; None where there is no model to compare with.
        objections: what speaks against it, each in words; it passes where nothing does.
        unopened: why the current model cannot be opened; None where it can, or none is current.
    """

    candidate: str
    comparison: Comparison | None
    objections: tuple[str, ...]
    unopened: str | None = None

    @property
    def passes(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.objections

    @property
    def sentence(self) -> str:
        """The verdict for people, with its figures."""
        found = self.comparison
        if self.unopened is not None:
            return f"{self.candidate} passes, as the current model cannot be opened to compare it with: {self.unopened}"
        if found is None:
            return f"{self.candidate} passes, as there is no current model to compare it with"
        if self.objections:
            head = f"{self.candidate} does not pass, as {' and '.join(self.objections)}"
        elif found.n_users < MIN_USERS:
            head = f"{self.candidate} passes, as it is not too slow and nothing speaks against it"
        else:
            head = f"{self.candidate} passes, as it is neither significantly worse than {found.current} nor too slow"
        return f"{head}: {_quality(found)}; {_latency(found)}"


def judge_version(registry: ModelRegistry, version: str, limits: GateLimits | None = None) -> GateVerdict:
    """Return the verdict on a version, against the current one of its registry, which keeps it.

    A current version that this release cannot open, as after an upgrade, is no model to compare with.

    Raises:
        NotFoundError: if there is no such version.
        BundleError: if it cannot be opened.
        DataError: as `judge`.
    """
    candidate = open_bundle(registry.directory(version))
    current = registry.current()
    if current is None:
        return judge(candidate, None, limits)
    verdict = _beside(candidate, registry.model_dir / current, limits)
    if limits in (None, GateLimits()):  # what was found under other limits says nothing to a service
        registry.keep_verdict(version, current, passes=verdict.passes, sentence=verdict.sentence)
    return verdict


def _beside(candidate: ModelBundle, current: Path, limits: GateLimits | None) -> GateVerdict:
    try:
        opened = open_bundle(current)
    except BundleError as error:
        return GateVerdict(candidate.version, None, (), unopened=str(error))
    return judge(candidate, opened, limits)


def judge(candidate: ModelBundle, current: ModelBundle | None, limits: GateLimits | None = None) -> GateVerdict:
    """Return whether a model may take the place of the current one.

    It may when the 95% interval of its NDCG@10 less the current one's, over the same users and the same held-out
    items, reaches up to 0, and its requests keep to the limits. Where they are compared among what was shown, it has to
    find some of it in the whole catalogue as well. The candidate may have been trained on a longer log:
    they are judged by what it holds out, as far as the current model has not learned from it (see `CommonTask`). With a
    split in time that came after all that either has learned; with leave-one-out the candidate has seen later days of
    other users than the current model, as that protocol has it.

    Args:
        candidate: the new model.
        current: the one that is served; anything takes the place of None.
        limits: of latency and effort.

    Raises:
        DataError: if the two have no user or no item in common, or differ in whether items may come again.
    """
    if current is None:
        return GateVerdict(candidate.version, None, ())
    common = common_task(candidate, current)
    limits = limits or GateLimits()
    n_users, difference, share_of_whole = _difference(candidate, common, limits.n_users)
    latency, current_latency = measure_latency(candidate, current, limits.n_timed_users)
    comparison = Comparison(
        current=current.version,
        n_users=n_users,
        difference=difference,
        latency=latency,
        current_latency=current_latency,
        n_learned=common.n_learned,
        n_new_items=common.n_new_items,
        share_of_whole=share_of_whole,
    )
    return GateVerdict(candidate.version, comparison, objections(comparison, limits))


def objections(found: Comparison, limits: GateLimits) -> tuple[str, ...]:
    """Return what speaks against a candidate after it was measured, each in words; nothing where it may take over."""
    allowed_ms = limits.max_slowdown * max(found.current_latency.median_ms, MATTERS_MS)
    checks = {
        f"its NDCG@10 is significantly worse than that of {found.current}": found.difference.high < 0,
        f"in the whole catalogue it finds less than a quarter of what {found.current} finds": (
            found.share_of_whole is not None and found.share_of_whole < MIN_SHARE_OF_WHOLE
        ),
        f"its slowest requests take longer than {limits.max_p99_ms:g} ms": found.latency.p99_ms > limits.max_p99_ms,
        f"it takes more than {limits.max_slowdown:g} times as long": found.latency.median_ms > allowed_ms,
    }
    return tuple(objection for objection, holds in checks.items() if holds)


def measure_latency(first: ModelBundle, second: ModelBundle, n_users: int) -> tuple[Latency, Latency]:
    """Return how long two models of the same users take for 10 items, timed by turns: a busy machine hinders both.

    Each user counts with the fastest of three requests, for what else the machine does is not the model's fault.

    Args:
        first: a model.
        second: another; each of them knows the users as it was trained with them.
        n_users: drawn at random, at most.
    """
    bundles = (first, second)
    paths = [RecommendationInference.of(bundle, RecommendationSettings()) for bundle in bundles]
    states = zip(*(_states(bundle, _common_users(first, second, n_users)) for bundle in bundles), strict=True)
    times_ms = np.array([[_fastest_ms(*asked) for asked in zip(paths, of_user, strict=True)] for of_user in states])
    medians, p99s = np.quantile(times_ms, [0.5, 0.99], axis=0)
    of_first, of_second = (Latency(float(median), float(p99)) for median, p99 in zip(medians, p99s, strict=True))
    return of_first, of_second


def _common_users(first: ModelBundle, second: ModelBundle, n_users: int) -> list[ExternalId]:
    """Return ids of users whom both know, drawn at random."""
    ids = first.user_ids.ids.to_list()
    codes = np.flatnonzero(second.user_ids.codes(ids) >= 0)
    chosen = np.random.default_rng(0).choice(codes, min(n_users, len(codes)), replace=False)
    return [ids[code] for code in chosen.tolist()]


def _states(bundle: ModelBundle, user_ids: list[ExternalId]) -> list[UserState]:
    now = int(bundle.history.timestamps.max()) + 1
    return [state_of(bundle.history, code, now) for code in bundle.user_ids.codes(user_ids).tolist()]


def _fastest_ms(path: RecommendationInference, state: UserState) -> float:
    times_ns = []
    for _ in range(TRIES):
        # A state of its own, as every request has: the path remembers what it worked out for the latest one.
        query = Query(replace(state), K)
        started_ns = time.perf_counter_ns()
        path.recommend(query)
        times_ns.append(time.perf_counter_ns() - started_ns)
    return min(times_ns) / 1e6


def _difference(candidate: ModelBundle, common: CommonTask, n_users: int) -> tuple[int, Estimate, float | None]:
    """Return how many users were looked at, NDCG@10 of the candidate less the current model's, and `share_of_whole`.

    What the current model did not show cannot have been taken: where the log tells what it has shown, the models order
    that, for by all items every other order would be worse. The difference is nan of too few users.
    """
    task, models = some_users(common.task, n_users, seed=0), (TrainedModel.of(candidate), common.current)
    reached, reached_now = (measure(task, model, (K,))[-1].per_user[TUNED_FOR] for model in models)
    if len(reached) < MIN_USERS:
        return len(reached), Estimate(np.nan, np.nan, np.nan), None
    share = None
    if common.exposures is not None:
        share = float(reached.sum() / max(reached_now.sum(), 1e-9))
        reached, reached_now = (_among_shown(model, task, common.exposures) for model in models)
    return len(reached), paired_bootstrap(reached, reached_now).absolute, share


def _among_shown(model: TrainedModel, task: Task, exposures: Exposures) -> DoubleArray:
    """Return (n_users,) NDCG@10 of what the model serves, of these items alone."""
    served = as_recommender(assemble_path(model, task.history, task.shown), task, exposures)
    return evaluate("among what was shown", served, task, n_items=len(model.index.vectors), ks=(K,)).per_user[TUNED_FOR]


def _quality(found: Comparison) -> str:
    if found.n_users < MIN_USERS:
        return (
            f"NDCG@10 was not compared, as {found.n_users} users have anything held out that neither has learned from, "
            f"and {MIN_USERS} are needed"
        )
    low, high = found.difference.low, found.difference.high
    told = f"NDCG@10 {found.difference.mean:+.4f} [{low:+.4f}, {high:+.4f}] on {found.n_users:,} users"
    if found.share_of_whole is not None:
        told += f", among what they were shown ({found.share_of_whole:.2f} times as much in the whole catalogue)"
    if found.n_learned:
        told += f", without {found.n_learned:,} held-out interactions that {found.current} has learned from"
    if found.n_new_items:
        told += f"; {found.current} knows {found.n_new_items:,} new items by their descriptions only"
    return told


def _latency(found: Comparison) -> str:
    return f"a request takes {found.latency}, with {found.current} {found.current_latency}"
