"""`rec-engine ingest`: events of the past, from files into the log that the service follows."""

import time
from pathlib import Path

from rec_engine.utils.config import ModelConfig, ServingConfig, load_config
from rec_engine.utils.console import say


def ingest(
    *files: Path,
    store: str | None = None,
    config: Path | None = None,
    timestamp_format: str | None = None,
    rejects: Path | None = None,
) -> None:
    """Write the events of CSV, Parquet or JSON Lines files into the event store; twice is as good as once.

    Args:
        files: with the columns user_id, item_id, timestamp and, where there are, event, value, event_id, request_id;
            all others are kept as context.
        store: store.url, such as sqlite:///state/events.db.
        config: settings, such as configs/serving_config.yaml.
        timestamp_format: data.timestamp_format.
        rejects: where rows that cannot be used are listed.
    """
    from rec_engine.pipeline.ingest import ingest as ingest_files

    url = load_config(ServingConfig, config, flags={"store.url": store}).store.url
    settings = load_config(ModelConfig, None, flags={"data.timestamp_format": timestamp_format}).data
    report = ingest_files(files, url, settings, now=int(time.time()), rejects_path=rejects)
    rate = report.n_rows / max(report.seconds, 1e-3)
    kinds = {"known already": report.n_known, "of erased users": report.n_erased, "rejected": report.n_rejected}
    others = "".join(f", {n:,} {kind}" for kind, n in kinds.items() if n)
    say(
        f"{report.store}: {report.n_new:,} new events{others}, in {report.seconds:,.1f} s ({rate:,.0f} rows/s). "
        f"Next: a service that runs on it knows them; rec-engine train --events {report.store} trains with them."
    )
