"""Losses against their plain twins."""

import pytest
import torch
from torch.nn import functional

from rec_engine.models import losses
from rec_engine.models.losses import full_softmax, sampled_softmax

N_ITEMS, DIM = 30, 5


def vectors(n: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    drawn = torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return functional.normalize(drawn, dim=-1).requires_grad_()


@pytest.mark.parametrize("n", [1, 7, 8, 9, 25])
def test_chunked_softmax_is_cross_entropy_in_value_and_gradients(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "ROWS_A_CHUNK", 8)
    users, items = vectors(n, 0), vectors(N_ITEMS, 1)
    targets = torch.randint(N_ITEMS, (n,), generator=torch.Generator().manual_seed(2))
    expected = functional.cross_entropy(users @ items.T / 0.1, targets)
    expected_gradients = torch.autograd.grad(3 * expected, (users, items))
    found = full_softmax(users, items, targets, 0.1)
    found_gradients = torch.autograd.grad(3 * found, (users, items))
    assert torch.allclose(found, expected)
    for ours, theirs in zip(found_gradients, expected_gradients, strict=True):
        assert torch.allclose(ours, theirs)


def test_chunked_softmax_passes_gradcheck() -> None:
    targets = torch.tensor([0, 3, 3])
    assert torch.autograd.gradcheck(lambda u, v: full_softmax(u, v, targets, 0.5), (vectors(3, 0), vectors(6, 1)))


def test_sampling_every_item_once_is_the_full_softmax() -> None:
    users, items = vectors(6, 0), vectors(N_ITEMS, 1)
    targets, everything = torch.arange(6), torch.arange(N_ITEMS)
    sampled = sampled_softmax(users, items, targets, everything, torch.zeros(N_ITEMS, dtype=torch.float64), 0.2)
    assert torch.allclose(sampled, full_softmax(users, items, targets, 0.2))


def test_correction_makes_skewed_samples_estimate_the_same_partition_function() -> None:
    users, items = vectors(1, 0), vectors(N_ITEMS, 1)
    rng = torch.Generator().manual_seed(5)
    probability = torch.rand(N_ITEMS, generator=rng, dtype=torch.float64) + 0.1
    probability /= probability.sum()
    n = 200_000
    drawn = torch.multinomial(probability, n, replacement=True, generator=rng)
    target = torch.tensor([4])
    corrected = sampled_softmax(users, items, target, drawn, torch.log(n * probability[drawn]), 0.5)
    uncorrected = sampled_softmax(
        users, items, target, drawn, torch.full((n,), n / N_ITEMS, dtype=torch.float64).log(), 0.5
    )
    exact = full_softmax(users, items, target, 0.5)
    assert corrected.item() == pytest.approx(exact.item(), abs=0.02)
    assert abs(uncorrected.item() - exact.item()) > abs(corrected.item() - exact.item())


def test_a_sampled_target_does_not_count_against_itself() -> None:
    users, items, targets = vectors(2, 0), vectors(3, 1), torch.tensor([0, 0])
    with_hit = sampled_softmax(users, items, targets, torch.tensor([0, 1]), torch.zeros(2, dtype=torch.float64), 0.3)
    without = sampled_softmax(users, items, targets, torch.tensor([1]), torch.zeros(1, dtype=torch.float64), 0.3)
    assert torch.allclose(with_hit, without)
