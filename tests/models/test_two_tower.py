"""The model's shapes, norms and inputs; the encoders' causality."""

import pytest
import torch

from rec_engine.errors import ConfigError
from rec_engine.models.encoders import HSTU, N_GAPS, _Pick, gap_buckets, history_encoder
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import ModelSettings

ENCODERS = ("hstu", "sasrec", "mean")
TIMES = torch.arange(12).reshape(2, 6) * 1_000 + 1_600_000_000


@pytest.mark.parametrize("name", ENCODERS)
def test_a_later_item_never_changes_an_earlier_state(name: str) -> None:
    torch.manual_seed(0)
    encoder = history_encoder(name, 8, n_blocks=2, n_heads=2, max_len=10, dropout=0.3).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    sequence = torch.randn(2, 6, 8)
    changed = sequence.clone()
    changed[:, 4:] += 10
    before, after = encoder(sequence, TIMES, TIMES + 5), encoder(changed, TIMES, TIMES + 5)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-5)
    assert not torch.allclose(before[:, 4:], after[:, 4:])
    assert torch.allclose(encoder(sequence[:, :3], TIMES[:, :3], TIMES[:, :3] + 5), before[:, :3], atol=1e-5)


@pytest.mark.parametrize("name", ["hstu", "sasrec"])
def test_order_of_the_history_matters(name: str) -> None:
    torch.manual_seed(0)
    encoder = history_encoder(name, 8, n_blocks=1, n_heads=1, max_len=10, dropout=0.0).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    sequence, times = torch.randn(1, 5, 8), TIMES[:1, :5]
    swapped = sequence[:, [1, 0, 2, 3, 4]]
    before, after = encoder(sequence, times, times + 5), encoder(swapped, times, times + 5)
    assert not torch.allclose(before[:, -1], after[:, -1], atol=1e-4)


def test_hstu_reads_the_time_of_the_request_up_to_the_longest_pause_it_learned() -> None:
    torch.manual_seed(0)
    encoder = HSTU(8, n_blocks=2, n_heads=2, max_len=10, dropout=0.0).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    encoder.max_pause.fill_(1_000_000)
    sequence, times = torch.randn(1, 5, 8), TIMES[:1, :5]

    def last_state(pause: int) -> torch.Tensor:
        asked = torch.cat([times[:, 1:], times[:, -1:] + pause], dim=1)
        state: torch.Tensor = encoder(sequence, times, asked)[:, -1]
        return state

    assert not torch.allclose(last_state(1), last_state(500_000), atol=1e-4)
    assert torch.equal(last_state(1_000_000), last_state(900_000_000))


def test_gaps_are_counted_on_a_logarithmic_scale() -> None:
    gaps = torch.tensor([-5, 0, 1, 2, 60, 3_600, 86_400, 10 * 365 * 86_400])
    places = gap_buckets(gaps)
    assert places[:3].tolist() == [0, 0, 0]
    assert (places[2:].diff() > 0).all()
    assert places.max() < N_GAPS


def test_picking_counts_its_gradient_as_torch_does() -> None:
    values, places = torch.randn(6, requires_grad=True), torch.randint(0, 6, (3, 4, 4))
    weights = torch.randn(3, 4, 4)
    picked: torch.Tensor = _Pick.apply(values, places)  # type: ignore[no-untyped-call]
    (picked * weights).sum().backward()  # type: ignore[no-untyped-call]
    expected = torch.autograd.grad((values[places] * weights).sum(), values)[0]
    assert values.grad is not None
    assert torch.allclose(values.grad, expected, atol=1e-5)


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
    users = model.user_vectors(model.user_states(inputs[None, :4], TIMES[:1, :4], TIMES[:1, :4])[0], torch.zeros(4, 0))
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
    states = model.user_states(inputs[None, :4], TIMES[:1, :4], TIMES[:1, :4])
    users = model.user_vectors(states[0, -1:], model.user_features[:1])
    torch.autograd.backward((users @ model.item_vectors(inputs).T)[0, 3])
    for layer in (model.from_item_features, model.from_text, model.from_user_features):
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum() > 0
    assert not torch.allclose(inputs, model.item_embedding.weight)


def test_an_item_that_nobody_met_has_its_text_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = TwoTowerModel(3, 7, 8, [8], text_embeddings=torch.randn(7, 5)).eval()
    model.known_items[4] = False
    inputs = model.item_inputs(torch.arange(7))
    assert torch.allclose(inputs[4], model.from_text(model.text_embeddings[4]))
    assert not torch.allclose(inputs[3], model.from_text(model.text_embeddings[3]))


def test_ids_are_dropped_in_training_only_and_only_where_there_is_more_to_an_item() -> None:
    torch.manual_seed(0)
    with_text = TwoTowerModel(3, 500, 8, [8], text_embeddings=torch.zeros(500, 5), id_dropout=0.3)
    bare = TwoTowerModel(3, 500, 8, [8], id_dropout=0.3)
    codes = torch.arange(500)
    dropped = (with_text.item_inputs(codes) == 0).all(dim=1).float().mean()
    assert 0.2 < dropped < 0.4
    assert torch.equal(bare.item_inputs(codes), bare.item_embedding.weight)
    assert torch.equal(with_text.eval().item_inputs(codes), with_text.item_embedding.weight)


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
