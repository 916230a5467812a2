"""The parts of the offline half that grow with the users, on the workers of a Ray cluster (or of this machine).

The only file that knows Ray. What runs on a worker is what runs in one process: the training loop of `models.training`
under Ray Train, which starts its processes again when one dies, and `pipeline.batch` under Ray Data.
"""

import importlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl

from rec_engine.bundle import open_bundle
from rec_engine.data.dataset import ExternalId, Interactions
from rec_engine.errors import ConfigError, RecEngineError, TrainingError
from rec_engine.evaluation.epochs import EpochRecord
from rec_engine.evaluation.evaluator import Task
from rec_engine.pipeline.batch import recommendations
from rec_engine.serving.inference import RecommendationInference
from rec_engine.utils.config import RecommendationSettings, TrainingSettings
from rec_engine.utils.logger import configure_logging

if TYPE_CHECKING:
    import pyarrow

    from rec_engine.models.two_tower import TwoTowerModel

MAX_RESTARTS = 3
"""Times that training goes on from its checkpoint after workers died."""
USERS_A_SHARD = 2_000
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Nothing is reported to Ray's makers; a worker that is taken away is replaced like one that died."""
ARROW = pl.CompatLevel.oldest()
"""Texts as Arrow has always had them: Ray does not sort or join the newer ones."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """All that a worker needs to train; it lies in Ray's object store, arrays once a machine.

    Attributes:
        model: not trained.
        settings: the `training:` section.
        train: what to learn from.
        validation: when to stop.
        checkpoint: absolute, on storage that all workers see.
    """

    model: "TwoTowerModel"
    settings: TrainingSettings
    train: Interactions
    validation: Task
    checkpoint: Path


def train_on_ray(job: TrainingJob, n_workers: int, *, resume: bool) -> list[EpochRecord]:
    """Train `job.model` on `n_workers` processes, put the best weights into it and return the epochs' records.

    A worker that dies is replaced, and all go on from the checkpoint of the latest epoch.

    Args:
        job: what to train.
        n_workers: one CPU each, or one GPU each where the settings want GPUs.
        resume: go on from the checkpoint, if there is one.

    Raises:
        ConfigError: if Ray is not installed, or has fewer CPUs or GPUs than there are workers.
        TrainingError: as TwoTowerTrainer.fit, or if workers die again and again.
    """
    with _cluster(n_workers):
        import ray
        from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer

        use_gpu = _uses_gpu(job.settings.device, n_workers)
        if not resume:
            job.checkpoint.unlink(missing_ok=True)
        job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=job.checkpoint.parent, prefix=".ray-") as storage:
            trainer = TorchTrainer(
                _train_on_worker,
                train_loop_config={"job": [ray.put(job)]},
                scaling_config=ScalingConfig(num_workers=n_workers, use_gpu=use_gpu),
                torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
                run_config=RunConfig(
                    name="towers",
                    storage_path=storage,
                    failure_config=FailureConfig(max_failures=MAX_RESTARTS),
                    logging_config=LoggingConfig(log_level="ERROR"),
                ),
            )
            try:
                failure: tuple[str, str] | None = trainer.fit().return_value
            except TrainingFailedError as error:
                raise TrainingError(
                    f"training on {n_workers} Ray workers failed {MAX_RESTARTS + 1} times: {error}",
                    hint="the workers' logs say why; --resume goes on from the checkpoint",
                ) from error
    if failure:
        raise TrainingError(failure[0], hint=failure[1])
    from rec_engine.models.checkpoints import load_best

    return load_best(job.checkpoint, job.model)


def _train_on_worker(config: dict[str, object]) -> tuple[str, str] | None:
    """Train as one of several processes; return message and hint of an error that another try would meet again."""
    import ray

    from rec_engine.models.training import TwoTowerTrainer

    configure_logging()
    job: TrainingJob = ray.get(config["job"])[0]
    try:
        trainer = TwoTowerTrainer(job.model, job.settings, checkpoint=job.checkpoint)
        # Whatever is there is wanted: the checkpoint of a run that shall not go on was removed before.
        trainer.fit(job.train, job.validation, resume=True)
    except RecEngineError as error:
        return str(error), error.hint
    return None


def recommend_on_ray(
    directory: Path, ids: Sequence[ExternalId], k: int, settings: RecommendationSettings, n_workers: int
) -> pl.DataFrame:
    """Return the table of `pipeline.batch.recommendations`, worked out by `n_workers` processes.

    Args:
        directory: of the version, on storage that all workers see.
        ids: of the users, in the order of the table.
        k: items a user.
        settings: the `recommendations:` section.
        n_workers: each opens the version once.

    Raises:
        ConfigError: if Ray is not installed or has fewer CPUs than there are workers.
    """
    with _cluster(n_workers):
        import ray.data

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        users = pl.DataFrame({"user_id": pl.Series(ids, strict=False)})
        n_a_shard = min(USERS_A_SHARD, -(-len(ids) // n_workers))
        shards = [shard.to_arrow(compat_level=ARROW) for shard in users.iter_slices(n_a_shard)]
        tables = ray.data.from_arrow(shards).map_batches(
            _Recommender,
            fn_constructor_args=(directory.resolve(), k, settings),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(n_workers, len(shards))),
        )
        found = [pl.DataFrame(table) for table in tables.iter_batches(batch_size=None, batch_format="pyarrow")]
    return pl.concat(found) if found else users.clear().with_columns(item_id=None, rank=None, score=None)


class _Recommender:
    """An actor: a version that is open."""

    def __init__(self, directory: Path, k: int, settings: RecommendationSettings) -> None:
        self.bundle = open_bundle(directory)
        self.inference = RecommendationInference.of(self.bundle, settings)
        self.k = k

    def __call__(self, shard: "pyarrow.Table") -> "pyarrow.Table":
        ids = shard["user_id"].to_pylist()
        return recommendations(self.inference, self.bundle, ids, self.k).to_arrow(compat_level=ARROW)


@contextmanager
def _cluster(n_workers: int) -> Iterator[None]:
    """Be connected to the cluster at RAY_ADDRESS, or to a small one on this machine that ends with the block.

    Raises:
        ConfigError: if Ray is not installed, or the cluster has too few CPUs.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        ray = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise ConfigError("--engine ray needs Ray, which is not here", hint="pip install 'rec-engine[ray]'") from None
    with warnings.catch_warnings():
        # Ray warns of settings of its own that it deprecates and sets all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        is_ours = not ray.is_initialized()
        quiet = {"logging_level": "error", "logging_config": ray.LoggingConfig(log_level="ERROR")}
        if is_ours and "RAY_ADDRESS" in os.environ:
            ray.init(**quiet)
        elif is_ours:
            ray.init(num_cpus=n_workers, include_dashboard=False, **quiet)
        try:
            _check_room(n_workers, "CPU")
            yield
        finally:
            if is_ours:
                ray.shutdown()


def _uses_gpu(device: str, n_workers: int) -> bool:
    """Return whether each worker gets a GPU: where one is asked for, or there are enough and none is asked for."""
    import ray

    if device == "cuda":
        _check_room(n_workers, "GPU")
    return device != "cpu" and ray.cluster_resources().get("GPU", 0) >= n_workers


def _check_room(n_workers: int, resource: str) -> None:
    import ray

    n_there = int(ray.cluster_resources().get(resource, 0))
    if n_there < n_workers:
        raise ConfigError(
            f"--workers {n_workers}: the Ray cluster has {n_there} {resource}s, and each worker takes one",
            hint="ask for fewer workers, or let the cluster grow first",
        )
