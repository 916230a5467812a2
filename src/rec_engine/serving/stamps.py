"""What two answers from one entry of the cache differ in: when and how they were made, and for whom."""

import time

import msgspec

from rec_engine.data.dataset import ExternalId
from rec_engine.serving.schemas import RecommendResponse

VOLATILE = b'{"latency_ms":0.0,"cached":false,'
"""How metadata begin that nobody has stamped yet."""
ENCODER = msgspec.json.Encoder(enc_hook=lambda model: model.model_dump())


def without_stamp(answer: RecommendResponse) -> bytes:
    """Return the JSON of an answer without what two answers from the same entry of the cache differ in.

    That is when and how it was made, and for whom: the cache names nobody.
    """
    metadata = ENCODER.encode(answer.metadata).removeprefix(VOLATILE)
    return b'{"recommendations":%s,"metadata":{%s}' % (ENCODER.encode(answer.recommendations), metadata)


def stamped(body: bytes, user_id: ExternalId, request_id: str, started: float, *, is_cached: bool) -> bytes:
    """Return the JSON of an answer with what an entry of the cache lacks."""
    cached = b"true" if is_cached else b"false"
    volatile = b',"latency_ms":%.3f,"cached":%s}}' % (milliseconds_since(started), cached)
    asked = b'{"user_id":%s,"request_id":"%s",' % (msgspec.json.encode(user_id), request_id.encode())
    return asked + body[1:-2] + volatile


def milliseconds_since(started: float) -> float:
    """Return how long ago that was, by `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000, 3)
