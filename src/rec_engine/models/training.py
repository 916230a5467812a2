"""The training loop of the two towers: next-item softmax, early stopping on validation NDCG@10, resumable."""

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rec_engine.data.dataset import FloatArray, IntArray, Interactions, LongArray
from rec_engine.errors import TrainingError
from rec_engine.evaluation.epochs import EpochRecord
from rec_engine.evaluation.evaluator import Scorer, Task, evaluate, rank_by_score, some_users
from rec_engine.models.batches import PADDING, Batch, Windows, epoch_batches, latest_histories, windows
from rec_engine.models.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from rec_engine.models.encoders import HSTU
from rec_engine.models.losses import full_softmax, sampled_softmax
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import TrainingSettings
from rec_engine.utils.logger import get_logger, with_progress

MAX_VALIDATION_USERS = 10_000
"""Validation must not outlast the epoch."""
FINAL_LEARNING_RATE = 0.05
MAX_GRADIENT_NORM = 1.0
UNIFORM_SHARE = 0.5
HIDDEN_CLOCK_SHARE = 0.2
"""Share of the histories of a step whose request times are hidden, so that the model can answer without them too."""
COMMON_SHARE = 0.999
MIN_STEPS_AN_EPOCH = 32

logger = get_logger(__name__)


class TwoTowerTrainer:
    """Trains a TwoTowerModel to predict each user's next item.

    Args:
        model: what to train, in place.
        settings: the `training:` section.
        checkpoint: file written after each epoch; None writes nothing.
        on_epoch: called after each epoch.

    Raises:
        TrainingError: if a GPU is asked for and there is none.
    """

    def __init__(
        self,
        model: TwoTowerModel,
        settings: TrainingSettings,
        *,
        checkpoint: Path | None = None,
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> None:
        self.device = _device(settings.device)
        self.model = model.to(self.device)
        self.settings = settings
        self.checkpoint = checkpoint
        self.on_epoch = on_epoch or (lambda _: None)

    def fit(self, train: Interactions, validation: Task, *, resume: bool = False) -> list[EpochRecord]:
        """Train until validation stops improving, put the best weights into the model and return the epochs' records.

        Args:
            train: interactions to learn from; only positive ones are targets.
            validation: decides which epoch is the best and when to stop.
            resume: go on from the checkpoint, if there is one, to the same result as an uninterrupted run.

        Raises:
            TrainingError: if no user has two interactions, the loss is not finite, or the checkpoint is of another run.
        """
        pieces = windows(train.positive(), self.model.max_history_len)
        if not len(pieces):
            raise TrainingError("no user has two positive interactions", hint="next-item training needs sequences")
        self.batch_size = max(1, min(self.settings.batch_size, len(pieces) // MIN_STEPS_AN_EPOCH))
        self.n_batches = math.ceil(len(pieces) / self.batch_size)
        state = self._start(train)
        if resume and self.checkpoint and self.checkpoint.exists():
            load_checkpoint(self.checkpoint, state)
        sampler = NegativeSampler(train, self.model.num_items, self.settings.n_negatives)
        self._prepare_model(train, pieces)
        validation = some_users(validation, MAX_VALIDATION_USERS, seed=self.settings.seed)
        if not len(validation.targets):
            logger.warning("nobody is left to validate on: training takes all its epochs and keeps the last")
        while not self._is_finished(state):
            started = time.monotonic()
            loss = self._epoch(state, pieces, sampler)
            ndcg = validation_ndcg_at_10(self.model, validation)
            state.records.append(EpochRecord(len(state.records) + 1, loss, ndcg, time.monotonic() - started))
            state.keep_if_best()
            if self.checkpoint:
                save_checkpoint(self.checkpoint, state)
            logger.info(
                "epoch %d of %d: loss %.4f, validation NDCG@10 %.4f, %.1f s",
                len(state.records),
                self.settings.num_epochs,
                loss,
                ndcg,
                state.records[-1].seconds,
            )
            self.on_epoch(state.records[-1])
        self.model.load_state_dict(state.best)
        self.model.eval()
        return state.records

    def _start(self, train: Interactions) -> TrainingState:
        optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=(0.9, 0.98), weight_decay=self.settings.weight_decay
        )
        shapes = {name: tuple(tensor.shape) for name, tensor in self.model.state_dict().items()}
        run = hashlib.sha256(f"{self.settings!r}{shapes}{self.model.temperature}".encode())
        run.update(train.item_codes.tobytes() + train.starts.tobytes())
        return TrainingState(run.hexdigest(), self.model, optimizer)

    def _prepare_model(self, train: Interactions, pieces: Windows) -> None:
        """Tell the model which items it will know and how long the users' pauses are."""
        known = np.zeros(self.model.num_items, dtype=np.bool_)
        known[train.item_codes] = True
        self.model.known_items.copy_(torch.from_numpy(known))
        if isinstance(self.model.encoder, HSTU):
            self.model.encoder.max_pause.fill_(pieces.common_pause(COMMON_SHARE))

    def _is_finished(self, state: TrainingState) -> bool:
        best = state.best_record
        waited = len(state.records) - best.epoch if best else 0
        return len(state.records) >= self.settings.num_epochs or waited >= self.settings.early_stopping_patience

    def _epoch(self, state: TrainingState, pieces: Windows, sampler: "NegativeSampler") -> float:
        """Take one step a batch and return the mean loss; seeded by the epoch, so that resuming changes nothing."""
        rng = np.random.default_rng([self.settings.seed, len(state.records)])
        torch.manual_seed(int(rng.integers(2**63)))
        self.model.train()
        losses: list[float] = []
        batches = epoch_batches(pieces, self.batch_size, rng)
        for batch in with_progress(batches, f"epoch {len(state.records) + 1}", self.n_batches):
            step = len(state.records) * self.n_batches + len(losses)
            rate = learning_rate(step, self.settings.num_epochs * self.n_batches, self.settings)
            state.optimizer.param_groups[0]["lr"] = rate
            loss = self._loss(batch, sampler, rng)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise TrainingError(f"the loss became {losses[-1]}", hint="lower training.learning_rate")
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
            state.optimizer.step()
        return float(np.mean(losses))

    def _loss(self, batch: Batch, sampler: "NegativeSampler", rng: np.random.Generator) -> Tensor:
        """Return the loss of one batch; item inputs and vectors are made once for every item it touches."""
        model = self.model
        negatives = sampler.draw(rng) if self._is_sampled else None
        touched = self._touched_items(batch, negatives)
        inputs = model.item_inputs(touched.to(self.device))  # (n_touched, embedding_dim)
        item_vectors = model.item_vectors(inputs)  # (n_touched, dim)
        real = (batch.targets != PADDING).to(self.device)
        users = batch.user_codes.to(self.device)
        rows, steps = real.nonzero(as_tuple=True)  # (n_targets,) each
        if model.is_sequential:
            history = inputs[_rows(touched, batch.inputs).to(self.device)]
            times, asked = batch.times.to(self.device), self._query_times(batch, rng).to(self.device)
            states = model.user_states(history * real[..., None], times, asked)[rows, steps]  # (n_targets, dim)
        else:
            states = model.user_embedding(users)[rows]
        vectors = model.user_vectors(states, model.user_features[users[rows]])  # (n_targets, dim)
        targets = _rows(touched, batch.targets).to(self.device)[real]
        if negatives is None:
            return full_softmax(vectors, item_vectors, targets, model.temperature)
        drawn = torch.searchsorted(touched, negatives).to(self.device)
        log_expected = sampler.log_expected(negatives).to(self.device)
        return sampled_softmax(vectors, item_vectors, targets, drawn, log_expected, model.temperature)

    def _query_times(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Return when the targets were met, for some histories when the inputs were: a request without a clock."""
        is_hidden = torch.from_numpy(rng.random(len(batch.inputs)) < HIDDEN_CLOCK_SHARE)
        return torch.where(is_hidden[:, None], batch.times, batch.target_times)

    def _touched_items(self, batch: Batch, negatives: Tensor | None) -> Tensor:
        """Return ascending codes of the items whose vectors a batch needs: all known ones for the full softmax.

        Items that nobody met are no negatives: they had no chance, and their text would be pushed away from everybody.
        """
        if negatives is None:
            return self.model.known_items.nonzero()[:, 0].cpu()
        touched = torch.cat([batch.inputs[batch.inputs >= 0], batch.targets[batch.targets >= 0], negatives])
        distinct: Tensor = torch.unique(touched)
        return distinct

    @property
    def _is_sampled(self) -> bool:
        is_large = self.model.num_items > self.settings.full_softmax_limit
        return self.settings.loss == "sampled" or (self.settings.loss == "auto" and is_large)


class NegativeSampler:
    """Draws items for the sampled softmax: half uniformly, half as often as they occur.

    Uniform draws keep rare items in their place, frequent ones are the hard negatives; the loss corrects for both.

    References:
        Yang et al., Mixed negative sampling for learning two-tower neural networks, WWW 2020.
    """

    def __init__(self, train: Interactions, n_items: int, n_negatives: int) -> None:
        counts = np.bincount(train.item_codes, minlength=n_items)
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


def validation_ndcg_at_10(model: TwoTowerModel, task: Task) -> float:
    """Return NDCG@10 over the full catalogue, seen items left out; nan when there is nobody to measure."""
    recommend = rank_by_score(scorer(model, task.history, task.request_times()), task.seen)
    result = evaluate("validation", recommend, task, n_items=model.num_items, ks=(10,))
    return result.mean("ndcg@10")


@torch.no_grad()
def scorer(model: TwoTowerModel, history: Interactions, now: LongArray) -> Scorer:
    """Return a function from user codes (n,) to the cosines (n, n_items) float32 of each user and every item.

    Args:
        model: trained.
        history: what the users met.
        now: (n_users,) int64, Unix seconds of each user's request.
    """
    model.eval()
    device = model.item_embedding.weight.device
    inputs = model.item_inputs(torch.arange(model.num_items, device=device))
    item_vectors = model.item_vectors(inputs)
    known = history.positive()

    @torch.no_grad()
    def score(user_codes: IntArray) -> FloatArray:
        users = torch.from_numpy(user_codes.astype(np.int64)).to(device)
        if model.is_sequential:
            past = latest_histories(known, user_codes, model.max_history_len, now[user_codes])
            sequence = inputs[past.item_codes.clamp(min=0).to(device)]
            states = model.user_states(sequence, past.times.to(device), past.query_times.to(device))
            states = states[torch.arange(len(users), device=device), (past.lengths - 1).clamp(min=0).to(device)]
        else:
            states = model.user_embedding(users)
        vectors = model.user_vectors(states, model.user_features[users])  # (n, dim)
        scores: FloatArray = (vectors @ item_vectors.T).cpu().numpy()
        return scores

    return score


def learning_rate(step: int, n_steps: int, settings: TrainingSettings) -> float:
    """Return the rate of a step: linear warm-up, then a cosine down to 5% of the peak."""
    n_warmup = min(settings.warmup_steps, n_steps // 10)
    if step < n_warmup:
        return settings.learning_rate * (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    share = FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * (1 + math.cos(math.pi * done)) / 2
    return settings.learning_rate * share


def _rows(touched: Tensor, item_codes: Tensor) -> Tensor:
    """Return the rows of these items in `touched`; any row for PADDING."""
    return torch.searchsorted(touched, item_codes).clamp(max=len(touched) - 1)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("training.device = cuda, but torch sees no GPU", hint="train with --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
