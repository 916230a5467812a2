"""Experiments on simulated people: a planted difference is found, and none where there is none."""

import json
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from conftest import tiny_config

from rec_engine.bundle import ModelBundle
from rec_engine.data.clickstream_sim import ClickstreamSimulator, demo_simulator
from rec_engine.data.dataset import ExternalId
from rec_engine.data.simulated_policies import OraclePolicy, RandomPolicy, Recommend
from rec_engine.experiments.proposal import CONTROL, TREATMENT
from rec_engine.pipeline.loop_experiment import ALIKE, DIFFERENT, DividedTraffic, Finding, spoilt
from rec_engine.pipeline.loop_people import ENGINE, People
from rec_engine.pipeline.loop_service import Page, Shop

DAYS = 10


class PolicyAnswers:
    """Answers by a policy of the simulator, as a version would."""

    def __init__(self, simulator: ClickstreamSimulator, policy: Recommend, name: str) -> None:
        self._simulator, self._policy, self._name = simulator, policy, name

    def refresh(self) -> None:
        """Know everything always."""

    def answer(
        self, user_id: ExternalId, moment: int, request_id: str, k: int, shown_before: Sequence[ExternalId] = ()
    ) -> Page:
        world = self._simulator.world
        asked = self._simulator.asked(np.array([int(user_id) - 1]), np.array([moment]), k)
        asked.eligible[0, [int(item) - 1 for item in shown_before]] = False
        codes = self._policy(asked).item_codes[0]
        items: list[ExternalId] = [str(world.items["item_id"][int(code)]) for code in codes]
        shown = json.dumps([[item, 0.5, 1.0] for item in items])
        return Page(request_id, items, shown, self._name, 0)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Finding], float]:
    """What is found where the treatment shows what attracts most, and the control anything; and the true difference."""
    simulator = demo_simulator(seed=2, n_users=200, n_items=60, n_interactions=40_000)
    arms = {
        CONTROL: PolicyAnswers(simulator, RandomPolicy(0), "chance"),
        TREATMENT: PolicyAnswers(simulator, OraclePolicy(simulator.world), "best"),
    }
    world = simulator.world
    shop = Shop(tmp_path_factory.mktemp("shop"), tiny_config(), world.users, world.items)
    people = People(simulator, shop, world.users["user_id"].clear(), seed=0)
    with DividedTraffic(shop.store_url, arms, simulator.now) as divided:
        answers = people.visit(divided, DAYS, "tested", {})
        found = divided.findings(simulator.now)
    shop.close()
    by_arm = dict(answers.group_by("version").agg(pl.col(ENGINE).mean()).rows())
    return found, by_arm["best"] / by_arm["chance"] - 1


def test_a_planted_difference_is_found_and_as_large_as_it_is(findings: tuple[dict[str, Finding], float]) -> None:
    found, truth = findings[0][DIFFERENT], findings[1]
    assert found.is_found
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < truth < found.high


def test_where_there_is_no_difference_none_is_found(findings: tuple[dict[str, Finding], float]) -> None:
    found = findings[0][ALIKE]
    assert not found.is_found
    assert found.users != findings[0][DIFFERENT].users  # other users, though they met the same


def test_a_spoilt_version_knows_nothing_of_items(bundle: ModelBundle) -> None:
    worse = spoilt(bundle, seed=1)
    cosines = (worse.index.vectors * bundle.index.vectors).sum(axis=1)
    assert abs(cosines.mean()) < 0.2
    assert worse.ranker is None
    assert worse.version != bundle.version
