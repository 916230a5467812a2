"""After the rounds of a closed loop, one more version is tried as a careful shop would: by the log, then by experiment.

It is trained on the log of all rounds. For a while the version before it goes on answering, with much exploration: what
the next one would earn, exploring as much, is estimated from that log. Then half of the people meet it, and the others
a spoilt one.
"""

from dataclasses import dataclass

import polars as pl

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.clickstream_sim import ClickstreamSimulator
from rec_engine.errors import DataError
from rec_engine.evaluation.off_policy import PolicyValue
from rec_engine.experiments.proposal import CONTROL, TREATMENT
from rec_engine.pipeline.counterfactual import judge_from_log
from rec_engine.pipeline.loop_experiment import DividedTraffic, Finding, spoilt
from rec_engine.pipeline.loop_people import People
from rec_engine.pipeline.loop_rankers import order_correlations, rankers_with_and_without
from rec_engine.pipeline.loop_service import Shop
from rec_engine.utils.logger import get_logger

NEXT = "next version"
MUCH_EXPLORATION = 1.0
"""Temperature, in log-odds, of the version that logs and of the one that is judged: a log can say what a policy would
earn that draws much as it was drawn itself, not what one would that always shows what it takes for the best."""
JUDGED_POSITIONS = 1

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it.

    Attributes:
        estimate: what the log of the version before says of the next one: clicks an answer at the first place; None
            where it has no answer to judge by.
        logged: the answers of that version, as `Loop.answers`; NEXT is what the next one's would have been worth, with
            MUCH_EXPLORATION as well.
        tested: the answers of the experiment, with the columns CONTROL, TREATMENT and the names of re-rankers likewise.
        version: name of the next one.
        findings: experiment to what it says.
        correlations: one row a user, a column a re-ranker: the rank correlation of its scores with the truth.
    """

    estimate: PolicyValue | None
    logged: pl.DataFrame
    tested: pl.DataFrame
    version: str
    findings: dict[str, Finding]
    correlations: pl.DataFrame


def run_trial(shop: Shop, people: People, simulator: ClickstreamSimulator, n_days: float, exploration: float) -> Trial:
    """Return what comes of trying the next version, `n_days` by the log and as many by experiment.

    Args:
        shop: after the last round.
        people: that come to it.
        simulator: of their world.
        n_days: how long each part takes.
        exploration: temperature of the draw of the next version in the experiment, in log-odds, above 0.

    Raises:
        DataError: if nobody comes.
    """
    now, present = simulator.now, shop.current()
    following = open_bundle(shop.train(now).directory)
    rankers = rankers_with_and_without(shop, following, now)
    upcoming = shop.served(following, MUCH_EXPLORATION, is_served=False)
    logged = people.visit(shop.served(present, MUCH_EXPLORATION), n_days, "logged", {NEXT: upcoming})
    logger.info("%d answers by the version before the next one", logged.height)
    estimate = _estimate(following, shop.store_url, logged) if logged.height else None
    models = {name: shop.served(each, 0.0, is_served=False) for name, each in rankers.items()}
    arms = {
        CONTROL: shop.served(spoilt(following, seed=0), exploration),
        TREATMENT: shop.served(following, exploration),
    }
    with DividedTraffic(shop.store_url, arms, simulator.now) as divided:
        tested = people.visit(divided, n_days, "tested", {**arms, **models})
        findings = divided.findings(simulator.now)
    if logged.is_empty() or tested.is_empty():
        raise DataError("nobody came to the trial", hint="raise --users and --interactions")
    logger.info("%d answers in the experiments", tested.height)
    users = tested["user"].unique().sort().to_list()
    correlations = order_correlations(simulator, models, users, simulator.now)
    return Trial(estimate, logged, tested, following.version, findings, correlations)


def _estimate(bundle: ModelBundle, store_url: str, logged: pl.DataFrame) -> PolicyValue | None:
    """Return what the log says of a version, by first pages of visits: later ones leave out what these have shown."""
    try:
        (judged,) = judge_from_log(
            {NEXT: bundle},
            store_url,
            exploration=MUCH_EXPLORATION,
            n_positions=JUDGED_POSITIONS,
            request_ids=logged.filter("is_first_page")["request_id"].to_list(),
        )
    except DataError as error:
        logger.warning("no estimate from the log: %s", error)
        return None
    return judged.value
