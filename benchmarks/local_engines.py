"""Tokens per second of a whole run on an engine of this machine, against the engine driven by hand.

Both sides answer the same chats, of 5 to 600 tokens, with the same model, which is loaded once, greedily and
with the same number of new tokens for each. By hand means what one would write for the job with the
engine's own interface and the same batching, and nothing more: no file, no store, no failures by row. The
run has all that. The two take turns, and which of them begins changes with every round. Budget: at least
0.95 of the engine by hand.

    python benchmarks/local_engines.py transformers --model FOLDER
    python benchmarks/local_engines.py transformers --model FOLDER --memory 10000

With `--memory`, one run of so many short prompts shows whether the memory is flat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import machine

import stillhouse
from stillhouse import AsyncLLM
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.runs.bulk import open_bulk_run
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.online import RunStatistics

BUDGET = 0.95

WORDS = "the river runs to the sea and the rain falls on hills and roads while cats sleep near warm bread".split()


def prompts(count: int, longest: int) -> list[str]:
    """Different texts of 5 to about `longest` tokens, unsorted."""
    texts = []
    for number in range(count):
        length = 5 + (number * 7919) % max(1, longest - 45)
        words = (WORDS[(number + step) % len(WORDS)] for step in range(length))
        texts.append(f"{number}: {' '.join(words)}")
    return texts


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class Run:
    """A whole run, on an LLM that is loaded."""

    def __init__(self, llm: AsyncLLM, folder: Path, options: argparse.Namespace) -> None:
        self._llm, self._folder, self._options = llm, folder, options

    def __call__(self, texts: list[str]) -> list[str | None]:
        source, output = self._folder / "in.jsonl", self._folder / "out.jsonl"
        source.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), encoding="utf-8")
        command = Command(
            source=str(source), output=str(output), formatter=RowFormatter(), restart=True,
            offline=self._options.batch, arguments=arguments(self._options),
        )  # fmt: skip
        with open_bulk_run(self._llm, command) as bulk:
            bulk.work(RunStatistics())
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            if row["error"]:
                sys.exit(f"a row failed: {row['error']}")
            self.tokens = row["statistics"]["output_tokens"][0]
        return [row["generations"][0] for row in rows]


def arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What is asked of each row. Nothing ends an answer before its last token."""
    never = {"logit_bias": {options.eos: -1000.0}} if options.never_end else {}
    return {"temperature": 0, "max_new_tokens": options.tokens, **never}


def timed(function: Callable[[list[str]], list[str | None]], texts: list[str]) -> tuple[float, list[str | None]]:
    begun = time.perf_counter()
    made = function(texts)
    return time.perf_counter() - begun, made
