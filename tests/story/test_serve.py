"""A real server process, asked over a real socket."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import ask, served

from rec_engine.data.events import EventStore


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def address(request: pytest.FixtureRequest, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it answers; it is stopped as an operator would, by SIGTERM."""
    with served(model_dir, tmp_path_factory.mktemp("log") / "events.db", request.param) as (url, process):
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) in {0, -signal.SIGTERM}


def test_every_route_answers_over_the_wire(address: str) -> None:
    known = ask(f"{address}/recommend", {"user_id": 4, "num_recommendations": 5})
    unknown = ask(f"{address}/recommend", {"user_id": "nobody", "filter_categories": ["Rare"]})
    similar = ask(f"{address}/similar-items/104?num_items=3")
    assert len(known["recommendations"]) == 5  # type: ignore[arg-type]
    assert len(unknown["recommendations"]) == 3  # type: ignore[arg-type]
    assert len(similar["similar_items"]) == 3  # type: ignore[arg-type]
    assert ask(f"{address}/health") == {"status": "alive"}
    assert ask(f"{address}/model/status")["dataset"] == "small world"
    assert [level["level"] for level in ask(f"{address}/cache/stats")["levels"]] == ["memory"]  # type: ignore[attr-defined]
    assert "/recommend" in str(ask(f"{address}/openapi.json")["paths"])


def items_of(answer: dict[str, object]) -> list[int]:
    return [item["item_id"] for item in answer["recommendations"]]  # type: ignore[attr-defined]


def test_each_click_changes_the_next_answer_whichever_worker_gives_it(address: str) -> None:
    for _ in range(20):
        first = items_of(ask(f"{address}/recommend", {"user_id": "wanderer"}))[0]
        ask(f"{address}/feedback", {"user_id": "wanderer", "item_id": first, "action": "click"})
        assert first not in items_of(ask(f"{address}/recommend", {"user_id": "wanderer"}))


def test_what_was_acknowledged_survives_a_killed_service(model_dir: Path, tmp_path: Path) -> None:
    sent: list[str] = []
    for turn in range(2):
        with served(model_dir, tmp_path / "events.db", 2) as (url, process):
            for place in range(30):
                events = [
                    {"user_id": "ann", "item_id": 100 + n, "action": "click", "event_id": f"{turn}-{place}-{n}"}
                    for n in range(5)
                ]
                sent += ask(f"{url}/feedback/batch", {"events": events})["event_ids"]  # type: ignore[arg-type]
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    assert [event.event_id for event in store.events_of("ann")] == sent
    store.close()
