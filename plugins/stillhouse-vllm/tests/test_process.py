"""The engine's processes: they die and are started again, and none outlives whoever started it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine_commands
import psutil
import pytest
from engine_commands import COMMAND, assert_one_error, environment
from small_models import tiny_model

from stillhouse import ConfigurationError, GenerationError
from stillhouse.cli.app import app
from stillhouse_vllm import VLLM
from stillhouse_vllm.engine import Engine

from .conftest import SMALL

LONG: dict[str, Any] = {"max_new_tokens": 450, "temperature": 0, "extra_body": {"ignore_eos": True}}
SHORT: dict[str, Any] = {"max_new_tokens": 4, "temperature": 0}


# As somebody writes it who has not read anything: everything at the top of a file.
SCRIPT = """
import json, os, signal, sys
import psutil
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
from stillhouse_vllm import VLLM
environment, folder = dict(os.environ), os.getcwd()
print("begins", flush=True)
llm = VLLM(model=sys.argv[1], **json.loads(sys.argv[2]))
llm.load()
assert dict(os.environ) == environment
print(json.dumps([child.pid for child in psutil.Process().children(recursive=True)]), flush=True)
print(llm.generate_outputs(["Hi"], max_new_tokens=4, temperature=0)[0]["finish_reasons"], flush=True)
sys.stdin.readline()
llm.generate_outputs(["Hi"] * 64, max_new_tokens=450, extra_body={"ignore_eos": True})
"""


@contextlib.contextmanager
def script(tmp_path: Path, model: Path) -> Iterator[subprocess.Popen[str]]:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(file), str(model), json.dumps(SMALL)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def blocks_interrupts(pid: int) -> bool:
    """Whether a process never sees SIGINT: it is blocked, or ignored as by what looks after shared memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [int(status.split(name)[1].split()[0], 16) for name in ("SigBlk:", "SigIgn:")]
    return any(mask >> (signal.SIGINT - 1) & 1 for mask in masks)


def assert_gone(pids: list[int], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if lives(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, [psutil.Process(pid).cmdline() for pid in left]


def test_a_plain_script_works_and_its_engine_ends_with_it_when_it_is_killed(
    tiny: Path, tmp_path: Path
) -> None:
    with script(tmp_path, tiny) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "begins\n"
        pids = json.loads(process.stdout.readline())
        assert len(pids) >= 2
        assert process.stdout.readline() == "['length']\n"
        # An interrupt at the terminal goes to all of them, and is for the user's process alone.
        assert all(map(blocks_interrupts, pids))
        process.stdin.write("\n")
        process.stdin.flush()
        process.kill()
        rest, errors = process.communicate(timeout=60)
        assert rest == ""  # the script was run once
        assert "Error" not in errors
        assert_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.soak)])
def test_nothing_is_left_of_an_engine_whose_start_is_interrupted(
    tiny: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with script(tmp_path, tiny) as process:
        own, pids = psutil.Process(process.pid), []
        end = time.monotonic() + 120
        while len(pids) < 2 and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
            pids = [child.pid for child in own.children(recursive=True)]
        assert len(pids) >= 2  # the engine, and the one that looks after shared memory
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
        assert_gone(pids)


run = functools.partial(engine_commands.run, timeout=300)


def set_fields() -> list[str]:
    return [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]


def test_bad_models_are_one_error_and_nothing_else(tiny: Path, tmp_path: Path) -> None:
    asked = ("generate", "--prompt", "Hi", "--llm")
    assert_one_error(run(*asked, f"vllm:{tmp_path}"), "has no config.json")
    (tmp_path / "some.gguf").write_bytes(b"GGUF" + b"\x03\0\0\0")
    assert_one_error(run(*asked, f"vllm:{tmp_path}/some.gguf"), "GGUF")
    config = json.loads((tiny / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    for file in tiny.glob("token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert_one_error(run(*asked, f"vllm:{tmp_path}"), "NoSuchModel")


def refused(llm: VLLM) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as raised:
        llm.load()
    return raised.value


@pytest.mark.parametrize(
    ("fields", "words", "hint"),
    [
        ({"max_model_len": 99999}, "max_model_len", ""),
        ({"engine_args": {"max_logprob": 3}}, "max_logprob", "max_logprobs"),
        ({"kv_cache_memory": 99999}, "Available memory", "kv_cache_memory"),
        ({"kv_cache_memory": 1e-5}, "memory", "kv_cache_memory"),
        ({"cuda_devices": [7]}, "cuda_devices is", "auto"),
        ({"tokenizer": "no/such/folder"}, "no/such/folder", ""),
    ],
)
def test_what_cannot_be_is_one_error_of_the_loading_in_the_engines_words(
    fast_start: None, tiny: Path, fields: dict[str, Any], words: str, hint: str
) -> None:
    error = refused(VLLM(model=str(tiny), **{**SMALL, **fields}))
    assert words in error.message
    assert "Traceback" not in error.message
    assert hint in (error.hint or "")


def test_a_model_that_the_engine_loads_and_cannot_run_is_an_error_of_the_loading(
    fast_start: None, tmp_path: Path
) -> None:
    """On a CPU, of a size of heads for which the engine has no code: it dies of the first token."""
    error = refused(VLLM(model=str(tiny_model(tmp_path / "odd")), **SMALL))
    assert "cannot generate: the engine died: RuntimeError" in error.message
    assert "head" in error.message


@pytest.mark.soak
def test_more_memory_than_there_is_is_said_in_the_engines_words(tiny: Path) -> None:
    made = run("generate", "--prompt", "Hi", "--llm", f"vllm:{tiny}", "--set", "kv_cache_memory=99999")
    assert_one_error(made, "Available memory")
    assert "kv_cache_memory" in made.stderr


# Engines that die.


@pytest.fixture(scope="module")
def fresh(fast_start: None, tiny: Path) -> Iterator[VLLM]:
    with VLLM(model=str(tiny), **SMALL) as llm:
        yield llm


def core_of(llm: VLLM) -> int:
    """The number of the engine's main process."""
    assert llm._engine is not None
    return int(llm._engine._core.engine_core.resources.engine_manager.processes[0].pid)


def busy(llm: VLLM) -> None:
    """Wait until the engine has something to do."""
    assert llm._engine is not None
    while not llm._engine._core.output_processor.get_num_unfinished_requests():
        time.sleep(0.005)


def test_a_killed_engine_fails_what_is_under_way_and_the_next_call_starts_another(fresh: VLLM) -> None:
    expected = fresh.generate_outputs(["Hi"], **SHORT)
    first = core_of(fresh)
    tree = [first, *(child.pid for child in psutil.Process(first).children(recursive=True))]

    def kill() -> None:
        busy(fresh)
        os.kill(first, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    fresh.max_concurrency = 8
    outputs = [output for _, output in fresh.iter_outputs(["Hi"] * 24, on_error="yield", **LONG)]
    killer.join()
    failed = [output for output in outputs if isinstance(output, GenerationError)]
    # Those that were under way; the run itself went on, with another engine.
    assert 1 <= len(failed) <= 8
    assert {(error.kind, error.stops_run) for error in failed} == {("server", False)}
    assert all("SIGKILL" in error.message for error in failed)
    assert len(outputs) == 24
    assert core_of(fresh) != first
    assert fresh.generate_outputs(["Hi"], **SHORT) == expected
    assert_gone(tree)


def test_an_engine_that_dies_again_and_again_stops_the_run(
    fresh: VLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []
    start = Engine._start

    def start_and_die(self: Engine) -> Any:
        core = start(self)
        starts.append(core.engine_core.resources.engine_manager.processes[0].pid)
        os.kill(starts[-1], signal.SIGKILL)
        return core

    monkeypatch.setattr(Engine, "_start", start_and_die)
    os.kill(core_of(fresh), signal.SIGKILL)
    errors: list[GenerationError] = []
    while not (errors and errors[-1].stops_run) and len(errors) < 10:
        with pytest.raises(GenerationError) as raised:
            fresh.generate_outputs(["Hi"], **SHORT)
        errors.append(raised.value)
    assert {error.kind for error in errors} == {"server"}
    assert "in a row" in errors[-1].message
    assert len(starts) == 3
    monkeypatch.undo()
    fresh.unload()
    fresh.load()
    assert fresh.generate_outputs(["Hi"], **SHORT)[0]["finish_reasons"] == ["length"]


def test_a_start_that_fails_while_the_run_goes_on_stops_it_with_the_reason(
    fresh: VLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Engine) -> Any:
        raise ConfigurationError("there is no room", hint="make some")

    os.kill(core_of(fresh), signal.SIGKILL)
    monkeypatch.setattr(Engine, "_start", fail)
    errors = []
    for _ in range(2):
        with pytest.raises(GenerationError) as raised:
            fresh.generate_outputs(["Hi"], **SHORT)
        errors.append(raised.value)
    assert errors[-1].stops_run
    assert "no room" in errors[-1].message
    monkeypatch.undo()
    assert fresh.generate_outputs(["Hi"], **SHORT)[0]["finish_reasons"] == ["length"]


def test_unloading_ends_what_is_under_way(fresh: VLLM) -> None:
    core = core_of(fresh)
    results: list[Any] = []

    def generate() -> None:
        try:
            results.append(fresh.generate_outputs(["Hi"] * 4, **LONG))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=generate)
    thread.start()
    busy(fresh)
    fresh.unload()
    thread.join(30)
    assert isinstance(results[0], GenerationError | ConfigurationError)
    assert "unloaded" in str(results[0])
    assert_gone([core])
    fresh.load()
    assert fresh.generate_outputs(["Hi"], **SHORT)[0]["finish_reasons"] == ["length"]


# Runs that are interrupted.


def test_a_run_whose_engine_is_killed_goes_on_and_is_made_whole(
    fast_start: None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = tmp_path / "questions.jsonl"
    rows = [{"id": row, "prompt": f"{row} " + "river " * (1 + row % 9)} for row in range(24)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    engines: list[Engine] = []
    start = Engine._start

    def started(self: Engine) -> Any:
        engines.append(self)
        return start(self)

    monkeypatch.setattr(Engine, "_start", started)

    def generate(output: str, *options: str) -> int:
        command = [
            "generate", questions, "--llm", f"vllm:{tiny}", *set_fields(), "--max-concurrency", "4",
            "--param", "temperature=0", "--param", "max_new_tokens=60",
            "--param", 'extra_body={"ignore_eos": true}', "-o", tmp_path / output, *options,
        ]  # fmt: skip
        with pytest.raises(SystemExit) as exited:
            app([str(part) for part in command], prog_name="stillhouse")
        return int(exited.value.code or 0)

    def kill() -> None:
        while len(engines) < 2 or engines[-1]._number < 12:
            time.sleep(0.005)
        os.kill(engines[-1]._core.engine_core.resources.engine_manager.processes[0].pid, signal.SIGKILL)

    assert generate("whole.jsonl") == 0
    killer = threading.Thread(target=kill)
    killer.start()
    assert generate("killed.jsonl") != 0
    killer.join()
    written = [json.loads(line) for line in (tmp_path / "killed.jsonl").read_text().splitlines()]
    failed = [row["error"] for row in written if row["error"] is not None]
    assert len(written) == len(rows)
    assert 1 <= len(failed) <= 4
    assert all("SIGKILL" in json.dumps(error) for error in failed)
    assert engines[-1] is engines[-2]  # the run went on, with the same LLM and another engine
    assert generate("killed.jsonl", "--retry", "server") == 0
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_goes_on_and_writes_what_an_undisturbed_one_writes(
    small: Path, tmp_path: Path, number: signal.Signals
) -> None:
    rows = [{"id": row, "prompt": "river " * (1 + row % 9)} for row in range(48)]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = [
        "generate", questions, "--llm", f"vllm:{small}", *set_fields(), "--param", "temperature=0",
        "--param", "max_new_tokens=40", "--max-concurrency", "4", "-o",
    ]  # fmt: skip
    whole = run(*asked, tmp_path / "whole.jsonl")
    assert whole.returncode == 0, whole.stderr
    output = tmp_path / "stopped.jsonl"
    # As at a terminal, where an interrupt goes to the engine's processes, too.
    with subprocess.Popen(
        [*COMMAND, *map(str, [*asked, output])],
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment(),
    ) as process:
        own = psutil.Process(process.pid)
        while not list(tmp_path.glob("*stopped*")) and process.poll() is None:
            time.sleep(0.05)
        children: list[int] = []
        while len(children) < 3 and process.poll() is None:
            time.sleep(0.05)
            children = [child.pid for child in own.children(recursive=True)]
        while process.poll() is None and sum(child.cpu_times().user for child in own.children(True)) < 30:
            time.sleep(0.05)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=120)
        assert b"Traceback" not in errors, errors
        assert_gone(children)
    again = run(*asked, output)
    assert again.returncode == 0, again.stderr
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
