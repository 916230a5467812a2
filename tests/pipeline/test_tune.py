"""The search for settings: it begins with the given ones, goes on where it stopped, and ends in a file that trains."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from conftest import tiny_config

from rec_engine.data.dataset import RecommendationDataset
from rec_engine.errors import TrainingError
from rec_engine.pipeline.train import make_split
from rec_engine.pipeline.tune import BEST, SEARCHED, STUDY, WARM_UP_TRIALS, tune
from rec_engine.utils.config import ModelConfig, load_config

CONFIG = tiny_config(training={"num_epochs": 5, "batch_size": 8})


def trials(directory: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{directory / STUDY}"
    (name,) = optuna.study.get_all_study_names(storage)
    found: list[optuna.trial.FrozenTrial] = optuna.load_study(study_name=name, storage=storage).trials
    return found


def test_a_search_ends_nowhere_worse_and_goes_on_where_it_stopped(
    dataset: RecommendationDataset, tmp_path: Path
) -> None:
    split = make_split(dataset, CONFIG)
    tune(dataset, CONFIG, split, 2, tmp_path)
    first = trials(tmp_path)
    best, path = tune(dataset, CONFIG, split, 5, tmp_path)
    found = trials(tmp_path)
    assert [trial.number for trial in found] == [0, 1, 2, 3, 4]
    assert [trial.params for trial in found[:2]] == [trial.params for trial in first]
    assert found[0].params == {key: getattr(getattr(CONFIG, key.split(".")[0]), key.split(".")[1]) for key in SEARCHED}
    completed = [trial for trial in found if trial.state == optuna.trial.TrialState.COMPLETE]
    winner = max(completed, key=lambda trial: (trial.value or 0.0, -trial.number))
    assert (winner.value or 0.0) >= (found[0].value or 0.0)
    assert best.model.dropout == winner.params["model.dropout"]
    assert path == tmp_path / BEST
    assert load_config(ModelConfig, path) == best


def test_what_a_killed_run_left_does_not_count_as_a_trial(dataset: RecommendationDataset, tmp_path: Path) -> None:
    split = make_split(dataset, CONFIG)
    tune(dataset, CONFIG, split, 1, tmp_path)
    storage = f"sqlite:///{tmp_path / STUDY}"
    (name,) = optuna.study.get_all_study_names(storage)
    optuna.load_study(study_name=name, storage=storage).ask()  # begun, and never told how it ended
    tune(dataset, CONFIG, split, 2, tmp_path)
    states = [trial.state.name for trial in trials(tmp_path)]
    assert states[1] == "FAIL"
    assert len([state for state in states if state in {"COMPLETE", "PRUNED"}]) == 2


def test_the_given_settings_are_tried_again_where_they_were_killed(
    dataset: RecommendationDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_split(dataset, CONFIG)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rec_engine.pipeline.tune.TwoTowerTrainer.fit", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(dataset, CONFIG, split, 1, tmp_path)
    tune(dataset, CONFIG, split, 1, tmp_path)
    first, again = trials(tmp_path)
    assert (first.state.name, again.state.name) == ("FAIL", "COMPLETE")
    assert again.params == first.params


def test_other_data_is_another_search(dataset: RecommendationDataset, tmp_path: Path) -> None:
    tune(dataset, CONFIG, make_split(dataset, CONFIG), 1, tmp_path)
    other = tiny_config(training={"num_epochs": 5, "batch_size": 8, "seed": 1})
    tune(dataset, other, make_split(dataset, other), 1, tmp_path)
    assert len(optuna.study.get_all_study_names(f"sqlite:///{tmp_path / STUDY}")) == 2


def test_hopeless_settings_are_stopped_early(dataset: RecommendationDataset, tmp_path: Path) -> None:
    split = make_split(dataset, CONFIG)
    tune(dataset, CONFIG, split, 1, tmp_path)
    storage = f"sqlite:///{tmp_path / STUDY}"
    (name,) = optuna.study.get_all_study_names(storage)
    study, (given,) = optuna.load_study(study_name=name, storage=storage), trials(tmp_path)
    for _ in range(WARM_UP_TRIALS):  # better than any real trial can be
        given.value, given.intermediate_values = 2.0, dict.fromkeys(given.intermediate_values, 2.0)
        study.add_trial(given)
    tune(dataset, CONFIG, split, 7, tmp_path)
    ended = trials(tmp_path)[-2:]
    assert [trial.state.name for trial in ended] == ["PRUNED", "PRUNED"]
    assert all(len(trial.intermediate_values) < len(given.intermediate_values) for trial in ended)


def test_nobody_to_validate_on_is_an_error(dataset: RecommendationDataset, tmp_path: Path) -> None:
    split = make_split(dataset, CONFIG)
    nothing = dataset.interactions.where(dataset.interactions.item_codes < 0)
    with pytest.raises(TrainingError, match="validate"):
        tune(dataset, CONFIG, replace(split, validation=nothing), 1, tmp_path)
