"""Thompson sampling over arms whose reward is yes or no: it optimises while it learns, and does not measure.

Arms that look good get more users, so that the plain means of arms are biased (a loser that had bad luck is never
looked at again) and the plain z-test is wrong. `reward_difference` is the interval that holds.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rec_engine.errors import DataError
from rec_engine.experiments.bayes import beta_posterior
from rec_engine.experiments.moments import DoubleArray

PURPOSE = "A bandit optimises, it does not measure: to learn how large an effect is, run an experiment."


@dataclass(frozen=True, slots=True)
class RewardDifference:
    """An arm against the control under a bandit.

    Attributes:
        difference: of the shares of rewarded users, batches weighed by what each could tell.
        ci: its interval.
        p_value: two-sided, of no difference.
        batches: with users in both arms.
        purpose: what a bandit is for.
    """

    difference: float | None
    ci: tuple[float, float] | None
    p_value: float | None
    batches: int
    purpose: str = PURPOSE


def allocation(successes: DoubleArray, trials: DoubleArray, floor: float) -> DoubleArray:
    """Return (n_arms,) shares of the next batch: each arm's probability to be the best, but at least the floor.

    Computed and not sampled, so that the propensities are known exactly.

    Args:
        successes: (n_arms,) rewarded users so far.
        trials: (n_arms,) users so far.
        floor: least share of an arm; without one, losers would never be looked at again.

    Raises:
        DataError: the arms' floors add up to more than 1.
    """
    if not 0 < floor * len(trials) <= 1:
        raise DataError(
            f"A floor of {floor:g} for each of {len(trials)} arms cannot be given.",
            hint=f"Set a floor above 0 and at most {1 / len(trials):g}.",
        )
    return floor + (1 - floor * len(trials)) * beta_posterior(successes, trials).prob_best


def reward_difference(successes: DoubleArray, trials: DoubleArray, arm: int, level: float = 0.05) -> RewardDifference:
    """Return how much more often users of an arm are rewarded than the control's, batch by batch.

    Within a batch the shares of arms are fixed, so that there the difference of means is unbiased. Each batch's
    difference is divided by its standard error, of which users' numbers are known and only the rewards' variance is
    estimated; these add up to a normal sum although later shares depend on earlier rewards. The variance is that of the
    arm's own rewards or that of all arms', whichever is larger: a loser's own comes from few users, and is too small
    where bad luck made it a loser.

    Args:
        successes: (n_batches, n_arms) rewarded users.
        trials: (n_batches, n_arms) users.
        arm: place of the arm; the control has 0.
        level: 1 less the confidence of the interval.

    References:
        Zhang, Janson and Murphy, Inference for batched bandits, NeurIPS 2020.
    """
    n, rewarded = trials[:, [0, arm]], successes[:, [0, arm]]
    both = (n > 0).all(axis=1)
    n, rewarded = n[both], rewarded[both]
    share, pooled = (rewarded.sum(axis=0) + 1) / (n.sum(axis=0) + 2), (rewarded.sum() + 1) / (n.sum() + 2)
    if not len(n):
        return RewardDifference(None, None, None, 0)
    variance = np.maximum(share * (1 - share), pooled * (1 - pooled))
    certainty = 1 / np.sqrt((variance / n).sum(axis=1))
    means = rewarded / n
    difference = float((certainty * (means[:, 1] - means[:, 0])).sum() / certainty.sum())
    se = math.sqrt(len(n)) / float(certainty.sum())
    half = float(stats.norm.isf(level / 2)) * se
    p_value = float(2 * stats.norm.sf(abs(difference / se)))
    return RewardDifference(difference, (difference - half, difference + half), p_value, len(n))
