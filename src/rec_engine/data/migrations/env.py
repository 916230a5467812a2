"""What Alembic runs to migrate: over the connection of `data/schema.py`, within its transaction."""

from alembic import context

from rec_engine.data.database import tables
from rec_engine.data.schema import REVISION_TABLE

context.configure(
    connection=context.config.attributes["connection"], target_metadata=tables, version_table=REVISION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
