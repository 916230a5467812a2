"""The training loop of the two towers: next-item softmax, early stopping on validation NDCG@10, resumable.

It is the same loop for one process and for many (see `processes`): all of them see the same data and draw the same
batches, each takes its share of every batch, and gradients are averaged before a step. So `batch_size` is that of all
together, and more processes take the same steps sooner; only dropout differs, and the order in which numbers are added.
"""

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from rec_engine.data.dataset import FloatArray, IntArray, Interactions, LongArray
from rec_engine.errors import TrainingError
from rec_engine.evaluation.epochs import EpochRecord
from rec_engine.evaluation.evaluator import Scorer, Task, evaluate, rank_by_score, share_of_users, some_users
from rec_engine.evaluation.metrics import DoubleArray
from rec_engine.models.batches import Windows, epoch_batches, latest_histories, windows
from rec_engine.models.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from rec_engine.models.encoders import HSTU
from rec_engine.models.next_item import loss_of
from rec_engine.models.processes import Processes, local_gpu
from rec_engine.models.steps import Steps
from rec_engine.models.two_tower import TwoTowerModel
from rec_engine.utils.config import TrainingSettings
from rec_engine.utils.logger import get_logger, with_progress

MAX_VALIDATION_USERS = 10_000
"""Validation must not outlast the epoch."""
FINAL_LEARNING_RATE = 0.05
COMMON_SHARE = 0.999
MIN_STEPS_AN_EPOCH = 32

logger = get_logger(__name__)


class TwoTowerTrainer:
    """Trains a TwoTowerModel to predict each user's next item.

    Args:
        model: what to train, in place.
        settings: the `training:` section.
        checkpoint: file written after each epoch, by the first of several processes; None writes nothing.
        on_epoch: called after each epoch, in each process.

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
        self.processes = Processes.of_this_run(self.device)
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
            TrainingError: if no user has two interactions, the loss is not finite, the checkpoint is of another run, or
                processes that train together do not have the same data, settings and checkpoint.
        """
        pieces = windows(train.positive(), self.model.max_history_len)
        if not len(pieces):
            raise TrainingError("no user has two positive interactions", hint="next-item training needs sequences")
        least_batches = MIN_STEPS_AN_EPOCH * self.settings.gradient_accumulation
        self.batch_size = max(1, min(self.settings.batch_size, len(pieces) // least_batches))
        self.n_batches = math.ceil(len(pieces) / self.batch_size)
        state = self._start(train, resume=resume)
        self._prepare_model(train, pieces)
        loss = loss_of(self.model, train, self.settings)
        steps = Steps(loss, state.optimizer, state.scaler, self.settings, self.processes)
        validation = some_users(validation, MAX_VALIDATION_USERS, seed=self.settings.seed)
        if not len(validation.targets):
            logger.warning("nobody is left to validate on: training takes all its epochs and keeps the last")
        own_validation = share_of_users(validation, self.processes.rank, self.processes.count)
        while not self._is_finished(state):
            started = time.monotonic()
            mean_loss = self._epoch(len(state.records), steps, pieces)
            ndcg = self._validate(own_validation)
            state.records.append(EpochRecord(len(state.records) + 1, mean_loss, ndcg, time.monotonic() - started))
            self._conclude(state)
        self.model.load_state_dict(state.best)
        self.model.eval()
        return state.records

    def _start(self, train: Interactions, *, resume: bool) -> TrainingState:
        optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=(0.9, 0.98), weight_decay=self.settings.weight_decay
        )
        shapes = {name: tuple(tensor.shape) for name, tensor in self.model.state_dict().items()}
        run = hashlib.sha256(f"{self.settings!r}{shapes}{self.model.temperature}".encode())
        run.update(train.item_codes.data)
        run.update(train.starts.data)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.settings.mixed_precision == "fp16")
        state = TrainingState(run.hexdigest(), self.model, optimizer, scaler)
        if resume and self.checkpoint and self.checkpoint.exists():
            load_checkpoint(self.checkpoint, state)
        reached = hashlib.sha256(f"{state.run}{len(state.records)}".encode())
        self.processes.check_alike(reached.hexdigest(), "data, settings and checkpoint")
        return state

    def _prepare_model(self, train: Interactions, pieces: Windows) -> None:
        """Tell the model which items it will know, how long the users' pauses are and whether memory is short."""
        known = train.item_counts(self.model.num_items) > 0
        self.model.known_items.copy_(torch.from_numpy(known))
        if isinstance(self.model.encoder, HSTU):
            self.model.encoder.max_pause.fill_(pieces.common_pause(COMMON_SHARE))
        self.model.encoder.recomputes = self.settings.gradient_checkpointing

    def _is_finished(self, state: TrainingState) -> bool:
        best = state.best_record
        waited = len(state.records) - best.epoch if best else 0
        return len(state.records) >= self.settings.num_epochs or waited >= self.settings.early_stopping_patience

    def _epoch(self, n_done: int, steps: Steps, pieces: Windows) -> float:
        """Go through all batches once and return the mean loss; seeded by the epoch, so that resuming changes nothing.

        Args:
            n_done: epochs before.
            steps: what a batch is given to.
            pieces: of the users' histories.
        """
        rank, n_ranks = self.processes.rank, self.processes.count
        rng = np.random.default_rng([self.settings.seed, n_done])
        torch.manual_seed(int(rng.integers(2**63)) + rank)
        self.model.train()
        size, losses = self.settings.gradient_accumulation, list[float]()
        n_steps = math.ceil(self.n_batches / size)
        batches = epoch_batches(pieces, self.batch_size, rng, rank=rank, n_ranks=n_ranks)
        for place, batch in enumerate(with_progress(batches, f"epoch {n_done + 1}", self.n_batches)):
            step, place_in_step = divmod(place, size)
            n_batches = min(size, self.n_batches - step * size)
            rate = learning_rate(n_done * n_steps + step, self.settings.num_epochs * n_steps, self.settings)
            steps.optimizer.param_groups[0]["lr"] = rate
            losses.append(steps.add(batch, rng, n_batches=n_batches, is_last=place_in_step + 1 == n_batches))
        return float(np.mean(losses))

    def _validate(self, own_part: Task) -> float:
        values = _ndcg_at_10(self.model, own_part)
        total, n_users = self.processes.sums(float(values.sum()), float(len(values)))
        return total / n_users if n_users else math.nan

    def _conclude(self, state: TrainingState) -> None:
        """Keep what an epoch has brought, and tell who wants to know."""
        state.keep_if_best()
        latest = state.records[-1]
        if self.processes.is_first:
            if self.checkpoint:
                save_checkpoint(self.checkpoint, state)
            logger.info(
                "epoch %d of %d: loss %.4f, validation NDCG@10 %.4f, %.1f s",
                latest.epoch,
                self.settings.num_epochs,
                latest.loss,
                latest.validation_ndcg_at_10,
                latest.seconds,
            )
        self.on_epoch(latest)


def validation_ndcg_at_10(model: TwoTowerModel, task: Task) -> float:
    """Return NDCG@10 over the full catalogue, seen items left out; nan when there is nobody to measure."""
    values = _ndcg_at_10(model, task)
    return float(values.mean()) if len(values) else math.nan


def _ndcg_at_10(model: TwoTowerModel, task: Task) -> DoubleArray:
    recommend = rank_by_score(scorer(model, task.history, task.request_times()), task.seen)
    return evaluate("validation", recommend, task, n_items=model.num_items, ks=(10,)).per_user["ndcg@10"]


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


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("training.device = cuda, but torch sees no GPU", hint="train with --device cpu")
    return torch.device("cuda", local_gpu()) if name != "cpu" and torch.cuda.is_available() else torch.device("cpu")
