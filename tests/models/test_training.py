"""Training learns, repeats itself to the bit, and goes on where it stopped."""

from pathlib import Path

import pytest
import torch
from worlds import checkerboard, interactions

from rec_engine.data.splits import Split, leave_one_out
from rec_engine.errors import TrainingError
from rec_engine.evaluation.epochs import EpochRecord
from rec_engine.evaluation.evaluator import validation_task
from rec_engine.models.training import TwoTowerTrainer, learning_rate, validation_ndcg_at_10
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import TrainingSettings

N = 40
SETTINGS = {"batch_size": 8, "num_epochs": 12, "learning_rate": 0.01, "device": "cpu", "warmup_steps": 5}


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings.model_validate(SETTINGS | changes)


def model(encoder: str = "hstu") -> TwoTowerModel:
    torch.manual_seed(0)
    return TwoTowerModel(
        N, N, 16, [16], dropout=0.1, temperature=0.1, user_encoder=encoder, n_blocks=1, max_history_len=12
    )


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(checkerboard(N))


@pytest.mark.parametrize("loss", ["full", "sampled"])
@pytest.mark.parametrize("encoder", ["hstu", "sasrec", "mean", "none"])
def test_every_encoder_and_loss_learns_who_likes_even_items(split: Split, encoder: str, loss: str) -> None:
    towers = model(encoder)
    untrained = validation_ndcg_at_10(towers, validation_task(split))
    TwoTowerTrainer(towers, settings(loss=loss, n_negatives=30)).fit(split.train, validation_task(split))
    # Of the 23 items a user has not seen, 3 are of his parity: who knows that puts the target among the first 3.
    assert validation_ndcg_at_10(towers, validation_task(split)) > max(0.5, untrained + 0.1)


def test_same_seed_gives_the_same_weights_to_the_bit_and_another_seed_others(split: Split) -> None:
    weights = []
    for seed in (0, 0, 1):
        towers = model()
        TwoTowerTrainer(towers, settings(num_epochs=2, seed=seed)).fit(split.train, validation_task(split))
        weights.append(towers.item_embedding.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_resumed_run_ends_where_an_uninterrupted_one_does(split: Split, tmp_path: Path) -> None:
    whole, stopped = model(), model()
    expected = TwoTowerTrainer(whole, settings(num_epochs=4)).fit(split.train, validation_task(split))
    checkpoint = tmp_path / "checkpoint.safetensors"

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TwoTowerTrainer(stopped, settings(num_epochs=4), checkpoint=checkpoint, on_epoch=stop).fit(
            split.train, validation_task(split)
        )
    resumed = model()
    found = TwoTowerTrainer(resumed, settings(num_epochs=4), checkpoint=checkpoint).fit(
        split.train, validation_task(split), resume=True
    )
    assert [record.validation_ndcg_at_10 for record in found] == [record.validation_ndcg_at_10 for record in expected]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_checkpoint_of_other_settings_or_a_damaged_one_is_refused(split: Split, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    TwoTowerTrainer(model(), settings(num_epochs=1), checkpoint=checkpoint).fit(split.train, validation_task(split))
    other = TwoTowerTrainer(model(), settings(num_epochs=1, seed=9), checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="other data or settings"):
        other.fit(split.train, validation_task(split), resume=True)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        other.fit(split.train, validation_task(split), resume=True)


def test_best_epoch_is_kept_and_waiting_ends(split: Split) -> None:
    towers = model()
    records = TwoTowerTrainer(towers, settings(num_epochs=40, early_stopping_patience=3)).fit(
        split.train, validation_task(split)
    )
    best = max(records, key=lambda record: record.validation_ndcg_at_10)
    assert len(records) == min(40, best.epoch + 3)
    assert validation_ndcg_at_10(towers, validation_task(split)) == pytest.approx(best.validation_ndcg_at_10)


def test_nothing_to_learn_from_is_an_error() -> None:
    lonely = leave_one_out(interactions([[0], [1]]))
    with pytest.raises(TrainingError, match="no user has two"):
        TwoTowerTrainer(model(), settings()).fit(lonely.train, validation_task(lonely))


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="sees no GPU"):
        TwoTowerTrainer(model(), settings(device="cuda"))


def test_learning_rate_warms_up_and_decays_to_a_twentieth() -> None:
    chosen = settings(warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(step, 1000, chosen) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.05, abs=0.001)
    assert all(later <= earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))
