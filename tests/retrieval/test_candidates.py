"""What every source owes, and what their union keeps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.state import COLD, UserState
from rec_engine.retrieval.candidates import PopularitySource, Source, TowerSource, recall
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.filters import Eligible
from rec_engine.utils.config import FaissSettings

N_ITEMS = 7_000
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((N_ITEMS, 8)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
INDEX = FAISSIndex.build(VECTORS, FaissSettings(index_type="IVF"))
POPULARITY = RNG.integers(0, 50, N_ITEMS).astype(np.float32)
WARM = UserState(3, np.array([1, 2, 3], dtype=np.int32), np.array([1, 1, -1], dtype=np.float32))
NOTHING_KNOWN = UserState(COLD, np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))


def tower(min_score: float = -1.0) -> TowerSource:
    return TowerSource(INDEX, lambda state: VECTORS[state.liked[-1]] if len(state.liked) else None, min_score)


SOURCES: list[Source] = [tower(), PopularitySource(POPULARITY)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
@settings(max_examples=30, deadline=None)
@given(share=st.sampled_from([0.0, 0.0005, 0.01, 0.4, 0.9, 1.0]), k=st.integers(1, 700), seed=st.integers(0, 99))
def test_sources_offer_min_of_k_and_eligible_best_first(source: Source, share: float, k: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random(N_ITEMS) < share
    codes, scores = source.retrieve(WARM, Eligible.of_mask(mask), k)
    assert len(codes) == len(set(codes.tolist())) == min(k, int(mask.sum()))
    assert mask[codes].all()
    assert (np.diff(scores) <= 0).all()
    again, _ = source.retrieve(WARM, Eligible.of_mask(mask), k)
    assert np.array_equal(codes, again)


def test_popularity_orders_equal_items_by_code_in_narrow_and_wide_sets() -> None:
    source = PopularitySource(np.zeros(N_ITEMS, dtype=np.float32))
    wide = source.retrieve(WARM, Eligible.everything(N_ITEMS), 5)[0]
    narrow = source.retrieve(WARM, Eligible.of_codes(np.array([9, 4, 7], dtype=np.int32), N_ITEMS), 5)[0]
    assert wide.tolist() == [0, 1, 2, 3, 4]
    assert narrow.tolist() == [4, 7, 9]


def test_towers_offer_nothing_to_users_of_whom_nothing_is_known() -> None:
    assert len(tower().retrieve(NOTHING_KNOWN, Eligible.everything(N_ITEMS), 10)[0]) == 0


def test_towers_offer_nothing_below_the_threshold() -> None:
    scores = tower(min_score=0.8).retrieve(WARM, Eligible.everything(N_ITEMS), 500)[1]
    assert 0 < len(scores) < 500
    assert scores.min() >= 0.8


def test_union_keeps_each_sources_score() -> None:
    found = recall(SOURCES, WARM, Eligible.everything(N_ITEMS), 50)
    assert (np.diff(found.item_codes) > 0).all()
    for source in SOURCES:
        codes, scores = source.retrieve(WARM, Eligible.everything(N_ITEMS), 50)
        kept = found.score_of(source.name)
        assert np.isfinite(kept).sum() == len(codes)
        assert np.allclose(kept[np.searchsorted(found.item_codes, codes)], scores)
