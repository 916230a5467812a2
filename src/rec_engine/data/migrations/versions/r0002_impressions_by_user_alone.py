"""No index of the impressions' request ids: nothing asks for one, and every answer paid for it."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Drop it; a database in which somebody has done so before is as good."""
    op.drop_index("ix_impressions_request_id", table_name="impressions", if_exists=True)
