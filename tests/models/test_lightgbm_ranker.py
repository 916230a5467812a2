"""The ranker and what it sees."""

from pathlib import Path

import lightgbm
import numpy as np
import pytest
from worlds import checkerboard

from rec_engine.data.dataset import FloatArray
from rec_engine.data.state import COLD, UserState, item_stats, state_of
from rec_engine.errors import BundleError, TrainingError
from rec_engine.models.features import FEATURES, features, item_table
from rec_engine.models.lightgbm_ranker import CTRRanker, RankerRows
from rec_engine.retrieval.candidates import Candidates
from rec_engine.utils.config import CTRSettings

RNG = np.random.default_rng(0)
LOG = checkerboard(20)
VECTORS: FloatArray = RNG.standard_normal((20, 4)).astype(np.float32)
ITEMS = item_table(VECTORS, item_stats(LOG, 20, cut_off=int(LOG.timestamps.max()) + 1))


def rows(seed: int, n: int = 3_000) -> RankerRows:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, len(FEATURES))).astype(np.float32)
    return RankerRows(values, (values[:, 0] + rng.standard_normal(n) > 1).astype(np.float32))


def test_probabilities_follow_the_labels_and_repeat_themselves() -> None:
    fitted = [CTRRanker.fit(rows(1), rows(2), CTRSettings(), seed=0) for _ in range(2)]
    held_out = rows(3)
    scores = fitted[0].score(held_out.features)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[held_out.labels == 1].mean() > scores[held_out.labels == 0].mean() + 0.1
    assert scores.mean() == pytest.approx(held_out.labels.mean(), abs=0.03)
    assert np.array_equal(scores, fitted[1].score(held_out.features))


def test_saved_ranker_scores_the_same(tmp_path: Path) -> None:
    ranker = CTRRanker.fit(rows(1), rows(2), CTRSettings(num_leaves=7), seed=0)
    ranker.save(tmp_path / "ranker.txt")
    assert np.array_equal(
        CTRRanker.load(tmp_path / "ranker.txt").score(rows(3).features), ranker.score(rows(3).features)
    )


def test_settings_have_an_effect() -> None:
    trees = [CTRRanker.fit(rows(1), rows(2), CTRSettings(num_leaves=n), seed=0) for n in (2, 31)]
    assert [ranker.booster.params["num_leaves"] for ranker in trees] == [2, 31]
    assert not np.array_equal(trees[0].score(rows(3).features), trees[1].score(rows(3).features))


def test_one_class_cannot_be_learned() -> None:
    nothing = RankerRows(rows(1).features, np.zeros(3_000, dtype=np.float32))
    with pytest.raises(TrainingError, match="one class"):
        CTRRanker.fit(nothing, nothing, CTRSettings(), seed=0)


def test_model_of_other_features_and_damaged_file_are_refused(tmp_path: Path) -> None:
    data = lightgbm.Dataset(rows(1).features[:, :2], rows(1).labels)
    lightgbm.train({"verbosity": -1}, data, 2).save_model(tmp_path / "other.txt")
    with pytest.raises(BundleError, match="other features"):
        CTRRanker.load(tmp_path / "other.txt")
    (tmp_path / "damaged.txt").write_text("tree")
    with pytest.raises(BundleError, match="not a readable LightGBM model"):
        CTRRanker.load(tmp_path / "damaged.txt")


def candidates(codes: list[int]) -> Candidates:
    tower = np.array([0.1 * code if code % 3 else np.nan for code in codes], dtype=np.float32)
    popularity = np.array([1.0] * len(codes), dtype=np.float32)
    return Candidates(np.array(codes, dtype=np.int32), np.stack([tower, popularity]), ("tower", "popularity"))


def test_features_are_one_finite_or_nan_column_each() -> None:
    matrix = features(state_of(LOG, 3), candidates([1, 4, 6, 9]), ITEMS)
    assert matrix.shape == (4, len(FEATURES))
    assert matrix.dtype == np.dtype(np.float32)
    assert not np.isinf(matrix).any()


def test_a_candidates_features_do_not_depend_on_the_order_of_the_others() -> None:
    forwards = features(state_of(LOG, 3), candidates([1, 4, 6, 9]), ITEMS)
    backwards = features(state_of(LOG, 3), candidates([9, 6, 4, 1]), ITEMS)
    assert np.allclose(forwards, backwards[::-1], equal_nan=True, atol=1e-6)


def test_features_of_a_user_without_history_exist() -> None:
    nobody = UserState(COLD, np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))
    assert features(nobody, candidates([1, 4]), ITEMS).shape == (2, len(FEATURES))
