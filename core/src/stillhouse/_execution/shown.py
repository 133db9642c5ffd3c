"""`shown`: a copy for one hook, so that what it changes reaches neither the call nor another hook."""

from __future__ import annotations

import copy
import dataclasses
from functools import cached_property
from typing import Any, NoReturn

from stillhouse.errors import GenerationError
from stillhouse.protocols import Row, RunSummary

__all__ = ["ReadOnlyDict", "shown"]

_CONTAINERS = frozenset({dict, list, tuple})


class ReadOnlyDict(dict[str, Any]):
    """A dict that can be read alone. It is one: `json.dumps` and `isinstance` take it as such."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("what a hook is shown is read-only: change a copy of it")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)


class _ShownRow(Row):
    """A row whose columns are copied only when a hook reads them: many hooks need only the index."""

    @cached_property
    def columns(self) -> dict[str, Any]:
        columns: dict[str, Any] = shown(self.__dict__["_columns"])
        return columns

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and _fields(self) == _fields(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Row], tuple[Any, ...]]:
        return Row, _fields(self)


def _fields(row: Row) -> tuple[Any, ...]:
    return row.index, row.line, row.columns, row.error, row.digest


def _shown_row(row: Row) -> Row:
    copied = Row.__new__(_ShownRow)
    state = copied.__dict__
    state.update(row.__dict__)
    state["_columns"] = state.pop("columns")
    if row.error is not None:
        state["error"] = shown(row.error)
    return copied


def shown(value: Any) -> Any:
    """Return a copy of a value for one hook: lists and dicts are copied, also those inside; texts are not."""
    kind = type(value)
    if kind is dict:
        return {
            key: shown(item) if type(item) in _CONTAINERS else item  # most are texts and numbers
            for key, item in value.items()
        }
    if kind is list:
        return [shown(item) if type(item) in _CONTAINERS else item for item in value]
    if kind is Row:
        return _shown_row(value)
    if kind is tuple:
        return tuple(map(shown, value))
    if isinstance(value, GenerationError):
        return _copied(value)
    if kind is RunSummary:
        return dataclasses.replace(value, failed=dict(value.failed))
    return value


def _copied(error: GenerationError) -> GenerationError:
    try:
        twin = copy.copy(error)
    except Exception:  # its class wants other arguments
        twin = GenerationError(
            error.message,
            kind=error.kind,
            attempts=error.attempts,
            request_id=error.request_id,
            stops_run=error.stops_run,
            hint=error.hint,
        )
    twin.outputs = shown(error.outputs)
    twin.__cause__ = error.__cause__
    return twin.with_traceback(error.__traceback__)
