"""What a closed loop comes to: worth and regret by round, whether it learns, and how newcomers fare; each user once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from rec_engine.evaluation.metrics import DoubleArray
from rec_engine.evaluation.statistics import Estimate, bootstrap_mean, paired_bootstrap
from rec_engine.pipeline.closed_loop import FIRST
from rec_engine.pipeline.loop_people import ENGINE, OF_NEW, ORACLE, POPULARITY, RANDOM

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
        beyond_first: the engine's worth less that of its first version for the same people at the same moments; above 0
            retraining pays.
        beyond_popularity: the same, less that of what was clicked most.
        new_shown: share of new items on the engine's pages.
        new_there: share of new items among all that could have been shown.
    """

    number: int
    n_answers: int
    n_users: int
    clicks: Estimate
    worth: dict[str, Estimate]
    regret: dict[str, Estimate]
    beyond_first: Estimate
    beyond_popularity: Estimate
    new_shown: Estimate
    new_there: Estimate


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How those fare that come while the loop goes round, beside those that were there. Over all rounds.

    Attributes:
        n_users: who joined after the first version was trained.
        regret_of_new_users: of an answer to them.
        regret_of_old_users: of an answer to the others.
        new_items: policy to what the new items on an answer's page are worth, in expected clicks; the best page's is
            what could be had.
        old_items: the same of the others.
    """

    n_users: int
    regret_of_new_users: Estimate
    regret_of_old_users: Estimate
    new_items: dict[str, Estimate]
    old_items: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class LoopFigures:
    """A loop.

    Attributes:
        rounds: in order.
        learned: the engine's regret in the last round less that in the first, over users who came in both; below 0 it
            has learned.
        n_newcomers: people who had done nothing before when they asked.
        newcomers: policy to the worth of their pages until they first click.
        arrivals: users and items that came meanwhile.
    """

    rounds: tuple[RoundFigures, ...]
    learned: Estimate
    n_newcomers: int
    newcomers: dict[str, Estimate]
    arrivals: Arrivals


def figures(answers: pl.DataFrame) -> LoopFigures:
    """Return what the answers of a loop come to; see `Loop.answers`."""
    numbers = answers["round"].unique().sort().to_list()
    first, last = (answers.filter(round=number) for number in (numbers[0], numbers[-1]))
    newcomers = answers.filter("is_first")
    return LoopFigures(
        rounds=tuple(_round(number, answers.filter(round=number)) for number in numbers),
        learned=between(regret_by_user(last, ENGINE), regret_by_user(first, ENGINE)),
        n_newcomers=newcomers["user"].n_unique(),
        newcomers={policy: mean_of(by_user(newcomers, policy)) for policy in (*COMPARED, ORACLE)},
        arrivals=_arrivals(answers),
    )


def regret_gain(answers: pl.DataFrame, others: pl.DataFrame) -> Estimate:
    """Return the regret of one loop's answers less that of another's, over users who came in both."""
    return between(regret_by_user(answers, ENGINE), regret_by_user(others, ENGINE))


def _arrivals(answers: pl.DataFrame) -> Arrivals:
    new, old = answers.filter("has_joined"), answers.filter(~pl.col("has_joined"))
    policies = (ENGINE, POPULARITY, ORACLE)
    of_old = {policy: pl.col(policy) - pl.col(f"{policy} {OF_NEW}") for policy in policies}
    return Arrivals(
        n_users=new["user"].n_unique(),
        regret_of_new_users=mean_of(regret_by_user(new, ENGINE)),
        regret_of_old_users=mean_of(regret_by_user(old, ENGINE)),
        new_items={policy: mean_of(by_user(answers, f"{policy} {OF_NEW}")) for policy in policies},
        old_items={
            policy: mean_of(by_user(answers.with_columns(worth=of_old[policy]), "worth")) for policy in policies
        },
    )


def _round(number: int, answers: pl.DataFrame) -> RoundFigures:
    return RoundFigures(
        number=number,
        n_answers=answers.height,
        n_users=answers["user"].n_unique(),
        clicks=mean_of(by_user(answers, "clicks")),
        worth={policy: mean_of(by_user(answers, policy)) for policy in (*COMPARED, ORACLE)},
        regret={policy: mean_of(regret_by_user(answers, policy)) for policy in COMPARED},
        beyond_first=between(by_user(answers, ENGINE), by_user(answers, FIRST)),
        beyond_popularity=between(by_user(answers, ENGINE), by_user(answers, POPULARITY)),
        new_shown=mean_of(by_user(answers, "new_shown")),
        new_there=mean_of(by_user(answers, "new_there")),
    )


def regret_by_user(answers: pl.DataFrame, policy: str) -> Mapping[int, float]:
    """Return each user's mean regret of what a policy shows, users ascending."""
    return by_user(answers.with_columns(regret=pl.col(ORACLE) - pl.col(policy)), "regret")


def by_user(answers: pl.DataFrame, column: str) -> Mapping[int, float]:
    """Return each user's mean, users ascending."""
    return dict(answers.group_by("user").agg(pl.col(column).mean()).sort("user").rows())


def mean_of(by_user: Mapping[int, float]) -> Estimate:
    """Return the mean over users with its 95% interval."""
    return bootstrap_mean(_values(by_user.values()))


def between(of: Mapping[int, float], less: Mapping[int, float]) -> Estimate:
    """Return the mean difference over the users of both with its 95% interval."""
    users = [user for user in of if user in less]
    return paired_bootstrap(_values(of[user] for user in users), _values(less[user] for user in users)).absolute


def _values(values: Iterable[float]) -> DoubleArray:
    return np.array(list(values), dtype=np.float64)
