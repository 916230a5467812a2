"""The first ten minutes: real data, a trained model, a table that compares it, a running service."""

import os
from pathlib import Path

from rec_engine.bundle import open_bundle
from rec_engine.data.data_loader import load_dataset
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.errors import BundleError, DataError
from rec_engine.evaluation.evaluator import comparison_table
from rec_engine.pipeline.compare import report_on
from rec_engine.pipeline.train import train
from rec_engine.retrieval.categories import category_names
from rec_engine.serving.server import run_server
from rec_engine.utils.config import ModelConfig, ModelSettings, ServingConfig, TrainingSettings
from rec_engine.utils.console import say, show
from rec_engine.utils.logger import get_logger
from rec_engine.utils.service_settings import APISettings

REAL, SIMULATED = "movielens-100k", "demo"
CONFIG = ModelConfig(
    model=ModelSettings(embedding_dim=64, dropout=0.4, max_history_len=100),
    training=TrainingSettings(num_epochs=20, early_stopping_patience=5),
)
NEXT = """
Try next, in another terminal:
  curl -s http://127.0.0.1:{port}/recommend -H 'content-type: application/json' \\
       -d '{{"user_id": {user}, "num_recommendations": 5, "filter_categories": ["{category}"]}}'
  curl -s 'http://127.0.0.1:{port}/similar-items/{item}?num_items=5'
  open http://127.0.0.1:{port}/      (the dashboard)
  open http://127.0.0.1:{port}/docs
  rec-engine recommend --model-dir {model_dir} --users all --k 20 --output recs.parquet
Your own data:
  rec-engine train --dataset custom --train-data interactions.csv --items-data items.csv
"""

logger = get_logger(__name__)


def run_demo(data_dir: Path, model_dir: Path, port: int, *, serve: bool) -> None:
    """Train, evaluate and, if wanted, serve on this machine until stopped."""
    config = ServingConfig(api=APISettings(host="127.0.0.1", port=port, workers=1))
    name, dataset = _data(data_dir)
    say(f"{name}: {dataset}")
    if _is_trained(model_dir, dataset):
        say(f"{model_dir} holds the model of this data and these settings already: no need to train again")
    else:
        train(dataset, CONFIG, model_dir, name=name)
    evaluations, title = report_on([("", model_dir)], None, [10, 20])
    metrics = ["ndcg@10", "hit_rate@10", "coverage@10"]
    show(comparison_table(evaluations, metrics, title))
    bundle = open_bundle(model_dir)
    categories = category_names(bundle.items["categories"])
    example = {"user": bundle.user_ids[0], "category": categories[0], "item": bundle.item_ids[0]}
    say(NEXT.format(port=port, model_dir=model_dir, **example))
    if serve:
        os.environ.setdefault("USE_MEMORY_CACHE", "true")  # a demo asks for no Redis
        run_server(model_dir, config)


def _is_trained(model_dir: Path, dataset: RecommendationDataset) -> bool:
    try:
        bundle = open_bundle(model_dir)
    except BundleError:
        return False
    return bundle.config == CONFIG and bundle.manifest.dataset_fingerprint == dataset.fingerprint


def _data(data_dir: Path) -> tuple[str, RecommendationDataset]:
    try:
        return REAL, load_dataset(REAL, data_dir)
    except DataError as error:
        logger.warning("%s (%s)", error, error.hint)
        logger.warning("MovieLens 100K cannot be had: going on with SIMULATED data (--dataset demo)")
        return SIMULATED, load_dataset(SIMULATED, data_dir)
