"""Sources and targets that a hook plugin opens, through `stillhouse generate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stillhouse import ConfigurationError, hookimpl
from stillhouse.jobs.formats.rows import Row


class Reader:
    schema = pa.schema([("prompt", pa.large_string())])
    share_read = None

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.closed = False

    def __iter__(self) -> Iterator[Row]:
        return (Row(index, index + 1, {"prompt": text}) for index, text in enumerate(self.texts))

    def digest(self) -> str:
        return str(self.texts)

    def close(self) -> None:
        self.closed = True


class Memory:
    """Sources and targets named `memory:…`."""

    def __init__(self, folder: Path, texts: list[str]) -> None:
        self.folder = folder
        self.reader = Reader(texts)
        self.schemas: list[Any] = []
        self.written: list[dict[str, Any]] = []

    @hookimpl
    def open_reader(self, source: str) -> Any:
        return self.reader if source.startswith("memory:") else None

    @hookimpl
    def open_writer(self, target: str, schema: Any) -> Any:
        if not target.startswith("memory:"):
            return None
        self.schemas.append(schema)
        return self

    @hookimpl
    def output_path(self, target: str) -> Path | None:
        return self.folder / target.removeprefix("memory:") if target.startswith("memory:") else None

    def write(self, record: dict[str, Any]) -> None:
        self.written.append(record)

    def finish(self) -> None:
        (self.folder / "out").touch()

    def abandon(self) -> None:
        self.written.clear()


class Refusing:
    @hookimpl
    def open_reader(self, source: str) -> None:
        if source == "memory:secret":
            raise ConfigurationError("memory:secret is not yours to read", hint="ask for it")

    @hookimpl
    def open_writer(self, target: str) -> None:
        if target == "memory:full":
            raise ConfigurationError("memory:full is full", hint="make room")


class Raising:
    @hookimpl
    def open_reader(self) -> None:
        raise RuntimeError("no reader today")

    @hookimpl
    def open_writer(self, target: str) -> None:
        raise OSError("no writer today")

    @hookimpl
    def output_path(self, target: str) -> None:
        raise KeyError(target)


@pytest.fixture
def memory(own_registry: Any, tmp_path: Path) -> Memory:
    plugin = Memory(tmp_path, ["one", "two"])
    own_registry.register_hooks("memory", plugin)
    return plugin


def test_a_plugins_source_and_target(run: Any, memory: Memory, tmp_path: Path) -> None:
    result = run("generate", "memory:in", "--llm", "echo", "-o", "memory:out")
    assert result.status == 0, result.err
    assert [row["generations"] for row in memory.written] == [["one"], ["two"]]
    assert memory.reader.closed
    assert memory.schemas[-1] == Reader.schema
    assert (tmp_path / "out.run.db").exists()
    status = run("status", "memory:out")
    assert (status.status, "complete" in status.out) == (0, True), status.err
    assert "no offline batches" in run("batches", "memory:out").out
    again = run("generate", "memory:in", "--llm", "echo", "-o", "memory:out")
    assert "memory:out is complete: 2 rows" in again.err


def test_a_plugins_rows_in_a_file_keep_their_types(run: Any, memory: Memory, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    assert run("generate", "memory:in", "--llm", "echo", "-o", tmp_path / "o.parquet").status == 0
    assert pq.read_schema(tmp_path / "o.parquet").field("prompt").type == pa.large_string()


def test_the_first_plugin_that_opens_it_wins(
    run: Any, memory: Memory, own_registry: Any, rows_file: Any, tmp_path: Path
) -> None:
    class Everything(Memory):
        @hookimpl
        def open_reader(self, source: str) -> Any:
            return self.reader

    # The last one registered is asked first, also before the formats of Stillhouse.
    first = Everything(tmp_path, ["mine"])
    own_registry.register_hooks("first", first)
    source = rows_file([{"prompt": "the file's"}])
    assert run("generate", source, "--llm", "echo", "-o", "memory:out").status == 0
    assert memory.written == []
    assert [row["generations"] for row in first.written] == [["mine"]]


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("memory:secret", "memory:out", "memory:secret is not yours to read"),
        ("memory:in", "memory:full", "memory:full is full"),
    ],
)
def test_error_of_a_plugin_source_or_target_is_reported(
    run: Any, memory: Memory, own_registry: Any, tmp_path: Path, source: str, target: str, told: str
) -> None:
    own_registry.register_hooks("refusing", Refusing())
    result = run("generate", source, "--llm", "echo", "-o", target)
    assert result.status == 1
    assert told in result.err
    assert not list(tmp_path.glob("*.run.db"))


def test_raising_reader_plugin_is_reported_once_and_skipped(
    run: Any, memory: Memory, own_registry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own_registry.register_hooks("raising", Raising())
    assert run("generate", "memory:in", "--llm", "echo", "-o", "memory:out").status == 0
    assert [row["generations"] for row in memory.written] == [["one"], ["two"]]
    told = [message.partition(" failed")[0] for message in caplog.messages]
    assert sorted(told) == [
        "the hook open_reader of the plugin raising",
        "the hook open_writer of the plugin raising",
        "the hook output_path of the plugin raising",
    ]


def raising() -> Iterator[Row]:
    yield Row(0, 1, {"prompt": "a"})
    raise ZeroDivisionError("no more today")


GOOD = Row(0, 1, {"prompt": "a"})
ODD: dict[str, tuple[Any, str]] = {
    "no row": ([{"prompt": "a"}], "yielded a dict, and not a stillhouse.Row"),
    "a gap": ([GOOD, Row(2, 3, {"prompt": "b"})], "yielded a row with the index 2 where 1 comes next"),
    "an index twice": (
        [GOOD, Row(0, 2, {"prompt": "b"})],
        "yielded a row with the index 0 where 1 comes next",
    ),
    "a text": ([Row("0", 1)], "yielded a row with the index '0' where 0 comes next"),  # type: ignore[arg-type]
    "no columns": ([Row(0, 1, None)], "columns of the type NoneType"),  # type: ignore[arg-type]
    "an odd error": ([Row(0, 1, {}, "bad")], "error of the type str"),  # type: ignore[arg-type]
    "a large digest": ([Row(0, 1, {"prompt": "a"}, None, 2**64)], "digest that is not a whole number"),
    "an exception": (None, "failed: ZeroDivisionError: no more today "),
}


@pytest.mark.parametrize("name", ODD)
def test_what_a_reader_yields_is_checked_and_the_plugin_is_named(
    run: Any, memory: Memory, tmp_path: Path, name: str
) -> None:
    """An index that comes twice would give one row the answer of another."""
    rows, told = ODD[name]

    class Odd(Reader):
        def __iter__(self) -> Iterator[Row]:
            return raising() if rows is None else iter(rows)

    memory.reader = Odd([])
    result = run("generate", "memory:in", "--llm", "echo", "-o", tmp_path / "out.jsonl")
    assert result.status == 1
    assert "error: the reader of the plugin memory" in result.err
    assert told in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out.jsonl").exists()


def test_an_exception_of_a_writer_names_the_plugin(
    run: Any, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Memory, "finish", lambda self: {}["key"])
    result = run("generate", "memory:in", "--llm", "echo", "-o", "memory:out")
    assert result.status == 1
    assert "error: the writer of the plugin memory failed: KeyError: 'key'" in result.err


@pytest.mark.parametrize("answer", [7, "a text", object()])
def test_an_answer_that_is_no_reader_is_passed_over(
    run: Any, memory: Memory, own_registry: Any, caplog: pytest.LogCaptureFixture, answer: object
) -> None:
    class Nonsense:
        @hookimpl
        def open_reader(self) -> object:
            return answer

        @hookimpl
        def open_writer(self) -> object:
            return answer

    own_registry.register_hooks("nonsense", Nonsense())
    assert run("generate", "memory:in", "--llm", "echo", "-o", "memory:out").status == 0
    assert "the hook open_reader of the plugin nonsense failed" in caplog.text
    assert f"it returned {type(answer).__name__}, which has no" in caplog.text


def test_source_that_no_plugin_opens_is_an_error(
    run: Any, memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("generate", "other:in", "--llm", "echo", "-o", tmp_path / "out.jsonl")
    assert result.status == 1
    assert "unknown file format: other:in" in result.err
    assert "give a .jsonl, .json, .csv" in result.err
    for source, target in (("datasets:in", "memory:out"), ("memory:in", "datasets:out")):
        result = run("generate", source, "--llm", "echo", "-o", target)
        assert (result.status, "stillhouse install stillhouse-datasets" in result.err) == (1, True)
