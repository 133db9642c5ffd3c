"""Types of Arrow columns: infer them from values, unify them, convert columns to them."""

from __future__ import annotations

import contextlib
from array import array
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "can_convert",
    "convert",
    "count_fields",
    "depth_of",
    "has_empty_struct",
    "infer",
    "spread",
    "unify",
]


def infer(values: list[Any], declared: pa.DataType | None) -> pa.Array | None:
    """Make an array of the declared type, or else of one that fits all values; `None` if there is none."""
    import pyarrow as pa

    if declared is not None:
        with contextlib.suppress(Exception):
            return pa.array(values, declared)
        with contextlib.suppress(Exception):  # the text of a timestamp in nanoseconds
            return pa.array(values).cast(declared)
    try:
        array = pa.array(values)
    except UnicodeEncodeError:
        return infer([_encodable(value) for value in values], None)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None
    # Among floats, true and false would become 1.0 and 0.0.
    if _has_floats(array.type) and not all(map(_has_same_truths, array.to_pylist(), values)):
        return None
    return array


def unify(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that has the values of both types, or `None` if there is none."""
    import pyarrow as pa

    if one == other:
        return one
    schemas = [pa.schema([("x", one)]), pa.schema([("x", other)])]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return None


def convert(column: pa.ChunkedArray, type: pa.DataType) -> pa.ChunkedArray:
    """Convert a column to another type that holds the same values, or raise pyarrow's error."""
    import pyarrow as pa

    if column.type == type:
        return column
    try:
        return column.cast(type)
    except pa.ArrowNotImplementedError:
        return pa.chunked_array([pa.array(column.to_pylist(), type)])


def can_convert(column: pa.ChunkedArray, type: pa.DataType) -> bool:
    """Whether a column can be convert; large integers among floats cannot."""
    try:
        convert(column, type)
    except Exception:
        return False
    return True


def spread(column: pa.Array, places: list[int], size: int) -> pa.Array:
    """Return a column of `size` values, which are those of another one at their places and else null."""
    import pyarrow as pa

    if len(places) == size:
        return column
    indices, is_valid = array("i", bytes(4 * size)), bytearray((size + 7) // 8)
    for number, place in enumerate(places):
        indices[place] = number
        is_valid[place >> 3] |= 1 << (place & 7)
    buffers = [pa.py_buffer(is_valid), pa.py_buffer(indices)]
    return column.take(pa.Array.from_buffers(pa.int32(), size, buffers))


def _child_types(type: pa.DataType) -> list[pa.DataType]:
    return [type.field(number).type for number in range(type.num_fields)]


def count_fields(type: pa.DataType) -> int:
    """Count the types that a nested type is made of, itself included."""
    return 1 + sum(map(count_fields, _child_types(type)))


def depth_of(type: pa.DataType) -> int:
    """Return how deep types lie in each other; 1 for one that is not nested."""
    return 1 + max(map(depth_of, _child_types(type)), default=0)


def has_empty_struct(type: pa.DataType) -> bool:
    """Whether a type is or contains a struct without fields."""
    import pyarrow as pa

    return (pa.types.is_struct(type) and not type.num_fields) or any(
        map(has_empty_struct, _child_types(type))
    )


def _has_floats(type: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_floating(type) or any(map(_has_floats, _child_types(type)))


def _has_same_truths(found: Any, value: Any) -> bool:
    """Whether what is true or false in a value is so in what it became."""
    if isinstance(value, list) and isinstance(found, list):
        return all(map(_has_same_truths, found, value))
    if isinstance(value, dict) and isinstance(found, dict):
        return all(_has_same_truths(found.get(key), item) for key, item in value.items())
    return not isinstance(value, bool) or isinstance(found, bool)


def _encodable(value: Any) -> Any:
    """Replace the halves of surrogate pairs in a value, which UTF-8 cannot encode."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value
