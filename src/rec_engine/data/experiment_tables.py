"""The tables of experiments beside the log: what was decided, who met which arm, what was measured, what was found."""

import sqlalchemy as sql

from rec_engine.data.database import impression_rows, tables

version_rows = sql.Table(
    "experiment_versions",
    tables,
    sql.Column("experiment_id", sql.Text, primary_key=True),
    sql.Column("version", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("action", sql.Text, nullable=False),
    sql.Column("actor", sql.Text, nullable=False),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("definition", sql.Text, nullable=False),
)
"""Every state of every experiment, and who brought it about: rows are added, none is changed."""
# The rows of a user lie together: what is asked of them is always asked user by user.
exposure_rows = sql.Table(
    "exposures",
    tables,
    sql.Column("experiment_id", sql.Text, primary_key=True),
    sql.Column("user_id", sql.Text, primary_key=True),
    sql.Column("arm", sql.Text, primary_key=True),
    sql.Column("phase", sql.Integer, nullable=False),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("propensity", sql.Float, nullable=False),
    sqlite_with_rowid=False,
)
"""The first time that a user met an arm; a user with two rows met two arms."""
measure_rows = sql.Table(
    "measures",
    tables,
    sql.Column("experiment_id", sql.Text, primary_key=True),
    sql.Column("user_id", sql.Text, primary_key=True),
    sql.Column("event_id", sql.Text, primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("value", sql.Float, nullable=False),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""What was recorded of a user for an experiment; the same event id twice is the same event."""
look_rows = sql.Table(
    "experiment_looks",
    tables,
    sql.Column("experiment_id", sql.Text, primary_key=True),
    sql.Column("look", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("statistics", sql.Text, nullable=False),
    sql.Column("result", sql.Text, nullable=False),
)
"""What each look at an experiment found."""

turn_rows = sql.Table(
    "turns",
    tables,
    sql.Column("work", sql.Text, primary_key=True),
    sql.Column("until", sql.BigInteger, nullable=False),
)
"""Work that one of all workers does now and then, and until when (Unix seconds) it is done."""
PRUNED, PRUNED_IMPRESSIONS = "pruned", "pruned impressions"
"""Names of the work whose rows say before when events, and what was shown, were removed."""


def forget_shown(connection: sql.Connection, user_id: str) -> None:
    """Delete what a user was shown, which arms he met and what was measured of him."""
    connection.execute(sql.delete(impression_rows).where(impression_rows.c.user_id == user_id))
    # By experiment and user, as their keys go: an index of users alone would cost every record more than this does.
    experiments = sql.select(version_rows.c.experiment_id)
    for table in (exposure_rows, measure_rows):
        is_his = table.c.experiment_id.in_(experiments) & (table.c.user_id == user_id)
        connection.execute(sql.delete(table).where(is_his))
