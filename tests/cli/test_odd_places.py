"""Outputs whose names look like something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("name", ["file:x.jsonl", "file:y?mode=ro.jsonl", ":memory:.jsonl", "100%25.jsonl"])
def test_an_output_that_looks_like_an_address_is_a_path(
    run: Any, rows_file: Any, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = rows_file([{"prompt": "a"}, {"prompt": "b"}])
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for limit in (1, 2):
        result = run("generate", source, "--llm", "echo", "-o", name, "--limit", limit)
        assert result.status == 0, result.err
    assert [row["generations"] for row in read(folder / name)] == [["a"], ["b"]]
    assert {path.name for path in folder.iterdir()} == {name, f"{name}.run.db"}
