"""Experiments in the log's database: their versions, who met which arm, what was recorded of him, what looks found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import sqlalchemy as sql
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import IntegrityError

from rec_engine.data.database import mark_rows, name_of, named, open_engines, position_row, transaction
from rec_engine.data.events import ERASED, user_hash
from rec_engine.data.experiment_tables import (
    PRUNED,
    PRUNED_IMPRESSIONS,
    exposure_rows,
    look_rows,
    measure_rows,
    turn_rows,
    version_rows,
)
from rec_engine.data.schema import prepare
from rec_engine.errors import ConflictError

_AT_ONCE = 500
_ERASED_SINCE = sql.select(mark_rows.c.user_hash, mark_rows.c.position).where(
    mark_rows.c.kind == ERASED, mark_rows.c.position > sql.bindparam("oldest")
)
_Row = sql.Row[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class ExperimentVersion:
    """One state of an experiment, and how it came about.

    Attributes:
        experiment_id: its name.
        version: from 1, without gaps.
        timestamp: Unix seconds at which it was written.
        action: what was done, such as "create" or "start".
        actor: who did it.
        reason: why, in his words.
        definition: JSON of the experiment.
    """

    experiment_id: str
    version: int
    timestamp: int
    action: str
    actor: str
    reason: str
    definition: str


class Exposure(NamedTuple):
    """A user who met an arm; a tuple, as one is made while a request waits.

    Attributes:
        experiment_id: of the experiment.
        user_id: as text.
        arm: its name.
        phase: which allocation was in force, from 0.
        timestamp: Unix seconds.
        propensity: with which probability he was given this arm.
        known: position of the log as the writer knew it; it is not written for a user who was erased since.
    """

    experiment_id: str
    user_id: str
    arm: str
    phase: int
    timestamp: int
    propensity: float
    known: int


class Measure(NamedTuple):
    """Something of a user that was counted or summed.

    Attributes:
        experiment_id: that it was recorded for.
        user_id: as text.
        event_id: the same id of a user twice is the same event.
        name: of the total that it adds to, such as "clicks".
        value: what it adds.
        timestamp: Unix seconds at which it happened.
        known: position of the log as the writer knew it; it is not written for a user who was erased since.
    """

    experiment_id: str
    user_id: str
    event_id: str
    name: str
    value: float
    timestamp: int
    known: int


@dataclass(frozen=True, slots=True)
class TakenLook:
    """What one look at an experiment found.

    Attributes:
        experiment_id: of the experiment.
        look: from 1.
        timestamp: Unix seconds up to which it measured.
        version: of the experiment at that moment.
        statistics: JSON of what later looks need to know of it.
        result: JSON of the whole analysis.
    """

    experiment_id: str
    look: int
    timestamp: int
    version: int
    statistics: str
    result: str


Record = Exposure | Measure


class ExperimentLog:
    """What the log's database holds of experiments; it is made if there is none.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database cannot be reached, or its tables are of another revision.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._writer, self._reader, self._files = open_engines(url)
        self.name = name_of(self._writer.url)
        insert: Any = sqlite_insert if self._files else postgresql_insert
        self._exposures = _Bulk.of(_earliest(insert(exposure_rows)), self._writer)
        self._measures = _Bulk.of(insert(measure_rows).on_conflict_do_nothing(), self._writer)
        self._insert_turn = _if_due(insert(turn_rows))
        with named(self.name):
            prepare(self._writer)

    def append(self, version: ExperimentVersion) -> None:
        """Write the next state of an experiment; when it returns it is on disk.

        Raises:
            ConflictError: if somebody else has written that version meanwhile.
            StoreError: if the database fails.
        """
        self._insert_once(version_rows, version)

    def standing(self) -> list[ExperimentVersion]:
        """Return the latest version of each experiment, by id."""
        newest = (
            sql.select(version_rows.c.experiment_id, sql.func.max(version_rows.c.version).label("version"))
            .group_by(version_rows.c.experiment_id)
            .subquery()
        )
        latest = sql.select(version_rows).join(
            newest,
            (version_rows.c.experiment_id == newest.c.experiment_id) & (version_rows.c.version == newest.c.version),
        )
        return [ExperimentVersion(*row) for row in self._read(latest.order_by(version_rows.c.experiment_id))]

    def versions(self, experiment_id: str) -> list[ExperimentVersion]:
        """Return every version of an experiment, the first one first; none if there is no such experiment."""
        its = sql.select(version_rows).where(version_rows.c.experiment_id == experiment_id)
        return [ExperimentVersion(*row) for row in self._read(its.order_by(version_rows.c.version))]

    def n_versions(self) -> int:
        """Return how many versions all experiments have together: it grows with every change."""
        return int(self._read(sql.select(sql.func.count()).select_from(version_rows))[0][0])

    def write(self, records: Sequence[Record]) -> None:
        """Write exposures and measures, all or none; when it returns they are on disk.

        Raises:
            StoreError: if the database fails; nothing is written then.
        """
        for start in range(0, len(records), _AT_ONCE * 10):
            some = records[start : start + _AT_ONCE * 10]
            with named(self.name), transaction(self._writer, self._files) as connection:
                kept = _without_erased(connection, some)
                # In the order of their keys: workers that write the same rows must not wait for each other crosswise.
                exposures = sorted({each for each in kept if isinstance(each, Exposure)})
                measures = sorted(each for each in kept if isinstance(each, Measure))
                if exposures:
                    self._exposures.execute(connection, exposures)
                if measures:
                    self._measures.execute(connection, measures)

    def position(self) -> int:
        """Return how far the log has got."""
        return int(self._read(sql.select(position_row.c.value))[0][0])

    def arms_met(self, experiment_id: str) -> dict[str, str]:
        """Return user id to the arm that he met first, of all who met one."""
        its = sql.select(exposure_rows.c.user_id, exposure_rows.c.arm).where(
            exposure_rows.c.experiment_id == experiment_id
        )
        latest_first = its.order_by(exposure_rows.c.timestamp.desc(), exposure_rows.c.arm.desc())
        return {row[0]: row[1] for row in self._read(latest_first)}

    def add_look(self, look: TakenLook) -> None:
        """Write what a look found.

        Raises:
            ConflictError: if somebody else has looked meanwhile.
            StoreError: if the database fails.
        """
        self._insert_once(look_rows, look)

    def looks(self, experiment_id: str) -> list[TakenLook]:
        """Return what all looks at an experiment found, the first one first."""
        its = sql.select(look_rows).where(look_rows.c.experiment_id == experiment_id)
        return [TakenLook(*row) for row in self._read(its.order_by(look_rows.c.look))]

    def take_turn(self, work: str, now: int, seconds: int) -> bool:
        """Return whether this worker is to do some work now; the others are not, for so many seconds from now.

        Raises:
            StoreError: if the database fails.
        """
        taken = {"work": work, "until": now + seconds, "now": now, "seconds": seconds}
        with named(self.name), transaction(self._writer, self._files) as connection:
            return connection.execute(self._insert_turn, taken).first() is not None

    def pruned_before(self, *, with_impressions: bool) -> int:
        """Return before when (Unix seconds) events were removed from the log; 0 where none were.

        Args:
            with_impressions: whether what was shown is needed as well, so that the later of both moments counts.
        """
        marks = (PRUNED, PRUNED_IMPRESSIONS) if with_impressions else (PRUNED,)
        found = self._read(sql.select(sql.func.max(turn_rows.c.until)).where(turn_rows.c.work.in_(marks)))
        return int(found[0][0] or 0)

    def close(self) -> None:
        """Give back all connections."""
        if self._files:
            self._files.close()
        self._writer.dispose()
        self._reader.dispose()

    def _insert_once(self, table: sql.Table, row: ExperimentVersion | TakenLook) -> None:
        with named(self.name):
            try:
                with transaction(self._writer, self._files) as connection:
                    connection.execute(sql.insert(table), _fields(row))
            except IntegrityError:
                raise ConflictError(
                    f"experiment {row.experiment_id!r} has changed meanwhile", hint="look at it again, and try again"
                ) from None

    def _read(self, statement: sql.Select[Any], values: Mapping[str, object] | None = None) -> Sequence[_Row]:
        with named(self.name), self._reader.connect() as connection:
            return connection.execute(statement, values or {}).all()


@dataclass(frozen=True, slots=True)
class _Bulk:
    """An insert of many rows whose values go to the driver as they are.

    What SQLAlchemy would do for every value of every row is most of the work otherwise, and keeps those who record
    waiting for the interpreter.
    """

    statement: str
    names: tuple[str, ...]
    is_positional: bool

    @classmethod
    def of(cls, insert: Any, engine: sql.Engine) -> "_Bulk":  # noqa: ANN401 - each database has an insert of its own
        compiled = insert.compile(engine)
        return cls(compiled.string, tuple(compiled.positiontup or compiled.params), bool(compiled.positional))

    def execute(self, connection: sql.Connection, rows: Sequence[Record]) -> None:
        values = map(attrgetter(*self.names), rows)
        if self.is_positional:
            connection.exec_driver_sql(self.statement, list(values))
        else:
            connection.exec_driver_sql(self.statement, [dict(zip(self.names, each, strict=True)) for each in values])


def _earliest(insert: Any) -> Any:  # noqa: ANN401 - each database has an insert of its own
    """Return an insert that keeps the earlier of two times at which a user met an arm: workers write out of order."""
    changed = {name: insert.excluded[name] for name in ("timestamp", "phase", "propensity")}
    return insert.on_conflict_do_update(
        index_elements=["experiment_id", "user_id", "arm"],
        set_=changed,
        where=insert.excluded.timestamp < exposure_rows.c.timestamp,
    )


def _if_due(insert: Any) -> Any:  # noqa: ANN401 - each database has an insert of its own
    """Return an insert that takes a turn that is over, or that somebody took whose clock was wrong."""
    now, seconds = sql.bindparam("now", type_=sql.BigInteger), sql.bindparam("seconds", type_=sql.BigInteger)
    is_over = (turn_rows.c.until <= now) | (turn_rows.c.until > now + seconds)
    changed = insert.on_conflict_do_update(
        index_elements=["work"], set_={"until": insert.excluded.until}, where=is_over
    )
    return changed.returning(turn_rows.c.work)


def _without_erased(connection: sql.Connection, records: Sequence[Record]) -> list[Record]:
    """Return the records of users who were not erased since they were made."""
    oldest = min((record.known for record in records), default=0)
    found = connection.execute(_ERASED_SINCE, {"oldest": oldest}).all()
    if not found:
        return list(records)
    position_by_hash: dict[str, int] = {row[0]: row[1] for row in found}
    return [record for record in records if position_by_hash.get(user_hash(record.user_id), 0) <= record.known]


def _fields(row: object) -> dict[str, object]:
    names: tuple[str, ...] = row.__slots__  # type: ignore[attr-defined]
    return {name: getattr(row, name) for name in names}
