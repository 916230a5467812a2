"""From the log to the arrays that the statistics read: what each exposed user did since, and before."""

import math
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rec_engine.data.dataset import BoolArray, LongArray
from rec_engine.data.experiment_totals import BEFORE, NOW, ExperimentTotals, Selection, Summed
from rec_engine.errors import ExperimentError
from rec_engine.experiments.definition import IN_BATCH, Experiment
from rec_engine.experiments.measurements import Measurements, SingleValues, Totals
from rec_engine.experiments.moments import DoubleArray
from rec_engine.experiments.standard_metrics import CLICKS, CONVERSIONS, IMPRESSIONS, REVENUE

DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600
N_EVENTS = "n_events"
MAX_VALUES = 20_000_000
"""Single values of all totals together, 12 bytes each. A quantile of more is not computed."""
_LOGGED = (
    Summed(CLICKS, "click", is_count=True),
    Summed(CONVERSIONS, "purchase", is_count=True),
    Summed(REVENUE, "purchase"),
    *(
        Summed(f"{event}s", event, is_count=True)
        for event in ("view", "like", "dislike", "share", "add_to_cart", "rating")
    ),
)
"""What the events of the service are called as totals; revenue is the `value` of a purchase."""


def measure(
    store_url: str, experiment: Experiment, until: int, segments: Iterable[tuple[str, pl.DataFrame]] = ()
) -> Measurements:
    """Return what the users of an experiment did up to a moment.

    A user belongs to the arm that he met first; what he did before that, or after the experiment's window, does not
    count. Users who met two arms are left out and counted, so are bots: users with more than
    `experiment.max_events_an_hour` events an hour, on average between their first and their last one.

    Args:
        store_url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.
        experiment: says which totals are needed, and which events count.
        until: Unix seconds; it counts as the end where the experiment has not been stopped before.
        segments: attribute and a frame of `user_id` and `value`, both String.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        ExperimentError: if it is no A/B test: users of other kinds do not belong to one arm.
        StoreError: if the database cannot be read.
    """
    until = experiment.measured_until(until)
    if experiment.kind != "ab":
        raise ExperimentError(
            f"{experiment.experiment_id} is of kind {experiment.kind}, and is not measured by its arms"
        )
    selection = selection_of(experiment, until)
    names = _names(selection)
    columns = [*(NOW + name for name in names), *(BEFORE + name for name in names)]
    with closing(ExperimentTotals(store_url)) as log:
        users, sums = _read(log, experiment, selection, columns)
        is_bot = _are_bots(log, experiment, selection, sums)
        is_conflicting = users["n_arms"].to_numpy() > 1
        kept = ~is_conflicting & ~is_bot
        of_kept = users.filter(pl.Series(kept))
        single_values = _single_values(log, experiment, selection, of_kept["user_id"])
    return Measurements(
        arms=experiment.arm_names,
        arm=_places(of_kept["arm"], experiment.arm_names),
        phase=of_kept["phase"].to_numpy().astype(np.int32),
        shares=np.array([phase.shares for phase in experiment.phases]),
        totals={name: sums.of(NOW + name)[kept] for name in names},
        before={name: sums.of(BEFORE + name)[kept] for name in names if sums.of(BEFORE + name).any()},
        values=single_values,
        segments={name: _segment(of_kept["user_id"], values) for name, values in segments},
        n_conflicting=int(is_conflicting.sum()),
        n_bots=int((is_bot & ~is_conflicting).sum()),
        days=whole_days(experiment, until),
    )


def begins_at(experiment: Experiment, until: int) -> int:
    """Return when users could first meet an experiment; not before its start date, whenever it was started."""
    if experiment.started_at is None:
        return until
    return max(experiment.started_at, experiment.starts_at or 0)


def whole_days(experiment: Experiment, until: int) -> int:
    """Return for how many days users could meet an experiment, up to a moment in Unix seconds; not while paused."""
    begun = begins_at(experiment, until)
    return max(0, until - begun - sum(pause.seconds(begun, until) for pause in experiment.pauses)) // DAY_SECONDS


def measure_batches(store_url: str, experiment: Experiment, until: int) -> tuple[DoubleArray, DoubleArray]:
    """Return (n_batches, n_arms) float64 each: users of a bandit who were rewarded, and users who met it.

    A user counts in every batch in which he met an arm, for what he did from then to the end of the batch. Who met two
    arms in one batch, or is a bot, is left out of it.

    Args:
        store_url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.
        experiment: of kind "bandit".
        until: Unix seconds; it counts as the end where the experiment has not been stopped before.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database cannot be read.
    """
    until = experiment.measured_until(until)
    ends = [*(phase.starts_at for phase in experiment.phases[1:]), until]
    successes, trials = (np.zeros((len(ends), len(experiment.arms))) for _ in range(2))
    reward = experiment.design.metrics[0].numerator
    with closing(ExperimentTotals(store_url)) as log:
        for batch, end in enumerate(ends):
            selection = replace(selection_of(experiment, min(end, until)), phase=batch, has_before=False)
            users, sums = _read(log, experiment, selection, [NOW + reward])
            is_kept = (users["n_arms"].to_numpy() == 1) & ~_are_bots(log, experiment, selection, sums)
            arms = _places(users["arm"], experiment.arm_names)[is_kept]
            trials[batch] = np.bincount(arms, minlength=len(experiment.arms))
            successes[batch] = np.bincount(arms[sums.of(NOW + reward)[is_kept] > 0], minlength=len(experiment.arms))
    return successes, trials


def _read(
    log: ExperimentTotals, experiment: Experiment, selection: Selection, names: list[str]
) -> tuple[pl.DataFrame, "_Sums"]:
    """Return who met an arm, and what they did."""
    users = log.users(selection).with_columns(pl.col("arm").str.split(IN_BATCH).list.first())
    # Another worker may know of a later allocation than this one does: its users come with the next look.
    is_known = pl.col("arm").is_in(experiment.arm_names) & (pl.col("phase") < len(experiment.phases))
    users = users.filter(is_known)
    sums = _Sums(users["user_id"], names)
    for frame in log.totals(users["user_id"], selection):
        sums.add(frame)
    return users, sums


def _are_bots(log: ExperimentTotals, experiment: Experiment, selection: Selection, sums: "_Sums") -> BoolArray:
    """Return (n_users,) bool: who has too many events an hour; what took less than an hour counts as one."""
    is_bot = sums.of(N_EVENTS) > experiment.max_events_an_hour  # who has fewer in all does not have them in an hour
    if not is_bot.any():
        return is_bot
    busy = sums.user_ids.filter(pl.Series(is_bot))
    spans = pl.concat(log.spans(busy, selection)).group_by("user_id")
    span = spans.agg(seconds=pl.col("last_event").max() - pl.col("first_event").min())
    seconds = busy.to_frame().join(span, on="user_id", how="left", maintain_order="left")["seconds"].to_numpy()
    an_hour = sums.of(N_EVENTS)[is_bot] / np.maximum(1.0, seconds / HOUR_SECONDS)
    is_bot[is_bot] = an_hour > experiment.max_events_an_hour
    return is_bot


def _names(selection: Selection) -> list[str]:
    """Return the totals that a selection sums, sorted."""
    named = {each.name for each in (*selection.recorded, *selection.logged)}
    return sorted(named | ({selection.shown} if selection.shown else set()))


def past_totals(store_url: str, experiment: Experiment, since: int, until: int) -> Totals:
    """Return what all users did between two moments, of the totals that an experiment needs, in no order.

    They are those of the service's log where the experiment is measured by it, else of whatever was recorded.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database cannot be read.
    """
    selection = selection_of(experiment, until)
    if experiment.reads_service:
        selection = replace(selection, recorded=())
    with closing(ExperimentTotals(store_url)) as log:
        frames = list(log.past(selection, since))
    names = _names(selection)
    users = pl.concat([pl.Series("user_id", [], pl.String), *(frame["user_id"] for frame in frames)]).unique()
    rows = pl.DataFrame({"user_id": users, "row": np.arange(len(users))})
    totals = {name: np.zeros(len(users)) for name in names}
    for frame in frames:
        placed = frame.join(rows, on="user_id")
        for name in names:
            if NOW + name in placed.columns:
                totals[name][placed["row"].to_numpy()] += placed[NOW + name].to_numpy()
    return totals


def selection_of(experiment: Experiment, until: int) -> Selection:
    """Return which rows of the log an experiment needs, up to a moment (Unix seconds)."""
    metrics = experiment.design.metrics
    needed = {name for metric in metrics for name in (metric.numerator, metric.denominator) if name}
    window = None if experiment.window_days is None else math.ceil(experiment.window_days * DAY_SECONDS)
    reads_service = experiment.reads_service
    return Selection(
        experiment.experiment_id,
        until,
        window_seconds=window,
        has_before=any(metric.variance_reduction for metric in metrics),
        recorded=[Summed(name, name) for name in sorted(needed)],
        logged=[each for each in _LOGGED if each.name in needed] if reads_service else (),
        shown=IMPRESSIONS if reads_service and IMPRESSIONS in needed else None,
    )


def reads_impressions(experiment: Experiment) -> bool:
    """Return whether an experiment is measured by what the log says was shown, and not by events alone."""
    return experiment.kind == "interleaving" or selection_of(experiment, 0).shown is not None


def _single_values(
    log: ExperimentTotals, experiment: Experiment, selection: Selection, user_ids: pl.Series
) -> dict[str, SingleValues]:
    """Return the values of which the experiment's metrics are quantiles, by the name of their total.

    Args:
        log: of the experiment.
        experiment: says which values are needed.
        selection: what counts.
        user_ids: (n_users,) String, sorted: whose.
    """
    found: dict[str, SingleValues] = {}
    room = MAX_VALUES
    for name in sorted({each.numerator for each in experiment.design.metrics if each.quantile is not None}):
        with closing(log.values(selection, name)) as frames:
            found[name] = _held(frames, user_ids, room)
        room -= len(found[name].value)
    return found


def _held(frames: Iterable[pl.DataFrame], user_ids: pl.Series, room: int) -> SingleValues:
    """Return the values of the users who are kept; none where there are more than there is room for."""
    users, values, n_values = [np.empty(0, dtype=np.int32)], [np.empty(0)], 0
    for frame in frames:
        runs = frame["user_id"].rle().struct.unnest()
        rows, is_kept = _rows_of(user_ids, runs["value"])
        lengths = runs["len"].to_numpy()
        users.append(np.repeat(rows[is_kept].astype(np.int32), lengths[is_kept]))
        values.append(frame["value"].to_numpy()[np.repeat(is_kept, lengths)])
        n_values += len(users[-1])
        if n_values > room:
            return SingleValues(users[0], values[0], is_complete=False)
    return SingleValues(np.concatenate(users), np.concatenate(values))


class _Sums:
    """Arrays of sums, one row a user, to which frames of some of the users are added.

    Args:
        user_ids: (n_users,) String, sorted.
        names: of the sums.

    Attributes:
        user_ids: of the rows.
    """

    def __init__(self, user_ids: pl.Series, names: list[str]) -> None:
        self.user_ids = user_ids
        self._sums = {name: np.zeros(len(user_ids)) for name in [*names, N_EVENTS]}

    def add(self, frame: pl.DataFrame) -> None:
        """Add what a frame of ExperimentTotals holds; a user stands once in it."""
        rows, is_one = _rows_of(self.user_ids, frame["user_id"])
        placed, rows_of_users = frame.filter(pl.Series(is_one)), rows[is_one]
        for name in placed.columns:
            if name in self._sums:
                self._sums[name][rows_of_users] += placed[name].to_numpy()

    def of(self, name: str) -> NDArray[np.float64]:
        """Return (n_users,) float64: one of the sums."""
        return self._sums[name]


def _rows_of(user_ids: pl.Series, wanted: pl.Series) -> tuple[LongArray, BoolArray]:
    """Return (n_wanted,) rows of those users, and whether they are there at all.

    A join would hash all users again for each frame of some of them.

    Args:
        user_ids: (n_users,) String, sorted.
        wanted: (n_wanted,) String.
    """
    if not len(user_ids):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=np.bool_)
    rows = user_ids.search_sorted(wanted).clip(upper_bound=len(user_ids) - 1)
    return rows.to_numpy().astype(np.int64), (user_ids.gather(rows) == wanted).to_numpy()


def _places(arms: pl.Series, names: tuple[str, ...]) -> NDArray[np.int32]:
    return arms.replace_strict(names, list(range(len(names))), return_dtype=pl.Int32).to_numpy()


def _segment(user_ids: pl.Series, values: pl.DataFrame) -> NDArray[np.str_]:
    found = pl.DataFrame({"user_id": user_ids}).join(values, on="user_id", how="left", maintain_order="left")
    return found["value"].fill_null("unknown").to_numpy().astype(np.str_)
