"""The questions of the page, by their addresses, with the words of a query as their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stillhouse.jobs.viewing.search import Filter
from stillhouse.jobs.viewing.viewer import PAGE_ROWS, Viewer

__all__ = ["QUESTIONS"]


def _run(viewer: Viewer, _: Mapping[str, str]) -> Any:
    return viewer.run()


def _progress(viewer: Viewer, _: Mapping[str, str]) -> Any:
    return viewer.progress()


def _rows(viewer: Viewer, query: Mapping[str, str]) -> Any:
    names = ("state", "kind", "finish", "text", "scope", "column", "value")
    wanted = Filter(**{name: query[name] for name in names if query.get(name)})
    before = _number(query, "before", None)
    if before is not None and not wanted.is_empty:
        raise ValueError("before cannot be combined with a filter")
    after = _number(query, "after", -1)
    limit = _number(query, "limit", PAGE_ROWS)
    return viewer.list(wanted, -1 if after is None else after, limit or PAGE_ROWS, before)


def _row(viewer: Viewer, query: Mapping[str, str]) -> Any:
    return viewer.row(_index(query))


def _text(viewer: Viewer, query: Mapping[str, str]) -> Any:
    return viewer.text(_index(query), (query.get("part", ""), query.get("name", "")))


def _index(query: Mapping[str, str]) -> int:
    number = _number(query, "row", None)
    if number is None or number < 1:
        raise ValueError("row must be the number of a row, from 1")
    return number - 1


def _number(query: Mapping[str, str], name: str, usual: int | None) -> int | None:
    text = query.get(name)
    if text is None:
        return usual
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 15):
        raise ValueError(f"{name} must be a whole number")
    return int(text)


QUESTIONS: dict[str, Callable[[Viewer, Mapping[str, str]], Any]] = {
    "api/run": _run, "api/progress": _progress, "api/rows": _rows, "api/row": _row, "text": _text,
}  # fmt: skip
