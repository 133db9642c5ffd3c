"""Runs with options that change what is sent or written, killed several times: as an undisturbed one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from .conftest import Server, read_jsonl

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

COUNT = 300
TIMES = pytest.mark.parametrize("times", [5, pytest.param(20, marks=pytest.mark.soak)])


def picture(number: int) -> bytes:
    """A PNG of one pixel, and of a color of its own."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = b"\0" + number.to_bytes(3, "big")
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixel)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def digest_of(number: int) -> str:
    url = f"data:image/png;base64,{base64.b64encode(picture(number)).decode()}"
    return hashlib.sha256(url.encode()).hexdigest()[:8]


def write(source: Path, rows: list[dict[str, Any]]) -> Path:
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return source


@TIMES
def test_images_of_rows(start: Any, start_and_kill: Any, server: Server, tmp_path: Path, times: int) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.png").write_bytes(picture(number))
    (folder / "40.png").write_bytes(b"no image")
    rows: list[dict[str, Any]] = []
    for number in range(COUNT):
        name = f"{number % 41}.png"
        part = {"type": "image_url", "image_url": {"url": name}}
        content = [{"type": "text", "text": f"row {number}"}, *([part] if number % 3 == 0 else [])]
        rows.append({"messages": [{"role": "user", "content": content}]})
        rows[-1]["photo"] = name if number % 3 == 1 else None
    source = write(tmp_path / "in.jsonl", rows)
    options = ("--images-from", folder, "--image-column", "photo")
    output, calm = tmp_path / "killed.jsonl", tmp_path / "calm.jsonl"
    start_and_kill(source, "-o", output, *options, times=times, rows=COUNT, status=3)
    assert start(source, "-o", calm, *options).wait() == 3
    assert output.read_bytes() == calm.read_bytes()
    for number, row in enumerate(read_jsonl(output)):
        has_image = number % 3 != 2
        if has_image and number % 41 == 40:
            assert "40.png" in row["error"]["message"]
            continue
        (answer,) = row["generations"]
        assert {*answer.removesuffix("!0").split()} == {
            "row", str(number), *([digest_of(number % 41)] if has_image else []),
        }  # fmt: skip
        assert row["messages"] == rows[number]["messages"]  # the names, not what was sent


def fields(prompt: str, number: int) -> str:
    """An answer of which some are no object, some have a field of their own, and the types vary."""
    index = int(prompt.split()[1])
    if index % 11 == 0:
        return "I do not know."
    more = {f"only_{index // 100}": index} if index % 100 == 7 else {}
    answer = {"length": index / 2 if index % 5 == 0 else index, "name": f"é{index}", "parts": [index], **more}
    return json.dumps(answer, ensure_ascii=False)


@TIMES
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_fields_of_answers_as_columns(
    start: Any, start_and_kill: Any, server: Server, tmp_path: Path, suffix: str, times: int
) -> None:
    server.answer = fields
    source = write(tmp_path / "in.jsonl", [{"prompt": f"row {number}"} for number in range(COUNT)])
    output, calm = tmp_path / f"killed.{suffix}", tmp_path / f"calm.{suffix}"
    options = ("--expand", "--text", "--output-prefix", "a_")
    start_and_kill(source, "-o", output, *options, times=times, rows=COUNT)
    assert start(source, "-o", calm, *options).wait() == 0
    assert output.read_bytes() == calm.read_bytes()
    if suffix == "parquet":
        table = pq.read_table(output)
        assert table["a_length"].to_pylist()[:8] == [None, 1, 2, 3, 4, 2.5, 6, 7]
        assert table["a_only_2"].to_pylist()[207] == 207


@TIMES
def test_results_of_an_offline_batch(
    start: Any, start_and_kill: Any, server: Server, tmp_path: Path, times: int
) -> None:
    """`created` is when the row was finished, which the state has: the same state gives the same bytes."""
    server.fails = lambda body: 0 if body["prompt"].endswith("3") else None
    lines = [
        {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "m", "messages": [{"role": "user", "content": f"row {number}"}], "seed": number}}
        for number in range(COUNT)
    ]  # fmt: skip
    source = write(tmp_path / "in.jsonl", lines)
    output, calm, again = (tmp_path / f"{name}.jsonl" for name in ("killed", "calm", "again"))
    options = ("--format", "openai-batch", "--max-failures", "0")
    start_and_kill(source, "-o", output, *options, times=times, rows=COUNT, status=3)
    assert start(source, "-o", calm, *options).wait() == 3
    asked = len(server.asked)
    assert start(source, "-o", again, *options, "--state", f"{output}.run.db").wait() == 3
    assert len(server.asked) == asked
    assert again.read_bytes() == output.read_bytes()
    assert undated(output) == undated(calm)
    assert [line["custom_id"] for line in read_jsonl(output)] == [line["custom_id"] for line in lines]


def undated(output: Path) -> list[str]:
    lines = read_jsonl(output)
    for line in lines:
        if line["response"] is not None:
            assert line["response"]["body"].pop("created") > 1_700_000_000
    return list(map(json.dumps, lines))


@TIMES
def test_parameters_of_rows_with_equal_requests(
    start: Any, start_and_kill: Any, server: Server, tmp_path: Path, times: int
) -> None:
    chance = random.Random(3)
    rows = [
        {"prompt": f"row {chance.randrange(300)}", "seed": chance.choice([None, 1, 50])} for _ in range(COUNT)
    ]
    source = write(tmp_path / "in.jsonl", rows)
    output, calm = tmp_path / "killed.csv", tmp_path / "calm.csv"
    options = ("--row-params", "--dedupe", "--param", "seed=9")
    start_and_kill(source, "-o", output, *options, times=times, rows=COUNT // 2)
    asked = len(server.asked)
    assert start(source, "-o", calm, *options).wait() == 0
    assert output.read_bytes() == calm.read_bytes()
    assert len(server.asked) - asked == len({(row["prompt"], row["seed"] or 9) for row in rows})
