"""What becomes a click: how far people look down a page, and what attracts them of what they see."""

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import BoolArray, FloatArray

POSITION_EXPONENT = 0.6
"""Examination falls with position as 1 / position ** 0.6."""


class ClickModel(Protocol):
    """Clicks on pages whose items attract with known probabilities, (n, k) float32, best place first."""

    def clicks(self, attraction: FloatArray, rng: np.random.Generator) -> BoolArray:
        """Return (n, k) bool, drawn."""
        ...

    def expected(self, attraction: FloatArray) -> NDArray[np.float64]:
        """Return (n,) float64: how many clicks a page is worth."""
        ...


class PositionBased:
    """A position is looked at with a probability of its own, whatever is above it: click = examination x attraction.

    References:
        Richardson et al., Predicting clicks, WWW 2007; Chuklin et al., Click models for web search, 2015, chapter 3.
    """

    def examination(self, k: int) -> FloatArray:
        """Return (k,) float32: the probability that a position is looked at."""
        return (np.arange(1, k + 1) ** -POSITION_EXPONENT).astype(np.float32)

    def clicks(self, attraction: FloatArray, rng: np.random.Generator) -> BoolArray:
        """Return (n, k) bool, drawn."""
        drawn = rng.random(attraction.shape, dtype=np.float32)
        return np.asarray(drawn < attraction * self.examination(attraction.shape[1]))

    def expected(self, attraction: FloatArray) -> NDArray[np.float64]:
        """Return (n,) float64: how many clicks a page is worth."""
        worth: NDArray[np.float64] = attraction.astype(np.float64) @ self.examination(attraction.shape[1])
        return worth


class Cascade:
    """People look from the top until something attracts them, click it and stop.

    References:
        Craswell et al., An experimental comparison of click position-bias models, WSDM 2008.
    """

    def clicks(self, attraction: FloatArray, rng: np.random.Generator) -> BoolArray:
        """Return (n, k) bool, drawn; at most one click a row."""
        attracted = rng.random(attraction.shape, dtype=np.float32) < attraction
        return np.asarray(attracted & (np.cumsum(attracted, axis=1) == 1))

    def expected(self, attraction: FloatArray) -> NDArray[np.float64]:
        """Return (n,) float64: the probability that a page is clicked at all."""
        missed: NDArray[np.float64] = np.prod(1 - attraction.astype(np.float64), axis=1)
        return 1 - missed


CLICK_MODELS: Final[dict[str, ClickModel]] = {"position_based": PositionBased(), "cascade": Cascade()}
"""By their names on the command line."""
