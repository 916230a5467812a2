"""What an interleaving comes to: which arm's items users choose out of lists that both have filled."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from rec_engine.data.experiment_lists import credited_lists
from rec_engine.experiments.confidence_sequence import always_valid_p_value, multiplier
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.design import Design
from rec_engine.experiments.interleaving import Preference, preference
from rec_engine.experiments.measuring import DAY_SECONDS, whole_days
from rec_engine.experiments.results import Recommendation
from rec_engine.experiments.wording import probability

MIN_USERS = 100
"""Users who chose anything below which means are not normal enough for any interval."""
PURPOSE = "An interleaving says whose items users choose, not by how much a metric would change."


@dataclass(frozen=True, slots=True)
class ListPreference:
    """Everything that is known of an interleaving at a moment.

    Attributes:
        arms: the first and the second.
        users: who met it.
        lists: that both arms have filled.
        chosen: items that users chose of those lists, by arm.
        preference: of the users who chose anything; above 0 is for the second arm. Its `p_value` and `ci` hold when
            they are looked at once.
        p_value_always_valid: of no preference, valid whenever it is looked at; None where there is too little.
        cs: interval of the mean preference, valid whenever it is looked at.
        information_fraction: users who chose anything, of the planned ones, at most 1.
        days: since the start.
        recommendation: what it says; no verdict on what may be deployed.
        kind: of the experiment.
        purpose: what it is for.
    """

    arms: tuple[str, str]
    users: int
    lists: int
    chosen: tuple[int, int]
    preference: Preference
    p_value_always_valid: float | None
    cs: tuple[float, float] | None
    information_fraction: float
    days: int
    recommendation: Recommendation
    kind: Literal["interleaving"] = "interleaving"
    purpose: str = PURPOSE

    @property
    def health(self) -> tuple[str, ...]:
        """Sentences on what is wrong or missing."""
        if self.lists and not sum(self.chosen):
            return ("No choice names the list it was made from: send `request_id` with /feedback.",)
        return ()

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON; the recommendation under "recommendations" and "action" in it."""
        answer = asdict(self) | {"health": self.health}
        return answer | {"recommendations": answer.pop("recommendation")}


def list_preference(store_url: str, experiment: Experiment, until: int) -> ListPreference:
    """Return which arm of an interleaving users prefer, as of a moment.

    The figure is one a user, so that users who saw many lists count once. The decision is by a confidence sequence:
    looking often costs nothing.

    Args:
        store_url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.
        experiment: of kind "interleaving".
        until: Unix seconds; it counts as the end where the experiment has not been stopped before.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database cannot be read.
    """
    until = experiment.measured_until(until)
    first, second = experiment.arm_names
    window = None if experiment.window_days is None else math.ceil(experiment.window_days * DAY_SECONDS)
    teams = (team_label(experiment, first), team_label(experiment, second))
    n_users, lists = credited_lists(store_url, experiment.experiment_id, teams, until, window)
    design, days = experiment.design, whole_days(experiment, until)
    user = lists["user_id"].rank("dense").to_numpy().astype(np.int64)
    credits = {name: lists[name].to_numpy().astype(np.float64) for name in ("first", "second")}
    found = preference(user, credits["first"], credits["second"], design.significance_level)
    fraction = found.users / planned_users(design)
    p_value, cs = _always_valid(found, fraction, design.significance_level)
    has_ended = experiment.has_ended(until)
    return ListPreference(
        arms=(first, second),
        users=n_users,
        lists=len(lists),
        chosen=(int(credits["first"].sum()), int(credits["second"].sum())),
        preference=found,
        p_value_always_valid=p_value,
        cs=cs,
        information_fraction=min(1.0, fraction),
        days=days,
        recommendation=_recommended(experiment, found, p_value, days, has_ended=has_ended or fraction >= 1),
    )


def team_label(experiment: Experiment, arm: str) -> str:
    """Return how the items of an arm are marked in the log of what was shown."""
    return f"{experiment.experiment_id}/{arm}"


def planned_users(design: Design) -> int:
    """Return how many users are to choose anything: those that are planned, or else the least of an arm."""
    return design.planned_users or design.min_sample_size


def _always_valid(found: Preference, fraction: float, level: float) -> tuple[float | None, tuple[float, float] | None]:
    if found.preference is None or not found.se or found.users < MIN_USERS:
        return None, None
    half = float(multiplier(fraction, level)) * found.se
    p_value = float(always_valid_p_value(found.preference / found.se, fraction, level))
    return p_value, (found.preference - half, found.preference + half)


def _recommended(
    experiment: Experiment, found: Preference, p_value: float | None, days: int, *, has_ended: bool
) -> Recommendation:
    design, (first, second) = experiment.design, experiment.arm_names
    missing = _missing(design, found, days)
    if not has_ended and missing:
        return Recommendation("continue_running", None, None, f"There are {missing}.", "Look again later.")
    if found.preference is None or p_value is None or p_value > design.significance_level:
        reason = f"Of {found.users:,} users who chose anything, neither arm's items are preferred."
        if not has_ended:
            return Recommendation("continue_running", None, None, reason, "Look again later.")
        return Recommendation("no_preference", None, None, reason, "Compare lists that differ more, or more users.")
    arm = second if found.preference > 0 else first
    return Recommendation(
        "prefer_treatment" if found.preference > 0 else "prefer_control",
        arm,
        1 - p_value,
        f"Users choose the items of {arm}: mean preference {found.preference:+.3g} of {found.users:,} users, "
        f"{probability(p_value)} at any time.",
        f"{PURPOSE} For that, run an A/B test.",
    )


def _missing(design: Design, found: Preference, days: int) -> str:
    wanted = min(MIN_USERS, planned_users(design))
    if found.users < wanted:
        return f"{found.users:,} users who chose anything, of {wanted:,} at least"
    return f"{days} days, of {design.min_days} at least" if days < design.min_days else ""
