"""Members that are coroutines and must not be: refused where they are used, and never left unawaited."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from stillhouse import LLM, AsyncLLM, ConfigurationError, GenerateOutput, GenerationError

from ..support import chats

pytestmark = pytest.mark.filterwarnings(
    "error::RuntimeWarning", "error::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def _nothing_unawaited() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield
        gc.collect()


class Base(AsyncLLM):
    @property
    def model_name(self) -> str:
        return "m"

    async def agenerate(self, input: Any, num_generations: int = 1) -> GenerateOutput:
        return {"generations": ["text"] * num_generations, "statistics": {}}


class AsyncLoad(Base):
    async def load(self) -> None:  # type: ignore[override]
        super().load()


class LoadBehindADecorator(Base):
    """What no look at the class shows: a plain function that returns an awaitable."""

    def load(self) -> None:
        async def connect() -> None:
            super(LoadBehindADecorator, self).load()

        return connect()  # type: ignore[return-value]


class PlainOverAsync(AsyncLoad):
    def load(self) -> None:
        super().load()


class AsyncUnload(Base):
    async def unload(self) -> None:  # type: ignore[override]
        super().unload()


@pytest.mark.parametrize("cls", [AsyncLoad, LoadBehindADecorator, PlainOverAsync])
def test_load_that_is_a_coroutine_is_refused(cls: type[AsyncLLM]) -> None:
    llm = cls()
    with pytest.raises(ConfigurationError, match=rf"{cls.__name__}\.load must not be a coroutine") as caught:
        llm.load()
    assert "write it as def load(self)" in caught.value.hint
    assert "self.run_on_loop(coroutine)" in caught.value.hint
    assert not llm.is_loaded


def test_unload_that_is_a_coroutine_is_refused_and_the_loop_ends() -> None:
    llm = AsyncUnload()
    llm.load()
    llm.generate_outputs(chats("a"))
    with pytest.raises(ConfigurationError, match=r"AsyncUnload\.unload must not be a coroutine"):
        llm.unload()
    assert not llm.is_loaded
    assert llm._thread is None


class AsyncGenerate(LLM):
    calls: int = 0

    @property
    def model_name(self) -> str:
        return "m"

    async def generate(self, inputs: Any, num_generations: int = 1) -> Any:  # type: ignore[override]
        self.calls += 1
        return []


def test_generate_that_is_a_coroutine_is_refused() -> None:
    with AsyncGenerate() as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs(chats("a"))
    assert caught.value.message == "AsyncGenerate.generate must not be a coroutine: nobody awaits it"
    assert "derive the class from stillhouse.AsyncLLM" in caught.value.hint


def test_generate_that_is_a_coroutine_stops_a_stream_at_once() -> None:
    taken = []

    def inputs() -> Iterator[Any]:
        for input in chats(*map(str, range(1000))):
            taken.append(input)
            yield input

    with AsyncGenerate() as llm, pytest.raises(GenerationError, match="must not be a coroutine"):
        list(llm.iter_outputs(inputs(), on_error="yield"))
    assert len(taken) == llm.preferred_batch_size


class NamedByAMethod(Base):
    def model_name(self) -> str:  # type: ignore[override]
        return "m"


class NamedByACoroutine(Base):
    @property
    async def model_name(self) -> str:  # type: ignore[override]
        return "m"


@pytest.mark.parametrize(
    ("cls", "problem"),
    [(NamedByAMethod, "is a method, and must be a property"), (NamedByACoroutine, "must not be a coroutine")],
)
def test_model_name_that_is_no_property_is_refused(cls: type[AsyncLLM], problem: str) -> None:
    llm = cls()
    with pytest.raises(ConfigurationError, match=rf"{cls.__name__}\.model_name {problem}"):
        llm.load()
    assert not llm.is_loaded


def test_coroutine_for_load_runs_on_the_loop_of_the_llm() -> None:
    class Connected(Base):
        def load(self) -> None:
            super().load()
            self.run_on_loop(asyncio.sleep(0))

    with Connected() as llm:
        assert llm.generate_outputs(chats("a"))[0]["generations"] == ["text"]


class PlainAgenerate(Base):
    def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        return {"generations": ["text"] * num_generations, "statistics": {}}


class PlainAgenerateOnce(PlainAgenerate):
    _num_generations_param_supported = False


@pytest.mark.parametrize("cls", [PlainAgenerate, PlainAgenerateOnce])
def test_agenerate_that_is_no_coroutine_stops_a_stream_at_once(cls: type[AsyncLLM]) -> None:
    taken = []

    def inputs() -> Iterator[Any]:
        for input in chats(*map(str, range(10_000))):
            taken.append(input)
            yield input

    with cls() as llm, pytest.raises(GenerationError) as caught:
        list(llm.iter_outputs(inputs(), num_generations=2, on_error="yield"))
    assert caught.value.message.endswith("PlainAgenerate.agenerate returned something that cannot be awaited")
    assert caught.value.hint == "write it as async def"
    assert len(taken) < 10_000


def test_type_error_of_a_backend_is_its_own() -> None:
    class Broken(Base):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            return await {}  # type: ignore[misc]

    with Broken() as llm, pytest.raises(GenerationError, match="TypeError: "):
        llm.generate_outputs(chats("a"))
