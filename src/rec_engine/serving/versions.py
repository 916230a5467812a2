"""The versions of the registry over HTTP: what there is, how good each is, and which one is promoted."""

import asyncio
from pathlib import Path

from rec_engine.errors import ExperimentError, NotFoundError
from rec_engine.evaluation.report_files import METRICS, REPORT
from rec_engine.registry import ModelRegistry, Verdict
from rec_engine.serving.engine import Engine
from rec_engine.serving.explore_schemas import Changed, GateVerdict, ModelVersion, ModelVersions, Promoted

MAX_HISTORY = 50


async def list_versions(engine: Engine) -> ModelVersions:
    """Return every version and the latest promotions; where there is no registry, the one that is served.

    Raises:
        OSError: if the registry cannot be read.
    """
    if engine.model_dir is None:
        return ModelVersions(current=None, rollback_to=None, versions=[_served(engine)], history=[])
    return await asyncio.to_thread(_versions, ModelRegistry(engine.model_dir))


async def promote(engine: Engine, version: str, reason: str, *, force: bool) -> Changed:
    """Return once a version is the promoted one; the gate must have let it through, unless it is forced.

    The gate itself has no place behind an answer: it takes a second copy of both models and minutes of all cores.
    Training and the command line ask it, and the registry keeps what it said.

    Raises:
        BundleError: if it cannot be served; the current one stays.
        CheckError: if the gate kept it out, or has not compared it with the one that is current.
        ExperimentError: if the service has no registry.
        NotFoundError: if there is no such version.
    """
    registry = _registry(engine)
    told = _by_hand("by force" if force else "", reason)
    await asyncio.to_thread(registry.promote, version, reason=told, must_have_passed=not force)
    return Changed(current=version)


async def roll_back(engine: Engine, reason: str, leaving: str | None = None) -> Changed:
    """Return once the version that was current before is it again.

    Raises:
        BundleError: if that one cannot be served; the current one stays.
        ExperimentError: if the service has no registry, or another version is current than the one to be left.
        NotFoundError: if no version was current before.
    """
    registry = _registry(engine)
    return Changed(current=await asyncio.to_thread(registry.rollback, reason=_by_hand("", reason), leaving=leaving))


async def report_of(engine: Engine, version: str) -> bytes:
    """Return the page that training wrote of a version.

    Raises:
        NotFoundError: if there is none.
    """
    return await asyncio.to_thread(_file, engine, version, REPORT)


async def figures_of(engine: Engine, version: str) -> bytes:
    """Return the JSON of every figure that training wrote of a version.

    Raises:
        NotFoundError: if there is none.
    """
    return await asyncio.to_thread(_file, engine, version, METRICS)


def _registry(engine: Engine) -> ModelRegistry:
    if engine.model_dir is None:
        raise ExperimentError(
            "this service has one model and no registry", hint="start it with the directory of all versions"
        )
    return ModelRegistry(engine.model_dir)


def _file(engine: Engine, version: str, name: str) -> bytes:
    try:
        return (_registry(engine).directory(version) / name).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{version} has no {name}", hint="a training run writes one beside its model") from None


def _versions(registry: ModelRegistry) -> ModelVersions:
    history, verdicts = registry.history()[: -MAX_HISTORY - 1 : -1], registry.verdicts()
    return ModelVersions(
        current=registry.current(),
        rollback_to=registry.before(),
        versions=[
            ModelVersion(
                version=each.version,
                created_at=each.created_at.isoformat() if each.created_at else None,
                dataset=each.dataset,
                metrics=dict(each.metrics),
                size_bytes=each.size_bytes,
                is_current=each.is_current,
                has_report=_has_report(registry.model_dir / each.version),
                damage=each.damage,
                gate=_told(verdicts.get(each.version)),
            )
            for each in registry.versions()
        ],
        history=[
            Promoted(
                at=each.at.isoformat(),
                action=each.action,
                version=each.version,
                replaced=each.replaced,
                reason=each.reason,
            )
            for each in history
        ],
    )


def _served(engine: Engine) -> ModelVersion:
    manifest = engine.bundle.manifest
    return ModelVersion(
        version=manifest.version,
        created_at=manifest.created_at.isoformat(),
        dataset=manifest.dataset,
        metrics=manifest.metrics,
        size_bytes=0,
        is_current=True,
        has_report=False,
        damage=None,
        gate=None,
    )


def _told(verdict: Verdict | None) -> GateVerdict | None:
    return GateVerdict(passes=verdict.passes, sentence=verdict.sentence) if verdict else None


def _has_report(directory: Path) -> bool:
    return (directory / REPORT).is_file()


def _by_hand(how: str, reason: str) -> str:
    told = ", ".join(filter(None, ["over HTTP", how]))
    return f"{told}: {reason}" if reason else told
