"""The engine of one LLM: started, asked, started again when it has died, and ended."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stillhouse import ConfigurationError, GenerationError
from stillhouse.local import too_long, unloaded
from stillhouse.typing import OnPiece
from stillhouse_vllm.failures import died, failure, gave_up, not_started
from stillhouse_vllm.launch import Launch
from stillhouse_vllm.library import Library

__all__ = ["Engine", "Settings"]

_MAX_DEATHS = 3
"""How often in a row an engine may die without having answered anything in between."""


@dataclass(frozen=True)
class Settings:
    """How to start an engine.

    Attributes:
        arguments: those of vLLM's `AsyncEngineArgs`.
        environment: variables of its processes, `None` for one that they must not have.
        verbose: whether what they log goes to standard error.
        lora: vLLM's request for the adapter to generate with.
    """

    arguments: Mapping[str, Any]
    environment: Mapping[str, str | None] = field(default_factory=dict)
    verbose: bool = False
    lora: Any = None


class Engine:
    """A running engine. What is asynchronous belongs on one event loop.

    Constructing it starts the engine, which takes as long as loading the model.

    Raises:
        ConfigurationError: the engine did not start; it says why in the engine's own words.
    """

    def __init__(self, library: Library, settings: Settings) -> None:
        self.library = library
        self._settings = settings
        self._launch: Launch
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asking: set[asyncio.Task[Any]] = set()
        self._lost: set[asyncio.Task[Any]] = set()
        self._ended: Any = None
        self._closed = False
        self._deaths = 0
        self._number = 0
        self._core = self._start()
        # Before `multiprocessing` waits at exit for processes that nobody has told to end.
        self._at_exit = functools.partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)
        config = self._core.model_config
        self.tokenizer = self._core.get_tokenizer()
        self.context = int(config.max_model_len)
        self.vocabulary_size = int(config.get_vocab_size())
        self.max_logprobs = int(config.max_logprobs)
        self.defaults: dict[str, Any] = config.get_diff_sampling_param()
        """What the model's `generation_config.json` says about sampling."""

    def _start(self) -> Any:
        self._launch = launch = Launch(
            self.library, self._settings.arguments, self._settings.environment, self._settings.verbose
        )
        try:
            core = launch.start()
        except (ConfigurationError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise not_started(error, launch.reason()) from error
        if self._closed:
            shut_down(core)
            raise unloaded()
        return core

    async def warm_up(self) -> None:
        """Generate a token: what does not work at all is said before the first row."""
        self._watch()
        params = self.library.sampling(max_tokens=1, temperature=0.0, output_kind=self.library.final)
        await self.generate([0], params)

    async def generate(self, tokens: list[int], params: Any, on_piece: OnPiece | None = None) -> Any:
        """Return the engine's answer to a prompt: a `RequestOutput` of vLLM, finished.

        A cancelled call, or one whose `on_piece` raises, ends the request in the engine.

        Args:
            tokens: the prompt.
            params: `SamplingParams` of vLLM, which belong to this call alone, with `final` as their
                kind of output, or `deltas`.
            on_piece: takes the texts of the deltas.

        Raises:
            GenerationError: the prompt is too long, the engine refused the request, or it died.
        """
        if len(tokens) >= self.context:
            raise too_long(len(tokens), self.context - 1, "max_model_len")
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._is_dead(self._core) or self._closed:
                await self._revived()
            return await self._answer(task, tokens, params, on_piece)
        except asyncio.CancelledError:
            if self._closed:
                raise unloaded() from None
            raise
        finally:
            self._tasks.discard(task)

    async def _answer(
        self, task: asyncio.Task[Any], tokens: list[int], params: Any, on_piece: OnPiece | None
    ) -> Any:
        core, launch = self._core, self._launch
        try:
            answer = await self._asked(task, core, tokens, params, on_piece)
        except asyncio.CancelledError:
            if self._closed or task not in self._lost or task.uncancel():
                raise
            raise await _death(core, launch) from None
        except Exception as error:
            if self._closed:
                raise unloaded() from error
            if self._is_dead(core) or type(error).__name__ == "EngineDeadError":
                raise await _death(core, launch) from error
            raise failure(error) from error
        finally:
            self._lost.discard(task)
        self._deaths = 0
        return answer

    async def _asked(
        self,
        task: asyncio.Task[Any],
        core: Any,
        tokens: list[int],
        params: Any,
        on_piece: OnPiece | None,
    ) -> Any:
        self._asking.add(task)
        try:
            self._number += 1
            prompt, lora = self.library.make_prompt(tokens), self._settings.lora
            answers = core.generate(prompt, params, str(self._number), lora_request=lora)
            answer: Any = None
            async with contextlib.aclosing(answers):  # else a request that is left would go on
                async for item in answers:
                    if on_piece is not None and item.outputs[0].text:
                        on_piece(item.outputs[0].text)
                    if answer is None:
                        answer = item
                    else:
                        answer.add(item, aggregate=True)
            if answer is None:
                raise RuntimeError("it returned no answer")
            return answer
        finally:
            self._asking.discard(task)  # who knows of the death need not be told

    def _is_dead(self, core: Any) -> bool:
        return core is self._ended or bool(core.errored)

    def _watch(self) -> None:
        """Be told when a process of the engine ends.

        The library tells those who wait for an answer itself, but not always: not if the process ends
        before the library has begun to listen to it, which it does with the first request.
        """
        loop = asyncio.get_running_loop()
        for process in processes_of(self._core):
            loop.add_reader(process.sentinel, self._on_death, self._core)

    def _unwatch(self, core: Any) -> None:
        """The end of `_watch`, before the library closes what is watched."""
        loop = asyncio.get_running_loop()
        for process in processes_of(core):
            loop.remove_reader(process.sentinel)

    def _on_death(self, core: Any) -> None:
        self._unwatch(core)
        self._ended = core
        for task in self._asking - self._lost:
            self._lost.add(task)
            task.cancel()

    async def _revived(self) -> None:
        """Start the engine again if it has died; calls that find it dead wait for one start."""
        async with self._lock:
            core = self._core
            if self._closed:
                raise unloaded()
            if not self._is_dead(core):
                return
            if self._deaths >= _MAX_DEATHS:
                raise gave_up(self._deaths, self._launch.reason(), exit_codes(core))
            self._deaths += 1
            self._unwatch(core)
            await asyncio.to_thread(shut_down, core)
            await release(core)
            try:
                self._core = await asyncio.to_thread(self._start)
            except ConfigurationError as error:
                raise GenerationError(
                    f"the engine died and could not be restarted: {error.message}",
                    kind="server",
                    hint=error.hint,
                    stops_run=True,
                ) from error
            if not self._closed:
                self._watch()

    async def stop(self) -> None:
        """End the calls under way, as the beginning of `close`."""
        self._closed = True
        self._unwatch(self._core)
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def release(self) -> None:
        """Release what is left of an engine that was closed, as the end of `close`."""
        await release(self._core)

    def close(self) -> None:
        """End the engine's processes, and wait until they have ended. It blocks, and needs the loop."""
        self._closed = True
        atexit.unregister(self._at_exit)
        if self._lock.locked():  # it is being started
            self._launch.cancel()
        shut_down(self._core)
        self._launch.close()


def shut_down(core: Any) -> None:
    """End the processes of an engine; it blocks."""
    core.shutdown()
    # Its destructor would do it again, at the end of the interpreter without what it needs.
    core.shutdown = _nothing


async def release(core: Any) -> None:
    """Close what is left of an engine that was shut down: its task, its threads and its open files.

    It is called on the loop, which has closed the engine's sockets by then.
    """
    handler = getattr(core, "output_handler", None)
    if handler is not None:
        handler.cancel()
        await asyncio.wait([handler])
    context = getattr(getattr(core.engine_core, "resources", None), "ctx", None)
    if context is not None:
        context.destroy(linger=0)


def _nothing() -> None:
    pass


def _close(reference: weakref.ref[Engine]) -> None:
    engine = reference()
    if engine is not None:
        engine.close()


def exit_codes(core: Any) -> list[int]:
    """With which codes processes of an engine ended, below 0 for a signal; none if that is unknown."""
    codes = (process.exitcode for process in processes_of(core))
    return [code for code in codes if code is not None]


def processes_of(core: Any) -> list[Any]:
    """The main processes of an engine; those that they have themselves are not among them."""
    manager = getattr(getattr(core.engine_core, "resources", None), "engine_manager", None)
    return list(getattr(manager, "processes", ()))


async def _death(core: Any, launch: Launch) -> GenerationError:
    return died(await asyncio.to_thread(launch.reason), exit_codes(core))
