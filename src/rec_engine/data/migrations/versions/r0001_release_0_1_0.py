"""The tables of release 0.1.0, which kept no revision: they are made, or recognised where they are."""

import sqlalchemy as sql
from alembic import op

from rec_engine.errors import StoreError

revision = "0001"
down_revision = None

# As they were then. Whatever changes later is a revision of its own, so nothing here follows the package.
_tables = sql.MetaData()
_row_number = sql.BigInteger().with_variant(sql.Integer, "sqlite")
sql.Table("log_position", _tables, sql.Column("value", sql.BigInteger, nullable=False))
sql.Table("log_identity", _tables, sql.Column("value", sql.Text, nullable=False))
sql.Table(
    "events",
    _tables,
    sql.Column("position", _row_number, primary_key=True, autoincrement=False),
    sql.Column("event_id", sql.Text, nullable=False, unique=True),
    sql.Column("user_id", sql.Text, nullable=False),
    sql.Column("item_id", sql.Text, nullable=False),
    sql.Column("event", sql.Text, nullable=False),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("value", sql.Float),
    sql.Column("request_id", sql.Text),
    sql.Column("context", sql.Text),
    sql.Index("events_of_user", "user_id", "position"),
)
sql.Table(
    "items",
    _tables,
    sql.Column("item_id", sql.Text, primary_key=True),
    sql.Column("position", sql.BigInteger, nullable=False, index=True),
    sql.Column("status", sql.Text, nullable=False),
    sql.Column("attributes", sql.Text, nullable=False),
)
sql.Table(
    "marks",
    _tables,
    sql.Column("user_hash", sql.Text, primary_key=True),
    sql.Column("kind", sql.Text, primary_key=True),
    sql.Column("position", sql.BigInteger, nullable=False, index=True),
)
sql.Table(
    "rules",
    _tables,
    sql.Column("rule_id", sql.Text, primary_key=True),
    sql.Column("definition", sql.Text, nullable=False),
)
sql.Table(
    "impressions",
    _tables,
    sql.Column("place", _row_number, primary_key=True, autoincrement=True),
    sql.Column("request_id", sql.Text, nullable=False, index=True),
    sql.Column("user_id", sql.Text, nullable=False, index=True),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("model_version", sql.Text, nullable=False),
    sql.Column("shown", sql.Text, nullable=False),
)
sql.Table(
    "experiment_versions",
    _tables,
    sql.Column("experiment_id", sql.Text, primary_key=True),
    sql.Column("version", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("action", sql.Text, nullable=False),
    sql.Column("actor", sql.Text, nullable=False),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("definition", sql.Text, nullable=False),
)
sql.Table(
    "exposures",
    _tables,
    sql.Column("experiment_id", sql.Text, primary_key=True),
    sql.Column("user_id", sql.Text, primary_key=True),
    sql.Column("arm", sql.Text, primary_key=True),
    sql.Column("phase", sql.Integer, nullable=False),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("propensity", sql.Float, nullable=False),
    sqlite_with_rowid=False,
)
sql.Table(
    "measures",
    _tables,
    sql.Column("experiment_id", sql.Text, primary_key=True),
    sql.Column("user_id", sql.Text, primary_key=True),
    sql.Column("event_id", sql.Text, primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("value", sql.Float, nullable=False),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
sql.Table(
    "experiment_looks",
    _tables,
    sql.Column("experiment_id", sql.Text, primary_key=True),
    sql.Column("look", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("statistics", sql.Text, nullable=False),
    sql.Column("result", sql.Text, nullable=False),
)
sql.Table(
    "turns",
    _tables,
    sql.Column("work", sql.Text, primary_key=True),
    sql.Column("until", sql.BigInteger, nullable=False),
)


def upgrade() -> None:
    """Make what is not there; what is there has to be what release 0.1.0 made.

    Raises:
        StoreError: if a table has other columns.
    """
    connection = op.get_bind()
    there = sql.inspect(connection)
    for table in _tables.sorted_tables:
        if not there.has_table(table.name):
            continue
        found = {column["name"] for column in there.get_columns(table.name)}
        if found != set(table.columns.keys()):
            raise StoreError(
                f"the table {table.name} has the columns {', '.join(sorted(found))}: no release made it",
                hint="give the event store a database, or a schema of PostgreSQL, of its own",
            )
    _tables.create_all(connection)
