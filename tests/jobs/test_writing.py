"""What is written in each format, and that it is read back as it was."""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.jobs.conftest import Process, Server, read_jsonl

import stillhouse
from stillhouse import ConfigurationError
from stillhouse.jobs.formats.content import Content
from stillhouse.jobs.formats.opening import open_reader, open_writer
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.formats.writers import to_json

ADDED = ["generations", "statistics", "finish_reasons", "model_name", "error"]
RESULT: dict[str, Any] = {
    "generations": ["a"], "statistics": {}, "finish_reasons": None, "model_name": "m", "error": None,
}  # fmt: skip


def write(target: Path, rows: list[dict[str, Any]]) -> Path:
    writer = open_writer(str(target))
    for row in rows:
        writer.write({**row, **RESULT})
    writer.finish()
    return target


def read_csv(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter, strict=True))


def read_ours(path: Path) -> list[dict[str, Any]]:
    with contextlib.closing(open_reader(str(path))) as reader:
        return [row.columns for row in reader]


def test_texts_of_a_csv_go_out_as_they_came_in(tmp_path: Path) -> None:
    """Of every such word, some reader makes a number, a date or nothing."""
    words = [
        "0042",
        "02116",
        "1e3",
        "+7",
        "٣",
        "NA",
        "null",
        "None",
        "nan",
        "-",
        "true",
        "1/2",
        "=1+1",
        " x ",
    ]
    source = tmp_path / "in.csv"
    source.write_text("prompt,word\n" + "".join(f"hi,{word}\n" for word in words), encoding="utf-8")
    for name in ("out.jsonl", "out.csv", "out.tsv", "out.parquet"):
        stillhouse.run(source, llm="echo", output=tmp_path / name)
    assert [row["word"] for row in read_jsonl(tmp_path / "out.jsonl")] == words
    assert [row["word"] for row in read_csv(tmp_path / "out.csv")] == words
    assert [row["word"] for row in read_csv(tmp_path / "out.tsv", "\t")] == words
    assert pq.read_table(tmp_path / "out.parquet")["word"].to_pylist() == words
    assert pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)["word"].tolist() == words


def test_cells_of_a_csv(tmp_path: Path) -> None:
    row = {
        "text": 'he said "hi", twice\nand\rwent', "none": None, "empty": "", "list": ["a", None],
        "object": {"b": None}, "yes": True, "big": 2**80, "float": 0.1, "nan": math.nan,
        "day": datetime.date(2024, 5, 6), "bytes": b"\x00\xff", "tab": "a\tb",
    }  # fmt: skip
    text = write(tmp_path / "out.csv", [row]).read_bytes().decode()
    assert text == (
        "text,none,empty,list,object,yes,big,float,nan,day,bytes,tab,"
        "generations,statistics,finish_reasons,model_name,error\n"
        '"he said ""hi"", twice\nand\rwent",,"","[""a"",null]","{""b"":null}",true,'
        '1208925819614629174706176,0.1,,2024-05-06,AP8=,a\tb,"[""a""]",{},,m,\n'
    )
    assert '"a\tb"' in write(tmp_path / "out.tsv", [row]).read_bytes().decode()


def test_a_csv_beyond_ascii_says_that_it_is_utf8(tmp_path: Path) -> None:
    """Spreadsheets take another file for one in the encoding of the system."""
    assert not write(tmp_path / "one.csv", [{"a": "plain"}]).read_bytes().startswith(b"\xef\xbb\xbf")
    assert write(tmp_path / "two.csv", [{"a": "plain"}, {"a": "é"}]).read_bytes().startswith(b"\xef\xbb\xbf")
    assert (
        write(tmp_path / "half.csv", [{"a": "\ud83d\ude00 \ud83d"}]).read_text("utf-8-sig").count("😀 \ufffd")
        == 1
    )
    assert pd.read_csv(tmp_path / "two.csv").columns[0] == "a"
    assert [row["a"] for row in read_ours(tmp_path / "two.csv")] == ["plain", "é"]


def test_columns_are_those_of_all_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": "1"}, {"b": "2", "a": "3"}, {}, {"c": "4"}]
    for name in ("out.csv", "out.parquet"):
        target = write(tmp_path / name, rows)
        found = pd.read_csv(target, dtype=str) if name == "out.csv" else pd.read_parquet(target)
        assert [*found.columns] == ["a", "b", "c", *ADDED]
        assert found["c"].isna().tolist() == [True, True, True, False]
        assert found["a"].tolist()[:2] == ["1", "3"]


def test_ndjson_is_jsonl(tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.ndjson"):
        run = stillhouse.run([{"prompt": "a"}], llm="echo", output=tmp_path / name)
        assert [row["generations"] for row in run] == [["a"]]
    assert (tmp_path / "out.ndjson").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


@pytest.mark.parametrize("format", ["jsonl", "csv", "tsv", "parquet", "openai-batch"])
def test_a_run_reads_its_output_whatever_its_name_is(tmp_path: Path, format: str) -> None:
    run = stillhouse.run(
        [{"prompt": "a"}, {"prompt": "b"}], llm="echo", output=tmp_path / "out.txt", format=format
    )
    rows = list(run)
    if format == "openai-batch":
        assert [row["response"]["body"]["choices"][0]["message"]["content"] for row in rows] == ["a", "b"]
    else:
        assert [row["prompt"] for row in rows] == ["a", "b"]
        assert [row["generations"] for row in rows] in ([["a"], ["b"]], ['["a"]', '["b"]'])
    assert len(list(stillhouse.run([{"prompt": "a"}], llm="echo", format=format))) == 1


def test_integers_beyond_floats_stay_exact(tmp_path: Path) -> None:
    numbers = [9007199254740993, None, 5]
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"n": pa.array(numbers, pa.int64()), "prompt": ["a", "b", "c"]}), source)
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        stillhouse.run(source, llm="echo", output=tmp_path / name)
    assert [row["n"] for row in read_jsonl(tmp_path / "out.jsonl")] == numbers
    assert [row["n"] for row in read_csv(tmp_path / "out.csv")] == ["9007199254740993", "", "5"]
    table = pq.read_table(tmp_path / "out.parquet")
    assert (table["n"].to_pylist(), table.schema.field("n").type) == (numbers, pa.int64())


@pytest.mark.parametrize("source", ["in.csv", "in.parquet", "in.jsonl"])
def test_an_output_without_rows_has_its_columns(tmp_path: Path, source: str) -> None:
    (tmp_path / "in.csv").write_text("id,prompt\n")
    (tmp_path / "in.jsonl").write_text("")
    pq.write_table(
        pa.table({"id": pa.array([], pa.int64()), "prompt": pa.array([], pa.string())}),
        tmp_path / "in.parquet",
    )
    columns = ADDED if source == "in.jsonl" else ["id", "prompt", *ADDED]
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        run = stillhouse.run(tmp_path / source, llm="echo", output=tmp_path / name)
        assert list(run) == []
    assert [*pd.read_csv(tmp_path / "out.csv").columns] == columns
    assert pq.read_table(tmp_path / "out.parquet").column_names == columns


def test_a_wide_row_is_written_in_time(tmp_path: Path) -> None:
    """As many columns as a spreadsheet has; a loop over them in each would take minutes."""
    schema = pa.schema([(f"c{number}", pa.int64()) for number in range(20_000)])
    writer = open_writer(str(tmp_path / "out.parquet"), schema=schema)
    row = {name: number for number, name in enumerate(schema.names)}
    for _ in range(5):
        writer.write({**row, **RESULT})
    writer.finish()
    table = pq.read_table(tmp_path / "out.parquet")
    assert (table.num_columns, table["c19999"].to_pylist()) == (20_005, [19_999] * 5)


def nested(depth: int) -> Any:
    value: Any = "deep"
    for level in range(depth):
        value = {"x": value} if level % 2 else [value]
    return value


@pytest.mark.parametrize("depth", [10, 39, 41, 64, 80, 300])
def test_what_is_nested_too_deep_for_the_format_is_json_text(tmp_path: Path, depth: int) -> None:
    rows = [{"prompt": "a", "deep": nested(depth)}, {"prompt": "b", "deep": nested(3)}]
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        stillhouse.run(rows, llm="echo", output=tmp_path / name)
    assert read_jsonl(tmp_path / "out.jsonl")[0]["deep"] == nested(depth)
    assert json.loads(read_csv(tmp_path / "out.csv")[0]["deep"]) == nested(depth)
    deep = pq.read_table(tmp_path / "out.parquet")["deep"].to_pylist()[0]
    assert (json.loads(deep) if isinstance(deep, str) else deep) == nested(depth)


# Random rows

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "0042",
        "NA",
        "",
        " ",
        '"',
        '""',
        ",",
        "a,b",
        "\n",
        "\r",
        "\r\n",
        "\t",
        "\ufeff",
        "=1",
        "[1]",
        "{}",
        "null",
        "\u2028",
    ]
)
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=5
).filter(lambda name: name.strip() == name and name not in RESULT and not name.startswith("\ufeff"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(NAMES, values, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=5)


def expected_cell(value: Any) -> str:
    """What stands in a CSV file for a value of JSON."""
    return "" if value is None else value if isinstance(value, str) else to_json(value)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=ROWS)
def test_random_rows_are_read_back_from_each_format(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    wanted = [{**row, **RESULT} for row in rows]
    names = [*dict.fromkeys(name for row in rows for name in row), *ADDED]
    assert read_jsonl_lines(write(tmp_path / "out.jsonl", rows)) == wanted
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        path = write(tmp_path / f"out{suffix}", rows)
        cells = [[expected_cell(row.get(name)) for name in names] for row in wanted]
        with path.open(encoding="utf-8-sig", newline="") as stream:
            assert list(csv.reader(stream, delimiter=delimiter, strict=True)) == [names, *cells]
        if not any("\r" in cell for row in cells for cell in row) and not any(
            "\x00" in c for r in cells for c in r
        ):
            frame = pd.read_csv(path, sep=delimiter, dtype=str, keep_default_na=False, lineterminator="\n")
            assert frame.to_numpy().tolist() == cells
    found = read_ours(tmp_path / "out.csv")
    assert [[row[name] or "" for name in names] for row in found] == cells
    table = pq.read_table(write(tmp_path / "out.parquet", rows))
    assert table.column_names == names
    for row, found_row in zip(wanted, table.to_pylist(), strict=True):
        for name in names:
            assert same(found_row[name], row.get(name)), (name, found_row[name], row.get(name))


def read_jsonl_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def same(found: Any, wanted: Any) -> bool:
    """Whether a value of a table is one of JSON, as itself or as its text, with null for absent fields."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(same(found.get(key), wanted.get(key)) for key in {*found, *wanted})
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(found, str) and found != wanted:
        try:
            value = json.loads(found)
        except ValueError:
            return False
        return (
            not isinstance(value, str) and same(value, wanted)
            if not isinstance(wanted, str)
            else value == wanted
        )
    return bool(found == wanted) and isinstance(found, bool) == isinstance(wanted, bool)


# Compressed


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.tsv"])
def test_a_compressed_output_has_the_bytes_of_the_other(tmp_path: Path, name: str, suffix: str) -> None:
    rows = [{"prompt": f"row {number} é\n" * (number % 7)} for number in range(500)]
    plain, packed, again = (tmp_path / name, tmp_path / f"{name}{suffix}", tmp_path / f"again-{name}{suffix}")
    for target in (plain, packed, again):
        done = stillhouse.run(rows, llm="echo", output=target)
    with contextlib.closing(Content(str(packed))) as content:
        assert content.compression == {".gz": "gzip", ".zst": "Zstandard"}[suffix]
        assert content.data().read() == plain.read_bytes()
    assert packed.read_bytes() == again.read_bytes()  # no time, and no name
    assert read_ours(packed) == read_ours(plain)
    assert len(list(done)) == len(rows)  # the run reads it itself
    assert (
        stillhouse.run(packed, llm="echo", output=tmp_path / "next.jsonl", output_prefix="n_").counts[0]
        == 500
    )


def test_what_is_compressed_within_is_not_compressed_once_more(tmp_path: Path) -> None:
    for options in ({"output": "out.parquet.gz"}, {"output": "out.gz", "format": "parquet"}):
        with pytest.raises(ConfigurationError, match="compressed within") as raised:
            stillhouse.run(["a"], llm="echo", **{**options, "output": tmp_path / options["output"]})  # type: ignore[arg-type]
        assert "give a name that ends in .parquet" in raised.value.hint
    assert not list(tmp_path.iterdir())


def test_the_library_for_an_output_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    with pytest.raises(ConfigurationError, match="needs Zstandard") as raised:
        stillhouse.run(["a"], llm="echo", output=tmp_path / "out.jsonl.zst")
    assert "stillhouse[zstd]" in raised.value.hint
    assert not list(tmp_path.iterdir())


# Many columns, of which a row has a few


def test_sparse_rows_are_read_back_from_parquet(tmp_path: Path) -> None:
    chance = random.Random(2)
    kinds: list[Callable[[int], Any]] = [
        lambda n: n, lambda n: n / 4, lambda n: f"é{n}", lambda n: n % 2 == 0, lambda n: [n, None],
        lambda n: {"a": n, "b": [str(n)]}, lambda n: None, lambda n: n if n % 3 else f"text {n}",
    ]  # fmt: skip
    rows = []
    for number in range(2500):  # in several parts
        some = chance.sample(range(80), 4)
        rows.append({"id": number, **{f"k{key}": kinds[key % len(kinds)](number) for key in some}})
    found = pq.read_table(write(tmp_path / "out.parquet", rows)).to_pylist()
    wanted = read_jsonl_lines(write(tmp_path / "out.jsonl", rows))
    for one, other in zip(found, wanted, strict=True):
        assert all(same(value, other.get(name)) for name, value in one.items()), (one, other)
        assert {name for name, value in other.items() if value is not None} <= {*one}


# Ended while it was written

OUTPUTS = ["out.jsonl", "out.csv", "out.tsv", "out.parquet", "out.jsonl.gz", "out.csv.gz", "out.tsv.zst"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_run_that_is_killed_while_it_writes_is_written_the_same(
    start: Callable[..., Process], server: Server, rows: Callable[[int], Path], tmp_path: Path, name: str
) -> None:
    source, target, whole = rows(300), tmp_path / name, tmp_path / f"whole-{name}"
    assert start(source, "-o", whole).wait() == 0
    asked = len(server.asked)
    process = start(source, "-o", target)
    part = PartialFolder.path_of(target) / name
    # The file is opened once, to see that it can be written, before anything is asked.
    server.wait_for(asked + 300)
    while not part.exists() and not target.exists():
        pass
    process.kill()
    process.wait()
    assert start(source, "-o", target).wait() == 0
    assert target.read_bytes() == whole.read_bytes()
    assert not PartialFolder.path_of(target).exists()
    assert len(server.asked) <= asked + 300 + 16
