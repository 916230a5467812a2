"""Training batches: windows of histories, bucketed by length so that little is padded."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rec_engine.data.dataset import IntArray, Interactions, LongArray
from rec_engine.data.ranks import value_at
from rec_engine.data.scratch import empty_beside

PADDING = -1
LENGTH_NOISE = 0.1


@dataclass(frozen=True, slots=True)
class Batch:
    """Some users' windows.

    Attributes:
        user_codes: (batch,) int64.
        inputs: (batch, len) int64 item codes, oldest first, PADDING at the end.
        targets: (batch, len) int64, the item that came after each input, PADDING at the end.
        times: (batch, len) int64, Unix seconds of the inputs.
        target_times: (batch, len) int64, Unix seconds of the targets.
        places: (batch,) int64, places of the windows in the batch of all processes.
        n_whole: windows in the batch of all processes.
        weight: of this process' mean loss in the mean over processes, which so becomes the mean over all targets; 1
            for one process alone.
    """

    user_codes: Tensor
    inputs: Tensor
    targets: Tensor
    times: Tensor
    target_times: Tensor
    places: LongArray
    n_whole: int
    weight: float


@dataclass(frozen=True, slots=True)
class Windows:
    """Pieces of histories; every interaction but a user's first is a target in exactly one of them.

    Attributes:
        interactions: those that the rows below point into.
        user_codes: (n_windows,) int32.
        firsts: (n_windows,) int64, row of the first input.
        lasts: (n_windows,) int64, row of the last target.
    """

    interactions: Interactions
    user_codes: IntArray
    firsts: LongArray
    lasts: LongArray

    def __len__(self) -> int:
        return len(self.firsts)

    @property
    def lengths(self) -> LongArray:
        """(n_windows,) int64, targets in each."""
        return self.lasts - self.firsts

    def common_pause(self, share: float) -> int:
        """Return the seconds that this share of the steps from one interaction to the next do not exceed."""
        past = self.interactions
        pauses, n = empty_beside(past.timestamps, len(past), np.int64), 0
        for users in past.user_blocks():
            of_some = _pauses(past.of_range(users))
            pauses[n : n + len(of_some)] = of_some
            n += len(of_some)
        return value_at(pauses[:n], math.ceil((n - 1) * share)) if n else 0


def _pauses(interactions: Interactions) -> LongArray:
    users = interactions.user_codes
    pauses: LongArray = np.diff(interactions.timestamps)[users[1:] == users[:-1]]
    return pauses


def windows(interactions: Interactions, max_len: int) -> Windows:
    """Return windows of at most `max_len` targets, cut from each user's latest interaction backwards."""
    sizes = np.diff(interactions.starts) - 1
    counts = np.where(sizes > 0, -(-sizes // max_len), 0)
    users = np.repeat(np.arange(interactions.n_users), counts)
    from_end = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    lasts = interactions.starts[1:][users] - 1 - from_end * max_len
    firsts = np.maximum(interactions.starts[:-1][users], lasts - max_len)
    return Windows(interactions, users.astype(np.int32), firsts, lasts)


def epoch_batches(
    pieces: Windows, batch_size: int, rng: np.random.Generator, *, rank: int = 0, n_ranks: int = 1
) -> Iterator[Batch]:
    """Yield every window once: neighbours in length share a batch, batches come in random order.

    Args:
        pieces: the windows.
        batch_size: windows a batch, all processes together.
        rng: in the same state in all processes: they take shares of the same batches.
        rank: whose share is wanted.
        n_ranks: processes that share each batch.
    """
    noise = 1 + LENGTH_NOISE * rng.random(len(pieces))
    order = np.argsort(pieces.lengths * noise, kind="stable")
    chunks = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    for place in rng.permutation(len(chunks)):
        yield _batch(pieces, chunks[place], rank, n_ranks)


@dataclass(frozen=True, slots=True)
class Histories:
    """The latest items of some users, and when each is asked for what comes next.

    Attributes:
        item_codes: (n, len) int64, oldest first, PADDING at the end.
        times: (n, len) int64, Unix seconds of the items.
        query_times: (n, len) int64: the time of the next item, and of the request after the last.
        lengths: (n,) int64, 0 for an empty history.
    """

    item_codes: Tensor
    times: Tensor
    query_times: Tensor
    lengths: Tensor


def latest_histories(history: Interactions, user_codes: IntArray, max_len: int, now: LongArray) -> Histories:
    """Return each user's latest items.

    Args:
        history: what the users met.
        user_codes: (n,) int32.
        max_len: items a user at most.
        now: (n,) int64, Unix seconds of each user's request.
    """
    ends = history.starts[1:][user_codes]
    lengths = np.minimum(ends - history.starts[:-1][user_codes], max_len)
    firsts = ends - lengths
    times = _gather(history.timestamps, firsts, lengths, 0)
    query_times = _gather(history.timestamps, firsts + 1, np.maximum(lengths - 1, 0), 0)
    asked = torch.zeros_like(times)
    asked[:, : query_times.shape[1]] = query_times
    rows = torch.arange(len(lengths))
    asked[rows, torch.from_numpy(np.maximum(lengths - 1, 0))] = torch.from_numpy(now)
    return Histories(_gather(history.item_codes, firsts, lengths, PADDING), times, asked, torch.from_numpy(lengths))


def _batch(pieces: Windows, whole: LongArray, rank: int, n_ranks: int) -> Batch:
    """Return one process' share of a batch: windows are in order of length, so every n-th of them is a fair share.

    All processes have to take part in every step. One for which nothing is left repeats a window, at no weight.
    """
    past = pieces.interactions
    places = np.arange(rank, len(whole), n_ranks)
    is_idle, places = not len(places), places if len(places) else np.zeros(1, dtype=np.int64)
    chosen = whole[places]
    firsts, lengths = pieces.firsts[chosen], pieces.lengths[chosen]
    share = 0.0 if is_idle else float(lengths.sum() / pieces.lengths[whole].sum())
    return Batch(
        user_codes=torch.from_numpy(pieces.user_codes[chosen].astype(np.int64)),
        inputs=_gather(past.item_codes, firsts, lengths, PADDING),
        targets=_gather(past.item_codes, firsts + 1, lengths, PADDING),
        times=_gather(past.timestamps, firsts, lengths, 0),
        target_times=_gather(past.timestamps, firsts + 1, lengths, 0),
        places=places,
        n_whole=len(whole),
        weight=n_ranks * share,
    )


def _gather(values: NDArray[np.integer], firsts: LongArray, lengths: LongArray, padding: int) -> Tensor:
    """Return (n, max(lengths)) int64: `lengths` values from each row of `firsts`, padding after them."""
    steps = np.arange(max(int(lengths.max(initial=0)), 1))
    inside = steps < lengths[:, None]
    gathered = np.full(inside.shape, padding, dtype=np.int64)
    gathered[inside] = values[(firsts[:, None] + steps)[inside]]
    return torch.from_numpy(gathered)
