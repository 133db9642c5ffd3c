"""An LLM that nobody unloads says so once, and nothing else does."""

from __future__ import annotations

import pytest

from ..support import run_script

SCRIPT = """
import gc, sys
import stillhouse
from stillhouse.http import HTTPLLM
from stillhouse.testing.server import ScriptedServer

class RemoteLLM(HTTPLLM):
    api_key_required = False
    model: str = "m"
    async def agenerate(self, input, num_generations: int = 1):
        return stillhouse.prepare_output((await self.post("x", {}))["texts"])

server = ScriptedServer(lambda path, body: {"texts": ["a"]})
def used():
    llm = RemoteLLM(base_url=server.origin)
    llm.load()
    assert llm.generate_outputs([[{"role": "user", "content": "a"}]])[0]["generations"] == ["a"]
    return llm
"""


@pytest.mark.parametrize("ending", ["llm = used()", "used(); gc.collect()", "llm = used(); sys.exit(0)"])
def test_an_llm_left_loaded_gives_one_warning_and_nothing_else(ending: str) -> None:
    result = run_script(SCRIPT + ending)
    assert result.returncode == 0
    lines = [line for line in result.stderr.splitlines() if "Warning" in line or "Unclosed" in line]
    assert len(lines) == 1, result.stderr
    assert "ResourceWarning: RemoteLLM was loaded here and not unloaded" in lines[0]


def test_an_llm_that_was_unloaded_gives_none() -> None:
    result = run_script(SCRIPT + "llm = used(); llm.unload(); del llm; gc.collect()")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_child_of_fork_says_nothing_of_its_parents_llm() -> None:
    result = run_script(
        SCRIPT + "import os; llm = used()\nif os.fork() == 0: sys.exit(0)\nos.wait(); llm.unload()"
    )
    assert "ResourceWarning: RemoteLLM" not in result.stderr
