"""What a position adds to the chance of a click, in a world where it is known."""

import numpy as np
import pytest
from scipy.special import expit

from rec_engine.data.dataset import FloatArray
from rec_engine.models.features import FEATURES
from rec_engine.models.lightgbm_ranker import CTRRanker, RankerRows
from rec_engine.models.position_bias import position_offsets
from rec_engine.utils.config import CTRSettings

N_SHOWN = 8
KNOWN, UNKNOWN = FEATURES.index("item_trend"), FEATURES.index("item_days_idle")  # of which trees may learn either way
TRUTH: FloatArray = np.concatenate([[0.0], -0.5 * np.arange(N_SHOWN)]).astype(np.float32)


def shown_rows(seed: int, n_requests: int, *, noise: float) -> tuple[RankerRows, FloatArray]:
    """Return answers of a service that orders by a poor guess of what people like, and what they truly like."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n_requests, N_SHOWN, len(FEATURES))).astype(np.float32)
    liked = values[..., KNOWN] - values[..., UNKNOWN]
    # The old ranker knew one feature only, so that position and features go together.
    order = np.argsort(-(values[..., KNOWN] + noise * rng.standard_normal(liked.shape)), axis=1)
    values = np.take_along_axis(values, order[..., None], axis=1)
    liked = np.take_along_axis(liked, order, axis=1)
    clicked = rng.random(liked.shape) < expit(liked - 1.5 + TRUTH[1:])
    positions = np.tile(np.arange(1, N_SHOWN + 1, dtype=np.int32), n_requests)
    sizes = np.full(n_requests, N_SHOWN)
    rows = RankerRows(values.reshape(-1, len(FEATURES)), clicked.ravel().astype(np.float32), sizes, positions)
    return rows, liked.ravel().astype(np.float32)


def test_offsets_are_found_beside_a_model_that_knows_the_rest() -> None:
    rows, liked = shown_rows(0, 16_000, noise=1.0)
    assert rows.positions is not None
    found = position_offsets(rows.positions, rows.labels, lambda _: liked - np.float32(1.5))
    assert found[0] == 0
    standard_errors = 1 / np.sqrt(np.bincount(rows.positions, rows.labels)[1:])
    assert (np.abs(found - TRUTH)[1:] < 3 * standard_errors).all()
    assert standard_errors.max() < 0.15


def test_trees_beside_offsets_order_by_what_people_like_not_by_where_it_was() -> None:
    train, _ = shown_rows(1, 4_000, noise=0.7)
    held_out, liked = shown_rows(2, 4_000, noise=0.7)
    natural = RankerRows(held_out.features, (liked > 1).astype(np.float32), held_out.sizes)
    ignorant = RankerRows(train.features, train.labels, train.sizes)
    settings = CTRSettings(objective="binary")
    corrected, plain = (CTRRanker.fit(rows, natural, settings, seed=0) for rows in (train, ignorant))
    gained = corrected.offsets[1:] - corrected.offsets[1]
    assert gained == pytest.approx(TRUTH[1:], abs=0.5)
    assert gained.mean() == pytest.approx(TRUTH[1:].mean(), abs=0.25)
    assert not len(plain.offsets)

    def agreement(ranker: CTRRanker) -> float:
        return float(np.corrcoef(ranker.log_odds(held_out.features), liked)[0, 1])

    assert agreement(corrected) > agreement(plain) + 0.01
