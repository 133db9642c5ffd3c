"""Asking a server for its models: the pages of the list, and the names near one that it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from stillhouse._settings.models import MAX_MODELS, add_models, nearest
from stillhouse.errors import StillhouseError
from stillhouse.http.asking import unreadable
from stillhouse.offline.failures import Failure
from stillhouse.typing import ModelInfo

__all__ = ["NearNames", "Query", "listed_models", "read_pages"]

Query = Mapping[str, str | int]

MAX_PAGES = 100

NEAR_SECONDS = 5.0
"""How long the names near an unknown one may take: whoever waits has met an error already."""

_CONTEXT = ("context_length", "context_window", "max_model_len", "max_context_length", "max_input_tokens")
_OUTPUT = ("max_completion_tokens", "max_output_tokens", "max_output_length")

_is_listing: ContextVar[bool] = ContextVar("_is_listing", default=False)


def listed_models(answer: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the models in OpenAI's list, or in a bare one, under our names; nothing is checked yet.

    Raises:
        LookupError, TypeError: it is no such list.
    """
    entries = answer if isinstance(answer, list) else answer["data"]
    if entries is None:  # so a server writes an empty list
        return
    if not isinstance(entries, list):
        raise TypeError(f"data is a {type(entries).__name__}, not a list")
    for entry in entries:
        if not isinstance(entry, dict):
            yield {"name": entry}
            continue
        yield {
            "name": entry.get("id") or entry.get("name"),
            "created": entry.get("created") or entry.get("created_at"),
            "context_length": _first(entry, _CONTEXT),
            "max_new_tokens": _first(entry, _OUTPUT),
        }


def _first(entry: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((entry[key] for key in keys if entry.get(key)), None)


async def read_pages(
    get: Callable[[Query | None], Awaitable[Any]],
    models_in: Callable[[Any], Iterable[Any]],
    page_after: Callable[[Any], Query | None],
    mask: Callable[[str], str],
    found: dict[str, ModelInfo],
) -> None:
    """Add the models of every page; no more than `MAX_PAGES` are asked for.

    Args:
        get: fetches a page, by its query; `None` is the first.
        models_in: what a backend reads from the answer.
        page_after: the query of the next page; `None` where there is none.
        mask: masks secrets in a name.
        found: the models by their names, to be added to.

    Raises:
        GenerationError: it failed after all retries, or an answer is no list of models.
    """
    query: Query | None = None
    asked: list[Query] = []
    token = _is_listing.set(True)
    try:
        for _ in range(MAX_PAGES):
            answer = await get(query)
            try:
                add_models(found, models_in(answer), mask)
                query = _usable(page_after(answer))
            except StillhouseError:
                raise
            except Exception as error:
                raise unreadable(error) from error
            if query is None or query in asked or len(found) >= MAX_MODELS:
                break
            asked.append(query)
    finally:
        _is_listing.reset(token)


def _usable(query: Query | None) -> Query | None:
    """Return a query with what can stand in an address; `None` if nothing can."""
    kept = {
        str(key): value
        for key, value in (query or {}).items()
        if value != "" and (isinstance(value, str) or type(value) is int)
    }
    return kept or None


class NearNames:
    """Adds the names near an unknown one to a failure; the list is asked for once, and only for that.

    Args:
        models: asks for the list.
        wanted: the name that was asked for.
        backend: the name of the backend, or an empty string.
        mask: masks secrets.
    """

    def __init__(
        self,
        models: Callable[[], Awaitable[list[ModelInfo]]],
        wanted: str,
        backend: Callable[[], str],
        mask: Callable[[str], str],
    ) -> None:
        self._models = models
        self._wanted = wanted
        self._backend = backend
        self._mask = mask
        self._lock = asyncio.Lock()
        self._added: str | None = None

    async def explained(self, failure: Failure) -> Failure:
        """Return the failure with the nearest names in its hint; as it is where the model is known."""
        if _is_listing.get():  # it is that of the list itself
            return replace(failure, hint="check base_url: no list of models is there")
        async with self._lock:
            if self._added is None:
                self._added = ""
                self._added = self._addition(await self._names())
        return replace(failure, hint=self._mask(failure.hint + self._added)) if self._added else failure

    def _addition(self, known: list[str]) -> str:
        """Return what hints say besides; comparing hundreds of names takes long enough to do it once."""
        if not known or self._wanted in known:
            return ""
        near = nearest(self._wanted, known)
        meant = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
        backend = self._backend()
        if backend:
            meant += f"{'' if near else ';'} `stillhouse models {backend}` lists its models"
        return meant

    async def _names(self) -> list[str]:
        try:
            async with asyncio.timeout(NEAR_SECONDS):
                return [model["name"] for model in await self._models()]
        except Exception:  # the failure that was met first says more than any other
            return []
