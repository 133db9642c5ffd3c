"""Runs over files of other formats that are killed give, in the end, what an undisturbed one gives."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Server

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

COUNT = 1000
PROMPTS = [f"row {number}\u2028é" for number in range(COUNT)]


def as_lines(prompts: list[str]) -> str:
    return "".join(json.dumps({"prompt": prompt, "x": 1}, ensure_ascii=False) + "\n" for prompt in prompts)


def packed_in_members(folder: Path) -> list[Path]:
    parts = [gzip.compress(as_lines(PROMPTS[start : start + 300]).encode()) for start in range(0, COUNT, 300)]
    (folder / "rows.jsonl.gz").write_bytes(b"".join(parts))
    return [folder / "rows.jsonl.gz"]


def as_array(folder: Path) -> list[Path]:
    rows = json.dumps(
        [{"prompt": prompt, "x": float("nan")} for prompt in PROMPTS], indent=1, ensure_ascii=False
    )
    (folder / "rows.json").write_text(rows, encoding="utf-8")
    return [folder / "rows.json"]


def as_table(folder: Path) -> list[Path]:
    text = "id;prompt\r\n" + "".join(f'{number};"{prompt}\r\n"\r\n' for number, prompt in enumerate(PROMPTS))
    (folder / "rows.csv").write_bytes(text.encode("utf-16"))
    return [folder / "rows.csv"]


def as_several(folder: Path) -> list[Path]:
    (folder / "rows").mkdir()
    (folder / "rows" / "a.jsonl").write_text(as_lines(PROMPTS[:400]), encoding="utf-8")
    (folder / "rows" / "b.jsonl.gz").write_bytes(gzip.compress(as_lines(PROMPTS[400:600]).encode()))
    (folder / "rows" / "c.json").write_text(json.dumps([{"prompt": text} for text in PROMPTS[600:]]))
    return [folder / "rows"]


@pytest.mark.parametrize("make", [packed_in_members, as_array, as_table, as_several])
@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_a_killed_run_equals_an_undisturbed_one(
    start: Any,
    start_and_kill: Any,
    server: Server,
    tmp_path: Path,
    make: Callable[[Path], list[Path]],
    times: int,
) -> None:
    source = make(tmp_path)
    (tmp_path / "out").mkdir()
    output, calm = tmp_path / "out" / "killed.jsonl", tmp_path / "out" / "calm.jsonl"
    start_and_kill(*source, "-o", output, times=times, rows=COUNT)
    asked = len(server.asked)
    assert start(*source, "-o", calm).wait() == 0
    assert len(server.asked) - asked == COUNT
    assert output.read_bytes() == calm.read_bytes()
    rows = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert [row["prompt"].rstrip() for row in rows] == [prompt.rstrip() for prompt in PROMPTS]
