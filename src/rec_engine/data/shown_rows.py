"""How an answer stands in the log: a JSON list with a list an item. Whoever writes or reads it goes by these places."""

import polars as pl

SHOWN = pl.List(pl.List(pl.String))
"""What polars makes of it: ids may be numbers or text; as text they are those of the events."""
ITEM, SCORE, PROPENSITY, POSITION, TEAM, ASKED = range(6)
"""In an item's list: its id, score, propensity, position over all pages, who picked it, and what was asked besides.

A list is shorter where there is nothing more to say, or an earlier release wrote it; the first item alone says what was
asked.
"""
