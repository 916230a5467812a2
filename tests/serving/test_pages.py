"""Pages that two arms fill by turns: full, with pins where they belong, and no probability that nobody knows."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.serving.pages import Page, PlacedItem, coins_of, drafted
from rec_engine.serving.schemas import ItemMetadata, RecommendedItem

TEAMS = ("exp/one", "exp/two")


def page(item_ids: list[int], pinned: frozenset[int] = frozenset(), degraded: tuple[str, ...] = ()) -> Page:
    metadata = ItemMetadata(source="tower", retrieval_score=0.5, ranking_score=None)
    items = [RecommendedItem(item_id, None, 0.5, [], "", metadata) for item_id in item_ids]
    placed = tuple(PlacedItem(item, 0.25, is_pinned=item.item_id in pinned) for item in items)
    return Page(placed, len(items), len(items), user_known=True, reranked=False, degraded=degraded, rule_ids=())


def ids(found: Page) -> list[object]:
    return [each.item.item_id for each in found.items]


RANKING = st.lists(st.integers(0, 20), max_size=8, unique=True)


@given(first=RANKING, second=RANKING, n=st.integers(1, 8), seed=st.integers(0, 100))
def test_a_draft_is_full_and_every_item_is_its_teams_own(
    first: list[int], second: list[int], n: int, seed: int
) -> None:
    found = drafted([page(first[:n]), page(second[:n])], TEAMS, n, np.random.default_rng(seed))
    assert len(found.items) == min(n, len({*first[:n], *second[:n]}))
    assert len(set(ids(found))) == len(found.items)
    for each in found.items:
        assert each.propensity is None
        assert each.item.item_id in (first if each.team == TEAMS[0] else second)


def test_what_is_pinned_to_one_place_in_both_stays_there_and_is_nobodys() -> None:
    pinned = frozenset({9})
    for seed in range(10):
        pages = [page([1, 2, 9, 4], pinned), page([5, 6, 9, 8], pinned)]
        found = drafted(pages, TEAMS, 4, np.random.default_rng(seed))
        assert ids(found)[2] == 9
        assert [each.team is None for each in found.items] == [False, False, True, False]


def test_a_page_that_lacks_a_part_tells_no_teams() -> None:
    found = drafted([page([1, 2], degraded=("tower",)), page([3, 4])], TEAMS, 2, np.random.default_rng(0))
    assert [each.team for each in found.items] == [None, None]
    assert found.degraded == ("tower",)


def test_the_log_holds_place_and_team_and_null_for_the_probability() -> None:
    found = drafted([page([1]), page([1])], TEAMS, 1, np.random.default_rng(0))
    ((item_id, score, propensity, position, team),) = json.loads(found.shown(20))
    assert (item_id, score, propensity, position) == (1, 0.5, None, 21)
    assert team in TEAMS
    assert json.loads(page([7]).shown(0)) == [[7, 0.5, 0.25, 1]]


def test_one_request_id_for_everybody_is_still_a_fair_coin() -> None:
    firsts = [int(coins_of("exp", user, "always the same").integers(2)) for user in range(2_000)]
    assert abs(np.mean(firsts) - 0.5) < 0.04
    assert coins_of("exp", 1, "r").integers(2**40) == coins_of("exp", "1", "r").integers(2**40)
