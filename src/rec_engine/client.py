"""Clients of the service, for programs that ask it: they load nothing that trains or serves.

    from rec_engine.client import RecEngineClient

    with RecEngineClient("http://127.0.0.1:8000") as service:
        for item in service.recommend(123, num_recommendations=10).recommendations:
            print(item.title, item.explanation)

`AsyncRecEngineClient` has the same methods, to be awaited.
"""

from rec_engine.client_async import AsyncRecEngineClient
from rec_engine.client_calls import ServiceError
from rec_engine.client_sync import RecEngineClient
from rec_engine.serving.state_schemas import FeedbackEvent, Item

__all__ = ["AsyncRecEngineClient", "FeedbackEvent", "Item", "RecEngineClient", "ServiceError"]
