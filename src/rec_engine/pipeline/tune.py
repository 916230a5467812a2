"""Search for better settings: Optuna over the few that matter; bad trials stop early, a killed search goes on."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import yaml
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL

from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.splits import Split
from rec_engine.errors import TrainingError
from rec_engine.evaluation.epochs import EpochRecord
from rec_engine.evaluation.evaluator import validation_task
from rec_engine.models.training import TwoTowerTrainer
from rec_engine.pipeline.towers import ItemEncoding, build_model
from rec_engine.utils.config import ModelConfig
from rec_engine.utils.logger import get_logger

STUDY, BEST = "tuning.db", "tuned.yaml"
WARM_UP_TRIALS, WARM_UP_EPOCHS = 4, 3
"""Trials that are never stopped early, and epochs that every trial has."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Range:
    """Where a number is looked for; with `log` each order of magnitude is as probable as the next."""

    low: float
    high: float
    log: bool = False


SEARCHED: dict[str, Range | tuple[int, ...]] = {
    "model.embedding_dim": (32, 64, 128),
    "model.dropout": Range(0.0, 0.6),
    "model.temperature": Range(0.03, 0.15, log=True),
    "model.id_dropout": Range(0.0, 0.3),
    "training.learning_rate": Range(3e-4, 5e-3, log=True),
    "training.batch_size": (64, 128, 256, 512),
}
"""Setting to where it is looked for, the given value always among it; the other settings stay as they are."""


def tune(
    dataset: RecommendationDataset, config: ModelConfig, split: Split, n_trials: int, model_dir: Path
) -> tuple[ModelConfig, Path]:
    """Return the settings with the highest validation NDCG@10 of the towers, and the YAML file they are written to.

    The first trial is of the settings as they are given, so that the search ends nowhere worse. A search of the same
    data and settings that was interrupted, or ended with fewer trials, is gone on with. The test part is not looked at.

    Args:
        dataset: what is known.
        config: where the search begins.
        split: train and validation parts.
        n_trials: how many in all, those of earlier runs among them.
        model_dir: where the study and the best settings are kept.

    Raises:
        TrainingError: if not one trial came to an end, or there is nobody to validate on.
    """
    task = validation_task(split)
    if not len(task.targets):
        raise TrainingError(
            "nobody is left to validate on, so settings cannot be compared", hint="train without --tune"
        )
    study = _open_study(config, dataset, split, model_dir)
    encoding = ItemEncoding.fit(dataset.items, config.text)

    def objective(trial: Trial) -> float:
        settings = _with(config, _suggested(trial, config))

        def report(epoch: EpochRecord) -> None:
            trial.report(epoch.validation_ndcg_at_10, epoch.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        trainer = TwoTowerTrainer(build_model(dataset, settings, encoding), settings.training, on_epoch=report)
        epochs = trainer.fit(split.train, task)
        return float(np.nanmax([epoch.validation_ndcg_at_10 for epoch in epochs]))

    n_left = n_trials - len(_ended(study))
    logger.info("tuning: %d trials of %d are still to be made", max(0, n_left), n_trials)
    study.optimize(objective, n_trials=max(0, n_left), catch=(TrainingError,), callbacks=[_say])
    if not study.get_trials(states=[TrialState.COMPLETE]):
        raise TrainingError("no trial came to an end", hint="the log above says why each of them stopped")
    best = _with(config, study.best_params)
    return best, _write(best, study, model_dir / BEST)


def _suggested(trial: Trial, config: ModelConfig) -> dict[str, object]:
    chosen: dict[str, object] = {}
    for key, where in SEARCHED.items():
        given = _value(config, key)
        if isinstance(where, Range):
            chosen[key] = trial.suggest_float(key, min(where.low, given), max(where.high, given), log=where.log)
        else:
            allowed = [width for width in where if width % config.model.n_heads == 0 or key != "model.embedding_dim"]
            chosen[key] = trial.suggest_categorical(key, sorted({*allowed, int(given)}))
    return chosen


def _open_study(config: ModelConfig, dataset: RecommendationDataset, split: Split, model_dir: Path) -> optuna.Study:
    """Return the study of this data and these settings, as far as it has got."""
    optuna.logging.set_verbosity(logging.WARNING)
    model_dir.mkdir(parents=True, exist_ok=True)
    facts = config.model_dump_json(), dataset.fingerprint, split.fingerprint
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    storage = URL.create("sqlite", database=str(model_dir / STUDY)).render_as_string()
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)  # its process was killed
    study.sampler = optuna.samplers.TPESampler(seed=config.training.seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(WARM_UP_TRIALS, WARM_UP_EPOCHS)
    given = {key: _value(config, key) for key in SEARCHED}
    if not any(trial.params == given for trial in _ended(study)):
        study.enqueue_trial(given)  # again where it was killed
    return study


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    ended: list[FrozenTrial] = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])
    return ended


def _say(study: optuna.Study, trial: FrozenTrial) -> None:
    reached = max(trial.intermediate_values.values(), default=float("nan"))
    ending = {TrialState.PRUNED: "stopped early", TrialState.FAIL: "failed"}.get(trial.state, "done")
    chosen = ", ".join(f"{key.partition('.')[2]} {_short(value)}" for key, value in trial.params.items())
    logger.info("trial %d %s: validation NDCG@10 %.4f (%s)", trial.number, ending, reached, chosen)
    if trial.state == TrialState.COMPLETE and study.best_trial.number == trial.number:
        logger.info("trial %d is the best so far", trial.number)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _with(config: ModelConfig, chosen: dict[str, object]) -> ModelConfig:
    tree = config.model_dump(mode="json")
    for key, value in chosen.items():
        section, name = key.split(".")
        tree[section][name] = value
    return ModelConfig.model_validate(tree)


def _value(config: ModelConfig, key: str) -> float:
    section, name = key.split(".")
    value: float = getattr(getattr(config, section), name)
    return value


def _write(config: ModelConfig, study: optuna.Study, path: Path) -> Path:
    trial = study.best_trial
    head = f"# The best of {len(_ended(study))} trials, number {trial.number}: validation NDCG@10 {trial.value:.4f}.\n"
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(head + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    partial.replace(path)
    return path
