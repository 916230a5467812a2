"""Ids in a path or a query, as every route takes them."""

from typing import Annotated

from fastapi import Path

from rec_engine.data.columns import MAX_ID_LENGTH

PathId = Annotated[str, Path(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[^\x00]+$")]
"""Text as it stands in the path; a slash in it is sent as %2F, or as it is."""
