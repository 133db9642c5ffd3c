"""`ask_until_done`: repeats a request until all generations are present and valid."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from stillhouse._execution.bugs import place_of
from stillhouse._execution.stopping import StoppedError, current_stop
from stillhouse.errors import GenerationError, StillhouseError, described
from stillhouse.http.request import RequestForm
from stillhouse.http.transport.bodies import clean
from stillhouse.http.transport.failures import answered, request_id_of
from stillhouse.outputs import merge_responses
from stillhouse.typing import ChatItem, FormattedInput, GenerateOutput

__all__ = ["Ask", "ask_until_done", "continued", "total_statistics", "unreadable", "validate_once"]

Ask = Callable[[int, int, Sequence[ChatItem]], Awaitable[GenerateOutput]]
"""Makes one request. The arguments: the number of generations, the number made before, messages to add.

Add the number made before to a seed; otherwise the same generations are made again. A raw prompt accepts no
messages.
"""


async def ask_until_done(ask: Ask, num_generations: int, form: RequestForm | None = None) -> GenerateOutput:
    """Return the requested number of generations, with as few requests as the server allows.

    A generation that violates the form is retried, with a message that describes the error, as often as the
    form allows. A generation that was cut off is not retried: it would be cut off again. The statistics
    count the tokens of all answers, including rejected ones.

    If `ask` raises an exception of another type after a request was answered, such as a `KeyError`, it
    becomes a `GenerationError` about the shape of the answer.

    Raises:
        GenerationError: `ask` raised it, an answer has no generation, or a generation is `truncated` or
            violates the form (`schema`). `attempts` counts every answer and every failed attempt; `outputs`
            has the valid generations and the statistics of all answers.
    """
    answers = _Answers(ask, form)
    try:
        if form is None:  # nearly every answer is complete at once
            output = await answers.output(num_generations)
            missing = num_generations - len(output["generations"])
            if not missing:
                return output
            answers.accept(output)
        else:
            missing = num_generations
        while missing > 0:
            output = await answers.output(missing)
            missing -= len(output["generations"])
            wrong = answers.accept(output)
            for text, error in wrong:
                await answers.retry_invalid(text, error)
    except GenerationError as error:
        error.outputs = answers.partial()
        raise
    except asyncio.CancelledError:
        paid = answers.partial()
        if paid and current_stop.get().requested:
            raise StoppedError(paid) from None
        raise
    return answers.result()


def validate_once(output: GenerateOutput, num_generations: int, form: RequestForm | None) -> GenerateOutput:
    """Validate an output as `ask_until_done` does, without retries.

    Raises:
        GenerationError: a generation is missing or violates the form; its `outputs` has the others.
    """
    answers = _Answers(None, form)
    try:
        wrong = answers.accept(answers.take(output, num_generations))
        if wrong:
            raise wrong[0][1]
        made = len(output["generations"])
        if made < num_generations:
            raise GenerationError(
                f"the server made {made} of {num_generations} generations",
                kind="server",
                hint="ask for fewer at once, or again",
            )
    except GenerationError as error:
        error.outputs = answers.partial()
        raise
    return answers.result()


def unreadable(error: Exception) -> GenerationError:
    """Return the error for an answer that a backend could not read."""
    place = place_of(error)
    where = f" ({place})" if place else ""
    return GenerationError(
        f"the answer has another shape than the API's: {clean(described(error))}{where}",
        kind="server",
        hint="check that base_url is the address of an API of this kind",
        request_id=request_id_of(answered.get({})),
        place=place,
    )


def continued(input: FormattedInput, messages: Sequence[ChatItem]) -> FormattedInput:
    """Return an input with messages after its chat; a raw prompt takes none."""
    if type(input) is tuple:
        chat, form = input
        return continued(chat, messages), form  # type: ignore[return-value]
    return input if isinstance(input, str) else [*input, *messages]


class _Answers:
    """The answers to one input so far, and the generations accepted from them."""

    __slots__ = ("_accepted", "_ask", "_form", "_made", "_statistics", "_was_retried")

    def __init__(self, ask: Ask | None, form: RequestForm | None) -> None:
        self._ask = ask
        self._form = form
        self._accepted: list[GenerateOutput] = []
        self._statistics: list[dict[str, list[Any]]] = []  # of every answer
        self._made = 0
        self._was_retried = False

    async def output(self, count: int, messages: Sequence[ChatItem] = ()) -> GenerateOutput:
        assert self._ask is not None
        before = answered.get(None)
        try:
            output = await self._ask(count, self._made, messages)
        except GenerationError as error:
            self._count(error)
            raise
        except StillhouseError:
            raise
        except Exception as error:
            if answered.get(None) is before:  # there was no answer: it is the backend's own mistake
                raise
            failed = unreadable(error)
            self._count(failed)
            raise failed from error
        taken = self.take(output, count)
        if not taken["generations"]:  # asked again, it might answer so, and be paid, for ever
            raise GenerationError(
                "the answer has no generation",
                kind="server",
                attempts=len(self._statistics),
                request_id=request_id_of(answered.get({})),
                hint="ask again; if it happens each time, report it to the authors of the backend",
            )
        return taken

    def _count(self, error: GenerationError) -> None:
        """Let an error count the requests before its own, and keep the statistics of those in it."""
        error.attempts += len(self._statistics)
        self._statistics.extend(part["statistics"] for part in error.outputs if part is not None)

    def take(self, output: GenerateOutput, count: int) -> GenerateOutput:
        """Count an answer, and return its generations, at most as many as were asked for."""
        made = len(output["generations"])
        self._made += made
        self._statistics.append(output["statistics"])
        return output if made <= count else _select(output, range(count))

    def accept(self, output: GenerateOutput) -> list[tuple[str | None, GenerationError]]:
        """Accept the valid generations, and return the others, each with what is wrong with it.

        Raises:
            GenerationError: one was cut off.
        """
        wrong: list[tuple[str | None, GenerationError]] = []
        valid: list[int] = []
        cut_off: GenerationError | None = None
        if self._form is None:
            self._accepted.append(output)
            return wrong
        texts = output["generations"]
        for place, (text, reason) in enumerate(zip(texts, _reasons(output), strict=True)):
            try:
                self._form.check(text, reason)
                valid.append(place)
            except GenerationError as error:
                error.attempts = len(self._statistics)
                error.request_id = request_id_of(answered.get({}))
                wrong.append((text, error))
                if error.kind == "truncated":
                    cut_off = cut_off or error
        if valid:
            self._accepted.append(output if not wrong else _select(output, valid))
        self._was_retried = self._was_retried or bool(wrong)
        if cut_off is not None:
            raise cut_off
        return wrong

    async def retry_invalid(self, text: str | None, error: GenerationError) -> None:
        """Repeat the request for one generation that violates the form."""
        assert self._form is not None
        for _ in range(self._form.retries):
            wrong = self.accept(await self.output(1, _correction(text, error)))
            if not wrong:
                return
            ((text, error),) = wrong
        raise error

    def result(self) -> GenerateOutput:
        if self._was_retried:
            return self._totalled()
        return (
            self._accepted[0]
            if len(self._accepted) == 1
            else merge_responses(self._accepted, len(self._accepted))[0]
        )

    def partial(self) -> list[GenerateOutput | None]:
        return [self._totalled()] if self._statistics else []

    def _totalled(self) -> GenerateOutput:
        """Merge what was accepted, with one sum per statistic: an answer's statistics cannot be divided."""
        accepted = [{**output, "statistics": {}} for output in self._accepted]
        merged: dict[str, Any] = {"generations": [], "statistics": {}}
        if accepted:
            merged = {**merge_responses(cast("list[GenerateOutput]", accepted), len(accepted))[0]}
        merged["statistics"] = total_statistics(self._statistics)
        return cast(GenerateOutput, merged)


def total_statistics(statistics: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Return the sum of every statistic over several answers, as those of one request.

    What no answer counted is unknown, and left out. Of texts there is no sum: one stays where all answers say
    the same, and is left out else.
    """
    names = dict.fromkeys(name for item in statistics for name in item)
    totals = {name: _total([item[name] for item in statistics if name in item]) for name in names}
    return {name: [total] for name, total in totals.items() if total is not None}


def _total(given: Sequence[Any]) -> Any:
    entries = [entry for item in given for entry in (item if isinstance(item, (list, tuple)) else (item,))]
    known = [entry for entry in entries if entry is not None]
    if not known:
        return None
    if all(isinstance(entry, (int, float)) for entry in known):
        return sum(known)
    return known[0] if all(entry == known[0] for entry in known) else None


def _reasons(output: GenerateOutput) -> Sequence[str | None]:
    """Return the finish reasons, one for each generation, `None` where the backend gives none."""
    count, given = len(output["generations"]), output.get("finish_reasons")
    if not isinstance(given, (list, tuple)) or len(given) != count:
        return [None] * count
    return [reason if isinstance(reason, str) else None for reason in given]


def _correction(text: str | None, error: GenerationError) -> list[ChatItem]:
    """Return the messages that say what was wrong; for an empty answer there are none."""
    if not text:
        return []
    what = f"{error.message}.\nAnswer again, with nothing but an answer in that form."
    return [{"role": "assistant", "content": text}, {"role": "user", "content": what}]


def _select(output: GenerateOutput, places: Sequence[int]) -> GenerateOutput:
    """Return some generations of an output, with what belongs to them."""
    made = len(output["generations"])
    return {  # type: ignore[return-value]
        key: [value[place] for place in places] if isinstance(value, list) and len(value) == made else value
        for key, value in output.items()
    }
