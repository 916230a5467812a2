"""Simulated worlds for the command line: the demo's or one like a dataset, and the files of what happened there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from rec_engine.data.clickstream_sim import Clickstream, ClickstreamSimulator, demo_simulator
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.simulated_fit import Match, clicks_of, fitted_simulator, match
from rec_engine.data.simulated_policies import OraclePolicy, PopularityPolicy, RandomPolicy, Recommend
from rec_engine.data.simulated_world import N_DAYS, World

PolicyName = Literal["organic", "random", "popularity", "oracle"]


@dataclass(frozen=True, slots=True)
class Simulation:
    """A world before its first day.

    Attributes:
        simulator: of it.
        n_days: how long its past takes.
        like: the dataset that it was fitted to; None for the demo shop.
    """

    simulator: ClickstreamSimulator
    n_days: float
    like: RecommendationDataset | None

    def past(self, policy: PolicyName = "organic", *, seed: int = 0) -> Clickstream:
        """Return what happens in `n_days` in which a policy decides what is shown."""
        policies: dict[str, Recommend | None] = {
            "organic": None,
            "random": RandomPolicy(seed),
            "popularity": PopularityPolicy(),
            "oracle": OraclePolicy(self.simulator.world),
        }
        return self.simulator.simulate_period(policies[policy], n_days=self.n_days)

    def match(self, past: Clickstream) -> Match | None:
        """Return how like the dataset a past is; None where there is no dataset."""
        return match(self.like.interactions, clicks_of(past.interactions, self.like)) if self.like else None

    def remember(self) -> None:
        """Let people have the past that a service knows which was trained on this data."""
        if self.like is None:
            self.past()
        else:
            self.simulator.remember(self.like.interactions.user_codes, self.like.interactions.item_codes)


def demo_world(seed: int, n_users: int, n_items: int, n_interactions: int) -> Simulation:
    """Return the demo shop in some size."""
    return Simulation(demo_simulator(seed, n_users, n_items, n_interactions), N_DAYS, None)


def world_like(dataset: RecommendationDataset, seed: int) -> Simulation:
    """Return a world with the users and items of a dataset, and their habits."""
    simulator, n_days = fitted_simulator(dataset, seed)
    return Simulation(simulator, n_days, dataset)


def write_simulation(found: Clickstream, directory: Path) -> list[Path]:
    """Write interactions, impressions, users, items and the truth of both as Parquet, and return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    frames = {
        "interactions": found.interactions,
        "impressions": found.impressions,
        "users": found.users,
        "items": found.items,
        "truth_users": _truth_of_users(found.truth),
        "truth_items": _truth_of_items(found.truth),
    }
    paths = []
    for name, frame in frames.items():
        path = directory / f"{name}.parquet"
        frame.write_parquet(path)
        paths.append(path)
    return paths


def _truth_of_users(world: World) -> pl.DataFrame:
    return pl.DataFrame(
        [
            world.users["user_id"],
            pl.Series("taste_at_start", world.tastes_at_start.tolist()),
            pl.Series("taste_at_end", world.tastes_at_end.tolist()),
            pl.Series("joined_day", world.joined_day),
            pl.Series("left_day", np.where(np.isinf(world.left_day), np.nan, world.left_day)).fill_nan(None),
            pl.Series("is_bot", world.is_bot),
        ]
    )


def _truth_of_items(world: World) -> pl.DataFrame:
    return pl.DataFrame(
        [
            world.items["item_id"],
            pl.Series("vector", world.item_vectors.tolist()),
            pl.Series("log_popularity", world.log_popularity),
            pl.Series("released_day", world.released_day),
        ]
    )
