"""Whatever is in a file: its rows as the standard library reads them, or one clear error."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats import encodings, json_array
from stillhouse.jobs.sources.names import Names
from stillhouse.jobs.sources.opening import open_input

from .conftest import rows_of

Read = Callable[..., Any]

bounded = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
PACKED = ("", ".gz", ".zst")

# No half pairs: no file can hold them as text.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=8)
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in parts of a few bytes, so that everything lies on the border of two."""
    monkeypatch.setattr(json_array, "CHUNK_BYTES", 5)
    monkeypatch.setattr(encodings, "CHUNK_BYTES", 3)


@contextlib.contextmanager
def or_one_error() -> Iterator[None]:
    with contextlib.suppress(ConfigurationError):
        yield


def read_all(path: Path) -> list[Any]:
    with contextlib.closing(open_input(Names([str(path)]))) as reader:
        reader.digest()
        return [row.columns for row in reader if row.error is None]


SEEDS = [
    b'id,prompt\r\n1,"a\r\nb"\r\n2,c;d\r\n', b"a;b\n1;2\n", b'[{"a": 1}, {"b": [1.5, null, "\\ud83d\\ude00"]}]',
    b'{"a": 1}\n{"b": "x"}\n', b"a\tb\r1\t2\r", "a,é\n1,ü\n".encode("cp1252"), "a,é\n1,ü\n".encode("utf-16"),
    gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n'), b"sep=;\na;b\n", b'"a","b"\n"1","""2"""\n',
]  # fmt: skip


def mutated(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randrange(4)):
        position = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0:
                del changed[position : position + chance.randrange(5)]
            case 1:
                changed[position:position] = chance.choice(
                    [b'"', b",", b"\0", b"\r", b"\n", b"\xff", b"[", b"{", b"\\"]
                )
            case 2:
                changed[position : position + 1] = bytes([chance.randrange(256)])
            case _:
                changed[position:position] = bytes(changed[:position])
    return bytes(changed)


@bounded
@given(st.binary(max_size=200), st.sampled_from(SUFFIXES), st.sampled_from(PACKED))
@example(b"\x1f\x8b", ".jsonl", "")
@example(b"\x28\xb5\x2f\xfd", ".csv", ".gz")
@example(b"\xfe\xff\0", ".csv", "")
@example(b"PAR1", ".jsonl", "")
def test_any_bytes(tmp_path: Path, content: bytes, suffix: str, packed: str) -> None:
    path = tmp_path / f"in{suffix}{packed}"
    path.write_bytes(content)
    with or_one_error():
        read_all(path)


@bounded
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False), st.sampled_from(SUFFIXES), st.booleans())
def test_files_that_are_almost_right(
    tmp_path: Path, small_parts: None, content: bytes, random: random.Random, suffix: str, is_packed: bool
) -> None:
    path = tmp_path / f"in{suffix}"
    content = mutated(content, random)
    path.write_bytes(mutated(gzip.compress(content), random) if is_packed else content)
    with or_one_error():
        read_all(path)


@bounded
@given(
    st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_well_formed_tables(
    tmp_path: Path, small_parts: None, rows: list[tuple[str, ...]], delimiter: str, newline: str, quoting: Any,
    encoding: str,
) -> None:  # fmt: skip
    text = io.StringIO()
    # Before Python 3.13, `csv` quotes only the end of line that it writes.
    quoting = quoting if newline == "\r\n" else csv.QUOTE_ALL
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline, quoting=quoting)
    writer.writerows([("id", "prompt", "note"), *rows])
    path = tmp_path / "in.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    expected = [
        dict(zip(("id", "prompt", "note"), (cell or None for cell in row), strict=True)) for row in rows
    ]
    assert rows_of(path).columns == expected
    assert rows_of(path, delimiter=delimiter).columns == expected


WORDS = st.lists(
    st.sampled_from(["café", "naïve", "straße", "plain", "words", "“quoted”", "5 €", "a; b", "x|y"])
)


@bounded
@given(st.lists(WORDS, min_size=1, max_size=8), st.sampled_from(",;\t|"))
def test_western_tables_of_windows(tmp_path: Path, rows: list[list[str]], delimiter: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(
        [("id", "prompt"), *(("id", " ".join(row)) for row in rows)]
    )
    path = tmp_path / "in.csv"
    path.write_bytes(text.getvalue().encode("cp1252"))
    assert [row["prompt"] or "" for row in rows_of(path).columns] == [" ".join(row) for row in rows]


@bounded
@given(
    OBJECTS, st.sampled_from([None, 0, 2]), st.booleans(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
)
def test_well_formed_arrays_and_lines(
    tmp_path: Path, small_parts: None, rows: list[Any], indent: int | None, is_ascii: bool, encoding: str
) -> None:
    array = json.dumps(rows, indent=indent, ensure_ascii=is_ascii)
    lines = "".join(json.dumps(row, ensure_ascii=is_ascii) + "\n" for row in rows)
    for name, text in (("in.json", array), ("in.jsonl", lines)):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        assert rows_of(path).columns == rows


@bounded
@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4), st.data())
def test_archives_that_are_cut_off_or_damaged(
    tmp_path: Path, parts: list[bytes], data: st.DataObject
) -> None:
    rows = [{"prompt": part.hex(), "n": number} for number, part in enumerate(parts)]
    packed = b"".join(gzip.compress(json.dumps(row).encode() + b"\n") for row in rows)
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(packed)
    assert read_all(path) == rows
    ends = [0]
    for row in rows:
        ends.append(ends[-1] + len(gzip.compress(json.dumps(row).encode() + b"\n")))
    cut = data.draw(st.integers(0, len(packed) - 1))
    path.write_bytes(packed[:cut])
    if cut in ends:  # it is whole, as far as it can know
        assert read_all(path) == rows[: ends.index(cut)]
    else:
        with pytest.raises(ConfigurationError):
            read_all(path)
    wrong = bytearray(packed)
    wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(wrong))
    with or_one_error():
        assert read_all(path) in (rows, rows[:-1], [])
