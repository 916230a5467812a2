"""The schema of the log: from every release to this one, and never by accident."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from conftest import empty_database, store_rows
from releases import fill_with_release

from rec_engine import cli
from rec_engine.data import database, schema
from rec_engine.data.database import opened, tables
from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.data.experiment_log import ExperimentLog
from rec_engine.errors import DataError, StoreError


@pytest.fixture
def old_url(store_url: str) -> str:
    """A store as release 0.1.0 left it, with a few rows in every table."""
    fill_with_release(store_url, "0.1.0")
    return store_url


def differences(url: str) -> list[object]:
    with opened(url) as (_, _, reader, _), reader.connect() as connection:
        options = {"version_table": schema.REVISION_TABLE, "compare_type": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables))


def change(url: str, statement: str) -> None:
    with opened(url) as (_, writer, _, _), writer.begin() as connection:
        connection.exec_driver_sql(statement)


def test_the_revisions_are_those_of_the_migrations() -> None:
    found = ScriptDirectory(str(schema._MIGRATIONS)).walk_revisions()
    assert tuple(each.revision for each in found)[::-1] == schema.REVISIONS


def test_a_store_that_is_made_has_the_tables_of_one_that_was_migrated_from_nothing(store_url: str) -> None:
    with opened(store_url) as (_, writer, _, _), writer.begin() as connection:
        schema.upgrade(connection, schema.HEAD)
    assert differences(store_url) == []
    migrated = definitions(store_url)
    for name in migrated:
        change(store_url, f"DROP TABLE {name}")
    EventStore(store_url).close()
    assert differences(store_url) == []
    assert definitions(store_url) == migrated


def definitions(url: str) -> dict[str, object]:
    with opened(url) as (_, _, reader, _):
        there = sql.inspect(reader)
        return {
            name: (
                sorted((each["name"], str(each["type"]), each["nullable"]) for each in there.get_columns(name)),
                there.get_pk_constraint(name)["constrained_columns"],
                sorted((str(each["name"]), each["column_names"], each["unique"]) for each in there.get_indexes(name)),
                there.get_table_options(name),
            )
            for name in sorted(there.get_table_names())
        }


def test_the_data_of_release_0_1_0_are_all_there_after_the_upgrade(old_url: str) -> None:
    before = store_rows(old_url)
    assert all(before[table.name] for table in tables.sorted_tables)
    done = schema.migrate(old_url)
    assert (done.before, done.after) == ("0001", schema.HEAD)
    assert differences(old_url) == []
    assert store_rows(old_url) == before
    store, log = EventStore(old_url), ExperimentLog(old_url)
    assert [event.item_id for event in store.events_of("ann")] == ["tea", "rum"]
    assert store.standing().rules is not None
    assert [version.action for version in log.versions("order")] == ["create", "stop"]
    store.write([Event("e-5", "ann", "tea", "like", 1_700_000_200), Impression("r-2", "ann", 1, "v", "[]", known=9)])
    assert store.position() == 10
    assert store.count(Impression) == 2
    store.close()
    log.close()
    assert schema.migrate(old_url).before == schema.HEAD


def test_a_service_refuses_the_tables_of_another_release_and_leaves_them_alone(old_url: str) -> None:
    before = definitions(old_url), store_rows(old_url)
    with pytest.raises(StoreError, match="earlier release") as refused:
        EventStore(old_url)
    assert "rec-engine store migrate --store" in refused.value.hint
    assert (definitions(old_url), store_rows(old_url)) == before
    schema.migrate(old_url)
    change(old_url, "UPDATE log_revision SET version_num = '9999'")
    for open_store in (EventStore, ExperimentLog, schema.migrate):
        with pytest.raises(StoreError, match="later release"):
            open_store(old_url)


def test_what_no_release_made_is_not_migrated_not_even_in_part(old_url: str) -> None:
    change(old_url, "DROP TABLE rules")
    change(old_url, "ALTER TABLE turns ADD COLUMN whose TEXT")
    before = definitions(old_url)
    with pytest.raises(StoreError, match="the table turns has the columns until, whose, work"):
        schema.migrate(old_url)
    assert definitions(old_url) == before


@pytest.mark.parametrize("name", ["items", "rules"])
def test_a_database_whose_tables_have_our_names_is_left_alone(store_url: str, name: str) -> None:
    change(store_url, f"CREATE TABLE {name} (number INTEGER)")
    before = definitions(store_url)
    for open_store in (EventStore, ExperimentLog, schema.migrate):
        with pytest.raises(StoreError, match=f"the table {name} has the columns number: no release made it"):
            open_store(store_url)
    assert definitions(store_url) == before


def test_tables_that_a_build_before_the_release_had_not_yet_are_added(old_url: str) -> None:
    for name in ("rules", "turns", "log_identity"):
        change(old_url, f"DROP TABLE {name}")
    schema.migrate(old_url)
    assert differences(old_url) == []
    store = EventStore(old_url)
    assert len(store.log_id) == 32
    store.close()


def test_a_store_that_is_not_there_is_made_by_migrate_and_not_by_its_check(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    with pytest.raises(DataError, match="there is no event store"):
        schema.standing(url)
    assert not (tmp_path / "events.db").exists()
    assert schema.migrate(url).before is None
    assert schema.standing(url)[1] == schema.HEAD


def test_the_command_says_what_it_did_and_its_check_changes_nothing(
    old_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*more: str) -> tuple[int | str | None, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["store", "migrate", "--store", old_url, *more])
        return end.value.code, capsys.readouterr().out

    assert run("--check")[0] == 1
    assert schema.standing(old_url)[1] == "0001"
    assert "went from revision 0001 to 0002" in run()[1]
    assert "nothing was changed" in run()[1]
    assert run("--check")[0] == 0


def test_who_starts_while_another_migrates_waits_longer_than_a_query_may_take(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_database(postgres_url)
    EventStore(url).close()
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_MS", 200)
    with opened(url) as (_, writer, _, _), ThreadPoolExecutor() as others, writer.connect() as connection:
        with connection.begin():
            schema.lock_start(connection)
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "200ms"
            migrated, started = others.submit(schema.migrate, url), others.submit(EventStore, url)
            time.sleep(0.6)
            assert not migrated.done()
            assert not started.done()
        assert migrated.result().after == schema.HEAD
        started.result().close()


def test_to_open_a_store_loads_no_alembic(tmp_path: Path) -> None:
    code = "import sys; from rec_engine.data.events import EventStore as Store; Store(sys.argv[1]).close()"
    code += "; print('alembic' in sys.modules)"
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'events.db'}"]
    for _ in ("made", "opened"):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
