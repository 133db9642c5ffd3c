"""Parquet files as input and output of bulk runs, with real files."""

from __future__ import annotations

import base64
import datetime
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.arrow import CHUNK_ROWS
from stillhouse.jobs.formats.opening import open_reader, open_writer
from stillhouse.jobs.formats.rows import RowFormatter

RESULTS = ["generations", "statistics", "finish_reasons", "model_name", "error"]
UTC = datetime.UTC
MOMENT = datetime.datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)


def stillhouse(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from stillhouse.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def table_of_types() -> pa.Table:
    return pa.table(
        {
            "prompt": pa.array(["one", "two"]),
            "small": pa.array([1, None], pa.int8()),
            "single": pa.array([0.5, None], pa.float32()),
            "day": pa.array([datetime.date(2024, 5, 6), None]),
            "moment": pa.array([MOMENT, None], pa.timestamp("us", "UTC")),
            "instant": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
            "took": pa.array([datetime.timedelta(seconds=90), None]),
            "price": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
            "raw": pa.array([b"\x00\xff", None]),
            "kind": pa.array(["x", None], pa.dictionary(pa.int8(), pa.string())),
            "tags": pa.array([["a", None], None], pa.list_(pa.string())),
            "point": pa.array([{"x": 1, "y": [2]}, None], pa.struct([("x", pa.int32()), ("y", pa.list_(pa.int64()))])),
            "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "nothing": pa.nulls(2),
        }
    )  # fmt: skip


def write(target: Path, records: list[dict[str, Any]], schema: pa.Schema | None = None) -> pa.Table:
    writer = open_writer(str(target), schema=schema)
    for record in records:
        writer.write(record)
    writer.finish()
    return pq.read_table(target)


def test_parquet_to_parquet_keeps_the_column_types(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table = table_of_types()
    pq.write_table(table, source)
    result = stillhouse("generate", source, "--llm", "echo", "-o", target)
    assert (result.returncode, "JSON text" in result.stderr) == (0, False), result.stderr
    written = pq.read_table(target)
    assert written.schema.names == [*table.schema.names, *RESULTS]
    assert written.select(table.schema.names).equals(pq.read_table(source))
    assert written["generations"].to_pylist() == [["one"], ["two"]]
    assert written["statistics"].to_pylist()[0] == {"input_tokens": [1], "output_tokens": [1]}
    assert written["error"].type == pa.struct([("kind", pa.string()), ("message", pa.string())])


def test_values_in_a_prompt_and_in_jsonl(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    pq.write_table(table_of_types(), source)
    result = stillhouse(
        "generate", source, "--llm", "echo", "-o", target,
        "--template", "{{ day }} {{ price }} {{ tags[0] }} {{ point.y[0] }} {{ kind }}",
    )  # fmt: skip
    assert result.returncode == 3, result.stderr  # the second row has no tags
    first, second = [json.loads(line) for line in target.read_text().splitlines()]
    assert first["generations"] == ["2024-05-06 1.10 a 2 x"]
    assert first["moment"] == "2024-05-06T07:08:09.000010+00:00"
    assert first["instant"] == "2023-11-14 22:13:20.123456789"
    assert (first["took"], first["price"], first["small"], first["single"]) == ("0:01:30", "1.10", 1, 0.5)
    assert base64.b64decode(first["raw"]) == b"\x00\xff"
    assert (first["point"], first["map"], first["tags"]) == ({"x": 1, "y": [2]}, [["k", 1]], ["a", None])
    assert second["moment"] is None


def test_nan_and_infinity_become_null_in_jsonl(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    rates = [[0.5, float("nan")], [float("inf")]]
    pq.write_table(pa.table({"prompt": ["one", "two"], "rates": rates, "rate": [float("nan"), 1.0]}), source)
    assert stillhouse("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl").returncode == 0
    second = ["--output-prefix", "second_", "-o", tmp_path / "o.jsonl"]
    assert stillhouse("generate", tmp_path / "out.jsonl", "--llm", "echo", *second).returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [(row["rates"], row["rate"]) for row in rows] == [([0.5, None], None), ([None], 1.0)]
    assert stillhouse("generate", source, "--llm", "echo", "-o", tmp_path / "o.parquet").returncode == 0
    assert str(pq.read_table(tmp_path / "o.parquet")["rates"].to_pylist()) == str(rates)


def test_chat_message_omits_null_fields_of_other_messages() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "index": None}], "name": None}
    row = next(iter(_Rows([{"messages": [{"role": "user", "content": "hi", "tool_calls": None}, call]}])))
    assert RowFormatter()(row) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    ]


class _Rows:
    """Rows through a table, as a Parquet file has them."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.table = pa.Table.from_pylist(rows)

    def __iter__(self) -> Any:
        from stillhouse.jobs.formats.arrow import rows_of

        return rows_of(self.table.to_batches()[0], 0)


def test_a_row_with_a_value_that_cannot_be_used_fails_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    texts = pa.array([b"good", b"bad \xff", b"good"], pa.binary()).view(pa.string())
    when = pa.array([0, 0, 10**14], pa.timestamp("s"))
    pq.write_table(pa.table({"prompt": texts, "when": when}), source)
    result = stillhouse("generate", source, "--llm", "echo", "-o", target)
    assert result.returncode == 3, result.stderr
    rows = pq.read_table(target, columns=["generations", "error"]).to_pylist()
    assert [row["generations"] for row in rows] == [["good"], None, ["good"]]
    assert [row["error"] and row["error"]["message"].partition(" cannot")[0] for row in rows] == [
        None, "row 2: the column prompt", None,
    ]  # fmt: skip


def test_column_types_that_appear_late_or_vary_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    late = 3 * CHUNK_ROWS
    records: list[dict[str, Any]] = [
        {"id": number, "late": None, "wide": number, "grows": {"a": 1}, "mixed": number, "list": []}
        for number in range(late)
    ]
    records.append({"id": -1, "late": "text", "wide": 0.5, "grows": {"b": [None]}, "mixed": "t", "list": [1]})
    records.append({"id": 0, "late": None, "wide": None, "grows": {"b": ["x"]}, "mixed": None, "new": True})
    table = write(tmp_path / "out.parquet", records)
    types = {field.name: field.type for field in table.schema}
    assert types["late"] == pa.string()
    assert types["wide"] == pa.float64()
    assert types["grows"] == pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])
    assert types["list"] == pa.list_(pa.int64())
    assert types["new"] == pa.bool_()
    rows = table.slice(late - 1).to_pylist()
    assert (rows[0]["mixed"], rows[1]["mixed"], rows[2]["mixed"]) == (str(late - 1), '"t"', None)
    assert [row["grows"] for row in rows[1:]] == [{"a": None, "b": [None]}, {"a": None, "b": ["x"]}]
    assert table["mixed"].to_pylist()[:2] == ["0", "1"]  # those that had a type in their chunk, too
    assert [message for message in caplog.messages if "JSON text" in message] == [
        "the column mixed has no type that fits all its values: it is written as JSON text"
    ]


def test_no_value_is_changed_to_fit_a_type(tmp_path: Path) -> None:
    large = 2**53 + 1
    records: list[dict[str, Any]] = [{"near": large, "huge": 2**70, "empty": {}}] * CHUNK_ROWS
    records += [{"near": 0.5, "huge": 1, "empty": {}, "half": "\ud83d x"}]
    rows = write(tmp_path / "out.parquet", records).to_pylist()
    assert (rows[0]["near"], rows[-1]["near"]) == (str(large), "0.5")
    assert (rows[0]["huge"], rows[-1]["huge"]) == (str(2**70), "1")
    assert rows[0]["empty"] == "{}"
    assert rows[-1]["half"] == "\ufffd x"


def test_objects_whose_keys_are_data_become_text(tmp_path: Path) -> None:
    records = [{"scores": {f"user-{number}": 1}} for number in range(3 * CHUNK_ROWS)]
    table = write(tmp_path / "out.parquet", records)
    assert table.schema.field("scores").type == pa.string()
    assert json.loads(table["scores"][-1].as_py()) == records[-1]["scores"]


def test_an_empty_input_becomes_an_empty_file_with_its_columns(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(table_of_types().slice(0, 0), source)
    assert stillhouse("generate", source, "--llm", "echo", "-o", target).returncode == 0
    table = pq.read_table(target)
    assert (len(table), table.schema.names) == (0, [*table_of_types().schema.names, *RESULTS])


def test_csv_to_parquet(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,prompt\n1,one\n2\n3,three\n")
    assert stillhouse("generate", source, "--llm", "echo", "-o", tmp_path / "o.parquet").returncode == 3
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert [(row["id"], row["generations"]) for row in rows] == [
        ("1", ["one"]),
        (None, None),
        ("3", ["three"]),
    ]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"prompt\none\n", None])
def test_what_is_no_parquet_file_is_one_error(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "in.parquet"
    if content is None:
        pq.write_table(pa.table({"prompt": ["one"] * 1000}), source)
        content = source.read_bytes()[:-20]
    source.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be read as a Parquet file"):
        open_reader(str(source))


def test_a_file_that_is_broken_inside_stops_the_run_with_one_error(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(
        pa.table({"prompt": [os.urandom(8).hex() for _ in range(5000)]}), source, compression="snappy"
    )
    content = bytearray(source.read_bytes())
    content[100:4000] = bytes(3900)
    source.write_bytes(content)
    result = stillhouse("generate", source, "--llm", "echo", "-o", tmp_path / "out.parquet")
    assert result.returncode == 1
    assert "cannot be read as a Parquet file" in result.stderr
    assert "Traceback" not in result.stderr


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"]), source
    )
    with pytest.raises(ConfigurationError, match="several columns of the name prompt"):
        open_reader(str(source))


def test_missing_pyarrow_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "in.parquet").write_bytes(b"PAR1 and more PAR1")
    for opening, name in ((open_reader, "in.parquet"), (open_writer, "x.parquet")):
        with pytest.raises(ConfigurationError, match=r"stillhouse\[parquet\]"):
            opening(str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_rows_have_stable_digests_and_can_be_read_again(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(table_of_types(), source)
    again = tmp_path / "again.parquet"
    pq.write_table(table_of_types(), again, row_group_size=1, compression="gzip")
    reader, other = open_reader(str(source)), open_reader(str(again))
    digests = [row.digest for row in reader]
    assert len(set(digests)) == 2
    assert [row.digest for row in reader] == digests == [row.digest for row in other]
    assert reader.share_read == 1.0
    assert reader.digest() != other.digest()
    reader.close()
    other.close()


MEMORY = """
import resource, sys
from stillhouse.jobs.formats.opening import open_reader, open_writer

reader = open_reader(sys.argv[1])
writer = open_writer(sys.argv[2], schema=reader.schema)
for row in reader:
    writer.write(row.columns)
writer.finish()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak if sys.platform == "darwin" else peak << 10)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the module resource is for POSIX")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for rows in (10_000, 50_000):
        source, target = tmp_path / f"{rows}.parquet", tmp_path / f"{rows}-out.parquet"
        texts = pa.chunked_array([pa.array([f"{number}" * 2_000 for number in range(1000)])] * (rows // 1000))
        # One row group: to read it as a whole is to hold all of it.
        table = pa.table({"id": range(rows), "prompt": texts})
        pq.write_table(table, source, row_group_size=rows, use_dictionary=False, compression="none")
        command = [sys.executable, "-c", MEMORY, source, target]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout))
        assert pq.ParquetFile(target).metadata.num_rows == rows
        assert 1 < pq.ParquetFile(target).num_row_groups <= table.nbytes // (30 << 20) + 1
    assert table.nbytes > 250 << 20
    # What the allocators keep varies; to hold the larger one would be 220 MiB more.
    assert peaks[1] - peaks[0] < 140 << 20


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_parquet_writer_leaves_no_partial_file_and_the_run_resumes(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"prompt": [f"row {number}" for number in range(400)]}), source)
    arguments = [
        "generate",
        source,
        "--llm",
        "echo",
        "--set",
        "latency=0.02",
        "--max-concurrency",
        4,
        "-o",
        target,
    ]
    command = [sys.executable, "-c", "from stillhouse.cli import main; main()", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    database = tmp_path / "out.parquet.run.db"
    finished = 0
    while finished < 20 and process.poll() is None:
        finished = _finished(database)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 20 <= _finished(database) < 400
    assert not target.exists()
    result = stillhouse(*arguments)
    assert result.returncode == 0, result.stderr
    assert "resuming: " in result.stderr
    rows = pq.read_table(target).to_pylist()
    assert [row["generations"] for row in rows] == [[f"row {number}"] for number in range(400)]
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]
    pq.write_table(pa.table({"prompt": [f"line {number}" for number in range(400)]}), source)
    changed = stillhouse(*arguments)
    assert changed.returncode == 1
    assert "400 of 400 rows differ" in changed.stderr


def _finished(database: Path) -> int:
    import contextlib
    import sqlite3

    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
        with contextlib.closing(connection):
            return int(connection.execute("SELECT count(*) FROM rows").fetchone()[0])
    return 0


def test_a_write_that_fails_leaves_the_earlier_output(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    write(target, [{"prompt": "earlier"}])
    writer = open_writer(str(target))
    writer.write({"prompt": "later"})
    writer.abandon()
    assert pq.read_table(target)["prompt"].to_pylist() == ["earlier"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_times_that_python_has_not_are_kept_as_texts(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    late = 253402300800  # seconds from 1970 to 10000
    table = pa.table(
        {
            "prompt": ["a", "b"],
            "moment": pa.array([late, 0], pa.timestamp("s")),
            "utc": pa.array([late * 1000, None], pa.timestamp("ms", "UTC")),
            "day": pa.array([4_000_000, 0], pa.int32()).cast(pa.date32()),
            "within": pa.array([{"x": [late]}, None], pa.struct([("x", pa.list_(pa.timestamp("s")))])),
        }
    )
    pq.write_table(table, source)
    result = stillhouse("generate", source, "--llm", "echo", "-o", target)
    assert result.returncode == 0, result.stderr
    first, second = (json.loads(line) for line in target.read_text(encoding="utf-8").splitlines())
    assert first["moment"].startswith("10000-01-01 00:00:00")
    assert first["utc"].startswith("10000-01-01 00:00:00")
    assert first["day"] == "12921-08-18"
    assert first["within"]["x"][0].startswith("10000-01-01")
    assert (second["moment"], second["day"]) == ("1970-01-01T00:00:00", "1970-01-01")
    assert stillhouse("generate", source, "--llm", "echo", "-o", tmp_path / "out.parquet").returncode == 0
