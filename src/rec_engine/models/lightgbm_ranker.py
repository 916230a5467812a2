"""The re-ranker: gradient-boosted trees that order candidates, and how probable a click on each of them is."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rec_engine.data.dataset import FloatArray, IntArray, LongArray
from rec_engine.errors import BundleError, TrainingError
from rec_engine.models.calibration import calibrated
from rec_engine.models.compiled_trees import CompiledTrees, UnsupportedTreesError
from rec_engine.models.features import DIRECTIONS, FEATURES, OF_LOOKS, OF_SHOWINGS
from rec_engine.models.position_bias import position_offsets
from rec_engine.utils.config import CTRSettings
from rec_engine.utils.logger import get_logger

if TYPE_CHECKING:
    import lightgbm

OBJECTIVES = ("binary", "lambdarank", "rank_xendcg")
MAX_TREES = 500
EARLY_STOPPING_TREES = 100
RANKS = 10
LIKELIHOOD = "binary_logloss"
OFFSET_TREES = 60
OFFSET_SETTINGS = CTRSettings(num_leaves=15, learning_rate=0.1)
N_FOLDS = 2
TELLING_OF_PLACE = ("_rank", "_gap")
BASE_LOG_ODDS = np.float32(-3.0)
"""Where trees begin that are fitted beside offsets: LightGBM looks for the mean itself only where there are none."""
NO_OFFSETS: FloatArray = np.empty(0, dtype=np.float32)
FIXED = {
    "min_data_in_leaf": 100,
    "lambda_l2": 5.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambdarank_truncation_level": 20,
    "eval_at": RANKS,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RankerRows:
    """Candidates with labels, request by request.

    Attributes:
        features: (n, n_features) float32, columns in the order of FEATURES.
        labels: (n,) float32, 1 where the user took the item.
        sizes: (n_requests,) int64, rows of each request.
        positions: (n,) int32, where the item was shown, from 1; 0 for candidates that were not. None for none shown.
    """

    features: FloatArray
    labels: FloatArray
    sizes: LongArray
    positions: IntArray | None = None


class CTRRanker:
    """LightGBM trees whose score is mapped to a probability, so that it can be compared between requests.

    probability = 1 / (1 + exp(-(slope * trees + intercept))), fitted where the trees did not learn.

    Args:
        booster: fitted on the features of `names`, in that order; or its text, of which LightGBM makes a booster once
            somebody asks what only it can tell.
        objective: that it was fitted for.
        slope: above 0, so that trees and probability agree about the order.
        intercept: in log-odds.
        offsets: (max position + 1,) float32, what each position added to the log-odds of a click where the trees
            learned from what was shown; nothing where they did not. They play no part in a score.
        names: of the features that the trees know, some of FEATURES: an earlier release may have had fewer.

    References:
        Platt, Probabilistic outputs for support vector machines, 1999: the mapping.
    """

    def __init__(
        self,
        booster: "lightgbm.Booster | str",
        objective: str,
        slope: float,
        intercept: float,
        offsets: FloatArray = NO_OFFSETS,
        names: tuple[str, ...] = FEATURES,
    ) -> None:
        self._given = booster
        self.names = names
        self.objective = objective
        self.slope = slope
        self.intercept = intercept
        self.offsets = offsets

    @classmethod
    def fit(cls, train: RankerRows, validation: RankerRows, settings: CTRSettings, *, seed: int) -> "CTRRanker":
        """Return a ranker with the objective and as many trees as the validation requests ask for.

        They do so by their NDCG@10; answers that were shown by how probable their clicks are at the positions where
        they stood, for an order of what stood in an order says more of that one.

        Args:
            train: what the trees learn from.
            validation: of other users, complete lists of candidates as they are served, or answers that were shown.
            settings: the `ctr:` section.
            seed: of the draws of rows and columns.

        Raises:
            TrainingError: if one class is missing from the training rows.
        """
        if not 0 < train.labels.sum() < len(train.labels):
            raise TrainingError("the ranker's training rows are all of one class", hint="set ctr.model_type: none")
        if not len(validation.labels):
            raise TrainingError("there is nothing to choose a ranker by", hint="set ctr.model_type: none")
        offsets = _offsets(train, seed)
        data = _beside(train, offsets)
        held_out = _beside(validation, offsets, reference=data)
        fitted = {
            objective: _boost(data, held_out, _parameters(settings, objective, seed) | {"metric": metric})
            for objective, metric in _wanted(settings, are_shown=validation.positions is not None).items()
        }
        reached = {objective: _reached(booster) for objective, booster in fitted.items()}
        logger.info("re-ranker: %s", ", ".join(f"{name} {score:.4f}" for name, score in reached.items()))
        best = max(reached, key=lambda objective: reached[objective])
        raw = np.asarray(fitted[best].predict(validation.features, raw_score=True))
        return cls(fitted[best], best, *calibrated(raw, validation.labels, _added(offsets, validation)), offsets)

    @property
    def validation_ndcg(self) -> float:
        """NDCG@10 of the best number of trees on the validation requests that `fit` was given; no answers shown."""
        return _reached(self.booster)

    def refit(self, rows: RankerRows, settings: CTRSettings, *, seed: int) -> "CTRRanker":
        """Return the same ranker, with as many trees and the same calibration, learned from these rows."""
        offsets = _offsets(rows, seed)
        parameters = _parameters(settings, self.objective, seed)
        n_trees = max(1, self.booster.best_iteration)
        booster = _lightgbm().train(parameters, _beside(rows, offsets), num_boost_round=n_trees)
        return CTRRanker(booster, self.objective, self.slope, self.intercept, offsets)

    def log_odds(self, features: FloatArray) -> FloatArray:
        """Return (n,) float32 log-odds of a click, higher is better, for (n, n_features) features.

        To order by: as probabilities, very probable and very improbable items would all be equal.

        Raises:
            BundleError: if LightGBM fails.
        """
        if not len(features):
            return np.empty(0, dtype=np.float32)
        trees, known = self._compiled, self._known(features)
        raw = self._predicted(known, raw_score=True) if trees is None else trees.raw_scores(known)
        return (self.slope * raw + self.intercept).astype(np.float32)

    def score(self, features: FloatArray) -> FloatArray:
        """Return (n,) float32 click probabilities for (n, n_features) features."""
        return probability(self.log_odds(features))

    def contributions(self, features: FloatArray) -> FloatArray:
        """Return (n, n_features + 1) float32: each feature's part of the log-odds, the last column the same for all.

        A row sums to the log-odds of its score (Lundberg et al., Consistent individualized feature attribution for tree
        ensembles, 2018, as LightGBM computes it).

        Raises:
            BundleError: if LightGBM fails.
        """
        parts = np.zeros((len(features), features.shape[1] + 1), dtype=np.float32)
        if len(features):  # LightGBM divides by the number of rows
            parts[:, [*self._places, -1]] = self._predicted(self._known(features), pred_contrib=True) * self.slope
            parts[:, -1] += self.intercept
        return parts

    def importances(self) -> dict[str, float]:
        """Return each feature's share of the gain of all splits, the largest first."""
        gains = self.booster.feature_importance("gain")
        shares = gains / max(float(gains.sum()), 1e-12)
        return {self.names[place]: float(shares[place]) for place in np.argsort(-shares, kind="stable")}

    @cached_property
    def reads_showings(self) -> bool:
        """Whether a score depends on what the user was shown; to others nobody need tell it."""
        return self._reads(OF_SHOWINGS)

    @cached_property
    def reads_looks(self) -> bool:
        """Whether a score depends on what everybody was shown, likewise."""
        return self._reads(OF_LOOKS)

    def _reads(self, names: tuple[str, ...]) -> bool:
        trees = self._compiled  # of those that only LightGBM knows it may be
        return trees is None or any(self.names[at] in names for at in trees.column_features.tolist())

    @property
    def can_explain(self) -> bool:
        """Whether `contributions` answers at once: LightGBM is loaded, and has these trees."""
        return "booster" in self.__dict__

    @cached_property
    def booster(self) -> "lightgbm.Booster":
        """The trees as LightGBM has them.

        Raises:
            BundleError: if LightGBM cannot read their text.
        """
        if not isinstance(self._given, str):
            return self._given
        try:
            return _lightgbm().Booster(model_str=self._given)
        except _lightgbm().basic.LightGBMError as error:
            raise BundleError(f"the ranker fails: {error}", hint="restore the model or train again") from error

    @cached_property
    def _compiled(self) -> CompiledTrees | None:
        """The same trees, some thirty times faster; None for trees that only LightGBM itself can evaluate."""
        try:
            is_text = isinstance(self._given, str)
            return CompiledTrees.of_text(self._given) if is_text else CompiledTrees.of(self._given)
        except UnsupportedTreesError as error:
            logger.warning("the re-ranker's trees are evaluated by LightGBM, which is slower: %s", error)
            return None

    @cached_property
    def _places(self) -> list[int]:
        return [FEATURES.index(name) for name in self.names]

    def _known(self, features: FloatArray) -> FloatArray:
        """Return the columns that the trees know of all features, each in one piece in memory."""
        return features if self.names == FEATURES else np.ascontiguousarray(features.T[self._places]).T

    def _predicted(self, features: FloatArray, **what: bool) -> NDArray[np.float64]:
        try:
            return np.asarray(self.booster.predict(features, num_threads=1, **what))
        except _lightgbm().basic.LightGBMError as error:
            raise BundleError(f"the ranker fails: {error}", hint="restore the model or train again") from error

    def save(self, path: Path) -> None:
        """Write LightGBM's text format, cut after the best tree, and the calibration beside it as JSON."""
        self.booster.save_model(path, num_iteration=self.booster.best_iteration)
        about = {
            "objective": self.objective,
            "slope": self.slope,
            "intercept": self.intercept,
            "position_offsets": self.offsets.tolist(),
        }
        path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "CTRRanker":
        """Return the ranker of a file.

        Raises:
            BundleError: if the file is no LightGBM model, or of other features than this version computes.
        """
        try:
            text = path.read_text(encoding="utf-8")
            about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            offsets = np.array(about.get("position_offsets", []), dtype=np.float32)
            calibration = float(about["slope"]), float(about["intercept"])
            ranker = cls(text, str(about["objective"]), *calibration, offsets, _names_in(text))
            compiled = ranker._compiled  # now, so that no request waits for it
            is_readable = _can_read(text) if compiled is None else len(ranker.names) == compiled.n_features
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path}: not a readable LightGBM model ({error})", hint="train again") from None
        if not is_readable:
            raise BundleError(f"{path}: not a readable LightGBM model", hint="train again")
        if not set(ranker.names) <= set(FEATURES):
            raise BundleError(f"{path}: made for other features", hint="train again with this version")
        return ranker


def _lightgbm() -> ModuleType:
    """Return the library, which is loaded once it is needed: to answer requests it is not.

    Where they are installed it brings pandas, scikit-learn and scipy.stats along, a second or two and 100 MB.
    """
    return import_module("lightgbm")


def _names_in(text: str) -> tuple[str, ...]:
    """Return the names of the features that LightGBM's text format begins with."""
    found = re.search("^feature_names=(.*)$", text, re.MULTILINE)
    return tuple(found[1].split()) if found else ()


def _can_read(text: str) -> bool:
    try:
        _lightgbm().Booster(model_str=text)
    except _lightgbm().basic.LightGBMError:
        return False
    return True


def probability(log_odds: FloatArray) -> FloatArray:
    """Return the probabilities of log-odds, float32 as those are."""
    return expit(log_odds).astype(np.float32)


def _reached(booster: "lightgbm.Booster") -> float:
    """Return what is the higher the better: NDCG, or the mean logarithm of how probable the labels are."""
    (metric, value), *_ = booster.best_score["valid_0"].items()
    return -float(value) if metric == LIKELIHOOD else float(value)


def _wanted(settings: CTRSettings, *, are_shown: bool) -> dict[str, str]:
    """Return objectives to try, each with the metric that says how many trees it takes."""
    if are_shown and settings.objective in {"auto", "binary"}:
        return {"binary": LIKELIHOOD}
    objectives = OBJECTIVES if settings.objective == "auto" else (settings.objective,)
    return dict.fromkeys(objectives, "ndcg")


def _boost(data: "lightgbm.Dataset", held_out: "lightgbm.Dataset", parameters: dict[str, object]) -> "lightgbm.Booster":
    stop = _lightgbm().early_stopping(EARLY_STOPPING_TREES, verbose=False)
    return _lightgbm().train(parameters, data, num_boost_round=MAX_TREES, valid_sets=[held_out], callbacks=[stop])


def _parameters(settings: CTRSettings, objective: str, seed: int) -> dict[str, object]:
    """Return what LightGBM is told; trees keep to the directions of the features, as chance in few clicks does not."""
    chosen = {"num_leaves": settings.num_leaves, "learning_rate": settings.learning_rate}
    return {**FIXED, **chosen, "objective": objective, "monotone_constraints": list(DIRECTIONS), "seed": seed}


def _offsets(rows: RankerRows, seed: int) -> FloatArray:
    """Return what each position adds, found beside trees of the objective in which that is a sum; [] for none shown.

    These trees see nothing that tells the place an item was shown at (its rank, its distance to the best), or they and
    the offsets would explain the same; and they score only requests that they did not learn from, for what they know by
    heart would be missing from the offsets.
    """
    if rows.positions is None or not rows.positions.any():
        return NO_OFFSETS
    seen = [not name.endswith(TELLING_OF_PLACE) for name in FEATURES]
    parameters = _parameters(OFFSET_SETTINGS, "binary", seed) | {"metric": "none"}
    parameters["monotone_constraints"] = [way for way, is_seen in zip(DIRECTIONS, seen, strict=True) if is_seen]
    requests = np.repeat(np.arange(len(rows.sizes)), rows.sizes)
    matrix = rows.features[:, seen]

    def fit(of_rows: FloatArray) -> FloatArray:
        scores = np.empty(len(requests), dtype=np.float32)
        for fold in range(N_FOLDS):
            is_in = requests % N_FOLDS == fold
            data = _lightgbm().Dataset(matrix[~is_in], rows.labels[~is_in], init_score=BASE_LOG_ODDS + of_rows[~is_in])
            booster = _lightgbm().train(parameters, data, num_boost_round=OFFSET_TREES)
            scores[is_in] = booster.predict(matrix[is_in], raw_score=True)
        return BASE_LOG_ODDS + scores

    offsets = position_offsets(rows.positions, rows.labels, fit)
    logger.info("positions 1 to %d add %s to the log-odds of a click", len(offsets) - 1, offsets[1:].round(2).tolist())
    return offsets


def _beside(rows: RankerRows, offsets: FloatArray, reference: "lightgbm.Dataset | None" = None) -> "lightgbm.Dataset":
    """Return LightGBM's form of the rows, for trees that are not to learn what the positions add."""
    return _lightgbm().Dataset(
        rows.features,
        rows.labels,
        group=rows.sizes,
        init_score=BASE_LOG_ODDS + _added(offsets, rows) if len(offsets) and rows.positions is not None else None,
        feature_name=list(FEATURES),
        reference=reference,
    )


def _added(offsets: FloatArray, rows: RankerRows) -> FloatArray:
    """Return (n,) float32, what the positions of rows add; those below all that are known as much as the last one."""
    if rows.positions is None or not len(offsets):
        return np.zeros(len(rows.labels), dtype=np.float32)
    return offsets[np.minimum(rows.positions, len(offsets) - 1)]
