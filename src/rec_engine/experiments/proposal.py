"""How an experiment is proposed, from Python, HTTP or the command line: in a few words, all else by default."""

from datetime import UTC, date, datetime
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticSerializationError

from rec_engine.errors import DataError
from rec_engine.experiments.definition import (
    MAX_ARMS,
    Arm,
    ArmConfiguration,
    ArmName,
    Attribute,
    Experiment,
    ExperimentId,
    Kind,
    Layer,
    Phase,
    Share,
)
from rec_engine.experiments.design import Design, Method, Metric
from rec_engine.experiments.standard_metrics import PREFERENCE, REWARD, STANDARD_METRICS, metrics_of

CONTROL, TREATMENT = "control", "treatment"


def _unix_seconds(value: object) -> object:
    """Return Unix seconds of a datetime, a date, ISO 8601 text or a number; UTC where no time zone is named."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value[:40]!r} is not ISO 8601") from None
    elif isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):  # what YAML makes of 2026-01-02
        moment = datetime.combine(value, datetime.min.time())
    else:
        return int(value) if isinstance(value, float) and value.is_integer() else value
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


LATEST = 253_402_300_799
"""The end of the year 9999."""
Moment = Annotated[int, Field(le=LATEST), BeforeValidator(_unix_seconds, json_schema_input_type=float | str)]


def _kind_of_metric(given: object) -> str:
    return "name" if isinstance(given, str) else "metric"


# Told apart beforehand: what is wrong with a metric is said of the metric, and not that it is no name.
MetricOrName = Annotated[Annotated[str, Tag("name")] | Annotated[Metric, Tag("metric")], Discriminator(_kind_of_metric)]


class ProposedArm(BaseModel):
    """An arm, and its part of the experiment's users."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: ArmName
    share: Share
    configuration: ArmConfiguration = ArmConfiguration()
    """What it changes of how the service answers."""


class Proposal(BaseModel):
    """An experiment to be."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [{"experiment_id": "more-variety", "name": "More variety", "treatment": {"diversity": 0.3}}]
        },
    )

    experiment_id: ExperimentId
    kind: Kind = "ab"
    """`interleaving` lets two arms fill each list by turns, to find which one's items users prefer; a `bandit` gives
    arms that are rewarded more users, and does not measure."""
    batch_hours: PositiveInt = 24
    """Of a bandit: how long the arms keep their shares."""
    floor: float = Field(default=0.05, gt=0, le=0.5)
    """Of a bandit: the least share of an arm."""
    name: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=10_000)
    hypothesis: str = Field(default="", max_length=10_000)
    """What is expected, and why."""
    treatment_percentage: float = Field(default=0.5, gt=0, lt=1)
    """Share of the experiment's users that meets the treatment; the others are the control."""
    treatment: ArmConfiguration = ArmConfiguration()
    """What the treatment changes of how the service answers."""
    arms: tuple[ProposedArm, ...] = Field(default=(), max_length=MAX_ARMS)
    """Instead of a control and a treatment: any number of arms, the control first."""
    coverage: Share = 1.0
    """Share of all users that takes part."""
    layer: Layer | None = None
    """Its part of the users, where experiments exclude each other."""
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Share of all users that is in no experiment."""
    targeting: dict[str, tuple[Attribute, ...]] = Field(default={}, max_length=50)
    """Attribute to values of which a user has to have one."""
    forced: dict[str, ArmName] = Field(default={}, max_length=1_000)
    """User id to the arm that he is shown for testing, unmeasured."""
    salt: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[^\x00\x1f]+$")
    """What users are drawn with; the experiment's id where it is not given."""
    target_metrics: tuple[MetricOrName, ...] = Field(default=tuple(STANDARD_METRICS), min_length=1, max_length=25)
    """Names of standard metrics, or metrics of one's own. The first one decides."""
    guardrails: tuple[MetricOrName, ...] = Field(default=(), max_length=25)
    """Metrics that must not be harmed."""
    method: Method | None = None
    """Which inference decides."""
    significance_level: float | None = Field(default=None, ge=1e-6, lt=0.5)
    """Probability of a false alarm."""
    power: float | None = Field(default=None, ge=0.01, le=0.999)
    """Probability of finding the minimum effect."""
    minimum_effect: float | None = Field(default=None, ge=1e-4, le=100)
    """The smallest relative effect worth finding."""
    planned_users: int | None = Field(default=None, ge=2, le=10**10)
    """Users in all arms together at which the experiment is complete."""
    planned_looks: int | None = Field(default=None, ge=1, le=100)
    """How often the verdict is asked for until then."""
    min_sample_size: int | None = Field(default=None, ge=1, le=10**10)
    """Users an arm below which nothing is decided."""
    min_days: int | None = Field(default=None, ge=0, le=3_650)
    """Days below which nothing is decided."""
    window_days: float | None = Field(default=None, gt=0, le=365)
    """How long after his first exposure a user's events count."""
    max_events_an_hour: PositiveInt = 1_000
    """Users with more are bots."""
    start_date: Moment | None = None
    """ISO 8601 or Unix seconds before which nobody takes part."""
    end_date: Moment | None = None
    """ISO 8601 or Unix seconds from which nobody takes part any more."""
    reads_service: bool = False
    """Whether it is measured by what the service logs, instead of by what is recorded for it."""

    @model_validator(mode="after")
    def _is_unicode(self) -> Self:
        """Refuse half of a surrogate pair: it could not be stored."""
        try:
            self.model_dump_json()
        except PydanticSerializationError as error:
            raise ValueError("a text is not valid Unicode") from error
        return self

    @model_validator(mode="after")
    def _has_one_kind_of_arms(self) -> Self:
        if self.arms and self.treatment.varied:
            raise ValueError("give either arms or the treatment's configuration")
        return self

    @model_validator(mode="after")
    def _has_what_its_kind_measures(self) -> Self:
        if self.kind == "ab":
            return self
        if self.guardrails:
            raise ValueError(f"an experiment of kind {self.kind} measures no guardrails: run an A/B test for that")
        if self.kind == "interleaving" and "target_metrics" in self.model_fields_set:
            raise ValueError("an interleaving is decided by whose items users choose, and has no target_metrics")
        return self

    @classmethod
    def of(cls, **fields: object) -> "Proposal":
        """Return a proposal with these fields; those that are None stay at their defaults.

        Raises:
            DataError: if a field is none, or its value cannot be used.
        """
        try:
            return cls.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            raise _as_ours(error) from None

    def experiment(self, now: int) -> Experiment:
        """Return the experiment, as a draft.

        Raises:
            DataError: if its parts do not fit together.
            NotFoundError: if there is no such metric.
        """
        arms = self.arms or (
            ProposedArm(name=CONTROL, share=1 - self.treatment_percentage),
            ProposedArm(name=TREATMENT, share=self.treatment_percentage, configuration=self.treatment),
        )
        chosen = {name: getattr(self, name) for name in _DESIGN if getattr(self, name) is not None}
        copied = {name: getattr(self, name) for name in _COPIED}
        try:
            return Experiment(
                **copied,
                arms=tuple(Arm(name=arm.name, configuration=arm.configuration) for arm in arms),
                phases=(Phase(starts_at=now, shares=tuple(arm.share for arm in arms), coverage=self.coverage),),
                salt=self.salt or self.experiment_id,
                design=Design(metrics=self._metrics(), **chosen),
                starts_at=self.start_date,
                ends_at=self.end_date,
            )
        except ValidationError as error:
            raise _as_ours(error) from None

    def _metrics(self) -> tuple[Metric, ...]:
        if self.kind == "interleaving":
            return (PREFERENCE,)
        is_unsaid = self.kind == "bandit" and "target_metrics" not in self.model_fields_set
        return metrics_of((REWARD,) if is_unsaid else self.target_metrics, self.guardrails)


_DESIGN = tuple(name for name in Design.model_fields if name in Proposal.model_fields)
_COPIED = tuple(
    name for name in Experiment.model_fields if name in Proposal.model_fields and name not in {"arms", "salt"}
)


def _as_ours(error: ValidationError) -> DataError:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"])) or "experiment"
    return DataError(
        f"{field}: {first['msg'].removeprefix('Value error, ')}", hint="docs/ab-testing.md describes every field"
    )
