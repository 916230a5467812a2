"""Arranging chooses among candidates: it adds none, loses none, and knows the probabilities of what it draws.

Pins have their places, whatever else is heeded.
"""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from worlds import interactions

from rec_engine.data.dataset import FloatArray
from rec_engine.data.timeline import Timeline
from rec_engine.models.features import ItemTable
from rec_engine.retrieval.filters import Eligible
from rec_engine.serving.arrange import BY_SCORE, Arrangement, Slate, arrange
from rec_engine.serving.directives import NO_DIRECTIVES, Directives, Pin, Shift, shifted

N = 12
RNG = np.random.default_rng(0)
VECTORS: FloatArray = RNG.standard_normal((N, 4)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
ITEMS = ItemTable(VECTORS, Timeline(interactions([[0]]), N), np.zeros(N, dtype=np.uint64), {})
CODES = np.arange(N, dtype=np.int32)
LABELS = {"brand": (CODES % 3 - 1).astype(np.int32)}  # -1 is no brand

arrangements = st.builds(
    Arrangement,
    diversity=st.sampled_from([0.0, 0.3, 1.0]),
    caps=st.sampled_from([{}, {"brand": 1}, {"brand": 2}]),
    labels=st.just(LABELS),
    seed=st.integers(0, 5),
) | st.builds(
    Arrangement,
    exploration=st.sampled_from([0.1, 1.0, 10.0]),
    new_item_share=st.sampled_from([0.0, 0.3]),
    caps=st.sampled_from([{}, {"brand": 1}]),
    labels=st.just(LABELS),
    seed=st.integers(0, 5),
)
scores = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=N)
directives = st.builds(
    Directives,
    pins=st.lists(st.builds(Pin, st.just("rule"), st.integers(0, N + 2), st.integers(1, 18)), max_size=8).map(tuple),
    n_before=st.integers(0, 6),
)


def pinning(positions: dict[int, int], n_before: int = 0) -> Directives:
    pins = tuple(Pin(f"pins {item}", item, position) for item, position in positions.items())
    return Directives(pins=pins, n_before=n_before)


NEW: FloatArray = np.where(CODES % 4 == 1, CODES // 4 + 1, np.nan).astype(np.float32)
"""Ranks among the new items, which are 1, 5 and 9."""


def arranged(values: list[float], k: int, arrangement: Arrangement, asked: Directives = NO_DIRECTIVES) -> Slate:
    n = len(values)
    return arrange(np.array(values, dtype=np.float32), CODES[:n], k, arrangement, ITEMS, asked, NEW[:n])


@given(values=scores, k=st.integers(1, 15), arrangement=arrangements, asked=st.just(NO_DIRECTIVES) | directives)
def test_a_slate_is_complete_without_repetition_and_has_probabilities(
    values: list[float], k: int, arrangement: Arrangement, asked: Directives
) -> None:
    slate = arranged(values, k, arrangement, asked)
    assert len(slate.places) == len(set(slate.places.tolist())) == min(k, len(values))
    assert ((slate.propensities > 0) & (slate.propensities <= 1)).all()
    assert not set(slate.held_back) & set(slate.places.tolist())


@given(values=scores, k=st.integers(1, 15))
def test_by_score_alone_the_best_come_first_equal_ones_by_code(values: list[float], k: int) -> None:
    expected = sorted(range(len(values)), key=lambda place: (-np.float32(values[place]), place))[:k]
    assert arranged(values, k, BY_SCORE).places.tolist() == expected


@given(values=st.lists(st.floats(-5, 5, width=32), min_size=N, max_size=N), cap=st.integers(1, 3))
def test_caps_hold_as_long_as_there_are_others(values: list[float], cap: int) -> None:
    slate = arranged(values, 4 + 2 * cap, Arrangement(caps={"brand": cap}, labels=LABELS))
    brands = LABELS["brand"][slate.places]
    assert all((brands == brand).sum() <= cap for brand in (0, 1))


def test_diversity_takes_the_unlike_one_of_two_equally_good() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    items = ItemTable(vectors, ITEMS.timeline, np.zeros(3, dtype=np.uint64), {})
    scores = np.array([3.0, 2.9, 2.8], dtype=np.float32)
    plain = arrange(scores, CODES[:3], 2, BY_SCORE, items)
    diverse = arrange(scores, CODES[:3], 2, Arrangement(diversity=0.7), items)
    assert (plain.places.tolist(), diverse.places.tolist()) == ([0, 1], [0, 2])


@pytest.mark.parametrize("caps", [{}, {"brand": 1}])
def test_propensities_are_the_shares_with_which_slates_are_drawn(caps: dict[str, int]) -> None:
    values, labels = [1.0, 0.5, 0.0], {"brand": np.array([0, 0, 1], dtype=np.int32)}
    n_draws = 4_000
    counts = dict.fromkeys(itertools.permutations(range(3)), 0)
    probability: dict[tuple[int, ...], float] = {}
    for seed in range(n_draws):
        slate = arranged(values, 3, Arrangement(exploration=1.0, caps=caps, labels=labels, seed=seed))
        order = tuple(slate.places.tolist())
        counts[order] += 1
        probability[order] = float(slate.propensities.prod())
    assert sum(probability.values()) == pytest.approx(1.0)
    for order, expected in probability.items():
        spread = 4 * np.sqrt(expected * (1 - expected) / n_draws)
        assert abs(counts[order] / n_draws - expected) < spread


@given(
    values=scores,
    k=st.integers(1, 15),
    arrangement=arrangements,
    positions=st.dictionaries(st.integers(0, N + 2), st.integers(1, 18), max_size=8),
    n_before=st.integers(0, 6),
)
def test_what_is_pinned_stands_at_its_place_with_certainty(
    values: list[float], k: int, arrangement: Arrangement, positions: dict[int, int], n_before: int
) -> None:
    positions = {item: at for item, at in positions.items() if list(positions.values()).count(at) == 1}
    positions = {item: at for item, at in positions.items() if at > n_before}
    slate = arranged(values, k, arrangement, pinning(positions, n_before))
    places = slate.places.tolist()
    for item, position in positions.items():
        if item < len(values) and position - n_before <= len(places):
            assert places[position - n_before - 1] == item
            assert slate.propensities[position - n_before - 1] == 1
            assert slate.pinned[item] == f"pins {item}"
    assert set(slate.pinned) <= set(positions)


@given(values=scores, k=st.integers(1, 15), asked=directives)
def test_around_the_pins_the_others_keep_their_order(values: list[float], k: int, asked: Directives) -> None:
    slate = arranged(values, k, BY_SCORE, asked)
    pinned = {pin.item_code for pin in asked.pins}
    by_score = [place for place in arranged(values, N, BY_SCORE).places.tolist() if place not in pinned]
    shown = [place for place in slate.places.tolist() if place not in pinned]
    assert shown == by_score[: len(shown)]


@given(
    values=st.lists(st.floats(-5, 5, width=32), min_size=N, max_size=N),
    asked=directives.map(lambda found: Directives(pins=found.pins)),
    length=st.integers(1, 6),
)
def test_pages_are_the_pieces_of_one_list(values: list[float], asked: Directives, length: int) -> None:
    slate = arranged(values, N, BY_SCORE, asked)
    assume(len(slate.pinned) == len({pin.item_code for pin in asked.pins if pin.item_code < N}))
    whole = slate.places.tolist()
    pages: list[int] = []
    while left := [code for code in CODES.tolist() if code not in pages]:
        page = Directives(pins=asked.pins, n_before=len(pages))
        of_those = np.array([values[code] for code in left], dtype=np.float32)
        places = arrange(of_those, np.array(left, dtype=np.int32), length, BY_SCORE, ITEMS, page).places
        pages += [left[place] for place in places.tolist()]
    assert pages == whole


def test_of_two_pins_for_one_place_the_second_takes_the_next_free_one() -> None:
    asked = pinning({3: 1, 4: 1, 5: 2})
    assert arranged([5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 4, BY_SCORE, asked).places.tolist() == [3, 4, 5, 0]


def test_however_much_is_pinned_to_later_pages_others_are_shown_as_long_as_there_are_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rec_engine.serving.arrange.MIN_POOL", 1)
    best_first = [float(-item) for item in range(N)]
    later = pinning({item: 10 + item for item in range(N - 2)})
    for arrangement in (BY_SCORE, Arrangement(diversity=0.3), Arrangement(exploration=0.1)):
        assert set(arranged(best_first, 2, arrangement, later).places.tolist()) == {N - 2, N - 1}
        assert set(arranged(best_first, 3, arrangement, later).places.tolist()) > {N - 2, N - 1}


def test_what_is_pinned_to_a_later_page_waits_for_it_as_long_as_there_are_others() -> None:
    asked = pinning({0: 4})
    assert arranged([5.0, 4.0, 3.0, 2.0], 2, BY_SCORE, asked).places.tolist() == [1, 2]
    assert arranged([5.0, 4.0], 2, BY_SCORE, asked).places.tolist() == [1, 0]


def test_pins_count_for_caps_wherever_they_stand() -> None:
    labels = {"brand": np.array([0, 0, 1, 2], dtype=np.int32)}
    capped = Arrangement(caps={"brand": 1}, labels=labels)
    assert arranged([4.0, 3.0, 2.0, 1.0], 3, capped, pinning({1: 3})).places.tolist() == [2, 3, 1]
    assert arranged([4.0, 3.0, 2.0, 1.0], 3, capped, pinning({1: 3, 0: 2})).places.tolist() == [2, 0, 1]


def test_a_pin_is_no_part_of_what_exploration_draws() -> None:
    values, n_draws = [1.0, 0.5, 0.0, -9.0], 4_000
    counts, probability = dict.fromkeys(itertools.permutations(range(3)), 0), dict[tuple[int, ...], float]()
    for seed in range(n_draws):
        slate = arranged(values, 4, Arrangement(exploration=1.0, seed=seed), pinning({3: 2}))
        first, pinned, *others = slate.places.tolist()
        assert pinned == 3
        counts[first, *others] += 1
        probability[first, *others] = float(slate.propensities.prod())
    assert sum(probability.values()) == pytest.approx(1.0)
    for order, expected in probability.items():
        spread = 4 * np.sqrt(expected * (1 - expected) / n_draws)
        assert abs(counts[order] / n_draws - expected) < spread


shifts = st.lists(
    st.tuples(st.sets(st.integers(0, N - 1)), st.floats(-20, 20, width=32)).map(
        lambda drawn: Shift("rule", Eligible.of_codes(np.array(sorted(drawn[0]), dtype=np.int32), N), drawn[1])
    ),
    min_size=1,
    max_size=3,
)


@given(values=scores, asked=shifts, are_log_odds=st.booleans())
def test_items_that_are_shifted_alike_keep_their_order(
    values: list[float], asked: list[Shift], are_log_odds: bool
) -> None:
    found, codes = np.array(values, dtype=np.float32), CODES[: len(values)]
    after = shifted(found, codes, asked, are_log_odds=are_log_odds)
    added = sum(np.float32(shift.by) * shift.items.keeps(codes) for shift in asked)
    for amount in np.unique(added):
        alike = np.flatnonzero(added == amount)
        before = alike[np.argsort(-found[alike], kind="stable")]
        assert (np.diff(after[before]) <= 0).all()
    assert after.dtype == np.float32


def test_a_boost_multiplies_the_odds_that_the_ranker_gives() -> None:
    one = Shift("rule", Eligible.of_codes(CODES[1:2], N), 1.5)
    after = shifted(np.array([1.0, -0.25], dtype=np.float32), CODES[:2], [one], are_log_odds=True)
    assert after.tolist() == [1.0, 1.25]


@pytest.mark.parametrize("scale", [1.0, 0.01, 100.0])
def test_without_a_ranker_a_boost_means_the_same_on_every_scale_of_scores(scale: float) -> None:
    n, place = 300, 27
    scores = (scale * np.arange(n, 0, -1)).astype(np.float32)
    codes = np.arange(n, dtype=np.int32)
    for by, expected in ((1.0, 10), (2.0, 4), (20.0, 1), (-1.0, 63)):
        one = Shift("rule", Eligible.of_codes(codes[place - 1 : place], n), by)
        after = shifted(scores, codes, [one], are_log_odds=False)
        assert int((after > after[place - 1]).sum()) + 1 == pytest.approx(expected, abs=1)


def test_rules_about_none_of_the_candidates_leave_scores_alone() -> None:
    nothing = Shift("rule", Eligible.of_codes(CODES[:0], N), 1.0)
    scores = np.array([0.3, 0.1], dtype=np.float32)
    assert shifted(scores, CODES[:2], [nothing], are_log_odds=False) is scores


def test_new_items_have_their_share_of_the_drawn_places_however_low_they_score() -> None:
    n, n_draws, share = 80, 3_000, 0.2
    values, codes = np.linspace(9, -9, n, dtype=np.float32), np.arange(n, dtype=np.int32)
    ranks = np.full(n, np.nan, dtype=np.float32)
    ranks[[70, 75]] = 1, 2  # far below the best, of which alone the others are drawn
    world = ItemTable(np.zeros((n, 4), np.float32), Timeline(interactions([[0]]), n), np.zeros(n, np.uint64), {})
    counts = np.zeros(n)
    for seed in range(n_draws):
        arrangement = Arrangement(exploration=0.5, new_item_share=share, seed=seed)
        slate = arrange(values, codes, 1, arrangement, world, NO_DIRECTIVES, ranks)
        counts[slate.places[0]] += 1
        if slate.places[0] in (70, 75):
            assert slate.propensities[0] == pytest.approx(share * (2 / 3 if slate.places[0] == 70 else 1 / 3))
    for place, expected in ((70, share * 2 / 3), (75, share / 3)):
        assert abs(counts[place] / n_draws - expected) < 4 * np.sqrt(expected * (1 - expected) / n_draws)


def test_without_exploration_new_items_have_no_share() -> None:
    assert arranged([3.0, 1.0, 2.0], 2, Arrangement(new_item_share=0.5)).places.tolist() == [0, 2]
    caps = Arrangement(new_item_share=0.5, caps={"brand": 9}, labels=LABELS)
    assert arranged([3.0, 1.0, 2.0], 2, caps).places.tolist() == [0, 2]
