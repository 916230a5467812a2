"""`rec-engine models`: what has been trained, which version is current, and how to change that."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rec_engine.cli_output import AsJson, print_json
from rec_engine.errors import BundleError, CheckError, DataError
from rec_engine.utils.console import say, show

if TYPE_CHECKING:
    from rec_engine.registry import ModelRegistry, VersionSummary

UNITS = ("B", "kB", "MB", "GB", "TB")
NO_VERSION = "there is no trained model here. Next: rec-engine train makes one."

models_app = App(name="models", help="List, promote, roll back, verify and prune the versions of a registry.")


@models_app.command(name="list")
def list_versions(*, model_dir: Path = Path("models"), as_json: AsJson = False) -> None:
    """Print every version, newest first: which one is current, which one a rollback returns to, which are damaged.

    Args:
        model_dir: the registry of versions.
        as_json: print a list for programs.
    """
    from rec_engine.registry import ModelRegistry

    registry = ModelRegistry(model_dir)
    versions = registry.versions()
    if as_json:
        print_json(versions)
        return
    if not versions:
        say(f"{model_dir}: {NO_VERSION}")
        return
    show(_table(registry, versions))
    for summary in versions:
        if summary.damage:
            say(f"{summary.version} is damaged: {summary.damage}")
    say(_next(registry, versions))


@models_app.command
def promote(
    version: str,
    *,
    model_dir: Path = Path("models"),
    force: bool = False,
    max_p99_ms: float = 50.0,
) -> None:
    """Make a version the current one, if it is no worse than the one that is and not too slow.

    Args:
        version: its name.
        model_dir: the registry of versions.
        force: promote it without a comparison; its files are verified all the same.
        max_p99_ms: milliseconds that 99 of 100 requests may take at most, in process.
    """
    from rec_engine.pipeline.gate import GateLimits, judge_version
    from rec_engine.registry import ModelRegistry

    registry = ModelRegistry(model_dir)
    replaced = registry.current()
    if version == replaced:
        say(f"{version} is the current model already")
        return
    if force:
        reason = "by hand, not compared"
    else:
        verdict = judge_version(registry, version, GateLimits(max_p99_ms=max_p99_ms))
        if not verdict.passes:
            raise CheckError(verdict.sentence, hint=f"{replaced} stays; --force promotes {version} all the same")
        reason = verdict.sentence
        say(reason)
    registry.promote(version, reason=reason)
    back = (
        f"rec-engine models rollback --model-dir {model_dir} returns to {replaced}" if replaced else _serve(model_dir)
    )
    say(f"{version} is the current model, and running servers take it over. Next: {back}.")


@models_app.command
def rollback(*, model_dir: Path = Path("models"), reason: str = "by hand") -> None:
    """Return to the version that was current before; again, to the one before that.

    Args:
        model_dir: the registry of versions.
        reason: for the record in promotions.jsonl.
    """
    from rec_engine.registry import ModelRegistry

    registry = ModelRegistry(model_dir)
    left = registry.current()
    version = registry.rollback(reason=reason)
    say(
        f"{version} is the current model again, and running servers take it over. "
        f"Next: rec-engine models promote {left} --model-dir {model_dir} undoes this."
    )


@models_app.command
def shadow(
    version: str | None = None, *, share: float = 0.1, stop: bool = False, model_dir: Path = Path("models")
) -> None:
    """Try a version beside the served one: it answers a share of the requests as well, and nobody is shown that.

    Args:
        version: its name.
        share: of the requests that are computed, above 0 and up to 1.
        stop: try none any more.
        model_dir: the registry of versions.
    """
    from rec_engine.registry import ModelRegistry

    if (version is None) != stop:
        raise DataError("models shadow takes a version, or --stop", hint="rec-engine models list shows what there is")
    registry = ModelRegistry(model_dir)
    if version is None:
        stopped = registry.stop_shadow()
        say(f"{stopped.version} is no longer tried" if stopped else "no version was tried")
        return
    registry.shadow(version, share)
    say(
        f"{version} is tried on {share:.0%} of the requests. Next: GET /models/shadow of a running server compares it, "
        f"rec-engine models shadow --stop --model-dir {model_dir} ends it."
    )


@models_app.command
def verify(version: str | None = None, *, model_dir: Path = Path("models")) -> None:
    """Compare every file of a version with its checksum.

    Args:
        version: its name; without it all versions are verified.
        model_dir: the registry of versions.
    """
    from rec_engine.registry import ModelRegistry

    registry = ModelRegistry(model_dir)
    names = [version] if version else [summary.version for summary in registry.versions()]
    damaged = [name for name in names if not _holds(registry, name)]
    if damaged:
        raise CheckError(
            f"{model_dir}: {', '.join(damaged)} cannot be served", hint="restore the files named above, or train again"
        )
    say(f"{model_dir}: {len(names)} verified, nothing to mend." if names else f"{model_dir}: {NO_VERSION}")


@models_app.command
def prune(*, keep: int, model_dir: Path = Path("models"), store: str | None = None, config: Path | None = None) -> None:
    """Remove all but the newest versions; the current one, the one before it and one that is tried stay, however old.

    So do versions that arms of experiments serve, or will serve: those that have not been stopped.

    Args:
        keep: how many of the newest stay.
        model_dir: the registry of versions.
        store: event store of the service whose experiments serve versions; by default that of its settings.
        config: settings of the service.
    """
    from rec_engine.registry import ModelRegistry

    registry = ModelRegistry(model_dir)
    needed = _needed(store, config)
    gone = registry.prune(keep, needed)
    for summary in gone:
        say(f"{summary.version} is removed")
    left = registry.versions()
    for summary in left[keep:]:
        if summary.version in needed:
            say(f"{summary.version} stays: {needed[summary.version]}")
    freed = _size(sum(summary.size_bytes for summary in gone))
    say(f"{freed} freed, versions left: {len(left)}. Next: rec-engine models list --model-dir {model_dir} shows them.")


def _needed(store: str | None, config: Path | None) -> dict[str, str]:
    """Return version to which arm of which experiment serves it; none where no service has had a log yet."""
    from rec_engine.data.database import shown
    from rec_engine.evaluation.ab_testing import ABTestManager
    from rec_engine.serving.arm_versions import needed_versions
    from rec_engine.utils.config import ServingConfig, load_config

    url = store or load_config(ServingConfig, config).store.url
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite") and not path.exists():
        if store:
            raise DataError(f"{shown(store)}: there is no such event store", hint="give the store.url of the service")
        return {}
    with ABTestManager(store=url) as manager:
        return needed_versions(manager.list_experiments())


def _table(registry: "ModelRegistry", versions: "list[VersionSummary]") -> Table:
    metrics = [metric for metric in ("ndcg@10", "hit_rate@10") if any(metric in each.metrics for each in versions)]
    title = f"Models in {registry.model_dir}"
    table = Table(title=title, title_justify="left", caption=_since(registry), caption_justify="left", box=SIMPLE_HEAD)
    for column in ("version", "made (UTC)", "dataset", *metrics, "size", "state"):
        table.add_column(column, justify="right" if column in {*metrics, "size"} else "left", no_wrap=True)
    before, shadow = registry.before(), registry.shadowed()
    tried = shadow.version if shadow else None
    for each in versions:
        made = f"{each.created_at:%Y-%m-%d %H:%M}" if each.created_at else ""
        reached = (f"{each.metrics[metric]:.4f}" if metric in each.metrics else "" for metric in metrics)
        table.add_row(
            each.version, made, each.dataset or "", *reached, _size(each.size_bytes), _state(each, before, tried)
        )
    return table


def _state(summary: "VersionSummary", before: str | None, tried: str | None) -> str:
    states = {
        "current": summary.is_current,
        "before": summary.version == before,
        "shadow": summary.version == tried,
        "damaged": summary.damage is not None,
    }
    return ", ".join(state for state, holds in states.items() if holds)


def _since(registry: "ModelRegistry") -> str | None:
    latest = registry.history()[-1:]
    if not latest or latest[0].version != registry.current():
        return None  # it became current by other means
    return f"current since {latest[0].at:%Y-%m-%d %H:%M} UTC ({latest[0].action}): {latest[0].reason}"


def _next(registry: "ModelRegistry", versions: "list[VersionSummary]") -> str:
    been_current = {registry.current(), *(record.version for record in registry.history())}
    newest = next((each.version for each in versions if not each.damage), None)
    if newest is None:
        return "Next: rec-engine train makes one that can be served."
    if newest in been_current:
        return f"Next: {_serve(registry.model_dir)}."
    return f"Next: rec-engine models promote {newest} --model-dir {registry.model_dir} makes the newest one current."


def _holds(registry: "ModelRegistry", name: str) -> bool:
    try:
        registry.verify(name)
    except BundleError as error:
        say(str(error))
        return False
    say(f"{name}: every file is as it was written")
    return True


def _serve(model_dir: Path) -> str:
    return f"rec-engine serve --model-dir {model_dir} serves the current one"


def _size(n_bytes: float) -> str:
    """Return a size for people, such as 12.3 MB."""
    for unit in UNITS[:-1]:
        if n_bytes < 1000:  # noqa: PLR2004 - decimal units
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} {UNITS[-1]}"
