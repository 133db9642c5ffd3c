"""`PluginReader` and `PluginWriter`: what plugins open, held to the protocol, for a run relies on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from stillhouse._execution.exits import is_from_signal
from stillhouse.errors import ConfigurationError, GenerationError, StillhouseError
from stillhouse.protocols import Row
from stillhouse.registry.problems import describe

__all__ = ["PluginReader", "PluginWriter"]

T = TypeVar("T")

_END = object()


class _Opened:
    """What a plugin opened. Whatever it raises but errors for the user and of the system names the plugin.

    Args:
        plugin: the name of the plugin.
        opened: what it opened.
    """

    _what = ""

    def __init__(self, plugin: str, opened: Any) -> None:
        self._plugin = plugin
        self._opened = opened

    def __getattr__(self, name: str) -> Any:
        # What one may have, and need not.
        return getattr(self._opened, name)

    def _call(self, function: Callable[..., T], *given: Any) -> T:
        try:
            return function(*given)
        except (StillhouseError, OSError):
            raise
        except BaseException as error:
            if is_from_signal(error):
                raise
            raise self._broken(f"failed: {describe(error)}") from error

    def _broken(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"the {self._what} of the plugin {self._plugin} {what}", hint="report it to the plugin's authors"
        )


class PluginReader(_Opened):
    """A reader, whose rows are what the protocol says: else answers would be joined to other rows."""

    _what = "reader"

    @property
    def schema(self) -> Any:
        return self._call(getattr, self._opened, "schema", None)

    @property
    def share_read(self) -> float | None:
        share = self._call(getattr, self._opened, "share_read", None)
        return share if isinstance(share, (int, float)) else None

    def __iter__(self) -> Iterator[Row]:
        rows = self._call(iter, self._opened)
        expected = 0
        while True:
            row: Any = self._call(next, rows, _END)
            if row is _END:
                return
            problem = _problem(row, expected)
            if problem:
                raise self._broken(f"yielded {problem}")
            yield row
            expected += 1

    def digest(self) -> str:
        digest = self._call(self._opened.digest)
        if not isinstance(digest, str):
            raise self._broken(f"has a digest of the type {type(digest).__name__}, and not a text")
        return digest

    def close(self) -> None:
        self._call(self._opened.close)


class PluginWriter(_Opened):
    """A writer, whose exceptions name the plugin."""

    _what = "writer"

    def write(self, record: dict[str, Any]) -> None:
        self._call(self._opened.write, record)

    def finish(self) -> None:
        self._call(self._opened.finish)

    def abandon(self) -> None:
        self._call(self._opened.abandon)


def _problem(row: Any, expected: int) -> str:
    """Return what is wrong with a row; an empty string if nothing is."""
    if not isinstance(row, Row):
        return f"a {type(row).__name__}, and not a stillhouse.Row"
    if type(row.index) is not int or row.index != expected:
        return f"a row with the index {row.index!r} where {expected} comes next"
    if type(row.columns) is not dict:
        return f"row {expected} with columns of the type {type(row.columns).__name__}, and not a dict"
    error: Any = row.error
    if error is not None and not isinstance(error, GenerationError):
        return f"row {expected} with an error of the type {type(error).__name__}, and not a GenerationError"
    if type(row.digest) is not int or not -(1 << 63) <= row.digest < 1 << 63:
        return f"row {expected} with a digest that is not a whole number of 64 bits"
    return ""
