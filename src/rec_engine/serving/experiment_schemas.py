"""What is sent to the routes of experiments, beside the proposal of one."""

from typing import Annotated, Literal

from pydantic import Field

from rec_engine.serving.wire import Asked

Step = Literal["start", "pause", "resume", "stop"]
Share = Annotated[float, Field(ge=0, le=1)]


class Reason(Asked):
    """What `POST /experiments/{experiment_id}/{step}` takes."""

    reason: str = Field(default="", max_length=1_000, pattern=r"^[^\x00]*$")
    """Why, for the record."""


class Ramp(Reason):
    """What `POST /experiments/{experiment_id}/ramp` takes."""

    coverage: Share | None = None
    """Share of all users that takes part; of an experiment that has begun it only grows."""
    shares: tuple[Share, ...] | None = Field(default=None, max_length=20)
    """Of the arms, in their order, together 1."""
