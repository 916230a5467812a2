"""Starting the service: everything that can be wrong is found before a port is opened."""

import os
import socket
from pathlib import Path

import uvicorn

from rec_engine.bundle import verify_bundle
from rec_engine.data.events import EventStore
from rec_engine.errors import ConfigError
from rec_engine.serving.api import CONFIG_VARIABLE, MODEL_DIR_VARIABLE, VERIFIED_VARIABLE
from rec_engine.serving.security import Keyring, check_address
from rec_engine.serving.telemetry import prepare_directory
from rec_engine.serving.tracing import check_tracing
from rec_engine.utils.config import ServingConfig
from rec_engine.utils.logger import configure_logging, get_logger

DRAIN_SECONDS = 20
"""How long requests that have begun may take when the service is stopped; then what is waiting is written."""

logger = get_logger(__name__)


def run_server(model_dir: Path, config: ServingConfig) -> None:
    """Serve until stopped.

    Raises:
        BundleError: if there is no model, or it is damaged.
        ConfigError: if the port is taken, the address is not this machine's, it is open to others without any key, or
            traces cannot be sent as the environment wants it.
        StoreError: if the event store cannot be reached.
    """
    configure_logging(config.logging.level, config.logging.style)
    keyring = Keyring.of(config.security)
    check_address(config.api.host, keyring, allow_public_without_keys=config.security.allow_public_without_keys)
    check_tracing(os.environ)
    manifest = verify_bundle(model_dir)
    EventStore(config.store.url).close()
    _check_port(config.api.host, config.api.port)
    prepare_directory(config.api.port)
    os.environ.setdefault("OTEL_SERVICE_NAME", "rec-engine")
    os.environ[VERIFIED_VARIABLE] = manifest.version
    os.environ[MODEL_DIR_VARIABLE] = str(model_dir.resolve())
    os.environ[CONFIG_VARIABLE] = config.model_dump_json()
    shown = "127.0.0.1" if config.api.host in {"0.0.0.0", "::"} else config.api.host  # noqa: S104 - compared, not bound
    logger.info(
        "serving %s with %d workers: http://%s:%d/docs", manifest.version, config.api.workers, shown, config.api.port
    )
    uvicorn.run(
        "rec_engine.serving.api:app_from_environment",
        factory=True,
        host=config.api.host,
        port=config.api.port,
        workers=config.api.workers,
        http="rec_engine.serving.protocol:BoundedProtocol",
        limit_concurrency=config.api.max_connections + 1,
        timeout_keep_alive=config.api.keep_alive_seconds,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another with --port or --host"
            ) from None
