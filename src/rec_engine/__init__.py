"""rec-engine: events and items in, ranked and explained recommendations out."""

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rec_engine.bundle import ModelBundle as ModelBundle
    from rec_engine.bundle import open_bundle as open_bundle
    from rec_engine.data.dataset import RecommendationDataset as RecommendationDataset
    from rec_engine.evaluation.metrics import RecommendationMetrics as RecommendationMetrics
    from rec_engine.models.two_tower import TwoTowerModel as TwoTowerModel
    from rec_engine.retrieval.faiss_index import FAISSIndex as FAISSIndex
    from rec_engine.serving.inference import RecommendationInference as RecommendationInference

# ONNX Runtime would write a device id into the user's cache as soon as it is imported, and try to send it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {
    "FAISSIndex": "retrieval.faiss_index",
    "ModelBundle": "bundle",
    "RecommendationDataset": "data.dataset",
    "RecommendationInference": "serving.inference",
    "RecommendationMetrics": "evaluation.metrics",
    "TwoTowerModel": "models.two_tower",
    "open_bundle": "bundle",
}

__version__ = version("rec-engine")
__all__ = [
    "FAISSIndex",
    "ModelBundle",
    "RecommendationDataset",
    "RecommendationInference",
    "RecommendationMetrics",
    "TwoTowerModel",
    "open_bundle",
]


def __getattr__(name: str) -> object:
    """Import a public name at its first use, so that `import rec_engine` costs nothing and never loads torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'rec_engine' has no attribute {name!r}")
    return getattr(import_module(f"rec_engine.{_HOME[name]}"), name)
