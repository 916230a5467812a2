"""`rec-engine keys`: who may use the service."""

from typing import Annotated

import yaml
from cyclopts import App, Parameter

from rec_engine.utils.config import KeySettings, ScopeName
from rec_engine.utils.console import say

keys_app = App(name="keys", help="Make keys for the service.")


@keys_app.command
def new(
    *,
    name: str,
    scope: Annotated[list[ScopeName], Parameter(consume_multiple=True)] = ["serve"],  # noqa: B006 - read only
) -> None:
    """Print a new key, which is written down nowhere, and the entry by which the service knows it.

    Args:
        name: who is going to hold it.
        scope: serve (asks), ingest (sends events and items) or admin (may do everything).
    """
    from rec_engine.serving.security import make_key

    key, digest = make_key()
    entry = KeySettings(name=name, sha256=digest, scopes=tuple(scope)).model_dump(mode="json")
    say(f"{key}\n")
    say("This key is shown once. Next: put its entry into the settings of the service:\n")
    say(yaml.safe_dump({"security": {"keys": [entry]}}, sort_keys=False))
