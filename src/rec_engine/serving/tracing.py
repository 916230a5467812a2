"""OpenTelemetry traces: a span a request and one a stage, sent where the standard OTEL_* variables say."""

import importlib.util
import time
from collections.abc import Mapping

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from starlette.types import Scope

from rec_engine.errors import ConfigError
from rec_engine.serving.inference import Lap, Stage

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter")
UNTRACED = ("/user/", "/debug/", "/health", "/ready", "/metrics")
"""Beginnings of paths that leave no trace: those that name a user, and what is asked by machines every few seconds."""


def is_traced(environment: Mapping[str, str]) -> bool:
    """Return whether the environment names somebody who collects traces."""
    is_off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    is_none = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    return not is_off and not is_none and any(environment.get(name) for name in ENDPOINTS)


def check_tracing(environment: Mapping[str, str]) -> None:
    """Make sure that traces can be sent where the environment wants them.

    Raises:
        ConfigError: if a package is missing, or another protocol than OTLP over HTTP is asked for.
    """
    if not is_traced(environment):
        return
    endpoint = next(name for name in ENDPOINTS if environment.get(name))
    if not all(importlib.util.find_spec(package) for package in PACKAGES):
        raise ConfigError(f"{endpoint} is set, but OpenTelemetry is not here", hint="pip install 'rec-engine[otel]'")
    for name in PROTOCOLS:
        if (wanted := environment.get(name, PROTOCOL)) != PROTOCOL:
            raise ConfigError(f"{name} = {wanted!r} is not supported", hint=f"leave it out, or write {PROTOCOL}")


def telemetry_of_fastapi(*, traced: bool) -> TelemetryConfig:
    """Return what FastAPI is to trace, which makes the spans of requests and takes over a caller's `traceparent`.

    Its metrics and logs stay off: this service has its own.
    """
    config = TelemetryConfig(tracing=traced, metrics=False, logs=False, operation_spans=False, auto_configure=traced)
    return TelemetryConfig(**config, exclude=_is_untraced) if traced else config


def with_spans(lap: Lap, request_id: str) -> Lap:
    """Return a lap that also leaves a span of each stage, where this request is traced."""
    request = trace.get_current_span()
    if not request.is_recording():
        return lap
    request.set_attribute("rec_engine.request_id", request_id)
    tracer, since = trace.get_tracer("rec_engine"), time.time_ns()

    def traced(stage: Stage) -> None:
        nonlocal since
        lap(stage)
        now = time.time_ns()
        tracer.start_span(stage, start_time=since).end(now)
        since = now

    return traced


def _is_untraced(scope: Scope) -> bool:
    return str(scope["path"]).startswith(UNTRACED)
