"""A model beside tuned baselines, or several models beside each other, each on what none of them has learned from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.targets import load_targets
from rec_engine.errors import DataError
from rec_engine.evaluation.evaluator import Evaluation, Task
from rec_engine.pipeline.common_task import common_task
from rec_engine.pipeline.evaluate import TrainedModel, evaluate_baselines, measure, reported_task


def report_on(
    models: Sequence[tuple[str, Path]], test_data: Path | None, ks: Sequence[int]
) -> tuple[list[Evaluation], str]:
    """Return evaluations and a title: of one model beside every baseline, or of several models beside each other.

    Several need not be of the same data: they are judged by what the first one holds out, as far as none of the others
    has learned from it (see `CommonTask`).

    Args:
        models: name (empty for a single model) and directory of each; the first one's data decides the targets.
        test_data: later interactions of the same users; without it the test part that was kept from training.
        ks: list lengths.

    Raises:
        BundleError: if a model cannot be opened.
        DataError: if two models have no user or no item in common, differ in whether items may come again, or have
            nothing to be judged by.
    """
    bundles = [open_bundle(directory) for _, directory in models]
    first, names = bundles[0], [name for name, _ in models]
    whole = _task(first, test_data)
    task, judged = _common(first, bundles[1:], whole)
    title = f"{first.manifest.dataset}, {task.name}: {len(np.unique(task.targets.user_codes)):,} users, full catalogue"
    if n_left_out := len(whole.targets) - len(task.targets):
        title += f", without {n_left_out:,} held-out interactions by which not all can be judged"
    if not names[0]:
        return evaluate_baselines(first.split, task, len(first.item_ids), ks) + measure(task, judged[0], ks), title
    found = [measure(task, model, ks)[-1] for model in judged]
    return [replace(each, name=f"{name}: {each.name}") for name, each in zip(names, found, strict=True)], title


def _common(first: ModelBundle, others: Sequence[ModelBundle], task: Task) -> tuple[Task, list[TrainedModel]]:
    """Return the task without what any of the models has learned from, and the models in the codes of the first."""
    common = [common_task(first, other, task) for other in others]
    is_asked = np.ones(len(task.targets), dtype=np.bool_)
    for each in common:
        is_asked &= each.is_asked
    if len(is_asked) and not is_asked.any():
        raise DataError(
            f"the other models have learned from all {len(is_asked):,} interactions that {first.version} holds out",
            hint="name the model of the longest log first, or give later interactions with --test-data",
        )
    judged = replace(task, targets=task.targets.where(is_asked))
    return judged, [TrainedModel.of(first), *(each.current for each in common)]


def _task(bundle: ModelBundle, test_data: Path | None) -> Task:
    if test_data is None:
        return reported_task(bundle.split)
    targets = load_targets(test_data, bundle.user_ids, bundle.item_ids, bundle.config.data)
    return Task(test_data.name, bundle.history, targets, bundle.repeats, shown=bundle.split.shown)
