"""The protocol: full catalogue, seen items out, ties at random."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import checkerboard, interactions

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.data.splits import leave_one_out
from rec_engine.errors import DataError
from rec_engine.evaluation.evaluator import (
    Scorer,
    Task,
    as_json,
    comparison_table,
    evaluate,
    merge,
    rank_by_score,
)
from rec_engine.evaluation.evaluator import test_task as task_of
from rec_engine.evaluation.ranking import top_k

N = 40
PROPERTY = settings(max_examples=50, deadline=None)  # a busy machine is no failure


def answer_task() -> Task:
    """Find item u for user u."""
    return Task("checkerboard", checkerboard(N), interactions([[user] for user in range(N)]))


def test_an_oracle_gets_everything() -> None:
    found = evaluate(
        "oracle",
        rank_by_score(lambda users: np.eye(N, dtype=np.float32)[users], checkerboard(N)),
        answer_task(),
        n_items=N,
    )
    assert found.mean("ndcg@10") == 1
    assert found.mean("hit_rate@5") == 1
    assert found.catalogue["coverage@5"] == 1


def test_a_constant_scorer_hits_no_more_than_chance() -> None:
    # The targets are the ten lowest codes that are left: ranking in the order of the catalogue would find them all.
    targets = interactions([[1 + user % 10] for user in range(300)])
    task = Task("low codes", interactions([[0]] * 300), targets)
    constant = [
        evaluate("constant", rank_by_score(_zeros(200), task.history, seed=seed), task, n_items=200).mean("hit_rate@20")
        for seed in range(100)
    ]
    assert np.mean(constant) == pytest.approx(20 / 199, abs=0.03)


def _zeros(n_items: int) -> Scorer:
    return lambda users: np.zeros((len(users), n_items), dtype=np.float32)


def test_seen_items_are_never_ranked_and_too_short_lists_are_padded() -> None:
    history = interactions([[0, 1, 2], [0, 1, 2, 3]])
    ranked = rank_by_score(lambda users: np.ones((len(users), 4), dtype=np.float32), history)(
        np.array([0, 1], np.int32), 3
    )
    assert ranked.tolist() == [[3, -1, -1], [-1, -1, -1]]


def test_nan_scores_come_last() -> None:
    scores = np.array([[np.nan, 0.5, np.nan, -2.0]], dtype=np.float32)
    ranked = rank_by_score(lambda users: scores[users], interactions([[]]))(np.array([0], np.int32), 4)
    assert ranked[0, :2].tolist() == [1, 3]
    assert set(ranked[0, 2:].tolist()) == {0, 2}


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
def test_the_list_is_full_and_new_whatever_the_scores(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.choice([np.nan, -np.inf, np.inf, 0, 1], (3, 8)).astype(np.float32)
    rows = [rng.permutation(8)[: rng.integers(0, 9)].tolist() for _ in range(3)]
    ranked = rank_by_score(lambda users: scores[users], interactions(rows), seed=seed % 7)(
        np.arange(3, dtype=np.int32), k
    )
    for row, seen in zip(ranked.tolist(), rows, strict=True):
        n_found = min(k, 8 - len(seen))
        assert row[n_found:] == [-1] * (k - n_found)
        assert len(set(row[:n_found]) - set(seen) - {-1}) == n_found


def test_batches_and_single_users_get_the_same_lists() -> None:
    scores = np.random.default_rng(0).integers(0, 3, (N, N)).astype(np.float32)
    recommend = rank_by_score(lambda users: scores[users], checkerboard(N))
    users = np.arange(N, dtype=np.int32)
    assert np.array_equal(recommend(users, 10), np.concatenate([recommend(users[u : u + 1], 10) for u in range(N)]))


def test_a_user_twice_in_a_batch_and_an_unknown_one_get_their_own_lists() -> None:
    recommend = rank_by_score(_zeros(3), interactions([[0, 1], [2]]))
    ranked = recommend(np.array([0, 0, -1, 1], np.int32), 3)
    assert ranked[:2].tolist() == [[2, -1, -1]] * 2
    assert sorted(ranked[2].tolist()) == [0, 1, 2]
    assert sorted(ranked[3].tolist()) == [-1, 0, 1]


def test_an_item_that_everybody_met_often_has_no_novelty() -> None:
    task = Task("t", interactions([[0, 0, 0, 0], [0, 0, 1]]), interactions([[2], [2]]))
    popular = evaluate("0", lambda users, k: np.zeros((len(users), k), np.int32), task, n_items=3, ks=(1,))
    assert popular.catalogue["novelty@1"] == 0


def test_scores_of_the_model_are_not_written_to() -> None:
    scores = np.zeros((N, N), dtype=np.float32)
    rank_by_score(lambda users: scores, checkerboard(N))(np.arange(N, dtype=np.int32), 5)
    assert not scores.any()


def test_what_cannot_be_found_is_counted_and_left_out() -> None:
    task = Task("t", interactions([[0], [1], []]), interactions([[0, 2, 2], [1], [3]]))
    found = evaluate("zeros", rank_by_score(_zeros(5), task.history), task, n_items=5, ks=(4,))
    assert found.user_codes.tolist() == [0]
    assert (found.n_unreachable_targets, found.n_cold_users) == (2, 1)
    assert found.mean("recall@4") == 1


def test_nobody_to_measure_is_nan_and_no_crash() -> None:
    task = Task("t", interactions([[0]]), interactions([[]]))
    found = evaluate("zeros", rank_by_score(_zeros(5), task.history), task, n_items=5)
    assert np.isnan(found.mean("ndcg@10"))


def test_models_measured_on_different_users_are_not_compared() -> None:
    found = []
    for rows in ([[0], [1], []], [[0], [], [1]]):
        task = Task("t", interactions(rows), interactions([[3], [4], [5]]))
        found.append(evaluate("zeros", rank_by_score(_zeros(6), task.history), task, n_items=6))
    with pytest.raises(DataError, match="different users"):
        comparison_table(found, ["ndcg@10"], "title")


def test_parts_of_different_datasets_are_not_merged() -> None:
    with pytest.raises(DataError, match="3 and of 1 users"):
        merge(interactions([[0], [1], [2]]), interactions([[5]]))


def test_merge_keeps_each_users_time_order() -> None:
    split = leave_one_out(checkerboard(N))
    merged = merge(split.train, split.validation)
    whole = checkerboard(N)
    assert [merged.items_of(u).tolist() for u in range(N)] == [whole.items_of(u)[:-1].tolist() for u in range(N)]
    assert task_of(split).targets is split.test


@PROPERTY
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def testtop_k_is_a_stable_sort_cut_off(k: int, seed: int) -> None:
    scores: FloatArray = np.random.default_rng(seed).integers(0, 4, (5, 12)).astype(np.float32)
    scores[0] = -np.inf
    assert np.array_equal(top_k(scores, k), np.argsort(-scores, axis=1, kind="stable")[:, :k])


def test_table_and_json_hold_every_model() -> None:
    users_scores = np.eye(N, dtype=np.float32)

    def oracle(users: IntArray) -> FloatArray:
        return users_scores[users]

    found = [evaluate(name, rank_by_score(oracle, checkerboard(N)), answer_task(), n_items=N) for name in ("a", "b")]
    table = comparison_table(found, ["ndcg@10", "coverage@10"], "title")
    assert table.row_count == 2
    assert as_json(found)["b"]["ndcg@10"] == 1


def test_a_user_asks_when_he_met_his_first_target_but_never_before_the_end_of_what_is_known() -> None:
    known = interactions([[0, 1, 2], [0], [], []])
    later = replace(known, timestamps=known.timestamps + 100)
    targets = interactions([[7, 8], [], [9], []])
    begin = int(known.timestamps[0])
    assert Task("in order", known, targets).request_times().tolist() == [begin + 2, begin, begin, begin + 2]
    assert Task("random", later, targets).request_times().tolist() == [begin + 102, begin + 100, begin, begin + 102]
    hidden = Task("no clock", known, replace(targets, timestamps=targets.timestamps + 50), knows_request_time=False)
    assert hidden.request_times().tolist() == [begin + 2, begin, begin + 2, begin + 2]


def test_where_items_may_come_again_the_history_is_ranked_and_counts() -> None:
    task = Task("again", interactions([[0, 1]]), interactions([[1, 1, 3]]), repeats=True)
    again = evaluate("again", rank_by_score(_zeros(4), task.seen), task, n_items=4, ks=(4,))
    once = replace(task, repeats=False)
    only_new = evaluate("once", rank_by_score(_zeros(4), once.seen), once, n_items=4, ks=(4,))
    assert (again.n_unreachable_targets, only_new.n_unreachable_targets) == (0, 1)
    assert again.mean("precision@4") == 2 / 4
    assert only_new.mean("precision@4") == 1 / 4
    assert sorted(again.ranked[0].tolist()) == [0, 1, 2, 3]
    assert sorted(only_new.ranked[0].tolist()) == [-1, -1, 2, 3]
