"""Backends that each break one rule of those that every backend keeps, and which rule each breaks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

from good_backends import Everything, Good, GoodSync, fail, text_of
from pydantic import ConfigDict, Field, PrivateAttr

from stillhouse import LLM, AsyncLLM, OfflineBatchNotFinishedError
from stillhouse.inputs import check_input
from stillhouse.typing import CAPABILITIES

T = TypeVar("T", bound=type[LLM])

BREAKS: dict[type[LLM], str] = {}


def breaks(rule: str) -> Callable[[T], T]:
    def note(cls: T) -> T:
        BREAKS[cls] = rule
        return cls

    return note


# Outputs


@breaks("C00")
class Fails(Good):
    """Does not read what its engine answers."""

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        return {}["choices"]


@breaks("C00")
class BareTexts(GoodSync):
    """Gives texts instead of outputs."""

    def answers(self, *args: Any, **kwargs: Any) -> Any:
        return [output["generations"][0] for output in super().answers(*args, **kwargs)]


@breaks("C00")
class DoesNotLoad(Good):
    """Does not find its engine."""

    def load(self) -> None:
        raise RuntimeError("there is no engine")


@breaks("C01")
class LastFirst(GoodSync):
    """Gives outputs from the last to the first."""

    def answers(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().answers(inputs[::-1], *args, **kwargs)


@breaks("C02")
class NoList(GoodSync):
    """Gives a tuple."""

    def answers(self, *args: Any, **kwargs: Any) -> Any:
        return tuple(super().answers(*args, **kwargs))


@breaks("C02")
class LosesOne(GoodSync):
    """Loses an output."""

    def answers(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().answers(inputs[:2] if len(inputs) == 3 else inputs, *args, **kwargs)


@breaks("C03")
class RefusesNothing(GoodSync):
    """Refuses an empty list."""

    def answers(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inputs[0]
        return super().answers(inputs, *args, **kwargs)


@breaks("C04")
class AnyNumber(GoodSync):
    """Takes any number of generations."""

    def generate_outputs(self, inputs: Any, num_generations: Any = 1, **kwargs: Any) -> Any:
        return super().generate_outputs(inputs, max(1, int(num_generations)), **kwargs)


@breaks("C05")
class AtMostFour(Good):
    """Gives four generations at most."""

    def answer(self, input: Any, num_generations: int = 1, **kwargs: Any) -> Any:
        return super().answer(input, min(4, num_generations), **kwargs)


@breaks("C06")
class EmptyText(Good):
    """Gives an empty text as the second generation."""

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        output = super().answer(*args, **kwargs)
        if len(output["generations"]) == 2 and not output.get("logprobs") and " 0." in str(output):
            output["generations"][1] = ""
        return output


@breaks("C06")
class NoReason(EmptyText):
    """Gives `None` as the second generation, and no reason."""

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        output = super().answer(*args, **kwargs)
        if "" in output["generations"]:
            output["generations"][1] = output["finish_reasons"][1] = None
        return output


@breaks("C15")
class EmptyAnswer(Good):
    """Answers what it cannot answer with an empty text."""

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        output = super().answer(*args, **kwargs)
        output["generations"] = [text or "" for text in output["generations"]]
        return output


class _Changed(Good):
    def answer(self, *args: Any, **kwargs: Any) -> Any:
        output: Any = super().answer(*args, **kwargs)
        self.change(output, len(output["generations"]))
        return output

    def change(self, output: Any, count: int) -> None:
        raise NotImplementedError


@breaks("C07")
class BareNumbers(_Changed):
    """Gives a statistic that is no list."""

    def change(self, output: Any, count: int) -> None:
        output["statistics"]["seconds"] = 0.5


@breaks("C07")
class TwoForThree(_Changed):
    """Gives two entries of a statistic for three generations."""

    def change(self, output: Any, count: int) -> None:
        del output["statistics"]["output_tokens"][2:]


@breaks("C08")
class MinusOne(_Changed):
    """Gives -1 where a count is unknown."""

    def change(self, output: Any, count: int) -> None:
        output["statistics"]["reasoning_tokens"] = [-1]


@breaks("C08")
class ZeroTokens(_Changed):
    """Gives 0 where a count is unknown."""

    def change(self, output: Any, count: int) -> None:
        output["statistics"]["output_tokens"] = [0]


@breaks("C08")
class HalfTokens(_Changed):
    """Estimates counts, and gives fractions."""

    def change(self, output: Any, count: int) -> None:
        output["statistics"]["output_tokens"] = [1.5]


@breaks("C09")
class OneReason(_Changed):
    """Gives one finish reason for all generations."""

    def change(self, output: Any, count: int) -> None:
        del output["finish_reasons"][1:]


@breaks("C10")
class WritesIntoInputs(Good):
    """Marks messages that it has seen."""

    def answer(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(input, list):
            input[-1]["seen"] = True
        return super().answer(input, *args, **kwargs)


@breaks("C11")
class WritesIntoArguments(Good):
    """Changes the tools."""

    def answer(self, *args: Any, tools: Any = None, **kwargs: Any) -> Any:
        for tool in tools or ():
            tool["function"]["strict"] = True
        return super().answer(*args, **kwargs)


@breaks("C12")
class NoLimit(Good):
    """Takes a limit, and ignores it."""

    def answer(self, *args: Any, max_new_tokens: Any = None, **kwargs: Any) -> Any:
        return super().answer(*args, **kwargs)


@breaks("C12")
class WholeAnyway(_Changed):
    """Takes what was cut off for whole."""

    def change(self, output: Any, count: int) -> None:
        output["finish_reasons"] = ["stop"] * count


@breaks("C13")
class NoReasons(_Changed):
    """Gives no finish reasons where there is a text."""

    def change(self, output: Any, count: int) -> None:
        if all(output["generations"]):
            del output["finish_reasons"]


@breaks("C13")
class WordsOfItsOwn(_Changed):
    """Gives the finish reasons of its engine."""

    def change(self, output: Any, count: int) -> None:
        words = {"stop": "eos", "length": "MAX_TOKENS"}
        output["finish_reasons"] = [words[reason] for reason in output["finish_reasons"]]


@breaks("C14")
class OneForAll(_Changed):
    """Gives one generation as often as asked."""

    def change(self, output: Any, count: int) -> None:
        output["generations"] = output["generations"][:1] * count


# Lifecycle


@breaks("C20")
class LoadsTwice(Good):
    """Its `load` is put in from outside, where the contract does not see it."""


def _load_once(self: Any) -> None:
    if self.is_loaded:
        raise RuntimeError("it is loaded")
    Good.load(self)


LoadsTwice.load = _load_once  # type: ignore[method-assign]


@breaks("C21")
class LoadsOnce(Good):
    """Cannot be loaded again."""

    _was_loaded: bool = PrivateAttr(default=False)

    def load(self) -> None:
        super().load()
        if self._was_loaded:
            raise RuntimeError("the engine is gone")
        self._was_loaded = True


@breaks("C22")
class StaysLoaded(Good):
    """Is not unloaded at the end of a with statement."""

    def __exit__(self, *exc_info: object) -> None:
        pass


@breaks("C23")
class NeedsNoLoading(GoodSync):
    """Generates without being loaded."""

    def require_loaded(self) -> None:
        pass


@breaks("C24")
class NamelessUnloaded(Good):
    """Learns its name when it is loaded."""

    _name: Any = PrivateAttr(default=None)

    @property
    def model_name(self) -> Any:
        return self._name

    def load(self) -> None:
        self._name = self.model
        super().load()


def _knock() -> None:
    with contextlib.suppress(OSError), socket.socket() as connection:
        connection.connect(("127.0.0.1", 1))


@breaks("C24")
class AsksForItsName(Good):
    """Asks a server for its name."""

    @property
    def model_name(self) -> str:
        _knock()
        return self.model


@breaks("C25")
class ConnectsWhenMade(Good):
    """Opens a connection when it is made."""

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        _knock()


@breaks("C26")
class HoldsAFunction(Good):
    """Holds what does not pickle."""

    _function: Any = PrivateAttr(default_factory=lambda: lambda: None)


@breaks("C26")
class KeepsALock(Good):
    """Keeps what it acquired when it is unloaded."""

    _lock: Any = PrivateAttr(default=None)

    def load(self) -> None:
        super().load()
        self._lock = threading.Lock()


@breaks("C27")
class LeavesAThread(Good):
    """Starts a thread, and never stops it."""

    def load(self) -> None:
        super().load()
        threading.Thread(target=threading.Event().wait, daemon=True).start()


@breaks("C28")
class WritesTheEnvironment(Good):
    """Sets a variable of the environment when it is loaded."""

    def load(self) -> None:
        os.environ["BROKEN_BACKENDS_VERBOSE"] = "0"
        super().load()


@breaks("C28")
class SetsTheLoop(GoodSync):
    """Sets the event loop of the thread that calls it."""

    _loop: Any = PrivateAttr(default=None)

    def answers(self, *args: Any, **kwargs: Any) -> Any:
        if self._loop is None and threading.current_thread() is threading.main_thread():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return super().answers(*args, **kwargs)

    def unload(self) -> None:
        if self._loop is not None:
            self._loop.close()
            self._loop = None
        super().unload()


@breaks("C29")
class Prints(Good):
    """Prints what it answers."""

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        print("answering")
        return super().answer(*args, **kwargs)


@breaks("C29")
class PrintsPastPython(Good):
    """Has an engine in C, which greets when it is loaded."""

    def load(self) -> None:
        os.write(1, b"engine 1.0\n")
        super().load()


@breaks("C52")
class LoadsAlone(Good):
    """Does not call the contract's `load`."""

    def load(self) -> None:
        self._submitted = None


@breaks("C52")
class UnloadsAlone(GoodSync):
    """Does not call the contract's `unload`."""

    def unload(self) -> None:
        self._submitted = None


# Settings


@breaks("C30")
class ForgetsItsModel(Good):
    """Leaves a field out of what is saved."""

    def dump(self) -> dict[str, Any]:
        data = super().dump()
        del data["model"]
        return data


@breaks("C31")
class ShowsItsKey(Good):
    """Shows the key."""

    def __repr__(self) -> str:
        return f"ShowsItsKey({self.api_key and self.api_key.get_secret_value()})"


@breaks("C31")
class QuotesWrongValues(Good):
    """Quotes wrong values in errors."""

    model_config = ConfigDict(hide_input_in_errors=False)


@breaks("C32")
class IgnoresUnknownFields(Good):
    """Ignores fields that it does not have."""

    model_config = ConfigDict(extra="ignore")


@breaks("C33")
class TakesAnything(Good):
    """Does not validate assignments."""

    model_config = ConfigDict(validate_assignment=False)


@breaks("C35")
class TakesAnyParameter(Everything, AsyncLLM):
    """Takes any parameter."""

    async def agenerate(
        self,
        input: Any,
        num_generations: int = 1,
        seed: int | None = None,
        logprobs: bool | None = None,
        tools: list[dict[str, Any]] | None = None,
        **rest: Any,
    ) -> Any:
        """Answer.

        Args:
            input: the input.
            num_generations: how many generations.
            seed: the seed.
            logprobs: whether to give them.
            tools: the tools.
        """
        return self.answer(input, num_generations, seed, logprobs)


@breaks("C36")
class ForgetsItsParameters(Good):
    """Does not apply generation_kwargs."""

    def get_generation_kwargs(self) -> dict[str, Any]:
        return {}


class _Parameters(Everything, AsyncLLM):
    async def agenerate(
        self,
        input: Any,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        logprobs: bool | None = None,
        tools: list[dict[str, Any]] | None = None,
        max_tokens: int | None = None,
    ) -> Any:
        """Answer.

        Args:
            input: the input.
            num_generations: how many generations.
            max_new_tokens: how many tokens at most.
            seed: the seed.
            logprobs: whether to give them.
            tools: the tools.
            max_tokens: how many tokens at most.
        """
        return self.answer(input, num_generations, seed, logprobs, max_new_tokens)


@breaks("C38")
class OtherNames(_Parameters):
    """Calls a parameter otherwise."""


@breaks("C37")
class Undocumented(Everything, AsyncLLM):
    """Does not document a parameter."""

    async def agenerate(
        self,
        input: Any,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        logprobs: bool | None = None,
        tools: list[dict[str, Any]] | None = None,
        mirostat: int | None = None,
    ) -> Any:
        """Answer.

        Args:
            input: the input.
            num_generations: how many generations.
            max_new_tokens: how many tokens at most.
            seed: the seed.
            logprobs: whether to give them.
            tools: the tools.
        """
        return self.answer(input, num_generations, seed, logprobs, max_new_tokens)


# Concurrency


@breaks("C40")
class RunsALoop(GoodSync):
    """Runs an event loop of its own in the caller's thread."""

    def answers(self, *args: Any, **kwargs: Any) -> Any:
        asyncio.run(asyncio.sleep(0))
        return super().answers(*args, **kwargs)


@breaks("C41")
class OneCallAtATime(GoodSync):
    """Keeps the inputs of a call in the LLM."""

    _inputs: Any = PrivateAttr(default=None)

    def answers(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._inputs = inputs
        time.sleep(0.02)
        return super().answers(self._inputs, *args, **kwargs)


@breaks("C42")
class AllAtOnce(Good):
    """Has more in flight than it may."""

    def _window_settings(self, *args: Any, **kwargs: Any) -> Any:
        settings = super()._window_settings(*args, **kwargs)
        return dataclasses.replace(settings, size=settings.size + 1)


@breaks("C43")
class Blocks(Good):
    """Holds the loop while it waits."""

    async def aanswer(self, *args: Any, **kwargs: Any) -> Any:
        if self.max_concurrency == 4:
            time.sleep(0.06)  # noqa: ASYNC251
        return await super().aanswer(*args, **kwargs)


@breaks("C44")
class LeavesATask(Good):
    """Starts a task, and forgets it."""

    async def aanswer(self, *args: Any, **kwargs: Any) -> Any:
        asyncio.create_task(asyncio.sleep(60))  # noqa: RUF006
        return await super().aanswer(*args, **kwargs)


@breaks("C45")
class Gathers(Good):
    """Gathers its calls in a way that leaves the others running when one fails."""

    def generate(self, inputs: Any, num_generations: int = 1, **kwargs: Any) -> Any:
        gate = asyncio.Semaphore(self.max_concurrency or 1)

        async def one(input: Any) -> Any:
            async with gate:
                return await self.agenerate(input, num_generations=num_generations, **kwargs)

        async def all_of_them() -> Any:
            return await asyncio.gather(*(one(input) for input in inputs))

        return self.run_on_loop(all_of_them())


@breaks("C46")
class ReadsItAll(Good):
    """Reads all inputs before it begins."""

    def iter_outputs(self, inputs: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        return super().iter_outputs(list(inputs), *args, **kwargs)


@breaks("C47")
class LosesItsPlace(Good):
    """Gives results another index where they come unordered."""

    def iter_outputs(self, *args: Any, ordered: bool = True, **kwargs: Any) -> Any:
        results = super().iter_outputs(*args, ordered=ordered, **kwargs)
        return results if ordered else ((5 - index, output) for index, output in results)


@breaks("C48")
class StopsAtOnce(Good):
    """Stops at the first failure, whatever it was told."""

    def iter_outputs(self, *args: Any, on_error: Any = "raise", **kwargs: Any) -> Any:
        return super().iter_outputs(*args, **kwargs)


@breaks("C49")
class OtherForCoroutines(Good):
    """Gives coroutines one generation."""

    async def agenerate_outputs(self, inputs: Any, num_generations: int = 1, **kwargs: Any) -> Any:
        return await super().agenerate_outputs(inputs, **kwargs)


@breaks("C53")
class StreamsThoughts(Good):
    """Streams what is not in its output."""

    async def agenerate_streamed(self, input: Any, on_piece: Any, **kwargs: Any) -> Any:
        on_piece("Let me think. ")
        return await super().agenerate_streamed(input, on_piece, **kwargs)


@breaks("C53")
class StreamsUncounted(GoodSync):
    """Does not count the tokens of a stream."""

    def generate_streamed(self, input: Any, on_piece: Any, **kwargs: Any) -> Any:
        output = super().generate_streamed(input, on_piece, **kwargs)
        on_piece(output["generations"][0])
        return {**output, "statistics": {}}


@breaks("C53")
class StreamsNoOutput(Good):
    """Ends a stream without its output."""

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        return (item for item in super().stream(*args, **kwargs) if isinstance(item, str))


@breaks("C50")
class KindOfItsOwn(Good):
    """Fails with a kind that nobody knows."""

    def answer(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        if text_of(input) == "fail":
            raise fail("overloaded")
        return super().answer(input, *args, **kwargs)


@breaks("C50")
class LetsErrorsOut(Good):
    """Lets the errors of its engine out."""

    def answer(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        if text_of(input) == "fail":
            raise KeyError("choices")
        return super().answer(input, *args, **kwargs)


# Inputs


@breaks("C60")
class LooksAway(Good):
    """Does not refuse images, which it does not declare."""

    capabilities: ClassVar[Any] = CAPABILITIES - {"images"}

    def check_input(self, input: Any) -> None:
        check_input(input, CAPABILITIES, "LooksAway")


@breaks("C61")
class TakesNone(Good):
    """Takes `None` for an empty chat."""

    def check_input(self, input: Any) -> None:
        if input is not None:
            super().check_input(input)

    def answer(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        return super().answer(input or "nothing", *args, **kwargs)


# Capabilities


@breaks("C70")
class Sees(Good):
    """Declares a capability of its own."""

    capabilities: ClassVar[Any] = CAPABILITIES | {"vision"}


class _Refuses(Good):
    def refused(self, input: Any) -> bool:
        raise NotImplementedError

    def answer(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        if self.refused(input):
            raise fail("invalid_request")
        return super().answer(input, *args, **kwargs)


@breaks("C71")
class NoSystemMessage(_Refuses):
    """Takes no system message."""

    def refused(self, input: Any) -> bool:
        return isinstance(input, list) and input[0]["role"] == "system"


@breaks("C72")
class NoRawPrompt(_Refuses):
    """Takes no raw prompt."""

    def refused(self, input: Any) -> bool:
        return isinstance(input, str)


@breaks("C73")
class NoImages(_Refuses):
    """Takes no images."""

    def refused(self, input: Any) -> bool:
        return "image_url" in str(input)


@breaks("C74")
class NoToolResults(_Refuses):
    """Takes no results of tools."""

    def refused(self, input: Any) -> bool:
        return "'role': 'tool'" in str(input)


@breaks("C75")
class OneAtATime(Everything, AsyncLLM):
    """Declares several generations a call, and makes one."""

    _num_generations_param_supported: bool = PrivateAttr(default=False)

    async def agenerate(
        self,
        input: Any,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        logprobs: bool | None = None,
        tools: list[dict[str, Any]] | None = None,
    ) -> Any:
        """Answer.

        Args:
            input: the input.
            max_new_tokens: how many tokens at most.
            seed: the seed.
            logprobs: whether to give them.
            tools: the tools.
        """
        return self.answer(input, 1, seed, logprobs, max_new_tokens)


@breaks("C76")
class FlatLogprobs(_Changed):
    """Gives one candidate for each position, without a list around it."""

    def change(self, output: Any, count: int) -> None:
        if "logprobs" in output:
            output["logprobs"] = [[{"token": "a", "logprob": -0.5}]] * count


@breaks("C77")
class PooledStates(Good):
    """Gives one vector for each input."""

    def get_last_hidden_states(self, inputs: Any) -> Any:
        return [state.mean(axis=0) for state in super().get_last_hidden_states(inputs)]


class _OtherForm(_Changed):
    of: ClassVar[str]
    text: ClassVar[str]

    def change(self, output: Any, count: int) -> None:
        if self.of in output["generations"][0]:
            output["generations"] = [self.text] * count


@breaks("C78")
class EmptyJson(_OtherForm):
    """Gives JSON that does not validate."""

    of, text = "Ucayali", "{}"


@breaks("C79")
class AlmostThePattern(_OtherForm):
    """Gives more than the pattern."""

    of, text = "123-ab", "123-ab."


@breaks("C80")
class NoneOfThem(_OtherForm):
    """Gives another choice."""

    of, text = "yes", "Yes"


@breaks("C78")
class IgnoresTheInputsForm(GoodSync):
    """Lets its own JSON schema win over the input's."""

    def answers(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = super().answers(inputs, *args, **kwargs)
        if "lake" in str(self.structured_output):
            for output in outputs:
                output["generations"] = ["{}"] * len(output["generations"])
        return outputs


@breaks("C81")
class SubmitsTwice(Good):
    """Submits the batch at every call."""

    def offline_batch_generate(self, inputs: Any = None, num_generations: int = 1, **kwargs: Any) -> Any:
        if self.jobs_ids and self.jobs_ids[0].endswith("2"):
            return super().offline_batch_generate(inputs, num_generations, **kwargs)
        self._submitted = inputs
        raise OfflineBatchNotFinishedError(["job-2" if self.jobs_ids else "job-1"])


@breaks("C82")
class Random(Good):
    """Knows nothing of seeds."""

    def answer(self, *args: Any, seed: Any = None, **kwargs: Any) -> Any:
        return super().answer(*args, seed=random.random(), **kwargs)


@breaks("C83")
class Modest(Good):
    """Can do more than it declares."""

    capabilities: ClassVar[Any] = CAPABILITIES - {"regex"}


@breaks("C84")
class ListsTwice(Good):
    """Lists a model under a name that another one has."""

    def list_models(self) -> list[Any]:
        return [{"name": "large"}, *super().list_models()]


# Packaging


@breaks("C90")
class PlainKey(Good):
    """Holds a secret as plain text."""

    access_token: str = Field(default="", description="A token.")


@breaks("C91")
class NotDeclared(Good):
    """Has no entry point."""


@breaks("C92")
class BadName(Good):
    """Has a name that is none."""


@breaks("C93")
class NoRange(Good):
    """Is in a distribution that takes any core."""


@breaks("C94")
class FieldWithoutWords(Good):
    """Does not describe a field."""

    depth: int = 1


@breaks("C34")
class OtherModelField(AsyncLLM):
    """Calls its model otherwise."""

    capabilities: ClassVar[Any] = frozenset({"chat", "num_generations"})
    model_id: str = Field(default="m", description="The model.")

    @property
    def model_name(self) -> str:
        return self.model_id

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        """Answer.

        Args:
            input: the input.
            num_generations: how many generations.
        """
        if isinstance(input, str):
            raise fail("invalid_request")
        return Good().answer(input, num_generations)
