"""The closed loop on a world whose truth is known: serve, collect, retrain, promote, and see whether it learns.

Simulated people meet a shop without an engine for a while. From then on, round after round, the current version answers
them through the request path of the service, its answers and their clicks go to a real log, and the next version is
trained on that log. What every page is worth is asked of the truth.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rec_engine.data.clickstream_sim import demo_simulator
from rec_engine.errors import DataError
from rec_engine.pipeline.loop_people import People
from rec_engine.pipeline.loop_service import Answering, Shop
from rec_engine.pipeline.loop_trial import Trial, run_trial
from rec_engine.utils.config import ModelConfig
from rec_engine.utils.logger import get_logger

FIRST = "first version"
SMALL = ModelConfig.model_validate(
    {
        "text": {"encoder": "none"},
        "model": {"embedding_dim": 32, "tower_dims": [32], "n_blocks": 1, "max_history_len": 50},
        "training": {"num_epochs": 20, "batch_size": 64, "learning_rate": 0.005, "device": "cpu"},
        "evaluation": {"split": "temporal", "validation_share": 0.25, "test_share": 0.05},
    }
)
"""With what the versions of a small world are trained: parts in time, as whoever retrains every day has them."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """The world, and how often it goes round.

    Attributes:
        n_rounds: versions that are served, one after the other.
        n_users: shoppers.
        n_items: items; a third of them comes while time passes.
        n_interactions: of a half year, about.
        past_days: before the first version.
        round_days: that a version is served.
        exploration: temperature of the draw, in log-odds; 0 draws nothing.
        new_item_share: of the places that are drawn in the rounds, as `recommendations.new_item_share`.
        trial_days: that each part of the trial takes which follows the rounds; 0 for none. Without exploration there is
            none.
        seed: of everything.
    """

    n_rounds: int = 5
    n_users: int = 500
    n_items: int = 300
    n_interactions: int = 50_000
    past_days: float = 14.0
    round_days: float = 14.0
    exploration: float = 0.1
    new_item_share: float = 0.0
    trial_days: float = 14.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """What became of a training run.

    Attributes:
        number: 1 for the first.
        is_promoted: whether it was served in the next round.
        gate: why, or why not, in words.
        is_reranked: whether it has a re-ranker that did better than none.
        ndcg: @10, on the clicks that were held out.
        seconds: of training.
    """

    number: int
    is_promoted: bool
    gate: str
    is_reranked: bool
    ndcg: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Loop:
    """What happened.

    Attributes:
        answers: one row an answer to a person: round, user (code), is_first (he had done nothing before), new_shown and
            new_there (share of new items on the page, and among those that could be), clicks (what he did), and a
            column a policy: what its page was worth at that moment, in expected clicks, and of that its new items
            (`OF_NEW`) and its first place (`OF_FIRST`). Beside them has_joined (he came after the first version),
            is_first_page (of a visit), request_id, clicks_first (at the first place) and version (that answered).
        versions: in order.
        trial: of one more version after the rounds; None where there was none.
        seconds: of everything.
    """

    answers: pl.DataFrame
    versions: tuple[Version, ...]
    trial: Trial | None
    seconds: float


def run_loop(settings: LoopSettings, directory: Path, config: ModelConfig = SMALL) -> Loop:
    """Return what happened in a closed loop; the same settings give the same answers.

    Args:
        settings: the world, and how often it goes round.
        directory: an empty folder for log and versions.
        config: how versions are trained.

    Raises:
        DataError: if too little happens in the world to train on, or nobody comes in a round.
    """
    started = time.monotonic()
    simulator = demo_simulator(settings.seed, settings.n_users, settings.n_items, settings.n_interactions)
    past = simulator.simulate_period(n_days=settings.past_days).interactions
    shop = Shop(directory, config, simulator.world.users, simulator.world.items)
    people = People(simulator, shop, past["user_id"].unique(), settings.seed)
    answers, versions, beside = list[pl.DataFrame](), list[Version](), dict[str, Answering]()
    try:
        shop.offer(simulator.now)
        shop.ingest(past, simulator.now)
        for number in range(1, settings.n_rounds + 1):
            versions.append(_trained(shop, simulator.now, number))
            share = settings.new_item_share
            served = shop.served(shop.current(), settings.exploration, new_item_share=share)
            if not beside:
                first = shop.served(shop.current(), settings.exploration, is_served=False, new_item_share=share)
                beside = {FIRST: first}
            found = people.visit(served, settings.round_days, f"round-{number}", beside)
            if found.is_empty():
                raise DataError(f"nobody came in round {number}", hint="raise --users and --interactions")
            answers.append(found.with_columns(round=pl.lit(number)))
            told = number, settings.n_rounds, settings.exploration, found.height
            logger.info("round %d of %d, exploration %g: %d answers", *told)
        has_trial = settings.trial_days > 0 and settings.exploration > 0
        trial = run_trial(shop, people, simulator, settings.trial_days, settings.exploration) if has_trial else None
    finally:
        shop.close()
    return Loop(pl.concat(answers), tuple(versions), trial, time.monotonic() - started)


def _trained(shop: Shop, now: int, number: int) -> Version:
    started = time.monotonic()
    report = shop.train(now)
    return Version(
        number=number,
        is_promoted=report.is_current,
        gate=report.gate,
        is_reranked=len(report.evaluations) > 1,
        ndcg=report.evaluations[-1].mean("ndcg@10"),
        seconds=time.monotonic() - started,
    )
