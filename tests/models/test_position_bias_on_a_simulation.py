"""Correction for position on the simulator's impressions: the order that the re-ranker learns is that of the truth."""

import numpy as np
import pytest
from scipy.stats import rankdata

from rec_engine.data.click_models import POSITION_EXPONENT
from rec_engine.data.clickstream_sim import ClickstreamSimulator, demo_simulator
from rec_engine.data.dataset import FloatArray
from rec_engine.data.simulated_policies import Asked, RandomPolicy, Shown
from rec_engine.models.features import FEATURES
from rec_engine.models.lightgbm_ranker import CTRRanker, RankerRows
from rec_engine.utils.config import CTRSettings

K = 8
SETTINGS = CTRSettings(objective="binary")
COLUMNS = [place for place, name in enumerate(FEATURES) if not name.endswith(("_rank", "_gap"))][:2]
"""Where the ranker finds what it may know: how an item fits the taste, and how popular it is."""


class SlowSellersFirst:
    """Draws pages at random and puts on top what is met least, which people like least."""

    def __init__(self, simulator: ClickstreamSimulator, seed: int) -> None:
        self.simulator, self.rng, self.draws = simulator, np.random.default_rng(seed), RandomPolicy(seed)
        self.seen: list[tuple[FloatArray, FloatArray]] = []

    def __call__(self, asked: Asked) -> Shown:
        world, items = self.simulator.world, self.draws(asked).item_codes
        order = world.log_popularity[items] + 0.7 * self.rng.standard_normal(items.shape)
        items = np.take_along_axis(items, np.argsort(order, axis=1), axis=1)
        taste = world.taste(asked.user_codes, world.days(asked.moments))
        features = np.zeros((*items.shape, len(FEATURES)), dtype=np.float32)
        features[..., COLUMNS[0]] = np.einsum("nkd,nd->nk", world.item_vectors[items], taste)
        features[..., COLUMNS[1]] = world.log_popularity[items]
        self.seen.append((features, world.attraction(asked.user_codes, items, asked.moments)))
        return Shown(items)


def logged(seed: int) -> tuple[RankerRows, FloatArray]:
    """Return impressions with features, clicks and positions, and the planted attraction (n,)."""
    simulator = demo_simulator(seed, n_users=600, n_items=300, n_interactions=20_000)
    policy = SlowSellersFirst(simulator, seed)
    found = simulator.simulate_period(policy, n_days=90, k=K).impressions.sort("request_id", "position")
    features, attraction = (np.concatenate(part) for part in zip(*policy.seen, strict=True))
    rows = RankerRows(
        features.reshape(-1, len(FEATURES)),
        found["clicked"].to_numpy().astype(np.float32),
        np.full(len(features), K),
        found["position"].to_numpy().astype(np.int32),
    )
    return rows, attraction.ravel()


def rank_correlation(one: FloatArray, other: FloatArray) -> float:
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


@pytest.fixture(scope="module")
def train() -> RankerRows:
    return logged(1)[0]


@pytest.fixture(scope="module")
def held_out() -> tuple[RankerRows, FloatArray]:
    """Other people's pages, labelled by what attracts them wherever it stands, and how much it does."""
    rows, attraction = logged(2)
    drawn = np.random.default_rng(0).random(len(attraction)) < attraction
    return RankerRows(rows.features, drawn.astype(np.float32), rows.sizes), attraction


@pytest.fixture(scope="module")
def corrected(train: RankerRows, held_out: tuple[RankerRows, FloatArray]) -> CTRRanker:
    return CTRRanker.fit(train, held_out[0], SETTINGS, seed=0)


def test_with_correction_the_scores_order_by_the_planted_attraction(
    train: RankerRows, held_out: tuple[RankerRows, FloatArray], corrected: CTRRanker
) -> None:
    rows, attraction = held_out
    plain = CTRRanker.fit(RankerRows(train.features, train.labels, train.sizes), rows, SETTINGS, seed=0)
    with_correction, without = (
        rank_correlation(ranker.log_odds(rows.features), attraction) for ranker in (corrected, plain)
    )
    assert with_correction > 0.98
    assert 1 - with_correction < 0.5 * (1 - without)


def test_offsets_are_those_of_the_click_model(corrected: CTRRanker) -> None:
    gained = corrected.offsets[1:] - corrected.offsets[1]
    # The log-odds of a click fall by about the log of examination where attraction is small.
    assert (np.diff(gained) < 0.1).all()
    assert gained[-1] == pytest.approx(-POSITION_EXPONENT * np.log(K), abs=0.5)
