"""`rec-engine store`: the life of the log's data beside the service."""

import sys
from pathlib import Path

from cyclopts import App
from rich.console import Console

from rec_engine.utils.config import ServingConfig, load_config

store_app = App(name="store", help="Migrate the event store.")


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
            _say(f"{name} has revision {HEAD}, which this release works with")
            return
        _say(f"{name} has {f'revision {revision}' if revision else 'no tables yet'}, and this release wants {HEAD}")
        sys.exit(1)
    done = migrate_store(url)
    if done.before == done.after:
        _say(f"{done.store} has revision {done.after} already: nothing was changed")
    elif done.before is None:
        _say(f"{done.store} was made with revision {done.after}. Next: rec-engine serve")
    else:
        _say(f"{done.store} went from revision {done.before} to {done.after}. Next: rec-engine serve")


def _url(store: str | None, config: Path | None) -> str:
    return load_config(ServingConfig, config, flags={"store.url": store}).store.url


def _say(text: str) -> None:
    Console(highlight=False, markup=False, soft_wrap=True).print(text)
