"""Commands: bad input is one clear error, memory that runs out is too, and a killed run goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from engine_commands import assert_a_killed_run_goes_on, assert_one_error, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it kills with signals")


@pytest.mark.parametrize(
    ("model", "words"),
    [("FOLDER", "has no config.json"), ("./nowhere", "there is no model"), ("GGUF", "cannot load")],
)
def test_bad_models_are_one_error_and_nothing_else(tmp_path: Path, model: str, words: str) -> None:
    if model == "FOLDER":
        model = str(tmp_path)
    elif model == "GGUF":
        model = str(tmp_path / "some.gguf")
        Path(model).write_bytes(b"GGUF" + b"\x03\0\0\0" + b"\0" * 16)
    made = run("generate", "--prompt", "Hi", "--llm", f"transformers:{model}")
    assert_one_error(made, words)


OUT_OF_MEMORY = """
import resource, sys
from stillhouse import GenerationError
from stillhouse_transformers import TransformersLLM

def said(text):
    return [{"role": "user", "content": text}]

rows = [said("Hi"), said("river " * 4000), said("Ho")]
asked = {"temperature": 0, "max_new_tokens": 4}
with TransformersLLM(model=sys.argv[1], device="cpu", attn_implementation="eager") as llm:
    expected = llm.generate_outputs([rows[0], rows[2]], **asked)
    pages = int(open("/proc/self/statm").read().split()[0])
    bound = pages * resource.getpagesize() + (150 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))
    found = [result for _, result in llm.iter_outputs(rows, on_error="yield", **asked)]
    assert isinstance(found[1], GenerationError), found[1]
    assert found[1].kind == "server", found[1]
    assert "memory" in str(found[1]), found[1]
    assert [found[0], found[2]] == expected
    assert llm.generate_outputs([rows[0], rows[2]], **asked) == expected
print("kept")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_memory_that_runs_out_fails_the_row_that_needs_it(tmp_path: Path) -> None:
    from small_models import tiny_model

    # With 4000 tokens, the scores of one layer take 4 * 4000 * 4000 * 4 bytes.
    model = tiny_model(tmp_path / "long", max_position_embeddings=32768)
    made = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(model)], capture_output=True, text=True, timeout=120
    )
    assert made.stdout == "kept\n", made.stderr


# The process ends itself in the middle, as by kill -9, when the engine has made some tokens.
DYING = """
import os, signal
from stillhouse_transformers.batch import Batch
stop, steps = Batch.stop, []
def counted(self, *given, **named):
    steps.append(1)
    if len(steps) == 500:
        os.kill(os.getpid(), signal.SIGKILL)
    return stop(self, *given, **named)
Batch.stop = counted
from stillhouse.cli import main
main()
"""


def test_a_killed_run_goes_on_and_writes_what_an_undisturbed_one_writes(tiny: Path, tmp_path: Path) -> None:
    assert_a_killed_run_goes_on(
        tmp_path, "--llm", f"transformers:{tiny}", "--set", "device=cpu", "--set", "batch_size=2",
        "--param", "max_new_tokens=60", dying=DYING,
    )  # fmt: skip
