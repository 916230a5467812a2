"""Team draft: fair lists, honest credit, one figure a user."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rec_engine.experiments.interleaving import Draft, credit, preference, team_draft

RANKING = st.lists(st.integers(0, 30), max_size=12, unique=True)


@given(first=RANKING, second=RANKING, n=st.integers(0, 15), seed=st.integers(0, 1000))
def test_a_list_is_full_distinct_and_its_teams_pick_their_best_in_turns(
    first: list[int], second: list[int], n: int, seed: int
) -> None:
    draft = team_draft(first, second, n, np.random.default_rng(seed))
    items = draft.items.tolist()
    assert len(items) == min(n, len({*first, *second}))
    assert len(set(items)) == len(items)
    for place, (item, team) in enumerate(zip(items, draft.teams.tolist(), strict=True)):
        assert item == next(each for each in (first, second)[team] if each not in items[:place])
    if len(first) >= n and len(second) >= n:
        assert abs(int((draft.teams == 0).sum()) - int((draft.teams == 1).sum())) <= 1


def test_the_first_pick_is_a_fair_coin() -> None:
    rng = np.random.default_rng(0)
    firsts = [int(team_draft([1, 2], [2, 1], 2, rng).teams[0]) for _ in range(2_000)]
    assert abs(np.mean(firsts) - 0.5) < 0.04


def test_credit_goes_to_the_team_whose_item_it_was() -> None:
    draft = Draft(np.array([5, 7, 9], dtype=np.int32), np.array([0, 1, 1], dtype=np.int8))
    assert credit(draft, [7, 9, 9, 1234]) == (0, 2)
    assert credit(draft, []) == (0, 0)


def test_a_user_counts_once_however_many_lists_he_saw() -> None:
    user = np.repeat(np.arange(50), 40)
    rng = np.random.default_rng(1)
    leaning = rng.normal(0, 0.2, 50)[user]
    clicks = rng.random(len(user)) < 0.5 + leaning
    found = preference(user, (~clicks).astype(np.float64), clicks.astype(np.float64))
    scores = np.array([2 * clicks[user == each].mean() - 1 for each in range(50)])
    assert found.users == 50
    assert found.preference == pytest.approx(scores.mean())
    assert found.p_value == pytest.approx(stats.ttest_1samp(scores, 0).pvalue)


def test_equal_rankers_are_called_different_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(400):
        second = rng.binomial(3, 0.5, 200).astype(np.float64)
        found.append(preference(np.arange(200), np.asarray(3 - second), second).p_value)
    assert stats.binomtest(sum(p is not None and p < 0.05 for p in found), 400, 0.05).pvalue > 0.001


def test_nothing_clicked_says_nothing() -> None:
    none = np.zeros(3)
    assert preference(np.arange(3), none, none).preference is None
    one = preference(np.array([4]), np.array([1.0]), np.array([0.0]))
    assert (one.preference, one.p_value) == (-1.0, None)
