"""Search is complete at every selectivity, whatever the index type."""

import json
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.dataset import FloatArray
from rec_engine.errors import BundleError, DataError, NotFoundError
from rec_engine.retrieval import filters
from rec_engine.retrieval.cells import Cells
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.filters import Eligible
from rec_engine.utils.config import FaissSettings

TYPES = ("Flat", "IVF", "HNSW")
LARGE = 12_000


def unit_vectors(n: int, dim: int = 12, seed: int = 0) -> FloatArray:
    vectors = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


SMALL = {
    kind: FAISSIndex.build(unit_vectors(400), FaissSettings.model_validate({"index_type": kind})) for kind in TYPES
}


@pytest.fixture(params=["scan", "faiss"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of searching a small catalogue: no set counts as narrow on the second, so that FAISS is asked."""
    if request.param == "faiss":
        monkeypatch.setattr(filters, "NARROW", -1)
    return str(request.param)


@pytest.fixture(scope="module", params=TYPES)
def large(request: pytest.FixtureRequest) -> FAISSIndex:
    """More items than a narrow set holds, so that wide searches go through FAISS."""
    return FAISSIndex.build(unit_vectors(LARGE), FaissSettings(index_type=request.param))


@pytest.mark.parametrize("share", [1.0, 0.6, 0.1, 0.01, 0.0005, 0.0])
def test_answer_has_min_of_k_and_eligible_distinct_eligible_items(large: FAISSIndex, share: float) -> None:
    mask = np.random.default_rng(7).random(LARGE) < share
    queries = unit_vectors(8, seed=1)
    scores, codes = large.search(queries, 30, Eligible.of_mask(mask))
    n_found = min(30, int(mask.sum()))
    exact = np.sort(np.where(mask, queries @ large.vectors.T, -np.inf), axis=1)[:, ::-1][:, :30]
    for row in range(len(queries)):
        found = codes[row][codes[row] >= 0]
        assert len(found) == len(set(found.tolist())) == n_found
        assert mask[found].all()
        assert (np.diff(scores[row, :n_found]) <= 0).all()
    assert np.isclose(scores, exact).mean() > 0.95


def test_build_reaches_the_recall_floor(large: FAISSIndex) -> None:
    assert large.recall >= large.settings.recall_floor


def test_flat_is_exact() -> None:
    index = FAISSIndex.build(unit_vectors(6_000), FaissSettings(index_type="Flat"))
    queries = unit_vectors(5, seed=2)
    expected = np.argsort(-(queries @ index.vectors.T), axis=1)[:, :10]
    assert np.array_equal(index.search(queries, 10)[1], expected)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), n=st.integers(2, 150), narrow=st.sampled_from([-1, filters.NARROW]))
def test_flat_is_a_stable_sort_of_the_products_cut_after_k(data: st.DataObject, n: int, narrow: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    # Small whole numbers: products are exact, and many items are equal.
    vectors = rng.integers(-2, 3, (n, 3)).astype(np.float32)
    queries = rng.integers(-2, 3, (data.draw(st.integers(1, 25)), 3)).astype(np.float32)
    mask = rng.random(n) < data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    k = data.draw(st.integers(1, n + 5))
    products = np.where(mask, queries @ vectors.T, -np.inf)
    order = np.argsort(-products, axis=1, kind="stable")[:, : min(k, int(mask.sum()))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "NARROW", narrow)
        index = FAISSIndex.build(vectors, FaissSettings(index_type="Flat"))
        scores, codes = index.search(queries, k, Eligible.of_mask(mask))
    n_found = order.shape[1]
    assert np.array_equal(codes[:, :n_found], order)
    assert np.array_equal(scores[:, :n_found], np.take_along_axis(products, order, axis=1))
    assert (codes[:, n_found:] == -1).all()
    assert np.isneginf(scores[:, n_found:]).all()


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(TYPES), share=st.floats(0, 1), k=st.integers(1, 250), seed=st.integers(0, 2**32))
def test_searches_through_faiss_are_complete_however_few_are_eligible(
    kind: str, share: float, k: int, seed: int
) -> None:
    mask = np.random.default_rng(seed).random(len(SMALL[kind].vectors)) < share
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "NARROW", -1)
        codes = SMALL[kind].search(unit_vectors(2, seed=1), k, Eligible.of_mask(mask))[1]
    for found in (row[row >= 0] for row in codes):
        assert len(found) == len(set(found.tolist())) == min(k, int(mask.sum()))
        assert mask[found].all()


@pytest.mark.parametrize("kind", TYPES)
def test_eligible_items_far_from_the_query_are_found_too(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "NARROW", -1)
    centres = unit_vectors(20)
    vectors = np.repeat(centres, 100, axis=0) + 0.05 * unit_vectors(2_000, seed=1)
    index = FAISSIndex.build(vectors, FaissSettings.model_validate({"index_type": kind}))
    farthest = np.argsort(centres @ centres[0])[:2]
    mask = np.isin(np.repeat(np.arange(20), 100), farthest)
    codes = index.search(centres[:1], 150, Eligible.of_mask(mask))[1][0]
    assert len(set(codes.tolist())) == 150
    assert codes.min() >= 0
    assert mask[codes].all()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("n", [1, 2, 50, 300])
@pytest.mark.usefixtures("way")
def test_small_catalogues_work_with_any_type_and_nlist(kind: str, n: int) -> None:
    index = FAISSIndex.build(unit_vectors(n), FaissSettings.model_validate({"index_type": kind, "nlist": 4096}))
    codes = index.search(index.vectors, min(3, n))[1]
    assert codes[:, 0].tolist() == list(range(n))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 80), dim=st.integers(1, 70))
def test_cells_find_what_an_exact_search_finds_up_to_the_rounding(data: st.DataObject, n: int, dim: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    spread = 10.0 ** rng.integers(-6, 6, dim)  # a number that is large in all vectors must not take the others' bits
    vectors = (rng.standard_normal((n, dim)) * spread).astype(np.float32)
    query = (rng.standard_normal(dim) / spread).astype(np.float32)
    cells = Cells.of(vectors, np.zeros((2, dim), dtype=np.float32), rng.integers(0, 2, n))
    mask, k = rng.random(n) < 0.7, data.draw(st.integers(1, n))
    found = cells.near(query, 2, k, Eligible.of_mask(mask))
    exact = vectors.astype(np.float64) @ query.astype(np.float64)
    error = np.abs(query * cells.steps).sum()
    wanted = np.sort(exact[mask])[::-1][:k]
    assert mask[found].all()
    assert len(found) == len(set(found.tolist())) >= min(k, int(mask.sum()))
    assert (np.sort(exact[found])[::-1][: len(wanted)] >= wanted - error).all()


def test_many_equal_items_do_not_widen_the_search_to_every_cell() -> None:
    vectors = np.concatenate([np.repeat(unit_vectors(10), 150, axis=0), unit_vectors(4_500, seed=3)])
    index = FAISSIndex.build(vectors, FaissSettings(index_type="IVF", nlist=100))
    assert index.recall >= index.settings.recall_floor
    assert index.breadth < 100


def test_recall_below_the_floor_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("rec_engine"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="rec_engine")
    vectors = np.concatenate([np.repeat(unit_vectors(1), 600, axis=0), unit_vectors(400, seed=3)])
    index = FAISSIndex.build(vectors, FaissSettings(index_type="HNSW", recall_floor=1.0))
    assert index.recall < 1.0
    assert any("below the floor" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.usefixtures("way")
def test_equal_scores_are_ordered_by_code(kind: str) -> None:
    vectors = np.tile(unit_vectors(1), (20, 1))
    index = FAISSIndex.build(vectors, FaissSettings.model_validate({"index_type": kind}))
    assert index.search(vectors[:1], 20)[1][0].tolist() == list(range(20))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.usefixtures("way")
def test_items_come_and_go_by_id(kind: str) -> None:
    vectors = unit_vectors(100)
    index = FAISSIndex.build(
        vectors[:90], FaissSettings.model_validate({"index_type": kind}), ids=[f"i{n}" for n in range(90)]
    )
    index.add([f"i{n}" for n in range(90, 100)], vectors[90:])
    assert index.search_ids(vectors[95:96], 1)[0][0][0] == "i95"
    index.remove(["i95", "i3"])
    assert len(index) == 98
    found = {item for item, _ in index.search_ids(vectors[95:96], 100)[0]}
    assert len(found) == 98
    assert not found & {"i95", "i3"}
    index.add(["i4"], vectors[95:96])  # replaces
    assert len(index) == 98
    assert index.search_ids(vectors[95:96], 1)[0][0][0] == "i4"


def test_removing_what_is_not_there_removes_nothing() -> None:
    index = FAISSIndex.build(unit_vectors(3), FaissSettings(), ids=["a", "b", "c"])
    with pytest.raises(NotFoundError, match="nothing"):
        index.remove(["a", "nothing"])
    assert len(index) == 3


@pytest.mark.parametrize("kind", TYPES)
def test_saved_and_loaded_index_finds_the_same(kind: str, tmp_path: Path) -> None:
    index = FAISSIndex.build(
        unit_vectors(6_000), FaissSettings.model_validate({"index_type": kind}), ids=list(range(10, 6_010))
    )
    index.remove([11])
    index.save(tmp_path / "index")
    loaded = FAISSIndex.load(tmp_path / "index")
    assert loaded.search_ids(unit_vectors(3, seed=5), 20) == index.search_ids(unit_vectors(3, seed=5), 20)
    assert (loaded.recall, loaded.breadth, len(loaded)) == (index.recall, index.breadth, 5_999)
    loaded.add([11], unit_vectors(1, seed=9))
    assert len(loaded) == 6_000


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *[("Flat", name) for name in ("engine/index.faiss", "vectors.npy", "alive.npy", "index.json")],
        *[("IVF", f"engine/{name}.npy") for name in ("centroids", "starts", "items", "rows", "steps")],
    ],
)
@pytest.mark.parametrize("damage", [b"", b"damaged"], ids=["empty", "damaged"])
def test_damaged_index_is_refused(tmp_path: Path, kind: str, name: str, damage: bytes) -> None:
    FAISSIndex.build(unit_vectors(30), FaissSettings.model_validate({"index_type": kind})).save(tmp_path / "index")
    (tmp_path / "index" / name).write_bytes(damage)
    with pytest.raises(BundleError, match="not a readable index"):
        FAISSIndex.load(tmp_path / "index")


@pytest.mark.parametrize(
    "change",
    [{"n_ids": 2}, {"recall": None}, {"breadth": "wide"}, {"settings": None}],
    ids=lambda change: str(change),
)
def test_index_whose_description_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    FAISSIndex.build(unit_vectors(30), FaissSettings()).save(tmp_path / "index")
    file = tmp_path / "index" / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(BundleError, match="not a readable index"):
        FAISSIndex.load(tmp_path / "index")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("vectors.npy", np.ones((10, 12), dtype=np.float32)),
        ("alive.npy", np.ones(40, dtype=np.bool_)),
        ("engine/items.npy", np.ones(29, dtype=np.int32)),
        ("engine/starts.npy", np.array([0, 29])),
        ("engine/starts.npy", np.array([0, 29, 30])),
        ("engine/starts.npy", np.array([0.0, 30.0])),
        ("engine/starts.npy", np.array([-9, 30])),
        ("engine/starts.npy", np.array(30)),
        ("engine/steps.npy", np.ones(11, dtype=np.float32)),
        ("engine/steps.npy", np.full(12, np.nan, dtype=np.float32)),
        ("engine/items.npy", np.arange(1, 31, dtype=np.int32)),
        ("engine/items.npy", np.arange(-1, 29, dtype=np.int32)),
        ("engine/items.npy", np.zeros(30, dtype=np.int32)),
        ("engine/items.npy", np.arange(30, dtype=np.int64)),
        ("engine/rows.npy", np.ones((30, 12), dtype=np.float32)),
        ("engine/rows.npy", np.ones(360, dtype=np.int8)),
        ("engine/centroids.npy", np.ones((1, 11), dtype=np.int8)),
        ("engine/centroids.npy", np.ones((0, 12), dtype=np.int8)),
    ],
)
def test_index_whose_files_do_not_fit_together_is_refused(tmp_path: Path, name: str, other: FloatArray) -> None:
    FAISSIndex.build(unit_vectors(30), FaissSettings(index_type="IVF", nlist=1)).save(tmp_path / "index")
    np.save(tmp_path / "index" / name, other)
    with pytest.raises(BundleError, match="not a readable index"):
        FAISSIndex.load(tmp_path / "index")


def test_cells_that_overlap_are_refused(tmp_path: Path) -> None:
    FAISSIndex.build(unit_vectors(200), FaissSettings(index_type="IVF", nlist=3)).save(tmp_path / "index")
    starts = np.load(tmp_path / "index" / "engine" / "starts.npy")
    assert len(starts) == 4
    np.save(tmp_path / "index" / "engine" / "starts.npy", starts[[0, 2, 1, 3]])
    with pytest.raises(BundleError, match="not a readable index"):
        FAISSIndex.load(tmp_path / "index")


def test_saving_over_an_older_index_replaces_it_whole(tmp_path: Path) -> None:
    for n in (30, 20):
        FAISSIndex.build(unit_vectors(n), FaissSettings()).save(tmp_path / "index")
    assert len(FAISSIndex.load(tmp_path / "index")) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """A disk that is full: a longer file fails while it is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("n_bytes", [1_000, 8_000], ids=["at the first file", "at the last file"])
def test_save_that_fails_leaves_the_older_index_as_it_was(tmp_path: Path, n_bytes: int) -> None:
    older = FAISSIndex.build(unit_vectors(20), FaissSettings())
    older.save(tmp_path / "index")
    newer = FAISSIndex.build(unit_vectors(30), FaissSettings(), ids=[f"{number:0500}" for number in range(30)])
    for place in ("index", "elsewhere"):
        with files_of_at_most(n_bytes), pytest.raises((OSError, RuntimeError)):
            newer.save(tmp_path / place)
    assert FAISSIndex.load(tmp_path / "index").ids == older.ids
    assert not (tmp_path / "elsewhere").exists()
    newer.save(tmp_path / "index")
    assert FAISSIndex.load(tmp_path / "index").ids == newer.ids


def test_loaded_index_can_be_saved_where_it_came_from(tmp_path: Path) -> None:
    FAISSIndex.build(unit_vectors(30), FaissSettings()).save(tmp_path / "index")
    loaded = FAISSIndex.load(tmp_path / "index")
    loaded.save(tmp_path / "index")
    assert np.array_equal(FAISSIndex.load(tmp_path / "index").vectors, unit_vectors(30))
    assert np.array_equal(loaded.vectors, unit_vectors(30))


def test_directory_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a readable index"):
        FAISSIndex.load(tmp_path / "nothing")


def test_bad_input_is_refused_with_a_sentence() -> None:
    vectors = unit_vectors(5)
    index = FAISSIndex.build(vectors, FaissSettings())
    with pytest.raises(DataError, match="nan"):
        FAISSIndex.build(np.full((2, 2), np.nan, dtype=np.float32), FaissSettings())
    with pytest.raises(DataError, match="shape"):
        FAISSIndex.build(np.empty((0, 4), dtype=np.float32), FaissSettings())
    with pytest.raises(DataError, match="distinct"):
        FAISSIndex.build(vectors, FaissSettings(), ids=["a"] * 5)
    with pytest.raises(DataError, match="k = 0"):
        index.search(vectors, 0)
    with pytest.raises(DataError, match="width 12"):
        index.search(vectors[:, :3], 1)
    with pytest.raises(DataError, match="query holds nan"):
        index.search(np.full((1, 12), np.nan, dtype=np.float32), 1)
    with pytest.raises(DataError, match="a set over 7 items"):
        index.search(vectors, 1, Eligible.everything(7))
    with pytest.raises(DataError, match="shape"):
        index.add(["new"], unit_vectors(1, dim=3))
