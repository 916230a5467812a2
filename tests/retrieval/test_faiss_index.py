"""Search is complete at every selectivity, whatever the index type."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from rec_engine.data.dataset import FloatArray
from rec_engine.errors import BundleError, DataError, NotFoundError
from rec_engine.retrieval import filters
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.filters import Eligible
from rec_engine.utils.config import FaissSettings

TYPES = ("Flat", "IVF", "HNSW")
LARGE = 12_000


def unit_vectors(n: int, dim: int = 12, seed: int = 0) -> FloatArray:
    vectors = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


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


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("n", [1, 2, 50, 300])
@pytest.mark.usefixtures("way")
def test_small_catalogues_work_with_any_type_and_nlist(kind: str, n: int) -> None:
    index = FAISSIndex.build(unit_vectors(n), FaissSettings.model_validate({"index_type": kind, "nlist": 4096}))
    codes = index.search(index.vectors, min(3, n))[1]
    assert codes[:, 0].tolist() == list(range(n))


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


@pytest.mark.parametrize("name", ["index.faiss", "vectors.npy", "alive.npy", "index.json"])
def test_damaged_index_is_refused(tmp_path: Path, name: str) -> None:
    FAISSIndex.build(unit_vectors(30), FaissSettings()).save(tmp_path / "index")
    (tmp_path / "index" / name).write_bytes(b"damaged")
    with pytest.raises(BundleError, match="not a readable index"):
        FAISSIndex.load(tmp_path / "index")


@pytest.mark.parametrize(
    "change",
    [{"ids": [1, 2]}, {"recall": None}, {"breadth": "wide"}, {"settings": None}],
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
    [("vectors.npy", np.ones((10, 12), dtype=np.float32)), ("alive.npy", np.ones(40, dtype=np.bool_))],
)
def test_index_whose_files_differ_in_size_is_refused(tmp_path: Path, name: str, other: FloatArray) -> None:
    FAISSIndex.build(unit_vectors(30), FaissSettings()).save(tmp_path / "index")
    np.save(tmp_path / "index" / name, other)
    with pytest.raises(BundleError, match="differ in size"):
        FAISSIndex.load(tmp_path / "index")


def test_saving_over_an_older_index_replaces_it_whole(tmp_path: Path) -> None:
    for n in (30, 20):
        FAISSIndex.build(unit_vectors(n), FaissSettings()).save(tmp_path / "index")
    assert len(FAISSIndex.load(tmp_path / "index")) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


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
