"""Search by vector: the k items with the highest inner product, inside any set of eligible items."""

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np

from rec_engine.data.dataset import ExternalId, FloatArray, IntArray, LongArray
from rec_engine.data.kernels import best_of
from rec_engine.data.rows import GrowingRows, Rows, inner_products
from rec_engine.errors import BundleError, DataError, NotFoundError
from rec_engine.evaluation.ranking import top_k
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
TUNING_NOISE = 0.3
RECALL_AT = 100
LARGEST_HALF = 65_504
"""In IVF's cells the vectors are float16: half the memory to read through, and the scores are exact all the same."""
TIE = 1e-5
"""Scores this near to each other are the same: FAISS and a matrix product round differently."""

logger = get_logger(__name__)


@dataclass(slots=True)
class FAISSIndex:
    """Vectors under the user's own ids, searched by inner product.

    The vectors are kept as an array (`4 * n * dim` bytes, mapped from the file after `load`) beside what FAISS
    keeps (about the same again; HNSW adds some 270 bytes an item). Removed items stay as dead rows until the next
    build.

    Attributes:
        vectors: (n, dim) float32, row c is the item with code c.
        ids: n ids, in code order.
        settings: the `faiss:` section it was built with.
        recall: recall@100 against an exact search, measured at the build.
        breadth: cells probed (IVF) or nodes kept in sight (HNSW) by an unfiltered search; 0 for Flat.
    """

    vectors: FloatArray
    ids: list[ExternalId]
    settings: FaissSettings
    recall: float
    breadth: int
    _index: faiss.Index
    _alive: Eligible
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
        inner = _build_faiss(vectors, settings, seed)
        alive = Eligible.everything(len(vectors))
        index = cls(vectors, names, settings, 1.0, 0, inner, alive)
        index._tune(seed)
        seconds, size = time.monotonic() - started, f"{settings.index_type}, {vectors.nbytes / 1e6:.1f} MB"
        logger.info("indexed %d items in %.1f s: %s, recall@100 %.3f", len(vectors), seconds, size, index.recall)
        return index

    def __len__(self) -> int:
        return self._alive.count()

    def search(self, queries: FloatArray, k: int, eligible: Eligible | None = None) -> tuple[FloatArray, IntArray]:
        """Return the best k items of each query: always min(k, eligible) of them, best first, equal ones by code.

        A narrow set is scanned exactly. A wide one is searched with a selector and more breadth; a query that finds too
        few that way is scanned. Which of several equal items take the last places is FAISS' choice with IVF and HNSW.

        Args:
            queries: (q, dim) float32.
            k: at least 1.
            eligible: items that may be found; all of them without it.

        Returns:
            (q, k) float32 scores and (q, k) int32 codes; -inf and -1 where there are fewer than k eligible items.

        Raises:
            DataError: if `k`, the queries' width or the set's size do not fit, or a query is not finite.
        """
        if k < 1 or queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise DataError(f"k = {k}, queries {queries.shape}: need k >= 1 and width {self.vectors.shape[1]}")
        if not np.isfinite(queries).all():
            raise DataError("a query holds nan or infinity", hint="see whether training diverged")
        allowed = self._allowed(eligible)
        n_allowed = allowed.count()
        k_found = min(k, n_allowed)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        codes = np.full((len(queries), k), -1, dtype=np.int32)
        if k_found == 0:
            return scores, codes
        if allowed.codes is not None or n_allowed <= SCAN_SHARE * self._index.ntotal:
            scores[:, :k_found], codes[:, :k_found] = self._scan(queries, k_found, allowed.item_codes())
            return scores, codes
        found_scores, found = self._search_wide(queries, k_found, allowed, n_allowed)
        scores[:, :k_found], codes[:, :k_found] = found_scores, found
        if (incomplete := np.flatnonzero((found < 0).any(axis=1))).size:
            scanned = self._scan(queries[incomplete], k_found, allowed.item_codes())
            scores[incomplete, :k_found], codes[incomplete, :k_found] = scanned
        return scores, codes

    def scan(self, query: FloatArray, k: int, codes: IntArray) -> tuple[FloatArray, IntArray]:
        """Return scores and codes of the best k of these items (n,), best first, equal ones by code: exactly.

        Args:
            query: (dim,) float32.
            k: at least 1.
            codes: distinct.
        """
        codes = codes[self._alive.keeps(codes)]
        scores = inner_products(self.rows, codes, query)
        found = best_of(codes, scores, self._alive.bits, k, -math.inf)
        return inner_products(self.rows, found, query), found

    def search_ids(self, queries: FloatArray, k: int) -> list[list[tuple[ExternalId, float]]]:
        """Return id and score of the best k items of each (q, dim) query, best first."""
        scores, codes = self.search(queries, k)
        return [
            [(self.ids[code], float(score)) for code, score in zip(row, of_row, strict=True) if code >= 0]
            for row, of_row in zip(codes.tolist(), scores.tolist(), strict=True)
        ]

    def with_room(self, capacity: int) -> "FAISSIndex":
        """Return this index with room for `capacity` items in all, to go on with instead of this one."""
        alive = Eligible.of_mask(np.concatenate([_mask(self._alive), np.zeros(capacity - len(self.vectors), np.bool_)]))
        return replace(self, _room=GrowingRows(self.vectors, capacity), _alive=alive)

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
        code_by_id = self._codes()
        replaced = [code_by_id[item] for item in ids if item in code_by_id]
        first = self._index.ntotal
        self._append(vectors)
        self.ids.extend(ids)
        code_by_id |= {item: first + row for row, item in enumerate(ids)}
        mask = np.zeros(len(self.rows), dtype=np.bool_)
        mask[: self._alive.n_items] = _mask(self._alive)
        mask[first : first + len(ids)] = True
        mask[replaced] = False
        self._alive = Eligible.of_mask(mask)

    def remove(self, ids: Sequence[ExternalId]) -> None:
        """Remove items; nothing but their ids is needed.

        Raises:
            NotFoundError: if an id is not in the index; nothing is removed then.
        """
        code_by_id = self._codes()
        if missing := [item for item in ids if item not in code_by_id]:
            raise NotFoundError(f"not in the index: {missing[:5]}", hint="ids are those given to build and add")
        codes = np.array([code_by_id.pop(item) for item in dict.fromkeys(ids)], dtype=np.int32)
        self._alive = self._alive.without(codes)

    def save(self, directory: Path) -> None:
        """Write the index; the directory appears complete or not at all."""
        partial = directory.with_name(f".{directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        faiss.write_index(self._index, str(partial / "index.faiss"))
        np.save(partial / "vectors.npy", self.vectors)
        np.save(partial / "alive.npy", _mask(self._alive))
        about = {
            "settings": self.settings.model_dump(),
            "recall": self.recall,
            "breadth": self.breadth,
            "ids": self.ids,
        }
        (partial / "index.json").write_text(json.dumps(about), encoding="utf-8")
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)

    @classmethod
    def load(cls, directory: Path) -> "FAISSIndex":
        """Return the index of a directory that `save` wrote.

        Raises:
            BundleError: if a file is missing, damaged or does not fit the others.
        """
        try:
            inner = faiss.read_index(str(directory / "index.faiss"))
            vectors = np.asarray(np.load(directory / "vectors.npy", mmap_mode="r"))
            alive = Eligible.of_mask(np.load(directory / "alive.npy"))
            about = json.loads((directory / "index.json").read_text(encoding="utf-8"))
            settings = FaissSettings.model_validate(about["settings"])
            ids, recall, breadth = about["ids"], float(about["recall"]), int(about["breadth"])
            sizes = {inner.ntotal, len(vectors), len(ids), alive.n_items}
        except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{directory}: not a readable index ({error})", hint="train again") from None
        if len(sizes) > 1 or vectors.shape[1:] != (inner.d,):
            raise BundleError(f"{directory}: not a readable index (its files differ in size)", hint="train again")
        return cls(vectors, ids, settings, recall, breadth, inner, alive)

    def _codes(self) -> dict[ExternalId, int]:
        """Return the codes of the items that are there; made at the first change, for most indexes never see one."""
        if self._code_by_id is None:
            self._code_by_id = {self.ids[code]: code for code in self._alive.item_codes().tolist()}
        return self._code_by_id

    def _append(self, vectors: FloatArray) -> None:
        first = self._index.ntotal
        if self._room is None:
            self.vectors = np.concatenate([self.vectors, vectors])
        elif first + len(vectors) > len(self._room):
            raise DataError(f"there is no room for {len(vectors)} items more", hint="load the model again")
        else:
            for place, vector in enumerate(vectors):
                self._room.put(first + place, vector)
        self._index.add(vectors)

    def _allowed(self, eligible: Eligible | None) -> Eligible:
        if eligible is None:
            return self._alive
        if eligible.n_items != len(self.rows):
            raise DataError(f"a set over {eligible.n_items} items, an index of {len(self.rows)}")
        n = self._index.ntotal
        is_alive = self._alive.count() == n and eligible.codes is None and eligible.is_below(n)
        return eligible if is_alive else eligible.intersection(self._alive)

    def _scan(self, queries: FloatArray, k: int, codes: IntArray) -> tuple[FloatArray, IntArray]:
        """Return the best k of these ascending codes, exactly."""
        similarity = queries @ self.rows[codes].T  # (q, n_codes)
        best = top_k(similarity, k)
        return np.take_along_axis(similarity, best, axis=1), codes[best]

    def _search_wide(
        self, queries: FloatArray, k: int, allowed: Eligible, n_allowed: int
    ) -> tuple[FloatArray, IntArray]:
        """Return what FAISS finds inside the set, -1 where it found too little or Flat cut through equal items."""
        share = n_allowed / self._index.ntotal
        selector = None if n_allowed == self._index.ntotal else faiss.IDSelectorBitmap(allowed.bits)
        parameters = self._parameters(breadth=int(np.ceil(self.breadth / share**0.6)), k=k, selector=selector)
        # Of equal items FAISS does not keep those with the lowest codes; one place more shows where it had to choose.
        n_places = k + 1 if self.settings.index_type == "Flat" and k < n_allowed else k
        scores, found = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), n_places, params=parameters)
        if n_places > k:
            found[scores[:, k] == scores[:, k - 1]] = -1
        return self._scored(queries, found[:, :k])

    def _scored(self, queries: FloatArray, found: LongArray) -> tuple[FloatArray, IntArray]:
        """Return exact scores of (q, k) codes, -inf for -1, and the codes, best first: FAISS keeps rounded vectors."""
        codes = np.sort(found, axis=1).astype(np.int32)
        scores = np.full(codes.shape, -np.inf, dtype=np.float32)
        for row, first in enumerate((codes < 0).sum(axis=1).tolist()):
            scores[row, first:] = inner_products(self.rows, codes[row, first:], queries[row])
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(codes, order, axis=1)

    def _parameters(self, *, breadth: int, k: int, selector: faiss.IDSelector | None) -> faiss.SearchParameters:
        chosen = {} if selector is None else {"sel": selector}
        if self.settings.index_type == "IVF":
            return faiss.SearchParametersIVF(nprobe=min(breadth, self._index.nlist), **chosen)
        if self.settings.index_type == "HNSW":
            return faiss.SearchParametersHNSW(efSearch=max(breadth, k), **chosen)
        return faiss.SearchParameters(**chosen)

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
        widest = self._index.nlist if self.settings.index_type == "IVF" else len(self.vectors)
        self.breadth, self.recall = 0, 0.0
        narrowest = 1 if self.settings.index_type == "IVF" else k
        while self.recall < self.settings.recall_floor and self.breadth < widest:
            self.breadth = min(max(narrowest, 2 * self.breadth), widest)
            parameters = self._parameters(breadth=self.breadth, k=k, selector=None)
            scores, found = self._scored(queries, self._index.search(queries, k, params=parameters)[1])
            self.recall = float(np.mean((found >= 0) & (scores >= enough)))
        if self.recall < self.settings.recall_floor:
            floor = self.settings.recall_floor
            logger.warning("recall@100 %.3f is below the floor of %.3f at any breadth; use IVF", self.recall, floor)


def _build_faiss(vectors: FloatArray, settings: FaissSettings, seed: int) -> faiss.Index:
    n, dim = vectors.shape
    if settings.index_type == "IVF":
        n_cells = max(1, min(settings.nlist, n // POINTS_A_CELL))
        if np.abs(vectors).max() > LARGEST_HALF:
            raise DataError(
                f"a vector holds a number beyond {LARGEST_HALF:,}", hint="use faiss.index_type: HNSW or Flat"
            )
        half = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(dim), dim, n_cells, half, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = False
        index.cp.seed = seed + 1
        index.cp.min_points_per_centroid = 1
        index.train(vectors)
    elif settings.index_type == "HNSW":
        index = faiss.IndexHNSWFlat(dim, HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_CONSTRUCTION
    else:
        index = faiss.IndexFlatIP(dim)
    index.add(vectors)
    return index


def _mask(items: Eligible) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.unpackbits(items.bits, count=items.n_items, bitorder="little").astype(np.bool_)


def _checked(vectors: FloatArray, dim: int | None = None) -> FloatArray:
    if vectors.ndim != 2 or vectors.size == 0 or (dim is not None and vectors.shape[1] != dim):
        raise DataError(f"vectors of shape {vectors.shape}, wanted (n >= 1, {dim or 'dim >= 1'})")
    if not np.isfinite(vectors).all():
        raise DataError("a vector holds nan or infinity", hint="see whether training diverged")
    return np.ascontiguousarray(vectors, dtype=np.float32)
