"""Clicks are what the click models promise."""

import numpy as np
import pytest

from rec_engine.data.click_models import CLICK_MODELS, Cascade, PositionBased

ATTRACTION = np.array([0.6, 0.3, 0.9, 0.1], dtype=np.float32)


@pytest.mark.parametrize("name", CLICK_MODELS)
def test_as_many_clicks_as_expected(name: str) -> None:
    model = CLICK_MODELS[name]
    pages = np.tile(ATTRACTION, (100_000, 1))
    drawn = model.clicks(pages, np.random.default_rng(0)).sum(axis=1)
    assert drawn.mean() == pytest.approx(model.expected(pages)[0], abs=5 * drawn.std() / np.sqrt(len(drawn)))


def test_a_click_is_examination_times_attraction() -> None:
    drawn = PositionBased().clicks(np.tile(ATTRACTION, (200_000, 1)), np.random.default_rng(1)).mean(axis=0)
    assert drawn == pytest.approx(ATTRACTION * np.array([1, 2**-0.6, 3**-0.6, 4**-0.6]), abs=0.005)


def test_a_cascade_ends_with_its_first_click() -> None:
    drawn = Cascade().clicks(np.tile(ATTRACTION, (200_000, 1)), np.random.default_rng(2))
    assert drawn.sum(axis=1).max() == 1
    not_above = np.concatenate([[1], np.cumprod(1 - ATTRACTION)[:-1]])
    assert drawn.mean(axis=0) == pytest.approx(ATTRACTION * not_above, abs=0.005)


@pytest.mark.parametrize("name", CLICK_MODELS)
def test_the_best_order_is_that_of_attraction(name: str) -> None:
    rng = np.random.default_rng(3)
    drawn = rng.random((50, 6), dtype=np.float32)
    best = CLICK_MODELS[name].expected(-np.sort(-drawn, axis=1))
    for _ in range(20):
        assert (CLICK_MODELS[name].expected(rng.permuted(drawn, axis=1)) <= best + 1e-9).all()


@pytest.mark.parametrize("name", CLICK_MODELS)
def test_nothing_attracts_nobody(name: str) -> None:
    pages = np.zeros((100, 3), dtype=np.float32)
    assert not CLICK_MODELS[name].clicks(pages, np.random.default_rng(4)).any()
    assert not CLICK_MODELS[name].expected(pages).any()
