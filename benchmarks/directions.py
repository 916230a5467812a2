"""What it brings that the re-ranker's trees keep to the directions of features: the same towers, with and without.

    python benchmarks/directions.py --dataset movielens-100k --data DIRECTORY [--split temporal] [--seeds 0 1]

Each seed trains the towers once. NDCG@10 of the whole catalogue, gains are paired over users with 95% intervals.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from account import commit, machine

from rec_engine.data.dataset import RecommendationDataset
from rec_engine.evaluation.evaluator import Task, test_task
from rec_engine.evaluation.metrics import DoubleArray
from rec_engine.evaluation.statistics import paired_bootstrap
from rec_engine.models import lightgbm_ranker
from rec_engine.models.features import FEATURES
from rec_engine.models.item_tower import ItemTower
from rec_engine.pipeline.evaluate import TrainedModel, measure
from rec_engine.pipeline.publish import ITEM_TOWER
from rec_engine.pipeline.sources import DataFiles, load_source
from rec_engine.pipeline.teaching import teach_ranker
from rec_engine.pipeline.train import fit_model, make_split
from rec_engine.utils.config import ModelConfig
from rec_engine.utils.logger import configure_logging

K, METRIC = 10, "ndcg@10"
LIBRARIES = ("torch", "numpy", "lightgbm")


def main() -> None:
    """Print NDCG@10 of the towers alone, with free trees, and with trees that keep to the directions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="movielens-100k")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--split", choices=("leave_one_out", "temporal", "random"), default="leave_one_out")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    asked = parser.parse_args()
    configure_logging()
    for seed in asked.seeds:
        config = ModelConfig.model_validate(
            {
                "text": {"encoder": "none"},
                "training": {"num_epochs": asked.epochs, "seed": seed, "device": "cpu"},
                "evaluation": {"split": asked.split},
            }
        )
        dataset = load_source(asked.dataset, asked.data, DataFiles(), config, offline=True).dataset
        towers, free, kept = _measured(dataset, config)
        gain = paired_bootstrap(kept, free).absolute
        print(
            f"{asked.dataset}, {asked.split}, seed {seed}, {len(kept):,} users: towers {towers.mean():.4f}, "
            f"free trees {free.mean():.4f}, with directions {kept.mean():.4f}: "
            f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
            flush=True,
        )
    print(f"{machine(LIBRARIES)}, commit {commit()}")


def _measured(dataset: RecommendationDataset, config: ModelConfig) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Return (n_users,) NDCG@10 of the towers alone, of free trees, and of trees that keep to the directions."""
    split = make_split(dataset, config)
    with TemporaryDirectory() as work:
        towers_alone = config.model_copy(update={"ctr": config.ctr.model_copy(update={"model_type": "none"})})
        towers = fit_model(dataset, towers_alone, split, Path(work))
        item_tower = ItemTower.load(Path(work) / ITEM_TOWER)
        kept = teach_ranker(towers, item_tower, dataset, config, split, None)
        with patch.object(lightgbm_ranker, "DIRECTIONS", (0,) * len(FEATURES)):
            free = teach_ranker(towers, item_tower, dataset, config, split, None)
    task = test_task(split)
    return _ndcg(towers, task), _ndcg(replace(towers, ranker=free), task), _ndcg(replace(towers, ranker=kept), task)


def _ndcg(model: TrainedModel, task: Task) -> DoubleArray:
    return measure(task, model, (K,))[-1].per_user[METRIC]


if __name__ == "__main__":
    main()
