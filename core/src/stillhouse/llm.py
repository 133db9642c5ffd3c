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

    A backend implements `model_name` and `generate`, declares its `capabilities`, and acquires and
    releases what it needs in `load` and `unload` (calling `super()`'s). Fields are pydantic's: an
    unknown one is refused, an assignment is validated.
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
    """What the backend can do. An input that needs more is refused before anything is sent."""

    preferred_batch_size: ClassVar[int] = 32
    """How many inputs `iter_outputs` gives to one call of a synchronous `generate`."""

    generation_kwargs: RuntimeParameter[dict[str, Any]] = Field(
        default_factory=dict,
        description="Generation parameters that hold for every call unless it gives its own.",
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
        """Call the hooks of this registry, and name backends as it does."""
        self._lifecycle.registry = registry

    def _serializing_registry(self) -> Backends | None:
        return self._lifecycle.registry

    def __eq__(self, other: object) -> bool:
        """Whether the other is of the same class with equal fields, loaded or not."""
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields)

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign; an assignment that is refused changes nothing."""
        before = dict(self.__dict__)
        try:
            super().__setattr__(name, value)
        except ValidationError:
            # A validator of the whole model sees the new value, and would leave it behind.
            object.__setattr__(self, "__dict__", before)
            raise

    def __copy__(self) -> Self:
        lifecycle = self._lifecycle.fresh()
        copy = super().__copy__()
        copy._lifecycle = lifecycle
        return copy

    def _redactor(self) -> Redactor:
        """What masks the secrets of this LLM in an error."""
        return Redactor(secret_values(self))

    # Loading

    @loading
    def load(self) -> None:
        """Acquire what generating needs: connections, a model. On a loaded LLM it does nothing.

        A backend that overrides it calls `super().load()`, from which on `self._logger` is there. A `with`
        block calls it, and `unload` at the end.

        Examples:
            >>> with stillhouse.create("echo") as llm:
            ...     llm.is_loaded
            True
        """
        self._acquire()

    @unloading
    def unload(self) -> None:
        """Release what `load` acquired. On an LLM that is not loaded it does nothing.

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
        """Whether `load()` was called, and not `unload()` since."""
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
        """The outputs for a list of inputs, in their order.

        A backend implements it as `generate(self, inputs, num_generations=1, …)`, followed by its
        generation parameters: typed, each with a default and a line in the docstring. `None`
        means the engine's default.

        Args:
            inputs: the inputs, not to be mutated; `[]` gives `[]`.
            args: `num_generations`, how many generations of each, at least 1.
            kwargs: generation parameters.

        Raises:
            GenerationError: an input failed; `outputs` holds what was finished.

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
        """Generate for a list of inputs: what callers call.

        `generation_kwargs` are applied, and an explicit argument wins over them. With
        `use_offline_batch_generation` it goes through the provider's batch API; an engine on this
        machine takes the inputs in its own order instead (see `batch_key`), at once.

        Args:
            inputs: the inputs; every one is checked before anything is sent.
            num_generations: how many generations of each input, at least 1.
            kwargs: generation parameters.

        Returns:
            One output per input, in order, with `num_generations` generations each.

        Raises:
            ConfigurationError: the LLM is not loaded, or an argument has a wrong name or value.
            UnsupportedError: an input needs a capability that the backend lacks.
            GenerationError: an input failed; `outputs` holds what was finished.
            OfflineBatchNotFinishedError: the offline batch was submitted and is not done.

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
        """Where an input belongs among many that are generated for together.

        A backend whose engine is on this machine overrides it if the engine is faster in some order:
        it returns a number, such as the length of the prompt, or a text, such as the prompt itself where
        common beginnings are computed once. Inputs are then taken in ascending order by `--batch`
        and with `use_offline_batch_generation`; what is generated, and the order of the outputs, stay
        the same. It may be called before anything checked the input, and from any thread; an input for
        which it raises is generated for as if it had returned `None`.

        Args:
            input: the input.

        Returns:
            A number or a text, the same kind for all inputs; `None` for no place of its own.
        """
        return None

    @property
    def orders_batches(self) -> bool:
        """Whether a batch is generated on this machine, at once and in the order of `batch_key`.

        Otherwise it is submitted to a provider, by a backend with the capability `offline_batch`.
        """
        return type(self).batch_key is not LLM.batch_key and "offline_batch" not in self.capabilities

    @property
    def engine_slots(self) -> int | None:
        """How many generations the engine works on at once; `None` where the backend does not know.

        A backend whose engine is on this machine overrides it. Of the rows in flight, the progress of a run
        then tells apart those that are generated for and those that wait.
        """
        return None

    def _offline_batch_generate_here(
        self, inputs: Sequence[FormattedInput] | None, num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        """Generate a batch at once, where it is generated on this machine."""
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
        """Begin the call for a list of inputs, and check all of them before anything is sent."""
        call = self._begin_call(num_generations, kwargs)
        inputs = list(inputs)
        for input in inputs:
            self.check_input(input)
        return call, inputs

    def _begin_call(self, num_generations: int, kwargs: dict[str, Any], kind: type[Call] = Call) -> Call:
        """Check the arguments of a call; an explicit one wins over the LLM's own."""
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
        """`_begin_call` for a stream of inputs; `instead` is the method that takes a list."""
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

        Inputs are pulled lazily, in the calling thread. An item that is itself a
        `GenerationError` (a row that could not be read) is its own result, in its place.

        Args:
            inputs: the inputs.
            num_generations: how many generations of each input, at least 1.
            on_error: `raise` stops at the first failed input; `yield` gives its error in the place
                of an output. An error that every further input would meet, such as a refused key,
                is raised in either case.
            ordered: give the results in the order of the inputs, or as they are finished.
            kwargs: generation parameters.

        Yields:
            The index of the input, and its output or its error.

        Raises:
            ConfigurationError: as `generate_outputs`, at once and not at the first result.
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
        """As `iter_outputs`, but yield several results at a time: those that came in meanwhile.

        It is for a caller that writes results somewhere: one transaction for each list keeps all of them
        safe before anything else is waited for. `RowInputs` may have inputs with arguments of their own.
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

        The pieces together are the text. A backend that cannot stream, or cannot stream what is asked for,
        gives the whole text as one piece. A text that the provider withdraws is `None` in the output, even
        if pieces of it were given. Closing the iterator early ends the request.

        Hooks see one generation: an answer of `before_generate` is one piece, and `after_generate` gets the
        output, or the error, once; of a stream that is left early, it gets nothing.

        Args:
            input: the input.
            kwargs: generation parameters, as of `generate_outputs`.

        Yields:
            Pieces of the text, none of them empty, and last the output that `generate_outputs` gives.

        Raises:
            ConfigurationError, UnsupportedError: as `generate_outputs`, at once and not at the first piece;
                an offline batch cannot be streamed.
            GenerationError: it failed. Once a piece was given, nothing is retried.
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
        """Begin the call for a stream of one generation, and check its input."""
        if self.use_offline_batch_generation and not self.orders_batches:
            raise UnsupportedError(
                "an offline batch cannot be streamed", hint="set use_offline_batch_generation to False"
            )
        call, _ = self._prepared([input], 1, kwargs)
        return call

    def generate_streamed(self, input: FormattedInput, on_piece: OnPiece, **kwargs: Any) -> GenerateOutput:
        """Generate once for one input, and give the text to `on_piece` as it comes.

        A backend that can stream overrides it; callers call `stream`. It runs in a thread of its own. What
        was given must be the text of the output, or its beginning.

        Args:
            input: the input, not to be mutated.
            on_piece: called with each piece of the text. It raises a `CancelledError` where the caller takes
                no more: let that pass, and stop the engine.
            kwargs: the generation parameters of `generate`.

        Raises:
            GenerationError: it failed; `kind` says how.
        """
        return self.generate([input], 1, **kwargs)[0]

    def check_input(self, input: Any) -> None:
        """Refuse an input that the backend cannot take, before anything is sent.

        A backend may add checks of its own after `super().check_input(input)`, such as one of the
        schema that an input asks for. It is called for every input.

        Raises:
            ConfigurationError, UnsupportedError: it says what is wrong with the input.
        """
        check_input(input, self.capabilities, type(self).__name__)

    def get_generation_kwargs(self) -> dict[str, Any]:
        """The generation parameters in force when a call gives none."""
        return self.generation_kwargs or {}

    # What a backend may also have

    def list_models(self) -> list[ModelInfo]:
        """The models that the provider offers, whether or not the LLM is loaded.

        Returns:
            One entry per model, each with its `name` and whatever else the provider tells.

        Raises:
            UnsupportedError: the backend lists none.
            ConfigurationError: something is missing without which nobody can be asked, such as a key.
            GenerationError: the provider did not answer, or not with a list.
        """
        raise cannot_list(type(self).__name__)

    def get_last_hidden_states(self, inputs: Sequence[FormattedInput]) -> list[HiddenState]:
        """The last hidden states of each input, an array `[num_tokens, hidden_size]`.

        Raises:
            UnsupportedError: the backend has none.
        """
        raise UnsupportedError(
            f"{type(self).__name__} gives no hidden states",
            hint="use a backend with the capability hidden_states",
        )

    def _prepare_structured_output(self, structured_output: Any) -> Any:
        """The backend's guide (a grammar, a request field) for a structured output.

        Raises:
            UnsupportedError: the backend has no structured output.
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
