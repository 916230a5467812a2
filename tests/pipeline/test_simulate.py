"""Files of a simulated world, and the page that shows it beside the real one."""

from pathlib import Path

import polars as pl
import pytest

from rec_engine.data.data_loader import load_custom
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.pipeline.fit_report import write_fit_report
from rec_engine.pipeline.simulate import demo_world, world_like, write_simulation


def test_files_are_training_data_and_hold_the_truth(tmp_path: Path) -> None:
    found = demo_world(0, 100, 60, 2_000).past()
    paths = {path.stem: path for path in write_simulation(found, tmp_path / "new" / "folder")}
    dataset = load_custom(paths["interactions"], paths["items"], paths["users"])
    assert len(dataset.interactions) == found.interactions.height > 500
    assert pl.read_parquet(paths["impressions"]).equals(found.impressions)
    people, things = pl.read_parquet(paths["truth_users"]), pl.read_parquet(paths["truth_items"])
    assert (people.height, things.height) == (100, 60)
    assert people["is_bot"].to_list() == found.truth.is_bot.tolist()
    assert things["vector"].list.len().unique().to_list() == [16]


@pytest.mark.parametrize("policy", ["random", "popularity", "oracle"])
def test_policies_decide_what_is_shown(policy: str) -> None:
    by_policy, organic = (
        demo_world(0, 60, 60, 1_000).past(name).impressions  # type: ignore[arg-type]
        for name in (policy, "organic")
    )
    assert by_policy.height > 100
    assert not by_policy["item_id"].head(100).equals(organic["item_id"].head(100))


def test_a_fitted_world_has_a_page_beside_the_real_one(dataset: RecommendationDataset, tmp_path: Path) -> None:
    simulation = world_like(dataset, seed=0)
    match = simulation.match(simulation.past())
    assert match is not None
    write_fit_report(match, "tea & rum", tmp_path / "fit.html")
    page = (tmp_path / "fit.html").read_text(encoding="utf-8")
    assert "tea &amp; rum" in page
    assert page.count("<svg") == len([of for of in match.likenesses if len(of.real) and len(of.simulated)]) >= 4
    assert all(of.name in page for of in match.likenesses[:4])


def test_people_remember_the_past_that_the_service_knows(dataset: RecommendationDataset) -> None:
    simulation = world_like(dataset, seed=0)
    past, simulator = dataset.interactions, simulation.simulator
    user = past.user_codes[:1].astype("int64")
    met = past.items_of(int(user[0]))
    now = past.timestamps[:1]
    before = simulator.best_pages(user, now, k=dataset.n_items)[0]
    simulation.remember()
    after = simulator.best_pages(user, now, k=dataset.n_items)[0]
    assert set(before.tolist()) - set(after.tolist()) == set(met.tolist())
