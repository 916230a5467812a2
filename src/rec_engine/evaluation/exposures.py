"""What users could have taken while the targets of a task came about: what they were shown, and what they took.

What nobody was shown nobody could take. Whoever takes it for unwanted learns what the version before showed, and finds
every other order worse than that one; so items that came later are never shown.

References:
    Schnabel et al., Recommendations as treatments: debiasing learning and evaluation, ICML 2016.
"""

from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import BoolArray, IntArray, LongArray
from rec_engine.data.interactions import pairs
from rec_engine.data.showings import SETTLING_SECONDS, ShowingLog
from rec_engine.evaluation.evaluator import NEVER, Task

MIN_TOLD = 0.5
"""Share of the targets that must have been shown by what the log tells; else people find things in other ways."""


@dataclass(frozen=True, slots=True)
class Exposures:
    """Distinct items of each user.

    Attributes:
        item_codes: (n,) int32, ascending within a user.
        starts: (n_users + 1,) int64; user u owns rows starts[u] to starts[u + 1].
    """

    item_codes: IntArray
    starts: LongArray

    def items_of(self, user_code: int) -> IntArray:
        """Return what a user was shown or took."""
        return self.item_codes[self.starts[user_code] : self.starts[user_code + 1]]


def exposures_of(task: Task) -> Exposures | None:
    """Return what each user was shown from his request on while the targets came about, and his targets.

    None where the log does not tell of most targets that they were shown.
    """
    targets = task.targets
    shown = task.shown.of_first(targets.n_users)
    if not len(shown) or not len(targets):
        return None
    users = np.repeat(np.arange(len(shown.starts) - 1, dtype=np.int32), np.diff(shown.starts))
    is_within = _are_within(task, users, shown)
    seen = pairs(users[is_within], shown.item_codes[is_within])
    taken = pairs(targets.user_codes, targets.item_codes)
    if np.isin(taken, seen).mean() < MIN_TOLD:
        return None
    both = np.union1d(seen, taken)
    counts = np.bincount(both >> 32, minlength=targets.n_users)
    return Exposures((both & (2**32 - 1)).astype(np.int32), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _are_within(task: Task, users: IntArray, shown: ShowingLog) -> BoolArray:
    """Return (n,) bool: what was shown between a user's request and the end of his targets.

    Where all that is known lies before all targets they end at the same moment for everybody. Hours count as a whole:
    of what was shown twice within one, `ShowingLog` has the first time only.
    """
    begins = (task.request_times() - SETTLING_SECONDS) // SETTLING_SECONDS * SETTLING_SECONDS
    ends = task.targets.last_times(NEVER)
    if task.history.timestamps.max(initial=NEVER) <= task.targets.timestamps.min():
        ends = np.where(ends == NEVER, NEVER, ends.max())
    return (shown.timestamps >= begins[users]) & (shown.timestamps <= ends[users])
