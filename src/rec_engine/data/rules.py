"""The rules of the shop in the log: they are few, so whoever hears that one has changed reads all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sql

from rec_engine.data.database import mark_rows, rule_rows

CHANGED = "rules"
"""Kind of the one mark that says at which position of the log a rule was changed last."""
# One statement, so that the position and the rules are of the same moment.
STANDING_RULES: sql.Select[Any] = (
    sql.select(mark_rows.c.position, rule_rows.c.rule_id, rule_rows.c.definition)
    .join_from(mark_rows, rule_rows, sql.true(), isouter=True)
    .where(mark_rows.c.kind == CHANGED)
    .order_by(rule_rows.c.rule_id)
)


@dataclass(frozen=True, slots=True)
class RuleChange:
    """What a rule is from now on.

    Attributes:
        rule_id: its name.
        definition: JSON; None for a rule that is no more.
    """

    rule_id: str
    definition: str | None


@dataclass(frozen=True, slots=True)
class StoredRules:
    """All rules as they are at one position of the log.

    Attributes:
        version: position of the latest change of a rule, 0 where there never was one.
        definitions: rule id to JSON.
    """

    version: int = 0
    definitions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]]) -> "StoredRules":
        """Return what the rows of STANDING_RULES say."""
        definitions = {rule_id: definition for _, rule_id, definition in rows if rule_id is not None}
        return cls(rows[0][0] if rows else 0, definitions)


def write_rule(connection: sql.Connection, change: RuleChange) -> None:
    """Write what a rule is from now on; that there was a change is marked by the caller."""
    connection.execute(sql.delete(rule_rows).where(rule_rows.c.rule_id == change.rule_id))
    if change.definition is not None:
        connection.execute(sql.insert(rule_rows).values(rule_id=change.rule_id, definition=change.definition))
