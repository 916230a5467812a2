"""Sixty users in pairs of the same past, made by rule, and what tea-tasting 1.14.0 says of them.

The figures below come from its `RatioOfMeans` and `Mean` on exactly these columns.
"""

import numpy as np

from rec_engine.experiments.moments import DoubleArray

PLACES = np.arange(60)
PAIRS = PLACES // 2
ARM = (PLACES % 2).astype(np.int64)
IMPRESSIONS = (3 + 7 * PLACES % 11).astype(np.float64)
PRE_CLICKS = ((3 * PAIRS**2 + PAIRS) % 7 % 5).astype(np.float64)
PRE_IMPRESSIONS = (2 + 5 * PAIRS % 9).astype(np.float64)
CLICKS = np.minimum(IMPRESSIONS, (PRE_CLICKS + PLACES**2 % 5 + ARM * (PLACES % 3 == 0) + 1) // 2)
ONES = np.ones(60)

RATIO = [0.2791666666666667, 0.03203665283540802, 0.7123528105928713]
"""Control, difference and statistic."""
RATIO_NORMAL = [0.4762463292493485, -0.056108834637791954, 0.120182140308608]
"""P-value and both ends of the interval, as in all below."""
RATIO_T = [0.47931321671890204, -0.058128937740970416, 0.12220224341178645]
CUPED_MEAN = [0.23459886607423708, -0.17785439946902115, 0.7111877328023544]
CUPED_RATIO = [0.4274573526880069, -0.048216745013210466, 0.1122900506840265]


def clicks_by_impression() -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Return click, arm and user of every single impression."""
    shown = IMPRESSIONS.astype(np.int64)
    user = np.repeat(PLACES, shown)
    place = np.arange(len(user)) - np.repeat(np.cumsum(shown) - shown, shown)
    return (place < CLICKS[user]).astype(np.float64), ARM[user].astype(np.float64), user.astype(np.float64)
