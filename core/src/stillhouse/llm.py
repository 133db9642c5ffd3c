"""The contract of every backend: `LLM`.

Over 300 lines: the contract is one class, and most lines document its members.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from stillhouse._defaults import default_backends
from stillhouse._execution.arguments import checked_arguments, effective_arguments
from stillhouse._execution.arriving import Arriving
from stillhouse._execution.call import Call, Finished, OnError, finish_group, unchecked
from stillhouse._execution.lifecycle import Holder, is_wrapped, loading, refuse_awaitable, unloading
from stillhouse._execution.one_by_one import ask_group, generate_list
from stillhouse._execution.order import Order
from stillhouse._execution.own_arguments import CallWithOwnArguments, have_arguments
from stillhouse._execution.streaming import in_thread, pieces_of, whole_of
from stillhouse._settings.generation import GenerationParametersMixin
from stillhouse._settings.models import cannot_list
from stillhouse._settings.redaction import Redactor, secret_values
from stillhouse._settings.runtime import RuntimeParameter
from stillhouse._settings.serialization import Serializable
from stillhouse.errors import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.inputs import check_input
from stillhouse.offline.contract import OfflineBatchMixin, binding
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import (
    Capability,
    FormattedInput,
    GenerateOutput,
    HiddenState,
    ModelInfo,
    OnPiece,
    StreamItem,
)

if TYPE_CHECKING:
    from stillhouse.protocols import Backends

__all__ = ["LLM"]

_WRAPPERS: dict[str, Any] = {
    "load": loading,
    "unload": unloading,
    "offline_batch_generate": binding,
}


class LLM(GenerationParametersMixin, OfflineBatchMixin, Serializable, Holder, ABC):
    """A language model: inputs go in, generations come out.

    A backend implements `model_name` and `generate`, and declares its `capabilities`. It acquires resources
    in `load` and releases them in `unload`; both call `super()`. Fields are pydantic fields: an unknown
    field is refused, and assignments are validated.
    """

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        validate_default=True,
        arbitrary_types_allowed=True,
        populate_by_name=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat"})
    """What the backend can do. An input that needs another capability is refused before anything is sent."""

    preferred_batch_size: ClassVar[int] = 32
    """Number of inputs that `iter_outputs` passes to one call of a synchronous `generate`."""

    generation_kwargs: RuntimeParameter[dict[str, Any]] = Field(
        default_factory=dict,
        description="Generation parameters for every call; an argument of a call wins.",
    )

    _logger: logging.Logger | None = PrivateAttr(default=None)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrapper in _WRAPPERS.items():
            function = getattr(cls, name)  # its own, or that of a mixin which is not an LLM
            own = function is not getattr(LLM, name)
            if own and inspect.isfunction(function) and not is_wrapped(function):
                setattr(cls, name, wrapper(function))

    @field_validator("generation_kwargs", mode="after")
    @classmethod
    def _known_generation_kwargs(cls, value: dict[str, Any] | None) -> dict[str, Any]:
        return cls.generation_parameters().check(value, cls.__name__) if value else {}

    # Identity

    @property
    @abstractmethod
    def model_name(self) -> str:
        """The name of the model. Reading it opens no connection."""

    @property
    def registry(self) -> Backends:
        """The registry whose hooks this LLM calls: the one that created it, or the default one."""
        return self._lifecycle.registry or default_backends()

    def use_registry(self, registry: Backends) -> None:
        """Use this registry for hooks and for the names of backends."""
        self._lifecycle.registry = registry

    def _serializing_registry(self) -> Backends | None:
        return self._lifecycle.registry

    def __eq__(self, other: object) -> bool:
        """Whether the other LLM has the same class and equal fields, loaded or not."""
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field; a refused assignment changes nothing."""
        before = dict(self.__dict__)
        try:
            super().__setattr__(name, value)
        except ValidationError:
            # A validator of the whole model runs after the assignment: without this, the value would stay.
            object.__setattr__(self, "__dict__", before)
            raise

    def __copy__(self) -> Self:
        lifecycle = self._lifecycle.fresh()
        copy = super().__copy__()
        copy._lifecycle = lifecycle
        return copy

    def _redactor(self) -> Redactor:
        """Return an object that masks the secrets of this LLM in errors."""
        return Redactor(secret_values(self))

    # Loading

    @loading
    def load(self) -> None:
        """Acquire the resources for generating, such as a model or connections.

        Does nothing if the LLM is loaded. A `with` block calls it at the beginning, and `unload` at the end.
        A backend that overrides it calls `super().load()`; from then on, `self._logger` is available.

        Examples:
            >>> with stillhouse.create("echo") as llm:
            ...     llm.is_loaded
            True
        """
        self._acquire()

    @unloading
    def unload(self) -> None:
        """Release what `load` acquired. Does nothing if the LLM is not loaded.

        A backend that overrides it calls `super().unload()` last.
        """

    def _acquire(self) -> None:
        super()._acquire()
        name: Any = self.model_name
        if callable(name):
            raise ConfigurationError(
                f"{type(self).__name__}.model_name is a method, and must be a property",
                hint="write @property above def model_name(self)",
            )
        refuse_awaitable(name, self, "model_name", "write it as def, not async def")
        self._logger = logging.getLogger(f"stillhouse.llm.{name}")

    @property
    def is_loaded(self) -> bool:
        """Whether the LLM is loaded: `load()` was called, and `unload()` was not called since."""
        return self._lifecycle.loaded

    def require_loaded(self) -> None:
        """Raise a `ConfigurationError` unless the LLM is loaded."""
        if not self._lifecycle.loaded:
            raise ConfigurationError(
                f"{type(self).__name__} is not loaded", hint="call load(), or use it as: with llm: …"
            )

    def __enter__(self) -> Self:
        self.load()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.unload()

    # Generating

    @abstractmethod
    def generate(self, inputs: list[FormattedInput], *args: Any, **kwargs: Any) -> list[GenerateOutput]:
        """Return the outputs for a list of inputs, in the same order. Callers call `generate_outputs`.

        A backend implements it as `generate(self, inputs, num_generations=1, …)`, followed by its
        generation parameters. Each has a type, a default and a line in the docstring. `None` means the
        engine's default.

        Args:
            inputs: the inputs, which must not be changed; `[]` gives `[]`.
            args: `num_generations`, the number of generations for each input, at least 1.
            kwargs: generation parameters.

        Raises:
            GenerationError: an input failed; `outputs` has the finished outputs.

        Examples:
            >>> class Shouting(stillhouse.LLM):
            ...     @property
            ...     def model_name(self):
            ...         return "shouting"
            ...
            ...     def generate(self, inputs, num_generations=1):
            ...         texts = [chat[-1]["content"].upper() for chat in inputs]
            ...         return [stillhouse.prepare_output([text] * num_generations) for text in texts]
            >>> with Shouting() as llm:
            ...     llm.generate_outputs([[{"role": "user", "content": "hello"}]])[0]["generations"]
            ['HELLO']
        """

    def generate_outputs(
        self, inputs: Sequence[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Generate for a list of inputs.

        `generation_kwargs` apply, and an argument of the call wins over them. With
        `use_offline_batch_generation` the inputs are submitted to the provider's batch API; an engine on this
        machine generates for them at once instead, in its own order (see `batch_key`).

        Args:
            inputs: the inputs; all are checked before anything is sent.
            num_generations: the number of generations for each input, at least 1.
            kwargs: generation parameters.

        Returns:
            One output per input, in order, with `num_generations` generations each.

        Raises:
            ConfigurationError: the LLM is not loaded, or an argument has a wrong name or value.
            UnsupportedError: an input needs a capability that the backend lacks.
            GenerationError: an input failed; `outputs` has the finished outputs.
            OfflineBatchNotFinishedError: the offline batch was submitted and is not finished.

        Examples:
            >>> chat = [{"role": "user", "content": "Name a river in Peru."}]
            >>> with stillhouse.create("echo") as llm:
            ...     outputs = llm.generate_outputs([chat], num_generations=2)
            >>> outputs[0]["generations"]
            ['Name a river in Peru.', 'Name a river in Peru.']
        """
        call, inputs = self._prepared(inputs, num_generations, kwargs)
        if not inputs:
            return []
        if self.use_offline_batch_generation and self.orders_batches:
            return self._generate_in_order(call, inputs)
        if self.use_offline_batch_generation:
            generate = (
                self.offline_batch_generate
                if self.offline_batch_generation_block_until_done is None
                else self._offline_batch_generate_polling
            )
            outputs = generate(inputs, num_generations, **call.arguments)
            call.check_length(outputs, len(inputs))
            return outputs
        return generate_list(call, self.generate, inputs)

    def batch_key(self, input: FormattedInput) -> int | str | None:
        """Return the sort key of an input in a batch that an engine on this machine generates.

        A backend overrides it if its engine is faster when inputs come in a certain order. The key is a
        number, such as the length of the prompt, or a text, such as the prompt itself if the engine computes
        common beginnings once. `--batch` and `use_offline_batch_generation` then process inputs in ascending
        order; the outputs and their order stay the same. The method may be called from any thread, and with
        an input that has not been checked. If it raises, the input is treated as if the key were `None`.

        Args:
            input: the input.

        Returns:
            A number or a text, the same kind for all inputs; `None` if its place does not matter.
        """
        return None

    @property
    def orders_batches(self) -> bool:
        """Whether this machine generates a batch, immediately and in the order of `batch_key`.

        Otherwise a backend with the capability `offline_batch` submits the batch to a provider.
        """
        return type(self).batch_key is not LLM.batch_key and "offline_batch" not in self.capabilities

    @property
    def engine_slots(self) -> int | None:
        """Number of generations that the engine works on at once; `None` if the backend does not know it.

        A backend with an engine on this machine overrides it. The progress of a run then shows how many of
        the rows in flight are running and how many are waiting.
        """
        return None

    @property
    def seconds_waited(self) -> float | None:
        """Seconds that all calls together have waited since `load`; `None` if the backend does not know it.

        They wait for a slot of the engine, for a limit, or before a request is sent again. The report of a
        run then shows how much of the time of a row this is. Backends of `stillhouse.http` and those of
        `TokenLLM` know it.
        """
        return None

    def _offline_batch_generate_here(
        self, inputs: Sequence[FormattedInput] | None, num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        """Generate a batch immediately, if this machine generates it."""
        if not self.orders_batches:
            return super()._offline_batch_generate_here(inputs, num_generations, kwargs)
        if inputs is None:
            raise ConfigurationError(
                f"{type(self).__name__} generates a batch at once: there is nothing to collect",
                hint="give the inputs",
            )
        return self._generate_in_order(*self._prepared(inputs, num_generations, kwargs))

    def _generate_in_order(self, call: Call, inputs: Sequence[FormattedInput]) -> list[GenerateOutput]:
        order = Order(self.batch_key, inputs)
        with order.restoring():
            return order.restored(generate_list(call, self.generate, order.arranged(inputs)))

    def _prepared(
        self, inputs: Iterable[FormattedInput], num_generations: int, kwargs: dict[str, Any]
    ) -> tuple[Call, list[FormattedInput]]:
        """Begin a call for a list of inputs, and check all inputs before anything is sent."""
        call = self._begin_call(num_generations, kwargs)
        inputs = list(inputs)
        for input in inputs:
            self.check_input(input)
        return call, inputs

    def _begin_call(self, num_generations: int, kwargs: dict[str, Any], kind: type[Call] = Call) -> Call:
        """Check the arguments of a call and begin it; an argument wins over `generation_kwargs`."""
        arguments = effective_arguments(self, num_generations, kwargs)
        return kind(self, num_generations, arguments, self.registry.hooks(), self.check_input, self._redactor)

    def _begin_elsewhere(self, inputs: object, num_generations: int, kwargs: dict[str, Any]) -> Call:
        """Begin a call whose inputs copies of this LLM generate for, in other processes.

        This LLM need not be loaded; so the copies, which are, check the inputs.
        """
        arguments = checked_arguments(self, num_generations, kwargs)
        kind = CallWithOwnArguments if have_arguments(inputs) else Call
        call = kind(self, num_generations, arguments, self.registry.hooks(), unchecked, self._redactor)
        call.follow(inputs)
        return call

    def _begin_stream(
        self, inputs: object, num_generations: int, kwargs: dict[str, Any], on_error: OnError, instead: str
    ) -> Call:
        """Begin a call for a stream of inputs; `instead` names the method that takes a list."""
        if on_error not in ("raise", "yield"):
            raise ConfigurationError(f"on_error is {on_error!r}", hint='give "raise" or "yield"')
        if self.use_offline_batch_generation:
            raise UnsupportedError(
                "an offline batch takes all its inputs at once",
                hint=f"use {instead}, or set use_offline_batch_generation to False",
            )
        call = self._begin_call(
            num_generations, kwargs, CallWithOwnArguments if have_arguments(inputs) else Call
        )
        call.follow(inputs)
        return call

    def iter_outputs(
        self,
        inputs: Iterable[FormattedInput | GenerationError],
        num_generations: int = 1,
        *,
        on_error: OnError = "raise",
        ordered: bool = True,
        **kwargs: Any,
    ) -> Iterator[tuple[int, GenerateOutput | GenerationError]]:
        """Generate for any iterable of inputs, in bounded memory.

        Inputs are pulled lazily, in the calling thread. If an item is a `GenerationError` (a row that could
        not be read), it is yielded as the result at its position.

        Args:
            inputs: the inputs.
            num_generations: the number of generations for each input, at least 1.
            on_error: `raise` stops at the first failed input; `yield` yields its error instead of an output.
                An error that every further input would cause, such as a refused key, is always raised.
            ordered: whether results come in the order of the inputs, or as soon as they are finished.
            kwargs: generation parameters.

        Yields:
            The index of the input, and its output or its error.

        Raises:
            ConfigurationError: as `generate_outputs`; raised by the call itself, not at the first result.
            GenerationError, UnsupportedError: an input failed.

        Examples:
            >>> chats = ([{"role": "user", "content": text}] for text in ("one", "two"))
            >>> with stillhouse.create("echo") as llm:
            ...     for index, result in llm.iter_outputs(chats, on_error="yield"):
            ...         failed = isinstance(result, stillhouse.GenerationError)
            ...         print(index, result.kind if failed else result["generations"])
            0 ['one']
            1 ['two']
        """
        groups = self.iter_finished(inputs, num_generations, on_error=on_error, ordered=ordered, **kwargs)
        return ((index, result) for group in groups for index, result, _ in group)

    def iter_finished(
        self,
        inputs: Iterable[FormattedInput | InputWithArguments | GenerationError],
        num_generations: int = 1,
        *,
        on_error: OnError = "raise",
        ordered: bool = True,
        **kwargs: Any,
    ) -> Generator[list[Finished], None, None]:
        """Do the same as `iter_outputs`, but yield lists of the results that have arrived since the last one.

        This is for a caller that stores results: one transaction per list saves all of them before the
        caller waits again. In `RowInputs`, inputs may have their own arguments.
        """
        call = self._begin_stream(inputs, num_generations, kwargs, on_error, instead="generate_outputs")
        return self._iter_finished(call, inputs, on_error, ordered)

    def _iter_finished(
        self, call: Call, inputs: Iterable[Any], on_error: OnError, ordered: bool
    ) -> Generator[list[Finished], None, None]:
        for group in _groups(inputs, self.preferred_batch_size):
            results, failure = ask_group(call, self.generate, group, isolate=on_error == "yield")
            finished, fatal = finish_group(call, results, on_error)
            if finished:
                yield finished
            if fatal is not None:
                raise fatal
            if not isinstance(failure, Exception | None):
                raise failure

    def stream(self, input: FormattedInput, **kwargs: Any) -> Iterator[StreamItem]:
        """Generate once for one input, and yield the text as it comes.

        The pieces, joined, are the text. A backend that cannot stream, or cannot stream what is requested,
        yields the whole text as one piece. If the provider withdraws the text, the generation is `None` in
        the output, even if pieces were yielded. Closing the iterator early ends the request.

        Hooks see one generation: an answer of `before_generate` is one piece, and `after_generate` receives
        the output or the error once. If the caller closes the stream early, it receives nothing.

        Args:
            input: the input.
            kwargs: generation parameters, as for `generate_outputs`.

        Yields:
            Pieces of the text, none of them empty; then the output that `generate_outputs` returns.

        Raises:
            ConfigurationError, UnsupportedError: as `generate_outputs`; raised by the call itself, not at the
                first piece. An offline batch cannot be streamed.
            GenerationError: generating failed. After the first piece, nothing is retried.

        Examples:
            >>> with stillhouse.create("echo") as llm:
            ...     for item in llm.stream("a word"):
            ...         print(repr(item) if isinstance(item, str) else item["finish_reasons"])
            'a '
            'word'
            ['stop']
        """
        call = self._begin_single(input, kwargs)
        if type(self).generate_streamed is LLM.generate_streamed:
            return whole_of(call, input, self.generate)
        return pieces_of(
            call,
            input,
            in_thread(lambda on_piece: self.generate_streamed(input, on_piece, **call.arguments)),
        )

    def _begin_single(self, input: FormattedInput, kwargs: dict[str, Any]) -> Call:
        """Begin a call that streams one generation, and check its input."""
        if self.use_offline_batch_generation and not self.orders_batches:
            raise UnsupportedError(
                "an offline batch cannot be streamed", hint="set use_offline_batch_generation to False"
            )
        call, _ = self._prepared([input], 1, kwargs)
        return call

    def generate_streamed(self, input: FormattedInput, on_piece: OnPiece, **kwargs: Any) -> GenerateOutput:
        """Generate once for one input, and pass the text to `on_piece` as it comes.

        A backend that can stream overrides it; callers call `stream`. It runs in its own thread. The pieces,
        joined, must be the text of the output, or its beginning.

        Args:
            input: the input, which must not be changed.
            on_piece: called with each piece of the text. It raises `CancelledError` if the caller has closed
                the stream: do not catch it, and stop the engine.
            kwargs: the generation parameters of `generate`.

        Raises:
            GenerationError: generating failed; `kind` says how.
        """
        return self.generate([input], 1, **kwargs)[0]

    def check_input(self, input: Any) -> None:
        """Reject an input that the backend does not support, before anything is sent.

        It is called for every input. A backend may add its own checks after `super().check_input(input)`,
        such as a check of the schema that an input requests.

        Raises:
            ConfigurationError, UnsupportedError: the message says what is wrong with the input.
        """
        check_input(input, self.capabilities, type(self).__name__)

    def get_generation_kwargs(self) -> dict[str, Any]:
        """Return the generation parameters that apply if a call passes none."""
        return self.generation_kwargs or {}

    # What a backend may also have

    def list_models(self) -> list[ModelInfo]:
        """List the models that the provider offers. The LLM need not be loaded.

        Returns:
            One entry per model, with its `name` and whatever else the provider reports.

        Raises:
            UnsupportedError: the backend cannot list models.
            ConfigurationError: a setting that the request needs is missing, such as a key.
            GenerationError: the provider did not answer, or did not answer with a list.
        """
        raise cannot_list(type(self).__name__)

    def get_last_hidden_states(self, inputs: Sequence[FormattedInput]) -> list[HiddenState]:
        """Return the last hidden states of each input, as an array `[num_tokens, hidden_size]`.

        Raises:
            UnsupportedError: the backend does not provide hidden states.
        """
        raise UnsupportedError(
            f"{type(self).__name__} gives no hidden states",
            hint="use a backend with the capability hidden_states",
        )

    def _prepare_structured_output(self, structured_output: Any) -> Any:
        """Return what makes the backend produce a structured output, such as a grammar or a request field.

        Raises:
            UnsupportedError: the backend does not support structured output.
        """
        raise UnsupportedError(
            f"{type(self).__name__} has no structured output",
            hint="use a backend with the capability json_schema, regex or choice",
        )


def _groups(inputs: Iterable[Any], most: int) -> Iterator[list[tuple[int, Any]]]:
    """Yield inputs with their indexes, so many at a time."""
    if isinstance(inputs, Arriving):
        yield from inputs.groups(most)
        return
    source = enumerate(inputs)
    while group := list(islice(source, most)):
        yield group
