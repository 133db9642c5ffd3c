"""Of the time that rows take, how much they wait: recorded with the run, shown by its report."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

import stillhouse
from stillhouse import AsyncLLM, prepare_output


class SlottedLLM(AsyncLLM):
    """One input at a time is worked on; the others wait for the only slot."""

    _slot: Any = PrivateAttr(default=None)
    _waited: float = PrivateAttr(default=0.0)

    @property
    def model_name(self) -> str:
        return "slotted"

    @property
    def seconds_waited(self) -> float | None:
        return self._waited

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        """Generate."""
        self._slot = self._slot or asyncio.Lock()
        began = time.perf_counter()
        async with self._slot:
            self._waited += time.perf_counter() - began
            await asyncio.sleep(0.01)
        return prepare_output([input[-1]["content"]] * num_generations)


def waiting_of(output: Path) -> Any:
    report = subprocess.run(
        [sys.executable, "-m", "stillhouse", "report", output, "--json"], capture_output=True, check=True
    )
    return json.loads(report.stdout)["waiting"]


def test_a_report_tells_waiting_from_work(tmp_path: Path) -> None:
    llm = SlottedLLM()
    with llm:
        stillhouse.run(["a"] * 10, llm=llm, output=tmp_path / "before.jsonl", show_bar=False)
        before = llm.seconds_waited
        stillhouse.run(["a"] * 40, llm=llm, output=tmp_path / "o.jsonl", show_bar=False)
        after = llm.seconds_waited
    assert before is not None
    assert after is not None
    waited = after - before
    found = waiting_of(tmp_path / "o.jsonl")
    assert found["rows"] == 40
    assert found["waited"] == pytest.approx(waited / 40)
    assert found["worked"] >= 0.01
    page = subprocess.run([sys.executable, "-m", "stillhouse", "report", tmp_path / "o.jsonl"], check=True)
    assert page.returncode == 0
    assert "On average, a row waited" in (tmp_path / "o.jsonl.report.html").read_text()


def test_what_a_backend_does_not_know_is_not_told(tmp_path: Path) -> None:
    stillhouse.run(["a"] * 5, llm="echo", output=tmp_path / "o.jsonl", show_bar=False)
    assert waiting_of(tmp_path / "o.jsonl") is None
    stillhouse.run(
        ["a"] * 5, llm=SlottedLLM(), output=tmp_path / "two.jsonl", num_generations=2, show_bar=False
    )
    assert waiting_of(tmp_path / "two.jsonl") is None
