"""The protocols P1 to P6: which data, which split, what has to be found. P7 reads the lists of P1 and P2.

P1-ml-100k is small enough for ablations with several seeds; P5-ml-1m asks P5's questions where items have plots.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from rec_engine.data.data_loader import load_custom, load_dataset
from rec_engine.data.dataset import BoolArray, Interactions, RecommendationDataset
from rec_engine.data.splits import Split, leave_one_out, random_split, temporal_split
from rec_engine.evaluation.evaluator import Task, merge, test_task
from rec_engine.models.baselines import OwnHistory
from rec_engine.utils.config import ModelConfig, load_config

ML_1M = Path(__file__).parents[1] / "configs" / "ml_1m.yaml"
SEQUENTIAL = ("RecTools SASRec", "RecTools eSASRec", "RecTools HSTU")
JUDGED = "two-stage"
"""The whole path: what is compared with everything else."""
BEST, CHANCE = "the best other", "chance"
N_SUCCESSIVE = 5_000
COLD_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a protocol.

    Attributes:
        name: for the table.
        rounds: tasks in which a user occurs at most once; most questions have one round.
        only: (n_items,) bool, the items that may be shown; all of them without it.
    """

    name: str
    rounds: tuple[Task, ...]
    only: BoolArray | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One protocol on its data.

    Attributes:
        dataset: what is known.
        split: train and validation parts; no model sees the test part.
        questions: what is asked.
        config: of our own model.
    """

    dataset: RecommendationDataset
    split: Split
    questions: tuple[Question, ...]
    config: ModelConfig

    @property
    def known(self) -> Interactions:
        """What models may be fitted on once their settings are chosen."""
        return merge(self.split.train, self.split.validation)


@dataclass(frozen=True, slots=True)
class Goal:
    """How good is good enough for the whole path.

    Attributes:
        question: number of the question.
        metric: in which.
        floor: to be reached.
        aim: to be aimed at.
        beside: what both are multiples of: the name of a model, BEST or CHANCE; nothing for plain values.
    """

    question: int
    metric: str
    floor: float | None
    aim: float | None
    beside: str = ""

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Floor and aim."""
        return self.floor, self.aim


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is measured, and how good is good.

    Attributes:
        title: in words.
        data: folder below the data directory.
        metrics: of the table, the first one decides.
        goals: of the whole path.
        build: folder and seed to the case.
        without: models that have no place in it.
    """

    title: str
    data: str
    metrics: tuple[str, ...]
    goals: tuple[Goal, ...]
    build: Callable[[Path, int], Case]
    without: tuple[str, ...] = ()


def _p1(folder: Path, seed: int) -> Case:
    dataset = _movielens(folder)
    split = leave_one_out(dataset.interactions)
    task = test_task(split)
    clockless = replace(task, name=f"{task.name}, time of the request unknown", knows_request_time=False)
    questions = Question("last item", (task,)), Question("last item, clockless", (clockless,))
    return Case(dataset, split, questions, _config(seed))


def _p1_small(folder: Path, seed: int) -> Case:
    dataset = load_dataset("ml-100k", folder.parent)
    split = leave_one_out(dataset.interactions)
    return Case(dataset, split, (Question("last item", (test_task(split),)),), _config(seed))


def _p2(folder: Path, seed: int) -> Case:
    dataset = _movielens(folder)
    split = temporal_split(dataset.interactions, test_share=0.1, validation_share=0.05)
    questions = Question("last", (_last(split),)), Question("successive", tuple(_successive(split)))
    return Case(dataset, split, questions, _config(seed))


def _p3(folder: Path, seed: int) -> Case:
    dataset = _movielens(folder)
    split = random_split(dataset.interactions, test_share=0.2, validation_share=0.1, seed=0)
    return Case(dataset, split, (Question("random 20%", (test_task(split),)),), _config(seed))


def _p4(folder: Path, seed: int) -> Case:
    lines = [line.split() for line in (folder / "sequences.txt").read_text(encoding="utf-8").splitlines()]
    rows = [(user, item, place) for user, *items in lines for place, item in enumerate(items)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    dataset = RecommendationDataset(frame.with_columns(pl.col("timestamp") + 1_000_000_000))
    split = leave_one_out(dataset.interactions)
    flags = {"training.loss": "full", "model.max_history_len": 50, "model.dropout": 0.5, "training.num_epochs": 40}
    return Case(dataset, split, (Question("last item", (test_task(split),)),), _config(seed, **flags))


def _p5(folder: Path, seed: int) -> Case:
    dataset = _retail(folder) if (folder / "interactions.csv").exists() else _movielens(folder)
    rng = np.random.default_rng(0)
    cold = rng.random(dataset.n_items) < COLD_SHARE
    is_cold = cold[dataset.interactions.item_codes]
    warm = dataset.interactions.where(~is_cold)
    split = leave_one_out(warm)
    targets = dataset.interactions.where(is_cold & (dataset.interactions.weights > 0))
    known = merge(split.train, split.validation)
    found = Task("cold items", known, targets)
    questions = (
        Question("cold among cold", (found,), only=cold),
        Question("cold in all", (found,)),
        Question("warm in all", (test_task(split),)),
    )
    return Case(dataset, split, questions, _config(seed, **{"training.num_epochs": 15}))


def _p6(folder: Path, seed: int, *, repeats: bool = False) -> Case:
    dataset = _retail(folder)
    split = temporal_split(dataset.interactions, test_share=0.1, validation_share=0.1)
    split = replace(split, repeats=repeats)
    flags = {"training.num_epochs": 20, "training.early_stopping_patience": 4}
    question = Question("all products" if repeats else "new products", (test_task(split),))
    return Case(dataset, split, (question,), _config(seed, **flags))


COLD_GOALS = (
    Goal(0, "recall@20", 3.0, None, CHANCE),
    Goal(2, "ndcg@10", None, 0.99, f"{JUDGED}: without text and id dropout"),
)
PROTOCOLS: dict[str, Protocol] = {
    "P1": Protocol(
        "leave-one-out",
        "ml-1m",
        ("ndcg@10", "hit_rate@10", "coverage@10"),
        (
            Goal(0, "ndcg@10", 1.0, 1.1, BEST),
            Goal(0, "ndcg@10", 1.1, None, "two-tower"),
            Goal(0, "ndcg@10", None, 0.215),
            Goal(0, "hit_rate@10", None, 0.365),
            Goal(0, "coverage@10", None, 0.6),
        ),
        _p1,
        without=(OwnHistory.name,),
    ),
    "P1-ml-100k": Protocol(
        "leave-one-out",
        "ml-100k",
        ("ndcg@10", "hit_rate@10", "coverage@10"),
        (Goal(0, "ndcg@10", 1.0, 1.1, BEST),),
        _p1_small,
        without=(*SEQUENTIAL, OwnHistory.name),
    ),
    "P2": Protocol(
        "global temporal split at the 90% quantile",
        "ml-1m",
        ("ndcg@10", "hit_rate@10", "coverage@10"),
        (
            Goal(0, "ndcg@10", 0.0948, 0.105),
            Goal(0, "hit_rate@10", 0.1596, 0.18),
            Goal(1, "ndcg@10", 0.1083, 0.12),
            Goal(1, "hit_rate@10", 0.1983, 0.22),
            Goal(0, "coverage@10", None, 0.6),
        ),
        _p2,
        without=(OwnHistory.name,),
    ),
    "P3": Protocol(
        "random 20% of each user's interactions",
        "ml-1m",
        ("ndcg@10", "recall@20", "coverage@10"),
        (Goal(0, "ndcg@10", 0.435, 0.45), Goal(0, "recall@20", 0.275, 0.29)),
        _p3,
        without=(*SEQUENTIAL, OwnHistory.name),
    ),
    "P4": Protocol(
        "leave-one-out",
        "amazon-beauty",
        ("ndcg@10", "hit_rate@10", "coverage@10"),
        (Goal(0, "ndcg@10", 0.052, 0.06), Goal(0, "hit_rate@10", 0.092, 0.1)),
        _p4,
        without=(OwnHistory.name,),
    ),
    "P5": Protocol(
        "10% of the items never seen in training",
        "online-retail",
        ("recall@20", "ndcg@10"),
        COLD_GOALS,
        _p5,
        without=(*SEQUENTIAL, OwnHistory.name),
    ),
    "P5-ml-1m": Protocol(
        "10% of the items never seen in training",
        "ml-1m",
        ("recall@20", "ndcg@10"),
        COLD_GOALS,
        _p5,
        without=(*SEQUENTIAL, OwnHistory.name),
    ),
    "P6": Protocol(
        "temporal split, products the customer has not bought",
        "online-retail",
        ("ndcg@10", "recall@20", "coverage@10"),
        (Goal(0, "ndcg@10", 1.0, 1.1, BEST),),
        _p6,
        without=(*SEQUENTIAL, OwnHistory.name),
    ),
    "P6-repeats": Protocol(
        "temporal split, products bought before count too",
        "online-retail",
        ("ndcg@10", "recall@20", "coverage@10"),
        (Goal(0, "ndcg@10", 1.0, 1.1, BEST),),
        partial(_p6, repeats=True),
        without=SEQUENTIAL,
    ),
}


def _movielens(folder: Path) -> RecommendationDataset:
    return load_custom(folder / "interactions.parquet", folder / "items.csv", folder / "users.csv")


def _retail(folder: Path) -> RecommendationDataset:
    return load_custom(folder / "interactions.csv", folder / "items.csv", folder / "users.csv")


def _config(seed: int, **flags: object) -> ModelConfig:
    return load_config(ModelConfig, ML_1M, flags={"training.seed": seed, "faiss.index_type": "Flat", **flags})


def _last(split: Split) -> Task:
    """Return the last test interaction of each user as target, everything before it as history."""
    from_end = np.repeat(split.test.starts[1:], np.diff(split.test.starts)) - np.arange(len(split.test))
    earlier, last = split.test.where(from_end > 1), split.test.where(from_end == 1)
    return Task("temporal, last", merge(merge(split.train, split.validation), earlier), last)


def _successive(split: Split) -> list[Task]:
    """Return N_SUCCESSIVE test interactions, drawn alike, each asked for with everything before it as history.

    All of them would be 20 times as many; the mean over a sample drawn alike is the same but for its interval.
    """
    n = len(split.test)
    drawn = np.sort(np.random.default_rng(0).choice(n, min(n, N_SUCCESSIVE), replace=False))
    users = split.test.user_codes[drawn]
    turn = np.arange(len(drawn)) - np.searchsorted(users, users)
    known = merge(split.train, split.validation)
    rounds = []
    for number in range(int(turn.max()) + 1):
        asked = drawn[turn == number]
        upto = np.full(split.test.n_users, -1)
        upto[split.test.user_codes[asked]] = asked
        is_target = np.isin(np.arange(n), asked)
        is_past = np.arange(n) < upto[split.test.user_codes]
        history = merge(known, split.test.where(is_past))
        rounds.append(Task("temporal, successive", history, split.test.where(is_target)))
    return rounds
