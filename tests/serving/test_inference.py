"""The request path without HTTP."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from conftest import tiny_config
from worlds import LATER

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.events import EventStore, Impression
from rec_engine.data.item_looks import NO_LOOKS
from rec_engine.data.live_showings import LiveShowings
from rec_engine.data.showing_log import load_showings
from rec_engine.data.state import COLD, state_of
from rec_engine.evaluation.evaluator import validation_task
from rec_engine.models.features import FEATURES, OF_LOOKS, OF_SHOWINGS, features
from rec_engine.models.lightgbm_ranker import CTRRanker, RankerRows
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path, evaluate_baselines
from rec_engine.pipeline.ranking import ranker_rows
from rec_engine.pipeline.train import train
from rec_engine.retrieval.budget import Budget
from rec_engine.serving.inference import Query, RecommendationInference
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.utils.config import CTRSettings, RecommendationSettings


@pytest.fixture
def inference(bundle: ModelBundle) -> RecommendationInference:
    return RecommendationInference.of(bundle, RecommendationSettings())


@pytest.mark.parametrize("user_code", [0, 7, COLD])
@pytest.mark.parametrize("n_eligible", [0, 1, 3, 11, 40])
def test_slate_has_min_of_k_and_eligible_distinct_eligible_items(
    bundle: ModelBundle, inference: RecommendationInference, user_code: int, n_eligible: int
) -> None:
    exclude = np.random.default_rng(n_eligible).permutation(40)[n_eligible:].astype(np.int32)
    trace = inference.recommend(Query(state_of(bundle.history, user_code, LATER), k=5, exclude=exclude))
    assert len(trace.item_codes) == len(set(trace.item_codes.tolist())) == min(5, trace.steps[-1][1].count())
    assert trace.steps[-1][1].keeps(trace.item_codes).all()


def test_the_same_query_gives_the_same_slate(bundle: ModelBundle, inference: RecommendationInference) -> None:
    query = Query(state_of(bundle.history, 3, LATER), k=20)
    assert np.array_equal(inference.recommend(query).item_codes, inference.recommend(query).item_codes)


def test_items_below_the_score_threshold_give_way_to_popular_ones(bundle: ModelBundle) -> None:
    strict = RecommendationInference.of(bundle, RecommendationSettings(min_score_threshold=1.0))
    trace = strict.recommend(Query(state_of(bundle.history, 3, LATER), k=5, use_reranking=False))
    assert len(trace.item_codes) == 5
    assert np.isnan(trace.candidates.rank_of("tower")).all()


def test_ranker_training_and_serving_see_the_same_features(bundle: ModelBundle, store: EventStore) -> None:
    known, ids = bundle.split.train, (bundle.user_ids, bundle.item_ids)
    user = np.unique(bundle.split.validation.user_codes)[:1].astype(np.int32)
    now = int(validation_task(bundle.split).request_times()[user[0]])
    for moment in (now - 4_000, now - 10, now + 4_000):  # of which an hour, or what is to come, says nothing
        shown = json.dumps([[100 + item, 0.5, 1.0, item + 1] for item in range(20, 40)])
        store.write([Impression(f"r{moment}", str(bundle.user_ids[int(user[0])]), moment, "v", shown, 0)])
    for moment in (now - 7_200, now - 90_000):
        shown = json.dumps([[100 + item, 0.5, 1.0, item + 1] for item in range(moment % 30)])
        store.write([Impression(f"s{moment}", "a stranger", moment, "v", shown, 0)])
    split = replace(bundle.split, shown=load_showings(store.url, *ids, since=now))
    path = assemble_path(replace(TrainedModel.of(bundle), ranker=None), known, split.shown)
    trained_on = ranker_rows(path, validation_task(split), user)
    live = LiveShowings(bundle.item_ids.code, store).of_user(bundle.user_ids[int(user[0])], now)
    served = path.recommend(Query(state_of(known, int(user[0]), now, live), k=10))
    service = LiveModel(reading_looks(replace(bundle, history=known)), RecommendationSettings(), store)
    LiveStatistics(service, store).refresh()
    items = replace(service.inference.items, links=path.items.links)
    matrix = features(state_of(known, int(user[0]), now, live), served.candidates, items)
    assert np.array_equal(trained_on.features, matrix, equal_nan=True)
    times_shown = matrix[:, list(FEATURES).index(OF_SHOWINGS[0])]
    assert set(times_shown.tolist()) == {0.0, float(np.log1p(np.float32(1)))}
    assert all(len(np.unique(matrix[:, list(FEATURES).index(name)])) > 2 for name in OF_LOOKS)
    taken = bundle.split.validation.items_of(int(user[0]))
    assert np.array_equal(served.candidates.item_codes[trained_on.labels == 1], np.unique(taken))


def reading_looks(bundle: ModelBundle) -> ModelBundle:
    """Return a version whose trees split by every feature, and that was trained before anything was shown."""
    values = np.random.default_rng(0).normal(size=(3_000, len(FEATURES))).astype(np.float32)
    rows = RankerRows(values, (values.sum(axis=1) > 0).astype(np.float32), np.full(100, 30))
    ranker = CTRRanker.fit(rows, rows, CTRSettings(objective="binary"), seed=0)
    return replace(bundle, ranker=ranker, read_looks=lambda: NO_LOOKS)


def test_without_reranking_the_order_is_the_towers(bundle: ModelBundle, inference: RecommendationInference) -> None:
    trace = inference.recommend(Query(state_of(bundle.history, 3, LATER), k=10, use_reranking=False))
    cosine = trace.candidates.score_of("tower")[trace.slate.places]
    assert trace.ranking_scores is None
    assert (np.diff(cosine[np.isfinite(cosine)]) <= 0).all()


def test_what_was_met_comes_again_only_where_it_may_and_never_when_disliked(
    dataset: RecommendationDataset, tmp_path: Path
) -> None:
    train(dataset, tiny_config(data={"repeat_items": True}), tmp_path, name="grocer")
    grocer = open_bundle(tmp_path)
    path = RecommendationInference.of(grocer, RecommendationSettings())
    met = grocer.history.items_of(3)
    state = state_of(grocer.history, 3, LATER)
    weights = np.where(state.item_codes == met[0], -1, state.weights).astype(np.float32)
    trace = path.recommend(Query(replace(state, weights=weights), k=40))
    assert set(met[1:].tolist()) <= set(trace.item_codes.tolist())
    assert met[0] not in trace.item_codes
    assert "history" in trace.candidates.sources
    assert set(path.generator.sources[-2].ask(state).best(path.catalogue.visible, 3).tolist()) <= set(met.tolist())  # type: ignore[union-attr]
    own = [found.name for found in evaluate_baselines(grocer.split, validation_task(grocer.split), 40, (10,))]
    assert "own history" in own


def test_an_answer_is_complete_however_late_it_is_and_names_what_there_was_no_time_for(
    bundle: ModelBundle, inference: RecommendationInference
) -> None:
    query = Query(state_of(bundle.history, 4, LATER), 10)
    whole = inference.recommend(query)
    wanted = [*inference.generator.names[:-1], "ranker"]
    for n_in_time in range(len(wanted) + 1):
        budget = Budget(n_in_time, itertools.count(1).__next__)
        trace = inference.recommend(query, budget=budget)
        assert budget.missing == wanted[n_in_time:]
        assert len(trace.item_codes) == 10
        assert trace.candidates.sources == whole.candidates.sources
    assert trace.item_codes.tolist() == whole.item_codes.tolist()


def test_a_user_tower_that_fails_costs_only_its_own_candidates(bundle: ModelBundle) -> None:
    broken = replace(bundle.user_tower, user_features=bundle.user_tower.user_features[:, :0])
    inference = RecommendationInference.of(replace(bundle, user_tower=broken), RecommendationSettings())
    budget = Budget()
    trace = inference.recommend(Query(state_of(bundle.history, 4, LATER), 10), budget=budget)
    assert budget.missing == ["tower", "new items"]
    assert len(trace.item_codes) == 10
    assert trace.ranking_scores is not None


def test_a_ranker_that_fails_leaves_the_order_to_retrieval(
    bundle: ModelBundle, inference: RecommendationInference
) -> None:
    assert bundle.ranker is not None
    query = Query(state_of(bundle.history, 4, LATER), 10)
    other_trees = lightgbm.train(
        {"verbose": -1, "min_data_in_leaf": 1}, lightgbm.Dataset(np.eye(3), label=[0, 1, 0]), num_boost_round=1
    )
    broken = CTRRanker(other_trees, "binary", 1.0, 0.0)
    broken._compiled = None
    budget = Budget()
    trace = RecommendationInference.of(replace(bundle, ranker=broken), RecommendationSettings()).recommend(
        query, budget=budget
    )
    assert budget.missing == ["ranker"]
    unranked = inference.recommend(replace(query, use_reranking=False))
    assert trace.item_codes.tolist() == unranked.item_codes.tolist()
