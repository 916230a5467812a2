"""Items that share a value have the same label, whether they were there from the beginning or came later."""

from datetime import date

import polars as pl
import pytest

from rec_engine.retrieval.labels import Labels


@pytest.mark.parametrize(
    ("cells", "value", "equal_to", "other"),
    [
        (pl.Series(["b", "a", None, "b"]), "b", 0, "c"),
        (pl.Series([2.5, 3.0, None, 2.5]), 3, 1, 4),
        (pl.Series([2, 3, None, 2], dtype=pl.Int16), 2.0, 0, 2.5),
        (pl.Series([True, False, None, True]), False, 1, None),
        (pl.Series([["x", "y"], ["y"], [], ["x"]]), ["x"], 0, ["z", "x"]),
        (pl.Series([date(2024, 5, 1), date(2024, 5, 2), None, date(2024, 5, 1)]), "2024-05-02", 1, "2024-05-03"),
    ],
)
def test_an_item_that_comes_later_shares_its_value_with_those_before(
    cells: pl.Series, value: object, equal_to: int, other: object
) -> None:
    labels = Labels(cells, 8)
    assert labels.by_item[0] == labels.by_item[3] != labels.by_item[1]
    assert labels.by_item[[2, 4, 5]].tolist() == [-1, -1, -1]
    labels.put(4, value)
    assert labels.by_item[4] == labels.by_item[equal_to]
    labels.put(5, other)
    labels.put(6, other)
    assert labels.by_item[5] == labels.by_item[6]
    assert labels.by_item[5] not in labels.by_item[:5][labels.by_item[:5] >= 0]
    labels.put(4, None)
    assert labels.by_item[4] == -1


def test_an_attribute_of_no_item_labels_those_that_come() -> None:
    labels = Labels(None, 3)
    labels.put(0, "a")
    labels.put(2, "a")
    assert labels.by_item.tolist() == [0, -1, 0]
