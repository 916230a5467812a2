"""What users could have taken: what they were shown after they asked, until their targets end, and what they took."""

from dataclasses import replace

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from worlds import interactions

from rec_engine.data.dataset import Interactions
from rec_engine.data.showings import SETTLING_SECONDS, ShowingLog
from rec_engine.evaluation.evaluator import Task
from rec_engine.evaluation.exposures import MIN_TOLD, exposures_of

BEGIN = 1_600_000_000
DAY = 86_400


def log_of(shown: list[tuple[int, int, int]], n_users: int) -> ShowingLog:
    """Return a log of users, items, and seconds after BEGIN."""
    schema = {"user": pl.Int32, "item": pl.Int32, "timestamp": pl.Int64}
    frame = pl.DataFrame(shown, schema=schema, orient="row").with_columns(
        position=1, timestamp=pl.col("timestamp") + BEGIN
    )
    return ShowingLog.from_impressions(frame, n_users)


def hour(moment: int) -> int:
    return moment // SETTLING_SECONDS


def at(part: Interactions, seconds: int) -> Interactions:
    """Return the same, so many seconds later and a day apart."""
    return replace(part, timestamps=BEGIN + seconds + (part.timestamps - BEGIN) * DAY)


def items(task: Task) -> list[list[int]] | None:
    found = exposures_of(task)
    return [found.items_of(user).tolist() for user in range(task.targets.n_users)] if found else None


KNOWN = interactions([[0], [0, 1], []])
TAKEN = at(interactions([[5], [6, 7], []]), 10 * DAY)
SHOWN = [(0, 5, 10 * DAY), (1, 6, 10 * DAY), (1, 7, 11 * DAY)]


def test_what_was_shown_while_the_targets_came_about_counts_and_what_was_before_or_after_does_not() -> None:
    begins = -SETTLING_SECONDS - BEGIN % SETTLING_SECONDS  # the hour by the clock, of which the log has one moment
    seconds_by_item = {1: begins - 1, 2: begins, 3: DAY, 4: DAY + 1}
    beside = [(0, item, 10 * DAY + seconds) for item, seconds in seconds_by_item.items()]
    task = Task("t", KNOWN, TAKEN, shown=log_of([*SHOWN, *beside, (2, 9, 10 * DAY + 5)], 3))
    # Whoever took nothing asks at the end of all that is known, and is nobody's business here.
    assert items(task) == [[2, 3, 5], [6, 7], []]


def test_what_users_saw_whom_nobody_knows_is_nobodys_exposure() -> None:
    strangers = [(3, 8, 10 * DAY), (7, 5, 10 * DAY)]
    assert items(Task("t", KNOWN, TAKEN, shown=log_of([*SHOWN, *strangers], 3))) == [[5], [6, 7], []]


def test_where_others_go_on_after_a_user_has_ended_his_own_end_counts() -> None:
    known = interactions([[0], [0, 1], [3]])
    later = replace(known, timestamps=known.timestamps + 20 * DAY * np.array([0, 0, 0, 1]))
    assert items(Task("t", later, TAKEN, shown=log_of([*SHOWN, (0, 3, 10 * DAY + 1)], 3))) == [[5], [6, 7], []]


def test_what_was_taken_counts_though_the_log_has_not_shown_it_and_a_log_that_tells_little_says_nothing() -> None:
    assert items(Task("t", KNOWN, TAKEN, shown=log_of(SHOWN[:2], 3))) == [[5], [6, 7], []]
    assert MIN_TOLD > 1 / 3
    assert exposures_of(Task("t", KNOWN, TAKEN, shown=log_of(SHOWN[:1], 3))) is None
    assert exposures_of(Task("t", KNOWN, TAKEN)) is None
    nothing = interactions([[], [], []])
    assert exposures_of(Task("t", KNOWN, nothing, shown=log_of(SHOWN, 3))) is None


@given(
    shown=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 14 * DAY)), max_size=30),
    taken=st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=3, max_size=3),
)
def test_exposures_are_those_of_a_slow_search(shown: list[tuple[int, int, int]], taken: list[list[int]]) -> None:
    targets = at(interactions(taken), 10 * DAY)
    task = Task("t", KNOWN, targets, shown=log_of(shown, 3))
    found, last = items(task), max(map(len, taken), default=0) - 1
    expected, n_told = list[list[int]](), 0
    for user, wanted in enumerate(taken):
        kept = {
            item
            for item, moment in zip(
                task.shown.of_user(user).item_codes.tolist(), task.shown.of_user(user).timestamps.tolist(), strict=True
            )
            if wanted and hour(BEGIN + 10 * DAY) - 1 <= hour(moment) and moment - BEGIN <= (10 + last) * DAY
        }
        n_told += sum(item in kept for item in wanted)
        expected.append(sorted(kept | set(wanted)))
    is_told = sum(map(len, taken)) > 0 and n_told / sum(map(len, taken)) >= MIN_TOLD
    assert found == (expected if is_told else None)
