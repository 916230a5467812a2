"""`rec-engine doctor`: what is wrong with a deployment, and what to do about it."""

import sys
from pathlib import Path

from rec_engine.cli_output import print_json
from rec_engine.errors import ConfigError
from rec_engine.utils.console import say

MARKS = {"ok": "ok     ", "warning": "WARNING", "fault": "FAULT  "}


def doctor(
    *, config: Path | None = None, model_dir: Path = Path("models"), url: str | None = None, json: bool = False
) -> None:
    """Examine packages, settings, model, store, cache, machine and service; exit with 1 if there is a fault.

    Nothing is changed. REC_ENGINE_API_KEY holds the key where the service asks for one.

    Args:
        config: settings, such as configs/serving_config.yaml.
        model_dir: the registry of versions.
        url: address of the running service, such as http://127.0.0.1:8000; without it none is asked.
        json: print what was found as JSON.
    """
    from rec_engine.pipeline.doctor import examine

    if url is not None and not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url}: not the address of a service", hint="such as http://127.0.0.1:8000")
    found = examine(config, model_dir, url.rstrip("/") if url else None)
    has_fault = any(each.state == "fault" for each in found)
    if json:
        print_json({"is_well": not has_fault, "findings": found})
    else:
        for each in found:
            say(f"{MARKS[each.state]} {each.check}: {each.message}")
            if each.hint:
                say(f"        {each.hint}")
    if has_fault:
        sys.exit(1)
