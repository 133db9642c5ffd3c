"""The contract of backends that serve many inputs at once: `AsyncLLM`.

Over 300 lines: the contract is one class, and most lines document its members.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from abc import abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Any, TypeVar, cast

from pydantic import Field, PrivateAttr

from stillhouse._execution.arguments import check_num_generations
from stillhouse._execution.call import Call, Finished, OnError, finish_group
from stillhouse._execution.claims import claimed, offered
from stillhouse._execution.list_outputs import Outputs
from stillhouse._execution.loop_thread import LoopThread
from stillhouse._execution.order import Order
from stillhouse._execution.own_arguments import calls_with_own_arguments, have_arguments
from stillhouse._execution.pump import aopen_pump, open_pump
from stillhouse._execution.share import share
from stillhouse._execution.slots import Slots, inside
from stillhouse._execution.streaming import aon_loop, apieces_of, on_loop, pieces_of
from stillhouse._execution.window import WindowSettings
from stillhouse._settings.generation import implementations
from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.errors import (
    ConfigurationError,
    GenerationError,
    OfflineBatchNotFinishedError,
)
from stillhouse.llm import LLM
from stillhouse.typing import FormattedInput, GenerateOutput, OnPiece, StreamItem

__all__ = ["AsyncLLM"]

T = TypeVar("T")


class AsyncLLM(LLM):
    """An `LLM` whose backend handles one input in a coroutine.

    A backend implements `model_name` and `agenerate`. Every loaded `AsyncLLM` has its own event loop in its
    own thread. So it works inside a running event loop (in a notebook or a server) and from several threads
    at once, and no other loop is affected.
    """

    max_concurrency: RuntimeParameter[int] = Field(
        default=64, ge=1, description="Maximum number of inputs in flight."
    )

    _num_generations_param_supported: bool = PrivateAttr(default=True)
    _thread: LoopThread | None = PrivateAttr(default=None)
    _slots: Slots = PrivateAttr(default_factory=Slots)

    @classmethod
    def supports_num_generations(cls) -> bool:
        """Whether `agenerate` accepts `num_generations`.

        If not (`_num_generations_param_supported` is False), it is called once for each generation, with the
        `seed` raised by one each time, and the results are merged in that order.
        """
        return bool(cls.__private_attributes__["_num_generations_param_supported"].default)

    @property
    def makes_several(self) -> bool:
        """Whether one call of this LLM's `agenerate` can make several generations.

        The class decides it (`supports_num_generations`), unless the LLM sets
        `_num_generations_param_supported` in its `load`.
        """
        return self._num_generations_param_supported

    @classmethod
    def _generate_methods(cls) -> tuple[Any, ...]:
        return implementations(cls, "agenerate")

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of this LLM, which runs in its own thread."""
        return self._loop_thread().loop

    def require_loaded(self) -> None:
        """Raise a `ConfigurationError` unless the LLM is loaded in this process."""
        super().require_loaded()
        if self._thread is not None and not self._thread.is_own:
            raise ConfigurationError(
                f"{type(self).__name__} was loaded in another process, from which this one was forked",
                hint="unload() and load() it here, or load it after forking",
            )

    def run_on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this LLM's loop, such as one that opens a connection, and wait for its result.

        Use it in `load` and `unload`; coroutines that `agenerate` awaits run on that loop already.
        """
        return self._loop_thread().run(coroutine)

    def _loop_thread(self) -> LoopThread:
        thread = self._thread
        if thread is not None and thread.is_own:
            # Without the lock: `unload` holds it while it waits for coroutines that need the thread.
            return thread
        with self._lifecycle.lock:  # while it is held, no other thread can load or unload
            if not self._lifecycle.changing:
                self.require_loaded()
            if self._thread is None:
                self._thread = LoopThread(f"stillhouse-{type(self).__name__}")
                self._slots = Slots()
            return self._thread

    def _prepare_structured_output(
        self, structured_output: Any, client: Any = None, framework: str | None = None
    ) -> dict[str, Any]:
        """Return a client wrapped by `instructor`, for a backend without a reliable JSON mode.

        Args:
            structured_output: the form; a JSON schema of an object.
            client: the backend's own client, which stays as it is and serves plain calls.
            framework: the library of the client: `openai`, `anthropic`, `mistral`, `groq`, `cohere`, …

        Returns:
            A dict with `client`, the wrapped one, and `structured_output`, normalised.

        Raises:
            ConfigurationError: instructor is missing, or the framework or the mode is unknown.
            UnsupportedError: no client was given, or the form is not a JSON schema.
        """
        from stillhouse.structured.instructor import wrap_client

        if client is None:
            return cast("dict[str, Any]", super()._prepare_structured_output(structured_output))
        return wrap_client(structured_output, client, framework)

    def _prepare_kwargs(self, arguments: dict[str, Any], structured_output: Any = None) -> dict[str, Any]:
        """Return the arguments of a call of the wrapped client, with `response_model` and `max_retries`.

        Without a structured output, the arguments are returned as given.
        """
        from stillhouse.structured.instructor import prepare_kwargs

        return prepare_kwargs(arguments, structured_output)

    def _check_releasable(self) -> None:
        if self._thread is not None and self._thread.is_current:
            raise ConfigurationError(
                f"a coroutine of {type(self).__name__} unloads it, which would wait for ever",
                hint="unload it from outside",
            )

    def _release(self) -> None:
        try:
            super()._release()
        finally:
            if self._thread is not None:
                self._thread.close()
                self._thread = None

    @abstractmethod
    async def agenerate(self, input: FormattedInput, *args: Any, **kwargs: Any) -> GenerateOutput:
        """Return the output for one input. Callers call `generate_outputs` or `agenerate_outputs`.

        A backend implements it as `agenerate(self, input, num_generations=1, …)`, followed by its
        generation parameters. Each has a type, a default and a line in the docstring. `None` means the
        provider's default.

        Args:
            input: the input, which must not be changed.
            args: `num_generations`, the number of generations, at least 1.
            kwargs: generation parameters.

        Raises:
            GenerationError: generating failed; `kind` says how.
        """

    def generate(
        self, inputs: Sequence[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Return the outputs for a list of inputs, with at most `max_concurrency` inputs in flight.

        The first error cancels the calls in flight. Once they have ended, it is raised as a
        `GenerationError` whose `outputs` has the finished outputs.
        """
        check_num_generations(num_generations)
        outputs = Outputs(len(inputs))
        settings = self._window_settings(num_generations, kwargs, ordered=False, raises=True)
        with open_pump(settings) as pump:
            for batch in pump.batches(inputs):
                outputs.take(batch)
                if outputs.error:
                    break
        return outputs.finish(pump.window.remaining())

    def _iter_finished(
        self, call: Call, inputs: Iterable[Any], on_error: OnError, ordered: bool
    ) -> Generator[list[Finished], None, None]:
        settings = self._window_settings(
            call.num_generations, call.arguments, ordered, on_error == "raise", have_arguments(inputs)
        )
        with open_pump(settings, call.begin) as pump:
            for batch in pump.batches(inputs):
                finished, fatal = finish_group(call, batch, on_error)
                if finished:
                    yield finished
                if fatal is not None:
                    raise fatal

    async def agenerate_outputs(
        self, inputs: Sequence[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Do the same as `generate_outputs`, for a caller that is a coroutine; same arguments and errors."""
        call, inputs = self._prepared(inputs, num_generations, kwargs)
        if not inputs:
            return []
        if self.use_offline_batch_generation:
            return await self._offline_outputs(call, inputs)
        return await self._online_outputs(call, inputs)

    async def _online_outputs(self, call: Call, inputs: Sequence[FormattedInput]) -> list[GenerateOutput]:
        outputs = Outputs(len(inputs))
        settings = self._window_settings(call.num_generations, call.arguments, ordered=False, raises=True)
        async with (
            aopen_pump(settings, call.begin) as pump,
            contextlib.aclosing(pump.batches(inputs)) as batches,
        ):
            async for batch in batches:
                outputs.take(batch, call)
                if outputs.error:
                    break
        return outputs.finish(pump.window.remaining(), call)

    async def _offline_outputs(self, call: Call, inputs: Sequence[FormattedInput]) -> list[GenerateOutput]:
        """Do the same as `generate_outputs` offline; the caller's loop is free between two polls."""
        if self.orders_batches:
            order = Order(self.batch_key, inputs)
            with order.restoring():
                return order.restored(await self._online_outputs(call, order.arranged(inputs)))
        generate = functools.partial(
            self.offline_batch_generate, inputs, call.num_generations, **call.arguments
        )
        while True:
            try:
                outputs = await asyncio.to_thread(generate)
                call.check_length(outputs, len(inputs))
                return outputs
            except OfflineBatchNotFinishedError:
                if self.offline_batch_generation_block_until_done is None:
                    raise
            await asyncio.sleep(self.offline_batch_generation_block_until_done)

    def aiter_outputs(
        self,
        inputs: Iterable[FormattedInput | GenerationError] | AsyncIterable[FormattedInput | GenerationError],
        num_generations: int = 1,
        *,
        on_error: OnError = "raise",
        ordered: bool = True,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, GenerateOutput | GenerationError]]:
        """Do the same as `iter_outputs`, for a caller that is a coroutine; same arguments and errors.

        `inputs` may also be an asynchronous iterable. Hooks are called on the caller's loop.
        """
        call = self._begin_stream(inputs, num_generations, kwargs, on_error, instead="agenerate_outputs")
        return self._aiter_outputs(call, inputs, on_error, ordered)

    async def _aiter_outputs(
        self, call: Call, inputs: Any, on_error: OnError, ordered: bool
    ) -> AsyncGenerator[tuple[int, GenerateOutput | GenerationError], None]:
        settings = self._window_settings(
            call.num_generations, call.arguments, ordered, on_error == "raise", have_arguments(inputs)
        )
        async with (
            aopen_pump(settings, call.begin) as pump,
            contextlib.aclosing(pump.batches(inputs)) as batches,
        ):
            async for batch in batches:
                finished, fatal = finish_group(call, batch, on_error)
                for index, result, _ in finished:
                    yield index, result
                if fatal is not None:
                    raise fatal

    def stream(self, input: FormattedInput, **kwargs: Any) -> Iterator[StreamItem]:
        call = self._begin_single(input, kwargs)
        return pieces_of(call, input, on_loop(self._loop_thread(), self._streaming(call, input)))

    def astream(self, input: FormattedInput, **kwargs: Any) -> AsyncIterator[StreamItem]:
        """Do the same as `stream`, for a caller that is a coroutine; same arguments and errors.

        To stop early, close the iterator or use `contextlib.aclosing`. Otherwise the request ends only when
        the iterator is garbage-collected.
        """
        call = self._begin_single(input, kwargs)
        return apieces_of(call, input, aon_loop(self._loop_thread(), self._streaming(call, input)))

    def _streaming(self, call: Call, input: FormattedInput) -> Callable[[OnPiece], Awaitable[GenerateOutput]]:
        # A call that streams from its own LLM already holds a slot, and could wait for itself.
        slots = Slots() if self._slots in inside.get() else self._slots

        async def run(on_piece: OnPiece) -> GenerateOutput:
            await slots.acquire(share().of(self.max_concurrency or 1))
            inside.set((*inside.get(), self._slots))
            try:
                return await self.agenerate_streamed(input, on_piece, **call.arguments)
            finally:
                slots.release()

        return run

    async def agenerate_streamed(
        self, input: FormattedInput, on_piece: OnPiece, **kwargs: Any
    ) -> GenerateOutput:
        """Generate once for one input, and pass the text to `on_piece` as it comes.

        Callers call `stream` or `astream`. This method calls `agenerate`, where a backend that can stream
        gets `on_piece` from `claim_stream`; a backend may override this method instead. The pieces, joined,
        must be the text of the output, or its beginning. If the caller closes the stream, the coroutine is
        cancelled.

        Args:
            input: the input, which must not be changed.
            on_piece: called with each piece of the text; it does not block.
            kwargs: the generation parameters of `agenerate`.

        Raises:
            GenerationError: generating failed; `kind` says how.
        """
        with offered(self, on_piece):
            return await self.agenerate(
                input, **({"num_generations": 1} if self.makes_several else {}), **kwargs
            )

    def claim_stream(self) -> OnPiece | None:
        """Return what takes the pieces of the text, in an `agenerate` that is called for a stream.

        It returns it once, so that of several requests for an input only the first one streams. `on_piece`
        must be called on the loop of this LLM.

        Returns:
            `on_piece` of `agenerate_streamed`; `None` where nobody waits for pieces.
        """
        return claimed(self)

    def _window_settings(
        self,
        num_generations: int,
        arguments: dict[str, Any],
        ordered: bool,
        raises: bool,
        have_own: bool = False,
    ) -> WindowSettings:
        """Return the settings of the window for a call; with `have_own`, inputs may have arguments."""
        thread = self._loop_thread()
        calls: Sequence[Callable[[Any], Awaitable[GenerateOutput]]]
        if have_own:
            calls = calls_with_own_arguments(
                self.agenerate, num_generations, arguments, makes_several=self.makes_several
            )
        elif self.makes_several:
            calls = [functools.partial(self.agenerate, num_generations=num_generations, **arguments)]
        elif arguments.get("seed") is None:
            calls = [functools.partial(self.agenerate, **arguments)] * num_generations
        else:  # with one seed, all generations would be the same
            calls = [
                functools.partial(self.agenerate, **{**arguments, "seed": arguments["seed"] + number})
                for number in range(num_generations)
            ]
        return WindowSettings(
            thread=thread,
            slots=self._slots,
            calls=calls,
            size=share().of(self.max_concurrency or 1),
            ordered=ordered,
            raises=raises,
        )
