"""The models of the table: what they learn from a case, and how they answer its tasks."""

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl
from quality_protocols import JUDGED, Case
from scipy import sparse

from rec_engine.data.dataset import BoolArray, FloatArray, IntArray, Interactions
from rec_engine.data.state import state_of
from rec_engine.evaluation.evaluator import Recommender, Scorer, Task, rank_by_score, validation_task
from rec_engine.models.baselines import BASELINES, OwnHistory, Setting
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path, best_setting
from rec_engine.pipeline.train import fit_model
from rec_engine.serving.inference import Query, RecommendationInference
from rec_engine.utils.config import ModelConfig

if TYPE_CHECKING:
    from implicit.recommender_base import RecommenderBase

PEER_SCRIPT = Path(__file__).parent / "peers" / "rectools_models.py"
PEERS = {"RecTools SASRec": "sasrec", "RecTools eSASRec": "esasrec", "RecTools HSTU": "hstu"}
MAX_K = 20
OURS_NAME = "rec-engine"
ABLATIONS: dict[str, dict[str, object]] = {
    "without text": {"text.encoder": "none"},
    "without id dropout": {"model.id_dropout": 0.0},
    "without text and id dropout": {"text.encoder": "none", "model.id_dropout": 0.0},
    "SASRec for HSTU": {"model.user_encoder": "sasrec"},
    "the mean for HSTU": {"model.user_encoder": "mean"},
    "sampled for full softmax": {"training.loss": "sampled"},
}
OURS: dict[str, dict[str, object]] = {OURS_NAME: {}} | {f"{OURS_NAME}: {name}": ABLATIONS[name] for name in ABLATIONS}
"""Our model, and our model with one piece taken out: each gives two rows, the towers alone and the whole path."""

Answers = Callable[[Task, BoolArray | None], Recommender | None]
"""A task, and the items that may be shown (all without), to lists; None for what the model cannot answer."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model that has learned from a case, and what it says about itself."""

    name: str
    answers: Answers
    fit_seconds: float
    note: str = ""


def fit(name: str, case: Case, *, seed: int, peer_python: Path | None, peer_minutes: float) -> list[Fitted]:
    """Return the model of this name; one of OURS gives two, the towers alone and the whole path."""
    started = time.monotonic()
    if name in OURS:
        return _rec_engine(case, OURS[name], name.removeprefix(OURS_NAME))
    if name in PEERS:
        if peer_python is None:
            raise SystemExit(f"{name} needs --peer-python")
        return [_peer(name, case, seed, peer_python, peer_minutes)]
    kind = {**BASELINES, OwnHistory.name: OwnHistory, IALS.name: IALS, BPR.name: BPR}[name]
    setting = best_setting(kind, validation_task(case.split), case.dataset.n_items)
    model = kind(**setting)
    model.fit(case.known, case.dataset.n_items)
    answers = _by_score(lambda task: model.scorer(task.history))
    return [Fitted(name, answers, time.monotonic() - started, str(setting or ""))]


def _rec_engine(case: Case, flags: dict[str, object], suffix: str) -> list[Fitted]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        model = fit_model(case.dataset, _changed(case.config, flags), case.split, Path(work))
    seconds = time.monotonic() - started

    note = (
        f"{len(model.epochs)} epochs, best validation NDCG@10 {max(e.validation_ndcg_at_10 for e in model.epochs):.4f}"
    )
    path = assemble_path(model, case.known)
    ranker = model.ranker.objective if model.ranker else "no ranker won"
    return [
        Fitted(f"two-tower{suffix}", lambda task, only: _towers(model, task, only), seconds, note),
        Fitted(f"{JUDGED}{suffix}", lambda task, only: _served(path, task, only), seconds, f"{note}; {ranker}"),
    ]


def _changed(config: ModelConfig, flags: dict[str, object]) -> ModelConfig:
    tree = config.model_dump()
    for key, value in flags.items():
        section, name = key.split(".")
        tree[section][name] = value
    return ModelConfig.model_validate(tree)


def _towers(model: TrainedModel, task: Task, only: BoolArray | None) -> Recommender:
    now = task.request_times()

    def score(user_codes: IntArray) -> FloatArray:
        scores: FloatArray = model.tower.vectors(task.history, user_codes, now) @ model.index.vectors.T
        return scores if only is None else np.where(only, scores, -np.inf)

    return rank_by_score(score, task.seen)


def _served(path: RecommendationInference, task: Task, only: BoolArray | None) -> Recommender:
    now = task.request_times()
    exclude = np.flatnonzero(~only).astype(np.int32) if only is not None else np.empty(0, dtype=np.int32)

    def recommend(user_codes: IntArray, k: int) -> IntArray:
        lists = np.full((len(user_codes), k), -1, dtype=np.int32)
        for row, user_code in enumerate(user_codes.tolist()):
            query = Query(state_of(task.history, user_code, int(now[user_code])), k, exclude=exclude)
            found = path.recommend(query).item_codes
            lists[row, : len(found)] = found
        return lists

    return recommend


def _by_score(scorer: Callable[[Task], Scorer]) -> Answers:
    def answers(task: Task, only: BoolArray | None) -> Recommender:
        score = scorer(task)
        if only is None:
            return rank_by_score(score, task.seen)
        return rank_by_score(lambda user_codes: np.where(only, score(user_codes), -np.inf), task.seen)

    return answers


def _met(rows: Interactions, n_items: int) -> sparse.csr_matrix:
    """Return (n_users, n_items) float32, how often each user met each item."""
    past = rows.positive()
    ones = np.ones(len(past), dtype=np.float32)
    met = sparse.csr_matrix((ones, past.item_codes, past.starts), shape=(past.n_users, n_items))
    met.sum_duplicates()
    return met


class _Implicit:
    """A model of the library implicit: factors of items and, as of the fit, of users."""

    name: ClassVar[str]
    GRID: ClassVar[tuple[Setting, ...]]

    def __init__(self, **setting: float) -> None:
        self.setting = setting

    def make(self) -> "RecommenderBase":
        """Return the untrained model."""
        raise NotImplementedError

    def fit(self, train: Interactions, n_items: int) -> None:
        """Factorise who met what."""
        self.model = self.make()
        self.model.fit(_met(train, n_items), show_progress=False)

    def scorer(self, history: Interactions) -> Scorer:  # noqa: ARG002 - the factors are those of the fit
        """Return the products of the factors that were fitted."""
        users, items = self.model.user_factors, self.model.item_factors
        return lambda user_codes: (users[user_codes] @ items.T).astype(np.float32)


class IALS(_Implicit):
    """Alternating least squares (Hu et al., 2008), tuned."""

    name: ClassVar[str] = "iALS"
    GRID: ClassVar[tuple[Setting, ...]] = (
        {"factors": 64, "regularization": 0.1, "alpha": 1},
        {"factors": 64, "regularization": 1.0, "alpha": 1},
        {"factors": 64, "regularization": 1.0, "alpha": 10},
        {"factors": 128, "regularization": 10.0, "alpha": 10},
    )

    def make(self) -> "RecommenderBase":
        """Return the untrained model."""
        from implicit.als import AlternatingLeastSquares

        factors, rest = int(self.setting["factors"]), {k: v for k, v in self.setting.items() if k != "factors"}
        return AlternatingLeastSquares(factors=factors, iterations=15, random_state=0, **rest)

    def scorer(self, history: Interactions) -> Scorer:
        """Return the products with the factors that solve for these histories."""
        users = np.arange(history.n_users)
        factors = self.model.recalculate_user(users, _met(history, len(self.model.item_factors)))
        return lambda user_codes: (factors[user_codes] @ self.model.item_factors.T).astype(np.float32)


class BPR(_Implicit):
    """Bayesian personalised ranking (Rendle et al., 2009), tuned."""

    name: ClassVar[str] = "BPR"
    GRID: ClassVar[tuple[Setting, ...]] = (
        {"learning_rate": 0.05, "regularization": 0.01},
        {"learning_rate": 0.01, "regularization": 0.01},
        {"learning_rate": 0.05, "regularization": 0.001},
    )

    def make(self) -> "RecommenderBase":
        """Return the untrained model."""
        from implicit.bpr import BayesianPersonalizedRanking

        return BayesianPersonalizedRanking(factors=64, iterations=100, random_state=0, **self.setting)


NAMES: tuple[str, ...] = (*BASELINES, OwnHistory.name, IALS.name, BPR.name, *PEERS, *OURS)


def _peer(name: str, case: Case, seed: int, python: Path, minutes: float) -> Fitted:
    """Return a model of RecTools, trained on the same interactions: its lists for the first question."""
    task = case.questions[0].rounds[0]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        train, history, found = (Path(folder) / f"{part}.csv" for part in ("train", "history", "found"))
        _as_table(case.known).write_csv(train)
        asked = pl.Series("asked", task.request_times()[task.history.user_codes])
        _as_table(task.history).with_columns(asked).write_csv(history)
        settings = ["--model", PEERS[name], "--minutes", minutes, "--k", MAX_K, "--seed", seed]
        settings += ["--max-len", case.config.model.max_history_len]
        command = [str(part) for part in (python, PEER_SCRIPT, train, history, found, *settings)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        ranked = np.full((task.history.n_users, MAX_K), -1, dtype=np.int32)
        lists = pl.read_csv(found)
        ranked[lists["user"].to_numpy(), lists["rank"].to_numpy() - 1] = lists["item"].to_numpy()

    def answers(asked: Task, only: BoolArray | None) -> Recommender | None:
        # A peer is asked once: its lists are those of the first question.
        return (lambda user_codes, k: ranked[user_codes, :k]) if asked is task and only is None else None

    return Fitted(name, answers, time.monotonic() - started, done.stdout.strip().splitlines()[-1])


def _as_table(rows: Interactions) -> pl.DataFrame:
    past = rows.positive()
    return pl.DataFrame({"user": past.user_codes, "item": past.item_codes, "time": past.timestamps})
