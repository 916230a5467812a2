"""What an experiment is: its arms, who takes part, what it is to find. A later state of it is another object."""

import hashlib
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, model_validator

from rec_engine.experiments.design import Design

MAX_ARMS = 20
MAX_PHASES = 100
SHARE_ERROR = 1e-9
IN_BATCH = "@"
"""Between arm and batch in what the log says a user of a bandit has met: no name of an arm holds it."""
Kind = Literal["ab", "interleaving", "bandit"]
Status = Literal["draft", "running", "paused", "stopped"]
INTERLEAVED = "interleaved"
"""What users of an interleaving meet instead of one of its arms: a list that both arms have filled."""
ExperimentId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ArmName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Attribute = str | int | float | bool


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class ArmConfiguration(_Frozen):
    """What an arm changes of how the service answers; what is not set stays as it is."""

    use_reranking: bool | None = None
    """Whether the ranker may order the candidates."""
    diversity: float | None = Field(default=None, ge=0, le=1)
    """`recommendations.diversity` of the arm's users, where their requests ask for none."""
    exploration: float | None = Field(default=None, ge=0, le=10)
    """`recommendations.exploration` of the arm's users."""
    caps: dict[str, PositiveInt] | None = None
    """`recommendations.caps` of the arm's users."""
    follows_rules: bool | None = None
    """Whether the rules of the shop hold."""
    model_version: str | None = Field(default=None, min_length=1, max_length=200)
    """Version of the model that answers; the current one, whichever that is, where none is named."""

    @property
    def varied(self) -> frozenset[str]:
        """Names of the fields that are set."""
        return frozenset(name for name in type(self).model_fields if getattr(self, name) is not None)


class Arm(_Frozen):
    """A variant of an experiment."""

    name: ArmName
    configuration: ArmConfiguration = ArmConfiguration()
    """What it changes."""


class Phase(_Frozen):
    """An allocation, and since when it has been in force."""

    starts_at: int = Field(ge=0)
    """Unix seconds."""
    shares: tuple[Share, ...] = Field(min_length=2, max_length=MAX_ARMS)
    """Of the experiment's users, one for each arm, in the order of the arms; together 1."""
    coverage: float = Field(default=1.0, ge=0, le=1)
    """Share of those who may take part that does."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if abs(sum(self.shares) - 1) > SHARE_ERROR:
            raise ValueError(f"the shares of the arms add up to {sum(self.shares):g} and not to 1")
        return self


class Layer(_Frozen):
    """A part of all users that experiments of other parts do not reach: experiments in one layer exclude each other."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[^\x00\x1f]+$")
    first: float = Field(default=0.0, ge=0, lt=1)
    """Where its part of the layer's users begins."""
    last: float = Field(default=1.0, gt=0, le=1)
    """Where it ends; the end is not included."""

    @model_validator(mode="after")
    def _is_a_part(self) -> Self:
        if self.last <= self.first:
            raise ValueError("last lies above first")
        return self

    def overlaps(self, other: "Layer") -> bool:
        """Return whether a user may be in both."""
        return self.name == other.name and self.first < other.last and other.first < self.last


class Pause(_Frozen):
    """A time in which nobody met an experiment."""

    starts_at: int = Field(ge=0)
    """Unix seconds."""
    ends_at: int | None = Field(default=None, ge=0)
    """Unix seconds; it goes on where there is none."""

    def seconds(self, since: int, until: int) -> int:
        """Return how much of it lies between two moments, in Unix seconds."""
        end = until if self.ends_at is None else min(self.ends_at, until)
        return max(0, end - max(self.starts_at, since))


class Experiment(_Frozen):
    """An experiment as it is at one moment."""

    experiment_id: ExperimentId
    kind: Kind = "ab"
    """Whether a user meets one arm, lists that two arms have filled by turns, or in each batch an arm of its own."""
    batch_hours: PositiveInt = 24
    """Of a bandit: how long the arms keep their shares."""
    floor: float = Field(default=0.05, gt=0, le=0.5)
    """Of a bandit: the least share of an arm."""
    name: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=10_000)
    hypothesis: str = Field(default="", max_length=10_000)
    """What is expected, and why."""
    arms: tuple[Arm, ...] = Field(min_length=2, max_length=MAX_ARMS)
    """The control first."""
    phases: tuple[Phase, ...] = Field(min_length=1, max_length=MAX_PHASES)
    """The allocation, and those before it, the first one first."""
    layer: Layer | None = None
    """Without it every user may take part, whatever other experiments he is in."""
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Share of all users that is kept out; the same users of all experiments with the same share."""
    targeting: dict[str, tuple[Attribute, ...]] = Field(default={}, max_length=50)
    """Attribute to the values of which a user has to have one, all of them; for everybody when it is empty."""
    forced: dict[str, ArmName] = Field(default={}, max_length=1_000)
    """User id to the arm that he is shown for testing; he is not measured."""
    salt: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00\x1f]+$")
    """What users are drawn with: another salt draws others."""
    design: Design
    """What it is to find."""
    window_days: float | None = Field(default=None, gt=0, le=365)
    """How long after his first exposure a user's events count; without it as long as the experiment goes on."""
    max_events_an_hour: int = Field(default=1_000, ge=1)
    """A user with more events an hour, on average between his first and his last one, is a bot and left out."""
    reads_service: bool = False
    """Whether what the service showed, and what `/feedback` was told, is measured."""
    starts_at: int | None = Field(default=None, ge=0)
    """Unix seconds before which nobody takes part, even if it is running."""
    ends_at: int | None = Field(default=None, ge=0)
    """Unix seconds from which nobody takes part any more."""
    status: Status = "draft"
    started_at: int | None = None
    """Unix seconds of the first start."""
    stopped_at: int | None = None
    """Unix seconds at which it was stopped."""
    pauses: tuple[Pause, ...] = ()
    """The times in which it was paused, the first one first."""
    version: PositiveInt = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("each arm has a name of its own")
        metrics = [metric.name for metric in self.design.metrics]
        if len(set(metrics)) < len(metrics):
            raise ValueError("each metric has a name of its own")
        if any(len(phase.shares) != len(names) for phase in self.phases):
            raise ValueError(f"an allocation has a share for each of the {len(names)} arms")
        if unknown := sorted(set(self.forced.values()) - set(names)):
            raise ValueError(f"forced names arms that there are not: {', '.join(unknown)}")
        if self.starts_at is not None and self.ends_at is not None and self.ends_at <= self.starts_at:
            raise ValueError("ends_at lies after starts_at")
        return self

    @model_validator(mode="after")
    def _can_be_interleaved(self) -> Self:
        if self.kind != "interleaving":
            return self
        if len(self.arms) != 2 or INTERLEAVED in self.arm_names:  # noqa: PLR2004 - as many as fill one list
            raise ValueError(f"an interleaving has two arms, none of them called {INTERLEAVED!r}")
        if any(abs(phase.shares[0] - 1 / 2) > SHARE_ERROR for phase in self.phases):
            raise ValueError("the arms of an interleaving fill half of every list each: their shares are 0.5")
        if not self.reads_service:
            raise ValueError("an interleaving needs reads_service: lists are filled and clicks credited by the service")
        return self

    @model_validator(mode="after")
    def _can_be_a_bandit(self) -> Self:
        if self.kind != "bandit":
            return self
        if not self.reads_service:
            raise ValueError("a bandit needs reads_service: the service begins its batches")
        if self.floor * len(self.arms) > 1:
            raise ValueError(f"a floor of {self.floor:g} for each of {len(self.arms)} arms is more than all users")
        if self.window_days is not None:
            raise ValueError("a bandit counts what a user does within the batch, and has no window_days")
        if len(self.design.metrics) != 1 or not self.design.metrics[0].is_share:
            raise ValueError(
                "a bandit has one metric, a share of users such as conversion_rate: its reward is yes or no"
            )
        return self

    @property
    def arm_names(self) -> tuple[str, ...]:
        """Of the arms, the control first."""
        return tuple(arm.name for arm in self.arms)

    @property
    def phase(self) -> Phase:
        """The allocation in force."""
        return self.phases[-1]

    @property
    def has_moved_shares(self) -> bool:
        """Whether the arms' shares have changed, so that who met an arm before has to be known to stay in it."""
        return any(phase.shares != self.phase.shares for phase in self.phases)

    @property
    def config_hash(self) -> str:
        """Digest of all that decides who meets which arm and what is found; not of how far the experiment has got."""
        progress = {"status", "version", "started_at", "stopped_at", "pauses", "name", "description", "hypothesis"}
        return hashlib.sha256(self.model_dump_json(exclude=progress).encode()).hexdigest()

    @property
    def varied(self) -> frozenset[str]:
        """Which settings of the service its arms change."""
        return frozenset[str]().union(*(arm.configuration.varied for arm in self.arms))

    def excludes(self, other: "Experiment") -> bool:
        """Return whether no user is in both: they have parts of one layer that do not overlap."""
        one, two = self.layer, other.layer
        return one is not None and two is not None and one.name == two.name and not one.overlaps(two)

    def configuration(self, arm: str) -> ArmConfiguration:
        """Return what an arm changes."""
        return next(each.configuration for each in self.arms if each.name == arm)

    def measured_until(self, until: int) -> int:
        """Return the moment in Unix seconds up to which events count: nothing after a stop does."""
        return until if self.stopped_at is None else min(until, self.stopped_at)

    def has_ended(self, until: int) -> bool:
        """Return whether nobody takes part any more at a moment, in Unix seconds."""
        return self.status == "stopped" or (self.ends_at is not None and until >= self.ends_at)

    def is_open(self, now: float) -> bool:
        """Return whether users take part at a moment (Unix seconds)."""
        has_begun = self.starts_at is None or now >= self.starts_at
        return self.status == "running" and has_begun and (self.ends_at is None or now < self.ends_at)


def met_as(experiment: Experiment, arm: str, phase: int) -> str:
    """Return what the log calls an arm that a user meets: of a bandit the arm in a batch, so that each is one row."""
    return f"{arm}{IN_BATCH}{phase}" if experiment.kind == "bandit" else arm
