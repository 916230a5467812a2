"""Versions of the model that arms of experiments name: whether they can be served, and which are still needed."""

from collections.abc import Iterable
from pathlib import Path

from rec_engine.errors import BundleError, DataError, NotFoundError
from rec_engine.experiments.definition import Experiment
from rec_engine.registry import ModelRegistry

SHOWN = 5
"""Versions that a message names."""


def check_versions(experiment: Experiment, model_dir: Path | None) -> None:
    """Read every file of the versions that an experiment's arms name.

    Args:
        experiment: with its arms.
        model_dir: the registry; None where there is none.

    Raises:
        DataError: if one of them could not be served: it is not there or damaged, or there is no registry.
    """
    for arm in experiment.arms:
        if (version := arm.configuration.model_version) is None:
            continue
        if model_dir is None:
            raise DataError(
                f"arm {arm.name}: this service has one model and no registry to take {version!r} from",
                hint="start it with the directory of all versions",
            )
        registry = ModelRegistry(model_dir)
        try:
            registry.verify(version)
        except NotFoundError as error:
            raise DataError(f"arm {arm.name}: {error}", hint=_there(registry)) from None
        except BundleError as error:
            raise DataError(f"arm {arm.name}: {error}", hint=error.hint) from None


def needed_versions(experiments: Iterable[Experiment]) -> dict[str, str]:
    """Return version to what needs it, in words, of all arms of experiments that have not been stopped."""
    return {
        version: f"arm {arm.name} of {each.experiment_id}, which is {_standing(each)}, serves it"
        for each in experiments
        for arm in each.arms
        if each.status != "stopped" and (version := arm.configuration.model_version) is not None
    }


def _there(registry: ModelRegistry) -> str:
    names = [summary.version for summary in registry.versions()]
    if not names:
        return "train one with rec-engine train"
    more = f" and {len(names) - SHOWN} older ones" if len(names) > SHOWN else ""
    return f"there are {', '.join(names[:SHOWN])}{more}"


def _standing(experiment: Experiment) -> str:
    return "planned" if experiment.status == "draft" else experiment.status
