"""Worlds so small that the right answer is known by construction."""

from collections.abc import Sequence

import numpy as np

from rec_engine.data.dataset import Interactions


def interactions(rows: Sequence[Sequence[int]], weights: Sequence[Sequence[float]] | None = None) -> Interactions:
    """Return one user a row, his items in time order, a second apart."""
    codes = np.array([item for row in rows for item in row], dtype=np.int32)
    stamps = np.array([place for row in rows for place in range(len(row))], dtype=np.int64)
    flat = np.ones(len(codes)) if weights is None else np.array([weight for row in weights for weight in row])
    return Interactions(
        item_codes=codes,
        timestamps=1_600_000_000 + stamps,
        events=np.ones(len(codes), dtype=np.uint8),
        values=np.full(len(codes), np.nan, dtype=np.float32),
        weights=flat.astype(np.float32),
        starts=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
    )


def checkerboard(n: int = 40) -> Interactions:
    """Even users like even items, odd users odd ones; each user's own number is withheld, so it is the answer."""
    rng = np.random.default_rng(0)
    return interactions(
        [rng.permutation([item for item in range(user % 2, n, 2) if item != user]).tolist() for user in range(n)]
    )
