"""What another policy would have earned, from the log of the one that served: a model is judged before it meets a user.

The log has to have been drawn: each item shown with a known probability below 1. Where it cannot answer, the estimate
says so instead of giving a number.

A list is judged under the cascade assumption: what becomes of an item depends on it and on those above it, not on
those below. A list of one item is the usual contextual bandit.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from rec_engine.data.dataset import BoolArray, IntArray

DoubleArray = NDArray[np.float64]
Z = float(norm.ppf(0.975))
MIN_USERS = 50
MIN_EFFECTIVE_USERS = 50.0
"""Below it a few answers decide, and no interval holds."""
COVERED, COVERED_Z = 0.95, 3.3
"""The mean weight is the share of what the policy would show that was ever shown. How much of it is asked for, and by
how many standard errors it may be missed: weights are skewed, so their mean lies below 1 more often than above."""


@dataclass(frozen=True, slots=True)
class LoggedSlates:
    """Answers that were logged, beside what another policy would have made of them: one row an answer.

    Attributes:
        user_codes: (n,) int32, whose answer; users are what intervals resample.
        is_shown: (n, k) bool, where there was an item; answers may be shorter than k.
        logged: (n, k) float64, the probability of the item at its position given those above, by what logged.
        target: (n, k) float64, the same by the policy that is judged.
        rewards: (n, k) float64, what became of the item.
        expected: (n, k) float64, a model's guess of the reward; 0 without one.
        expected_of_target: (n, k) float64, the mean of that guess over what the judged policy would show there, given
            the items above.
    """

    user_codes: IntArray
    is_shown: BoolArray
    logged: DoubleArray
    target: DoubleArray
    rewards: DoubleArray
    expected: DoubleArray
    expected_of_target: DoubleArray

    def top(self, k: int) -> "LoggedSlates":
        """Return the first k positions."""
        arrays = {name: getattr(self, name)[:, :k] for name in self.__slots__ if name != "user_codes"}
        return replace(self, **arrays)


@dataclass(frozen=True, slots=True)
class Value:
    """A policy's mean reward an answer.

    Attributes:
        mean: the estimate.
        low: lower end of its 95% interval, over users.
        high: upper end.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """What the log says of a policy.

    Attributes:
        ips: by inverse propensities: without bias, wide.
        snips: the same, normalised by the weights: narrower, with a bias that goes as the log grows.
        dr: doubly robust: what the guess says, corrected by what came of it; the one to read.
        logged: what was earned by the policy that logged.
        mean_weights: (k,) float64, by position; 1 but for chance where all that is wanted was shown now and then.
        effective_users: (k,) float64, by position, how many users' worth of evidence the weights leave.
        refusals: why no estimate can be trusted; then there is none.
    """

    ips: Value | None
    snips: Value | None
    dr: Value | None
    logged: Value | None
    mean_weights: DoubleArray
    effective_users: DoubleArray
    refusals: tuple[str, ...] = ()


def policy_value(slates: LoggedSlates) -> PolicyValue:
    """Return what the target policy would have earned an answer, or why that cannot be said.

    References:
        Horvitz and Thompson, 1952: ips. Swaminathan and Joachims, The self-normalized estimator for counterfactual
        learning, 2015: snips. Dudik et al., Doubly robust policy evaluation and optimization, 2014: dr. McInerney et
        al., Counterfactual evaluation of slate recommendations with sequential reward interactions, 2020, and Kiyohara
        et al., Doubly robust off-policy evaluation for ranking policies under the cascade behavior model, 2022: both
        for lists.
    """
    refusals = _wrong_in(slates)
    if refusals:
        nothing = np.full(slates.logged.shape[1], np.nan)
        return PolicyValue(None, None, None, None, nothing, nothing, refusals)
    weights, rewards = _weights(slates), np.where(slates.is_shown, slates.rewards, 0.0)
    users = _Users(slates.user_codes)
    mean_weights, effective = weights.mean(axis=0), users.effective(weights)
    refusals = _unsupported(users, weights, effective)
    logged = users.value(rewards.sum(axis=1))
    if refusals:
        return PolicyValue(None, None, None, logged, mean_weights, effective, refusals)
    before = np.hstack([np.ones((len(weights), 1)), weights[:, :-1]])
    corrections = weights * (rewards - slates.expected) + before * slates.expected_of_target
    return PolicyValue(
        ips=users.value((weights * rewards).sum(axis=1)),
        snips=users.normalised(weights, rewards),
        dr=users.value(np.where(slates.is_shown, corrections, 0.0).sum(axis=1)),
        logged=logged,
        mean_weights=mean_weights,
        effective_users=effective,
    )


def _weights(slates: LoggedSlates) -> DoubleArray:
    """Return (n, k): how much more probable the list down to each position is under the target than it was.

    Beyond the end of an answer nothing is drawn, so the weight stays as it is.
    """
    ratios = np.ones(slates.target.shape)
    np.divide(slates.target, slates.logged, out=ratios, where=slates.is_shown)
    return np.cumprod(ratios, axis=1, dtype=np.float64)


class _Users:
    """Answers grouped by user, who are drawn independently while the answers of one are alike."""

    def __init__(self, user_codes: IntArray) -> None:
        _, self._codes = np.unique(user_codes, return_inverse=True)
        self.n = int(self._codes.max(initial=-1)) + 1
        self._n_answers = len(user_codes)

    def sums(self, values: DoubleArray) -> DoubleArray:
        """Return (n_users,) sums of (n,) values."""
        return np.bincount(self._codes, values, self.n).astype(np.float64)

    def standard_error(self, influence: DoubleArray) -> float:
        """Return the standard error of a mean over answers, from (n,) deviations."""
        variance = (self.sums(influence) ** 2).sum() * self.n / max(1, self.n - 1)
        return float(np.sqrt(variance)) / self._n_answers

    def value(self, of_answers: DoubleArray) -> Value:
        """Return the mean of (n,) values and its interval."""
        mean = float(of_answers.mean())
        return _value(mean, self.standard_error(of_answers - mean))

    def normalised(self, weights: DoubleArray, rewards: DoubleArray) -> Value:
        """Return the sum over positions of the weighted means of the rewards, with the delta method's interval."""
        means = (weights * rewards).mean(axis=0) / weights.mean(axis=0)
        influence = (weights * (rewards - means) / weights.mean(axis=0)).sum(axis=1)
        return _value(float(means.sum()), self.standard_error(influence))

    def effective(self, weights: DoubleArray) -> DoubleArray:
        """Return (k,) Kish's effective number of users, (sum w)^2 / sum w^2 over each user's summed weights."""
        of_users = np.stack([self.sums(column) for column in weights.T])
        squares = (of_users**2).sum(axis=1)
        effective = np.zeros(len(squares))
        np.divide(of_users.sum(axis=1) ** 2, squares, out=effective, where=squares > 0)
        return effective


def _value(mean: float, standard_error: float) -> Value:
    return Value(mean, mean - Z * standard_error, mean + Z * standard_error)


def _wrong_in(slates: LoggedSlates) -> tuple[str, ...]:
    """Return what makes the log useless whatever the policy."""
    refusals = []
    n_users = len(np.unique(slates.user_codes))
    if n_users < MIN_USERS:
        refusals.append(f"the log has answers to {n_users} users; at least {MIN_USERS} are needed")
    logged = slates.logged[slates.is_shown]
    if not ((logged > 0) & (logged <= 1)).all():
        refusals.append("some propensities are not above 0 and at most 1")
    elif (logged == 1).all():
        refusals.append(
            "nothing was drawn: every item was shown with certainty, so nothing is known of others; "
            "set recommendations.exploration above 0 and let some answers be logged"
        )
    numbers = (slates.target, slates.rewards, slates.expected, slates.expected_of_target)
    if not all(np.isfinite(array[slates.is_shown]).all() for array in numbers):
        refusals.append("some probabilities, rewards or guesses are no numbers")
    return tuple(refusals)


def _unsupported(users: _Users, weights: DoubleArray, effective: DoubleArray) -> tuple[str, ...]:
    """Return where what the policy would show was shown too rarely, or never."""
    refusals, means = [], weights.mean(axis=0)
    errors = np.array([users.standard_error(column - mean) for column, mean in zip(weights.T, means, strict=True)])
    is_missing = means < COVERED - COVERED_Z * errors
    if is_missing.any():
        place = int(np.argmax(is_missing))
        refusals.append(
            f"the policy would show lists that were never shown: down to position {place + 1} the log covers "
            f"{means[place]:.0%} of what it would do; log with more exploration or from more candidates"
        )
    is_thin = effective < MIN_EFFECTIVE_USERS
    if is_thin.any():
        place = int(np.argmax(is_thin))
        judged = f"judge the first {place} positions, or " if place else ""
        refusals.append(
            f"the log is worth {effective[place]:.1f} users down to position {place + 1}, fewer than "
            f"{MIN_EFFECTIVE_USERS:.0f}: what the policy would show was shown too rarely; {judged}log more answers"
        )
    return tuple(refusals)
