"""What teaches the re-ranker: answers where the log tells of them, else requests."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest
from conftest import tiny_config

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.data.showing_log import load_showings
from rec_engine.errors import TrainingError
from rec_engine.pipeline import ranking, teaching
from rec_engine.pipeline.evaluate import TrainedModel
from rec_engine.pipeline.teaching import teach_ranker


@dataclass(frozen=True, slots=True)
class Teachers:
    """Who was asked to teach, and by which rows."""

    requests: Mock
    answers: Mock
    rows: Mock


@pytest.fixture
def asked() -> Iterator[Teachers]:
    with (
        patch.object(teaching, "fit_ranker", wraps=ranking.fit_ranker) as requests,
        patch.object(teaching, "fit_to_clicks", wraps=ranking.fit_to_clicks) as answers,
        patch.object(ranking, "ranker_rows", wraps=ranking.ranker_rows) as rows,
    ):
        yield Teachers(requests, answers, rows)


def written(directory: Path, bundle: ModelBundle, *, names_requests: bool) -> str:
    """Return where a log is that showed each user what he took, three others beside it, three times."""
    store = EventStore(f"sqlite:///{directory / 'events.db'}")
    rng, taken = np.random.default_rng(0), bundle.split.validation
    for row in range(len(taken)):
        user, item, moment = int(taken.user_codes[row]), int(taken.item_codes[row]), int(taken.timestamps[row])
        for again in range(3):
            name, user_id = f"r{row}-{again}", str(bundle.user_ids[user])
            slate = rng.permutation([item, *rng.choice(np.delete(np.arange(40), item), 3, replace=False)])
            ids = [bundle.item_ids[code] for code in slate.tolist()]
            shown = json.dumps([[each, 0.0, 1.0, place] for place, each in enumerate(ids, start=1)])
            store.write([Impression(name, user_id, moment, "v", shown, 0)])
            request_id = name if names_requests else None
            store.write(
                [Event(f"e{name}", user_id, str(bundle.item_ids[item]), "click", moment, request_id=request_id)]
            )
    store.close()
    return store.url


def teach(bundle: ModelBundle, dataset: RecommendationDataset, url: str) -> None:
    split = bundle.split
    since = int(split.validation.timestamps.min())
    told = replace(split, shown=load_showings(url, dataset.user_ids, dataset.item_ids, since=since))
    unranked = replace(TrainedModel.of(bundle), ranker=None)
    teach_ranker(unranked, bundle.item_tower, dataset, tiny_config(), told, url)


def test_answers_teach_where_their_clicks_name_them(
    tmp_path: Path, bundle: ModelBundle, dataset: RecommendationDataset, asked: Teachers
) -> None:
    teach(bundle, dataset, written(tmp_path, bundle, names_requests=True))
    shown, new = asked.answers.call_args.args[3]
    assert [shown.name, new.name] == ["answers that were shown", "items that have just come"]
    assert not asked.requests.called


def test_requests_teach_by_what_was_shown_where_clicks_name_no_answer(
    tmp_path: Path, bundle: ModelBundle, dataset: RecommendationDataset, asked: Teachers
) -> None:
    teach(bundle, dataset, written(tmp_path, bundle, names_requests=False))
    assert asked.requests.called
    assert not asked.answers.called
    assert any(call.args[3:] and call.args[3] is not None for call in asked.rows.call_args_list)


def test_requests_teach_where_answers_are_not_enough(
    tmp_path: Path, bundle: ModelBundle, dataset: RecommendationDataset, asked: Teachers
) -> None:
    asked.answers.side_effect = TrainingError("too few users", hint="")
    teach(bundle, dataset, written(tmp_path, bundle, names_requests=True))
    assert asked.answers.called
    assert asked.requests.call_args.args[3][-1].name == "answers that were shown"
