"""Plots of the quality report: SVG text that stands in the page by itself, the same bytes for the same figures."""

import io
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rec_engine.data.dataset import LongArray
from rec_engine.evaluation.metrics import DoubleArray
from rec_engine.evaluation.statistics import Estimate

OURS, OTHERS, SECOND = "#0b6e4f", "#9aa5b1", "#d97706"
WIDTH = 7.2
ROW_HEIGHT = 0.34
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a category may cost $5
    "svg.hashsalt": "rec-engine",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#52606d",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
}


def bars(values: Mapping[str, Estimate | float], label: str, *, ours: Sequence[str] = (), percent: bool = False) -> str:
    """Return horizontal bars, the first on top, with intervals where there are any; those of `ours` stand out."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(0.9 + ROW_HEIGHT * len(values))
        means = [value.mean if isinstance(value, Estimate) else value for value in values.values()]
        places = np.arange(len(values))
        axes.barh(places, means, color=[OURS if name in ours else OTHERS for name in values], height=0.66)
        for place, value in enumerate(values.values()):
            if isinstance(value, Estimate):
                axes.plot([value.low, value.high], [place, place], color="#1f2933", linewidth=1.2)
            end = value.high if isinstance(value, Estimate) and np.isfinite(value.high) else means[place]
            text = f" {means[place]:.1%}" if percent else f" {means[place]:.4f}"
            axes.annotate(text, (end, place), va="center", fontsize=8)
        axes.set_yticks(places, list(values))
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.14)
        if percent:
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        return _svg(figure)


def intervals(values: Mapping[str, Mapping[str, Estimate]], label: str, *, ours: Sequence[str]) -> str:
    """Return a row a name and in it a dot with its interval a model: {row: {model: estimate}}."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(1.2 + 0.42 * len(values))
        models = list(next(iter(values.values())))
        for number, model in enumerate(models):
            places = np.arange(len(values)) + (number - (len(models) - 1) / 2) * 0.2
            found = [row[model] for row in values.values()]
            colour = OURS if model == ours[-1] else SECOND if model in ours else OTHERS
            for place, estimate in zip(places, found, strict=True):
                axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.4)
            axes.plot([estimate.mean for estimate in found], places, "o", color=colour, markersize=4.5, label=model)
        axes.set_yticks(np.arange(len(values)), list(values))
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.5 / len(values)), ncols=len(models), frameon=False)
        return _svg(figure)


def curve(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str, *, diagonal: bool = False
) -> str:
    """Return lines of (x, y) by name; with `diagonal` the line on which both are equal is drawn too."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(2.9)
        colours = [OURS, SECOND, OTHERS]
        for number, (name, (x, y)) in enumerate(lines.items()):
            axes.plot(x, y, "o-", markersize=3.5, color=colours[number % len(colours)], label=name)
        if diagonal:
            end = max((max(x) for x, _ in lines.values()), default=1.0)
            axes.plot([0, end], [0, end], "--", color=OTHERS, linewidth=1)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(lines) > 1:
            axes.legend(frameon=False)
        return _svg(figure)


def learning_curve(losses: Sequence[float], validation: Sequence[float]) -> str:
    """Return loss and validation NDCG@10 by epoch, each with its own axis."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(2.9)
        epochs = np.arange(1, len(losses) + 1)
        axes.plot(epochs, losses, "o-", markersize=3, color=OTHERS)
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss", color="#52606d")
        right = axes.twinx()
        right.plot(epochs, validation, "o-", markersize=3, color=OURS)
        right.set_ylabel("validation NDCG@10", color=OURS)
        right.grid(visible=False)
        return _svg(figure)


def histogram(counts: LongArray, label: str) -> str:
    """Return how many users or items have how many interactions, on a logarithmic axis."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(2.6)
        top = max(int(counts.max(initial=1)), 2)
        edges = np.unique(np.geomspace(1, top + 1, 30).round())
        axes.hist(np.maximum(counts, 1), bins=edges.tolist(), color=OURS)
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("how many")
        return _svg(figure)


def over_time(moments: DoubleArray, label: str) -> str:
    """Return how many interactions there were by month or so; moments are years, such as 2001.4."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(2.4)
        axes.hist(moments, bins=60, color=OURS)
        axes.set_xlabel(label)
        axes.set_ylabel("interactions")
        axes.ticklabel_format(axis="x", useOffset=False)
        return _svg(figure)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    """Return the svg element, without prologue, title or date; ids are made unlike those of other plots."""
    stream = io.StringIO()
    with warnings.catch_warnings():
        # The browser has the letters that the font measured with here lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = "".join(letter for letter in stream.getvalue() if letter.isprintable() or letter in "\n\t")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Ids are unique within a plot only: a figure's own content tells it from the page's other figures.
    mark = f"p{zlib.crc32(text.encode()):08x}"
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', lambda found: found.group(1) + mark, text)
    return text.strip()
