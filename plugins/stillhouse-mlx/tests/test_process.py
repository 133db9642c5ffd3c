"""Commands: bad input is one clear error, memory that runs out is too, and a killed run goes on."""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import engine_commands
import pytest
from engine_commands import assert_a_killed_run_goes_on, assert_one_error, environment
from small_models import tiny_model

from stillhouse import ConfigurationError, UnsupportedError
from stillhouse_mlx import MlxLLM

# There is no Hub.
run = functools.partial(engine_commands.run, env={**environment(), "HF_ENDPOINT": "http://127.0.0.1:9"})


def copied(tiny: Path, tmp_path: Path, file: str = "", text: str | None = None, **changes: Any) -> Path:
    """The model with one file changed, or taken out."""
    folder = shutil.copytree(tiny, tmp_path / "model")
    if text is not None:
        (folder / file).write_text(text, encoding="utf-8")
    elif changes:
        config = {**json.loads((folder / file).read_text(encoding="utf-8")), **changes}
        (folder / file).write_text(
            json.dumps({key: value for key, value in config.items() if value is not None}), encoding="utf-8"
        )
    elif file:
        (folder / file).unlink()
    return folder


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no config": ({"file": "config.json"}, "has no config.json"),
    "config cut off": ({"file": "config.json", "text": '{"model_type": "lla'}, "cannot be read"),
    "config of a list": ({"file": "config.json", "text": "[]"}, "has no model_type"),
    "not a language model": ({"file": "config.json", "model_type": None}, "has no model_type"),
    "unknown architecture": ({"file": "config.json", "model_type": "nosuch"}, "nosuch not supported"),
    "a config without layers": ({"file": "config.json", "num_hidden_layers": None}, "num_hidden_layers"),
    "other layers": ({"file": "config.json", "num_hidden_layers": 3}, "parameters"),
    "other sizes": ({"file": "config.json", "hidden_size": 32}, "shape"),
    "code of its own": ({"file": "config.json", "model_file": "x.py"}, "trust_remote_code"),
    "no weights": ({"file": "model.safetensors"}, "no model*.safetensors"),
    "weights cut off": ({"file": "model.safetensors", "text": "\u0001\0\0"}, "cannot read the model"),
    "no tokenizer": ({"file": "tokenizer.json"}, "cannot read the model"),
    "tokenizer cut off": ({"file": "tokenizer.json", "text": '{"version": "1.0", '}, "cannot read the model"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_model_is_one_error_and_nothing_else(
    tiny: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    changes, words = BAD[name]
    with pytest.raises(ConfigurationError, match=re.escape(words)) as raised:
        MlxLLM(model=str(copied(tiny, tmp_path, **changes))).load()
    assert raised.value.hint
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_what_is_no_model_is_one_error(tmp_path: Path) -> None:
    gguf = tmp_path / "some.gguf"
    gguf.write_bytes(b"GGUF" + b"\x03\0\0\0" + b"\0" * 16)
    for model, words in (
        (gguf, "does not read"),
        ("./nowhere", "there is no model"),
        ("nobody/nothing", "the Hugging Face Hub did not give it"),
    ):
        assert_one_error(run("generate", "--prompt", "Hi", "--llm", f"mlx:{model}"), words)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (("context_length", 100000), "supports at most 512 tokens"),
        (("adapter_path", "/nowhere"), "no adapter_config.json"),
        (("chat_template", "/nowhere"), "no template in Jinja2"),
        (("structured_output", {"format": "regex", "schema": "a(?=b)"}), "cannot honour"),
        pytest.param(
            ("device", "gpu"),
            "finds none on this machine",
            marks=pytest.mark.skipif(sys.platform == "darwin", reason="there is one"),
        ),
    ],
)
def test_a_bad_setting_is_one_error(
    tiny: Path, setting: tuple[str, Any], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    name, value = setting
    with pytest.raises((ConfigurationError, UnsupportedError), match=words):
        MlxLLM(model=str(tiny), **{name: value}).load()
    assert capfd.readouterr() == ("", "")


def test_a_chat_without_a_template_is_one_error_and_a_raw_prompt_runs(tiny: Path, tmp_path: Path) -> None:
    model = copied(tiny, tmp_path, file="tokenizer_config.json", chat_template=None)
    assert_one_error(run("generate", "--prompt", "Hi", "--llm", f"mlx:{model}"), "no chat template")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Hi"}\n', encoding="utf-8")
    made = run(
        "generate", rows, "--raw", "--llm", f"mlx:{model}", "--param", "max_new_tokens=2",
        "-o", tmp_path / "out.jsonl",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr


ENDS = """
import sys
from stillhouse import ConfigurationError
from stillhouse_mlx import MlxLLM

llm = MlxLLM(model=sys.argv[1], context_length=int(sys.argv[2]))
try:
    llm.load()
except ConfigurationError:
    pass
if sys.argv[3] == "unloaded":
    llm.unload()
elif sys.argv[3] == "forgotten":
    del llm
"""


@pytest.mark.parametrize(("length", "how"), [(100000, "left"), (100, "forgotten"), (100, "left")])
def test_a_process_ends_in_peace_however_it_leaves_the_model(tiny: Path, how: str, length: int) -> None:
    """MLX aborts a process that ends while one of MLX's threads does; often, but not always."""
    made = run(tiny, length, how, code=ENDS)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")


LIMITED = """
import resource, sys
from stillhouse import ConfigurationError, GenerationError
from stillhouse_mlx import MlxLLM

def said(text):
    return [{"role": "user", "content": text}]

def limit(more):
    pages = int(open("/proc/self/statm").read().split()[0])
    bound = pages * resource.getpagesize() + (more << 20)
    resource.setrlimit(resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))

asked = {"temperature": 0, "max_new_tokens": 4}
"""

TOO_LONG_FOR_MEMORY = (
    LIMITED
    + """
rows = [said("Hi"), said("river " * 4000), said("Ho"), said("a river")]
with MlxLLM(model=sys.argv[1], device="cpu", prefill_step=8192) as llm:
    expected = llm.generate_outputs([rows[0], *rows[2:]], **asked)
    limit(150)
    found = [result for _, result in llm.iter_outputs(rows, on_error="yield", **asked)]
    error = found.pop(1)
    assert isinstance(error, GenerationError), error
    assert error.kind == "server", error
    assert "memory" in str(error), error
    texts = [output["generations"] for output in found]
    assert texts == [output["generations"] for output in expected]
    again = llm.generate_outputs([rows[0], *rows[2:]], **asked)
    assert [output["generations"] for output in again] == texts
print("kept")
"""
)

TOO_MANY_FOR_MEMORY = (
    LIMITED
    + """
rows = [said("river " * 200 + str(number)) for number in range(10)]
with MlxLLM(model=sys.argv[1], device="cpu", prompt_cache=0, batch_size=16) as llm:
    expected = [llm.generate_outputs([row], **asked)[0] for row in rows]
    engine = llm._engine
    one = engine._needs.of_sequences(1, 1024) + engine._needs.of_reading(1, 1024)
    limit(32 + (3 * one >> 20))
    assert llm.generate_outputs(rows, **asked) == expected
print("kept")
"""
)

TOO_LARGE = (
    LIMITED
    + """
from stillhouse_mlx.library import load_library
load_library()
llm = MlxLLM(model=sys.argv[1], device="cpu")
limit(1000)
try:
    llm.load()
except ConfigurationError as error:
    assert "choose a smaller model" in str(error), error
    print("kept")
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize(
    ("code", "model"),
    [
        (TOO_LONG_FOR_MEMORY, {"max_position_embeddings": 32768}),
        (TOO_MANY_FOR_MEMORY, {"max_position_embeddings": 2048}),
    ],
    ids=["a row", "a batch"],
)
def test_memory_that_is_not_there_fails_what_needs_it_and_nothing_else(
    tmp_path: Path, code: str, model: dict[str, Any]
) -> None:
    made = run(tiny_model(tmp_path / "model", **model), code=code)
    assert made.stdout == "kept\n", made.stderr
    assert made.stderr == ""
    assert made.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_model_that_is_too_large_for_the_memory_is_one_error(tiny: Path, tmp_path: Path) -> None:
    model = copied(tiny, tmp_path, file="config.json", intermediate_size=10_000_000)
    weights = model / "model.safetensors"
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        entry["shape"] = [10_000_000 if size == 128 else size for size in entry["shape"]]
        size = 4 * math.prod(entry["shape"])
        entry["data_offsets"] = [end, end := end + size]
    text = json.dumps(header).encode()
    with weights.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)  # nothing is written there, and it takes no room
    made = run(model, code=TOO_LARGE)
    assert (made.stdout, made.stderr) == ("kept\n", "")


DYING = """
import os, signal
from stillhouse_mlx.engine import Sequences
following, steps = Sequences.next, []
def counted(self):
    steps.append(1)
    if len(steps) == 300:
        os.kill(os.getpid(), signal.SIGKILL)
    return following(self)
Sequences.next = counted
from stillhouse.cli import main
main()
"""


def test_a_killed_run_goes_on_and_writes_what_an_undisturbed_one_writes(tiny: Path, tmp_path: Path) -> None:
    assert_a_killed_run_goes_on(
        tmp_path, "--llm", f"mlx:{tiny}", "--set", "device=cpu", "--set", "batch_size=2",
        "--param", "max_new_tokens=40", dying=DYING,
    )  # fmt: skip
