"""Variety, calibration and popularity of lists, beside figures worked out by hand."""

import numpy as np
import pytest
from worlds import interactions

from rec_engine.evaluation.beyond_accuracy import SMOOTHING, beyond_accuracy

# Items 0 and 1 are comedies, 2 and 3 dramas, 4 both, 5 has no category.
CATEGORIES = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0.5, 0.5], [0, 0]], dtype=np.float32)
HISTORY = interactions([[0, 1], [0, 2], [0], []])
USERS = np.array([0, 1, 2], dtype=np.int32)


def measured(lists: list[list[int]]) -> dict[str, list[float]]:
    ranked = np.array(lists, dtype=np.int32)
    found = beyond_accuracy(ranked, USERS[: len(ranked)], HISTORY, CATEGORIES, k=2)
    return {name: values.tolist() for name, values in found.items()}


def test_a_list_with_the_mix_of_the_history_is_calibrated_and_its_opposite_is_not() -> None:
    same, opposite = measured([[0, 1], [1, 3]]), measured([[2, 3], [4, -1]])
    assert same["miscalibration@2"] == pytest.approx([0, 0])
    assert opposite["miscalibration@2"] == pytest.approx([-np.log(SMOOTHING), 0])


def test_one_kind_has_no_variety_and_two_kinds_have_all_of_it() -> None:
    assert measured([[0, 1], [1, 3], [5, 0]])["diversity@2"] == pytest.approx([0, 1, 1])


def test_the_lift_is_beside_what_each_user_takes_himself() -> None:
    # Item 0 was met three times, items 1 and 2 once: the histories have means of 2, 2 and 3.
    assert measured([[0, 0], [1, 2], [0, 1]])["popularity_lift@2"] == pytest.approx([0.5, -0.5, -1 / 3])


def test_what_cannot_be_said_is_nan() -> None:
    found = measured([[-1, -1], [5, -1], [0, -1]])
    assert np.isnan(found["miscalibration@2"][:2]).all()
    assert np.isnan(found["diversity@2"]).all()
    assert np.isnan(found["popularity_lift@2"][0])
    assert found["popularity_lift@2"][2] == 0
    empty = beyond_accuracy(np.empty((0, 2), dtype=np.int32), USERS[:0], HISTORY, CATEGORIES, k=2)
    assert all(values.shape == (0,) for values in empty.values())


def test_dislikes_are_no_taste_and_no_categories_are_no_variety() -> None:
    disliked = interactions([[0, 2]], weights=[[1, -1]])
    ranked = np.array([[1, 0]], dtype=np.int32)
    found = beyond_accuracy(ranked, USERS[:1], disliked, CATEGORIES, k=2)
    assert found["miscalibration@2"] == pytest.approx([0])
    assert np.isnan(beyond_accuracy(ranked, USERS[:1], disliked, CATEGORIES * 0, k=2)["diversity@2"]).all()
