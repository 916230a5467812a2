"""A deployment, examined: what is well, what will give trouble, what is wrong, and what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rec_engine.bundle import verify_bundle
from rec_engine.data.schema import HEAD
from rec_engine.data.store_health import examine_store
from rec_engine.errors import BundleError, ConfigError, DataError, StoreError
from rec_engine.pipeline.machine import disk_state, lacking_packages, n_cores, open_files, try_to_write
from rec_engine.pipeline.service_probe import probe
from rec_engine.serving.cache import RedisCache
from rec_engine.serving.two_level_cache import open_cache
from rec_engine.utils.config import ServingConfig, StoreSettings, load_config

MODEL_AGE_DAYS = 30
SKEW_WARNING_SECONDS, SKEW_FAULT_SECONDS = 2.0, 60.0
DAY_SECONDS = 86_400
MANY_CHANGES = 50_000_000
"""Changes of the log from which on somebody should have thought of how long they stay."""
SPARE_FILES = 256
"""Open files that a server process has beside its connections."""
SQLITE = "sqlite:///"

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        state: `fault` for what keeps the service from working as it is meant to.
        message: what was found.
        hint: what to do; empty where all is well.
    """

    check: str
    state: State
    message: str
    hint: str = ""


def examine(config: Path | None, model_dir: Path, url: str | None) -> list[Finding]:
    """Return what every check found, in the order in which things are needed; nothing is changed.

    Args:
        config: file of the service's settings; without it the defaults and the environment.
        model_dir: the registry of versions.
        url: address of the running service, such as http://127.0.0.1:8000; without it none is asked.
    """
    found = [_packages()]
    try:
        settings = load_config(ServingConfig, config)
    except ConfigError as error:
        return [*found, Finding("settings", "fault", str(error), error.hint)]
    found.append(Finding("settings", "ok", f"{config or 'defaults and environment'}: every setting is one"))
    version, of_model = _model(model_dir)
    found += [*of_model, *_store(settings.store), *_cache(settings), *_machine(settings)]
    if url is not None:
        found += [Finding("service", *rest) for rest in probe(url, version)]
    return found


def _packages() -> Finding:
    lacking, described = lacking_packages()
    if lacking:
        return Finding("packages", "fault", "; ".join(lacking), "install rec-engine again, into a new environment")
    return Finding("packages", "ok", described)


def _model(model_dir: Path) -> tuple[str | None, list[Finding]]:
    """Return the version that a service would answer from, if any."""
    try:
        manifest = verify_bundle(model_dir)
    except BundleError as error:
        return None, [Finding("model", "fault", str(error), error.hint)]
    found = [Finding("model", "ok", f"{model_dir}: {manifest.version}, every file as it was published")]
    age_days = (datetime.now(tz=UTC) - manifest.created_at).total_seconds() / DAY_SECONDS
    if age_days > MODEL_AGE_DAYS:
        hint = "rec-engine train --events STORE trains with what happened since"
        found.append(Finding("model age", "warning", f"trained {age_days:,.0f} days ago", hint))
    return manifest.version, [*found, _disk("disk of the models", model_dir)]


def _store(settings: StoreSettings) -> Iterator[Finding]:
    url = settings.url
    if url.startswith(SQLITE):
        directory = Path(url.removeprefix(SQLITE)).parent
        if directory.exists() and (reason := try_to_write(directory)) is not None:
            yield Finding("disk of the store", "fault", f"{directory}: {reason}", "make it writable for this user")
            return
        if directory.exists():
            yield _disk("disk of the store", directory)
    try:
        health = examine_store(url)
    except (ConfigError, DataError, StoreError) as error:
        yield Finding("store", "fault", str(error), error.hint)
        return
    if health.revision != HEAD:
        is_made = health.revision is not None
        what = f"has revision {health.revision}, this release works with {HEAD}" if is_made else "has no tables yet"
        yield Finding("store", "fault", f"{health.store} {what}", f"rec-engine store migrate --store {health.store}")
    else:
        yield Finding("store", "ok", f"{health.store}: revision {HEAD}, position {health.position:,}, can be written")
        if not (settings.keep_events_days or health.was_pruned) and (health.position or 0) >= MANY_CHANGES:
            message = f"{health.position:,} changes were written, and nothing was ever removed"
            yield Finding(
                "retention", "warning", message, "set store.keep_events_days, or rec-engine store prune by cron"
            )
    skew = abs(health.clock_skew_seconds)
    if skew > SKEW_WARNING_SECONDS:
        state: State = "fault" if skew > SKEW_FAULT_SECONDS else "warning"
        message = f"the database's clock differs from this machine's by {skew:,.1f} s"
        yield Finding("clock", state, message, "let both follow the same time server")


def _cache(settings: ServingConfig) -> Iterator[Finding]:
    farthest = open_cache(settings.redis).levels[-1]
    if not isinstance(farthest, RedisCache):
        yield Finding("cache", "ok", "USE_MEMORY_CACHE: each server process has its own")
        return
    bound = farthest.bound()
    if bound is None:
        hint = "start it, mend redis.host, redis.port or REDIS_PASSWORD, or set USE_MEMORY_CACHE=true"
        yield Finding("cache", "fault", f"Redis at {farthest.address} does not answer: answers are slower", hint)
    elif not bound.max_bytes:
        hint = "CONFIG SET maxmemory 256mb, and maxmemory-policy allkeys-lru"
        yield Finding("cache", "warning", f"Redis at {farthest.address} may take all memory of its machine", hint)
    elif bound.policy == "noeviction":
        message = f"Redis at {farthest.address} refuses new answers once {bound.max_bytes:,} bytes are full"
        yield Finding("cache", "warning", message, "CONFIG SET maxmemory-policy allkeys-lru")
    else:
        message = f"Redis at {farthest.address}: {bound.policy} beyond {bound.max_bytes:,} bytes"
        yield Finding("cache", "ok", message)


def _machine(settings: ServingConfig) -> Iterator[Finding]:
    workers, cores = settings.api.workers, n_cores()
    if workers > cores:
        message = f"{workers} server processes share {cores:g} cores: they wait for each other"
        yield Finding("cores", "warning", message, f"set api.workers to {max(1, int(cores))}")
    else:
        yield Finding("cores", "ok", f"{workers} server processes on {cores:g} cores")
    wanted, allowed = settings.api.max_connections + SPARE_FILES, open_files()
    if allowed < wanted:
        message = f"a process may open {allowed:,} files, and api.max_connections asks for {wanted:,}"
        yield Finding("open files", "warning", message, f"ulimit -n {wanted}, or a lower api.max_connections")
    else:
        yield Finding("open files", "ok", f"{allowed:,} for each process")


def _disk(check: str, directory: Path) -> Finding:
    """Return whether there is room where a directory is."""
    state, message = disk_state(directory)
    return Finding(check, state, message, "" if state == "ok" else "make room, or give it a larger disk")
