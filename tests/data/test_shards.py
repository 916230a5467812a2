import errno
import os
import resource
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data import external_sort
from rec_engine.data.data_loader import load_custom
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.interactions import Interactions
from rec_engine.data.scratch import ScratchFile, files_left
from rec_engine.data.shards import data_name, is_sharded, shards_of
from rec_engine.data.splits import leave_one_out, random_split, temporal_split
from rec_engine.errors import DataError
from rec_engine.models.batches import epoch_batches, windows
from rec_engine.utils.config import DataSettings

PROPERTY = settings(max_examples=25, deadline=None)  # a busy machine is no failure
LENIENT = DataSettings(max_rejected=1.0)

NUMBERS = ["1", "2", "10", "30"]
TEXTS = ["1", "2", "10", "007", "b"]


def tables(ids: list[str]) -> st.SearchStrategy[pl.DataFrame]:
    row = st.tuples(
        st.sampled_from([*ids, None]),
        st.sampled_from(ids),
        st.sampled_from([5, 5, 6, 7, 8, 9, 1_600_000_000_000, -1]),
        st.sampled_from(["view", "purchase", "dislike", "flew", None]),
        st.sampled_from([None, 0.1, 0.1 + 1e-12, 3.0]),
        st.sampled_from([None, "e1", "e2"]),
    )
    names = ["user_id", "item_id", "ts", "event", "value", "event_id"]
    types = pl.Schema(dict(zip(names, [pl.String, pl.String, pl.Int64, pl.String, pl.Float64, pl.String], strict=True)))
    good = ("1", "2", 5, "view", 1.0, None)
    few = st.lists(row, min_size=1, max_size=12)  # so that rows come again, in other batches and shards too
    rows = few.flatmap(lambda pool: st.lists(st.sampled_from(pool), max_size=40))
    return rows.map(lambda drawn: pl.DataFrame([good, *drawn], types, orient="row"))


def write_shards(folder: Path, table: pl.DataFrame, cuts: list[int]) -> Path:
    """Write the rows between one cut and the next to a file each; some of them are empty."""
    bounds = [0, *sorted(min(cut, len(table)) for cut in cuts), len(table)]
    for place, first in enumerate(bounds[:-1]):
        table[first : bounds[place + 1]].write_parquet(folder / f"part-{place:03}.parquet")
    return folder


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Work on a few rows at once, so that small tables take many steps."""
    patch.setattr("rec_engine.data.shards.ROWS_A_BUCKET", 5)
    patch.setattr("rec_engine.data.shards.MIN_COMPACTED", 3)
    patch.setattr("rec_engine.data.table_batches.BATCH_ROWS", 4)
    for module in ("scratch", "interactions"):
        patch.setattr(f"rec_engine.data.{module}.BLOCK_ROWS", 3)


def check_same(found: RecommendationDataset, expected: RecommendationDataset) -> None:
    """Everything is the same to the bit: ids, interactions, splits and training batches."""
    assert found.user_ids.ids.equals(expected.user_ids.ids, check_dtypes=True)
    assert found.item_ids.ids.equals(expected.item_ids.ids, check_dtypes=True)
    assert found.fingerprint == expected.fingerprint
    for split in (leave_one_out, random_split):
        assert split(found.interactions).fingerprint == split(expected.interactions).fingerprint
    assert split_in_time(found) == split_in_time(expected)
    pieces, same_pieces = (windows(leave_one_out(each.interactions).train, 3) for each in (found, expected))
    batches, same_batches = (epoch_batches(each, 2, np.random.default_rng(0)) for each in (pieces, same_pieces))
    for batch, same in zip(batches, same_batches, strict=True):
        for name in ("user_codes", "inputs", "targets", "times", "target_times"):
            assert getattr(batch, name).equal(getattr(same, name))


def split_in_time(dataset: RecommendationDataset) -> str:
    try:
        return temporal_split(dataset.interactions).fingerprint
    except DataError as error:
        return str(error)


@PROPERTY
@given(
    table=st.sampled_from([NUMBERS, TEXTS]).flatmap(tables),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    with_event_ids=st.booleans(),
)
def test_shards_make_the_same_dataset_as_one_file(
    tmp_path_factory: pytest.TempPathFactory, table: pl.DataFrame, cuts: list[int], *, with_event_ids: bool
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    rejects, same_rejects = folder / "rejects.csv", folder / "whole.csv"
    table = table if with_event_ids else table.drop("event_id")
    table.write_parquet(folder / "whole.parquet")
    (folder / "events").mkdir()
    write_shards(folder / "events", table, cuts)
    users = folder / "users.csv"
    users.write_text("user_id,age\n30,3\n4,4\n", encoding="utf-8")
    expected = load_custom(folder / "whole.parquet", None, users, settings=LENIENT, rejects_path=same_rejects)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        found = load_custom(
            folder / "events",
            None,
            users,
            settings=LENIENT,
            rejects_path=rejects,
            scratch=tmp_path_factory.getbasetemp(),
        )
        check_same(found, expected)
    reasons, same_reasons = (
        pl.read_csv(path)["reason"].to_list() if path.exists() else [] for path in (rejects, same_rejects)
    )
    assert reasons == same_reasons


def table_of(n: int = 300) -> pl.DataFrame:
    """No user meets two things at one moment."""
    rng = np.random.default_rng(0)
    moments = 1_600_000_000 + rng.permutation(n)
    return pl.DataFrame({"user_id": rng.integers(0, 20, n), "item_id": rng.integers(0, 99, n), "timestamp": moments})


def test_the_order_of_shards_and_of_their_rows_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of()
    shrink(monkeypatch)
    folder = write_shards(tmp_path, table.sample(fraction=1, shuffle=True, seed=3), [30, 31, 150])
    check_same(load_custom(folder, scratch=tmp_path), RecommendationDataset(table))
    check_same(load_custom(folder / "part-*.parquet", scratch=tmp_path), RecommendationDataset(table))


def test_the_interactions_and_their_parts_lie_in_files_that_leave_nothing(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, table_of(), [70])
    before = sorted(tmp_path.iterdir())
    dataset = load_custom(folder, scratch=tmp_path)
    split = temporal_split(dataset.interactions)
    for part in (dataset.interactions, split.train, split.test, split.train.where(split.train.timestamps > 0)):
        assert on_disk_of(part.item_codes) == on_disk_of(part.user_codes) == tmp_path
    assert sorted(tmp_path.iterdir()) == before


def on_disk_of(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Path | None:
    base: object = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    return Path(str(base.filename)).parent if isinstance(base, np.memmap) else None


def test_a_folder_is_read_with_those_below_it_but_for_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b/1.parquet", "a.parquet", "_temporary/1.parquet", ".b.parquet", "_SUCCESS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert shards_of(tmp_path) == [tmp_path / "a.parquet", tmp_path / "b/1.parquet"]
    assert shards_of(tmp_path / "?" / "*.parquet") == [tmp_path / "b/1.parquet"]
    assert is_sharded(tmp_path)
    assert is_sharded(tmp_path / "*.parquet")
    assert not is_sharded(tmp_path / "a.parquet")


def test_links_to_folders_are_followed_once_and_folders_called_like_files_are_folders(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "events", tmp_path / "elsewhere"
    for name in ("events/day.parquet/1.parquet", "events/B.PARQUET", "elsewhere/2.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (folder / "far").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    expected = [folder / "B.PARQUET", folder / "day.parquet/1.parquet", folder / "far/2.parquet"]
    assert shards_of(folder) == expected
    assert shards_of(folder / "**" / "**" / "*.parquet")[:1] == [folder / "day.parquet/1.parquet"]


def test_a_shard_with_brackets_in_its_name_is_read(tmp_path: Path) -> None:
    GOOD.write_parquet(tmp_path / "p[1].parquet")
    assert len(load_custom(tmp_path, scratch=tmp_path).interactions) == 1


def test_where_few_files_may_be_open_there_are_fewer_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rec_engine.data.shards.ROWS_A_BUCKET", 1)
    users = np.arange(400)
    table = pl.DataFrame({"user_id": users, "item_id": users % 9, "timestamp": users})
    table.write_parquet(tmp_path / "part.parquet")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - files_left() + 60, hard))
    try:
        found = load_custom(tmp_path, scratch=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    check_same(found, RecommendationDataset(table, None, None))


def test_short_files_in_the_order_of_users_fill_buckets_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each such file the first row is of one of the first users."""
    monkeypatch.setattr("rec_engine.data.shards.ROWS_A_BUCKET", 300)
    monkeypatch.setattr("rec_engine.data.shards.SAMPLES_A_BUCKET", 10)
    rng, sizes, sort = np.random.default_rng(0), list[int](), external_sort._sorted
    for number in range(60):
        users = np.sort(rng.integers(0, 5_000, 50))
        table = pl.DataFrame({"user_id": users, "item_id": rng.integers(0, 9, 50), "timestamp": np.arange(50) + number})
        table.write_parquet(tmp_path / f"{number:02}.parquet")

    def noted(file: ScratchFile, first_user: int, n_users: int, how: DataSettings) -> Interactions:
        rows = sort(file, first_user, n_users, how)
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(external_sort, "_sorted", noted)
    load_custom(tmp_path, scratch=tmp_path)
    assert len(sizes) == 10
    assert max(sizes) < 3 * np.mean(sizes)


def test_bad_rows_that_come_first_are_a_share_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rec_engine.data.shards.MAX_REJECTS", 2)
    good = pl.concat([GOOD] * 200).with_columns(timestamp=pl.int_range(5, 205, dtype=pl.Int64))
    good.head(9).with_columns(timestamp=pl.lit(-3, pl.Int64)).write_parquet(tmp_path / "a.parquet")
    good.write_parquet(tmp_path / "b.parquet")
    assert len(load_custom(tmp_path, scratch=tmp_path, rejects_path=tmp_path / "rejects.csv").interactions) == 200


@pytest.mark.parametrize("pattern", ["", "*.parquet", "**/part-?.parquet", "day=1/.."])
def test_data_are_called_by_their_folder(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "day=1").mkdir()
    assert data_name(tmp_path / pattern) == tmp_path.name
    assert data_name(tmp_path / "a.parquet") == "a.parquet"


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "events[1].parquet").touch()
    assert not is_sharded(tmp_path / "events[1].parquet")


@pytest.mark.parametrize("pattern", ["", "*.parquet", "*", "absent"])
def test_where_there_is_no_shard_it_is_said(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "events.csv").touch()
    with pytest.raises(DataError, match=r"there is no Parquet file|events.csv: is not a Parquet file"):
        load_custom(tmp_path / pattern)


GOOD = pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [5]})


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (GOOD.with_columns(item_id=pl.lit("7")), "the column item_id is String, in .*a.parquet it is Int64"),
        (GOOD.with_columns(event=pl.lit("view")), "the column event is String, in .*a.parquet it is missing"),
        (GOOD.drop("timestamp"), "interactions: there is no column timestamp"),
    ],
    ids=["type", "surplus", "lacking"],
)
def test_a_shard_that_does_not_fit_the_others_is_named(tmp_path: Path, other: pl.DataFrame, complaint: str) -> None:
    GOOD.write_parquet(tmp_path / "a.parquet")
    other.write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=f"b.parquet: {complaint}"):
        load_custom(tmp_path)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    GOOD.write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"b.parquet: not readable as Parquet"):
        load_custom(tmp_path)


def test_ids_of_a_float_column_in_the_first_shard_are_refused(tmp_path: Path) -> None:
    GOOD.with_columns(pl.col("user_id").cast(pl.Float32)).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet: user_id is Float32") as caught:
        load_custom(tmp_path)
    assert caught.value.hint == "ids are integers or text"


def test_too_many_bad_rows_are_refused_with_the_first_one_named(tmp_path: Path) -> None:
    GOOD.write_parquet(tmp_path / "a.parquet")
    GOOD.with_columns(timestamp=pl.lit(-3, pl.Int64)).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r'b.parquet:1: timestamp "-3" is neither seconds nor ISO 8601'):
        load_custom(tmp_path, rejects_path=tmp_path / "rejects.csv")
    listed = pl.read_csv(tmp_path / "rejects.csv")
    assert listed.rows() == [(str(tmp_path / "b.parquet"), 1, listed["reason"][0], listed["content"][0])]


def test_shards_without_a_row_are_no_data(tmp_path: Path) -> None:
    GOOD.clear().write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="there is not one row"):
        load_custom(tmp_path)


def test_shards_without_a_good_row_are_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    pl.concat([GOOD] * 12).with_columns(timestamp=pl.lit(-3, pl.Int64)).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="there is not one interaction in the data"):
        load_custom(tmp_path, settings=LENIENT, rejects_path=tmp_path / "rejects.csv")


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    GOOD.write_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="cannot be laid down there: No space left on device"):
        load_custom(tmp_path, scratch=tmp_path)


def test_rows_of_other_shards_are_the_same_only_if_every_digit_and_id_is(tmp_path: Path) -> None:
    first = GOOD.with_columns(value=pl.lit(0.1), event_id=pl.lit("e1"))
    others = [first, first.with_columns(value=pl.lit(0.1 + 1e-12)), first.with_columns(event_id=pl.lit("e2"))]
    for place, shard in enumerate([first, *others]):
        shard.write_parquet(tmp_path / f"{place}.parquet")
    assert len(load_custom(tmp_path, scratch=tmp_path).interactions) == len(others)
