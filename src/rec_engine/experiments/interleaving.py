"""Team-draft interleaving: two rankers fill one list, and users say by their clicks whose items they prefer.

Every user sees both rankers at once, so that what differs between users drops out. It says which ranker is preferred,
and not by how much a metric would change.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rec_engine.data.dataset import IntArray
from rec_engine.experiments.moments import DoubleArray

FIRST, SECOND = 0, 1
"""Teams."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One list out of two.

    Attributes:
        items: (n,) codes, best first.
        teams: (n,) whose pick each is, 0 or 1.
    """

    items: IntArray
    teams: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Preference:
    """Whether users prefer the second ranker.

    Attributes:
        users: who clicked at all on either team's items.
        preference: mean over users of (second - first) / (second + first) clicks, in -1..1; above 0 is for the second.
        se: its standard error; None with fewer than 2 users or where all are alike.
        ci: its interval.
        p_value: two-sided, of no preference.
    """

    users: int
    preference: float | None
    se: float | None
    ci: tuple[float, float] | None
    p_value: float | None


def team_draft(first: Sequence[int], second: Sequence[int], n: int, rng: np.random.Generator) -> Draft:
    """Return up to n items, the rankers taking turns to pick their best item that is not yet in the list.

    In each round a coin says who picks first. An item that both want counts for whoever got it.

    Args:
        first: item codes of the first ranker, best first.
        second: item codes of the second.
        n: length wanted.
        rng: of the coins.

    References:
        Radlinski, Kurup and Joachims, How does clickthrough data reflect retrieval quality, CIKM 2008.
    """
    rankings, at, taken = (first, second), [0, 0], set[int]()
    items: list[int] = []
    teams: list[int] = []
    while len(items) < n:
        start, before = int(rng.integers(2)), len(items)
        for team in (start, 1 - start):
            ranking = rankings[team]
            while at[team] < len(ranking) and ranking[at[team]] in taken:
                at[team] += 1
            if at[team] < len(ranking) and len(items) < n:
                items.append(ranking[at[team]])
                teams.append(team)
                taken.add(ranking[at[team]])
        if len(items) == before:
            break
    return Draft(np.array(items, dtype=np.int32), np.array(teams, dtype=np.int8))


def credit(draft: Draft, clicked: Sequence[int]) -> tuple[int, int]:
    """Return the clicked items of either team; items that are not in the list count for neither, repeats once."""
    hits = np.isin(draft.items, np.array(list(clicked), dtype=np.int64))
    return int((hits & (draft.teams == FIRST)).sum()), int((hits & (draft.teams == SECOND)).sum())


def preference(user: NDArray[np.int64], first: DoubleArray, second: DoubleArray, level: float = 0.05) -> Preference:
    """Return which ranker users prefer, by a t-test on one figure a user.

    Users who clicked nothing prefer nothing and are left out.

    Args:
        user: (n_lists,) who saw each list.
        first: (n_lists,) clicks credited to the first ranker.
        second: (n_lists,) to the second.
        level: 1 less the confidence of the interval.
    """
    _, code = np.unique(user, return_inverse=True)
    ours, theirs = np.bincount(code, second), np.bincount(code, first)
    active = ours + theirs > 0
    score = (ours - theirs)[active] / (ours + theirs)[active]
    if not len(score):
        return Preference(0, None, None, None, None)
    mean = float(score.mean())
    se = float(score.std(ddof=1)) / math.sqrt(len(score)) if len(score) > 1 else 0.0
    if not se:
        return Preference(len(score), mean, None, None, None)
    half = float(stats.t.isf(level / 2, len(score) - 1)) * se
    p_value = float(2 * stats.t.sf(abs(mean / se), len(score) - 1))
    return Preference(len(score), mean, se, (mean - half, mean + half), p_value)
