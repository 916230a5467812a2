"""What SQLite finds, summed up by machine code: no row of it becomes a Python object, and no thread waits for another.

The addresses of SQLite's C functions are arguments, so that the machine code can be kept for the next process.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.base import BaseContext
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numpy.typing import NDArray

from rec_engine.data.dataset import IntArray, LongArray
from rec_engine.data.kernels import compiled

ROW = 100
"""What `sqlite3_step` returns where there is a row."""
Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]


def _calling(result: types.Type, *given: types.Type) -> tuple[Signature, Callable[..., ir.Value]]:
    """Return the signature and the code of a function that calls a C function; its address comes first."""

    def code(
        context: BaseContext, builder: ir.IRBuilder, _signature: Signature, values: Sequence[ir.Value]
    ) -> ir.Value:
        kind = ir.FunctionType(context.get_value_type(result), [context.get_value_type(each) for each in given])
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])

    return result(types.intp, *given), code


def _of_column(result: types.Type) -> Callable[..., Any]:
    """Return what asks SQLite for something of a column of the row that it is at."""

    def define(_typing: object, _address: types.Type, _statement: types.Type, _column: types.Type) -> object:
        return _calling(result, types.intp, types.int32)

    function: Callable[..., Any] = intrinsic(define)
    return function


def _next_row(_typing: object, _address: types.Type, _statement: types.Type) -> object:
    return _calling(types.int32, types.intp)


_step: Callable[..., Any] = intrinsic(_next_row)
_integer, _float, _size = _of_column(types.int64), _of_column(types.float64), _of_column(types.int32)
_text = _of_column(types.CPointer(types.uint8))


@compiled
def read_rows(
    statement: int, functions: LongArray, code: int, texts: Bytes, numbers: LongArray
) -> tuple[int, int, int]:
    """Return how many rows were read, how many bytes their texts take, and what SQLite said last: 101 after the last.

    Where there is no room for another row, that is 100: SQLite is at that row, and reading may go on with it.

    Args:
        statement: address of one whose rows are two texts and integers.
        functions: (5,) addresses of sqlite3_step, sqlite3_column_int64, _double, _text and _bytes.
        code: what SQLite said last, at a row that is still to be read; 0 in the beginning.
        texts: where the texts go, as UTF-8, each with a zero after it.
        numbers: (n, n_integers) where the integers go; there is room for n rows.
    """
    n_rows, n_bytes = 0, 0
    if code != ROW:
        code = _step(functions[0], statement)
    while code == ROW:
        size = _size(functions[4], statement, 0) + _size(functions[4], statement, 1) + 2
        if n_rows == len(numbers) or n_bytes + size > len(texts):
            break
        for column in range(2):
            n_bytes = _copy(functions, statement, column, texts, n_bytes)
        for column in range(numbers.shape[1]):
            numbers[n_rows, column] = _integer(functions[1], statement, column + 2)
        n_rows += 1
        code = _step(functions[0], statement)
    return n_rows, n_bytes, code


@compiled
def sum_by_user(
    statement: int,
    functions: LongArray,
    code: int,
    kinds: tuple[Bytes, LongArray],
    ids: Bytes,
    sums: Doubles,
) -> tuple[int, int, int]:
    """Return how many users were read, how many bytes their ids take, and what SQLite said last, as `read_rows` does.

    Args:
        statement: address of one whose rows are user id, kind, value, moment of the row and of the user, by user id.
        functions: as there.
        code: as there.
        kinds: names of the kinds that are told apart, as UTF-8, one after the other, and (n_kinds,) where they end.
        ids: where the users' ids go, as UTF-8, each with a zero after it.
        sums: (n, 2, n_kinds + 1, 2) zeros, to which is added, by user, before or since his moment, and kind: the number
            of rows and the sum of their values. The last kind is all the others. There is room for n users.
    """
    n_users, start, n_bytes = 0, 0, 0
    if code != ROW:
        code = _step(functions[0], statement)
    while code == ROW:
        text, size = _text(functions[3], statement, 0), _size(functions[4], statement, 0)
        if n_users == 0 or size != n_bytes - start - 1 or not _is_same(text, ids, start, size):
            if n_users == len(sums) or n_bytes + size + 1 > len(ids):
                break
            n_users, start = n_users + 1, n_bytes
            n_bytes = _copy(functions, statement, 0, ids, n_bytes)
        name, size = _text(functions[3], statement, 1), _size(functions[4], statement, 1)
        is_since = _integer(functions[1], statement, 3) >= _integer(functions[1], statement, 4)
        row = sums[n_users - 1, int(is_since), _kind(name, size, kinds[0], kinds[1])]
        row[0] += 1
        row[1] += _float(functions[2], statement, 2)
        code = _step(functions[0], statement)
    return n_users, n_bytes, code


@compiled
def read_values(
    statement: int, functions: LongArray, code: int, ids: Bytes, places: IntArray, values: Doubles
) -> tuple[int, int, int]:
    """Return how many rows were read, how many bytes their users' ids take, and what SQLite said last.

    Args:
        statement: address of one whose rows are user id and value, all rows of a user together.
        functions: as of `read_rows`.
        code: as there.
        ids: where the users' ids go, each once, as UTF-8 with a zero after it.
        places: (n,) which of these ids is a row's.
        values: (n,) where the values go; there is room for n rows.
    """
    n_rows, n_users, start, n_bytes = 0, 0, 0, 0
    if code != ROW:
        code = _step(functions[0], statement)
    while code == ROW and n_rows < len(values):
        text, size = _text(functions[3], statement, 0), _size(functions[4], statement, 0)
        if n_users == 0 or size != n_bytes - start - 1 or not _is_same(text, ids, start, size):
            if n_bytes + size + 1 > len(ids):
                break
            n_users, start = n_users + 1, n_bytes
            n_bytes = _copy(functions, statement, 0, ids, n_bytes)
        places[n_rows], values[n_rows] = n_users - 1, _float(functions[2], statement, 1)
        n_rows += 1
        code = _step(functions[0], statement)
    return n_rows, n_bytes, code


@compiled
def _copy(functions: LongArray, statement: int, column: int, texts: Bytes, start: int) -> int:
    """Return where the next text goes."""
    text, end = _text(functions[3], statement, column), start + int(_size(functions[4], statement, column))
    for place in range(start, end):
        texts[place] = text[place - start]
    texts[end] = 0
    return end + 1


@compiled
def _kind(name: Bytes, size: int, kinds: Bytes, kind_ends: LongArray) -> int:
    start = 0
    for kind in range(len(kind_ends)):
        if kind_ends[kind] - start == size and _is_same(name, kinds, start, size):
            return kind
        start = kind_ends[kind]
    return len(kind_ends)


@compiled
def _is_same(text: Bytes, others: Bytes, start: int, size: int) -> bool:
    n_same = 0
    while n_same < size and text[n_same] == others[start + n_same]:
        n_same += 1
    return n_same == size
