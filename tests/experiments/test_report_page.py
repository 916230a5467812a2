"""The report of an experiment: one page that stands by itself, with what was known when."""

import re
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from clocks import Clock

from rec_engine.errors import DataError
from rec_engine.evaluation.ab_testing import ABTestManager
from rec_engine.experiments.effect_plot import Point, effect_plot
from rec_engine.experiments.user_segments import MAX_DISTINCT, segments_of

DAY = 86_400
N_USERS = 600


@pytest.fixture(scope="module")
def manager() -> ABTestManager:
    """Three days, 200 new users a day; of the treatment twice as many buy. One planned look a day."""
    clock = Clock()
    manager = ABTestManager(clock=clock)
    manager.create_experiment(
        "exp",
        "A <b>bold</b> name & more",
        target_metrics=["conversion_rate", "ctr"],
        planned_users=N_USERS,
        planned_looks=3,
        min_sample_size=50,
        min_days=0,
    )
    manager.start_experiment("exp")
    rng = np.random.default_rng(0)
    for day in range(3):
        clock.now += DAY - 10
        for user in range(200 * day, 200 * (day + 1)):
            arm = manager.record_impression("exp", user).arm
            manager.record_impression("exp", user)
            if rng.random() < (0.5 if arm == "treatment" else 0.25):
                manager.record_click("exp", user)
                manager.record_conversion("exp", user, revenue=1.0)
        clock.now += 10
        manager.analyze("exp")
    return manager


@pytest.fixture(scope="module")
def users() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": range(N_USERS),
            "country": ["de" if user % 3 else "<fr>" for user in range(N_USERS)],
            "number": range(N_USERS),
        }
    )


@pytest.fixture(scope="module")
def page(manager: ABTestManager, users: pl.DataFrame) -> str:
    return manager.report("exp", users)


class Tags(HTMLParser):
    """Checks that what is opened is closed, and in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_by_itself_and_escapes_what_people_wrote(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.seen.isdisjoint({"script", "link", "img", "iframe"})
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://", page)
    assert "A &lt;b&gt;bold&lt;/b&gt; name &amp; more" in page
    assert "country: &lt;fr&gt;" in page


def test_the_page_says_what_the_analysis_says(page: str, manager: ABTestManager) -> None:
    found = manager.analyze("exp")
    assert found.recommendation.action in page
    comparison = found.find("ctr", "treatment")
    assert comparison.relative is not None
    assert f"{100 * comparison.relative:+.3g}%" in page
    assert comparison.naive_p_value is not None
    for said in ("why not z", "Sample ratio: ok", "Exploratory", "country: de", "probability to be best"):
        assert said in page
    assert "number: " not in page


def test_looks_and_days_are_drawn(page: str, manager: ABTestManager) -> None:
    assert len(manager.get_timeseries("exp")) == 3
    (plot,) = re.findall(r"<svg.*?</svg>", page)
    drawn = re.findall(r'<circle class="(\w+)"', plot)
    assert (drawn.count("look"), drawn.count("day")) == (3, 3)
    assert len(manager.get_timeseries("exp")) == 3  # to draw days takes no look


def test_an_experiment_that_has_not_begun_has_a_page(manager: ABTestManager) -> None:
    manager.create_experiment("draft", "Draft")
    page = manager.report("draft")
    assert "There is no effect to show yet" in page
    assert "No attributes of users were given" in page


def test_a_plot_stays_within_its_frame_and_needs_no_bounds() -> None:
    points = [
        Point(2 * DAY, 0.1, (None, 0.5), (0.0, None), is_look=True),
        Point(DAY, -0.2, (-1e9, 1e9), (-50.0, 80.0), is_look=False),
        Point(3 * DAY, 0.05, None, None, is_look=False),
    ]
    plot = effect_plot(points, "label")
    assert all(0 <= float(x) <= 720 for x in re.findall(r' c?x[12]?="([^"]*)"', plot))
    assert all(0 <= float(y) <= 260 for y in re.findall(r' c?y[12]?="([^"]*)"', plot))
    assert re.findall(r'<circle class="(\w+)"', plot) == ["day", "look", "day"]
    assert effect_plot([], "label") == ""
    assert "nan" not in effect_plot([Point(5, 0.0, None, None, is_look=False)], "label")


def test_attributes_with_few_values_are_segments(users: pl.DataFrame) -> None:
    wide = users.with_columns(tags=pl.lit([["a"]]), age=pl.when(pl.col("user_id") > 5).then(pl.col("user_id") % 7))
    found = dict(segments_of(wide))
    assert set(found) == {"country", "age"}
    assert MAX_DISTINCT < N_USERS
    assert found["age"].filter(pl.col("user_id") == "6")["value"].to_list() == ["6"]
    assert len(found["age"]) == N_USERS - 6


def test_attributes_without_users_are_refused(users: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="user_id"):
        segments_of(users.drop("user_id"))
    with pytest.raises(DataError, match="two rows"):
        segments_of(pl.concat([users, users]))


def test_segments_are_those_of_the_users_measured(manager: ABTestManager, users: pl.DataFrame) -> None:
    found = manager.analyze_experiment("exp", users=users.filter(pl.col("user_id") % 2 == 0))["segments"]
    n_users = {each["value"]: each["users"] for each in found if each["metric"] == "conversion_rate"}
    assert n_users == {"unknown": 300, "de": 200, "<fr>": 100}
