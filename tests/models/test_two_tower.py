"""The model's shapes, norms and inputs; the encoders' causality."""

import pytest
import torch

from rec_engine.errors import ConfigError
from rec_engine.models.encoders import history_encoder
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import ModelSettings

ENCODERS = ("hstu", "sasrec", "mean")


@pytest.mark.parametrize("name", ENCODERS)
def test_a_later_item_never_changes_an_earlier_state(name: str) -> None:
    torch.manual_seed(0)
    encoder = history_encoder(name, 8, n_blocks=2, n_heads=2, max_len=10, dropout=0.3).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    sequence = torch.randn(2, 6, 8)
    changed = sequence.clone()
    changed[:, 4:] += 10
    before, after = encoder(sequence), encoder(changed)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-5)
    assert not torch.allclose(before[:, 4:], after[:, 4:])
    assert torch.allclose(encoder(sequence[:, :3]), before[:, :3], atol=1e-5)


@pytest.mark.parametrize("name", ["hstu", "sasrec"])
def test_order_of_the_history_matters(name: str) -> None:
    torch.manual_seed(0)
    encoder = history_encoder(name, 8, n_blocks=1, n_heads=1, max_len=10, dropout=0.0).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    sequence = torch.randn(1, 5, 8)
    swapped = sequence[:, [1, 0, 2, 3, 4]]
    assert not torch.allclose(encoder(sequence)[:, -1], encoder(swapped)[:, -1], atol=1e-4)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="n_heads = 3"):
        TwoTowerModel(5, 5, embedding_dim=8, n_heads=3)


def test_unknown_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="user_encoder"):
        TwoTowerModel(5, 5, user_encoder="lstm")


@pytest.mark.parametrize("tower_dims", [[8], [16, 8], [32, 16, 4]])
def test_vectors_of_both_towers_have_length_one(tower_dims: list[int]) -> None:
    model = TwoTowerModel(
        num_users=3, num_items=7, embedding_dim=8, tower_dims=tower_dims, dropout=0.3, temperature=0.05
    )
    inputs = model.item_inputs(torch.arange(7))
    items = model.eval().item_vectors(inputs)
    users = model.user_vectors(model.user_states(inputs[None, :4])[0], torch.zeros(4, 0))
    assert items.shape == (7, tower_dims[-1])
    assert torch.allclose(items.norm(dim=1), torch.ones(7))
    assert torch.allclose(users.norm(dim=1), torch.ones(4))


def test_towers_start_as_a_plain_dot_product_of_embeddings() -> None:
    model = TwoTowerModel(3, 7, embedding_dim=8, tower_dims=[16, 8]).eval()
    embedded = torch.nn.functional.normalize(model.item_embedding.weight, dim=1)
    assert torch.allclose(model.item_vectors(model.item_inputs(torch.arange(7))), embedded)


def test_features_and_text_change_the_vectors_and_receive_gradients() -> None:
    torch.manual_seed(0)
    features = {
        "item_features": torch.randn(7, 3),
        "text_embeddings": torch.randn(7, 5),
        "user_features": torch.randn(3, 2),
    }
    model = TwoTowerModel(3, 7, 8, [8], **features)  # type: ignore[arg-type]
    inputs = model.item_inputs(torch.arange(7))
    users = model.user_vectors(model.user_states(inputs[None, :4])[0, -1:], model.user_features[:1])
    torch.autograd.backward((users @ model.item_vectors(inputs).T)[0, 3])
    for layer in (model.from_item_features, model.from_text, model.from_user_features):
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum() > 0
    assert not torch.allclose(inputs, model.item_embedding.weight)


def test_only_the_model_without_history_has_user_embeddings() -> None:
    assert TwoTowerModel(5, 5, user_encoder="none").user_embedding.weight.shape == (5, 128)
    assert TwoTowerModel(5, 5).user_embedding.weight.shape == (0, 128)


def test_defaults_are_those_of_the_settings() -> None:
    settings, model = ModelSettings(), TwoTowerModel(2, 2)
    assert model.item_embedding.embedding_dim == settings.embedding_dim
    assert model.temperature == settings.temperature
    assert (model.user_encoder, model.max_history_len) == (settings.user_encoder, settings.max_history_len)
    widths = [layer.out_features for layer in model.item_tower.mlp if isinstance(layer, torch.nn.Linear)]
    assert tuple(widths) == settings.tower_dims
