"""`stillhouse generate --batch` on this engine: the output of a run without, also after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
import stillhouse.registry
from stillhouse import hookimpl
from stillhouse.cli.app import app
from stillhouse_llamacpp import LlamaCppLLM

class Reports:
    @hookimpl
    def after_generate(self, input):
        # What a hook prints is no output of the command.
        os.write(1, b"%d\\n" % len(input[-1]["content"]))

registry = stillhouse.registry.default_registry()
registry.register("engine", LlamaCppLLM)
registry.register_hooks("reports", Reports())
app(sys.argv[1:], prog_name="stillhouse")
"""

OPTIONS = [
    "--llm", "engine", "--set", "parallel=2", "--set", "n_ctx=512", "--set", "n_threads=1",
    "--param", "temperature=0", "--param", "max_new_tokens=4",
    # How much of a prompt the engine has already depends on the order, and stands in the output.
    "--param", 'extra_body={"cache_prompt": false}', "--max-concurrency", "2",
]  # fmt: skip

WORDS = ["river", "lake", "hill", "bay", "forest", "island", "desert", "valley"]


def start(folder: Path, output: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "generate", "rows.jsonl", "-o", output, *OPTIONS, *options],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> list[int]:
    """The lengths of the prompts in the order in which they were answered."""
    out, err = process.communicate()
    assert process.returncode == 3, err
    return list(map(int, out.split()))


@pytest.mark.model
def test_a_batch_gives_what_a_run_without_gives_also_after_a_kill(tmp_path: Path) -> None:
    rows = [
        {"id": place, "prompt": f"Name a {word}. " * (1 + place * 5 % 4)} for place, word in enumerate(WORDS)
    ]
    lines = [json.dumps(row) for row in rows] + ["{broken", json.dumps({"prompt": "long " * 600})]
    (tmp_path / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    lengths = sorted(len(row["prompt"]) for row in rows)

    assert sorted(finish(start(tmp_path, "online.jsonl"))) == [*lengths, 3000]

    killed = start(tmp_path, "batch.jsonl", "--batch")
    assert killed.stdout is not None
    for _ in range(3):
        killed.stdout.readline()
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "batch.jsonl").exists()

    answered = finish(start(tmp_path, "batch.jsonl", "--batch"))
    assert len(answered) < len(rows) + 1
    assert 3000 in answered[-2:]  # two are in flight
    assert all(length >= lengths[1] for length in answered)
    assert (tmp_path / "batch.jsonl").read_bytes() == (tmp_path / "online.jsonl").read_bytes()
    written = [json.loads(line) for line in (tmp_path / "batch.jsonl").read_text().splitlines()]
    kinds = [row["error"] and row["error"]["kind"] for row in written]
    assert kinds == [None] * len(rows) + ["invalid_input", "context_length"]
