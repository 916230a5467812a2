"""Links are the matrix that they were made of, pruned."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.errors import BundleError
from rec_engine.retrieval.links import Links, offsets


def matrix(seed: int, n: int = 12) -> sparse.csr_array:
    dense = np.random.default_rng(seed).integers(-3, 6, (n, n)).astype(np.float32)
    return sparse.csr_array(sparse.coo_array(np.where(dense > 0, dense, 0)))


def dense(links: Links, items: IntArray, weights: FloatArray) -> FloatArray:
    return links.of(items, weights).scores(np.arange(links.n_items, dtype=np.int32))


@given(st.integers(0, 50), st.lists(st.integers(0, 11), max_size=6))
def test_weighted_sum_is_the_matrix_product(seed: int, items: list[int]) -> None:
    strengths = matrix(seed)
    weights = np.arange(1, len(items) + 1, dtype=np.float32)
    found = dense(Links.strongest(strengths, 12), np.array(items, dtype=np.int32), weights)
    assert np.allclose(found, weights @ strengths.toarray()[items] if items else np.zeros(12))


@given(st.integers(0, 50), st.lists(st.integers(0, 11), max_size=6), st.lists(st.integers(0, 11), unique=True))
def test_between_reads_single_links(seed: int, items: list[int], others: list[int]) -> None:
    strengths = matrix(seed)
    rows, columns = np.array(items, dtype=np.int32), np.array(others, dtype=np.int32)
    found = Links.strongest(strengths, 12).between(rows, columns)
    assert np.array_equal(found, strengths.toarray()[np.ix_(rows, columns)])


def test_an_item_without_links_says_nothing() -> None:
    links = Links.strongest(sparse.csr_array((3, 3), dtype=np.float32), 5)
    assert links.between(np.array([1], dtype=np.int32), np.array([0, 2], dtype=np.int32)).tolist() == [[0, 0]]
    assert not dense(links, np.array([1], dtype=np.int32), np.ones(1, dtype=np.float32)).any()


def test_the_strongest_are_kept_by_size_and_equal_ones_by_code() -> None:
    dense = np.array([[0, 1, -5, 1], [2, 0, 2, 2], [0, 0, 0, 0], [0, 0, 0, 7]], dtype=np.float32)
    kept = Links.strongest(sparse.coo_array(dense).tocsr(), 2).strengths.toarray()
    assert kept.tolist() == [[0, 1, -5, 0], [2, 0, 2, 0], [0, 0, 0, 0], [0, 0, 0, 7]]


def test_saved_links_are_the_same_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    links = Links.strongest(matrix(1), 4)
    links.save(tmp_path / "links")
    loaded = Links.load(tmp_path / "links").strengths
    assert np.array_equal(loaded.toarray(), links.strengths.toarray())
    assert loaded.indices.dtype == np.dtype(np.int32)
    for content in (b"", b"nonsense"):
        (tmp_path / "links" / "indices.npy").write_bytes(content)
        with pytest.raises(BundleError, match="not readable as links"):
            Links.load(tmp_path / "links")


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        ("data", np.ones(3, dtype=np.float64)),
        ("data", np.ones(2, dtype=np.float32)),
        ("data", np.array([1, np.nan, 1], dtype=np.float32)),
        ("indices", np.array([0, 1, 3], dtype=np.int32)),
        ("indices", np.array([0, -1, 2], dtype=np.int32)),
        ("indices", np.array([0.0, 1.0, 2.0], dtype=np.float32)),
        ("indptr", np.array([0, 1, 2, 4], dtype=np.int32)),
        ("indptr", np.array([1, 1, 2, 3], dtype=np.int32)),
        ("indptr", np.array([0, 5, 2, 3], dtype=np.int32)),
        ("indptr", np.array([0, -5, 2, 3], dtype=np.int64)),
        ("indptr", np.array([], dtype=np.int32)),
        ("indptr", np.array([[0, 1, 2, 3]], dtype=np.int32)),
    ],
)
def test_arrays_that_are_no_matrix_of_items_are_refused(tmp_path: Path, name: str, damaged: FloatArray) -> None:
    Links(sparse.csr_array(np.eye(3, dtype=np.float32))).save(tmp_path / "links")
    Links.load(tmp_path / "links")
    np.save(tmp_path / "links" / f"{name}.npy", damaged)
    with pytest.raises(BundleError, match="not readable as links"):
        Links.load(tmp_path / "links")


@pytest.mark.parametrize(("lengths", "kind"), [([2, 0, 3], np.int32), ([2**31 - 1], np.int32), ([2**31, 1], np.int64)])
def test_offsets_are_as_wide_as_they_must_be(lengths: list[int], kind: type[np.generic]) -> None:
    found = offsets(lengths)
    assert found.dtype == kind
    assert np.diff(found.astype(np.int64)).tolist() == lengths
