"""`MemberCache`: the outputs of a composite LLM's members, kept until the row they belong to is finished.

A composite calls several LLMs for one row. If one of them fails, or the process ends, the outputs of the
others have been paid for: the next attempt for the row takes them from here.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse._execution.slots import current_input
from stillhouse._settings.digest import digest
from stillhouse.errors import StillhouseError
from stillhouse.hookspecs import hookimpl
from stillhouse.jobs.store.database import translated
from stillhouse.jobs.store.seals import sealed

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = ["MemberCache"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS members (
    row INTEGER NOT NULL, key TEXT NOT NULL, output TEXT NOT NULL, seal INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS members_of_row ON members (row);
"""


class MemberCache:
    """A hook plugin that answers for members with their earlier outputs for the same row.

    Args:
        path: the database of the run.
        llm: the composite.
    """

    def __init__(self, path: Path, llm: LLM) -> None:
        self._path = path
        self._llm = llm
        self._row_of: Callable[[int], int | None] = lambda _: None
        self._names: dict[int, tuple[LLM, str]] = {}  # by id, for an LLM has no hash
        # Members work on loops and threads of their own.
        self._lock = threading.Lock()
        with translated(path):
            self._connection = sqlite3.connect(path.absolute(), isolation_level=None, check_same_thread=False)
            self._connection.executescript(_SCHEMA)
        self._outputs: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for row, key, output in self._connection.execute("SELECT row, key, output FROM members"):
            self._outputs[row][key].append(output)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Answer for members, and store their outputs, while the block runs."""
        registry = self._llm.registry
        registry.register_hooks("stillhouse-members", self)
        try:
            yield
        finally:
            registry.unregister_hooks("stillhouse-members")
            self._connection.close()

    def follow(self, row_of: Callable[[int], int | None]) -> None:
        """Set the function that maps an input of the composite to its row."""
        self._row_of = row_of

    def forget(self, rows: list[int]) -> None:
        """Delete the outputs of rows that are finished."""
        with self._lock, translated(self._path):
            for row in rows:
                if self._outputs.pop(row, None) is not None:
                    self._connection.execute("DELETE FROM members WHERE row = ?", (row,))

    @hookimpl
    def before_generate(
        self, llm: LLM, input: Any, num_generations: int, arguments: Mapping[str, Any]
    ) -> Any:
        row = self._row()
        if row is None or row not in self._outputs:
            return None
        with self._lock:
            outputs = self._outputs[row][self._key(llm, input, num_generations, arguments)]
            # Each output is returned once: a caller that asks twice needs two.
            return json.loads(outputs.pop()) if outputs else None

    @hookimpl
    def after_generate(
        self, llm: LLM, input: Any, num_generations: int, arguments: Mapping[str, Any], output: Any,
        from_hook: bool,
    ) -> None:  # fmt: skip
        row = self._row()
        if row is None or output is None or from_hook:
            return
        key = self._key(llm, input, num_generations, arguments)
        with self._lock, translated(self._path):
            self._outputs.setdefault(row, defaultdict(list))
            record = sealed("members", row, key, json.dumps(output))
            self._connection.execute("INSERT INTO members VALUES (?, ?, ?, ?)", record)

    def _row(self) -> int | None:
        """Return the row that a member works on; when the composite itself is called, no input is current."""
        index = current_input.get()
        return None if index is None else self._row_of(index)

    def _key(self, llm: LLM, input: Any, num_generations: int, arguments: Mapping[str, Any]) -> str:
        known = self._names.get(id(llm))
        if known is None:
            try:
                settings: Any = llm.dump()
            except StillhouseError:  # a class that is not registered
                settings = None
            known = self._names[id(llm)] = llm, digest(type(llm).__qualname__, llm.model_name, settings)
        return digest(known[1], input, num_generations, dict(arguments))
