"""The report: a page that needs nothing else, the same figures for machines, a sentence that says what they mean."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rec_engine.bundle import ModelBundle, find_bundle
from rec_engine.evaluation.plots import bars, curve
from rec_engine.evaluation.report import Judgement, verdict
from rec_engine.evaluation.report_files import METRICS, REPORT
from rec_engine.evaluation.statistics import Estimate


def judged(name: str, ndcg: float, gain: Estimate | None = None) -> Judgement:
    own = {"ndcg@10": Estimate(ndcg, ndcg - 0.01, ndcg + 0.01)}
    return Judgement(name, own, {}, difference=gain, gain=gain, fit_seconds=0.0, seconds=0.0)


def said_of(models: list[Judgement], own: tuple[str, ...], *, is_tested: bool = True, n_met: int = 0) -> str:
    return verdict(models, own, is_tested=is_tested, n_unreachable_targets=n_met)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.02, 0.2, "earns its keep"), (-0.02, 0.2, "not settled"), (-0.3, -0.1, "does not earn its keep")],
)
def test_the_verdict_goes_by_the_interval_of_the_gain(low: float, high: float, said: str) -> None:
    models = [
        judged("popularity", 0.01, Estimate(9.0, 8.0, 10.0)),
        judged("EASE", 0.10, Estimate((low + high) / 2, low, high)),
        judged("towers", 0.05, Estimate(1.0, 0.9, 1.1)),
        judged("served", 0.11),
    ]
    text = said_of(models, ("towers", "served"))
    assert said in text
    assert "EASE" in text
    assert "The towers alone reach -50.0%" in text


def test_no_verdict_is_made_up_where_nothing_was_measured() -> None:
    nothing = Estimate(float("nan"), float("nan"), float("nan"))
    unmeasured = replace(judged("served", 0.1), metrics={"ndcg@10": nothing})
    models = [judged("EASE", 0.1, nothing), unmeasured]
    assert "enough interactions" in said_of(models, ("served",))
    assert "data.repeat_items" in said_of(models, ("served",), n_met=60)
    assert "cannot be told" in said_of([judged("EASE", 0.1, nothing), judged("served", 0.1)], ("served",))


def test_a_gain_over_nothing_is_a_gain_in_points() -> None:
    nothing = Estimate(float("nan"), float("nan"), float("nan"))
    useless = replace(judged("EASE", 0.0, nothing), difference=Estimate(0.2, 0.19, 0.21))
    text = said_of([useless, judged("served", 0.2)], ("served",))
    assert "earns its keep" in text
    assert "+0.2000 [+0.1900, +0.2100]" in text


def test_figures_of_what_choices_were_made_on_are_no_verdict() -> None:
    models = [judged("EASE", 0.1, Estimate(4.0, 3.0, 5.0)), judged("served", 0.5)]
    assert said_of(models, ("served",), is_tested=False).startswith("Nothing was kept for testing")


def test_the_page_stands_alone_and_every_plot_is_well_formed(model_dir: Path) -> None:
    page = (find_bundle(model_dir) / REPORT).read_text(encoding="utf-8")
    outside = re.findall(r'(?:src|href)="(?!#)([^"]*)"', page)
    assert outside == []
    assert "@import" not in page
    assert "<script" not in page
    drawn = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawn) >= 6
    ids: list[str] = []
    for text in drawn:
        root = ET.fromstring(text)  # noqa: S314 - our own page
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        used = {name.lstrip("#") for name in re.findall(r'(?:url\(|href=")(#[^)"]+)', text)}
        assert used <= set(own)
        ids += own
    assert len(ids) == len(set(ids))


def test_metrics_hold_what_the_manifest_says_and_nan_is_null(model_dir: Path, bundle: ModelBundle) -> None:
    text = (find_bundle(model_dir) / METRICS).read_text(encoding="utf-8")
    assert "NaN" not in text
    measured = json.loads(text)
    served = measured["models"][-1]
    assert served["gain"] is None
    for metric, value in bundle.metrics.items():
        assert served["metrics"][metric]["mean"] == pytest.approx(value)
    assert measured["split_fingerprint"] == bundle.split.fingerprint
    assert [model["name"] for model in measured["models"]][:2] == ["popularity", "recent popularity"]
    assert measured["verdict"] in (find_bundle(model_dir) / REPORT).read_text(encoding="utf-8")


def test_what_users_call_their_data_is_text_and_not_markup(model_dir: Path) -> None:
    hostile = bars(
        {"<script>alert(1)</script>": 0.5, "$10_a_b$": 0.2, "x$\\frac{$": 0.1, "bell\x07": 0.3, "映画": 0.4}, "a & b"
    )
    assert "<script>" not in hostile
    ET.fromstring(hostile)  # noqa: S314 - our own plot
    assert "$10_a_b$" in hostile
    assert "映画" in hostile


def test_the_same_figures_are_the_same_bytes() -> None:
    points = {"line": (np.linspace(0, 1, 5).tolist(), np.linspace(0, 0.5, 5).tolist())}
    assert curve(points, "x", "y", diagonal=True) == curve(points, "x", "y", diagonal=True)
