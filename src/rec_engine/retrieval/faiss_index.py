"""Search by vector: the k items with the highest inner product, inside any set of eligible items."""

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from rec_engine.data.dataset import ExternalId, FloatArray, IntArray
from rec_engine.data.rows import GrowingRows, Rows, inner_products
from rec_engine.data.search_kernels import best_of
from rec_engine.errors import BundleError, DataError, NotFoundError
from rec_engine.retrieval.breadth import narrowest_breadth
from rec_engine.retrieval.cells import Cells, Engine
from rec_engine.retrieval.filters import Eligible
from rec_engine.utils.config import FaissSettings
from rec_engine.utils.logger import get_logger

POINTS_A_CELL = 39
"""FAISS' k-means wants at least so many training points a cell."""
HNSW_NEIGHBOURS = 32
HNSW_CONSTRUCTION = 200
SCAN_SHARE = 0.03
"""Below this share of eligible items an exact scan of them is cheaper than any index, and it misses nothing."""
N_TUNING_QUERIES = 200
ENGINE, IDS = "engine", "ids.json"
TUNING_NOISE = 0.3
RECALL_AT = 100
TIE = 1e-5
"""Scores this near to each other are the same: FAISS and a matrix product round differently."""

logger = get_logger(__name__)


@dataclass(slots=True)
class FAISSIndex:
    """Vectors under the user's own ids, searched by inner product.

    The vectors are kept as an array (`4 * n * dim` bytes, mapped from the file after `load`) beside what is searched:
    with IVF a byte a number, mapped too; with Flat and HNSW what FAISS keeps, about the same again, and HNSW adds some
    270 bytes an item. Removed items stay as dead rows until the next build.

    Attributes:
        vectors: (n, dim) float32, row c is the item with code c.
        settings: the `faiss:` section it was built with.
        recall: recall@100 against an exact search, measured at the build.
        breadth: cells probed (IVF) or nodes kept in sight (HNSW) by an unfiltered search; 0 for Flat.
    """

    vectors: FloatArray
    settings: FaissSettings
    recall: float
    breadth: int
    _engine: Engine
    _alive: Eligible
    _n: int
    _read_ids: Callable[[], list[ExternalId]]
    _ids: list[ExternalId] | None = None
    _room: GrowingRows | None = None
    _code_by_id: dict[ExternalId, int] | None = None

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        settings: FaissSettings,
        *,
        ids: Sequence[ExternalId] | None = None,
        seed: int = 0,
    ) -> "FAISSIndex":
        """Return an index over (n, dim) float32 vectors, wide enough to reach `settings.recall_floor`.

        Args:
            vectors: one row an item.
            settings: type of index; `nlist` is lowered to what the catalogue can fill.
            ids: of the items; without them the row numbers.
            seed: of the queries on which the breadth is chosen.

        Raises:
            DataError: if there is no vector, one is not finite, or ids repeat or are not as many as vectors.
        """
        started = time.monotonic()
        vectors = _checked(vectors)
        names: list[ExternalId] = list(range(len(vectors))) if ids is None else list(ids)
        if len(names) != len(vectors) or len(set(names)) != len(names):
            raise DataError(f"{len(vectors)} vectors, {len(names)} ids, {len(set(names))} of them distinct")
        alive = Eligible.everything(len(vectors))
        index = cls(vectors, settings, 1.0, 0, _build(vectors, settings, seed), alive, len(vectors), lambda: names)
        index._tune(seed)
        seconds, size = time.monotonic() - started, f"{settings.index_type}, {vectors.nbytes / 1e6:.1f} MB"
        logger.info("indexed %d items in %.1f s: %s, recall@100 %.3f", len(vectors), seconds, size, index.recall)
        return index

    def __len__(self) -> int:
        return self._alive.count()

    def search(self, queries: FloatArray, k: int, eligible: Eligible | None = None) -> tuple[FloatArray, IntArray]:
        """Return the best k items of each query: always min(k, eligible) of them, best first, equal ones by code.

        Args:
            queries: (q, dim) float32.
            k: at least 1.
            eligible: items that may be found; all of them without it.

        Returns:
            (q, k) float32 scores and (q, k) int32 codes; -inf and -1 where there are fewer than k eligible items.

        Raises:
            DataError: if `k`, the queries' width or the set's size do not fit, or a query is not finite.
        """
        if queries.ndim != 2:
            raise DataError(f"queries {queries.shape}: need two dimensions")
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        codes = np.full((len(queries), k), -1, dtype=np.int32)
        for row, query in enumerate(np.ascontiguousarray(queries, dtype=np.float32)):
            found_scores, found = self.nearest(query, k, eligible)
            scores[row, : len(found)], codes[row, : len(found)] = found_scores, found
        return scores, codes

    def nearest(self, query: FloatArray, k: int, eligible: Eligible | None = None) -> tuple[FloatArray, IntArray]:
        """Return scores and codes of the best min(k, eligible) items, best first, equal ones by code.

        A narrow set is scanned exactly. A wide one is searched with more breadth, and scanned where that finds too few.
        Which of several equal items take the last places is left to the search with IVF and HNSW.

        Args:
            query: (dim,) float32.
            k: at least 1.
            eligible: items that may be found; all of them without it.

        Raises:
            DataError: as `search`.
        """
        if k < 1 or len(query) != self.vectors.shape[1]:
            raise DataError(f"k = {k}, queries {query.shape}: need k >= 1 and width {self.vectors.shape[1]}")
        if not np.isfinite(query).all():
            raise DataError("a query holds nan or infinity", hint="see whether training diverged")
        allowed = self._allowed(eligible)
        n_allowed = allowed.count()
        if allowed.codes is not None or n_allowed <= SCAN_SHARE * self._n:
            return self.scan(query, k, allowed.item_codes())
        breadth = int(np.ceil(self.breadth / (n_allowed / self._n) ** 0.6))
        found = self._engine.near(query, breadth, k, allowed)
        if len(found) < min(k, n_allowed):
            return self.scan(query, k, allowed.item_codes())
        return self.scan(query, k, found)

    def scan(self, query: FloatArray, k: int, codes: IntArray) -> tuple[FloatArray, IntArray]:
        """Return scores and codes of the best k of these items (n,), best first, equal ones by code: exactly.

        Args:
            query: (dim,) float32.
            k: at least 1.
            codes: distinct; those that are not in the index are passed over.
        """
        if not len(codes) or codes.max() >= self._n:
            codes = codes[codes < self._n]
        scores = inner_products(self.rows, codes, query)
        found, found_scores = best_of(codes, scores, self._alive.bits, min(k, max(1, len(codes))), -math.inf)
        return found_scores, found

    def search_ids(self, queries: FloatArray, k: int) -> list[list[tuple[ExternalId, float]]]:
        """Return id and score of the best k items of each (q, dim) query, best first."""
        scores, codes = self.search(queries, k)
        return [
            [(self.ids[code], float(score)) for code, score in zip(row, of_row, strict=True) if code >= 0]
            for row, of_row in zip(codes.tolist(), scores.tolist(), strict=True)
        ]

    @property
    def ids(self) -> list[ExternalId]:
        """The ids of all items, in code order; read when somebody asks for them, for most never do."""
        if self._ids is None:
            self._ids = self._read_ids()
        return self._ids

    def with_room(self, capacity: int) -> "FAISSIndex":
        """Return this index with room for `capacity` items in all, to go on with instead of this one."""
        return replace(self, _room=GrowingRows(self.vectors, capacity), _alive=self._alive.widened(capacity))

    def searched_by(self, engine_of: Callable[[Engine], Engine]) -> "FAISSIndex":
        """Return this index, asking what is made of its engine for all sets that are not scanned."""
        return replace(self, _engine=engine_of(self._engine))

    @property
    def rows(self) -> Rows:
        """The vectors by code, with those that were added since there is room."""
        return self.vectors if self._room is None else self._room

    def add(self, ids: Sequence[ExternalId], vectors: FloatArray) -> None:
        """Add items, or replace those that are already there; they get the next codes.

        Raises:
            DataError: as `build`, or if there is no room left.
        """
        vectors = _checked(vectors, self.vectors.shape[1])
        if len(ids) != len(vectors) or len(set(ids)) != len(ids):
            raise DataError(f"{len(vectors)} vectors, {len(ids)} ids, {len(set(ids))} of them distinct")
        code_by_id, first = self._codes(), self._n
        replaced = [code_by_id[item] for item in ids if item in code_by_id]
        self.append(vectors)
        self.ids.extend(ids)
        code_by_id |= {item: first + row for row, item in enumerate(ids)}
        self._alive = self._alive.without(np.array(replaced, dtype=np.int32)).counted()

    def append(self, vectors: FloatArray) -> None:
        """Add items whose ids are somebody else's business, under the next codes.

        Raises:
            DataError: as `add`.
        """
        vectors = _checked(vectors, self.vectors.shape[1])
        added = np.arange(self._n, self._n + len(vectors), dtype=np.int32)
        if self._room is None:
            self.vectors = np.concatenate([self.vectors, vectors])
            self._alive = self._alive.widened(len(self.vectors))
        elif self._n + len(vectors) > len(self._room):
            raise DataError(f"there is no room for {len(vectors)} items more", hint="load the model again")
        else:
            for code, vector in zip(added.tolist(), vectors, strict=True):
                self._room.put(code, vector)
        self._engine.add(vectors)
        self._n += len(vectors)
        self._alive = self._alive.including(added).counted()

    def remove(self, ids: Sequence[ExternalId]) -> None:
        """Remove items; nothing but their ids is needed.

        Raises:
            NotFoundError: if an id is not in the index; nothing is removed then.
        """
        code_by_id = self._codes()
        if missing := [item for item in ids if item not in code_by_id]:
            raise NotFoundError(f"not in the index: {missing[:5]}", hint="ids are those given to build and add")
        codes = np.array([code_by_id.pop(item) for item in dict.fromkeys(ids)], dtype=np.int32)
        self._alive = self._alive.without(codes).counted()

    def save(self, directory: Path) -> None:
        """Write the index; the directory appears complete or not at all."""
        unfinished = directory.with_name(f".{directory.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self._engine.save(unfinished / ENGINE)
        np.save(unfinished / "vectors.npy", self.vectors)
        np.save(unfinished / "alive.npy", self._alive.mask())
        (unfinished / IDS).write_text(json.dumps(self.ids), encoding="utf-8")
        settings, n_ids = self.settings.model_dump(), len(self.ids)
        about = {"settings": settings, "recall": self.recall, "breadth": self.breadth, "n_ids": n_ids}
        (unfinished / "index.json").write_text(json.dumps(about), encoding="utf-8")
        shutil.rmtree(directory, ignore_errors=True)
        unfinished.rename(directory)

    @classmethod
    def load(cls, directory: Path) -> "FAISSIndex":
        """Return the index of a directory that `save` wrote.

        Raises:
            BundleError: if a file is missing, damaged or does not fit the others.
        """
        try:
            about = json.loads((directory / "index.json").read_text(encoding="utf-8"))
            settings = FaissSettings.model_validate(about["settings"])
            engine = _load(directory / ENGINE, settings)
            vectors = np.asarray(np.load(directory / "vectors.npy", mmap_mode="r"))
            alive = Eligible.of_mask(np.load(directory / "alive.npy"))
            recall, breadth = float(about["recall"]), int(about["breadth"])
            sizes = {*engine.shape[:1], len(vectors), int(about["n_ids"]), alive.n_items}
        except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{directory}: not a readable index ({error})", hint="train again") from None
        if len(sizes) > 1 or vectors.shape[1:] != engine.shape[1:] or not (directory / IDS).is_file():
            raise BundleError(f"{directory}: not a readable index (its files differ in size)", hint="train again")
        return cls(vectors, settings, recall, breadth, engine, alive, len(vectors), partial(_read_ids, directory / IDS))

    def _codes(self) -> dict[ExternalId, int]:
        """Return the codes of the items that are there; made at the first change, for most indexes never see one."""
        if self._code_by_id is None:
            self._code_by_id = {self.ids[code]: code for code in self._alive.item_codes().tolist()}
        return self._code_by_id

    def _allowed(self, eligible: Eligible | None) -> Eligible:
        if eligible is None:
            return self._alive
        if eligible.n_items != len(self.rows):
            raise DataError(f"a set over {eligible.n_items} items, an index of {len(self.rows)}")
        # What is not in the index is not found either, and a set that counts it is scanned where it is needed whole.
        return eligible if self._alive.count() == self._n else eligible.intersection(self._alive)

    def _tune(self, seed: int) -> None:
        """Widen the search until recall@100 reaches the floor, on queries near the real vectors.

        An item counts as found where its score reaches the last exact one: of equal items any will do, and a catalogue
        with many of them (new items that share all attributes) would otherwise be searched whole.
        """
        if self.settings.index_type == "Flat":
            return
        rng = np.random.default_rng(seed)
        drawn = self.vectors[rng.choice(len(self.vectors), min(N_TUNING_QUERIES, len(self.vectors)), replace=False)]
        scale = TUNING_NOISE * np.linalg.norm(drawn, axis=1, keepdims=True) / np.sqrt(drawn.shape[1])
        queries = (drawn + scale * rng.standard_normal(drawn.shape)).astype(np.float32)
        k = min(RECALL_AT, len(self.vectors))
        last = faiss.knn(queries, self.vectors, k, metric=faiss.METRIC_INNER_PRODUCT)[0][:, -1:]
        enough = last - TIE * np.abs(last)

        def recall_at(breadth: int) -> float:
            found = (self._engine.near(query, breadth, k, self._alive) for query in queries)
            scored = (self.scan(query, k, items)[0] for query, items in zip(queries, found, strict=True))
            n_found = sum(np.count_nonzero(scores >= least) for scores, least in zip(scored, enough, strict=True))
            return n_found / (k * len(queries))

        widths = (1, self._engine.n_cells) if isinstance(self._engine, Cells) else (k, len(self.vectors))
        self.breadth, self.recall = narrowest_breadth(recall_at, self.settings.recall_floor, *widths)
        if self.recall < self.settings.recall_floor:
            floor = self.settings.recall_floor
            logger.warning("recall@100 %.3f is below the floor of %.3f at any breadth; use IVF", self.recall, floor)


@dataclass(slots=True)
class _Faiss:
    """FAISS' own index of all vectors, Flat or HNSW."""

    index: faiss.Index

    @property
    def shape(self) -> tuple[int, int]:
        return self.index.ntotal, self.index.d

    def near(self, query: FloatArray, breadth: int, k: int, eligible: Eligible) -> IntArray:
        n_allowed = eligible.count()
        chosen = {} if n_allowed == self.index.ntotal else {"sel": faiss.IDSelectorBitmap(eligible.bits)}
        is_flat = isinstance(self.index, faiss.IndexFlat)
        parameters = (
            faiss.SearchParameters(**chosen)
            if is_flat
            else faiss.SearchParametersHNSW(efSearch=max(breadth, k), **chosen)
        )
        # Of equal items FAISS does not keep those with the lowest codes; one place more shows where it had to choose.
        n_places = k + 1 if is_flat and k < n_allowed else k
        (scores,), (found,) = self.index.search(query[None], n_places, params=parameters)
        is_cut = n_places > k and scores[k] == scores[k - 1]
        near: IntArray = found[(found >= 0) & (not is_cut)].astype(np.int32)
        return near

    def add(self, vectors: FloatArray) -> None:
        self.index.add(vectors)

    def save(self, directory: Path) -> None:
        directory.mkdir()
        faiss.write_index(self.index, str(directory / "index.faiss"))


def _build(vectors: FloatArray, settings: FaissSettings, seed: int) -> Engine:
    if settings.index_type == "IVF":
        return _build_cells(vectors, settings, seed)
    if settings.index_type == "HNSW":
        index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_CONSTRUCTION
    else:
        index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return _Faiss(index)


def _build_cells(vectors: FloatArray, settings: FaissSettings, seed: int) -> Cells:
    """Return the vectors in cells around the centroids of FAISS' k-means."""
    n, dim = vectors.shape
    n_cells = max(1, min(settings.nlist, n // POINTS_A_CELL))
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFFlat(quantizer, dim, n_cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed + 1
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    return Cells.of(vectors, quantizer.reconstruct_n(0, n_cells), quantizer.search(vectors, 1)[1][:, 0])


def _load(directory: Path, settings: FaissSettings) -> "Cells | _Faiss":
    """Return what is searched; it raises whatever its files' readers raise."""
    if settings.index_type == "IVF":
        return Cells.load(directory)
    return _Faiss(faiss.read_index(str(directory / "index.faiss")))


def _read_ids(path: Path) -> list[ExternalId]:
    ids: list[ExternalId] = json.loads(path.read_text(encoding="utf-8"))
    return ids


def _checked(vectors: FloatArray, dim: int | None = None) -> FloatArray:
    if vectors.ndim != 2 or vectors.size == 0 or (dim is not None and vectors.shape[1] != dim):
        raise DataError(f"vectors of shape {vectors.shape}, wanted (n >= 1, {dim or 'dim >= 1'})")
    if not np.isfinite(vectors).all():
        raise DataError("a vector holds nan or infinity", hint="see whether training diverged")
    return np.ascontiguousarray(vectors, dtype=np.float32)
