"""Marks: rows read from a place within a source are those that reading from its beginning gives."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from stillhouse.jobs.formats.marks import Mark, marks_of, rows_from
from stillhouse.jobs.formats.opening import open_file
from stillhouse.jobs.sources.names import Names
from stillhouse.jobs.sources.opening import open_input
from stillhouse.protocols import RowReader


def jsonl(path: Path) -> None:
    """With a byte-order mark, blank lines, both ends of lines, separators within texts, and a broken end."""
    lines = [
        (b"\n" if number % 7 == 0 else b"")
        + json.dumps({"prompt": f"é {number} \u2028"}, ensure_ascii=False).encode()
        + (b"\r\n" if number % 3 else b"\n")
        for number in range(50)
    ]
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(lines) + b"broken")


def separated(path: Path, delimiter: str, text: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows(
            [["prompt", "other"], *[[text.format(number), 'a"b'[: number % 4]] for number in range(50)]]
        )


def table(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    rows = pa.table({"prompt": [f"row {number}" for number in range(100)], "number": range(100)})
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(rows, path, row_group_size=13)
        return
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=9)


def compressed(path: Path) -> None:
    plain = path.with_suffix("")
    jsonl(plain)
    path.write_bytes(gzip.compress(plain.read_bytes()))


FILES: dict[str, Callable[[Path], object]] = {
    "a.jsonl": jsonl,
    "b.csv": lambda path: separated(path, ",", "é {}\nsecond line"),
    "c.tsv": lambda path: separated(path, "\t", "é {}"),
    "d.csv": lambda path: path.write_text("prompt\n" + "é\n" * 20, encoding="utf-16"),
    "e.parquet": table,
    "f.arrow": table,
    "g.jsonl.gz": compressed,
    "h.json": lambda path: path.write_text(json.dumps([{"prompt": number} for number in range(40)])),
    "i.jsonl": lambda path: path.write_text(""),
    "j.csv": lambda path: path.write_text("prompt\n"),
}  # fmt: skip


def marks_and_count(reader: RowReader) -> tuple[list[Mark], int]:
    found, marks = [], marks_of(reader)
    while True:
        try:
            found.append(next(marks))
        except StopIteration as end:
            return found, end.value


def check(open: Callable[[], RowReader]) -> list[Mark]:
    with closing(open()) as reader:
        # An error is equal to no other one.
        rows = list(map(repr, reader))
    with closing(open()) as reader:
        marks, count = marks_and_count(reader)
    assert count == len(rows)
    with closing(open()) as reader:
        for mark in marks:
            for first in {mark.row, min(mark.row + 5, count), count}:
                assert list(map(repr, rows_from(reader, mark, first))) == rows[first:], (mark, first)
    return marks


@pytest.mark.parametrize("name", FILES)
def test_rows_from_a_mark_are_those_of_the_whole_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FILES[name](path)
    marks = check(lambda: open_file(str(path)))
    # A row of these is found without those before it.
    dense = {"a.jsonl": 51, "b.csv": 50, "c.tsv": 50, "e.parquet": 8}
    assert len({mark.row for mark in marks}) == dense.get(name, min(1, len(marks)))


def test_rows_of_several_files_from_a_mark(tmp_path: Path) -> None:
    for name, write in FILES.items():
        write(tmp_path / name)
    names = Names(str(tmp_path / name) for name in FILES if not name.endswith((".csv", ".tsv")))
    marks = check(lambda: open_input(names))
    assert {mark.part for mark in marks} == {0, 1, 2, 3, 4}  # the last one is empty
