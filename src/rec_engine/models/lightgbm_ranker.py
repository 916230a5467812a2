"""The re-ranker: click probability of a candidate from its features, by gradient-boosted trees."""

from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np

from rec_engine.data.dataset import FloatArray
from rec_engine.errors import BundleError, TrainingError
from rec_engine.models.features import FEATURES
from rec_engine.utils.config import CTRSettings

MAX_TREES = 300
EARLY_STOPPING_TREES = 30
MIN_ROWS_A_LEAF = 100
L2 = 5.0


@dataclass(frozen=True, slots=True)
class RankerRows:
    """Candidates with labels.

    Attributes:
        features: (n, n_features) float32, columns in the order of FEATURES.
        labels: (n,) float32, 1 where the user took the item.
    """

    features: FloatArray
    labels: FloatArray


class CTRRanker:
    """LightGBM on the log loss, so that its score is a probability and can be compared between requests.

    Args:
        booster: fitted on the features of FEATURES, in that order.
    """

    def __init__(self, booster: lightgbm.Booster) -> None:
        self.booster = booster

    @classmethod
    def fit(cls, train: RankerRows, validation: RankerRows, settings: CTRSettings, *, seed: int) -> "CTRRanker":
        """Return a ranker with as many trees as the validation rows' log loss asks for.

        Raises:
            TrainingError: if one class is missing from the training rows.
        """
        if not 0 < train.labels.sum() < len(train.labels):
            raise TrainingError("the ranker's training rows are all of one class", hint="set ctr.model_type: none")
        names = list(FEATURES)
        data = lightgbm.Dataset(train.features, train.labels, feature_name=names)
        booster = lightgbm.train(
            {
                "objective": "binary",
                "num_leaves": settings.num_leaves,
                "learning_rate": settings.learning_rate,
                "min_data_in_leaf": MIN_ROWS_A_LEAF,
                "lambda_l2": L2,
                "feature_fraction": 0.8,
                "seed": seed,
                "deterministic": True,
                "force_row_wise": True,
                "verbosity": -1,
            },
            data,
            num_boost_round=MAX_TREES,
            valid_sets=[lightgbm.Dataset(validation.features, validation.labels, reference=data)],
            callbacks=[lightgbm.early_stopping(EARLY_STOPPING_TREES, verbose=False)],
        )
        return cls(booster)

    def score(self, features: FloatArray) -> FloatArray:
        """Return (n,) float32 probabilities, higher is better, for (n, n_features) features."""
        probabilities = np.asarray(self.booster.predict(features, num_threads=1))
        return probabilities.astype(np.float32)

    def save(self, path: Path) -> None:
        """Write LightGBM's text format, cut after the best tree."""
        self.booster.save_model(path, num_iteration=self.booster.best_iteration)

    @classmethod
    def load(cls, path: Path) -> "CTRRanker":
        """Return the ranker of a file.

        Raises:
            BundleError: if the file is no LightGBM model, or of other features than this version computes.
        """
        try:
            booster = lightgbm.Booster(model_file=path)
        except lightgbm.basic.LightGBMError as error:
            raise BundleError(f"{path}: not a readable LightGBM model ({error})", hint="train again") from None
        if booster.feature_name() != list(FEATURES):
            raise BundleError(f"{path}: made for other features", hint="train again with this version")
        return cls(booster)
