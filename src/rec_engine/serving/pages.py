"""One page of items on its way into an answer, and how two arms of an interleaving fill one by turns."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from rec_engine.data.shown_rows import TEAM
from rec_engine.experiments.interleaving import team_draft
from rec_engine.serving.schemas import RecommendedItem


@dataclass(frozen=True, slots=True)
class PlacedItem:
    """An item of a page.

    Attributes:
        item: as answers show it.
        propensity: the probability with which it is here, given those above; None where nobody knows it.
        is_pinned: whether a rule of the shop wants it just here.
        team: the arm of an interleaving whose pick it is; None where it is nobody's.
    """

    item: RecommendedItem
    propensity: float | None
    is_pinned: bool = False
    team: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Items, best first, and how they came about.

    Attributes:
        items: of the page.
        n_eligible: items that might be shown.
        n_candidates: items that were offered.
        user_known: whether the user has a history.
        reranked: whether the ranker ordered any of it.
        degraded: parts that it had to do without.
        rule_ids: rules of the shop that hold.
    """

    items: tuple[PlacedItem, ...]
    n_eligible: int
    n_candidates: int
    user_known: bool
    reranked: bool
    degraded: tuple[str, ...]
    rule_ids: tuple[str, ...]

    def shown(self, n_before: int, asked: str | None = None) -> bytes:
        """Return the JSON for the log: [item id, score, propensity, position over all pages], and who picked it if any.

        Args:
            n_before: items on earlier pages.
            asked: what was asked besides, which the first item has after who picked it.
        """
        rows = [
            [each.item.item_id, each.item.score, each.propensity, position, *([each.team] if each.team else [])]
            for position, each in enumerate(self.items, start=n_before + 1)
        ]
        if asked and rows:
            rows[0] = [*rows[0][:TEAM], self.items[0].team, asked]
        return msgspec.json.encode(rows)


def picks_of(shown: bytes) -> list[tuple[str, str | None]]:
    """Return item id and whose pick it is, None for nobody's, of each item that `Page.shown` tells of."""
    return [(str(item_id), team[0] if team else None) for item_id, _, _, _, *team in msgspec.json.decode(shown)]


def drafted(pages: Sequence[Page], teams: Sequence[str], n: int, coins: np.random.Generator) -> Page:
    """Return a page of up to n items that two pages have filled by turns.

    What rules pin to the same place of both stays there, and is nobody's pick. How probable a draft was is not known.
    Where either page had to do without a part, the teams are not told: its clicks would speak of that.

    Args:
        pages: of the first and of the second arm, n items each where there are so many.
        teams: what the arms' picks are marked with.
        n: items wanted.
        coins: say who picks first.
    """
    first, second = pages
    by_id = [{str(each.item.item_id): each for each in page.items} for page in pages]
    settled = _pinned_in_both(first, second)
    taken = {str(each.item.item_id) for each in settled.values()}
    codes = {item_id: code for code, item_id in enumerate(dict.fromkeys([*by_id[0], *by_id[1]]))}
    rankings = [[codes[item_id] for item_id in found if item_id not in taken] for found in by_id]
    draft = team_draft(rankings[0], rankings[1], max(0, n - len(settled)), coins)
    names, is_whole = list(codes), not (first.degraded or second.degraded)
    picks = [
        _picked(by_id[team][names[code]], teams[team] if is_whole else None)
        for code, team in zip(draft.items.tolist(), draft.teams.tolist(), strict=True)
    ]
    return Page(
        items=tuple(_with_settled(picks, settled)),
        n_eligible=max(first.n_eligible, second.n_eligible),
        n_candidates=max(first.n_candidates, second.n_candidates),
        user_known=first.user_known or second.user_known,
        reranked=first.reranked or second.reranked,
        degraded=tuple(dict.fromkeys([*first.degraded, *second.degraded])),
        rule_ids=tuple(dict.fromkeys([*first.rule_ids, *second.rule_ids])),
    )


def coins_of(salt: str, user_id: object, request_id: str) -> np.random.Generator:
    """Return the coins of one answer; a client whose requests all have one id has other coins for every user."""
    drawn = hashlib.sha256(f"{salt}\x1f{user_id}\x1f{request_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(drawn[:8], "big"))


def _picked(placed: PlacedItem, team: str | None) -> PlacedItem:
    why = placed.item.why
    item = placed.item if why is None else replace(placed.item, why=why.model_copy(update={"arm": team}))
    return replace(placed, item=item, propensity=None, is_pinned=False, team=team)


def _pinned_in_both(first: Page, second: Page) -> dict[int, PlacedItem]:
    """Return place, from 0, to the item that rules want there in both."""
    return {
        place: replace(one, propensity=None)
        for place, (one, other) in enumerate(zip(first.items, second.items, strict=False))
        if one.is_pinned and other.is_pinned and str(one.item.item_id) == str(other.item.item_id)
    }


def _with_settled(picks: list[PlacedItem], settled: Mapping[int, PlacedItem]) -> list[PlacedItem]:
    items = list(picks)
    for place in sorted(settled):
        items.insert(place, settled[place])
    return items
