"""Why an item is in an answer, and why not: readers of the trace that every request leaves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.models.features import FEATURES
from rec_engine.retrieval.links import LINK_NAMES
from rec_engine.serving.directives import Directives
from rec_engine.serving.inference import Query, RecommendationInference, Trace
from rec_engine.serving.rule_schemas import RuleAction

DRAWN_BY = 3


@dataclass(frozen=True, slots=True)
class SourceView:
    """How one source saw an item.

    Attributes:
        name: of the source.
        score: its opinion of the item, None where it has none.
        rank: from 1, None where it did not offer the item.
        lowest_offered: the lowest score that it offered, None where it offered nothing.
    """

    name: str
    score: float | None
    rank: int | None
    lowest_offered: float | None


@dataclass(frozen=True, slots=True)
class Contributions:
    """What the ranker's features add to an item's log-odds of a click.

    Attributes:
        log_odds: base and parts together.
        base: the same for every item.
        by_feature: (n_features,) float32 in the order of FEATURES.
        values: (n_features,) float32, nan for unknown ones.
    """

    log_odds: float
    base: float
    by_feature: FloatArray
    values: FloatArray


@dataclass(frozen=True, slots=True)
class ItemRule:
    """What a rule asks of an item.

    Attributes:
        rule_id: of the rule.
        action: what it does.
        position: to which it pins the item, from 1, counted over all pages; None for other actions.
        log_odds: that it adds; None for other actions.
    """

    rule_id: str
    action: RuleAction
    position: int | None = None
    log_odds: float | None = None


@dataclass(frozen=True, slots=True)
class WhyNot:
    """What became of one item.

    Attributes:
        step: that dropped it: one of the names of `Trace.steps`, "recall", "rank" or "arrange"; "shown" if none did.
        detail: in words, with how much was missing.
        place: from 1 in the order of scores, None where it was not a candidate.
        score: of the item in that order.
        needed: score of the last item that is shown.
        sources: what each of them made of it; none where it was not eligible.
        rules: those that are about it.
    """

    step: str
    detail: str
    place: int | None = None
    score: float | None = None
    needed: float | None = None
    sources: tuple[SourceView, ...] = ()
    rules: tuple[ItemRule, ...] = ()


def source_views(trace: Trace, place: int) -> tuple[SourceView, ...]:
    """Return how every source saw the candidate at this place, those that offered it first."""
    candidates = trace.candidates
    views = [
        SourceView(
            name=name,
            score=_number(candidates.scores[row, place]),
            rank=None if np.isnan(candidates.ranks[row, place]) else int(candidates.ranks[row, place]),
            lowest_offered=_lowest(trace, row),
        )
        for row, name in enumerate(candidates.sources)
    ]
    return tuple(sorted(views, key=lambda view: view.rank or np.inf))


def drawn_by(inference: RecommendationInference, query: Query, item_code: int) -> IntArray:
    """Return the items of the user's history that speak most for an item, the strongest first.

    Each kind of link, and the likeness of the vectors, votes with its share of the strongest pull that it knows.
    """
    liked = np.unique(query.state.liked)
    pulls = [inference.items.vectors[liked] @ inference.items.vectors[item_code]]
    target = np.array([item_code], dtype=np.int32)
    pulls += [inference.items.links[name].between(liked, target)[:, 0] for name in LINK_NAMES]
    votes = sum(np.maximum(pull, 0) / max(float(pull.max(initial=0)), 1e-9) for pull in pulls)
    strongest: IntArray = liked[np.argsort(-np.asarray(votes), kind="stable")[:DRAWN_BY]]
    return strongest


def rules_about(directives: Directives, item_code: int) -> tuple[ItemRule, ...]:
    """Return what the rules that hold for a request ask of an item."""
    code = np.array([item_code], dtype=np.int32)
    hidings = [ItemRule(each.rule_id, "hide") for each in directives.hidings if each.items.keeps(code)[0]]
    pins = [ItemRule(each.rule_id, "pin", each.position) for each in directives.pins if each.item_code == item_code]
    shifts = [
        ItemRule(each.rule_id, "boost" if each.by > 0 else "bury", log_odds=each.by)
        for each in directives.shifts
        if each.items.keeps(code)[0]
    ]
    return (*hidings, *pins, *shifts)


def contributions(inference: RecommendationInference, trace: Trace, places: IntArray) -> list[Contributions]:
    """Return what the ranker's features add, one for each place; nothing where the answer was not re-ranked."""
    if inference.ranker is None or trace.features is None:
        return []
    rows = trace.features[places]
    parts = inference.ranker.contributions(rows)
    return [
        Contributions(float(part.sum()), float(part[-1]), part[:-1], values)
        for part, values in zip(parts, rows, strict=True)
    ]


def strongest(found: Contributions, n: int) -> list[tuple[str, float, float]]:
    """Return name, value and contribution of the n features that matter most, the last one summing up all others."""
    order = np.argsort(-np.abs(found.by_feature), kind="stable")
    names = list(FEATURES)
    shown = [(names[at], float(found.values[at]), float(found.by_feature[at])) for at in order[:n].tolist()]
    return [*shown, ("all others", float("nan"), float(found.by_feature[order[n:]].sum()))]


def why_not(inference: RecommendationInference, query: Query, trace: Trace, item_code: int) -> WhyNot:
    """Return the step that kept an item out of an answer, and by how much."""
    return replace(_dropped(inference, query, trace, item_code), rules=rules_about(query.directives, item_code))


def in_draft(
    picks: Sequence[tuple[str, str | None]], item_id: str, teams: Sequence[str], found: Sequence[WhyNot]
) -> WhyNot:
    """Return what became of an item in a list that two arms have filled by turns.

    Args:
        picks: item id and whose pick it is, of each item of the list.
        item_id: that is asked about.
        teams: what the arms' picks are marked with.
        found: what became of it in each arm's own list.
    """
    for position, (shown_id, team) in enumerate(picks, start=1):
        if shown_id == item_id:
            by = f"the pick of {team}" if team else "no arm's pick"
            of_arm = found[teams.index(team)] if team else found[0]
            return replace(of_arm, step="shown", detail=f"it is shown at place {position}, {by}")
    told = [
        f"{team}: {each.detail}" + (" of this arm's own list, and others' turns came before" * (each.step == "shown"))
        for team, each in zip(teams, found, strict=True)
    ]
    # Of the arm that had it nearest to the list.
    nearest = min(found, key=lambda each: (each.step != "shown", each.place is None, each.place or 0))
    step = "arrange" if nearest.step == "shown" else nearest.step
    return replace(nearest, step=step, detail="; ".join(told))


def _dropped(inference: RecommendationInference, query: Query, trace: Trace, item_code: int) -> WhyNot:
    code = np.array([item_code], dtype=np.int32)
    for name, left in trace.steps:
        if not left.keeps(code)[0]:
            return WhyNot(name, DROPPED[name])
    place = int(np.searchsorted(trace.candidates.item_codes, item_code))
    if place == len(trace.candidates.item_codes) or trace.candidates.item_codes[place] != item_code:
        return _not_recalled(inference, query, trace, code)
    scores, shown = trace.ordered_by, trace.slate.places.tolist()
    rank = int(np.flatnonzero(np.argsort(-scores, kind="stable") == place)[0]) + 1
    by_merit = [other for other in shown if other not in trace.slate.pinned]
    score, needed = float(scores[place]), float(scores[by_merit].min()) if by_merit else None
    step, detail = _not_arranged(query, trace, place, rank, needed)
    return WhyNot(step, detail, rank, score, needed, source_views(trace, place))


def _not_arranged(query: Query, trace: Trace, place: int, rank: int, needed: float | None) -> tuple[str, str]:
    """Return the step that kept a candidate out of an answer, and in words by how much."""
    shown, last = trace.slate.places.tolist(), query.directives.n_before + query.k
    if place in shown:
        rule_id = trace.slate.pinned.get(place)
        by = f", where the rule {rule_id} pins it" if rule_id else ""
        return "shown", f"it is shown at place {shown.index(place) + 1}{by}"
    if (attribute := trace.slate.held_back.get(place)) is not None:
        return "arrange", f"its value of {attribute} has been shown as often as it may be"
    code = int(trace.candidates.item_codes[place])
    if any(pin.item_code == code and pin.position > last for pin in query.directives.pins):
        return "arrange", "a rule pins it to a place further down"
    if rank <= len(shown):
        return "arrange", "diversity, exploration or pinned items put others before it"
    missing = (needed or 0) - float(trace.ordered_by[place])
    places = f"place {rank} of {len(trace.ordered_by)} candidates, {len(shown)} are shown"
    return "rank", f"{places}; {missing:.4g} of score are missing"


DROPPED = {
    "catalogue": "it is hidden or deleted",
    "categories": "it has none of the categories that were asked for",
    "filter": "the filter that was asked for leaves it out",
    "rules": "a rule hides it",
    "history": "the user has met it already, or dislikes it",
    "exclude_items": "the request excludes it",
}
"""What each step of `Trace.steps` means where it drops an item."""


def _not_recalled(inference: RecommendationInference, query: Query, trace: Trace, code: IntArray) -> WhyNot:
    views = []
    for row, source in enumerate(inference.generator.sources):
        offer = source.ask(query.state)
        score = None if offer is None else _number(offer.scores(code)[0])
        views.append(SourceView(source.name, score, None, _lowest(trace, row)))
    missing = [
        f"{view.name} offered nothing below {view.lowest_offered:.4g} and gives it {view.score:.4g}"
        for view in views
        if view.score is not None and view.lowest_offered is not None and view.score <= view.lowest_offered
    ]
    detail = "no source offered it: " + ("; ".join(missing) or "none of them has anything to say of it")
    return WhyNot("recall", detail, sources=tuple(views))


def _lowest(trace: Trace, row: int) -> float | None:
    scores = trace.candidates.scores[row][np.isfinite(trace.candidates.ranks[row])]
    return _number(scores.min()) if len(scores) else None


def _number(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None
