"""Asking until every generation is there and has the form that was asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from stillhouse.errors import GenerationError
from stillhouse.http.structured import RequestForm
from stillhouse.http.transport.failures import answered, request_id_of
from stillhouse.outputs import merge_responses
from stillhouse.typing import ChatItem, GenerateOutput

__all__ = ["Ask", "ask_until_done", "checked", "summed"]

Ask = Callable[[int, int, Sequence[ChatItem]], Awaitable[GenerateOutput]]
"""Makes one request: for so many generations, after so many were made, with these messages added.

What was made is to be added to a seed, or the same generations come again. A raw prompt takes no
messages.
"""


async def ask_until_done(ask: Ask, num_generations: int, form: RequestForm | None = None) -> GenerateOutput:
    """So many generations, in as few requests as the server lets there be.

    A generation that violates the form is asked for again, with what was wrong with it, as often as
    the form says. One that was cut off is not: it would be again. The statistics count the tokens of
    all the answers, also of those that are thrown away.

    Raises:
        GenerationError: what `ask` raised, or `truncated` or `schema`; its `attempts` counts every
            request, and its `outputs` has what is good, and what it all cost.
    """
    asked = _Asked(ask, form)
    try:
        if form is None:  # nearly every answer is whole at once
            output = await asked.output(num_generations)
            missing = num_generations - len(output["generations"])
            if not missing:
                return output
            asked.keep(output)
        else:
            missing = num_generations
        while missing > 0:
            output = await asked.output(missing)
            missing -= len(output["generations"])
            wrong = asked.keep(output)
            for text, error in wrong:
                await asked.mend(text, error)
    except GenerationError as error:
        error.outputs = asked.partial()
        raise
    return asked.result()


def checked(output: GenerateOutput, num_generations: int, form: RequestForm | None) -> GenerateOutput:
    """An output that cannot be asked for again, held to what `ask_until_done` holds outputs to.

    Raises:
        GenerationError: a generation is missing, or is not in the form; its `outputs` has the others.
    """
    outputs = [output]

    async def ask(missing: int, _: int, __: Sequence[ChatItem]) -> GenerateOutput:
        if not outputs:
            raise GenerationError(
                f"the server made {num_generations - missing} of {num_generations} generations",
                kind="server",
                hint="ask for fewer at once, or again",
            )
        return outputs.pop()

    if form is not None:
        form = replace(form, asked={**form.asked, "max_retries": 0})
    asking = ask_until_done(ask, num_generations, form)
    try:
        asking.send(None)
    except StopIteration as done:
        result: GenerateOutput = done.value
        return result
    raise AssertionError


class _Asked:
    """The answers to one input so far."""

    __slots__ = ("_ask", "_form", "_is_mended", "_kept", "_made", "_statistics")

    def __init__(self, ask: Ask, form: RequestForm | None) -> None:
        self._ask = ask
        self._form = form
        self._kept: list[GenerateOutput] = []
        self._statistics: list[dict[str, list[Any]]] = []  # of every answer
        self._made = 0
        self._is_mended = False

    async def output(self, count: int, messages: Sequence[ChatItem] = ()) -> GenerateOutput:
        try:
            output = await self._ask(count, self._made, messages)
        except GenerationError as error:
            error.attempts += len(self._statistics)
            self._statistics.extend(part["statistics"] for part in error.outputs if part is not None)
            raise
        made = len(output["generations"])
        self._made += made
        self._statistics.append(output["statistics"])
        return output if made <= count else _picked(output, range(count))

    def keep(self, output: GenerateOutput) -> list[tuple[str | None, GenerationError]]:
        """Keep what is good, and return what is not, each with what is wrong with it.

        Raises:
            GenerationError: one was cut off.
        """
        wrong: list[tuple[str | None, GenerationError]] = []
        good: list[int] = []
        cut_off: GenerationError | None = None
        if self._form is None:
            self._kept.append(output)
            return wrong
        texts = output["generations"]
        for place, reason in enumerate(output["finish_reasons"]):
            try:
                self._form.check(texts[place], reason)
                good.append(place)
            except GenerationError as error:
                error.attempts = len(self._statistics)
                error.request_id = request_id_of(answered.get({}))
                wrong.append((texts[place], error))
                if error.kind == "truncated":
                    cut_off = cut_off or error
        if good:
            self._kept.append(output if not wrong else _picked(output, good))
        self._is_mended = self._is_mended or bool(wrong)
        if cut_off is not None:
            raise cut_off
        return wrong

    async def mend(self, text: str | None, error: GenerationError) -> None:
        """Ask again for one generation that violates the form."""
        assert self._form is not None
        for _ in range(self._form.retries):
            wrong = self.keep(await self.output(1, _correction(text, error)))
            if not wrong:
                return
            ((text, error),) = wrong
        raise error

    def result(self) -> GenerateOutput:
        if self._is_mended:
            return self._totalled()
        return self._kept[0] if len(self._kept) == 1 else merge_responses(self._kept, len(self._kept))[0]

    def partial(self) -> list[GenerateOutput | None]:
        return [self._totalled()] if self._statistics else []

    def _totalled(self) -> GenerateOutput:
        """What was kept, with one sum per statistic: of an answer in part, nobody knows the parts."""
        kept = [{**output, "statistics": {}} for output in self._kept]
        merged: dict[str, Any] = {"generations": [], "statistics": {}}
        if kept:
            merged = {**merge_responses(cast("list[GenerateOutput]", kept), len(kept))[0]}
        merged["statistics"] = summed(self._statistics)
        return cast(GenerateOutput, merged)


def summed(statistics: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """The sum of every statistic over several answers, as that of one request."""
    names = dict.fromkeys(name for item in statistics for name in item)
    return {
        name: [sum(number or 0 for item in statistics for number in item.get(name, ()))] for name in names
    }


def _correction(text: str | None, error: GenerationError) -> list[ChatItem]:
    """The messages that say what was wrong; an empty answer is simply asked for again."""
    if not text:
        return []
    what = f"{error.message}.\nAnswer again, with nothing but an answer in that form."
    return [{"role": "assistant", "content": text}, {"role": "user", "content": what}]


def _picked(output: GenerateOutput, places: Sequence[int]) -> GenerateOutput:
    """Some generations of an output, with what belongs to them."""
    made = len(output["generations"])
    return {  # type: ignore[return-value]
        key: [value[place] for place in places] if isinstance(value, list) and len(value) == made else value
        for key, value in output.items()
    }
