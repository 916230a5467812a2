"""Compiled trees against LightGBM itself: the scores are the same to the last bit."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightgbm
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.dataset import FloatArray
from rec_engine.data.kernels import compiled
from rec_engine.errors import DataError
from rec_engine.models import compiled_trees
from rec_engine.models.compiled_trees import MAX_LEAVES, ROWS_A_BLOCK, CompiledTrees, UnsupportedTreesError

N_FEATURES = 5
MISSING = {
    "nan": {},
    "zero": {"zero_as_missing": True},
    "none": {"use_missing": False},
}
LARGEST = float(np.finfo(np.float32).max)
LARGEST_ZERO = float(np.float32(1e-35))
THRESHOLDS = [
    0.0,
    0.1,
    float(np.float32(0.1)),
    -0.7,
    1e-36,
    -1e-36,
    LARGEST_ZERO,
    -LARGEST_ZERO,
    1e300,
    -1e300,
    -LARGEST,
    16777217.0,
]
NEAR = np.array([0, 0.1, -0.7, 1e-36, -1e-36, 1e-35, -1e-35, 3.4e38, -3.4e38, 16777216], dtype=np.float32)
VALUES = [float(value) for edge in (-np.inf, np.inf) for value in np.nextafter(NEAR, np.float32(edge))]
VALUES += [*NEAR.tolist(), -0.0, np.nan, np.inf, -np.inf, LARGEST, -LARGEST]
DECISIONS = [2 * default_left + 4 * missing for missing in range(3) for default_left in range(2)]

Split = tuple[int, int, float, int]
SPLITS = st.tuples(
    st.integers(0, MAX_LEAVES),
    st.integers(0, N_FEATURES - 1),
    st.sampled_from(THRESHOLDS),
    st.sampled_from(DECISIONS),
)
ROWS = st.lists(st.lists(st.sampled_from(VALUES), min_size=N_FEATURES, max_size=N_FEATURES), min_size=1, max_size=70)


def rows(seed: int, n: int) -> FloatArray:
    """Continuous, with gaps, counts with many zeros, few values, and one with infinities."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, N_FEATURES)).astype(np.float32)
    values[rng.random(n) < 0.3, 1] = np.nan
    values[:, 2] = rng.poisson(1, n)
    values[:, 3] = np.round(values[:, 3])
    values[rng.random(n) < 0.05, 4] = np.inf
    values[rng.random(n) < 0.05, 4] = -np.inf
    return values


def trained(n_trees: int = 30, n_rows: int = 2_000, **parameters: object) -> lightgbm.Booster:
    values = rows(0, n_rows)
    known = np.nan_to_num(values, posinf=3, neginf=-3)
    labels = known[:, 0] * known[:, 1] + known[:, 2] - known[:, 4] + np.random.default_rng(1).standard_normal(n_rows)
    data = lightgbm.Dataset(values, labels > 1, group=np.full(n_rows // 20, 20))
    fixed = {"objective": "binary", "min_data_in_leaf": 5, "num_threads": 1, "verbosity": -1}
    return lightgbm.train({**fixed, **parameters}, data, n_trees)


def written(trees: Sequence[Sequence[Split]]) -> lightgbm.Booster:
    """A model of these splits; the first number of each chooses the leaf that it divides."""
    names = " ".join(f"feature_{number}" for number in range(N_FEATURES))
    head = f"""tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx={N_FEATURES - 1}
objective=binary sigmoid:1
feature_names={names}
feature_infos={" ".join(["none"] * N_FEATURES)}
"""
    blocks = [_written_tree(number, splits) for number, splits in enumerate(trees)]
    return lightgbm.Booster(model_str="\n".join([head, *blocks, "end of trees\n"]))


def _written_tree(number: int, splits: Sequence[Split]) -> str:
    left, right = [~0] * len(splits), [~0] * len(splits)
    place_of_leaf = {0: (left, 0)}
    for node, (chosen, _, _, _) in enumerate(splits):
        leaf = chosen % (node + 1)
        if node > 0:
            side, parent = place_of_leaf[leaf]
            side[parent] = node
        left[node], right[node] = ~leaf, ~(node + 1)
        place_of_leaf |= {leaf: (left, node), node + 1: (right, node)}
    n_leaves = len(splits) + 1
    fields = {
        "split_feature": [feature for _, feature, _, _ in splits],
        "split_gain": [1] * len(splits),
        "threshold": [repr(threshold) for _, _, threshold, _ in splits],
        "decision_type": [decision for _, _, _, decision in splits],
        "left_child": left,
        "right_child": right,
        "leaf_value": np.random.default_rng(number).standard_normal(n_leaves).tolist(),
    }
    lines = [f"Tree={number}", f"num_leaves={n_leaves}", "num_cat=0"]
    lines += [f"{name}={' '.join(map(str, values))}" for name, values in fields.items()]
    return "\n".join([*lines, "is_linear=0", "shrinkage=1", "", ""])


def assert_equal_scores(booster: lightgbm.Booster, features: FloatArray) -> None:
    expected = booster.predict(features, raw_score=True, num_threads=1)
    assert np.array_equal(CompiledTrees.of(booster).raw_scores(features), expected)


@pytest.mark.parametrize("objective", ["binary", "lambdarank", "rank_xendcg"])
@pytest.mark.parametrize("missing", MISSING)
def test_scores_are_those_of_lightgbm(objective: str, missing: str) -> None:
    assert_equal_scores(trained(objective=objective, **MISSING[missing]), rows(2, 3_000))


@pytest.mark.parametrize("n_leaves", [2, 16, 17, 33, MAX_LEAVES])
def test_trees_of_any_size_up_to_the_largest(n_leaves: int) -> None:
    booster = trained(num_leaves=n_leaves, min_data_in_leaf=1)
    assert max(tree["num_leaves"] for tree in booster.dump_model()["tree_info"]) == n_leaves
    assert_equal_scores(booster, rows(3, 400))


@pytest.mark.parametrize("missing", MISSING)
def test_values_at_thresholds_and_next_to_them_go_the_same_way(missing: str) -> None:
    booster = trained(num_leaves=MAX_LEAVES, **MISSING[missing])
    at = np.unique(CompiledTrees.of(booster).thresholds)
    near = np.concatenate([np.nextafter(at, np.float32(-np.inf)), at, np.nextafter(at, np.float32(np.inf))])
    assert_equal_scores(booster, np.random.default_rng(4).choice(near, size=(3_000, N_FEATURES)))


@settings(deadline=None, max_examples=200)
@given(trees=st.lists(st.lists(SPLITS, max_size=MAX_LEAVES - 1), min_size=1, max_size=4), values=ROWS)
def test_any_trees_and_any_values(trees: list[list[Split]], values: list[list[float]]) -> None:
    assert_equal_scores(written(trees), np.array(values, dtype=np.float32))


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_every_value_at_every_kind_of_split(decision: int, threshold: float) -> None:
    features = np.repeat(np.array(VALUES, dtype=np.float32)[:, None], N_FEATURES, axis=1)
    assert_equal_scores(written([[(0, 1, threshold, decision)]]), features)


def test_splits_that_treat_missing_values_differently_share_a_feature() -> None:
    splits = [(leaf, 0, 0.1, decision) for leaf, decision in enumerate(DECISIONS)]
    features = np.repeat(np.array(VALUES, dtype=np.float32)[:, None], N_FEATURES, axis=1)
    assert_equal_scores(written([splits]), features)
    kinds = len(DECISIONS) - 1
    assert len(CompiledTrees.of(written([splits])).column_features) == kinds, "two differ in what has no meaning"


def test_a_chain_of_splits_is_as_deep_as_it_has_leaves() -> None:
    chain = [(node, 0, node / 10, 10) for node in range(MAX_LEAVES - 1)]
    features = np.zeros((100, N_FEATURES), dtype=np.float32)
    features[:, 0] = np.linspace(-1, 8, 100)
    assert_equal_scores(written([chain, chain[::-1]]), features)


def test_trees_without_a_split_add_their_constant() -> None:
    assert_equal_scores(written([[], [], []]), rows(5, 10))
    assert_equal_scores(written([[], [(0, 0, 0.1, 10)], []]), rows(5, 10))
    assert_equal_scores(trained(n_trees=3, min_data_in_leaf=1_900), rows(5, 10))


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, ROWS_A_BLOCK - 1, ROWS_A_BLOCK, ROWS_A_BLOCK + 1, 3 * ROWS_A_BLOCK])
def test_a_row_scores_the_same_among_any_number_of_others(n: int) -> None:
    booster, features = trained(), rows(6, 3 * ROWS_A_BLOCK)
    expected = np.asarray(booster.predict(features, raw_score=True))
    assert np.array_equal(CompiledTrees.of(booster).raw_scores(features[:n]), expected[:n])


def test_only_the_trees_up_to_the_best_iteration_are_used() -> None:
    booster, features = trained(), rows(7, 100)
    every = CompiledTrees.of(booster).raw_scores(features)
    booster.best_iteration = 12
    assert len(CompiledTrees.of(booster).tree_starts) == 12 + 1
    assert_equal_scores(booster, features)
    assert not np.array_equal(CompiledTrees.of(booster).raw_scores(features), every)


def test_saved_model_scores_the_same(tmp_path: Path) -> None:
    booster, features = trained(), rows(8, 100)
    booster.save_model(tmp_path / "trees.txt")
    loaded = CompiledTrees.of(lightgbm.Booster(model_file=tmp_path / "trees.txt"))
    assert np.array_equal(loaded.raw_scores(features), CompiledTrees.of(booster).raw_scores(features))


def test_how_the_rows_lie_in_memory_does_not_matter() -> None:
    trees, features = CompiledTrees.of(trained()), rows(9, 200)
    frozen = features.copy()
    frozen.setflags(write=False)
    wide = np.zeros((400, N_FEATURES + 1), dtype=np.float32)
    wide[::2, 1:] = features
    unaligned = np.frombuffer(b"." + features.tobytes(), dtype=np.float32, offset=1).reshape(features.shape)
    for same in (frozen, np.asfortranarray(features), wide[::2, 1:], unaligned):
        assert np.array_equal(trees.raw_scores(same), trees.raw_scores(features))
    assert np.array_equal(frozen, features, equal_nan=True)
    assert len(compiled_trees._columns.signatures) == 1, "nothing is compiled while a request waits"  # type: ignore[attr-defined]


def test_threads_score_at_the_same_time() -> None:
    trees, requests = CompiledTrees.of(trained()), [rows(seed, 300) for seed in range(40)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(trees.raw_scores, requests))
    assert all(np.array_equal(scores, trees.raw_scores(one)) for scores, one in zip(together, requests, strict=True))


def test_machine_code_that_cannot_be_kept_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", os.devnull)
    monkeypatch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "UserProvidedCacheLocator")

    def doubled(number: int) -> int:
        return 2 * number

    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(doubled)
    assert compiled(doubled)(21) == 42


def test_categorical_splits_are_refused() -> None:
    values = rows(0, 1_000)
    data = lightgbm.Dataset(values, values[:, 2] == 1, categorical_feature=[2])
    with pytest.raises(UnsupportedTreesError, match="tree 0 has categorical splits"):
        CompiledTrees.of(lightgbm.train({"objective": "binary", "verbosity": -1}, data, 1))


def test_trees_of_too_many_leaves_are_refused() -> None:
    with pytest.raises(UnsupportedTreesError, match="has 65 leaves, above 64") as refused:
        CompiledTrees.of(trained(num_leaves=MAX_LEAVES + 1, min_data_in_leaf=1))
    assert "Booster.predict" in refused.value.hint


def test_several_classes_are_refused() -> None:
    labels = np.arange(300) % 3
    booster = lightgbm.train(
        {"objective": "multiclass", "num_class": 3, "verbosity": -1}, lightgbm.Dataset(rows(0, 300), labels), 2
    )
    with pytest.raises(UnsupportedTreesError, match="num_class=1 is expected, found num_class=3"):
        CompiledTrees.of(booster)


def test_averaged_trees_are_refused() -> None:
    with pytest.raises(UnsupportedTreesError, match="averages its trees"):
        CompiledTrees.of(trained(boosting="rf", bagging_fraction=0.5, bagging_freq=1))


def test_linear_leaves_are_refused() -> None:
    with pytest.raises(UnsupportedTreesError, match="linear leaves"):
        CompiledTrees.of(trained(objective="regression", linear_tree=True))


def test_unknown_kind_of_missing_values_is_refused() -> None:
    with pytest.raises(UnsupportedTreesError, match="tree 1 has an unknown kind"):
        CompiledTrees.of(written([[], [(0, 0, 0.1, 12)]]))


def test_model_without_trees_is_refused() -> None:
    data = lightgbm.Dataset(rows(0, 100), np.arange(100) % 2)
    with pytest.raises(UnsupportedTreesError, match="no trees"):
        CompiledTrees.of(lightgbm.Booster({"verbosity": -1}, data))


@pytest.mark.parametrize("shape", [(3, N_FEATURES + 1), (3, N_FEATURES - 1), (N_FEATURES,)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="rows of 5 float32 expected"):
        CompiledTrees.of(written([[]])).raw_scores(np.zeros(shape, dtype=np.float32))


def test_doubles_are_refused_as_rounding_them_could_change_a_decision() -> None:
    with pytest.raises(DataError, match="float64"):
        CompiledTrees.of(written([[]])).raw_scores(np.zeros((1, N_FEATURES)))  # type: ignore[arg-type]
