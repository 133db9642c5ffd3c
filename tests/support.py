"""LLMs that do what their inputs say, and what a test needs to look at them."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

from stillhouse import LLM, AsyncLLM, GenerationError
from stillhouse.inputs import split_input
from stillhouse.outputs import prepare_output
from stillhouse.registry import Registry
from stillhouse.typing import CAPABILITIES, Capability, FormattedInput, GenerateOutput, StandardInput

# Long enough for any machine; nothing is expected to take it.
PATIENCE = 60.0


def chat(text: str = "hello") -> StandardInput:
    return [{"role": "user", "content": text}]


def chats(*texts: str) -> list[FormattedInput]:
    return [chat(text) for text in texts]


def text_of(input: FormattedInput) -> str:
    content, _ = split_input(input)
    return content if isinstance(content, str) else str(content[-1]["content"])


class Calls:
    """What became of each call, and how many were in flight at once."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: list[str] = []
        self.failed: list[str] = []
        self.cancelled: list[str] = []
        self.arguments: list[dict[str, Any]] = []
        self.peak = 0
        self._changed = threading.Condition()

    @property
    def ended(self) -> int:
        return len(self.finished) + len(self.failed) + len(self.cancelled)

    @property
    def in_flight(self) -> int:
        return len(self.started) - self.ended

    @contextmanager
    def call(self, text: str, **arguments: Any) -> Iterator[None]:
        with self._changed:
            self.started.append(text)
            self.arguments.append(arguments)
            self.peak = max(self.peak, self.in_flight)
            self._changed.notify_all()
        outcome = self.finished
        try:
            yield
        except asyncio.CancelledError:
            outcome = self.cancelled
            raise
        except BaseException:
            outcome = self.failed
            raise
        finally:
            with self._changed:
                outcome.append(text)
                self._changed.notify_all()

    def wait_until(self, holds: Callable[[Calls], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self), PATIENCE), vars(self)


class ScriptedLLM(AsyncLLM):
    """Answers with its input. The text of an input says what else happens.

    `wait …` waits until `release()`; `pause …` lets the other calls go on; `fail …` fails; `auth …` fails as a refused key does;
    `wait fail …` waits, then fails.
    """

    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    model: str = "scripted"
    cleanup_steps: int = 0

    _calls: Calls = PrivateAttr(default_factory=Calls)
    _gate: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)

    @property
    def model_name(self) -> str:
        return self.model

    @property
    def calls(self) -> Calls:
        return self._calls

    def release(self) -> None:
        self.event_loop.call_soon_threadsafe(self._gate.set)

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        temperature: float | None = None,
        stop: list[str] | None = None,
    ) -> GenerateOutput:
        """Do what the text says.

        Args:
            input: the input.
            num_generations: how many generations.
            temperature: how far to stray.
            stop: where to stop.
        """
        text = text_of(input)
        with self._calls.call(text, num_generations=num_generations, temperature=temperature, stop=stop):
            await self._act(text)
            return prepare_output([text] * num_generations)

    async def _act(self, text: str) -> None:
        try:
            if text.startswith("wait"):
                await self._gate.wait()
            if text.startswith("pause"):
                await asyncio.sleep(0)
            if "fail" in text:
                raise GenerationError(f"{text} failed", kind="server")
            if "auth" in text:
                raise GenerationError("the key was refused", kind="authentication")
        except asyncio.CancelledError:
            for _ in range(self.cleanup_steps):
                await asyncio.sleep(0)
            raise


class SingleLLM(ScriptedLLM):
    """A backend that makes one generation a call."""

    _num_generations_param_supported: bool = PrivateAttr(default=False)
    _counts: dict[str, int] = PrivateAttr(default_factory=dict)

    async def agenerate(  # type: ignore[override]
        self, input: FormattedInput, temperature: float | None = None
    ) -> GenerateOutput:
        text = text_of(input)
        with self._calls.call(text, temperature=temperature):
            number = self._counts[text] = self._counts.get(text, 0) + 1
            await self._act(text)
            if "third" in text and number == 3:
                raise GenerationError("the third one failed")
            return prepare_output([f"{text} {number}"], [3], [number], finish_reasons=["stop"])


class SyncLLM(LLM):
    """A synchronous backend that writes down which lists of inputs it was given."""

    preferred_batch_size: ClassVar[int] = 4

    model: str = "sync"

    _batches: list[list[str]] = PrivateAttr(default_factory=list)
    _arguments: list[dict[str, Any]] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return self.model

    @property
    def batches(self) -> list[list[str]]:
        return self._batches

    def generate(
        self,
        inputs: list[FormattedInput],
        num_generations: int = 1,
        temperature: float = 1.0,
        stop: list[str] | None = None,
    ) -> list[GenerateOutput]:
        """Answer with the inputs.

        More is not to be said.

        Args:
            inputs: the inputs.
            num_generations: how many generations.
            temperature: how far to stray.
            stop: where to stop.

        Returns:
            The answers.

        Raises:
            GenerationError: an input says so.
        """
        texts = [text_of(input) for input in inputs]
        self._batches.append(texts)
        self._arguments.append({"temperature": temperature, "stop": stop})
        for text in texts:
            if "fail" in text:
                raise GenerationError(f"{text} failed", kind="server")
            if "auth" in text:
                raise GenerationError("the key was refused", kind="authentication")
        return [prepare_output([text] * num_generations) for text in texts]


def in_thread(function: Callable[[], Any]) -> Future[Any]:
    """Start a function in a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def own_threads() -> list[threading.Thread]:
    """The threads of loaded LLMs."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("stillhouse-")]


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a new interpreter, which says everything that it could warn of."""
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Every test ends without a thread of an LLM, and without having set anybody's event loop."""
    policy = asyncio.get_event_loop_policy()
    yield
    if own_threads():
        gc.collect()
    assert own_threads() == []
    assert asyncio.get_event_loop_policy() is policy


@pytest.fixture
def registry() -> Registry:
    """A registry of its own: nothing is installed, nothing registered but `echo`."""
    return Registry(entry_points=[])


def squeezed(text: str) -> str:
    """Return a text with one space for several: where a number stands depends on those below it."""
    return re.sub(" {2,}", " ", text)
