"""The rules of the shop: which of them are in force at a moment, and what they ask of one answer."""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence

from pydantic import ValidationError

from rec_engine.data.dataset import ExternalId
from rec_engine.data.rules import StoredRules
from rec_engine.errors import DataError, NotFoundError
from rec_engine.retrieval.catalogue import Catalogue
from rec_engine.retrieval.filters import Eligible
from rec_engine.serving.directives import NO_DIRECTIVES, Directives, Hiding, Pin, Shift
from rec_engine.serving.rule_schemas import MAX_RULES, RULE, HideRule, PinRule, Rule, RuleView, ShiftRule, State
from rec_engine.serving.segments import Segments
from rec_engine.utils.logger import get_logger

NAMED = 3

logger = get_logger(__name__)


class RuleBook:
    """All rules, read against the items and users of one model. It is made anew when a rule changes.

    Args:
        rules: rule id to rule.
        catalogue: the items.
        segments: the users.
        version: position of the log of the latest change of a rule.
        unreadable: ids of rules that ask nothing, because this release cannot read them.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        catalogue: Catalogue,
        segments: Segments,
        version: int = 0,
        unreadable: frozenset[str] = frozenset(),
    ) -> None:
        self.rules = dict(sorted(rules.items(), key=lambda named: (-named[1].priority, named[0])))
        self.version = version
        self.unreadable = unreadable
        self._catalogue = catalogue
        self._segments = segments
        # Between two of these moments the rules in force are the same.
        moments = {moment for rule in self.rules.values() for moment in (rule.starts_at, rule.ends_at)}
        self._moments = sorted(moment for moment in moments if moment is not None)
        self._in_force: dict[int, tuple[str, ...]] = {}
        self._wishes_by_rule: dict[str, tuple[Pin | Shift | Hiding, ...]] = {}
        self._complained: set[str] = set()

    @classmethod
    def read(cls, stored: StoredRules, catalogue: Catalogue, segments: Segments) -> "RuleBook":
        """Return the rules of the log; one that cannot be read, as of a later release, is left out."""
        rules, unreadable = dict[str, Rule](), set[str]()
        for rule_id, definition in stored.definitions.items():
            try:
                rules[rule_id] = RULE.validate_json(definition)
            except ValidationError as error:
                unreadable.add(rule_id)
                logger.warning("rule %s asks nothing until it is put again, it cannot be read: %s", rule_id, error)
        return cls(rules, catalogue, segments, stored.version, frozenset(unreadable))

    def items_changed(self) -> None:
        """Read what rules ask of items again once it is wanted; all else stays, with what was complained of."""
        self._wishes_by_rule = {}

    def changed(self, put: Mapping[str, Rule], deleted: Collection[str] = ()) -> "RuleBook":
        """Return the rules as they would be after these changes.

        Raises:
            NotFoundError: if one of those that are put names an attribute that there is not.
            DataError: if one of them does not fit the attributes' types, or there are too many.
        """
        rules = {name: rule for name, rule in (self.rules | dict(put)).items() if name in put or name not in deleted}
        if len(rules) > max(MAX_RULES, len(self.rules)):
            raise DataError(f"there are at most {MAX_RULES} rules", hint="delete those that are over")
        for rule in put.values():
            self._check(rule)
        return RuleBook(rules, self._catalogue, self._segments, self.version)

    def in_force(self, now: int) -> tuple[str, ...]:
        """Return the ids of the rules whose schedule holds at a moment (Unix seconds), the highest priority first."""
        segment = bisect_right(self._moments, now)
        if segment not in self._in_force:
            self._in_force[segment] = tuple(
                name for name, rule in self.rules.items() if _state(rule, now) == "in force"
            )
        return self._in_force[segment]

    def directives(
        self, rule_ids: Sequence[str], categories: Sequence[str], user_code: int, n_before: int
    ) -> Directives:
        """Return what rules ask of one answer. One that names what there is not any more asks nothing.

        Args:
            rule_ids: those in force.
            categories: that the request asks for.
            user_code: who asks.
            n_before: items on earlier pages.
        """
        if not rule_ids:
            return NO_DIRECTIVES
        asked = {_folded(name) for name in categories}
        holding = tuple(name for name in rule_ids if self._holds(name, asked, user_code))
        wishes = [wish for name in holding for wish in self._wishes(name)]
        return Directives(
            rule_ids=holding,
            pins=tuple(wish for wish in wishes if isinstance(wish, Pin)),
            shifts=tuple(wish for wish in wishes if isinstance(wish, Shift)),
            hidings=tuple(wish for wish in wishes if isinstance(wish, Hiding)),
            n_before=n_before,
        )

    def view(self, rule_id: str, now: int) -> RuleView:
        """Return a rule and how it stands at a moment."""
        rule = self.rules[rule_id]
        return RuleView(rule_id=rule_id, rule=rule, state=_state(rule, now), problem=self._problem(rule))

    def _holds(self, rule_id: str, asked: set[str], user_code: int) -> bool:
        scope = self.rules[rule_id].applies_to
        if scope.categories and asked.isdisjoint(map(_folded, scope.categories)):
            return False
        try:
            return scope.users is None or self._segments.has(user_code, scope.users)
        except (NotFoundError, DataError) as error:
            self._complain(rule_id, error)
            return False

    def _wishes(self, rule_id: str) -> tuple[Pin | Shift | Hiding, ...]:
        if rule_id not in self._wishes_by_rule:
            try:
                self._wishes_by_rule[rule_id] = self._read_wishes(rule_id, self.rules[rule_id])
            except (NotFoundError, DataError) as error:
                self._complain(rule_id, error)
                self._wishes_by_rule[rule_id] = ()
        return self._wishes_by_rule[rule_id]

    def _read_wishes(self, rule_id: str, rule: Rule) -> tuple[Pin | Shift | Hiding, ...]:
        if isinstance(rule, PinRule):
            positions = rule.positions or range(1, len(rule.items) + 1)
            placed = zip(map(self._catalogue.code, rule.items), positions, strict=True)
            return tuple(Pin(rule_id, code, position) for code, position in placed if code >= 0)
        if isinstance(rule, HideRule):
            return (Hiding(rule_id, self._select(rule)),)
        return (Shift(rule_id, self._select(rule), rule.by if rule.action == "boost" else -rule.by),)

    def _select(self, rule: ShiftRule | HideRule) -> Eligible:
        if rule.filter is not None:
            return self._catalogue.attributes.matching(rule.filter)
        return Eligible.of_codes(self._catalogue.codes(rule.items), self._catalogue.capacity)

    def _problem(self, rule: Rule) -> str | None:
        try:
            self._check(rule)
        except (NotFoundError, DataError) as error:
            return str(error)
        unknown = [item_id for item_id in rule.items if self._catalogue.code(item_id) < 0]
        return f"nobody knows {_some(unknown)}" if unknown else None

    def _check(self, rule: Rule) -> None:
        if rule.applies_to.users is not None:
            self._segments.has(0, rule.applies_to.users)
        if not isinstance(rule, PinRule):
            self._select(rule)

    def _complain(self, rule_id: str, error: NotFoundError | DataError) -> None:
        if rule_id not in self._complained:
            self._complained.add(rule_id)
            logger.warning("rule %s asks nothing: %s", rule_id, error)


def _state(rule: Rule, now: int) -> State:
    if rule.starts_at is not None and now < rule.starts_at:
        return "to come"
    return "over" if rule.ends_at is not None and now >= rule.ends_at else "in force"


def _folded(category: str) -> str:
    return category.strip().casefold()


def _some(item_ids: Sequence[ExternalId]) -> str:
    """Return the first few ids in words."""
    named = ", ".join(repr(item_id) for item_id in item_ids[:NAMED])
    return named if len(item_ids) <= NAMED else f"{named} and {len(item_ids) - NAMED} more"
