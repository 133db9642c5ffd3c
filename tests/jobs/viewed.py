"""Runs to be viewed: real ones of `echo`, and states that are filled by hand."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import stillhouse
from stillhouse.jobs.store.database import connect, store_path
from stillhouse.jobs.store.seals import sealed
from stillhouse.jobs.viewing.server import ViewServer
from stillhouse.jobs.viewing.viewer import Viewer
from stillhouse.registry import Registry, default_registry


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def echo_run(folder: Path, rows: Sequence[Any], name: str = "in.jsonl", **options: Any) -> Path:
    """Run `echo` on rows, and return the output."""
    source = write_jsonl(folder / name, rows)
    output = folder / "out.jsonl"
    stillhouse.run(source, llm="echo", output=output, **options)
    return output


def facts_of_state(output: Path) -> dict[str, Any]:
    with contextlib.closing(
        sqlite3.connect(f"{store_path(output).as_uri()}?mode=ro", uri=True)
    ) as connection:
        return {key: json.loads(value) for key, value, _ in connection.execute("SELECT * FROM info")}


def note(output: Path, key: str, value: Any) -> None:
    """Write a fact into a state that no process works on."""
    with contextlib.closing(connect(store_path(output))) as connection:
        record = sealed("info", key, json.dumps(value))
        connection.execute("INSERT OR REPLACE INTO info VALUES (?, ?, ?)", record)


def fill(output: Path, results: Sequence[tuple[int, dict[str, Any]]], command: Any = None) -> None:
    """Write a state by hand: each row with its index and its result."""
    with contextlib.closing(connect(store_path(output))) as connection:
        fact = sealed("info", "command", json.dumps(command or {"model_name": "m", "num_generations": 1}))
        connection.execute("INSERT INTO info VALUES (?, ?, ?)", fact)
        connection.execute("BEGIN")
        for row, result in results:
            error = result.get("error")
            state = result.pop("state", 2 if error else 1)
            counts = [None] * 8
            record = (
                row, result.pop("digest", 0), state, error and error["kind"], 1, json.dumps(result), 1.7e9, 1.5, *counts,
            )  # fmt: skip
            connection.execute(f"INSERT INTO rows VALUES (?{', ?' * 16})", sealed("rows", *record))
        connection.execute("COMMIT")


def viewer_of(output: Path, registry: Registry | None = None) -> Viewer:
    return Viewer(str(output), (registry or default_registry()).hooks())


@contextlib.contextmanager
def viewed(output: Path) -> Iterator[Viewer]:
    viewer = viewer_of(output)
    try:
        yield viewer
    finally:
        viewer.close()


class Client:
    """Asks a server over HTTP, as it is told to: nothing is added or made well-formed."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.host, self.port, self.base = parts.hostname or "", parts.port or 0, parts.path

    def send(
        self, path: str, method: str = "GET", host: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", f"{self.host}:{self.port}" if host is None else host)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, question: str, **parameters: Any) -> Any:
        status, _, content = self.send(f"{self.base}{question}?{urlencode(parameters)}")
        assert status == 200, content
        return json.loads(content)

    def settled(self, question: str, **parameters: Any) -> Any:
        """Ask until the input was read."""
        while (answer := self.get(question, **parameters))["reading"]:
            pass
        return answer

    def search(self, **parameters: Any) -> list[int]:
        """Return the numbers of all rows that match."""
        found: list[int] = []
        after: int | None = -1
        while after is not None:
            answer = self.get("api/rows", after=after, **parameters)
            found += [row["row"] for row in answer["rows"]]
            after = answer["next"]
        return found


@contextlib.contextmanager
def served(output: Path) -> Iterator[Client]:
    with viewed(output) as viewer, ViewServer(viewer) as server:
        yield Client(server.address)
