"""The ranker and what it sees."""

import re
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_features import FEATURES as PLAIN
from plain_features import plain_features
from plain_take_rates import ToldRates
from worlds import LATER, START, checkerboard, user_state

from rec_engine.data.dataset import FloatArray, Interactions
from rec_engine.data.showings import Showings
from rec_engine.data.state import state_of
from rec_engine.data.timeline import Timeline
from rec_engine.errors import BundleError, TrainingError
from rec_engine.models.features import (
    DIRECTIONS,
    FEATURES,
    OF_LOOKS,
    OF_SHOWINGS,
    SPEAKING_AGAINST,
    SPEAKING_FOR,
    ItemTable,
    features,
)
from rec_engine.models.lightgbm_ranker import FIXED, OBJECTIVES, CTRRanker, RankerRows
from rec_engine.models.links import fit_links
from rec_engine.retrieval.candidates import Candidates
from rec_engine.retrieval.categories import category_masks, category_names
from rec_engine.utils.config import CTRSettings

RNG = np.random.default_rng(0)
LOG = checkerboard(20)
VECTORS: FloatArray = RNG.standard_normal((20, 4)).astype(np.float32)
CATEGORIES = pl.Series([["even"] if item % 2 == 0 else ["odd", "rare"] if item < 4 else None for item in range(20)])
MASKS = category_masks(CATEGORIES, category_names(CATEGORIES), 20)
TO_ALL = [(n % 7, n % 13, 1 + n % 5, START + 86_400 - 97 * 60 * n) for n in range(900)]
"""User, item, position and moment of what everybody was shown."""
ITEMS = ItemTable(VECTORS, Timeline(LOG, 20), MASKS, fit_links(LOG, 20, 50), ToldRates(TO_ALL, LOG, 20))
OF_LOG = (*OF_SHOWINGS, *OF_LOOKS)
SOURCES = ("tower", "co-visitation", "similar", "recent popularity", "new items", "popularity")


SHOWN = st.lists(st.tuples(st.integers(0, 19), st.integers(1, 30), st.integers(-100 * 86_400, 400 * 86_400)))
"""Item, position, and seconds after START."""


def showings(shown: list[tuple[int, int, int]]) -> Showings:
    items, positions, seconds = np.array(shown, dtype=np.int64).reshape(-1, 3).T
    return Showings.of(items.astype(np.int32), positions.astype(np.int32), START + seconds)


def rows(seed: int, n: int = 3_000) -> RankerRows:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, len(FEATURES))).astype(np.float32)
    labels = (values[:, 0] + rng.standard_normal(n) > 1).astype(np.float32)
    return RankerRows(values, labels, np.full(n // 30, 30))


def test_probabilities_follow_the_labels_and_repeat_themselves() -> None:
    fitted = [CTRRanker.fit(rows(1), rows(2), CTRSettings(), seed=0) for _ in range(2)]
    held_out = rows(3)
    scores = fitted[0].score(held_out.features)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[held_out.labels == 1].mean() > scores[held_out.labels == 0].mean() + 0.1
    assert scores.mean() == pytest.approx(held_out.labels.mean(), abs=0.03)
    assert np.array_equal(scores, fitted[1].score(held_out.features))


def test_trees_that_make_no_fault_still_tell_all_candidates_apart() -> None:
    values = np.random.default_rng(4).standard_normal((3_000, len(FEATURES))).astype(np.float32)
    trend = values[:, FEATURES.index("item_trend")]
    flawless = RankerRows(values, (trend > 1).astype(np.float32), np.full(100, 30))
    ranker = CTRRanker.fit(flawless, flawless, CTRSettings(), seed=0).refit(flawless, CTRSettings(), seed=1)
    odds = ranker.log_odds(values)
    assert ranker.slope <= np.exp(2.5)
    assert len(np.unique(odds)) > 10
    assert odds[trend > 1].min() > odds[trend < 0.9].max()


def test_saved_ranker_scores_the_same(tmp_path: Path) -> None:
    ranker = CTRRanker.fit(rows(1), rows(2), CTRSettings(num_leaves=7), seed=0)
    ranker.save(tmp_path / "ranker.txt")
    assert np.array_equal(
        CTRRanker.load(tmp_path / "ranker.txt").score(rows(3).features), ranker.score(rows(3).features)
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_ends_in_calibrated_probabilities(objective: str) -> None:
    ranker = CTRRanker.fit(rows(1), rows(2), CTRSettings(objective=objective), seed=0)  # type: ignore[arg-type]
    held_out = rows(3)
    scores = ranker.score(held_out.features)
    assert ranker.objective == objective
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        inside = (scores >= low) & (scores < high)
        if inside.sum() > 100:
            assert scores[inside].mean() == pytest.approx(held_out.labels[inside].mean(), abs=0.08)


def test_contributions_add_up_to_the_log_odds_of_the_score(tmp_path: Path) -> None:
    CTRRanker.fit(rows(1), rows(2), CTRSettings(), seed=0).save(tmp_path / "ranker.txt")
    ranker = CTRRanker.load(tmp_path / "ranker.txt")
    few = rows(3).features[:50]
    parts = ranker.contributions(few)
    assert parts.shape == (50, len(FEATURES) + 1)
    assert np.allclose(1 / (1 + np.exp(-parts.sum(axis=1))), ranker.score(few), atol=1e-5)
    assert np.abs(parts[:, 0]).mean() > 5 * np.abs(parts[:, 1:-1]).mean()


def test_no_candidates_have_no_scores_and_no_contributions() -> None:
    ranker = CTRRanker.fit(rows(0), rows(1), CTRSettings(), seed=0)
    nothing = rows(2).features[:0]
    for compiled in (ranker._compiled, None):
        ranker._compiled = compiled
        assert ranker.log_odds(nothing).shape == (0,)
    assert ranker.contributions(nothing).shape == (0, len(FEATURES) + 1)


def test_importances_are_shares_and_find_what_matters() -> None:
    shares = CTRRanker.fit(rows(1), rows(2), CTRSettings(), seed=0).importances()
    assert next(iter(shares)) == next(iter(FEATURES))
    assert sum(shares.values()) == pytest.approx(1)


def test_refitting_keeps_trees_and_calibration_and_learns_anew() -> None:
    first = CTRRanker.fit(rows(1), rows(2), CTRSettings(), seed=0)
    again = first.refit(rows(4), CTRSettings(), seed=0)
    assert again.booster.num_trees() == first.booster.best_iteration
    assert (again.slope, again.intercept, again.objective) == (first.slope, first.intercept, first.objective)
    assert not np.array_equal(again.score(rows(3).features), first.score(rows(3).features))


def test_settings_have_an_effect() -> None:
    trees = [CTRRanker.fit(rows(1), rows(2), CTRSettings(num_leaves=n, objective="binary"), seed=0) for n in (2, 31)]
    assert [ranker.booster.params["num_leaves"] for ranker in trees] == [2, 31]
    assert not np.array_equal(trees[0].score(rows(3).features), trees[1].score(rows(3).features))


def test_one_class_cannot_be_learned() -> None:
    nothing = RankerRows(rows(1).features, np.zeros(3_000, dtype=np.float32), np.array([3_000]))
    with pytest.raises(TrainingError, match="one class"):
        CTRRanker.fit(nothing, nothing, CTRSettings(), seed=0)


def test_model_of_other_features_and_damaged_file_are_refused(tmp_path: Path) -> None:
    data = lightgbm.Dataset(rows(1).features[:, :2], rows(1).labels)
    lightgbm.train({"verbosity": -1}, data, 2).save_model(tmp_path / "other.txt")
    (tmp_path / "other.json").write_text('{"objective": "binary", "slope": 1.0, "intercept": 0.0}')
    with pytest.raises(BundleError, match="other features"):
        CTRRanker.load(tmp_path / "other.txt")
    (tmp_path / "other.json").write_text('{"objective": "binary"}')
    with pytest.raises(BundleError, match="not a readable LightGBM model"):
        CTRRanker.load(tmp_path / "other.txt")
    (tmp_path / "damaged.txt").write_text("tree")
    with pytest.raises(BundleError, match="not a readable LightGBM model"):
        CTRRanker.load(tmp_path / "damaged.txt")


@pytest.mark.parametrize("pattern", ["^feature_names=.*$", "(?<=^feature_names=).*$", "(?<=^feature_names=)[^ ]* "])
def test_trees_that_do_not_say_what_all_their_features_are_called_are_refused(tmp_path: Path, pattern: str) -> None:
    CTRRanker.fit(rows(0), rows(1), CTRSettings(), seed=0).save(tmp_path / "ranker.txt")
    text = (tmp_path / "ranker.txt").read_text()
    CTRRanker.load(tmp_path / "ranker.txt")
    (tmp_path / "ranker.txt").write_text(re.sub(pattern, "", text, flags=re.MULTILINE))
    with pytest.raises(BundleError, match="not a readable LightGBM model"):
        CTRRanker.load(tmp_path / "ranker.txt")


def candidates(codes: list[int]) -> Candidates:
    scores = np.array([[row + 0.1 * code if code % 3 else np.nan for code in codes] for row in range(6)], np.float32)
    return Candidates(np.array(codes, dtype=np.int32), scores, np.ceil(scores + 1), SOURCES)


def test_features_are_one_finite_or_nan_column_each() -> None:
    matrix = features(state_of(LOG, 3, LATER), candidates([1, 4, 6, 9]), ITEMS)
    assert matrix.shape == (4, len(FEATURES))
    assert matrix.dtype == np.dtype(np.float32)
    assert not np.isinf(matrix).any()


def test_plain_features_have_the_same_names_in_the_same_order() -> None:
    assert tuple(PLAIN) == FEATURES


@given(
    history=st.lists(st.integers(0, 19), max_size=30),
    offered=st.lists(st.integers(0, 19), unique=True, min_size=1),
    dislikes=st.booleans(),
    pause=st.integers(0, 400 * 86_400),
    shown=SHOWN,
)
def test_features_are_those_of_their_plain_definitions(
    history: list[int],
    offered: list[int],
    dislikes: bool,  # noqa: FBT001
    pause: int,
    shown: list[tuple[int, int, int]],
) -> None:
    weights = [-1.0 if dislikes and place % 3 == 0 else 1.0 for place in range(len(history))]
    state = replace(user_state(history, weights), now=START + pause, shown=showings(shown))
    on_offer = candidates(sorted(offered))
    # Sums of float32 are added up in another order.
    assert np.allclose(
        features(state, on_offer, ITEMS), plain_features(state, on_offer, ITEMS), rtol=2e-6, atol=2e-6, equal_nan=True
    )


def test_a_candidates_features_do_not_depend_on_the_order_of_the_others() -> None:
    forwards = features(state_of(LOG, 3, LATER), candidates([1, 4, 6, 9]), ITEMS)
    backwards = features(state_of(LOG, 3, LATER), candidates([9, 6, 4, 1]), ITEMS)
    assert np.allclose(forwards, backwards[::-1], equal_nan=True, atol=1e-6)


def test_own_meetings_are_counted_and_dated_by_the_last_one() -> None:
    state = user_state([4, 9, 4, 7], weights=[1, 1, 1, -1])
    matrix = features(state, candidates([1, 4, 7, 9]), ITEMS)
    by_name = dict(zip(FEATURES, matrix.T, strict=True))
    assert by_name["user_log_item_count"] == pytest.approx(np.log1p([0, 2, 0, 1]))
    days = (LATER - state.timestamps[[2, 1]]) / 86_400
    assert by_name["user_days_since_item"] == pytest.approx([np.nan, days[0], np.nan, days[1]], nan_ok=True)


def test_what_led_to_the_latest_click_is_not_held_against_an_item_and_what_follows_a_click_is() -> None:
    met = user_state([4, 9])  # a second after START, and he asks a day later
    days = 86_400
    shown = showings([(4, 1, -days), (4, 4, 0), (4, 4, days // 2), (4, 1, days - 3_599), (7, 4, -days)])
    by_name = dict(zip(FEATURES, features(replace(met, shown=shown), candidates([1, 4, 7]), ITEMS).T, strict=True))
    assert by_name["user_log_item_shown"] == pytest.approx(np.log1p([0, 3, 1]))
    assert by_name["user_log_item_looks"] == pytest.approx(np.log1p([0, 0.5, 0.5]))
    assert by_name["user_days_since_shown"] == pytest.approx([np.nan, 0.5, 2], nan_ok=True)
    assert by_name["user_log_looks"] == pytest.approx(np.log1p([2.5, 2.5, 2.5]))


def answers_shown(seed: int, n: int) -> RankerRows:
    """Return answers of ten whose clicks are examined less and less, and depend on the tower's score alone."""
    rng, of_tower = np.random.default_rng(seed), FEATURES.index("tower_score")
    values = rng.standard_normal((n, len(FEATURES))).astype(np.float32)
    positions = np.tile(np.arange(1, 11, dtype=np.int32), n // 10)
    chance = positions**-0.6 / (1 + np.exp(1 - 2 * values[:, of_tower]))
    return RankerRows(values, (rng.random(n) < chance).astype(np.float32), np.full(n // 10, 10), positions)


def test_answers_that_were_shown_ask_for_as_many_trees_as_make_their_clicks_probable() -> None:
    train, validation = answers_shown(1, 4_000), answers_shown(2, 2_000)
    ranker = CTRRanker.fit(train, validation, CTRSettings(), seed=0)
    assert ranker.objective == "binary"
    assert set(ranker.booster.best_score["valid_0"]) == {"binary_logloss"}
    added = ranker.offsets[validation.positions]

    def loss(n_trees: int) -> float:
        raw = ranker.booster.predict(validation.features, raw_score=True, num_iteration=n_trees) - 3 + added
        return float(np.mean(np.logaddexp(0, raw) - validation.labels * raw))

    best = ranker.booster.best_iteration
    losses = [loss(n) for n in range(1, ranker.booster.num_trees() + 1)]
    assert best == 1 + int(np.argmin(losses)) > 1
    assert losses[best - 1] == pytest.approx(ranker.booster.best_score["valid_0"]["binary_logloss"], abs=1e-6)


def test_where_good_items_stood_low_scores_are_as_far_apart_as_their_clicks_at_one_position() -> None:
    """Positions that go against the scores would flatten them: the better an item, the less it was looked at."""
    train, validation = (turned(answers_shown(seed, 20_000)) for seed in (1, 2))
    ranker = CTRRanker.fit(train, validation, CTRSettings(), seed=0)
    assert ranker.slope == pytest.approx(1, abs=0.25)
    at_random = answers_shown(3, 20_000)
    is_first = at_random.positions == 1
    clicked, odds = at_random.labels[is_first], ranker.log_odds(at_random.features[is_first])
    low, high = odds < np.quantile(odds, 0.2), odds > np.quantile(odds, 0.8)
    gap = np.log(clicked[high].mean() / (1 - clicked[high].mean())) - np.log(
        clicked[low].mean() / (1 - clicked[low].mean())
    )
    assert odds[high].mean() - odds[low].mean() == pytest.approx(gap, rel=0.3)


def turned(answers: RankerRows) -> RankerRows:
    """Return the answers with clicks as if the best item had stood last, often enough, and the others above it."""
    rng, of_tower = np.random.default_rng(0), FEATURES.index("tower_score")
    scores = answers.features[:, of_tower].reshape(-1, 10) - 1.5 * rng.standard_normal((len(answers.sizes), 10))
    positions = (np.argsort(np.argsort(scores, axis=1), axis=1) + 1).astype(np.int32).ravel()
    chance = positions**-0.6 / (1 + np.exp(1 - 2 * answers.features[:, of_tower]))
    return replace(answers, positions=positions, labels=(rng.random(len(positions)) < chance).astype(np.float32))


def test_a_position_below_all_that_taught_counts_as_the_last_of_them() -> None:
    train, deep = answers_shown(1, 4_000), answers_shown(2, 2_000)
    deeper = replace(deep, positions=deep.positions + 10 if deep.positions is not None else None)
    assert CTRRanker.fit(train, deeper, CTRSettings(), seed=0).offsets.shape == (11,)


def test_more_of_what_speaks_for_an_item_never_lowers_its_score() -> None:
    ranker = CTRRanker.fit(answers_shown(1, 4_000), answers_shown(2, 2_000), CTRSettings(), seed=0)
    values = np.repeat(answers_shown(3, 200).features, 21, axis=0)
    steps = np.tile(np.linspace(-3, 3, 21, dtype=np.float32), 200)
    moved = [place for place, way in enumerate(DIRECTIONS) if way]
    assert {FEATURES[place] for place in moved} == SPEAKING_FOR | SPEAKING_AGAINST
    for place in moved:
        varied = values.copy()
        varied[:, place] = DIRECTIONS[place] * steps
        assert (np.diff(ranker.log_odds(varied).reshape(200, 21), axis=1) >= 0).all(), FEATURES[place]


def test_only_trees_that_ask_what_was_shown_read_it() -> None:
    read, without_log = (CTRRanker.fit(train, train, CTRSettings(), seed=0) for train in (rows(1), unlogged(1)))
    assert read.reads_showings
    assert not without_log.reads_showings
    assert (read.reads_looks, without_log.reads_looks) == (True, False)


def unlogged(seed: int) -> RankerRows:
    """Return rows as training has them without a log."""
    values = rows(seed).features.copy()
    values[:, [list(FEATURES).index(name) for name in OF_LOG]] = [0, 0, np.nan, 0, 0, 0]
    return replace(rows(seed), features=values)


def test_trees_are_the_same_as_if_there_were_no_columns_of_what_was_shown() -> None:
    settings, n = CTRSettings(objective="binary"), len(FEATURES) - len(OF_LOG)
    train, validation = unlogged(1), unlogged(2)
    fitted = CTRRanker.fit(train, validation, settings, seed=0)
    data = lightgbm.Dataset(train.features[:, :n], train.labels)
    parameters = FIXED | {"metric": "none", "objective": "binary", "seed": 0, "learning_rate": 0.05, "num_leaves": 31}
    parameters["monotone_constraints"] = list(DIRECTIONS[:n])
    without = lightgbm.train(parameters, data, fitted.booster.best_iteration)
    assert np.array_equal(
        fitted.booster.predict(train.features, raw_score=True), without.predict(train.features[:, :n], raw_score=True)
    )


def test_trees_of_fewer_features_read_only_those(tmp_path: Path) -> None:
    names = [name for name in FEATURES if name != FEATURES[1] and name not in OF_LOG]
    kept = [list(FEATURES).index(name) for name in names]
    train = rows(1)
    data = lightgbm.Dataset(train.features[:, kept], train.labels, feature_name=names)
    booster = lightgbm.train({"verbosity": -1}, data, 5)
    booster.save_model(tmp_path / "ranker.txt")
    (tmp_path / "ranker.json").write_text('{"objective": "binary", "slope": 2.0, "intercept": 1.0}')
    ranker = CTRRanker.load(tmp_path / "ranker.txt")
    raw = np.asarray(booster.predict(rows(3).features[:, kept], raw_score=True))
    assert ranker.log_odds(rows(3).features) == pytest.approx(2 * raw + 1, abs=1e-5)
    parts = ranker.contributions(rows(3).features)
    assert parts.sum(axis=1) == pytest.approx(2 * raw + 1, abs=1e-4)
    assert (parts[:, [1, *range(len(FEATURES) - len(OF_LOG), len(FEATURES))]] == 0).all()
    assert set(ranker.importances()) == set(names)
    assert not ranker.reads_showings
    assert not ranker.reads_looks


def test_features_of_a_user_without_history_exist() -> None:
    assert features(user_state([]), candidates([1, 4]), ITEMS).shape == (2, len(FEATURES))


def future_removed(log: Interactions, moment: int) -> Interactions:
    return log.where(log.timestamps < moment)


def test_no_feature_knows_what_happened_after_the_request() -> None:
    # Timeline and rates are what of the table is asked for a moment; links and vectors are of the training part.
    moment = int(np.median(LOG.timestamps))
    shown = [each for each in TO_ALL if each[3] < moment]
    past = future_removed(LOG, moment)
    state = state_of(past, 3, moment)
    then = ItemTable(VECTORS, Timeline(past, 20), ITEMS.categories, ITEMS.links, ToldRates(shown, past, 20))
    offered = candidates([1, 4, 6, 9])
    assert features(state, offered, then)[:, -1].any()
    assert np.array_equal(features(state, offered, ITEMS), features(state, offered, then), equal_nan=True)


def test_category_affinity_is_the_share_of_the_items_categories_in_the_history() -> None:
    matrix = features(user_state([0, 2, 1, 3]), candidates([4, 5, 7]), ITEMS)
    affinity = matrix[:, list(FEATURES).index("category_affinity")]
    assert affinity.tolist() == [0.5, 0.0, 0.0]
