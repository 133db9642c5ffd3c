"""Loading, unloading, copying, and the end of the interpreter."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from pydantic import PrivateAttr

from stillhouse import LLM, AsyncLLM, ConfigurationError, EchoLLM, GenerationError
from stillhouse.outputs import prepare_output

from ..support import PATIENCE, ScriptedLLM, SyncLLM, chats, in_thread, own_threads, run_script, text_of


class CountingLLM(ScriptedLLM):
    """Counts how often its engine is started and stopped."""

    fail: bool = False
    _events: list[str] = PrivateAttr(default_factory=list)

    @property
    def events(self) -> list[str]:
        return self._events

    def load(self) -> None:
        super().load()
        _ = self.event_loop
        self._events.append("load")
        if self.fail:
            raise OSError("no such model")

    def unload(self) -> None:
        self._events.append("unload")
        super().unload()


def test_load_and_unload_are_idempotent() -> None:
    llm = CountingLLM()
    llm.unload()
    assert llm.events == []
    llm.load()
    llm.load()
    assert llm.is_loaded
    llm.unload()
    llm.unload()
    assert not llm.is_loaded
    assert llm.events == ["load", "unload"]


def test_an_unloaded_llm_can_be_loaded_again() -> None:
    llm = CountingLLM()
    for _ in range(3):
        llm.load()
        assert llm.generate_outputs(chats("a"))[0]["generations"] == ["a"]
        llm.unload()
        assert own_threads() == []
    with llm as entered:
        assert entered is llm
        assert llm.is_loaded
    assert not llm.is_loaded
    assert llm.events == ["load", "unload"] * 4


def test_context_manager_unloads_after_an_error() -> None:
    llm = CountingLLM()
    with pytest.raises(KeyError), llm:
        raise KeyError("in the block")
    assert not llm.is_loaded


def test_a_load_that_fails_leaves_nothing_behind() -> None:
    llm = CountingLLM(fail=True)
    for _ in range(2):
        with pytest.raises(OSError, match="no such model"):
            llm.load()
        assert not llm.is_loaded
        assert own_threads() == []
    assert llm.events == ["load", "unload"] * 2
    llm.fail = False
    with llm:
        assert llm.generate_outputs(chats("a"))


def test_an_unload_that_fails_releases_the_loop_all_the_same() -> None:
    class BrokenLLM(ScriptedLLM):
        def unload(self) -> None:
            raise OSError("the engine does not answer")

    llm = BrokenLLM()
    llm.load()
    llm.generate_outputs(chats("a"))
    with pytest.raises(OSError, match="does not answer"):
        llm.unload()
    assert not llm.is_loaded
    assert own_threads() == []


def test_a_backend_that_forgets_super_is_loaded_and_unloaded_all_the_same() -> None:
    class ForgetfulLLM(ScriptedLLM):
        def load(self) -> None:
            pass

        def unload(self) -> None:
            pass

    llm = ForgetfulLLM()
    llm.load()
    assert llm.is_loaded
    assert llm._logger is not None
    assert llm.generate_outputs(chats("a"))
    llm.unload()
    assert not llm.is_loaded
    assert own_threads() == []


def test_load_and_unload_of_a_mixin_are_called_once() -> None:
    class EngineMixin:
        def load(self) -> None:
            self.events.append("load")  # type: ignore[attr-defined]
            super().load()  # type: ignore[misc]

        def unload(self) -> None:
            self.events.append("unload")  # type: ignore[attr-defined]
            super().unload()  # type: ignore[misc]

    class MixedLLM(EngineMixin, SyncLLM):
        _events: list[str] = PrivateAttr(default_factory=list)

        @property
        def events(self) -> list[str]:
            return self._events

    llm = MixedLLM()
    llm.load()
    llm.load()
    llm.unload()
    llm.unload()
    assert llm.events == ["load", "unload"]
    assert not llm.is_loaded


def test_load_from_two_threads_loads_once() -> None:
    begun, go = threading.Event(), threading.Event()

    class SlowLLM(CountingLLM):
        def load(self) -> None:
            begun.set()
            assert go.wait(PATIENCE)
            super().load()

    llm = SlowLLM()
    first = in_thread(llm.load)
    assert begun.wait(PATIENCE)
    second = in_thread(llm.load)
    assert not second.done()
    go.set()
    first.result(PATIENCE)
    second.result(PATIENCE)
    assert llm.events == ["load"]
    assert len(own_threads()) == 1
    llm.unload()


def test_call_during_unload_does_not_restart_the_loop() -> None:
    begun, go = threading.Event(), threading.Event()

    class SlowLLM(ScriptedLLM):
        def unload(self) -> None:
            begun.set()
            assert go.wait(PATIENCE)
            super().unload()

    llm = SlowLLM()
    llm.load()
    unloading = in_thread(llm.unload)
    assert begun.wait(PATIENCE)
    late = in_thread(lambda: llm.event_loop)
    go.set()
    unloading.result(PATIENCE)
    assert isinstance(late.exception(PATIENCE), ConfigurationError)
    assert own_threads() == []


def test_a_coroutine_may_ask_for_its_loop_while_it_is_unloaded() -> None:
    class CarefulLLM(ScriptedLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            try:
                return await super().agenerate(input, num_generations)
            finally:
                assert self.event_loop is asyncio.get_running_loop()

    llm = CarefulLLM()
    llm.load()
    future = in_thread(lambda: llm.generate_outputs(chats("wait")))
    llm.calls.wait_until(lambda calls: calls.in_flight == 1)
    in_thread(llm.unload).result(PATIENCE)
    assert isinstance(future.exception(PATIENCE), GenerationError)


def test_an_llm_that_is_forgotten_while_loaded_takes_its_thread_with_it() -> None:
    import gc

    llm = ScriptedLLM()
    llm.load()
    llm.generate_outputs(chats("a"))
    assert len(own_threads()) == 1
    kept = [llm]
    del llm

    def forget() -> None:
        kept.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="ScriptedLLM was loaded here and not unloaded"):
        forget()
    assert own_threads() == []


# Copies


class PlainLLM(AsyncLLM):
    model: str

    @property
    def model_name(self) -> str:
        return self.model

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        return prepare_output([text_of(input)] * num_generations)


@pytest.mark.parametrize("kind", [PlainLLM, SyncLLM, EchoLLM])
@pytest.mark.parametrize(
    "clone",
    [
        pytest.param(lambda llm: pickle.loads(pickle.dumps(llm)), id="pickle"),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda llm: llm.model_copy(), id="model_copy"),
    ],
)
def test_an_llm_that_is_not_loaded_can_be_copied(kind: Any, clone: Any) -> None:
    llm = kind(model="m")
    fresh = clone(llm)
    with llm:  # it has been in use
        llm.generate_outputs(chats("a"))
    used = clone(llm)
    for other in (fresh, used):
        assert other == llm
        assert other is not llm
        with llm, other:
            assert other.generate_outputs(chats("a"))[0]["generations"] == ["a"]
            other.unload()
            assert llm.is_loaded
            assert llm.generate_outputs(chats("b"))[0]["generations"] == ["b"]


@pytest.mark.parametrize(
    "clone", [pickle.dumps, copy.copy, copy.deepcopy, lambda llm: llm.model_copy()], ids=str
)
def test_a_loaded_llm_says_why_it_cannot_be_copied(clone: Any) -> None:
    with ScriptedLLM() as llm:
        with pytest.raises(TypeError, match=r"call unload\(\) first"):
            clone(llm)
        assert llm.generate_outputs(chats("a"))


def test_a_copy_keeps_its_registry(registry: Any) -> None:
    llm = registry.create("echo")
    for other in (copy.copy(llm), copy.deepcopy(llm)):
        assert other.registry is registry


# The interpreter

PREAMBLE = """
import asyncio, json, os, signal, sys, threading
from stillhouse import AsyncLLM, EchoLLM, GenerationError, ConfigurationError

started, cancelled, ended = [], [], []
all_started = threading.Event()

class WaitingLLM(AsyncLLM):
    @property
    def model_name(self):
        return "waiting"

    async def agenerate(self, input, num_generations=1):
        text = input[-1]["content"]
        if text != "wait":
            return {"generations": [text] * num_generations, "statistics": {}}
        started.append(text)
        if len(started) == 8:
            all_started.set()
            print("started", flush=True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(text)
            await asyncio.sleep(0.01)
            ended.append(text)
            raise

def chats(*texts):
    return [[{"role": "user", "content": text}] for text in texts]

llm = WaitingLLM()
"""

ENDINGS = {
    "loaded": "llm.load(); llm.generate_outputs(chats('a'))",
    "loaded and idle": "llm.load()",
    "within with": "llm.__enter__().generate_outputs(chats('a'))",
    "an iterator half used": (
        "llm.load(); results = llm.iter_outputs(chats('a', *['wait'] * 8)); next(results); all_started.wait()"
    ),
    "a daemon thread that generates": """
llm.load()
def work():
    try:
        llm.generate_outputs(chats(*["wait"] * 8))
    except (GenerationError, ConfigurationError):
        pass
threading.Thread(target=work, daemon=True).start()
all_started.wait()
""",
    "after an error": """
llm.load()
try:
    llm.generate_outputs([*chats("a"), 5])
except ConfigurationError:
    pass
""",
    "several": "llms = [EchoLLM() for _ in range(20)]\nfor llm in llms: llm.load(); llm.generate_outputs(chats('a'))",
    "an abandoned asynchronous iterator": """
async def main():
    async for item in llm.aiter_outputs(chats("a", *["wait"] * 8)):
        break
    await asyncio.to_thread(all_started.wait)
llm.load()
asyncio.run(main())
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_exits_cleanly_with_a_loaded_llm(ending: str) -> None:
    done = run_script(PREAMBLE + ENDINGS[ending])
    assert done.returncode == 0, done.stderr
    assert_nothing_but_ours(done.stderr)


def assert_nothing_but_ours(stderr: str) -> None:
    """There is the warning that an LLM was not unloaded, and nothing else."""
    line, *source = stderr.splitlines()
    assert "LLM was loaded here and not unloaded" in line
    # From 3.13 on, Python knows the line of a script that it was given as an argument.
    assert len(source) <= 1
    assert all(text.startswith("  ") for text in source)


def test_interpreter_exit_unloads_loaded_llms() -> None:
    """A backend may hold more than a loop: a process, an entry in a map."""
    done = run_script(
        """
from stillhouse import LLM

class EngineLLM(LLM):
    model: str
    @property
    def model_name(self):
        return self.model
    def generate(self, inputs, num_generations=1):
        return []
    def unload(self):
        print("unloaded", self.model)
        if self.model == "broken":
            raise OSError

llms = [EngineLLM(model=name) for name in ("broken", "first", "second", "never loaded")]
for llm in llms[:3]:
    llm.load()
"""
    )
    assert done.returncode == 0
    assert_nothing_but_ours(done.stderr)
    assert sorted(done.stdout.splitlines()) == ["unloaded broken", "unloaded first", "unloaded second"]


INTERRUPTED = {
    "generate_outputs": "llm.generate_outputs(chats(*['wait'] * 8))",
    "iter_outputs": "list(llm.iter_outputs(chats(*['wait'] * 8)))",
    "agenerate_outputs": "asyncio.run(llm.agenerate_outputs(chats(*['wait'] * 8)))",
    "aiter_outputs": """
async def main():
    async for item in llm.aiter_outputs(chats(*["wait"] * 8)):
        pass
asyncio.run(main())
""",
    "inside a running loop": """
async def main():
    llm.generate_outputs(chats(*["wait"] * 8))
main().send(None)
""",
}


@pytest.mark.skipif(sys.platform == "win32", reason="a process is interrupted differently there")
@pytest.mark.parametrize("how", INTERRUPTED)
def test_ctrl_c_ends_the_calls_in_flight_and_is_raised(how: str) -> None:
    body = "\n".join("    " + line for line in INTERRUPTED[how].strip().splitlines())
    script = f"""{PREAMBLE}
signal.signal(signal.SIGINT, signal.default_int_handler)
llm.load()
try:
{body}
except KeyboardInterrupt:
    at_once = [len(started), len(cancelled), len(ended)]
    again = llm.generate_outputs(chats("again"))
    print(json.dumps([at_once, again[0]["generations"]]), flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "default", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert_nothing_but_ours(errors)
    assert process.returncode == 0
    assert json.loads(output) == [[8, 8, 8], ["again"]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_loaded_llm_in_a_forked_child_must_be_loaded_again() -> None:
    script = (
        PREAMBLE
        + """
import warnings
warnings.simplefilter("ignore")  # newer interpreters warn of forking with threads
llm.load()
llm.generate_outputs(chats("a"))
child = os.fork()
if child == 0:
    calls = [
        lambda: llm.generate_outputs(chats("b")),
        lambda: list(llm.iter_outputs(chats("b"))),
        lambda: asyncio.run(llm.agenerate_outputs(chats("b"))),
    ]
    for call in calls:
        try:
            call()
        except ConfigurationError as error:
            print(error.message, "|", error.hint, flush=True)
    llm.unload()
    llm.load()
    print(llm.generate_outputs(chats("child"))[0]["generations"], flush=True)
    llm.unload()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(llm.generate_outputs(chats("parent"))[0]["generations"])
"""
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr
    *reports, child, parent = done.stdout.splitlines()
    assert len(reports) == 3
    for report in reports:
        assert "another process" in report
        assert "load it after forking" in report
    assert (child, parent) == ("['child']", "['parent']")


MEMORY = """
import gc, json, sys
import psutil
from stillhouse import AsyncLLM

class QuickLLM(AsyncLLM):
    @property
    def model_name(self):
        return "quick"

    async def agenerate(self, input, num_generations=1):
        return {"generations": [input[-1]["content"]], "statistics": {"output_tokens": [1]}}

pulled = ahead = 0

def inputs(count):
    global pulled
    for pulled in range(1, count + 1):
        yield [{"role": "user", "content": f"question {pulled}"}]

def resident(count):
    global ahead
    total = 0
    for index, output in llm.iter_outputs(inputs(count)):
        total += 1
        if pulled - total > ahead:
            ahead = pulled - total
    assert total == count and output["generations"] == [f"question {count}"]
    gc.collect()
    return psutil.Process().memory_info().rss

with QuickLLM(max_concurrency=64) as llm:
    few = resident(10_000)
    many = resident(int(sys.argv[1]))
print(json.dumps([few, many, ahead]))
"""


@pytest.mark.parametrize("count", [200_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_a_million_inputs_take_the_memory_of_ten_thousand(count: int) -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY, str(count)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    few, many, ahead = json.loads(done.stdout)
    # One pointer kept for each input would already make twice that.
    assert many - few < 4 * count
    assert ahead <= 64 * 17


def test_nothing_is_loaded_or_discovered_by_the_import() -> None:
    done = run_script(
        "import sys, threading, stillhouse\n"
        "assert threading.active_count() == 1\n"
        "print([name for name in ('pydantic', 'importlib_metadata', 'asyncio') if name in sys.modules])"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_model_name_is_only_asked_for_by_load() -> None:
    class NamelessLLM(AsyncLLM):
        @property
        def model_name(self) -> str:
            raise AssertionError("asked too early")

        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            return prepare_output(["x"])

    llm: LLM = NamelessLLM()
    repr(llm)
    pickle.dumps(EchoLLM())
    with pytest.raises(AssertionError, match="too early"):
        llm.load()
    assert not llm.is_loaded
