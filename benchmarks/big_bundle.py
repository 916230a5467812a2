"""A sealed bundle of any size for load tests: every file that a version has, made in minutes instead of trained.

    python benchmarks/big_bundle.py DIRECTORY [--items 1000000] [--users 100000] [--seed 0]

The items are clusters on the sphere, their popularity is Zipf's, each user clicks in a few clusters. The towers are
untrained: the item embeddings are the simulated vectors, and the encoder stays near the latest item. Index, links,
history and manifest are those of a real version; the trees are fitted on features that the request path computed, to
the size that the goals assume. So it says how fast a service is, and nothing of how good one is.

What is there already with the same arguments is left alone.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse

from rec_engine.bundle import FORMAT_VERSION, find_bundle, new_version, new_version_name, open_bundle, seal
from rec_engine.data.dataset import FloatArray, IntArray, LongArray, RecommendationDataset
from rec_engine.data.splits import leave_one_out
from rec_engine.errors import BundleError
from rec_engine.evaluation.evaluator import validation_task
from rec_engine.models.attributes import attribute_matrix
from rec_engine.models.export import item_arrays
from rec_engine.models.features import FEATURES
from rec_engine.models.lightgbm_ranker import CTRRanker
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.pipeline.evaluate import TrainedModel
from rec_engine.pipeline.publish import ITEM_TOWER, USER_TOWER, new_manifest, seal_version, write_data, write_model
from rec_engine.pipeline.ranking import ranker_rows, with_few_negatives
from rec_engine.pipeline.towers import ItemEncoding, finish_item_tower
from rec_engine.pipeline.train import export_tower
from rec_engine.registry import ModelRegistry
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.links import LINK_NAMES, Links
from rec_engine.serving.inference import RecommendationInference
from rec_engine.utils.config import ModelConfig, RecommendationSettings
from rec_engine.utils.logger import configure_logging

DIM = 64
ITEMS_A_CENTRE, MAX_CENTRES = 200, 5_000
SPREAD = 0.7
"""Length of an item's step away from its centre, that of the centre being 1."""
HEAD = 10
"""Popularity is 1 / (rank + HEAD): the first item gets a percent of the clicks, not a tenth."""
FIRST_ITEM_ID, FIRST_USER_ID = 10_000_000, 1

N_CATEGORIES, CATEGORY_EXPONENT = 200, 1.7
"""Shares fall as 1 / (place + 1) ** 1.7: from 30% of the items to 0.01%."""
OF_ITS_CLUSTER, WITH_A_SECOND = 0.7, 0.3

CLICKS_OF_A_USER, CLICKS_DEVIATION, MIN_CLICKS, MAX_CLICKS = 30, 0.9, 3, 1_000
FAVOURITES, IN_FAVOURITES = 4, 0.8
END, N_DAYS = 1_767_225_600, 180  # 1 January 2026
EVENT_SHARES = {"click": 0.94, "purchase": 0.05, "dislike": 0.01}

POPULAR_SHARE, LINKS_OF_POPULAR, LINKS_OF_OTHERS = 0.05, 400, 30
"""A history holds mostly popular items, and these have as many links as are kept; the mean stays near 50."""
ROWS_A_CHUNK = 100_000

N_REQUESTS, N_TREES, CHOOSING_SHARE = 2_000, 300, 0.2


@dataclass(frozen=True, slots=True)
class Size:
    """What was asked for."""

    n_items: int
    n_users: int
    seed: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The items of the simulated world.

    Attributes:
        vectors: (n_items, DIM) float32, L2-normalised.
        clusters: (n_items,) int32.
        popularity: (n_items,) float64, summing to 1.
        order: (n_items,) int64 codes, cluster by cluster, popular ones first.
    """

    vectors: FloatArray
    clusters: IntArray
    popularity: NDArray[np.float64]
    order: LongArray


def main() -> None:
    """Make the bundle, unless it is there."""
    configure_logging("WARNING")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_bundle(arguments.directory, Size(arguments.items, arguments.users, arguments.seed))


def make_bundle(model_dir: Path, size: Size) -> None:
    """Write a bundle of this size as the current version below `model_dir`; nothing if it is there already."""
    made_of = asdict(size) | {"format_version": FORMAT_VERSION, "features": list(FEATURES)}
    record = model_dir / "big_bundle.json"
    if _is_there(model_dir, record, made_of):
        print(f"{find_bundle(model_dir)} is there already")
        return
    rng = np.random.default_rng(size.seed)
    with _stage("world"):
        catalogue = draw_catalogue(size.n_items, rng)
        items, users = items_table(catalogue, rng), users_table(size.n_users, rng)
        clicks = draw_clicks(catalogue, size.n_users, rng)
    with _stage("dataset and split"):
        dataset = RecommendationDataset(clicks, users, items)
        split = leave_one_out(dataset.interactions)
    with _stage("links"):
        links = {name: draw_links(catalogue, rng) for name in LINK_NAMES}
    config, now = settings(size), datetime.now(UTC)
    name = new_version_name(dataset.fingerprint, now)
    with new_version(model_dir, name) as directory, TemporaryDirectory() as work:
        with _stage("towers and index"):
            model = untrained_towers(Path(work), catalogue, dataset, config)
        with _stage("files"):
            write_model(directory, model, Path(work))
            write_data(directory, dataset, split, links)
            manifest = new_manifest(
                dataset,
                name=f"simulated, {dataset.n_items:,} items",
                version_name=name,
                created_at=now,
                split=split.name,
                ease_regularisation=model.ease_regularisation,
                metrics={},
            )
            seal_version(directory, config, manifest)
        with _stage("ranker"):
            add_ranker(directory)
    ModelRegistry(model_dir).promote(name, reason="made for a benchmark")
    record.write_text(json.dumps(made_of), encoding="utf-8")
    _print_account(model_dir / name)


def settings(size: Size) -> ModelConfig:
    """Return the settings of the version: 64 dimensions all through, about 4 sqrt(n) cells, one objective."""
    n_cells = 2 ** round(float(np.log2(4 * np.sqrt(size.n_items))))
    return ModelConfig.model_validate(
        {
            "model": {"embedding_dim": DIM, "tower_dims": [DIM]},
            "text": {"encoder": "none"},
            "training": {"seed": size.seed},
            "faiss": {"index_type": "IVF", "nlist": n_cells},
            "ctr": {"objective": "binary"},
        }
    )


def draw_catalogue(n_items: int, rng: np.random.Generator) -> Catalogue:
    """Return items in clusters of different sizes; who is popular has nothing to do with the cluster."""
    n_centres = min(MAX_CENTRES, max(1, n_items // ITEMS_A_CENTRE))
    centres = rng.standard_normal((n_centres, DIM), dtype=np.float32)
    weights = rng.gamma(2.0, size=n_centres)
    clusters = rng.choice(n_centres, n_items, p=weights / weights.sum()).astype(np.int32)
    vectors = centres[clusters] + SPREAD * rng.standard_normal((n_items, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    popularity = 1 / (rng.permutation(n_items) + HEAD)
    return Catalogue(vectors, clusters, popularity / popularity.sum(), np.lexsort((-popularity, clusters)))


def items_table(catalogue: Catalogue, rng: np.random.Generator) -> pl.DataFrame:
    """Return ids, titles, categories and prices."""
    n_items = len(catalogue.vectors)
    shares = 1 / np.arange(2, N_CATEGORIES + 2) ** CATEGORY_EXPONENT
    draws = rng.choice(N_CATEGORIES, (3, n_items), p=shares / shares.sum())
    of_cluster = rng.choice(N_CATEGORIES, MAX_CENTRES, p=shares / shares.sum())[catalogue.clusters]
    first = np.where(rng.random(n_items) < OF_ITS_CLUSTER, of_cluster, draws[0])
    second = np.where(rng.random(n_items) < WITH_A_SECOND, draws[1], first)
    table = pl.DataFrame(
        {"number": np.arange(n_items), "cluster": catalogue.clusters, "first": first, "second": second}
    )
    return table.select(
        item_id=pl.col("number") + FIRST_ITEM_ID,
        title=pl.format("Item {} of the collection {}", "number", "cluster"),
        categories=pl.concat_list(pl.format("Category {}", "first"), pl.format("Category {}", "second")),
        price=pl.Series(np.exp(rng.normal(3.0, 1.0, n_items)).round(2)),
    )


def users_table(n_users: int, rng: np.random.Generator) -> pl.DataFrame:
    """Return ids and two attributes."""
    countries, ages = np.array(["de", "fr", "it", "pl"]), np.array(["18-29", "30-49", "50-69", "70+"])
    return pl.DataFrame(
        {
            "user_id": np.arange(n_users) + FIRST_USER_ID,
            "country": rng.choice(countries, n_users),
            "age_group": rng.choice(ages, n_users),
        }
    )


def draw_clicks(catalogue: Catalogue, n_users: int, rng: np.random.Generator) -> pl.DataFrame:
    """Return interactions: four in five of a user's lie in his favourite clusters, and popularity decides there."""
    n_of_user = rng.lognormal(np.log(CLICKS_OF_A_USER), CLICKS_DEVIATION, n_users).astype(np.int64)
    users = np.repeat(np.arange(n_users), n_of_user.clip(MIN_CLICKS, MAX_CLICKS))
    n = len(users)
    mass = np.concatenate([[0.0], np.cumsum(catalogue.popularity[catalogue.order])])
    starts = np.searchsorted(catalogue.clusters[catalogue.order], np.arange(catalogue.clusters.max() + 2))
    begin, end = mass[starts[:-1]], mass[starts[1:]]
    favourites = np.searchsorted(end, rng.random((n_users, FAVOURITES)) * end[-1])
    clusters = favourites[users, rng.integers(FAVOURITES, size=n)]
    is_inside = rng.random(n) < IN_FAVOURITES
    low, high = np.where(is_inside, begin[clusters], 0.0), np.where(is_inside, end[clusters], end[-1])
    places = np.searchsorted(mass[1:-1], low + rng.random(n) * (high - low), side="right")
    events = rng.choice(len(EVENT_SHARES), n, p=list(EVENT_SHARES.values()))
    return pl.DataFrame(
        {
            "user_id": users + FIRST_USER_ID,
            "item_id": catalogue.order[places] + FIRST_ITEM_ID,
            "timestamp": END - rng.integers(1, N_DAYS * 86_400, n),
            "event": pl.Series(events).replace_strict(range(len(EVENT_SHARES)), list(EVENT_SHARES)),
        }
    )


def draw_links(catalogue: Catalogue, rng: np.random.Generator) -> Links:
    """Return links to items that are near in the order of clusters, stronger to popular ones; rows made in chunks."""
    n_items = len(catalogue.order)
    is_popular = catalogue.popularity >= np.quantile(catalogue.popularity, 1 - POPULAR_SHARE)
    lengths = np.where(is_popular, LINKS_OF_POPULAR, LINKS_OF_OTHERS).clip(max=(n_items - 1) // 2)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)  # scipy widens the columns to the type of these
    places = np.empty(n_items, dtype=np.int64)
    places[catalogue.order] = np.arange(n_items)
    indices = np.empty(starts[-1], dtype=np.int32)
    for length in np.unique(lengths).tolist():
        steps = np.concatenate([np.arange(-length, 0), np.arange(1, length + 1)])
        chosen = rng.choice(steps, length, replace=False)
        rows = np.flatnonzero(lengths == length)
        for chunk in np.array_split(rows, len(rows) // ROWS_A_CHUNK + 1):
            linked = catalogue.order[(places[chunk][:, None] + chosen) % n_items]
            indices[starts[chunk][:, None] + np.arange(length)] = np.sort(linked, axis=1)
    strengths = np.sqrt(catalogue.popularity).astype(np.float32)[indices] * rng.random(len(indices), dtype=np.float32)
    return Links(sparse.csr_array((strengths / strengths.max(), indices, starts), shape=(n_items, n_items)))


def untrained_towers(
    directory: Path, catalogue: Catalogue, dataset: RecommendationDataset, config: ModelConfig
) -> TrainedModel:
    """Export untrained towers whose item embeddings are the simulated vectors, and index what they make."""
    torch.manual_seed(config.training.seed)
    features = torch.from_numpy(attribute_matrix(dataset.users))
    model = TwoTowerModel(dataset.n_users, dataset.n_items, user_features=features, **config.model.model_dump())
    model.item_embedding.weight.data = torch.from_numpy(catalogue.vectors)
    item_inputs, item_vectors = item_arrays(model)
    tower = export_tower(model, item_inputs, directory / USER_TOWER)
    # Towers that know items by their ids alone: what comes later has nothing to be known by.
    nameless = dataset.items.select("item_id", "title", "description").with_columns(
        categories=pl.lit(None, dtype=pl.List(pl.String))
    )
    ItemEncoding.fit(nameless, config.text).save(directory / ITEM_TOWER)
    finish_item_tower(model, directory / ITEM_TOWER)
    index = FAISSIndex.build(item_vectors, config.faiss, ids=dataset.item_ids.ids.to_list(), seed=config.training.seed)
    return TrainedModel(tower, index, dataset.items["categories"], ease_regularisation=0.0, repeats=False)


def add_ranker(directory: Path) -> None:
    """Fit trees on what the bundle's own request path computes, N_TREES of them whatever early stopping says."""
    bundle = open_bundle(directory)
    inference = RecommendationInference.of(bundle, RecommendationSettings())
    task, seed = validation_task(bundle.split), bundle.config.training.seed
    users = np.random.default_rng(seed).permutation(np.unique(task.targets.user_codes))[:N_REQUESTS]
    # In the order of time: what was popular lately is counted once a day.
    is_choosing = np.arange(len(users)) < len(users) * CHOOSING_SHARE
    by_time = np.argsort(task.request_times()[users], kind="stable")
    choosing, learning = users[by_time[is_choosing[by_time]]], users[by_time[~is_choosing[by_time]]]
    rows = with_few_negatives(ranker_rows(inference, task, learning), seed)
    ranker = CTRRanker.fit(rows, ranker_rows(inference, task, choosing), bundle.config.ctr, seed=seed)
    ranker.booster.best_iteration = N_TREES
    ranker.refit(rows, bundle.config.ctr, seed=seed).save(directory / "ranker.txt")
    seal(directory, bundle.manifest)


def _is_there(model_dir: Path, record: Path, made_of: dict[str, object]) -> bool:
    try:
        find_bundle(model_dir)
        return bool(json.loads(record.read_text(encoding="utf-8")) == made_of)
    except (OSError, BundleError):
        return False


def _print_account(directory: Path) -> None:
    bundle = open_bundle(directory)
    past, n_items, booster = bundle.history, len(bundle.item_ids), CTRRanker.load(directory / "ranker.txt").booster
    met = np.bincount(past.item_codes, minlength=n_items)
    sizes = bundle.items["categories"].explode().value_counts()["count"].sort(descending=True) / n_items
    n_leaves = booster.trees_to_dataframe()["split_feature"].isna().sum() / booster.num_trees()
    lengths = np.diff(bundle.links[LINK_NAMES[0]].strengths.indptr)
    mebibytes = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 2**20
    print(f"{directory}: {mebibytes:,.0f} MiB")
    print(f"{len(past):,} interactions of {past.n_users:,} users, {np.diff(past.starts).mean():.0f} a user")
    print(f"{n_items:,} items, {(met > 0).mean():.0%} of them met, {(met < 5).mean():.0%} fewer than 5 times")
    print(f"{len(sizes)} categories of {sizes[-1]:.3%} to {sizes[0]:.1%} of the items")
    print(f"4 kinds of links, each {lengths.min()} to {lengths.max()} an item, {lengths.mean():.0f} on average")
    print(f"IVF: breadth {bundle.index.breadth}, recall@100 {bundle.index.recall:.3f}")
    print(f"{booster.num_trees()} trees of {n_leaves:.1f} leaves")
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB were in use")


@contextmanager
def _stage(name: str) -> Iterator[None]:
    """Print how long the block took."""
    started = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
