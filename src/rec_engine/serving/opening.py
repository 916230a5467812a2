"""A version as it is served: its bundle, searched where the settings say."""

from dataclasses import replace
from pathlib import Path

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.utils.config import ServingConfig


def open_served(path: Path, config: ServingConfig, *, verified: str | None = None) -> ModelBundle:
    """Return the bundle at `path`, or the current one below it; its vectors are searched in Milvus where it is set.

    Args:
        path: a version, or a registry of versions.
        config: of the service.
        verified: as `open_bundle`.

    Raises:
        BundleError: as `open_bundle`.
        ConfigError: if Milvus is set and its client is not installed.
    """
    bundle = open_bundle(path, verified=verified)
    if config.milvus.uri is None:
        return bundle
    from rec_engine.retrieval.milvus_engine import in_milvus

    return replace(bundle, index=in_milvus(bundle.index, config.milvus))
