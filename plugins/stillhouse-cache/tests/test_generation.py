"""The cache in use: through every way in which an LLM is called."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, PrivateAttr

from stillhouse import LLM, AsyncLLM, GenerationError, Registry, hookimpl
from stillhouse_cache import CacheHooks

OUTPUT: dict[str, Any] = {
    "generations": ["a \ud800 ß", None],
    "statistics": {"input_tokens": [3], "seconds": [0.1, 1.0]},
    "logprobs": [[[{"token": "a", "logprob": -0.25}, {"token": "b", "logprob": float("-inf")}]], None],
    "finish_reasons": ["stop", "content_filter"],
}


class Async(AsyncLLM):
    output: dict[str, Any] = Field(default_factory=lambda: OUTPUT)
    _seen: list[Any] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return "async"

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        self._seen.append(input)
        return json.loads(json.dumps(self.output))


class Sync(LLM):
    _seen: list[Any] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return "sync"

    def generate(self, inputs: Any, num_generations: int = 1) -> Any:
        self._seen.extend(inputs)
        return [json.loads(json.dumps(OUTPUT)) for _ in inputs]


class Failing(Async):
    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        self._seen.append(input)
        raise GenerationError("no", kind="server")


def chats(count: int) -> list[Any]:
    return [[{"role": "user", "content": f"question {number}"}] for number in range(count)]


def by_generate_outputs(llm: Any, inputs: list[Any]) -> list[Any]:
    return list(llm.generate_outputs(inputs, 2))


def by_iter_outputs(llm: Any, inputs: list[Any]) -> list[Any]:
    return [output for _, output in llm.iter_outputs(inputs, 2)]


def by_agenerate_outputs(llm: Any, inputs: list[Any]) -> list[Any]:
    return list(asyncio.run(llm.agenerate_outputs(inputs, 2)))


def by_aiter_outputs(llm: Any, inputs: list[Any]) -> list[Any]:
    async def collect() -> list[Any]:
        return [output async for _, output in llm.aiter_outputs(inputs, 2)]

    return asyncio.run(collect())


WAYS = [
    (Sync, by_generate_outputs),
    (Sync, by_iter_outputs),
    (Async, by_generate_outputs),
    (Async, by_iter_outputs),
    (Async, by_agenerate_outputs),
    (Async, by_aiter_outputs),
]


@pytest.mark.parametrize(("cls", "way"), WAYS)
def test_the_second_run_generates_nothing_and_gives_the_same(
    registry: Registry, cls: type[LLM], way: Callable[[Any, list[Any]], list[Any]]
) -> None:
    llm: Any = cls()
    llm.use_registry(registry)
    with llm:
        first = way(llm, chats(3))
        assert len(llm._seen) == 3
        second = way(llm, chats(4))
    assert len(llm._seen) == 4
    assert llm._seen[-1] == chats(4)[-1]
    assert second == [OUTPUT] * 4
    assert repr(first) == repr(second[:3])  # types too


def test_changing_a_returned_output_does_not_change_the_cached_one(registry: Registry) -> None:
    llm = Async()
    llm.use_registry(registry)
    with llm:
        for _ in range(3):
            output: Any = llm.generate_outputs(chats(1), 2)[0]
            assert output == OUTPUT
            output["generations"].clear()
            output["logprobs"][0][0][0]["token"] = "changed"
    assert len(llm._seen) == 1


def test_errors_are_not_cached(registry: Registry, hooks: CacheHooks, folder: Path) -> None:
    llm = Failing()
    llm.use_registry(registry)
    with llm:
        for _ in range(2):
            results = [item for _, item in llm.iter_outputs(chats(2), 2, on_error="yield")]
            assert all(isinstance(item, GenerationError) for item in results)
    assert len(llm._seen) == 4
    hooks.close()
    connection = sqlite3.connect(folder / "outputs-1.db")
    assert connection.execute("SELECT count(*) FROM entry").fetchone() == (0,)
    connection.close()


def test_answer_of_another_hook_is_not_cached(registry: Registry) -> None:
    class Other:
        @hookimpl(tryfirst=True)
        def before_generate(self) -> Any:
            return {"generations": ["from elsewhere"], "statistics": {}}

    llm = registry.create("echo")
    with llm:
        registry.register_hooks("other", Other())
        assert llm.generate_outputs(["hello"])[0]["generations"] == ["from elsewhere"]
        registry.unregister_hooks("other")
        assert llm.generate_outputs(["hello"])[0]["generations"] == ["hello"]


def test_an_output_that_json_would_change_is_generated_again(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Async):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            self._seen.append(input)
            return {"generations": ["a", "b"], "statistics": {}, "spans": [(1, 2), (3, 4)]}

    llm = Odd()
    llm.use_registry(registry)
    with llm:
        for _ in range(2):
            output: Any = llm.generate_outputs(chats(2), 2)[0]
            assert output["spans"] == [(1, 2), (3, 4)]
    assert len(llm._seen) == 4
    assert [item.message for item in caplog.records if "JSON" in item.message] == [
        "outputs of Odd hold other values than those of JSON, and are not kept"
    ]


def test_a_setting_assigned_between_runs_counts_at_once(registry: Registry) -> None:
    llm = Async()
    llm.use_registry(registry)
    with llm:
        llm.generate_outputs(chats(1), 2)
        llm.output = {**OUTPUT, "generations": ["new", "newer"]}
        assert llm.generate_outputs(chats(1), 2)[0]["generations"] == ["new", "newer"]
        llm.output = OUTPUT
        assert llm.generate_outputs(chats(1), 2)[0] == OUTPUT
    assert len(llm._seen) == 2


def test_a_setting_assigned_during_a_run_is_not_mixed_up(registry: Registry) -> None:
    llm = Async(max_concurrency=1)
    llm.use_registry(registry)
    other = {**OUTPUT, "generations": ["new", "newer"]}
    with llm:
        for index, _ in llm.iter_outputs(chats(50), 2):
            if index == 0:
                llm.output = other
        for settings in (other, OUTPUT):
            llm.output = settings
            assert llm.generate_outputs(chats(50), 2) == [settings] * 50


def test_cache_hook_is_found_through_its_entry_point(folder: Path) -> None:
    script = (
        "import logging, sys, stillhouse\n"
        "assert not any(name.startswith('stillhouse_cache') for name in sys.modules)\n"
        "with stillhouse.create('echo') as llm:\n"
        "    print(llm.generate_outputs(['hello'])[0]['generations'])\n"
        "hook = [i for i in stillhouse.default_registry().plugins() if i.kind == 'hook' and i.name == 'cache']\n"
        "print([(i.status, i.candidate.distribution, i.reports) for i in hook])\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("STILLHOUSE_")}
    environment["STILLHOUSE_CACHE_DIR"] = str(folder)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, env=environment
    )
    assert result.stderr == ""
    assert result.stdout == "['hello']\n[('loaded', 'stillhouse-cache', [])]\n"
    assert [item.name for item in folder.iterdir()] == ["outputs-1.db"]  # closed, its log written back


def test_the_hook_imports_light() -> None:
    heavy = "sqlite3", "platformdirs", "stillhouse.llm", "pydantic", "asyncio"
    script = f"import sys, stillhouse_cache\nprint([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[]\n", "")
