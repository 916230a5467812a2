"""Ranking features one by one, each as its definition says: what the fast way is compared with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from plain_take_rates import ToldRates, plain_rates

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.data.showings import KEPT_SECONDS, SETTLING_SECONDS
from rec_engine.data.state import UserState
from rec_engine.data.timeline import SECONDS_A_DAY
from rec_engine.models.features import DAYS, LINKED_ITEMS, MONTH, RECENT_ITEMS, SESSION_SECONDS, WEEK, YEAR, ItemTable
from rec_engine.retrieval.candidates import Candidates
from rec_engine.retrieval.links import LINK_NAMES


@dataclass(frozen=True, slots=True)
class Moment:
    """One request as the features see it: who asks, what is on offer, and what they share."""

    state: UserState
    candidates: Candidates
    items: ItemTable
    recent: IntArray
    counts: FloatArray
    counts_by_days: Mapping[int, FloatArray]
    similarity: FloatArray
    pulls: Mapping[str, FloatArray]
    meetings: FloatArray
    days_since_met: FloatArray

    @classmethod
    def of(cls, state: UserState, candidates: Candidates, items: ItemTable) -> "Moment":
        """Return the moment of a request."""
        recent = state.liked[-RECENT_ITEMS:]
        latest_first = state.liked[-LINKED_ITEMS:][::-1]
        meetings, days_since_met = _own_meetings(state, candidates.item_codes)
        moments = [state.now - days * SECONDS_A_DAY for days in (0, *DAYS)]
        counts, *counts_before = [items.timeline.counts(candidates.item_codes, moment) for moment in moments]
        return cls(
            state=state,
            candidates=candidates,
            items=items,
            recent=recent,
            counts=counts,
            counts_by_days=dict(zip(DAYS, counts_before, strict=True)),
            similarity=items.vectors[candidates.item_codes] @ items.vectors[recent].T,  # (n_candidates, n_recent)
            pulls={
                name: links.between(latest_first, candidates.item_codes)  # (n_latest, n_candidates)
                for name, links in items.links.items()
            },
            meetings=meetings,
            days_since_met=days_since_met,
        )

    def everywhere(self, value: float) -> FloatArray:
        """Return (n_candidates,) of one value."""
        return np.full(len(self.candidates.item_codes), value, dtype=np.float32)

    def counts_before(self, days: int) -> FloatArray:
        """Return (n_candidates,), how often each item was met until so many DAYS ago."""
        return self.counts_by_days[days]


def _own_meetings(state: UserState, item_codes: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return how often the user met each of these items, and the days since he last did, nan for never."""
    order = np.argsort(item_codes)
    nearest = np.minimum(np.searchsorted(item_codes, state.liked, sorter=order), len(item_codes) - 1)
    places = order[nearest] if len(item_codes) else np.empty(0, dtype=np.int64)
    is_one = item_codes[places] == state.liked[: len(places)]
    latest = np.full(len(item_codes), np.nan)
    latest[places[is_one]] = state.liked_at[: len(places)][is_one]  # in time order: of several meetings the last stays
    meetings = np.bincount(places[is_one], minlength=len(item_codes)).astype(np.float32)
    return meetings, ((state.now - latest) / SECONDS_A_DAY).astype(np.float32)


def _own_showings(moment: Moment) -> list[tuple[int, float, float]]:
    """Return place among the candidates (-1 for none), looks and days ago of what was shown an hour ago or earlier."""
    shown, codes, now = moment.state.shown, moment.candidates.item_codes.tolist(), moment.state.now
    return [
        (codes.index(item) if item in codes else -1, looks, (now - moment_shown) / SECONDS_A_DAY)
        for item, looks, moment_shown in zip(
            shown.item_codes.tolist(), shown.looks.tolist(), shown.timestamps.tolist(), strict=True
        )
        if SETTLING_SECONDS <= now - moment_shown < KEPT_SECONDS
    ]


Feature = Callable[[Moment], FloatArray]


def _score(source: str) -> Feature:
    return lambda moment: moment.candidates.score_of(source)


def _gap(source: str) -> Feature:
    """How far the score is below the best candidate's."""

    def gap(moment: Moment) -> FloatArray:
        scores = moment.candidates.score_of(source)
        gaps: FloatArray = scores - scores.max() if len(scores) else scores
        return gaps

    return gap


def _log_rank(source: str) -> Feature:
    return lambda moment: np.log(moment.candidates.rank_of(source))


def _log_recent(days: int) -> Feature:
    return lambda moment: np.log1p(moment.counts - moment.counts_before(days))


def n_sources(moment: Moment) -> FloatArray:
    """How many sources offered the item."""
    counted: FloatArray = np.isfinite(moment.candidates.ranks).sum(axis=0).astype(np.float32)
    return counted


def _pull_of_latest(link: str, place: int) -> Feature:
    """What the latest item (place 0), or the one before it, says about the candidate."""

    def pull(moment: Moment) -> FloatArray:
        pulls = moment.pulls[link]
        return pulls[place] if len(pulls) > place else moment.everywhere(np.nan)

    return pull


def _strongest_pull(link: str) -> Feature:
    """The most that one of the latest items says about the candidate."""
    return lambda moment: moment.pulls[link].max(axis=0, initial=0.0)


def _summed_pull(link: str) -> Feature:
    """What the latest items say together, the m-th latest with 1 / m."""

    def pull(moment: Moment) -> FloatArray:
        pulls = moment.pulls[link]
        summed: FloatArray = (1 / np.arange(1, len(pulls) + 1)).astype(np.float32) @ pulls
        return summed

    return pull


def _pulls(link: str) -> dict[str, Feature]:
    name = link.replace("-", "")
    return {
        f"{name}_last": _pull_of_latest(link, 0),
        f"{name}_second_last": _pull_of_latest(link, 1),
        f"{name}_strongest": _strongest_pull(link),
        f"{name}_sum": _summed_pull(link),
    }


def user_log_item_count(moment: Moment) -> FloatArray:
    """How often the user has met the item himself."""
    return np.log1p(moment.meetings)


def user_days_since_item(moment: Moment) -> FloatArray:
    """Days since the user met the item himself."""
    return moment.days_since_met


def item_log_count(moment: Moment) -> FloatArray:
    """Popularity of the item."""
    return np.log1p(moment.counts)


def item_trend(moment: Moment) -> FloatArray:
    """The last week's popularity beside that of the month before it."""
    last_week, last_month = moment.counts_before(WEEK), moment.counts_before(MONTH)
    trend: FloatArray = np.log1p(moment.counts - last_week) - np.log1p((last_week - last_month) * WEEK / (MONTH - WEEK))
    return trend


def item_days_known(moment: Moment) -> FloatArray:
    """Age of the item."""
    return moment.items.timeline.past(moment.candidates.item_codes, moment.state.now).days_since_first


def item_days_idle(moment: Moment) -> FloatArray:
    """Days since anybody met the item."""
    return moment.items.timeline.past(moment.candidates.item_codes, moment.state.now).days_since_last


def user_log_history(moment: Moment) -> FloatArray:
    """How much is known of the user."""
    return moment.everywhere(np.log1p(len(moment.state.item_codes)))


def user_log_pause(moment: Moment) -> FloatArray:
    """Time since the user was last seen."""
    liked_at = moment.state.liked_at
    return moment.everywhere(np.log1p(max(0, moment.state.now - int(liked_at[-1]))) if len(liked_at) else np.nan)


def user_log_session(moment: Moment) -> FloatArray:
    """How many items the user met in the last hour."""
    return moment.everywhere(np.log1p((moment.state.liked_at > moment.state.now - SESSION_SECONDS).sum()))


def popularity_taste(moment: Moment) -> FloatArray:
    """How much more popular the item is than what the user takes on average."""
    if not len(moment.recent):
        return moment.everywhere(np.nan)
    usual = np.log1p(moment.items.timeline.counts(moment.recent, moment.state.now)).mean()
    gap: FloatArray = np.log1p(moment.counts) - usual
    return gap


def similarity_to_last(moment: Moment) -> FloatArray:
    """Cosine of the item with the user's last one."""
    cosine: FloatArray = moment.similarity[:, -1:].max(axis=1, initial=-1.0)
    return cosine


def similarity_to_nearest(moment: Moment) -> FloatArray:
    """Highest cosine of the item with one of the user's recent ones."""
    cosine: FloatArray = moment.similarity.max(axis=1, initial=-1.0)
    return cosine


def similarity_to_recent(moment: Moment) -> FloatArray:
    """Mean cosine of the item with the user's recent ones."""
    mean: FloatArray = moment.similarity.sum(axis=1) / np.float32(max(1, len(moment.recent)))
    return mean


def _affinity(history: Callable[[Moment], IntArray]) -> Feature:
    """Share of the item's categories in a history."""

    def affinity(moment: Moment) -> FloatArray:
        members = moment.items.categories[:, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
        shares = members / np.maximum(members.sum(axis=1, keepdims=True), 1)
        taken = shares[history(moment)]
        taste = taken.sum(axis=0) / max(1, len(taken))
        shared: FloatArray = (members[moment.candidates.item_codes] @ taste).astype(np.float32)
        return shared

    return affinity


def user_log_item_shown(moment: Moment) -> FloatArray:
    """How often the item was shown to the user."""
    places = [place for place, _, _ in _own_showings(moment)]
    return np.log1p([places.count(place) for place in range(len(moment.candidates.item_codes))])


def user_log_item_looks(moment: Moment) -> FloatArray:
    """How often the user may have looked at the item since he last met it."""
    found = moment.everywhere(0)
    for place, looks, days in _own_showings(moment):
        if place >= 0 and not days >= moment.days_since_met[place]:
            found[place] += looks
    return np.log1p(found)


def user_days_since_shown(moment: Moment) -> FloatArray:
    """Days since the user was last shown the item."""
    found = moment.everywhere(np.nan)
    for place, _, days in _own_showings(moment):
        if place >= 0:
            found[place] = days
    return found


def user_log_looks(moment: Moment) -> FloatArray:
    """How often the user may have looked at anything that was shown."""
    return moment.everywhere(np.log1p(sum(looks for _, looks, _ in _own_showings(moment))))


def _rates(place: int) -> Feature:
    """How often people looked at the item, or took it for a look."""

    def rate(moment: Moment) -> FloatArray:
        told = moment.items.rates
        if not isinstance(told, ToldRates):
            return moment.everywhere(0)
        of_items = plain_rates(told.shown, told.taken, moment.state.now, told.n_items)
        return np.array([of_items[item][place] for item in moment.candidates.item_codes.tolist()], dtype=np.float32)

    return rate


FEATURES: dict[str, Feature] = {
    "tower_score": _score("tower"),
    "tower_gap": _gap("tower"),
    "tower_log_rank": _log_rank("tower"),
    "covisitation_score": _score("co-visitation"),
    "covisitation_gap": _gap("co-visitation"),
    "covisitation_log_rank": _log_rank("co-visitation"),
    "similar_score": _score("similar"),
    "similar_gap": _gap("similar"),
    "similar_log_rank": _log_rank("similar"),
    "n_sources": n_sources,
    **{name: pull for link in LINK_NAMES for name, pull in _pulls(link).items()},
    "user_log_item_count": user_log_item_count,
    "user_days_since_item": user_days_since_item,
    "item_log_count": item_log_count,
    "item_log_week": _log_recent(WEEK),
    "item_log_month": _log_recent(MONTH),
    "item_log_year": _log_recent(YEAR),
    "item_trend": item_trend,
    "item_days_known": item_days_known,
    "item_days_idle": item_days_idle,
    "user_log_history": user_log_history,
    "user_log_pause": user_log_pause,
    "user_log_session": user_log_session,
    "popularity_taste": popularity_taste,
    "similarity_to_last": similarity_to_last,
    "similarity_to_nearest": similarity_to_nearest,
    "similarity_to_recent": similarity_to_recent,
    "category_affinity": _affinity(lambda moment: moment.state.liked),
    "category_affinity_recent": _affinity(lambda moment: moment.recent),
    "user_log_item_shown": user_log_item_shown,
    "user_log_item_looks": user_log_item_looks,
    "user_days_since_shown": user_days_since_shown,
    "user_log_looks": user_log_looks,
    "item_log_looks": _rates(0),
    "item_take_rate": _rates(1),
}


def plain_features(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:
    """Return (n_candidates, n_features) float32, columns in the order of FEATURES, nan where a value is unknown."""
    moment = Moment.of(state, candidates, items)
    return np.column_stack([feature(moment) for feature in FEATURES.values()]).astype(np.float32)
