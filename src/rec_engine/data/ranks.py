"""What stands at a place in the ascending order of very many numbers, found without sorting or copying them."""

import numpy as np

from rec_engine.data.interactions import LongArray
from rec_engine.data.scratch import row_blocks

BINS = 2**16


def value_at(values: LongArray, place: int) -> int:
    """Return np.sort(values)[place]: numbers are counted in bins, then those of one bin in narrower ones.

    Args:
        values: (n,), whose smallest and largest lie less than 2^63 apart.
        place: from 0 to n - 1.
    """
    low, high = int(values.min()), int(values.max())
    while low < high:
        width = (high - low) // BINS + 1
        counts = np.zeros(BINS, dtype=np.int64)
        for rows in row_blocks(len(values)):
            block = values[rows]
            counts += np.bincount((block[(block >= low) & (block <= high)] - low) // width, minlength=BINS)
        reached = np.cumsum(counts)
        chosen = int(np.searchsorted(reached, place, side="right"))
        place -= int(reached[chosen] - counts[chosen])
        low, high = low + chosen * width, min(high, low + (chosen + 1) * width - 1)
    return low
