"""The whole process: imports, logs, memory, forking, exit, and invalid model files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stillhouse import ConfigurationError
from stillhouse_llamacpp import LlamaCppLLM


def run(script: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_importing_is_light() -> None:
    run(
        "import sys, stillhouse_llamacpp\n"
        "stillhouse_llamacpp.LlamaCppLLM().model_name\n"
        "heavy = {'xllamacpp', 'numpy', 'huggingface_hub', 'jsonschema'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )


LOAD = """
import os, sys
from stillhouse_llamacpp import LlamaCppLLM
def resident():
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith('VmRSS'))
llm = LlamaCppLLM(parallel=1, n_ctx=8192, n_threads=1, verbose={verbose})
llm.load()
ask = lambda: llm.generate_outputs(['The sky is'], max_new_tokens=2, temperature=0)
ask()
"""


@pytest.mark.model
def test_the_engine_is_silent_and_the_end_is_clean_while_it_is_loaded() -> None:
    done = run(LOAD.format(verbose=False))
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.model
def test_the_engine_logs_when_it_is_told_to() -> None:
    assert "slot" in run(LOAD.format(verbose=True)).stderr


@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory in /proc")
def test_unloading_frees_the_memory() -> None:
    done = run(
        LOAD.format(verbose=False) + "held = llm._engine; a = resident(); llm.unload(); print(a - resident())"
    )
    assert int(done.stdout) > 150  # MiB; the context alone has 180


@pytest.mark.model
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_refused_and_ends() -> None:
    script = LOAD.format(verbose=False) + (
        "import asyncio, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    hidden = lambda: llm.get_last_hidden_states(['A'])\n"
        "    for call in (ask, lambda: asyncio.run(llm.agenerate('A')), hidden):\n"
        "        try:\n"
        "            print('returned', call(), flush=True)\n"
        "        except Exception as error:\n"
        "            print(type(error).__name__, 'fork' in str(error), flush=True)\n"
        "    llm.unload()\n"
        "    sys.exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "assert ask()[0]['generations'][0]\n"
    )
    assert run(script).stdout.split() == ["ConfigurationError", "True"] * 3


@pytest.mark.model
def test_files_that_are_no_model_and_the_process_lives(
    tmp_path: Path, weights: Path, gguf: Callable[..., bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    whole = weights.read_bytes()
    header_only = whole[: 4 << 20]
    contents = {
        "text": (b"hello", "not a GGUF file"),
        "empty": (b"", "is empty"),
        "header": (header_only, "is cut off"),
        "half": (whole[: len(whole) // 2], "is cut off"),
        "tail": (whole[:-1], "is cut off"),
        "made-up": (gguf(), "architecture is llama"),
    }
    for name, (content, problem) in contents.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        llm = LlamaCppLLM(model=str(path), parallel=1, n_ctx=256, n_threads=1)
        with pytest.raises(ConfigurationError, match=problem) as caught:
            llm.load()
        assert str(path) in caught.value.message
        assert caught.value.hint
        assert not llm.is_loaded
        path.unlink()
    with LlamaCppLLM(parallel=1, n_ctx=256, n_threads=1) as llm:
        assert llm.generate_outputs(["A"], max_new_tokens=1)[0]["generations"]
    assert capfd.readouterr() == ("", "")
