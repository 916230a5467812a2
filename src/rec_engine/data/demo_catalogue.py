"""A shop's catalogue out of a seed: titles, descriptions and prices that agree with a hidden vector of each item."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from rec_engine.data.dataset import FloatArray, IntArray

LATENT_DIM = 16
TRAITS_AN_ITEM = 2
NEW_SHARE = 0.3
"""Share of the items that arrive during the period rather than before it."""

DEPARTMENTS: dict[str, tuple[tuple[str, float], ...]] = {
    "Running": (("Trail Running Shoes", 110), ("Running Shorts", 35), ("Running Jacket", 90), ("Hydration Vest", 80)),
    "Cycling": (("Road Bike Helmet", 95), ("Cycling Gloves", 28), ("Bike Light Set", 40), ("Frame Bag", 45)),
    "Camping": (("Two-Person Tent", 220), ("Sleeping Bag", 130), ("Camping Stove", 55), ("Head Torch", 38)),
    "Kitchen": (("Chef's Knife", 70), ("Cast Iron Pan", 60), ("Stand Mixer", 260), ("Espresso Cups", 25)),
    "Coffee and Tea": (("Coffee Grinder", 120), ("Pour-Over Set", 45), ("Green Tea Sampler", 18), ("Milk Frother", 30)),
    "Home": (("Table Lamp", 65), ("Wool Throw", 75), ("Wall Clock", 48), ("Storage Basket", 22)),
    "Garden": (("Pruning Shears", 32), ("Raised Bed Kit", 140), ("Watering Can", 27), ("Bird Feeder", 24)),
    "Books": (("Crime Novel", 12), ("Travel Guide", 19), ("Cookbook", 28), ("Science Essay", 16)),
    "Music": (("Turntable", 290), ("Studio Headphones", 150), ("Ukulele", 85), ("Bookshelf Speakers", 240)),
    "Toys": (("Wooden Train Set", 55), ("Strategy Board Game", 42), ("Jigsaw Puzzle", 20), ("Building Blocks", 38)),
    "Beauty": (("Face Serum", 34), ("Shampoo Bar", 11), ("Hand Cream", 9), ("Beard Oil", 17)),
    "Electronics": (("Mechanical Keyboard", 130), ("Power Bank", 45), ("Smart Plug", 18), ("E-Reader", 160)),
}
"""Department to its kinds of product, each with a usual price."""

TRAITS: tuple[tuple[str, str], ...] = (
    ("Lightweight", "Weighs next to nothing, so it comes along everywhere."),
    ("Rugged", "Built to take knocks and rain for years."),
    ("Classic", "A shape that has not needed changing in decades."),
    ("Minimalist", "Nothing on it that does not have to be there."),
    ("Recycled", "Made from recovered material, with the sources named."),
    ("Handmade", "Put together by hand in a small workshop."),
    ("Compact", "Folds away into the smallest corner."),
    ("Premium", "Better materials, and they can be felt."),
    ("Everyday", "Made for use from Monday to Sunday."),
    ("Professional", "What people choose who do this for a living."),
    ("Beginner's", "Easy to start with, with a guide in the box."),
    ("Quiet", "You will hardly notice that it is there."),
    ("Colourful", "Comes in shades that cheer up a grey morning."),
    ("Waterproof", "Tested under running water for an hour."),
    ("Vintage", "Looks as if it had stories to tell."),
    ("Modular", "Parts can be swapped and added later."),
)
"""Word in the title, sentence in the description."""

BRANDS = (
    "Arven",
    "Birke",
    "Calder",
    "Dovetail",
    "Elmstone",
    "Fjordlight",
    "Greyfell",
    "Hollin",
    "Ister",
    "Juniper & Co",
)
COLOURS = ("Slate", "Moss", "Sand", "Rust", "Navy", "Chalk", "Plum", "Amber", "Graphite", "Teal")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Items and what is hidden behind them.

    Attributes:
        items: item_id, title, description, categories, price, brand, released (Unix seconds), rating_average.
        vectors: (n_items, LATENT_DIM) float32, length about 1.
        log_popularity: (n_items,) float32, how often an item is met whatever the taste.
        kinds: (n_items,) int32, row in `kind_vectors`.
        kind_vectors: (n_kinds, LATENT_DIM) float32.
        released_day: (n_items,) float32, days after the start; negative before it.
    """

    items: pl.DataFrame
    vectors: FloatArray
    log_popularity: FloatArray
    kinds: IntArray
    kind_vectors: FloatArray
    released_day: FloatArray


def make_catalogue(rng: np.random.Generator, n_items: int, start: int, n_days: int) -> Catalogue:
    """Return a catalogue of `n_items`; a third of them is released within the `n_days` after `start` (Unix seconds)."""
    kinds = [(department, kind, price) for department, of in DEPARTMENTS.items() for kind, price in of]
    departments = _normal(rng, (len(DEPARTMENTS), LATENT_DIM))
    kind_vectors = _unit(np.repeat(departments, 4, axis=0) + 0.8 * _normal(rng, (len(kinds), LATENT_DIM)))
    trait_vectors = _unit(_normal(rng, (len(TRAITS), LATENT_DIM)))

    kind_codes = rng.integers(len(kinds), size=n_items)
    traits = np.argsort(rng.random((n_items, len(TRAITS))), axis=1)[:, :TRAITS_AN_ITEM]
    quality = _normal(rng, n_items)
    own = _unit(_normal(rng, (n_items, LATENT_DIM)))
    vectors = _unit(kind_vectors[kind_codes] + 0.5 * trait_vectors[traits].sum(axis=1) + 0.35 * own)
    is_new = rng.random(n_items) < NEW_SHARE
    released_day = np.where(is_new, rng.uniform(0, n_days, n_items), -rng.uniform(1, 900, n_items))
    usual_prices = np.array([price for _, _, price in kinds])[kind_codes]
    prices = usual_prices * np.exp(0.3 * _normal(rng, n_items) + 0.15 * quality)
    looks = rng.permutation(n_items)  # a different mix of brand and colour for each item, so that titles are distinct

    names = [kinds[code] for code in kind_codes]
    words = [[TRAITS[trait] for trait in row] for row in traits]
    brands = [BRANDS[look % len(BRANDS)] for look in looks]
    colours = [COLOURS[look // len(BRANDS) % len(COLOURS)] for look in looks]
    titles = [
        f"{brand} {first[0]} {kind}, {colour}"
        for brand, (first, _), (_, kind, _), colour in zip(brands, words, names, colours, strict=True)
    ]
    items = pl.DataFrame(
        {
            "item_id": np.arange(1, n_items + 1),
            "title": _distinct(titles),
            "description": [
                f"{second[0]} {kind.lower()} for {department.lower()}. {first[1]} {second[1]}"
                for (first, second), (department, kind, _) in zip(words, names, strict=True)
            ],
            "categories": [[department, kind] for department, kind, _ in names],
            "price": np.round(prices, 2),
            "brand": brands,
            "released": (start + released_day * 86_400).astype(np.int64),
            "rating_average": np.round(np.clip(3.9 + 0.4 * quality, 1, 5), 1),
        }
    )
    return Catalogue(
        items=items,
        vectors=vectors,
        log_popularity=(1.7 * _normal(rng, n_items) + 0.4 * quality).astype(np.float32),
        kinds=kind_codes.astype(np.int32),
        kind_vectors=kind_vectors,
        released_day=released_day.astype(np.float32),
    )


def _distinct(titles: list[str]) -> list[str]:
    """Return the titles, with "No. 2" and so on behind repeated ones."""
    seen: dict[str, int] = {}
    distinct = []
    for title in titles:
        seen[title] = seen.get(title, 0) + 1
        distinct.append(title if seen[title] == 1 else f"{title} No. {seen[title]}")
    return distinct


def _normal(rng: np.random.Generator, shape: int | tuple[int, int]) -> FloatArray:
    return rng.standard_normal(shape, dtype=np.float32)


def _unit(vectors: FloatArray) -> FloatArray:
    lengths: FloatArray = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths
