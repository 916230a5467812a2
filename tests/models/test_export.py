"""What is served computes what was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import LATER, interactions, user_state

from rec_engine.data.state import state_of
from rec_engine.errors import BundleError
from rec_engine.models.export import export_item_tower, export_user_tower, item_arrays
from rec_engine.models.training import scorer
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.models.user_tower import UserTower, open_session

HISTORY = interactions([[0], [1, 2, 3], list(range(9)), [], [4, 5]], [[1], [1, -1, 1], [1] * 9, [], [1, 1]])
USERS = np.array([2, 0, 4, 1], dtype=np.int32)


@pytest.mark.parametrize("encoder", ["hstu", "sasrec", "mean", "none"])
def test_exported_tower_equals_torch_one_by_one_and_in_batches(encoder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TwoTowerModel(5, 10, 16, [24, 8], user_encoder=encoder, max_history_len=6, user_features=torch.randn(5, 3))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    export_user_tower(model, tmp_path / "tower.onnx")
    inputs, vectors = item_arrays(model, items_a_batch=4)
    tower = UserTower(
        session=open_session(tmp_path / "tower.onnx"),
        item_inputs=inputs,
        user_inputs=model.user_embedding.weight.detach().numpy(),
        user_features=model.user_features.numpy(),
        max_history_len=6,
    )
    now = HISTORY.timestamps.max() + np.array([5, 900, 86_400, 0, 3_000_000])
    expected = scorer(model, HISTORY, now)(USERS)
    together = tower.vectors(HISTORY, USERS, now)
    one_by_one = [tower.vector(state_of(HISTORY, int(user), int(now[user]))) for user in USERS]
    assert tower.dim == 8
    assert np.allclose(together @ vectors.T, expected, atol=1e-5)
    for alone, of_batch in zip(one_by_one, together, strict=True):
        assert alone is not None
        assert np.allclose(alone, of_batch, atol=1e-5)
    assert tower.vector(state_of(HISTORY, 3, LATER)) is None
    stranger = tower.vector(user_state([1, 2]))
    assert (stranger is None) == (encoder == "none")


def test_history_towers_serve_users_they_never_saw_and_zero_those_without_history(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TwoTowerModel(5, 10, 8, [8], max_history_len=6)
    export_user_tower(model, tmp_path / "tower.onnx")
    inputs, _ = item_arrays(model)
    tower = UserTower(
        open_session(tmp_path / "tower.onnx"), inputs, np.empty((0, 8), np.float32), np.zeros((5, 0), np.float32), 6
    )
    cold = tower.vector(user_state([1, 2]))
    assert cold is not None
    assert np.linalg.norm(cold) == pytest.approx(1, abs=1e-5)
    assert not tower.vectors(HISTORY, np.array([3], dtype=np.int32), np.full(5, LATER)).any()


@pytest.mark.parametrize(("n_features", "text_dim"), [(3, 4), (0, 4), (3, 0), (0, 0)])
def test_exported_item_tower_equals_torch_for_items_without_id(n_features: int, text_dim: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    features, text = torch.randn(10, n_features), torch.randn(10, text_dim)
    model = TwoTowerModel(5, 10, 16, [24, 8], item_features=features, text_embeddings=text)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    export_item_tower(model, tmp_path / "item_tower.onnx")
    feed = {"item_features": features.numpy(), "text": text.numpy()}
    inputs, vectors = open_session(tmp_path / "item_tower.onnx").run(["item_input", "item_vector"], feed)
    assert not np.allclose(inputs, item_arrays(model)[0], atol=0.1)
    model.known_items[:] = False
    for mine, training in zip((inputs, vectors), item_arrays(model), strict=True):
        assert np.allclose(mine, training, atol=1e-5)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tower.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match="not a readable ONNX model"):
        open_session(tmp_path / "tower.onnx")
