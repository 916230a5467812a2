"""Everything that the quality report says about a model that was just trained."""

import resource
import sys
import time
from collections.abc import Mapping
from datetime import datetime

import numpy as np

from rec_engine.data.dataset import FloatArray, Interactions, RecommendationDataset
from rec_engine.data.profile import profile
from rec_engine.data.splits import Split
from rec_engine.evaluation.beyond_accuracy import beyond_accuracy
from rec_engine.evaluation.evaluator import Evaluation, Task, some_users
from rec_engine.evaluation.leaks import LeakCheck, check_attributes, check_held_out, check_split
from rec_engine.evaluation.metrics import DoubleArray
from rec_engine.evaluation.report import PRIMARY, Findings
from rec_engine.evaluation.slices import measure_slices
from rec_engine.models.attributes import attribute_columns
from rec_engine.pipeline.candidate_quality import inspect_candidates
from rec_engine.pipeline.evaluate import TrainedModel, assemble_path, evaluate_baselines, measure, reported_task
from rec_engine.pipeline.feature_leaks import check_ranking_features
from rec_engine.retrieval.categories import category_matrix, category_names

KS = (5, 10, 20)
MAX_USERS, MAX_INSPECTED_USERS = 20_000, 2_000
"""Of more users than these a sample is reported on, and of fewer still the candidates are taken apart."""


def examine(  # noqa: PLR0913 - what was trained, on what, and what it is called
    model: TrainedModel,
    dataset: RecommendationDataset,
    split: Split,
    *,
    name: str,
    version: str,
    created_at: datetime,
) -> Findings:
    """Return what there is to say about a model: beside tuned baselines, on what was held out.

    Args:
        model: what was trained.
        dataset: what is known.
        split: what it was trained on.
        name: of the dataset.
        version: of the model.
        created_at: when training began.
    """
    seconds = dict(model.seconds_by_stage)
    task = some_users(reported_task(split), MAX_USERS, seed=0)
    started = time.monotonic()
    baselines = evaluate_baselines(split, task, dataset.n_items, KS)
    seconds["baselines: tuning, fitting, evaluation"] = time.monotonic() - started

    started = time.monotonic()
    own = measure(task, model, KS)
    seconds["evaluation of the model"] = time.monotonic() - started

    started = time.monotonic()
    path = assemble_path(model, task.history, task.shown)
    inspected = some_users(task, MAX_INSPECTED_USERS, seed=0)
    sources, reliability = inspect_candidates(path, inspected)
    leaks = [
        check_held_out(split),
        *check_split(split),
        *_attribute_checks(dataset, split),
        check_ranking_features(model, path, inspected),
    ]
    compared = [*_best(baselines), *own]
    slices = measure_slices(compared, task, dataset.items["categories"], k=20)
    names = category_names(dataset.items["categories"])
    beyond = _beyond([*baselines, *own], task, category_matrix(dataset.items["categories"], names, dataset.n_items))
    seconds["candidates, leaks, slices"] = time.monotonic() - started
    return Findings(
        dataset=name,
        version=version,
        created_at=created_at,
        profile=profile(dataset),
        split=split.name,
        split_fingerprint=split.fingerprint,
        n_rows_by_part=_rows(split),
        measured_on=task.name,
        evaluations=[*baselines, *own],
        own=tuple(evaluation.name for evaluation in own),
        beyond=beyond,
        sources=sources,
        slices=slices,
        epochs=model.epochs,
        objective=model.ranker.objective if model.ranker else "",
        importances=model.ranker.importances() if model.ranker else {},
        reliability=reliability,
        leaks=leaks,
        seconds_by_stage=seconds,
        peak_mib=peak_mib(),
    )


def peak_mib() -> int:
    """Return the most memory that this process has had so far, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // (1024 * 1024 if sys.platform == "darwin" else 1024)


def _rows(split: Split) -> dict[str, int]:
    return {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)}


def _best(baselines: list[Evaluation]) -> list[Evaluation]:
    found = sorted(baselines, key=lambda baseline: float(np.nan_to_num(baseline.mean(PRIMARY))))
    return found[-1:]


def _beyond(
    evaluations: list[Evaluation], task: Task, categories: FloatArray
) -> Mapping[str, Mapping[str, DoubleArray]]:
    return {
        each.name: beyond_accuracy(each.ranked, each.user_codes, task.history, categories, 10) for each in evaluations
    }


def _attribute_checks(dataset: RecommendationDataset, split: Split) -> list[LeakCheck]:
    def of_items(rows: Interactions) -> DoubleArray:
        return rows.item_counts(dataset.n_items).astype(np.float64)

    def of_users(rows: Interactions) -> DoubleArray:
        return np.diff(rows.starts).astype(np.float64)

    return [
        check_attributes(
            kind, attribute_columns(table), count(split.train) + count(split.validation), count(split.test)
        )
        for kind, table, count in (("item", dataset.items, of_items), ("user", dataset.users, of_users))
    ]
