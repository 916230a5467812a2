"""Batches cover the data once, whatever the lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import interactions

from rec_engine.models.batches import PADDING, epoch_batches, latest_histories, windows

histories = st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=8)


@given(histories, st.integers(1, 5), st.integers(1, 4))
def test_every_interaction_but_the_first_is_a_target_once_after_its_predecessor(
    rows: list[list[int]], max_len: int, batch_size: int
) -> None:
    pairs = []
    for batch in epoch_batches(windows(interactions(rows), max_len), batch_size, np.random.default_rng(0)):
        assert batch.inputs.shape == batch.targets.shape
        assert batch.inputs.shape[1] <= max_len
        for user, inputs, targets in zip(
            batch.user_codes.tolist(), batch.inputs.tolist(), batch.targets.tolist(), strict=True
        ):
            real = [place for place, target in enumerate(targets) if target != PADDING]
            assert real == list(range(len(real)))
            assert (batch.target_times - batch.times)[batch.targets != PADDING].eq(1).all()
            pairs += [(user, inputs[place], targets[place]) for place in real]
    expected = [(user, a, b) for user, row in enumerate(rows) for a, b in zip(row[:-1], row[1:], strict=True)]
    assert sorted(pairs) == sorted(expected)


@given(histories, st.integers(1, 4), st.integers(2, 4))
def test_processes_share_each_batch_and_their_weights_make_the_mean_over_all_targets(
    rows: list[list[int]], batch_size: int, n_ranks: int
) -> None:
    pieces = windows(interactions(rows), 5)
    whole = list(epoch_batches(pieces, batch_size, np.random.default_rng(0)))
    shares = [
        list(epoch_batches(pieces, batch_size, np.random.default_rng(0), rank=rank, n_ranks=n_ranks))
        for rank in range(n_ranks)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert batch.weight == 1
        working = [part for part in parts if part.weight]
        assert sorted(place for part in working for place in part.places) == batch.places.tolist()
        n_targets = int((batch.targets != PADDING).sum())
        for part in working:
            assert part.user_codes.tolist() == batch.user_codes[part.places].tolist()
            assert part.weight * n_targets / n_ranks == pytest.approx(int((part.targets != PADDING).sum()))
        assert all(part.n_whole == len(batch.places) and len(part.places) for part in parts)


@given(histories, st.integers(1, 5))
def test_latest_histories_are_the_ends_of_the_rows(rows: list[list[int]], max_len: int) -> None:
    now = np.full(len(rows), 2_000_000_000)
    past = latest_histories(interactions(rows), np.arange(len(rows), dtype=np.int32), max_len, now)
    for place, row in enumerate(rows):
        length = int(past.lengths[place])
        assert past.item_codes[place, :length].tolist() == row[-max_len:]
        assert set(past.item_codes[place, length:].tolist()) <= {PADDING}
        times = (1_600_000_000 + np.arange(len(row)))[-max_len:].tolist()
        assert past.times[place, :length].tolist() == times
        assert past.query_times[place, :length].tolist() == [*times[1:], 2_000_000_000][:length]


def test_batches_come_in_another_order_each_epoch_but_the_same_for_the_same_seed() -> None:
    pieces = windows(interactions([[0] * n for n in range(2, 40)]), 50)
    orders = [
        [batch.user_codes.tolist() for batch in epoch_batches(pieces, 4, np.random.default_rng(seed))]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
