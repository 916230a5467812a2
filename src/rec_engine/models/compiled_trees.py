"""LightGBM's trees compiled for serving: the same scores, tens of times faster for the candidates of one request.

A split is decided for 512 rows at once, and a bit says how it went for each of them:

1. Every distinct test `feature <= threshold` is made once for all trees, and what passes is a set of rows.
2. A tree begins with all rows in one leaf. Each split leaves the rows that pass where they are and moves the others to
   a new leaf, until every leaf has the set of rows that reach it.
3. The sets of the leaves become, bit by bit, the number of each row's leaf, whose value is looked up and added.

There are no branches to mispredict and no loads that wait for each other, as in a walk from node to node.

References:
    Lucchese et al., QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees, 2015:
        tests made feature by feature for all trees, bits and `and` in place of branches; there a bit is a leaf, here it
        is a row.
    Ye et al., RapidScorer: fast tree ensemble evaluation by maximizing compactness in data level parallelization, 2018:
        equal tests made once.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numpy.typing import NDArray

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.data.kernels import compiled
from rec_engine.errors import DataError, RecEngineError

if TYPE_CHECKING:
    import lightgbm  # noqa: TID251 - the type alone

MAX_LEAVES = 64
LEAF_BITS = 6
GROUP_BITS = 4
LEAVES_A_GROUP = 1 << GROUP_BITS

WORD = 64
WORDS = 8
"""A set of rows is 8 uint64: row r is bit r & 63 of word r >> 6."""
ROWS_A_BLOCK = WORD * WORDS
ALL_ROWS = np.uint64(2**64 - 1)

CATEGORICAL = 1
WHEN_ZERO = np.array([0, 0, np.nan, -np.inf, 0, 0], dtype=np.float32)
WHEN_MISSING = np.array([0, 0, np.nan, -np.inf, np.nan, -np.inf], dtype=np.float32)
"""What is compared in place of 0 and of nan, by 2 * missing type (None, Zero, NaN) + (1 where its default is left).

nan passes no test and goes right, -inf passes every test and goes left."""
LARGEST_ZERO = np.float32(1e-35)
"""LightGBM takes values up to this one, of either sign, for 0."""

WordArray = NDArray[np.uint64]
ScoreArray = NDArray[np.float64]
TEST = np.dtype([("feature", np.int32), ("missing", np.int32), ("threshold", np.float32)])
BITS = ir.VectorType(ir.IntType(1), WORD)
BYTES = ir.VectorType(ir.IntType(8), WORD)
FLOATS = ir.VectorType(ir.FloatType(), WORD)
SET = ir.VectorType(ir.IntType(64), WORDS)
Values = Sequence[ir.Value]
Emit = Callable[..., ir.Value]
Function = TypeVar("Function", bound=Callable[..., object])


class UnsupportedTreesError(RecEngineError):
    """A LightGBM model holds what `CompiledTrees` cannot evaluate."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="score with LightGBM itself: Booster.predict")


@dataclass(frozen=True, slots=True)
class CompiledTrees:
    """Trees as arrays.

    Attributes:
        n_features: columns of the rows to score.
        column_features: (n_columns,) int32, the feature of each column. A feature is several columns where splits
            disagree about what is missing.
        when_zero: (n_columns,) float32, what is compared in place of 0.
        when_missing: (n_columns,) float32, what is compared in place of nan.
        column_starts: (n_columns + 1,) int32, the first test of each column.
        thresholds: (n_tests,) float32, a row passes where its value is not above it.
        tree_starts: (n_trees + 1,) int32, the first split of each tree, parents before children.
        split_leaves: (n_splits,) int32, the leaf that is split; rows that fail move to a new leaf, the tree's next.
        split_tests: (n_splits,) int32.
        leaf_values: (n_splits + n_trees,) float64, tree by tree; each has a leaf more than splits.
    """

    n_features: int
    column_features: IntArray
    when_zero: FloatArray
    when_missing: FloatArray
    column_starts: IntArray
    thresholds: FloatArray
    tree_starts: IntArray
    split_leaves: IntArray
    split_tests: IntArray
    leaf_values: ScoreArray

    @classmethod
    def of(cls, booster: "lightgbm.Booster") -> "CompiledTrees":
        """Return the trees that `booster.predict` would use, with the machine code ready.

        Raises:
            UnsupportedTreesError: for categorical splits, linear leaves, several classes, averaged trees, a tree of
                more than MAX_LEAVES leaves or none at all.
        """
        return cls.of_text(booster.model_to_string())

    @classmethod
    def of_text(cls, text: str) -> "CompiledTrees":
        """Return the same of LightGBM's text format.

        Raises:
            UnsupportedTreesError: as `of`, and where it is no such text.
        """
        head, *blocks = text.split("\nend of trees")[0].split("\nTree=")
        _check_model(head)
        if not blocks:
            raise UnsupportedTreesError("the model has no trees")
        trees = [_read_tree(number, block) for number, block in enumerate(blocks)]
        compiled = _assemble(_n_features(head), trees)
        compiled.raw_scores(np.zeros((1, compiled.n_features), dtype=np.float32))
        return compiled

    def raw_scores(self, features: FloatArray) -> ScoreArray:
        """Return (n,) float64, equal to those of `booster.predict(features, raw_score=True)`.

        Args:
            features: (n, n_features) float32.

        Raises:
            DataError: if it has another shape or type.
        """
        if features.dtype != np.float32 or features.ndim != 2 or features.shape[1] != self.n_features:
            raise DataError(f"rows of {self.n_features} float32 expected, found {features.shape} {features.dtype}")
        scores = np.zeros(len(features))
        for first in range(0, len(features), ROWS_A_BLOCK):
            block = np.ascontiguousarray(features.T[:, first : first + ROWS_A_BLOCK])
            columns = _columns(block, self.column_features, self.when_zero, self.when_missing)
            passed = _passed(columns, self.column_starts, self.thresholds)
            trees = self.tree_starts, self.split_leaves, self.split_tests, self.leaf_values
            _add_trees(passed, *trees, scores[first : first + ROWS_A_BLOCK])
        return scores


@dataclass(frozen=True, slots=True)
class _Tree:
    """One tree, its splits in an order that has parents before their children.

    Attributes:
        tests: (n_splits,) TEST.
        split_leaves: (n_splits,), the leaf that each divides.
        leaf_values: (n_splits + 1,) float64.
    """

    tests: NDArray[np.void]
    split_leaves: list[int]
    leaf_values: ScoreArray


def _check_model(head: str) -> None:
    lines = head.splitlines()
    for line in ("version=v4", "num_class=1", "num_tree_per_iteration=1"):
        if line not in lines:
            found = next((other for other in lines if other.startswith(line[: line.index("=") + 1])), "nothing")
            raise UnsupportedTreesError(f"a model with {line} is expected, found {found}")
    if "average_output" in lines:
        raise UnsupportedTreesError("the model averages its trees")


def _n_features(head: str) -> int:
    found = re.search(r"^max_feature_idx=([0-9]+)$", head, re.MULTILINE)
    if not found:
        raise UnsupportedTreesError("the model does not say of how many features it is")
    return int(found[1]) + 1


def _read_tree(number: int, block: str) -> _Tree:
    fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)

    def values(name: str, dtype: type[np.generic]) -> NDArray[Any]:
        return np.array(fields.get(name, "").split(), dtype=dtype)

    decisions, leaf_values = values("decision_type", np.int32), values("leaf_value", np.float64)
    if fields.get("num_cat") != "0" or (decisions & CATEGORICAL).any():
        raise UnsupportedTreesError(f"tree {number} has categorical splits")
    if (decisions >> 1 >= len(WHEN_ZERO)).any():
        raise UnsupportedTreesError(f"tree {number} has an unknown kind of missing values")
    if fields.get("is_linear") != "0":
        raise UnsupportedTreesError(f"tree {number} has linear leaves")
    if len(leaf_values) > MAX_LEAVES:
        raise UnsupportedTreesError(f"tree {number} has {len(leaf_values)} leaves, above {MAX_LEAVES}")
    nodes, split_leaves, leaves = _order(values("left_child", np.int32), values("right_child", np.int32))
    tests = np.empty(len(nodes), dtype=TEST)
    tests["feature"] = values("split_feature", np.int32)[nodes]
    tests["missing"] = np.maximum(decisions[nodes] >> 1, 1)  # without a missing type the default has no meaning
    tests["threshold"] = _rounded_down(values("threshold", np.float64)[nodes])
    return _Tree(tests, split_leaves, leaf_values[leaves])


def _order(left: IntArray, right: IntArray) -> tuple[list[int], list[int], list[int]]:
    """Return the nodes with parents before their children, the leaf that each divides, and the leaves' old numbers.

    Args:
        left: (n_splits,) children, ~number for a leaf.
        right: their siblings; what goes there becomes a new leaf, numbered next.
    """
    nodes: list[int] = []
    split_leaves: list[int] = []
    leaves = [0] * (len(left) + 1)
    pending = [(0 if len(left) else ~0, 0)]
    while pending:
        node, leaf = pending.pop()
        if node < 0:
            leaves[leaf] = ~node
            continue
        nodes.append(node)
        split_leaves.append(leaf)
        pending += [(int(right[node]), len(nodes)), (int(left[node]), leaf)]
    return nodes, split_leaves, leaves


def _rounded_down(thresholds: ScoreArray) -> FloatArray:
    """Return the largest float32 not above each threshold: exactly the same float32 values are not above that."""
    with np.errstate(over="ignore"):  # LightGBM writes 1e300 for infinity
        nearest = thresholds.astype(np.float32)
        return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _assemble(n_features: int, trees: list[_Tree]) -> CompiledTrees:
    tests, split_tests = np.unique(np.concatenate([tree.tests for tree in trees]), return_inverse=True)
    columns, column_starts = np.unique(tests[["feature", "missing"]], return_index=True)
    return CompiledTrees(
        n_features=n_features,
        column_features=columns["feature"].astype(np.int32),
        when_zero=WHEN_ZERO[columns["missing"]],
        when_missing=WHEN_MISSING[columns["missing"]],
        column_starts=np.append(column_starts, len(tests)).astype(np.int32),
        thresholds=tests["threshold"].astype(np.float32),
        tree_starts=np.cumsum([0, *(len(tree.tests) for tree in trees)], dtype=np.int32),
        split_leaves=np.array([leaf for tree in trees for leaf in tree.split_leaves], dtype=np.int32),
        split_tests=split_tests.astype(np.int32),
        leaf_values=np.concatenate([tree.leaf_values for tree in trees]),
    )


def _vectorised(result: types.Type) -> Callable[[Emit], Callable[..., Any]]:
    """Return a decorator: a function that emits LLVM code becomes one that compiled functions can call.

    numba has no vectors, and what LLVM makes of loops over rows is two to ten times slower. The code names no
    processor: LLVM has vectors of any length, and cuts them to those of the machine.

    Args:
        result: what the function returns. It gets arrays as the address of their first item, integers as int64.
    """

    def decorate(emit: Emit) -> Callable[..., Any]:
        @wraps(emit)
        def define(_typing: object, *given: types.Type) -> tuple[Signature, Emit]:
            def code(context: BaseContext, builder: ir.IRBuilder, signature: Signature, values: Values) -> ir.Value:
                addresses = [
                    context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
                    for kind, value in zip(signature.args, values, strict=True)
                ]
                returned = emit(builder, *addresses)
                return context.get_dummy_value() if result is types.void else returned

            return result(*(types.intp if isinstance(kind, types.Integer) else kind for kind in given)), code

        intrinsic_function: Callable[..., Any] = intrinsic(define)
        return intrinsic_function

    return decorate


@compiled
def _columns(
    by_feature: FloatArray, column_features: IntArray, when_zero: FloatArray, when_missing: FloatArray
) -> FloatArray:
    """Return (n_columns, n_words * WORD) float32, the rows' values; what follows the last row is undefined."""
    n_rows = by_feature.shape[1]
    columns = np.empty((len(column_features), (n_rows + WORD - 1) // WORD * WORD), dtype=np.float32)
    for column in range(len(column_features)):
        values, zero, missing = by_feature[column_features[column]], when_zero[column], when_missing[column]
        for row in range(n_rows):
            value = zero if abs(values[row]) <= LARGEST_ZERO else values[row]
            columns[column, row] = missing if np.isnan(value) else value
    return columns


@compiled
def _passed(columns: FloatArray, column_starts: IntArray, thresholds: FloatArray) -> WordArray:
    """Return (n_tests, WORDS) uint64, the rows that pass each test; words without rows are undefined."""
    n_columns, n_words = len(columns), columns.shape[1] // WORD
    words = columns.reshape(n_columns * n_words, WORD)
    passed = np.empty((len(thresholds), WORDS), dtype=np.uint64)
    for column in range(n_columns):
        for test in range(column_starts[column], column_starts[column + 1]):
            for word in range(n_words):
                passed[test, word] = _at_most(words, column * n_words + word, thresholds[test])
    return passed


@compiled
def _add_trees(
    passed: WordArray,
    tree_starts: IntArray,
    split_leaves: IntArray,
    split_tests: IntArray,
    leaf_values: ScoreArray,
    scores: ScoreArray,
) -> None:
    """Add every tree to the scores of a block's rows, in the order of the trees."""
    rows_of_leaf = np.zeros((MAX_LEAVES, WORDS), dtype=np.uint64)
    bits = np.zeros((LEAF_BITS, WORDS), dtype=np.uint64)
    leaf_of_row = np.zeros(ROWS_A_BLOCK, dtype=np.uint8)
    for tree in range(len(tree_starts) - 1):
        first, n_splits = tree_starts[tree], tree_starts[tree + 1] - tree_starts[tree]
        rows_of_leaf[0] = ALL_ROWS
        for split in range(n_splits):
            _divide(rows_of_leaf, split_leaves[first + split], split + 1, passed, split_tests[first + split])
        rows_of_leaf[n_splits + 1 :] = 0
        bits[:] = 0
        for group in range(n_splits // LEAVES_A_GROUP + 1):
            _number(rows_of_leaf, group, bits)
        for word in range((len(scores) + WORD - 1) // WORD):
            _unpack(bits, word, leaf_of_row)
        values = leaf_values[first + tree :]
        for row in range(len(scores)):
            scores[row] += values[leaf_of_row[row]]


@_vectorised(types.uint64)
def _at_most(builder: ir.IRBuilder, words: ir.Value, place: ir.Value, threshold: ir.Value) -> ir.Value:
    """Return which of the WORD float32 of words[place] are not above the threshold; nan is not."""
    values = builder.load(_vector(builder, words, place, FLOATS), align=4)
    one = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), threshold, ir.IntType(32)(0))
    repeated = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), WORD), [0] * WORD))
    return builder.bitcast(builder.fcmp_ordered("<=", values, repeated), ir.IntType(64))


@_vectorised(types.void)
def _divide(
    builder: ir.IRBuilder, sets: ir.Value, leaf: ir.Value, new: ir.Value, passed: ir.Value, test: ir.Value
) -> None:
    """Move the rows of sets[leaf] that are not in passed[test] to sets[new]."""
    old, fresh = _vector(builder, sets, leaf, SET), _vector(builder, sets, new, SET)
    rows = builder.load(old, align=8)
    staying = builder.and_(rows, builder.load(_vector(builder, passed, test, SET), align=8))
    builder.store(staying, old, align=8)
    builder.store(builder.xor(rows, staying), fresh, align=8)


@_vectorised(types.void)
def _number(builder: ir.IRBuilder, sets: ir.Value, group: ir.Value, bits: ir.Value) -> None:
    """Add, to the set of each bit, the rows of the leaves of a group that have it in their number."""
    none = ir.Constant(SET, [0] * WORDS)
    found, anywhere = [none] * GROUP_BITS, none
    for place in range(LEAVES_A_GROUP):
        leaf = builder.add(builder.mul(group, group.type(LEAVES_A_GROUP)), group.type(place))
        rows = builder.load(_vector(builder, sets, leaf, SET), align=8)
        anywhere = builder.or_(anywhere, rows)
        for bit in range(GROUP_BITS):
            if place >> bit & 1:
                found[bit] = builder.or_(found[bit], rows)
    for bit in range(LEAF_BITS - GROUP_BITS):
        group_has_it = builder.trunc(builder.lshr(group, group.type(bit)), ir.IntType(1))
        found.append(builder.select(group_has_it, anywhere, none))
    for bit, rows in enumerate(found):
        address = _vector(builder, bits, group.type(bit), SET)
        builder.store(builder.or_(builder.load(address, align=8), rows), address, align=8)


@_vectorised(types.void)
def _unpack(builder: ir.IRBuilder, bits: ir.Value, word: ir.Value, leaf_of_row: ir.Value) -> None:
    """Write the numbers of the leaves of a word's rows, a byte each."""
    numbers = none = ir.Constant(BYTES, [0] * WORD)
    for bit in range(LEAF_BITS):
        rows = builder.load(builder.gep(bits, [builder.add(word, word.type(bit * WORDS))]))
        with_bit = ir.Constant(BYTES, [1 << bit] * WORD)
        numbers = builder.or_(numbers, builder.select(builder.bitcast(rows, BITS), with_bit, none))
    builder.store(numbers, _vector(builder, leaf_of_row, word, BYTES), align=1)


def _vector(builder: ir.IRBuilder, address: ir.Value, place: ir.Value, vector: ir.VectorType) -> ir.Value:
    """Return the address of the vector at a place of an array of such vectors."""
    item = builder.gep(address, [builder.mul(place, place.type(vector.count))])
    return builder.bitcast(item, vector.as_pointer())
