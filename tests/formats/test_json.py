"""JSONL and JSON arrays: what is odd in them, how long they are, and how they are told apart."""

from __future__ import annotations

import codecs
import json
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats import json_array
from stillhouse.jobs.formats.opening import open_file

from .conftest import rows_of

Write = Callable[[str, bytes], Path]

ROWS = [
    {"prompt": "a\u2028b\u0085c\u000bd", "n": 1},
    {"prompt": "é ☃ 𝄞"},
    {"prompt": "x", "deep": [{"y": [1.5, None]}]},
]


def as_array(rows: list[Any], indent: int | None) -> bytes:
    return json.dumps(rows, indent=indent, ensure_ascii=False).encode()


def as_lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["in.json", "in.jsonl", "in.ndjson"])
def test_arrays_and_lines_whatever_the_name(write: Write, name: str, indent: int | None) -> None:
    array = rows_of(write(name, as_array(ROWS, indent)))
    assert array.columns == ROWS
    assert array.notes == (
        [] if name == "in.json" else [f"{write(name, as_array(ROWS, indent))}: it is a JSON array"]
    )
    lines = rows_of(write(name, as_lines(ROWS)))
    assert lines.columns == ROWS
    assert bool(lines.notes) == (name == "in.json")


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
@pytest.mark.parametrize("content", [as_array(ROWS, None), as_lines(ROWS)])
def test_marks_and_utf16(write: Write, mark: bytes, content: bytes) -> None:
    encoding = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}[
        mark
    ]
    for text in (content, content.replace(b"\n", b"\r\n")):
        assert rows_of(write("in.jsonl", mark + text.decode().encode(encoding))).columns == ROWS


def test_an_array_is_read_in_parts(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        *ROWS,
        1.25,
        "text",
        None,
        True,
        [1],
        {"prompt": "y" * 500, "n": 10**30},
        {"e": 1e-7, "s": '\\"\u2028'},
    ]
    for indent in (None, 1):
        content = as_array(rows, indent)
        for size in (1, 2, 3, 7, 64):
            monkeypatch.setattr(json_array, "CHUNK_BYTES", size)
            found = rows_of(write("in.json", content))
            assert [row.columns for row in found.rows if row.error is None] == [*ROWS, *rows[-2:]]
            assert len(found.errors) == 5
            assert found.errors[0].startswith("element 4 (line ")


def test_an_array_takes_the_memory_of_an_element(write: Write) -> None:
    path = write("in.json", b"[" + b",\n".join([b'{"prompt": "%s"}' % (b"x" * 1000)] * 20_000) + b"]")
    reader = open_file(str(path))
    tracemalloc.start()
    try:
        assert sum(1 for _ in reader) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
        reader.close()


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b'[{"prompt": "a"}, {"prompt": "b"}', 1, "the file ends"),
        (b'[{"prompt": "a"},\n {"prompt": "b"', 2, "Expecting"),
        (b'[{"prompt": "a"},\n {"prompt": "b', 2, "Unterminated string"),
        (b'[{"prompt": "a"}\n{"prompt": "b"}]', 2, "is expected"),
        (b'[{"prompt": "a"},\n]', 2, "Expecting value"),
        (b'[{"prompt": "a"}]\n[{"prompt": "b"}]\n', 0, ""),
        (b'[{"prompt": "a"}] {}', 1, "there is more after the array's end"),
        (b'[{"prompt": "a"},\n\n{"prompt": nul}]', 3, "Expecting value"),
        (b"[" * 100_000, 1, "nested too deeply"),
    ],
)
def test_a_broken_array_is_one_error_before_anything_is_sent(
    write: Write, generate: Any, content: bytes, line: int, problem: str
) -> None:
    path = write("in.json", content)
    result = generate(path)
    if not line:  # its lines are told: none is an object
        assert result.status == 3
        return
    assert (result.status, list(result.output.parent.iterdir())) == (1, [])
    assert f"{path}, line {line}: not a valid JSON array: " in result.err
    assert problem in result.err


def test_a_control_character_is_told_in_a_whole_sentence(write: Write, generate: Any) -> None:
    result = generate(write("rows.jsonl", b'{"prompt": "a\tb"}\n'))
    assert "line 1: not valid JSON: Invalid control character at character 14" in result.err
    result = generate(write("rows.json", b'[{"prompt": "a\tb"}]\n'))
    assert "line 1: not a valid JSON array: Invalid control character\n" in result.err


def test_one_broken_element_does_not_fill_the_memory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "MAX_ROW_BYTES", 1 << 20)
    with pytest.raises(ConfigurationError, match="longer than 1 MiB"):
        rows_of(write("in.json", b'[{"prompt": "' + b"x" * (5 << 20)))
    with pytest.raises(ConfigurationError, match=r"line 2: .* longer than 1 MiB"):
        rows_of(write("in.json", b'[{"prompt": "a"},\n{"prompt": "' + b"x" * (1 << 20) + b'"}]'))


@pytest.mark.parametrize(
    "content",
    [
        b'{"messages": [{"role": "user", "content": "a"}]}',
        b'{"documents": [{"id": 1}], "prompt": "a"}',
        b'{"data": [{"prompt": "a"}]}\n{"data": [{"prompt": "b"}]}\n',
        b'{"prompt": "a", "names": ["b"]}',
    ],
)
def test_an_object_with_a_list_in_it_is_a_row_of_a_json_file(write: Write, content: bytes) -> None:
    assert rows_of(write("in.json", content)).columns == list(map(json.loads, content.splitlines()))


@pytest.mark.parametrize("name", ["in.jsonl", "in.json"])
def test_numbers_without_a_json_value_are_kept_and_told_once(write: Write, name: str, generate: Any) -> None:
    lines = [
        '{"prompt": "a", "x": NaN}', '{"prompt": "b", "x": -Infinity}', '{"prompt": "c", "x": 1e400}',
        '{"prompt": "d", "x": ' + "9" * 5000 + "}", '{"prompt": "e", "x": ' + "7" * 30 + "}",
    ]  # fmt: skip
    content = "\n".join(lines) + "\n" if name == "in.jsonl" else f"[{','.join(lines)}]"
    path = write(name, content.encode())
    found = rows_of(path)
    nan, low, high, long, exact = [row["x"] for row in found.columns]
    assert math.isnan(nan)
    assert (low, high, long, exact) == (-math.inf, math.inf, "9" * 5000, int("7" * 30))
    assert len(found.notes) == 1
    assert "NaN is not a JSON value" in found.notes[0]
    result = generate(path)
    assert (result.status, result.answers) == (0, list("abcde"))
    assert result.err.count("is not a JSON value") == 1
    assert result.rows[4]["x"] == int("7" * 30)


def test_texts_of_digits_stay_texts(write: Write) -> None:
    rows = [{"id": "72057594038135102", "n": 72057594038135102}, {"id": "72057594038135103", "n": 2**63}]
    assert rows_of(write("in.jsonl", as_lines(rows))).columns == rows
    assert rows_of(write("in.json", as_array(rows, None))).columns == rows


def test_a_long_line_fails_its_row_alone(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.jobs.formats.jsonl.MAX_ROW_BYTES", 1000)
    lines = [
        b'{"prompt": "a"}',
        b'{"prompt": "' + b"x" * 5000 + b'"}',
        b'{"prompt": "b"}',
        b'{"p": "' + b"y" * 990 + b'"}',
    ]
    found = rows_of(write("in.jsonl", b"\n".join(lines)))
    assert [row.columns.get("prompt") for row in found.rows] == ["a", None, "b", None]
    assert [error.partition(":")[0] for error in found.errors] == ["line 2"]
    assert found.rows[2].line == 3


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("in.jsonl", b"id,prompt\n1,a\n2,b\n", "holds no JSON objects: it begins 'id,prompt'"),
        ("in.json", b"id,prompt\n1,a\n2,b\n", "holds no JSON objects"),
        (
            "in.json",
            b'{\n "rows": [\n  {"prompt": "a"}\n ]\n}\n',
            "neither an array of JSON objects nor JSONL",
        ),
        (
            "in.jsonl",
            b'{\n "prompt": "a"\n}\n{\n "prompt": "b"\n}\n',
            "neither an array of JSON objects nor JSONL",
        ),
        ("in.json", b'{"data": [{"prompt": "a"}]}', "jq -c '.data[]' FILE"),
        (
            "in.json",
            b'{\n "v": "1", "data": [\n  {"prompt": "a"}\n ]\n}\n',
            "jq -c . FILE, or jq -c '.data[]' FILE",
        ),
        ("in.csv", bytes(100), "is filled with zero bytes"),
        ("in.jsonl", b"PK\x03\x04rest of a zip", "is a zip archive"),
        ("in.csv", b"PK\x03\x04 xl/workbook.xml", "an Excel workbook"),
        ("in.jsonl", b"SQLite format 3\0" + bytes(100), "is an SQLite database"),
        ("in.csv", b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a page of HTML"),
        (
            "in.parquet",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "the pointer of Git LFS",
        ),
        ("in.parquet", b"id,prompt\n1,a\n", "cannot be read as a Parquet file"),
        ("in.jsonl", b"BZh91AY&SY", "compressed with bzip2"),
    ],
)
def test_a_file_that_is_another_is_one_error(
    write: Write, generate: Any, name: str, content: bytes, problem: str
) -> None:
    result = generate(write(name, content))
    assert (result.status, list(result.output.parent.iterdir())) == (1, [])
    assert problem in result.err


def test_json_that_is_named_csv_is_read_and_told(write: Write) -> None:
    for content in (as_lines(ROWS), as_array(ROWS, 1)):
        found = rows_of(write("in.csv", content))
        assert found.columns == ROWS
        assert "it is " in found.notes[0]


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"[]", b" [ ]\n", b"\xef\xbb\xbf", b"id,prompt\n", b"\xff\xfe"]
)
def test_files_without_rows(write: Write, generate: Any, content: bytes) -> None:
    name = "in.csv" if b"," in content else "in.json"
    result = generate(write(name, content))
    assert (result.status, result.rows) == (0, [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"prompt": "a"}{"prompt": "b"}\n', "several objects are on one line"),
        (b'{"prompt": "a"} {"prompt": "b"} {"prompt": "c"}', "several objects are on one line"),
        (b'{"prompt": "a",\n "x": 1}\n{"prompt": "b",\n "x": 2}\n', "an object takes several lines"),
    ],
)
def test_objects_that_are_not_on_lines_of_their_own(write: Write, content: bytes, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as raised:
        rows_of(write("in.jsonl", content))
    assert "jq -c . FILE" in raised.value.hint


def test_several_objects_on_a_line_in_the_middle_fail_alone(write: Write) -> None:
    found = rows_of(
        write("in.jsonl", b'{"prompt": "a"}\n{"prompt": "b"} {"prompt": "c"}\n{"prompt": "d"}x\n')
    )
    assert found.errors == [
        "line 2: several JSON values on one line: jq -c . FILE writes each on its own",
        """line 3: not valid JSON: Extra data at character 16, after '{"prompt": "d"}'""",
    ]


def test_files_that_were_joined_have_marks_in_the_middle(write: Write) -> None:
    part = codecs.BOM_UTF8 + b'{"prompt": "a"}\n'
    found = rows_of(write("in.jsonl", part + part + part))
    assert found.columns == [{"prompt": "a"}] * 3
    assert [note.partition(": ")[2] for note in found.notes] == [
        "line 2: a byte-order mark, as of files that were joined, is left out"
    ]
