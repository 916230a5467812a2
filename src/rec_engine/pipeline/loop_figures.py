"""What a closed loop comes to: worth and regret by round, whether it learns, and how newcomers fare; each user once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from rec_engine.evaluation.metrics import DoubleArray
from rec_engine.evaluation.statistics import Estimate, bootstrap_mean, paired_bootstrap
from rec_engine.pipeline.closed_loop import FIRST
from rec_engine.pipeline.loop_people import ENGINE, ORACLE, POPULARITY, RANDOM

COMPARED = (ENGINE, FIRST, POPULARITY, RANDOM)


@dataclass(frozen=True, slots=True)
class RoundFigures:
    """A round. Means over users of each user's mean over his answers, with 95% intervals.

    Attributes:
        number: from 1.
        n_answers: to people.
        n_users: who came.
        clicks: an answer, as they happened.
        worth: policy to expected clicks an answer, by the truth.
        regret: policy to what an answer falls short of the best page of its moment, in expected clicks.
        new_shown: share of new items on the engine's pages.
        new_there: share of new items among all that could have been shown.
    """

    number: int
    n_answers: int
    n_users: int
    clicks: Estimate
    worth: dict[str, Estimate]
    regret: dict[str, Estimate]
    new_shown: Estimate
    new_there: Estimate


@dataclass(frozen=True, slots=True)
class LoopFigures:
    """A loop.

    Attributes:
        rounds: in order.
        learned: the engine's regret in the last round less that in the first, over users who came in both; below 0 it
            has learned.
        retrained: in the last round, the engine's worth less that of its first version for the same people at the same
            moments; above 0 retraining pays.
        beyond_popularity: in the last round, the engine's worth less that of what was clicked most.
        n_newcomers: people who had done nothing before when they asked.
        newcomers: policy to the worth of their pages until they first click.
    """

    rounds: tuple[RoundFigures, ...]
    learned: Estimate
    retrained: Estimate
    beyond_popularity: Estimate
    n_newcomers: int
    newcomers: dict[str, Estimate]


def figures(answers: pl.DataFrame) -> LoopFigures:
    """Return what the answers of a loop come to; see `Loop.answers`."""
    numbers = answers["round"].unique().sort().to_list()
    first, last = (answers.filter(round=number) for number in (numbers[0], numbers[-1]))
    newcomers = answers.filter("is_first")
    return LoopFigures(
        rounds=tuple(_round(number, answers.filter(round=number)) for number in numbers),
        learned=_difference(_regret(last, ENGINE), _regret(first, ENGINE)),
        retrained=_difference(_by_user(last, ENGINE), _by_user(last, FIRST)),
        beyond_popularity=_difference(_by_user(last, ENGINE), _by_user(last, POPULARITY)),
        n_newcomers=newcomers["user"].n_unique(),
        newcomers={policy: _mean(_by_user(newcomers, policy)) for policy in (*COMPARED, ORACLE)},
    )


def gain(answers: pl.DataFrame, others: pl.DataFrame) -> Estimate:
    """Return by how much an answer of one loop is worth more than one of another, over users who came in both."""
    return _difference(_by_user(answers, ENGINE), _by_user(others, ENGINE))


def _round(number: int, answers: pl.DataFrame) -> RoundFigures:
    return RoundFigures(
        number=number,
        n_answers=answers.height,
        n_users=answers["user"].n_unique(),
        clicks=_mean(_by_user(answers, "clicks")),
        worth={policy: _mean(_by_user(answers, policy)) for policy in (*COMPARED, ORACLE)},
        regret={policy: _mean(_regret(answers, policy)) for policy in COMPARED},
        new_shown=_mean(_by_user(answers, "new_shown")),
        new_there=_mean(_by_user(answers, "new_there")),
    )


def _regret(answers: pl.DataFrame, policy: str) -> Mapping[int, float]:
    return _by_user(answers.with_columns(regret=pl.col(ORACLE) - pl.col(policy)), "regret")


def _by_user(answers: pl.DataFrame, column: str) -> Mapping[int, float]:
    """Return each user's mean, users ascending."""
    return dict(answers.group_by("user").agg(pl.col(column).mean()).sort("user").rows())


def _mean(by_user: Mapping[int, float]) -> Estimate:
    return bootstrap_mean(_values(by_user.values()))


def _difference(of: Mapping[int, float], less: Mapping[int, float]) -> Estimate:
    users = [user for user in of if user in less]
    return paired_bootstrap(_values(of[user] for user in users), _values(less[user] for user in users)).absolute


def _values(values: Iterable[float]) -> DoubleArray:
    return np.array(list(values), dtype=np.float64)
