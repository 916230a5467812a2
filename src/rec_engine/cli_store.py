"""`rec-engine store`: the life of the log's data beside the service."""

import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from cyclopts import App

from rec_engine.errors import ConfigError
from rec_engine.utils.config import ServingConfig, load_config
from rec_engine.utils.console import say

MB = 1e6
DAY_SECONDS = 86_400
FIRST_SECOND, LAST_SECOND = (
    int(moment.replace(tzinfo=UTC, microsecond=0).timestamp()) for moment in (datetime.min, datetime.max)
)

store_app = App(name="store", help="Migrate, back up, restore and prune the event store.")


@store_app.command
def migrate(*, store: str | None = None, config: Path | None = None, check: bool = False) -> None:
    """Bring the tables of the event store to what this release works with; one that is not there is made.

    Args:
        store: store.url, such as sqlite:///state/events.db.
        config: settings, such as configs/serving_config.yaml.
        check: change nothing; exit with 1 if there is something to migrate.
    """
    from rec_engine.data.schema import HEAD, standing
    from rec_engine.data.schema import migrate as migrate_store

    url = _url(store, config)
    if check:
        name, revision = standing(url)
        if revision == HEAD:
            say(f"{name} has revision {HEAD}, which this release works with")
            return
        say(f"{name} has {f'revision {revision}' if revision else 'no tables yet'}, and this release wants {HEAD}")
        sys.exit(1)
    done = migrate_store(url)
    if done.before == done.after:
        say(f"{done.store} has revision {done.after} already: nothing was changed")
    elif done.before is None:
        say(f"{done.store} was made with revision {done.after}. Next: rec-engine serve")
    else:
        say(f"{done.store} went from revision {done.before} to {done.after}. Next: rec-engine serve")


@store_app.command
def backup(*, output: Path, store: str | None = None, config: Path | None = None) -> None:
    """Write the event store as Parquet files, all of one moment, while the service goes on.

    Args:
        output: directory that is made; it has its name only when it is complete.
        store: store.url, such as sqlite:///state/events.db.
        config: settings, such as configs/serving_config.yaml.
    """
    from rec_engine.data.backup import back_up

    started = time.monotonic()
    made = back_up(_url(store, config), output, now=int(time.time()))
    say(
        f"{output}: {made.rows:,} rows of {len(made.tables)} tables, {made.bytes / MB:,.1f} MB, in "
        f"{time.monotonic() - started:,.1f} s. Next: rec-engine store restore --input {output} --store URL"
    )


@store_app.command
def restore(*, input: Path, store: str | None = None, config: Path | None = None) -> None:  # noqa: A002 - the flag's name
    """Write a backup into an event store that is empty or not there, SQLite or PostgreSQL wherever it came from.

    Args:
        input: directory that `store backup` made; every file of it is verified first.
        store: store.url, such as sqlite:///state/events.db.
        config: settings, such as configs/serving_config.yaml.
    """
    from rec_engine.data.restoring import restore as restore_store

    started = time.monotonic()
    url = _url(store, config)
    restored = restore_store(input, url)
    say(
        f"{restored.rows:,} rows of {len(restored.tables)} tables as of {_moment(restored.made_at)}, in "
        f"{time.monotonic() - started:,.1f} s. Users who asked to be forgotten since then have to be erased again. "
        "Next: rec-engine serve"
    )


@store_app.command
def prune(*, older_than: str, store: str | None = None, config: Path | None = None, dry_run: bool = False) -> None:
    """Remove events and impressions that are older, but for what a running experiment still measures.

    Args:
        older_than: days, such as 365d.
        store: store.url, such as sqlite:///state/events.db.
        config: settings, such as configs/serving_config.yaml.
        dry_run: only say what would be removed.
    """
    from rec_engine.data.database import no_log
    from rec_engine.data.pruning import count_older
    from rec_engine.data.pruning import prune as prune_store
    from rec_engine.data.schema import standing
    from rec_engine.experiments.retention import cut_off

    days = re.fullmatch(r"([1-9]\d{0,4})d", older_than)
    if days is None:
        raise ConfigError(f"--older-than {older_than}: not a number of days", hint="such as 365d")
    url, now = _url(store, config), int(time.time())
    name, revision = standing(url)
    if revision is None:
        raise no_log(name)
    cut = cut_off(url, now - int(days[1]) * DAY_SECONDS, now)
    done = (count_older if dry_run else prune_store)(url, cut.before)
    say(
        f"{done.store}: {done.events:,} events and {done.impressions:,} impressions from before {_moment(cut.before)} "
        f"{'would be' if dry_run else 'were'} removed"
    )
    if cut.held_by:
        say(f"{cut.held_by} is not stopped and measures by what came later: that is kept")
    for experiment_id in cut.ended:
        say(f"{experiment_id} has ended, and {'could' if dry_run else 'can'} not be measured any more")


def _url(store: str | None, config: Path | None) -> str:
    return load_config(ServingConfig, config, flags={"store.url": store}).store.url


def _moment(seconds: int) -> str:
    """Return Unix seconds for people; what lies beyond the years of a calendar as the first or last of them."""
    within = min(max(seconds, FIRST_SECOND), LAST_SECOND)
    return f"{datetime.fromtimestamp(within, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"
