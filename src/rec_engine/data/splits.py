"""Splits of the past into train, validation and test. All of them are stable: the same data, the same split."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import BoolArray, Interactions, LongArray
from rec_engine.data.ranks import value_at
from rec_engine.data.scratch import empty_beside
from rec_engine.data.showings import NO_SHOWINGS, ShowingLog
from rec_engine.errors import DataError

Masks = tuple[BoolArray, BoolArray, BoolArray]
"""(n,) each: which rows are in the training, validation and test part."""


@dataclass(frozen=True, slots=True)
class Split:
    """Three disjoint parts of one dataset's interactions, over the same users.

    Attributes:
        name: how it was made, for reports.
        train: what models learn from.
        validation: what settings are chosen on.
        test: what is reported; touched once.
        repeats: whether what a user has met already is to be found again.
        shown: what the users were shown, over the time of all three.
    """

    name: str
    train: Interactions
    validation: Interactions
    test: Interactions
    repeats: bool = False
    shown: ShowingLog = NO_SHOWINGS

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the three parts, as hex: two reports with the same one ranked for the same targets."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            digest.update(part.item_codes.data)
            digest.update(part.starts.data)
        if self.repeats:
            digest.update(b"repeats")
        return digest.hexdigest()


def leave_one_out(interactions: Interactions) -> Split:
    """Return each user's last interaction as test, the one before as validation, the rest as train.

    Users with fewer than three interactions stay in train as they are. Only positive interactions can be targets.

    It leaks: the test item of one user may lie before the training items of another (Ji et al., arXiv 2010.11060).
    Use it to compare with published numbers, and `temporal_split` to know how good a model is.
    """
    return _split("leave-one-out", interactions, _last_two)


def _last_two(interactions: Interactions) -> Masks:
    positive = interactions.weights > 0
    from_end = _positives_from_end(interactions, positive)
    lengths = np.diff(interactions.starts)
    enough = np.repeat(_count_by_user(interactions, positive) >= 3, lengths)
    test = positive & enough & (from_end == 1)
    validation = positive & enough & (from_end == 2)
    # Negative feedback given after a target would tell the model something of the future.
    return ~(enough & (from_end < 2)) & ~validation, validation, test


def temporal_split(interactions: Interactions, test_share: float = 0.1, validation_share: float = 0.1) -> Split:
    """Return a split at two moments that are the same for all users: nothing of the future is in train.

    Args:
        interactions: what to split.
        test_share: share of the interactions that come last, in (0, 1).
        validation_share: share just before the test part, in (0, 1).

    Raises:
        DataError: if the shares leave no training part or all interactions carry one timestamp.
    """
    if min(test_share, validation_share) <= 0 or test_share + validation_share >= 1:
        raise DataError(
            f"test_share {test_share} and validation_share {validation_share} leave no training part",
            hint="both lie above 0 and their sum below 1",
        )
    times, shares = interactions.timestamps, (1 - test_share - validation_share, 1 - test_share)
    first, second = (value_at(times, int((len(times) - 1) * share)) for share in shares)
    if first <= times.min():
        raise DataError(
            "a split in time is not possible: the timestamps are (nearly) all the same",
            hint="use leave-one-out, or load a column that holds the real times",
        )

    def between(part: Interactions) -> Masks:
        is_test = part.timestamps >= second
        is_train = part.timestamps < first
        return is_train, ~is_train & ~is_test, is_test

    return _split("temporal", interactions, between)


def random_split(
    interactions: Interactions, test_share: float = 0.2, validation_share: float = 0.1, seed: int = 0
) -> Split:
    """Return a split that draws each user's held-out interactions at random.

    It puts the future into train and is here only because many published numbers live on it.

    Args:
        interactions: what to split.
        test_share: share of each user's interactions held out, rounded down.
        validation_share: share of each user's interactions used for validation, rounded down.
        seed: the draw; the same seed gives the same split.
    """
    rng = np.random.default_rng(seed)

    def drawn(part: Interactions) -> Masks:
        lengths = np.diff(part.starts)
        order = np.lexsort((rng.random(len(part)), part.user_codes))
        place = np.empty(len(part), dtype=np.int64)
        place[order] = np.arange(len(part)) - np.repeat(part.starts[:-1], lengths)
        sizes = np.repeat(lengths, lengths)
        n_test, n_validation = np.floor(sizes * test_share), np.floor(sizes * validation_share)
        is_test = place < n_test
        is_train = place >= n_test + n_validation
        return is_train, ~is_train & ~is_test, is_test

    return _split(f"random (seed {seed})", interactions, drawn)


def _split(name: str, interactions: Interactions, masks_of: Callable[[Interactions], Masks]) -> Split:
    """Return the parts that `masks_of` marks, which is given some users at a time; targets are positive."""
    marked = [empty_beside(interactions.weights, len(interactions), np.bool_) for _ in range(3)]
    for users in interactions.user_blocks():
        part = interactions.of_range(users)
        is_train, is_validation, is_test = masks_of(part)
        liked = part.weights > 0
        for whole, of_part in zip(marked, (is_train, is_validation & liked, is_test & liked), strict=True):
            whole[interactions.rows_of(users)] = of_part
    train, validation, test = (interactions.where(mask) for mask in marked)
    return Split(name, train, validation, test)


def _count_by_user(interactions: Interactions, kept: BoolArray) -> LongArray:
    return np.bincount(interactions.user_codes[kept], minlength=interactions.n_users).astype(np.int64)


def _positives_from_end(interactions: Interactions, positive: BoolArray) -> LongArray:
    """Return (n,) int64: how many positive interactions of the user lie at or after each row."""
    running = np.concatenate([[0], np.cumsum(positive)])
    ends = np.repeat(running[interactions.starts[1:]], np.diff(interactions.starts))
    remaining: LongArray = ends - running[:-1]
    return remaining
