"""Training batches: windows of histories, bucketed by length so that little is padded."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rec_engine.data.dataset import IntArray, Interactions, LongArray

PADDING = -1
LENGTH_NOISE = 0.1


@dataclass(frozen=True, slots=True)
class Batch:
    """Some users' windows.

    Attributes:
        user_codes: (batch,) int64.
        inputs: (batch, len) int64 item codes, oldest first, PADDING at the end.
        targets: (batch, len) int64, the item that came after each input, PADDING at the end.
    """

    user_codes: Tensor
    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True)
class Windows:
    """Pieces of histories; every interaction but a user's first is a target in exactly one of them.

    Attributes:
        item_codes: (n,) int32, the interactions that the rows below point into.
        user_codes: (n_windows,) int32.
        firsts: (n_windows,) int64, row of the first input.
        lasts: (n_windows,) int64, row of the last target.
    """

    item_codes: IntArray
    user_codes: IntArray
    firsts: LongArray
    lasts: LongArray

    def __len__(self) -> int:
        return len(self.firsts)

    @property
    def lengths(self) -> LongArray:
        """(n_windows,) int64, targets in each."""
        return self.lasts - self.firsts


def windows(interactions: Interactions, max_len: int) -> Windows:
    """Return windows of at most `max_len` targets, cut from each user's latest interaction backwards."""
    sizes = np.diff(interactions.starts) - 1
    counts = np.where(sizes > 0, -(-sizes // max_len), 0)
    users = np.repeat(np.arange(interactions.n_users), counts)
    from_end = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    lasts = interactions.starts[1:][users] - 1 - from_end * max_len
    firsts = np.maximum(interactions.starts[:-1][users], lasts - max_len)
    return Windows(interactions.item_codes, users.astype(np.int32), firsts, lasts)


def epoch_batches(pieces: Windows, batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Yield every window once: neighbours in length share a batch, batches come in random order."""
    noise = 1 + LENGTH_NOISE * rng.random(len(pieces))
    order = np.argsort(pieces.lengths * noise, kind="stable")
    chunks = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    for place in rng.permutation(len(chunks)):
        yield _batch(pieces, chunks[place])


def latest_histories(history: Interactions, user_codes: IntArray, max_len: int) -> tuple[Tensor, Tensor]:
    """Return each user's latest items and how many there are.

    Returns:
        (n, len) int64 item codes, oldest first, PADDING at the end, and (n,) int64 lengths, 0 for an empty history.
    """
    ends = history.starts[1:][user_codes]
    lengths = np.minimum(ends - history.starts[:-1][user_codes], max_len)
    return _gather(history.item_codes, ends - lengths, lengths), torch.from_numpy(lengths)


def _batch(pieces: Windows, chosen: LongArray) -> Batch:
    firsts, lengths = pieces.firsts[chosen], pieces.lengths[chosen]
    return Batch(
        user_codes=torch.from_numpy(pieces.user_codes[chosen].astype(np.int64)),
        inputs=_gather(pieces.item_codes, firsts, lengths),
        targets=_gather(pieces.item_codes, firsts + 1, lengths),
    )


def _gather(item_codes: IntArray, firsts: LongArray, lengths: LongArray) -> Tensor:
    """Return (n, max(lengths)) int64: `lengths` codes from each row of `firsts`, PADDING after them."""
    steps = np.arange(max(int(lengths.max(initial=0)), 1))
    inside = steps < lengths[:, None]
    gathered = np.full(inside.shape, PADDING, dtype=np.int64)
    gathered[inside] = item_codes[(firsts[:, None] + steps)[inside]]
    return torch.from_numpy(gathered)
