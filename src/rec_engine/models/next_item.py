"""What a batch of histories costs the two towers: the softmax of each next item."""

import numpy as np
import torch
from torch import Tensor, nn

from rec_engine.data.dataset import Interactions
from rec_engine.models.batches import PADDING, Batch
from rec_engine.models.losses import full_softmax, sampled_softmax
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import TrainingSettings

UNIFORM_SHARE = 0.5
HIDDEN_CLOCK_SHARE = 0.2
"""Share of the histories of a step whose request times are hidden, so that the model can answer without them too."""


class NegativeSampler:
    """Draws items for the sampled softmax: half uniformly, half as often as they occur.

    Uniform draws keep rare items in their place, frequent ones are the hard negatives; the loss corrects for both.

    References:
        Yang et al., Mixed negative sampling for learning two-tower neural networks, WWW 2020.
    """

    def __init__(self, train: Interactions, n_items: int, n_negatives: int) -> None:
        counts = train.item_counts(n_items)
        known = counts > 0
        self.probability = UNIFORM_SHARE * known / known.sum() + (1 - UNIFORM_SHARE) * counts / counts.sum()
        self.cumulative = np.cumsum(self.probability)
        self.n_negatives = n_negatives

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Return (n_negatives,) int64 item codes, drawn with replacement."""
        drawn = np.searchsorted(self.cumulative, rng.random(self.n_negatives) * self.cumulative[-1], side="right")
        return torch.from_numpy(drawn)

    def log_expected(self, item_codes: Tensor) -> Tensor:
        """Return (n,) float32: the log of how often each item is expected in one draw."""
        return torch.from_numpy(np.log(self.n_negatives * self.probability[item_codes.numpy()]).astype(np.float32))


class NextItemLoss(nn.Module):
    """The mean loss over a batch's targets, as a module, so that it can be run by several processes.

    Args:
        model: the towers.
        sampler: of negatives; None for the softmax over the whole catalogue.
    """

    def __init__(self, model: TwoTowerModel, sampler: NegativeSampler | None) -> None:
        super().__init__()
        self.model = model
        self.sampler = sampler

    def forward(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Return the loss (scalar); item inputs and vectors are made once for every item that the batch touches.

        Negatives and hidden clocks are drawn for the batch of all processes: as each of them draws the same, nothing
        has to be sent around, and together they take the step that one process would take.
        """
        model, device = self.model, self.model.item_embedding.weight.device
        negatives = self.sampler.draw(rng) if self.sampler else None
        touched = self._touched_items(batch, negatives)
        inputs = model.item_inputs(touched.to(device))  # (n_touched, embedding_dim)
        item_vectors = model.item_vectors(inputs)  # (n_touched, dim)
        real = (batch.targets != PADDING).to(device)
        users = batch.user_codes.to(device)
        rows, steps = real.nonzero(as_tuple=True)  # (n_targets,) each
        if model.is_sequential:
            history = inputs[_rows(touched, batch.inputs).to(device)]
            times, asked = batch.times.to(device), _query_times(batch, rng).to(device)
            states = model.user_states(history * real[..., None], times, asked)[rows, steps]  # (n_targets, dim)
        else:
            states = model.user_embedding(users)[rows]
        vectors = model.user_vectors(states, model.user_features[users[rows]])  # (n_targets, dim)
        targets = _rows(touched, batch.targets).to(device)[real]
        with torch.autocast(device.type, enabled=False):  # 16 bits are too few to tell likely items apart
            return self._softmax(vectors.float(), item_vectors.float(), targets, touched, negatives)

    def _softmax(
        self, vectors: Tensor, item_vectors: Tensor, targets: Tensor, touched: Tensor, negatives: Tensor | None
    ) -> Tensor:
        temperature = self.model.temperature
        if self.sampler is None or negatives is None:
            return full_softmax(vectors, item_vectors, targets, temperature)
        drawn = torch.searchsorted(touched, negatives).to(vectors.device)
        log_expected = self.sampler.log_expected(negatives).to(vectors.device)
        return sampled_softmax(vectors, item_vectors, targets, drawn, log_expected, temperature)

    def _touched_items(self, batch: Batch, negatives: Tensor | None) -> Tensor:
        """Return ascending codes of the items whose vectors a batch needs: all known ones for the full softmax.

        Items that nobody met are no negatives: they had no chance, and their text would be pushed away from everybody.
        """
        if negatives is None:
            return self.model.known_items.nonzero()[:, 0].cpu()
        touched = torch.cat([batch.inputs[batch.inputs >= 0], batch.targets[batch.targets >= 0], negatives])
        distinct: Tensor = torch.unique(touched)
        return distinct


def loss_of(model: TwoTowerModel, train: Interactions, settings: TrainingSettings) -> NextItemLoss:
    """Return the loss that the settings ask for: over the whole catalogue, or over samples where it is large."""
    is_large = model.num_items > settings.full_softmax_limit
    is_sampled = settings.loss == "sampled" or (settings.loss == "auto" and is_large)
    return NextItemLoss(model, NegativeSampler(train, model.num_items, settings.n_negatives) if is_sampled else None)


def _query_times(batch: Batch, rng: np.random.Generator) -> Tensor:
    """Return when the targets were met, for some histories when the inputs were: a request without a clock."""
    is_hidden = torch.from_numpy((rng.random(batch.n_whole) < HIDDEN_CLOCK_SHARE)[batch.places])
    return torch.where(is_hidden[:, None], batch.times, batch.target_times)


def _rows(touched: Tensor, item_codes: Tensor) -> Tensor:
    """Return the rows of these items in `touched`; any row for PADDING."""
    return torch.searchsorted(touched, item_codes).clamp(max=len(touched) - 1)
