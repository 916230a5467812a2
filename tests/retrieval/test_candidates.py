"""What every source owes, and what their union keeps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from worlds import interactions, user_state

from rec_engine.data.dataset import IntArray
from rec_engine.data.timeline import Timeline
from rec_engine.retrieval.candidates import (
    CandidateGenerator,
    HistorySource,
    LinkSource,
    PopularitySource,
    RecentPopularitySource,
    Source,
    TowerSource,
)
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.links import Links
from rec_engine.utils.config import FaissSettings

N_ITEMS = 7_000
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((N_ITEMS, 8)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
INDEX = FAISSIndex.build(VECTORS, FaissSettings(index_type="IVF"))
POPULARITY = RNG.integers(0, 50, N_ITEMS).astype(np.float32)
WARM = user_state([1, 2, 3], [1, 1, -1], user_code=3)
NOTHING_KNOWN = user_state([])
PAIRS = RNG.integers(0, N_ITEMS, (2, 900_000))
STRENGTHS = RNG.random(900_000).astype(np.float32)
LINKS = Links.strongest(sparse.csr_array((STRENGTHS, (PAIRS[0], PAIRS[1])), shape=(N_ITEMS, N_ITEMS)), 150)
TIMELINE = Timeline(interactions([RNG.integers(0, N_ITEMS, 3_000).tolist()]), N_ITEMS)


def tower(min_score: float = -1.0, only: IntArray | None = None) -> TowerSource:
    return TowerSource(INDEX, lambda state: VECTORS[state.liked[-1]] if len(state.liked) else None, min_score, only)


SOURCES: list[Source] = [
    tower(),
    LinkSource(LINKS, "co-visitation", last=10),
    LinkSource(LINKS, "similar"),
    HistorySource(),
    RecentPopularitySource(TIMELINE),
    PopularitySource(POPULARITY),
]
COMPLETE = ("tower", "popularity")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
@settings(max_examples=30, deadline=None)
@given(share=st.sampled_from([0.0, 0.0005, 0.01, 0.4, 0.9, 1.0]), k=st.integers(1, 700), seed=st.integers(0, 99))
def test_sources_offer_eligible_items_best_first(source: Source, share: float, k: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random(N_ITEMS) < share
    offer = source.ask(WARM)
    assert offer is not None
    codes = offer.best(Eligible.of_mask(mask), k)
    assert len(codes) == len(set(codes.tolist())) <= min(k, int(mask.sum()))
    assert len(codes) == min(k, int(mask.sum())) or source.name not in COMPLETE
    assert mask[codes].all()
    scores = offer.scores(codes)
    assert (np.diff(scores) <= 1e-6).all()
    everything = offer.scores(np.flatnonzero(mask).astype(np.int32))
    positive = everything[everything > 0] if source.name not in COMPLETE else everything
    assert len(codes) == min(k, len(positive))
    if source.name != "tower":  # whose index may miss one in a hundred
        assert np.allclose(np.sort(scores)[::-1], np.sort(positive)[::-1][: len(scores)], atol=1e-6)
    assert np.array_equal(codes, offer.best(Eligible.of_mask(mask), k))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 60))
def test_offers_by_score_are_a_stable_sort(scores: list[int], k: int) -> None:
    links = Links(sparse.coo_array(np.outer(np.arange(len(scores)) == 0, scores).astype(np.float32)).tocsr())
    offer = LinkSource(links, "similar").ask(user_state([0]))
    assert offer is not None
    expected = [code for code in sorted(range(len(scores)), key=lambda code: -scores[code]) if scores[code] > 0][:k]
    assert offer.best(Eligible.everything(len(scores)), k).tolist() == expected


def test_popularity_orders_equal_items_by_code_in_narrow_and_wide_sets() -> None:
    source = PopularitySource(np.zeros(N_ITEMS, dtype=np.float32)).ask(WARM)
    wide = source.best(Eligible.everything(N_ITEMS), 5)
    narrow = source.best(Eligible.of_codes(np.array([9, 4, 7], dtype=np.int32), N_ITEMS), 5)
    assert wide.tolist() == [0, 1, 2, 3, 4]
    assert narrow.tolist() == [4, 7, 9]


@pytest.mark.parametrize("source", SOURCES[:4], ids=lambda source: source.name)
def test_personal_sources_offer_nothing_to_users_of_whom_nothing_is_known(source: Source) -> None:
    assert source.ask(NOTHING_KNOWN) is None


def test_towers_offer_nothing_below_the_threshold_and_nothing_outside_their_items() -> None:
    offer = tower(min_score=0.8).ask(WARM)
    assert offer is not None
    found = offer.best(Eligible.everything(N_ITEMS), 500)
    assert 0 < len(found) < 500
    assert offer.scores(found).min() >= 0.8
    few = tower(only=np.array([5, 6, 7], dtype=np.int32)).ask(WARM)
    assert few is not None
    assert set(few.best(Eligible.everything(N_ITEMS), 500).tolist()) == {5, 6, 7}


def test_latest_items_count_most_and_all_items_alike() -> None:
    dense = np.zeros((6, 6), dtype=np.float32)
    dense[0, 3], dense[1, 4], dense[2, 5] = 1, 1, 1
    links = Links(sparse.coo_array(dense).tocsr())
    state, items = user_state([0, 1, 2]), np.array([3, 4, 5], dtype=np.int32)
    latest, alike = LinkSource(links, "co-visitation", last=2).ask(state), LinkSource(links, "similar").ask(state)
    assert latest is not None
    assert alike is not None
    assert latest.scores(items).tolist() == [0, 0.5, 1]
    assert alike.scores(items).tolist() == [1, 1, 1]


def test_union_keeps_each_sources_rank_and_asks_all_of_them_for_a_score() -> None:
    everything = Eligible.everything(N_ITEMS)
    found = CandidateGenerator(SOURCES).generate(WARM, everything, k=5, n_candidates=50)
    assert (np.diff(found.item_codes) > 0).all()
    for source in SOURCES:
        offer = source.ask(WARM)
        assert offer is not None
        codes = offer.best(everything, max(5, int(50 * source.share)))
        ranks = found.rank_of(source.name)
        assert np.array_equal(ranks[np.searchsorted(found.item_codes, codes)], np.arange(1, len(codes) + 1))
        assert np.isfinite(ranks).sum() == len(codes)
        assert np.allclose(found.score_of(source.name), offer.scores(found.item_codes))


def test_a_user_of_whom_nothing_is_known_gets_popular_items_and_no_personal_score() -> None:
    found = CandidateGenerator(SOURCES).generate(NOTHING_KNOWN, Eligible.everything(N_ITEMS), k=5, n_candidates=50)
    assert np.isnan(found.score_of("tower")).all()
    # All that it was asked for, not the five that are shown: an order with caps needs others to choose from.
    assert np.isfinite(found.rank_of("popularity")).sum() == 50
