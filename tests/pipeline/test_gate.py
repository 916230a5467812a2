"""The gate lets nothing through that is worse or too slow, and nothing else is kept out."""

import shutil
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import N_ITEMS, N_USERS, interactions_frame, items_frame, tiny_config

from rec_engine.bundle import CURRENT, ModelBundle, find_bundle, open_bundle
from rec_engine.data.dataset import FloatArray, IdMap, IntArray, Interactions, LongArray, RecommendationDataset
from rec_engine.data.showings import ShowingLog
from rec_engine.data.splits import Split, leave_one_out, temporal_split
from rec_engine.data.state import UserState, state_of
from rec_engine.errors import BundleError, DataError, NotFoundError
from rec_engine.evaluation.evaluator import test_task as task_of
from rec_engine.evaluation.statistics import Estimate, paired_bootstrap
from rec_engine.models.user_tower import UserTower
from rec_engine.pipeline.common_task import common_task
from rec_engine.pipeline.evaluate import evaluate_bundle
from rec_engine.pipeline.gate import (
    Comparison,
    GateLimits,
    GateVerdict,
    Latency,
    judge,
    judge_version,
    measure_latency,
    objections,
)
from rec_engine.pipeline.train import train
from rec_engine.registry import ModelRegistry
from rec_engine.retrieval.faiss_index import FAISSIndex

PATIENT = GateLimits(max_p99_ms=10_000, max_slowdown=10_000, n_timed_users=3)
"""For models whose speed is not the question, on a machine that may be busy."""
FEW_USERS = replace(PATIENT, n_users=5)
"""For models whose quality is not the question."""


def named(bundle: ModelBundle, version: str) -> ModelBundle:
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"version": version}))


def with_split(bundle: ModelBundle, split: Split) -> ModelBundle:
    return replace(bundle, read_split=lambda: split)


def as_kind(kind: type[UserTower], tower: UserTower) -> UserTower:
    return kind(**{field.name: getattr(tower, field.name) for field in fields(UserTower) if field.init})


@pytest.fixture(scope="session")
def random(bundle: ModelBundle) -> ModelBundle:
    """The same model with item vectors that mean nothing."""
    shape = len(bundle.item_ids), bundle.config.model.tower_dims[-1]
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = FAISSIndex.build(vectors, bundle.index.settings, ids=bundle.item_ids.ids.to_list(), seed=0)
    return replace(named(bundle, "random"), index=index, ranker=None)


class Dawdler(UserTower):
    """A user tower that takes 20 ms longer."""

    def vector(self, state: UserState) -> FloatArray | None:
        time.sleep(0.02)
        return super().vector(state)


@pytest.fixture(scope="session")
def slow(bundle: ModelBundle) -> ModelBundle:
    return replace(named(bundle, "slow"), user_tower=as_kind(Dawdler, bundle.user_tower))


def test_the_first_model_passes(bundle: ModelBundle) -> None:
    verdict = judge(bundle, None)
    assert verdict.passes
    assert verdict.comparison is None
    assert verdict.sentence == f"{bundle.version} passes, as there is no current model to compare it with"


def test_a_model_that_is_as_good_passes(bundle: ModelBundle) -> None:
    verdict = judge(named(bundle, "again"), bundle, PATIENT)
    assert verdict.passes
    assert verdict.comparison is not None
    assert (verdict.comparison.difference.mean, verdict.comparison.n_users) == (0.0, 60)
    assert f"again passes, as it is neither significantly worse than {bundle.version} nor too slow" in verdict.sentence


def test_a_worse_model_does_not_pass_and_a_better_one_does(bundle: ModelBundle, random: ModelBundle) -> None:
    worse, better = judge(random, bundle, PATIENT), judge(bundle, random, PATIENT)
    assert worse.objections == (f"its NDCG@10 is significantly worse than that of {bundle.version}",)
    assert better.passes
    assert "random does not pass" in worse.sentence
    assert worse.comparison is not None
    assert f"{worse.comparison.difference.mean:+.4f}" in worse.sentence


def test_a_model_is_not_worse_because_it_would_show_what_nobody_was_shown(
    bundle: ModelBundle, random: ModelBundle
) -> None:
    test = bundle.split.test
    columns = {"user": test.user_codes, "item": test.item_codes, "timestamp": test.timestamps}
    alone = pl.DataFrame(columns).with_columns(position=1)
    beside = pl.concat([alone, alone.with_columns(item=(pl.col("item") + 1) % len(bundle.item_ids))])  # of other taste
    found = []
    for shown in (alone, beside):
        split = replace(bundle.split, shown=ShowingLog.from_impressions(shown, test.n_users))
        found.append(judge(with_split(random, split), with_split(bundle, split), PATIENT))
    among, whole = (
        f"its NDCG@10 is significantly worse than that of {bundle.version}",
        f"in the whole catalogue it finds less than a quarter of what {bundle.version} finds",
    )
    assert [verdict.objections for verdict in found] == [(whole,), (among, whole)]
    assert found[0].comparison is not None
    assert found[0].comparison.difference.mean == 0
    assert "among what they were shown" in found[0].sentence


def test_difference_and_interval_are_those_of_the_same_users_in_evaluation(
    bundle: ModelBundle, random: ModelBundle
) -> None:
    task = task_of(bundle.split)
    theirs, ours = (evaluate_bundle(each, task, (10,))[-1].per_user["ndcg@10"] for each in (bundle, random))
    found = judge(random, bundle, PATIENT).comparison
    assert found is not None
    assert found.difference == paired_bootstrap(ours, theirs).absolute
    assert found.difference.mean == pytest.approx(ours.mean() - theirs.mean())


def test_a_loss_within_the_interval_passes(bundle: ModelBundle) -> None:
    """One user of sixty for whom the model has become useless proves nothing."""
    towers = replace(bundle, ranker=None)
    served_best = int(evaluate_bundle(towers, task_of(bundle.split), (10,))[-1].per_user["ndcg@10"].argmax())

    class Contrary(UserTower):
        def vectors(self, history: Interactions, user_codes: IntArray, now: LongArray) -> FloatArray:
            vectors = super().vectors(history, user_codes, now)
            vectors[user_codes == served_best] *= -1
            return vectors

    verdict = judge(replace(towers, user_tower=as_kind(Contrary, bundle.user_tower)), towers, PATIENT)
    assert verdict.passes
    assert verdict.comparison is not None
    assert verdict.comparison.difference.mean < 0 <= verdict.comparison.difference.high


def test_fewer_users_are_looked_at_where_there_are_more_than_wanted(bundle: ModelBundle, random: ModelBundle) -> None:
    found = judge(random, bundle, replace(PATIENT, n_users=20)).comparison
    assert found is not None
    assert found.n_users == 20


def test_models_that_cannot_be_compared_are_refused_with_the_reason(
    bundle: ModelBundle, dataset: RecommendationDataset
) -> None:
    others = replace(named(bundle, "others"), item_ids=IdMap(pl.Series([f"i{n}" for n in range(N_ITEMS)])))
    with pytest.raises(DataError, match=r"others was trained on other data .* no user or no item in common"):
        judge(others, bundle, PATIENT)
    again = replace(named(bundle, "again"), config=tiny_config(data={"repeat_items": True}))
    with pytest.raises(DataError, match="differ in whether items may come again"):
        judge(again, bundle, PATIENT)


def test_what_one_of_them_has_learned_from_does_not_count(bundle: ModelBundle, dataset: RecommendationDataset) -> None:
    """Held out in time, from one that left out the last of each user: it has learned from all but these."""
    later = with_split(named(bundle, "later"), temporal_split(dataset.interactions))
    found = judge(later, bundle, PATIENT).comparison
    assert found is not None
    of_both = set(zip(*rows_of(later.split.test), strict=True)) & set(zip(*rows_of(bundle.split.test), strict=True))
    assert found.n_learned == len(later.split.test) - len(of_both) > 0
    assert found.n_users == len({user for user, *_ in of_both}) > 20
    assert f"{found.n_learned} held-out interactions that {bundle.version} has learned from" in later_sentence(found)


def rows_of(part: Interactions) -> tuple[list[int], list[int], list[int]]:
    return part.user_codes.tolist(), part.item_codes.tolist(), part.timestamps.tolist()


def later_sentence(found: Comparison) -> str:
    return GateVerdict("later", found, ()).sentence


def test_where_nothing_is_held_out_only_time_is_judged(bundle: ModelBundle, slow: ModelBundle) -> None:
    nothing = bundle.split.test.where(np.zeros(len(bundle.split.test), dtype=np.bool_))
    everything = bundle.split.validation.where(np.zeros(len(bundle.split.validation), dtype=np.bool_))
    split = replace(bundle.split, validation=everything, test=nothing)
    verdict = judge(with_split(bundle, split), with_split(bundle, split), PATIENT)
    assert verdict.passes
    assert "passes, as it is not too slow" in verdict.sentence
    assert "NDCG@10 was not compared, as 0 users have anything held out" in verdict.sentence
    assert not judge(with_split(slow, split), with_split(bundle, split), replace(PATIENT, max_p99_ms=15)).passes


def test_a_slow_model_does_not_pass(bundle: ModelBundle, slow: ModelBundle) -> None:
    for limits, objection in (
        (replace(FEW_USERS, max_p99_ms=15), "its slowest requests take longer than 15 ms"),
        (replace(FEW_USERS, max_slowdown=1.5), "it takes more than 1.5 times as long"),
    ):
        assert judge(slow, bundle, limits).objections == (objection,)
    assert judge(slow, slow, replace(FEW_USERS, max_slowdown=1.5)).passes


NOW = Latency(median_ms=4.0, p99_ms=9.0)
WORSE, TOO_LONG, SLOWER = "NDCG@10 is significantly worse", "longer than 50 ms", "more than 2 times as long"
MEASURED = {
    "worse by more than chance": (Estimate(-0.02, -0.03, -0.001), NOW, NOW, (WORSE,)),
    "worse, perhaps by chance": (Estimate(-0.02, -0.05, 0.0), NOW, NOW, ()),
    "better": (Estimate(0.02, 0.01, 0.03), NOW, NOW, ()),
    "nobody to measure on": (Estimate(np.nan, np.nan, np.nan), NOW, NOW, ()),
    "at the limits": (Estimate(0, 0, 0), Latency(8.0, 50.0), NOW, ()),
    "above one limit": (Estimate(0, 0, 0), Latency(8.0, 50.1), NOW, (TOO_LONG,)),
    "above the other": (Estimate(0, 0, 0), Latency(8.1, 50.0), NOW, (SLOWER,)),
    "slower, and nobody feels it": (Estimate(0, 0, 0), Latency(1.9, 3.0), Latency(0.1, 0.2), ()),
    "everything": (Estimate(-1, -1, -1), Latency(99, 99), NOW, (WORSE, TOO_LONG, SLOWER)),
}


@pytest.mark.parametrize("case", list(MEASURED))
def test_what_speaks_against_a_candidate(case: str) -> None:
    difference, latency, current_latency, expected = MEASURED[case]
    found = objections(Comparison("now", 10, difference, latency, current_latency), GateLimits())
    assert len(found) == len(expected)
    assert all(part in objection for part, objection in zip(expected, found, strict=True))


N_NEW_ITEMS = 10
TOWERS_ONLY = tiny_config(ctr={"model_type": "none"})


def before(frame: pl.DataFrame) -> pl.DataFrame:
    """Return what the log held five days before its end, when neither the last items nor the last users had come."""
    is_old = pl.col("timestamp") < frame["timestamp"].max() - 5 * 86_400  # type: ignore[operator]
    return frame.filter(is_old, pl.col("user_id") < N_USERS - 6, pl.col("item_id") < 100 + N_ITEMS - 4)


def shuffled(dataset: RecommendationDataset) -> Split:
    """Return the parts as ever, but for that anybody has liked anything in the one that towers learn from."""
    split = leave_one_out(dataset.interactions)
    codes = np.random.default_rng(0).permutation(split.train.item_codes)
    nothing = split.validation.where(np.zeros(len(split.validation), dtype=np.bool_))
    return replace(split, train=replace(split.train, item_codes=codes), validation=nothing)


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with two versions that know a shorter log: one that makes sense and is current, one that does not."""
    directory = tmp_path_factory.mktemp("yesterday")
    log = before(interactions_frame())
    known = items_frame().filter(pl.col("item_id").is_in(log["item_id"].unique().to_list()))
    dataset = RecommendationDataset(log, None, known)
    senseless = train(dataset, TOWERS_ONLY, directory, name="log", split=shuffled(dataset))
    assert senseless.is_current
    assert train(dataset, TOWERS_ONLY, directory, name="log").is_current
    return directory


def test_a_version_that_knows_a_longer_log_is_compared_and_refused_where_it_is_worse(
    yesterday: Path, dataset: RecommendationDataset, tmp_path: Path
) -> None:
    shutil.copytree(yesterday, tmp_path / "models")
    registry = ModelRegistry(tmp_path / "models")
    current = registry.current()
    worse = train(dataset, TOWERS_ONLY, registry.model_dir, name="log", split=shuffled(dataset))
    assert not worse.is_current
    assert registry.current() == current
    assert f"does not pass, as its NDCG@10 is significantly worse than that of {current}" in worse.gate
    assert f"{current} knows {N_NEW_ITEMS} new items by their descriptions only" in worse.gate


def test_a_version_that_knows_a_longer_log_takes_over_where_it_is_better(yesterday: Path, bundle: ModelBundle) -> None:
    senseless, sensible = (open_bundle(path) for path in sorted(yesterday.glob("2*")))
    better, as_good = judge(bundle, senseless, PATIENT), judge(bundle, sensible, PATIENT)
    assert better.passes
    assert as_good.passes
    for verdict in (better, as_good):
        assert verdict.comparison is not None
        # Everybody has done something since, so nothing that is held out now was known then.
        assert (verdict.comparison.n_users, verdict.comparison.n_learned) == (N_USERS, 0)
    assert better.comparison is not None
    assert better.comparison.difference.low > 0


def test_the_earlier_version_is_asked_in_the_codes_of_the_later_one(yesterday: Path, bundle: ModelBundle) -> None:
    current = open_bundle(yesterday)
    found = common_task(bundle, current)
    codes = current.item_ids.codes(bundle.item_ids.ids.to_list())
    is_new = codes < 0
    assert (found.n_new_items, is_new.sum()) == (N_NEW_ITEMS, N_NEW_ITEMS)
    assert np.array_equal(found.current.index.vectors[~is_new], current.index.vectors[codes[~is_new]])
    encoded = current.item_tower.encode(bundle.items.filter(pl.Series(is_new)))
    assert np.array_equal(found.current.tower.item_inputs[is_new], encoded[0])
    assert np.array_equal(found.current.index.vectors[is_new], encoded[1])
    history = found.task.history
    for user in (0, 7, N_USERS - 1):  # the last of them is new
        now = int(history.timestamps.max())
        state = state_of(history, user, now)
        known = ~is_new[state.item_codes]
        theirs = UserState(
            user_code=current.user_ids.code(int(bundle.user_ids[user])),
            item_codes=codes[state.item_codes[known]],
            weights=state.weights[known],
            timestamps=state.timestamps[known],
            now=now,
        )
        asked = replace(
            state, **{name: getattr(state, name)[known] for name in ("item_codes", "weights", "timestamps")}
        )
        vector, expected = found.current.tower.vector(asked), current.user_tower.vector(theirs)
        assert vector is not None
        assert expected is not None
        np.testing.assert_allclose(vector, expected, rtol=1e-5)


def test_a_tower_that_reads_the_ids_of_users_is_asked_for_those_it_knows_only(
    yesterday: Path, bundle: ModelBundle
) -> None:
    current = open_bundle(yesterday)
    inputs = np.ones((len(current.user_ids), 16), dtype=np.float32)
    by_id = replace(current, user_tower=replace(current.user_tower, user_inputs=inputs))
    users = np.unique(common_task(bundle, by_id).task.targets.user_codes)
    assert users.tolist() == list(range(N_USERS - 6))


def test_latency_counts_each_user_with_his_fastest_request(bundle: ModelBundle, slow: ModelBundle) -> None:
    quick, dawdling = measure_latency(bundle, slow, 5)
    assert dawdling.median_ms >= quick.median_ms + 15
    assert 0 < quick.median_ms <= quick.p99_ms
    assert 20 <= dawdling.median_ms <= dawdling.p99_ms


@pytest.fixture
def registry(model_dir: Path, tmp_path: Path) -> ModelRegistry:
    """A registry that a test may damage: the trained version is current, and a copy of it waits."""
    shutil.copytree(model_dir, tmp_path / "models")
    shutil.copytree(find_bundle(tmp_path / "models"), tmp_path / "models" / "20200101-000000-aaaaaa")
    return ModelRegistry(tmp_path / "models")


def test_a_version_is_judged_against_the_current_one(registry: ModelRegistry) -> None:
    verdict = judge_version(registry, "20200101-000000-aaaaaa", PATIENT)
    assert verdict.comparison is not None
    assert verdict.comparison.current == registry.current()


def test_a_current_version_that_cannot_be_opened_is_no_hindrance(registry: ModelRegistry) -> None:
    (registry.model_dir / str(registry.current()) / "ranker.txt").write_text("damaged")
    verdict = judge_version(registry, "20200101-000000-aaaaaa", PATIENT)
    assert (verdict.passes, verdict.comparison) == (True, None)
    assert "cannot be opened" in verdict.sentence
    assert "ranker.txt" in verdict.sentence
    assert "no current model" not in verdict.sentence
    (registry.model_dir / CURRENT).unlink()
    assert judge_version(registry, "20200101-000000-aaaaaa", PATIENT).passes


def test_a_version_that_is_damaged_or_not_there_is_refused(registry: ModelRegistry) -> None:
    with pytest.raises(NotFoundError, match="no version 'v9'"):
        judge_version(registry, "v9", PATIENT)
    (registry.model_dir / "20200101-000000-aaaaaa" / "ranker.txt").write_text("damaged")
    with pytest.raises(BundleError, match="damaged"):
        judge_version(registry, "20200101-000000-aaaaaa", PATIENT)
    open_bundle(registry.model_dir)
