"""The hooks: look an input up before it is generated, store its output afterwards, and write all at the end.

The registry imports this module when the first run starts, whatever that run uses: what is heavy
is imported in functions.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stillhouse import hookimpl
from stillhouse_cache.values import decode, encode

if TYPE_CHECKING:
    from pathlib import Path

    from stillhouse import LLM, FormattedInput, GenerateOutput, GenerationError, Row
    from stillhouse_cache.cache import Cache
    from stillhouse_cache.keys import CallKey
    from stillhouse_cache.settings import CacheSettings

__all__ = ["CacheHooks"]

_logger = logging.getLogger("stillhouse.cache")

# How many calls may be under way at once before the oldest one's key is made anew.
_REMEMBERED_CALLS = 256


class _Call:
    """What is settled once for all the inputs of one call on an LLM."""

    def __init__(
        self,
        llm: LLM,
        arguments: Mapping[str, Any],
        num_generations: int,
        cache: Cache | None,
        key: CallKey | None,
    ) -> None:
        self._llm = weakref.ref(llm)
        # Kept, so that no other object can get its identity while this call is remembered.
        self._arguments = arguments
        self._num_generations = num_generations
        self.cache = cache
        self.key = key
        # By the index of the row: those that were looked up and not found, until their outputs come.
        self.missed: dict[int, bytes] = {}

    def is_of(self, llm: LLM, num_generations: int) -> bool:
        return self._llm() is llm and self._num_generations == num_generations


class CacheHooks:
    """The plugin object: `before_generate` answers from the disk, `after_generate` fills it.

    Nothing raises from here. A problem is reported once, and generating continues.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._caches: dict[tuple[str, int], Cache] = {}
        self._said: set[str] = set()
        self._path: Path | None = None
        self._size: int | None = None
        # At the exit of the interpreter too: what waits is stored, and the log is written back.
        weakref.finalize(self, _close, self._caches)

    @hookimpl
    def settings_model(self) -> type[CacheSettings]:
        """The path and the size of the cache."""
        from stillhouse_cache.settings import CacheSettings

        return CacheSettings

    @hookimpl
    def configure(self, settings: CacheSettings) -> None:
        """Take the path and the size; the next call on an LLM uses them."""
        self._path, self._size = settings.path, settings.size

    @hookimpl
    def before_generate(
        self,
        llm: LLM,
        input: FormattedInput,
        num_generations: int,
        arguments: Mapping[str, Any],
        row: Row | None,
    ) -> GenerateOutput | None:
        """The output kept for this input, or `None`."""
        call = self._call_of(llm, num_generations, arguments)
        if call.cache is None or call.key is None or not call.cache.is_readable:
            return None
        key = call.key.of(llm, input)
        if key is None:
            return None
        value = call.cache.get(key)
        if value is None:
            if row is not None:
                call.missed[row.index] = key
            return None
        return decode(value, num_generations)

    @hookimpl
    def after_generate(
        self,
        llm: LLM,
        input: FormattedInput,
        num_generations: int,
        arguments: Mapping[str, Any],
        output: GenerateOutput | None,
        error: GenerationError | None,
        from_hook: bool,
        row: Row | None,
    ) -> None:
        """Store the output, unless it is missing or came from a hook."""
        call = self._call_of(llm, num_generations, arguments)
        missed = None if row is None else call.missed.pop(row.index, None)
        if output is None or error is not None or from_hook:
            return
        cache = call.cache
        if cache is None or call.key is None or not cache.is_writable:
            return
        key = call.key.unless_changed(llm, missed) if missed is not None else call.key.of(llm, input)
        if key is None:
            return
        value = encode(output)
        if value is None:
            self._say(
                f"outputs of {type(llm).__name__} hold other values than those of JSON, and are not kept"
            )
        else:
            cache.put(key, value)

    @hookimpl
    def run_finished(self) -> None:
        """Store what waits: the next run may be another process's."""
        self.flush()

    def flush(self) -> None:
        """Store what waits."""
        for cache in [*self._caches.values()]:
            cache.flush()

    def close(self) -> None:
        """Store what waits, and close the databases. They are opened again when they are needed."""
        with self._lock:
            _close(self._caches)
            self._calls.clear()

    # Inside

    def _call_of(self, llm: LLM, num_generations: int, arguments: Mapping[str, Any]) -> _Call:
        # The core makes a new dict of arguments for every call, so its identity is the call's.
        call = self._calls.get(id(arguments))
        if call is None or not call.is_of(llm, num_generations):
            call = self._begin(llm, arguments, num_generations)
        return call

    def _begin(self, llm: LLM, arguments: Mapping[str, Any], num_generations: int) -> _Call:
        from stillhouse_cache.keys import CallKey

        cache = key = None
        try:
            cache = self._cache()
            key = CallKey.make(llm, arguments, num_generations)
        except Exception as error:  # a property of the backend may raise anything
            self._say(f"outputs of {type(llm).__name__} are not cached: {error}")
        call = _Call(llm, arguments, num_generations, cache, key)
        with self._lock:
            self._calls[id(arguments)] = call
            while len(self._calls) > _REMEMBERED_CALLS:
                del self._calls[next(iter(self._calls))]
        return call

    def _cache(self) -> Cache:
        """The cache that the environment and the settings ask for now."""
        from stillhouse_cache.cache import Cache
        from stillhouse_cache.configuration import DEFAULT_SIZE, cache_directory, cache_size

        directory, size = cache_directory(self._path), cache_size(self._size or DEFAULT_SIZE)
        with self._lock:
            cache = self._caches.get((str(directory), size))
            if cache is None:
                cache = self._caches[str(directory), size] = Cache(directory, size)
            return cache

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            _logger.warning("%s", sentence)


def _close(caches: dict[tuple[str, int], Cache]) -> None:
    for cache in caches.values():
        cache.close()
    caches.clear()
