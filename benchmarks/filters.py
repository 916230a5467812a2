"""How long a filter takes to become a set of items, beside polars' own filter of the same table.

    python benchmarks/filters.py [--items 1000000] [--turns 20]

Four ways of answering the same question are timed in turn within one run, and their answers are compared first:

- first: our answer when it was not asked before, the sets of single terms included where they are not yet at hand;
- again: our answer when other filters with the same terms were asked before;
- kept: our answer when the same filter was asked before;
- polars: the mask of the table under the same expression, with as many threads as polars takes.

The ratio is polars over ours, with a bootstrap interval of 95% over the turns.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.item_attributes import ItemAttributes
from rec_engine.retrieval.predicates import PREDICATE, Predicate

N_CATEGORIES = 500
N_BRANDS = 5_000
FIRST_DAY_US = 1_420_070_400_000_000
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Question:
    """The same filter in both languages."""

    name: str
    predicate: Predicate
    expression: pl.Expr


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=20)
    arguments = parser.parse_args()
    items = _items(arguments.items)
    started = time.perf_counter()
    attributes = ItemAttributes.of(items, arguments.items + 10_000)
    built_seconds = time.perf_counter() - started
    print(f"{arguments.items:,} items, read in {built_seconds:.1f} s; polars takes {pl.thread_pool_size()} threads\n")
    print("| filter | items | first, us | again, us | kept, us | polars, us | polars / again | polars / kept |")
    print("|---|---|---|---|---|---|---|---|")
    for question in _questions(items):
        _print_row(question, items, attributes, arguments.turns)
    _print_changes(attributes, arguments.items, arguments.turns)


def _items(n_items: int) -> pl.DataFrame:
    """Return a shop: a long tail of categories and brands, and a tenth of the prices unknown."""
    rng = np.random.default_rng(0)
    categories = rng.choice([f"category {place}" for place in range(N_CATEGORIES)], (n_items, 2), p=_tail(N_CATEGORIES))
    prices = np.round(np.exp(rng.normal(3, 1, n_items)), 2)
    return pl.DataFrame(
        {
            "item_id": np.arange(n_items),
            "categories": pl.Series(categories.tolist(), dtype=pl.List(pl.String)),
            "brand": rng.choice([f"brand {place}" for place in range(N_BRANDS)], n_items, p=_tail(N_BRANDS)),
            "price": pl.Series(prices).set(pl.Series(rng.random(n_items) < 0.1), None),
            "stock": rng.integers(0, 1_000, n_items),
            "on_sale": rng.random(n_items) < 0.05,
            "released": pl.Series(FIRST_DAY_US + 60_000_000 * rng.integers(0, 5_000_000, n_items)),
        }
    ).with_columns(pl.col("released").cast(pl.Datetime("us")))


def _tail(n: int) -> Times:
    weights = 1.0 / np.arange(1, n + 1)
    shares: Times = weights / weights.sum()
    return shares


def _questions(items: pl.DataFrame) -> list[Question]:
    price, brand, categories = pl.col("price"), pl.col("brand"), pl.col("categories")
    some_brands = [f"brand {place}" for place in range(10, 510, 10)]
    some_ids = items["item_id"].sample(1_000, seed=0).to_list()
    is_drama = categories.list.contains("category 1") | categories.list.contains("category 7")
    asked: list[tuple[str, dict[str, object], pl.Expr]] = [
        ("price from 5 to 20", {"attribute": "price", "at_least": 5, "below": 20}, (price >= 5) & (price < 20)),
        ("a popular brand", {"attribute": "brand", "equals": "brand 1"}, brand == "brand 1"),
        ("a rare brand", {"attribute": "brand", "equals": "brand 4000"}, brand == "brand 4000"),
        ("50 brands", {"attribute": "brand", "any_of": some_brands}, brand.is_in(some_brands)),
        ("1,000 ids", {"attribute": "item_id", "any_of": some_ids}, pl.col("item_id").is_in(some_ids)),
        (
            "5 amounts in stock",
            {"attribute": "stock", "any_of": [1, 5, 9, 50, 90]},
            pl.col("stock").is_in([1, 5, 9, 50, 90]),
        ),
        ("two categories", {"attribute": "categories", "any_of": ["category 1", "category 7"]}, is_drama),
        ("price unknown", {"attribute": "price", "is_null": True}, price.is_null()),
        (
            "released since 2020",
            {"attribute": "released", "at_least": "2020-01-01"},
            pl.col("released") >= datetime(2020, 1, 1),
        ),
        (
            "all of it",
            {
                "and": [
                    {"attribute": "categories", "any_of": ["category 1", "category 7"]},
                    {"attribute": "price", "at_least": 5, "below": 20},
                    {"attribute": "released", "at_least": "2020-01-01"},
                    {"or": [{"attribute": "on_sale", "equals": True}, {"attribute": "stock", "above": 500}]},
                    {"not": {"attribute": "brand", "any_of": ["brand 0", "brand 3"]}},
                ]
            },
            is_drama
            & (price >= 5)
            & (price < 20)
            & (pl.col("released") >= datetime(2020, 1, 1))
            & (pl.col("on_sale") | (pl.col("stock") > 500))
            & ~brand.is_in(["brand 0", "brand 3"]),
        ),
    ]
    return [Question(name, PREDICATE.validate_python(predicate), expression) for name, predicate, expression in asked]


def _print_row(question: Question, items: pl.DataFrame, attributes: ItemAttributes, turns: int) -> None:
    def with_polars() -> pl.Series:
        return items.select(question.expression.fill_null(value=False).alias("is_wanted"))["is_wanted"]

    def ours() -> Eligible:
        return attributes.matching(question.predicate)

    first = _microseconds(ours, 1)
    assert np.array_equal(ours().item_codes(), with_polars().arg_true().to_numpy())  # noqa: S101 - a check of the race
    kept, again, theirs = np.empty(turns), np.empty(turns), np.empty(turns)
    for turn in range(turns):
        kept[turn] = _microseconds(ours, 1)[0]
        attributes.clear(attributes.capacity - 1)  # a spare slot: forgets the answers and changes none
        again[turn] = _microseconds(ours, 1)[0]
        theirs[turn] = _microseconds(with_polars, 1)[0]
    print(
        f"| {question.name} | {ours().count():,} | {first[0]:,.0f} | {_shown(again)} | {_shown(kept)} "
        f"| {_shown(theirs)} | {_ratio(theirs, again)} | {_ratio(theirs, kept)} |"
    )


def _print_changes(attributes: ItemAttributes, n_items: int, turns: int) -> None:
    rng = np.random.default_rng(1)
    values = [
        {
            "item_id": n_items + turn,
            "categories": [f"category {place}" for place in rng.integers(0, 50, 3)],
            "brand": f"brand {rng.integers(0, 50)}",
            "price": float(turn),
            "stock": turn,
            "on_sale": True,
            "released": datetime(2025, 1, 1),
        }
        for turn in range(turns)
    ]
    new = [_microseconds(partial(attributes.put, n_items + turn, values[turn]), 1)[0] for turn in range(turns)]
    old = [_microseconds(partial(attributes.put, turn, values[turn]), 1)[0] for turn in range(turns)]
    print(f"\nput of a new item {_shown(np.array(new))} us, of a changed one {_shown(np.array(old))} us")


def _microseconds(work: Callable[[], object], n: int) -> Times:
    """Return (n,) float64: what each call took."""
    spent = np.empty(n)
    for place in range(n):
        started = time.perf_counter()
        work()
        spent[place] = 1e6 * (time.perf_counter() - started)
    return spent


def _shown(spent: Times) -> str:
    return f"{np.median(spent):,.0f}"


def _ratio(theirs: Times, ours: Times) -> str:
    """Return the ratio of the medians with its bootstrap interval."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(ours), (1_000, len(ours)))
    low, high = np.quantile(np.median(theirs[picks], axis=1) / np.median(ours[picks], axis=1), [0.025, 0.975])
    return f"{np.median(theirs) / np.median(ours):.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
