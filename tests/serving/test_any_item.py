"""Whatever an item is called and has: once it is acknowledged, the service goes on, and starts again."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from conftest import N_ITEMS, service
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import EventStore, ItemChange
from rec_engine.retrieval.catalogue import Catalogue
from rec_engine.serving.live import LiveModel
from rec_engine.utils.config import RecommendationSettings, ServingConfig

CAPS = {"price": 3, "tags": 2, "sizes": 2}
COLUMNS = [
    pl.Series("tags", [["a", "b"]] * N_ITEMS),
    pl.Series("sizes", [[1, 2]] * N_ITEMS),
    pl.Series("about", [{"a": 1}] * N_ITEMS),
    pl.Series("released", [date(2024, 5, 1)] * N_ITEMS),
    pl.Series("sold", [True] * N_ITEMS),
    pl.Series("nothing", [None] * N_ITEMS),
]

texts = st.text(min_size=1, max_size=20)
odd_texts = st.sampled_from(
    ["--5", "-", "-0", "007", "٣", "²", "1e3", "null", "\ud800", "é", "é", "a b", "/", "%2F", "100", " 100", "9" * 40]
)
ids = odd_texts | texts | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 2**63, 0, -5, 101])
values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([5, 10**400, 2**53 + 1, 1e308, 5e-324, -0.0, "2026-05-01", "0001-01-01T00:00:00+14:00", "soon"])
    | st.floats(allow_nan=False, allow_infinity=False)
    | odd_texts
    | st.lists(texts | odd_texts, max_size=3)
)
names = st.sampled_from([*(column.name for column in COLUMNS), "price", "new", "\ud800"]) | texts
items = st.fixed_dictionaries(
    {"item_id": ids},
    optional={
        "title": odd_texts | st.text(max_size=30),
        "description": odd_texts,
        "categories": st.lists(st.sampled_from(["Even", "rare", "New"]) | odd_texts, max_size=3),
        "attributes": st.dictionaries(names, values, max_size=4),
        "hidden": st.booleans(),
    },
)


@pytest.fixture(scope="module")
def many_types(bundle: ModelBundle) -> ModelBundle:
    """The small world with attributes of many types."""
    return replace(bundle, items=bundle.items.with_columns(COLUMNS))


Kept = tuple[TestClient, Callable[[], LiveModel]]


@pytest.fixture(scope="module")
def kept(many_types: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A service, and what becomes of its log when another one starts."""
    store = EventStore(f"sqlite:///{tmp_path_factory.mktemp('log') / 'events.db'}")
    config = ServingConfig(recommendations=RecommendationSettings(caps=CAPS))
    with service(many_types, store, config=config) as client:
        yield client, lambda: LiveModel(many_types, config.recommendations, store)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(batch=st.lists(items, min_size=1, max_size=3), gone=ids)
def test_no_item_that_is_acknowledged_stops_the_service_or_its_restart(
    kept: Kept, batch: list[dict[str, Any]], gone: int | str
) -> None:
    client, restarted = kept
    status = client.post("/items", content=json.dumps({"items": batch})).status_code
    assert status in {200, 422}
    goes_on(client)
    again = restarted()
    assert again.n_left_out == 0
    if status == 200:
        for item in batch:
            view = again.catalogue.view(again.catalogue.code(item["item_id"]))
            assert str(view.item_id) == str(item["item_id"])
    path = quote(str(gone), safe="", errors="surrogatepass")
    # 405: a path in which an id has a slash is another route's.
    assert client.delete(f"/items/{path}").status_code in {204, 404, 405, 422}
    goes_on(client)


def test_a_log_of_values_that_fit_no_column_is_followed(many_types: ModelBundle, tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    odd: list[object] = [5, -5, 2**70, True, 1.5, "x", "2026-05-01", ["a"], []]
    changes = [
        ItemChange(f"{column.name} {place}", "visible", json.dumps({column.name: value}))
        for column in many_types.items
        for place, value in enumerate(odd)
    ]
    store.write(changes)
    live = LiveModel(many_types, RecommendationSettings(caps=CAPS), store)
    assert (live.n_left_out, live.catalogue.n_items) == (0, N_ITEMS + len(changes))
    store.close()


def test_an_item_whose_change_fails_is_hidden_and_the_others_are_followed(
    many_types: ModelBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    put = Catalogue.put

    def failing(catalogue: Catalogue, item_id: str, values: Mapping[str, object], *, is_visible: bool) -> int:
        if item_id in {"broken", "105"}:
            raise KeyError("nobody foresaw this")
        return put(catalogue, item_id, values, is_visible=is_visible)

    monkeypatch.setattr(Catalogue, "put", failing)
    monkeypatch.setattr(logging.getLogger("rec_engine"), "propagate", True)
    store.write([ItemChange(item_id, "visible", "{}") for item_id in ("a", "broken", "105", "b")])
    live = LiveModel(many_types, RecommendationSettings(), store)
    store.write([ItemChange("broken", "visible", "{}"), ItemChange("c", "visible", "{}"), ItemChange("d", "no", "[")])
    live.catch_up()
    known = [live.catalogue.code(item_id) for item_id in ("a", "b", "c")]
    assert known == [N_ITEMS, N_ITEMS + 1, N_ITEMS + 2]
    assert live.catalogue.visible.keeps(np.array([*known, live.catalogue.code("105")])).tolist() == [True] * 3 + [False]
    assert len(live.index.rows[known]) == 3
    assert live.n_left_out == 4
    assert "nobody foresaw this" in caplog.text
    store.close()


def goes_on(client: TestClient) -> None:
    answer = client.post("/recommend", json={"user_id": 1, "num_recommendations": 100})
    assert answer.status_code == 200, answer.text
    assert client.get("/model/status").json()["n_items_left_out"] == 0
