"""Policies judged from logs, in worlds whose truth is known; and logs that cannot answer."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from rec_engine.evaluation.off_policy import DoubleArray, LoggedSlates, Value, policy_value

N_ACTIONS, N_TASTES = 8, 5


class World:
    """Users of a few tastes; what is shown on top is looked at, what is below only after no click (a cascade)."""

    def __init__(self, seed: int, k: int) -> None:
        rng = np.random.default_rng(seed)
        self.k = k
        self.attraction = rng.uniform(0.05, 0.5, (N_TASTES, N_ACTIONS))
        guess = self.attraction + rng.normal(0, 0.15, self.attraction.shape)
        self.guess = np.clip(guess, 0.01, 0.99)
        self.logging = rng.normal(0, 0.7, self.attraction.shape)
        self.target = self.logging + 6 / (k + 1) * (self.guess - 0.25)

    def draw(
        self, scores: DoubleArray, tastes: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, DoubleArray, DoubleArray]:
        """Return the slates drawn by Plackett-Luce, their propensities and what was clicked."""
        noisy = scores[tastes] + rng.gumbel(size=(len(tastes), N_ACTIONS))
        slates = np.argsort(-noisy, axis=1)[:, : self.k]
        would = rng.random(slates.shape) < self.attraction[tastes[:, None], slates]
        is_looked_at = np.cumsum(would, axis=1) - would == 0
        return slates, self.probabilities(scores, tastes, slates)[0], (would & is_looked_at).astype(np.float64)

    def probabilities(
        self, scores: DoubleArray, tastes: np.ndarray, slates: np.ndarray
    ) -> tuple[DoubleArray, DoubleArray]:
        """Return the probability of each item given those above, and the mean of the guess over what might be there."""
        rows, left = np.arange(len(tastes)), np.ones((len(tastes), N_ACTIONS), dtype=np.bool_)
        chances, guesses = np.empty(slates.shape), np.empty(slates.shape)
        for place in range(slates.shape[1]):
            shares = softmax(np.where(left, scores[tastes], -np.inf), axis=1)
            chances[:, place] = shares[rows, slates[:, place]]
            guesses[:, place] = (shares * self.guess[tastes]).sum(axis=1)
            left[rows, slates[:, place]] = False
        return chances, guesses

    def log(self, n_users: int, n_answers: int, rng: np.random.Generator) -> LoggedSlates:
        """Return answers to users, several each, by the logging policy beside what the target would have done."""
        users = np.repeat(np.arange(n_users, dtype=np.int32), n_answers)
        tastes = rng.integers(0, N_TASTES, n_users)[users]
        slates, logged, rewards = self.draw(self.logging, tastes, rng)
        target, of_target = self.probabilities(self.target, tastes, slates)
        expected = self.guess[tastes[:, None], slates]
        looked_at = np.hstack([np.ones((len(users), 1)), np.cumprod(1 - expected, axis=1)[:, :-1]])
        everywhere = np.ones(slates.shape, dtype=np.bool_)
        return LoggedSlates(users, everywhere, logged, target, rewards, looked_at * expected, looked_at * of_target)

    def truth(self) -> float:
        """Return what the target policy earns an answer, from very many."""
        rng = np.random.default_rng(99)
        return float(self.draw(self.target, rng.integers(0, N_TASTES, 400_000), rng)[2].sum(axis=1).mean())


@pytest.mark.parametrize("k", [1, 3])
def test_intervals_hold_the_truth_as_often_as_they_say(k: int) -> None:
    world = World(3, k)
    truth, inside, wide = world.truth(), dict.fromkeys(("ips", "snips", "dr"), 0), dict.fromkeys(("ips", "dr"), 0.0)
    n_runs = 500
    for run in range(n_runs):
        found = policy_value(world.log(400, 3, np.random.default_rng(run)))
        assert found.refusals == ()
        for name in inside:
            value = getattr(found, name)
            inside[name] += value.low <= truth <= value.high
        for name in wide:
            wide[name] += getattr(found, name).high - getattr(found, name).low
    assert all(0.93 <= n / n_runs <= 0.97 for n in inside.values()), inside
    assert wide["dr"] < 0.95 * wide["ips"]


def test_for_single_items_the_estimators_are_the_textbook_ones() -> None:
    """The formulas as Open Bandit Pipeline has them, over rounds."""
    slates = World(1, 1).log(300, 1, np.random.default_rng(0))
    weights, reward = (slates.target / slates.logged)[:, 0], slates.rewards[:, 0]
    guess, base = slates.expected[:, 0], slates.expected_of_target[:, 0]
    found = policy_value(slates)
    assert found.ips is not None
    assert found.snips is not None
    assert found.dr is not None
    assert found.ips.mean == pytest.approx(np.mean(weights * reward), rel=1e-12)
    assert found.snips.mean == pytest.approx(np.mean(weights * reward) / np.mean(weights), rel=1e-12)
    assert found.dr.mean == pytest.approx(np.mean(base + weights * (reward - guess)), rel=1e-12)
    rounds = weights * reward
    assert found.ips.high - found.ips.mean == pytest.approx(1.959964 * rounds.std(ddof=1) / np.sqrt(300), rel=1e-6)
    assert found.effective_users[0] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_the_policy_that_logged_is_worth_what_it_earned() -> None:
    slates = World(2, 3).log(200, 2, np.random.default_rng(0))
    found = policy_value(
        replace(slates, target=slates.logged, expected=slates.expected * 0, expected_of_target=slates.expected * 0)
    )
    assert found.ips == found.snips == found.dr == found.logged
    assert found.effective_users == pytest.approx(200)


def test_answers_of_one_user_are_no_independent_evidence() -> None:
    slates = World(2, 1).log(200, 1, np.random.default_rng(0))
    rows = np.repeat(np.arange(200), 10)
    ten = LoggedSlates(*(getattr(slates, name)[rows] for name in LoggedSlates.__slots__))
    once, often = policy_value(slates).dr, policy_value(ten).dr
    assert isinstance(once, Value)
    assert isinstance(often, Value)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_short_answers_count_as_they_are() -> None:
    slates = World(2, 3).log(200, 2, np.random.default_rng(0))
    is_shown = np.arange(3) < np.random.default_rng(1).integers(1, 4, 400)[:, None]
    garbage = {
        name: np.where(is_shown, getattr(slates, name), np.nan)
        for name in ("logged", "target", "rewards", "expected", "expected_of_target")
    }
    found = policy_value(replace(slates, is_shown=is_shown, **garbage))
    weights = np.cumprod(np.where(is_shown, slates.target / slates.logged, 1), axis=1)
    assert found.ips is not None
    assert found.ips.mean == pytest.approx((weights * slates.rewards * is_shown).sum(axis=1).mean())
    assert found.dr is not None
    assert np.isfinite(found.dr.mean)


def refused(slates: LoggedSlates) -> str:
    found = policy_value(slates)
    assert (found.ips, found.snips, found.dr) == (None, None, None)
    return " ".join(found.refusals)


def test_a_log_that_drew_nothing_cannot_answer() -> None:
    slates = World(0, 2).log(100, 2, np.random.default_rng(0))
    assert "exploration" in refused(replace(slates, logged=np.ones_like(slates.logged)))


def test_few_users_cannot_answer() -> None:
    assert "49 users" in refused(World(0, 2).log(49, 20, np.random.default_rng(0)))


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.1, np.nan])
def test_impossible_propensities_are_refused(wrong: float) -> None:
    slates = World(0, 2).log(100, 2, np.random.default_rng(0))
    logged = slates.logged.copy()
    logged[5, 1] = wrong
    assert "propensities" in refused(replace(slates, logged=logged))


@pytest.mark.parametrize("name", ["target", "rewards", "expected", "expected_of_target"])
def test_what_is_no_number_is_refused(name: str) -> None:
    slates = World(0, 2).log(100, 2, np.random.default_rng(0))
    broken = getattr(slates, name).copy()
    broken[5, 1] = np.inf
    assert "no numbers" in refused(replace(slates, **{name: broken}))


def test_what_was_never_shown_cannot_be_judged() -> None:
    world, rng = World(0, 1), np.random.default_rng(0)
    world.logging[:, 0] = -np.inf  # never shown, and the target's favourite
    world.target[:, 0] = 3
    assert "never shown" in refused(world.log(2_000, 2, rng))


def test_what_was_shown_too_rarely_cannot_be_judged_but_its_top_may() -> None:
    world = World(0, 6)
    world.target *= 3
    slates = world.log(400, 1, np.random.default_rng(0))
    assert "judge the first" in refused(slates)
    assert policy_value(slates.top(1)).refusals == ()
