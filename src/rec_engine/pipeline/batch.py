"""Recommendations for many users at once, into a file: the engine without a server."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import ExternalId, IntArray
from rec_engine.data.state import COLD, state_of
from rec_engine.data.tables import read_table
from rec_engine.errors import DataError
from rec_engine.serving.inference import Query, RecommendationInference
from rec_engine.utils.config import RecommendationSettings
from rec_engine.utils.logger import with_progress

WRITERS: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    ".parquet": lambda table, path: table.write_parquet(path),
    ".csv": lambda table, path: table.write_csv(path),
    ".jsonl": lambda table, path: table.write_ndjson(path),
}
"""File ending to how it is written."""


Work = Callable[[Sequence[ExternalId], int], pl.DataFrame]
"""Users and k to the table of their recommendations."""


def recommend_to_file(  # noqa: PLR0913 - whose, how many, where to, and who works it out
    bundle: ModelBundle,
    users: str,
    k: int,
    output: Path,
    settings: RecommendationSettings,
    *,
    elsewhere: Work | None = None,
) -> pl.DataFrame:
    """Write `user_id, item_id, rank, score` for all users, or those of a file, and return the table.

    Args:
        bundle: the model.
        users: "all", or a CSV, Parquet or JSON Lines file with a column `user_id`.
        k: items a user; fewer where fewer are left that he has not seen.
        output: .parquet, .csv or .jsonl; it appears complete or not at all.
        settings: the `recommendations:` section.
        elsewhere: works the table out of the same bundle on other machines; without it this process does.

    Raises:
        DataError: if `users` or `output` cannot be used.
    """
    write = WRITERS.get(output.suffix)
    if write is None:
        raise DataError(
            f"{output}: cannot write {output.suffix or 'a file without ending'}", hint=f"one of {', '.join(WRITERS)}"
        )
    ids = bundle.user_ids.ids.to_list() if users == "all" else _user_ids(Path(users))
    if elsewhere and ids:
        table = elsewhere(ids, k)
    else:
        table = recommendations(RecommendationInference.of(bundle, settings), bundle, ids, k)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    write(table, partial)
    partial.replace(output)
    return table


def recommendations(
    inference: RecommendationInference, bundle: ModelBundle, ids: Sequence[ExternalId], k: int
) -> pl.DataFrame:
    """Return `user_id, item_id, rank, score` of these users, in their order; each is worked out for itself."""
    # Asked for at the end of the known history: the same file whenever it is made.
    now, shown = int(bundle.history.timestamps.max()) + 1, bundle.split.shown
    codes: list[IntArray] = []
    scores: list[pl.Series] = []
    for user_id in with_progress(ids, "recommending"):
        user_code = bundle.user_ids.code(user_id)
        state = state_of(bundle.history, user_code if user_code >= 0 else COLD, now, shown.of_user(user_code))
        trace = inference.recommend(Query(state, k))
        codes.append(trace.item_codes)
        scores.append(pl.Series(trace.slate_scores))
    lengths = [len(of_user) for of_user in codes]
    return pl.DataFrame(
        {
            "user_id": pl.Series(ids, strict=False).repeat_by(pl.Series(lengths)).explode(),
            "item_id": bundle.item_ids.ids[np.concatenate([*codes, np.empty(0, np.int32)]).tolist()],
            "rank": pl.Series([rank for length in lengths for rank in range(1, length + 1)], dtype=pl.Int32),
            "score": pl.concat([*scores, pl.Series([], dtype=pl.Float32)]),
        }
    )


def _user_ids(path: Path) -> list[ExternalId]:
    table = read_table(path)
    if "user_id" not in table.columns:
        raise DataError(f"{path}: there is no column user_id", hint=f"its columns are {', '.join(table.columns)}")
    ids: list[ExternalId] = table["user_id"].drop_nulls().unique(maintain_order=True).to_list()
    return ids
