"""How like a dataset a simulated world is, as a page: one plot a distribution, both worlds in it."""

from html import escape
from pathlib import Path

import numpy as np

from rec_engine.data.simulated_fit import Likeness, Match
from rec_engine.evaluation.plots import curve

SHARES = np.linspace(0.01, 0.99, 50)
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1f2933}"
    "td,th{padding:.2rem 1rem .2rem 0;text-align:left}"
)


def write_fit_report(found: Match, name: str, path: Path) -> None:
    """Write a page about the match of a simulated world with the dataset of this name."""
    rows = "".join(
        f"<tr><td>{escape(likeness.name)}</td><td>{likeness.distance:.3f}</td>"
        f"<td>{np.median(likeness.real):,.0f}</td><td>{np.median(likeness.simulated):,.0f}</td></tr>"
        for likeness in found.likenesses
        if len(likeness.real) and len(likeness.simulated)
    )
    plots = "".join(
        f"<h2>{escape(likeness.name)}</h2>{_plot(likeness)}"
        for likeness in found.likenesses
        if len(likeness.real) and len(likeness.simulated)
    )
    path.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>A simulated {escape(name)}</title>"
        f"<style>{STYLE}</style><h1>A simulated {escape(name)} beside the real one</h1>"
        "<p>Largest difference of the two distribution functions (Kolmogorov and Smirnov; 0 is equal, 1 is disjoint), "
        "and medians.</p>"
        f"<table><tr><th>of</th><th>distance</th><th>real</th><th>simulated</th></tr>{rows}</table>"
        f"<p>Rank correlation of each item's interactions: {found.popularity_correlation:.3f}.</p>{plots}</html>\n",
        encoding="utf-8",
    )


def _plot(likeness: Likeness) -> str:
    """Return both distribution functions on a logarithmic axis."""
    lines = {
        name: (np.log10(1 + np.quantile(sample, SHARES)).tolist(), SHARES.tolist())
        for name, sample in (("simulated", likeness.simulated), ("real", likeness.real))
    }
    return curve(lines, f"log10(1 + {likeness.name})", "share with at most so many")
