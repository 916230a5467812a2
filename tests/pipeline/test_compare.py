"""Models of different data beside each other, by what none of them has learned from."""

from pathlib import Path

import polars as pl
import pytest
from conftest import interactions_frame, items_frame, tiny_config

from rec_engine.bundle import find_bundle, open_bundle
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.errors import DataError
from rec_engine.evaluation.statistics import paired_bootstrap
from rec_engine.pipeline.compare import report_on
from rec_engine.pipeline.gate import GateLimits, judge
from rec_engine.pipeline.train import train

PATIENT = GateLimits(max_p99_ms=10_000, max_slowdown=10_000, n_timed_users=3)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that knows the log without its last five days."""
    frame, directory = interactions_frame(), tmp_path_factory.mktemp("earlier")
    end = int(frame["timestamp"].to_numpy().max())
    dataset = RecommendationDataset(frame.filter(pl.col("timestamp") < end - 5 * 86_400), None, items_frame())
    train(dataset, tiny_config(training={"num_epochs": 1}, ctr={"model_type": "none"}), directory, name="earlier")
    return find_bundle(directory)


def test_versions_of_other_data_are_compared_as_the_gate_compares_them(model_dir: Path, earlier: Path) -> None:
    (now, before), title = report_on([("now", model_dir), ("before", earlier)], None, [10])
    assert (now.name, before.name) == ("now: two-tower + re-ranking", "before: two-tower")
    first, other = open_bundle(model_dir), open_bundle(earlier)
    assert first.manifest.dataset_fingerprint != other.manifest.dataset_fingerprint
    found = judge(first, other, PATIENT).comparison
    assert found is not None
    assert found.difference == paired_bootstrap(now.per_user["ndcg@10"], before.per_user["ndcg@10"]).absolute
    assert f"{found.n_users} users" in title
    assert (f"without {found.n_learned} held-out" in title) == (found.n_learned > 0)


def test_of_three_only_what_none_has_learned_from_counts(model_dir: Path, second: Path, earlier: Path) -> None:
    found, _ = report_on([("now", model_dir), ("second", second), ("before", earlier)], None, [10])
    assert len({each.user_codes.tobytes() for each in found}) == 1
    assert len(found) == 3


def test_who_has_learned_from_all_that_is_held_out_cannot_be_compared(model_dir: Path, earlier: Path) -> None:
    with pytest.raises(DataError, match="have learned from all") as refused:
        report_on([("before", earlier), ("now", model_dir)], None, [10])
    assert "longest log first" in refused.value.hint
