"""Compressed files: of several members, cut off, damaged, of another name, and bombs."""

from __future__ import annotations

import gzip
import importlib.util
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.opening import open_file

from .conftest import rows_of

Write = Callable[[str, bytes], Path]

ROWS = [{"prompt": f"text {number}", "n": "x" * 50} for number in range(3000)]


def zstd(content: bytes) -> bytes:
    module = pytest.importorskip(
        "backports.zstd" if importlib.util.find_spec("compression") is None else "compression.zstd"
    )
    # As the command zstd does; a frame without a checksum cannot be known to be damaged.
    compressed: bytes = module.compress(content, options={module.CompressionParameter.checksum_flag: 1})
    return compressed


PACKED = [pytest.param(gzip.compress, ".gz", id="gz"), pytest.param(zstd, ".zst", id="zst")]


def lines(rows: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table(rows: list[dict[str, str]]) -> bytes:
    return b"prompt,n\n" + b"".join(f"{row['prompt']},{row['n']}\n".encode() for row in rows)


FORMATS = {
    "in.jsonl": lines, "in.ndjson": lines, "in.csv": table, "in.tsv": lambda rows: table(rows).replace(b",", b"\t"),
    "in.json": lambda rows: json.dumps(rows).encode(), "le.csv": lambda rows: table(rows).decode().encode("utf-16"),
}  # fmt: skip


@pytest.mark.parametrize(("pack", "suffix"), PACKED)
@pytest.mark.parametrize("name", FORMATS)
def test_each_format_compressed(write: Write, pack: Any, suffix: str, name: str) -> None:
    content = FORMATS[name](ROWS)
    members = pack(content[:1000]) + pack(content[1000:1001]) + pack(b"") + pack(content[1001:])
    for packed in (pack(content), members):
        found = rows_of(write(f"{name}{suffix}", packed))
        assert found.columns == ROWS
    assert bool(found.notes) == (name == "le.csv")


@pytest.mark.parametrize(("pack", "suffix"), PACKED)
def test_parquet_compressed(write: Write, pack: Any, suffix: str, tmp_path: Path) -> None:
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "plain.parquet")
    packed = write(f"in.parquet{suffix}", pack((tmp_path / "plain.parquet").read_bytes()))
    assert rows_of(packed).columns == ROWS


@pytest.mark.parametrize(("pack", "suffix"), PACKED)
def test_a_name_that_says_otherwise_is_read_and_told(write: Write, pack: Any, suffix: str) -> None:
    found = rows_of(write("in.jsonl", pack(lines(ROWS))))
    assert found.columns == ROWS
    assert "it is compressed with" in found.notes[0]
    found = rows_of(write(f"in.csv{suffix}", table(ROWS)))
    assert found.columns == ROWS
    assert "it is not compressed" in found.notes[0]


@pytest.mark.parametrize(("pack", "suffix"), PACKED)
@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.json"])
def test_a_damaged_archive_is_one_error_before_anything_is_sent(
    write: Write, generate: Any, pack: Any, suffix: str, name: str
) -> None:
    content = FORMATS[name](ROWS)
    packed = pack(content[:50_000]) + pack(content[50_000:])
    middle = len(packed) // 2
    damaged = [
        packed[: middle // 2], packed[:-1], packed[:-9], packed[: middle + 4], packed + b"garbage",
        packed[:middle] + bytes(20) + packed[middle + 20 :],
    ]  # fmt: skip
    for number, wrong in enumerate(damaged):
        path = write(f"{number}-{name}{suffix}", wrong)
        result = generate(path)
        assert (result.status, list(result.output.parent.iterdir())) == (1, []), number
        assert f"{path} cannot be decompressed" in result.err


def test_packed_twice_is_one_error(write: Write) -> None:
    with pytest.raises(ConfigurationError, match="is compressed twice"):
        rows_of(write("in.jsonl.gz", gzip.compress(gzip.compress(lines(ROWS)))))


@pytest.mark.parametrize(("pack", "suffix"), PACKED)
@pytest.mark.parametrize(
    "content", [b"x" * (150 << 20), b'{"prompt": "a"}\n' * (1 << 20)], ids=["line", "lines"]
)
def test_a_bomb_takes_bounded_memory(
    write: Write, monkeypatch: pytest.MonkeyPatch, pack: Any, suffix: str, content: bytes
) -> None:
    monkeypatch.setattr("stillhouse.jobs.formats.jsonl.MAX_ROW_BYTES", 1 << 20)
    path = write(f"in.jsonl{suffix}", pack(content))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        reader = open_file(str(path))
        for _ in zip(range(1000), reader, strict=False):
            pass
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
        reader.close()
    finally:
        tracemalloc.stop()


def test_zstd_without_its_library(write: Write, monkeypatch: pytest.MonkeyPatch, generate: Any) -> None:
    for name in ("backports.zstd", "backports", "compression.zstd", "compression"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    result = generate(write("in.jsonl.zst", b"\x28\xb5\x2f\xfd"))
    assert result.status == 1
    assert 'stillhouse install "stillhouse[zstd]"' in result.err


def test_standard_input_may_be_packed_and_an_array(start_piped: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    for content in (
        json.dumps(rows).encode(),
        gzip.compress(lines(rows)),
        lines(rows).decode().encode("utf-16"),
    ):
        for output in (tmp_path / "out.jsonl", "-"):
            result = start_piped(content, "-o", output, "--restart" if output != "-" else "--raw")
            assert result.returncode == 0, result.stderr
            written = result.stdout if output == "-" else (tmp_path / "out.jsonl").read_bytes()
            assert [json.loads(line)["generations"] for line in written.splitlines()] == [["a"], ["b"]]


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.parquet", "in.json"])
@pytest.mark.parametrize(
    ("members", "what"),
    [
        (["[Content_Types].xml", "docProps/app.xml", "xl/workbook.xml"], "an Excel workbook"),
        (["[Content_Types].xml", "word/document.xml"], "a Word document"),
        (["ppt/presentation.xml"], "a PowerPoint presentation"),
        (["mimetype:application/vnd.oasis.opendocument.spreadsheet"], "an OpenDocument spreadsheet"),
        (["mimetype:application/vnd.oasis.opendocument.text"], "an OpenDocument file"),
        (["rows.csv"], "a zip archive"),
    ],
)
def test_what_is_zipped_is_named(tmp_path: Path, name: str, members: list[str], what: str) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for member in members:
            archive.writestr(*(member.split(":") if ":" in member else (member, "x" * 100)))
    with pytest.raises(ConfigurationError, match=f"is {what}\\n"):
        rows_of(tmp_path / name)
