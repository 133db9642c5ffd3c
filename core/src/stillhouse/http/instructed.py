"""`ask_instructed`: structured output through instructor, over Stillhouse's own transport.

instructor writes the request, reads the answer and retries. It gets no client of an SDK, so that
retries, limits, timeouts and secrets stay in the transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import orjson

from stillhouse.errors import GenerationError
from stillhouse.http.asking import total_statistics
from stillhouse.http.request import RequestForm
from stillhouse.typing import GenerateOutput

__all__ = ["ask_instructed"]


class Instructed(Protocol):
    """What instructor needs of an LLM; a `StructuredHTTPLLM` is one."""

    @property
    def instructor_framework(self) -> str | None:
        """instructor's name for the API's format."""

    def sdk_answer(self, answer: Any) -> Any:
        """Return an answer as an object of the provider's SDK."""

    def _prepare_structured_output(
        self, structured_output: Any, client: Any = None, framework: str | None = None
    ) -> dict[str, Any]: ...

    def _prepare_kwargs(self, arguments: dict[str, Any], structured_output: Any = None) -> dict[str, Any]: ...


async def ask_instructed(
    llm: Instructed,
    body: dict[str, Any],
    form: RequestForm,
    send: Callable[[dict[str, Any]], Awaitable[Any]],
    read: Callable[[Any], GenerateOutput],
) -> GenerateOutput:
    """Return one generation, in a form with a mode.

    Args:
        llm: the LLM.
        body: the request, for one generation, without anything about the form.
        form: the form.
        send: makes a request and returns the answer.
        read: returns the output of an answer; its statistics are counted.

    Raises:
        GenerationError: what `send` or `read` raised, or `truncated` or `schema`.
    """
    outputs: list[GenerateOutput] = []
    failures: list[GenerationError] = []

    async def create(**fields: Any) -> Any:
        try:
            answer = await send(orjson.loads(orjson.dumps(fields, default=_plain)))
            outputs.append(read(answer))
        except GenerationError as error:
            error.attempts += len(outputs)
            failures.append(error)
            raise
        return llm.sdk_answer(answer)

    prepared = llm._prepare_structured_output(form.asked, create, llm.instructor_framework)
    arguments = llm._prepare_kwargs(body, {**form.asked, "max_retries": form.retries})
    try:
        model = await prepared["client"](**arguments)
    except Exception as error:
        failed = failures[-1] if failures else _failure(error, outputs, form)
        failed.outputs = [_output([], outputs)] if outputs else []
        raise failed from error
    return _output([model.model_dump_json()], outputs)


def _output(generations: list[str | None], outputs: list[GenerateOutput]) -> GenerateOutput:
    """Return the last answer's output with other generations, without the tool call that carried them."""
    output: dict[str, Any] = {
        **(outputs[-1] if generations else {}),
        "generations": generations,
        "statistics": total_statistics([output["statistics"] for output in outputs]),
        "finish_reasons": ["stop"] * len(generations),
    }
    output.pop("tool_calls", None)
    return cast(GenerateOutput, output)


def _failure(error: Exception, outputs: list[GenerateOutput], form: RequestForm) -> GenerationError:
    if not outputs:
        return GenerationError(
            f"instructor could not make the request: {type(error).__name__}: {error}",
            kind="invalid_request",
            attempts=0,
            hint="try another mode, or none",
        )
    if "length" in outputs[-1]["finish_reasons"]:
        return GenerationError(
            f"the answer was cut off before it had the form asked for ({form.format})",
            kind="truncated",
            attempts=len(outputs),
            hint="raise max_new_tokens; a model that reasons needs more than its answer has",
        )
    return GenerationError(
        f"the answer does not match the requested {form.format}: {' '.join(str(error).split())[:500]}",
        kind="schema",
        attempts=len(outputs),
        hint="raise max_retries, try another mode, or simplify the schema",
    )


def _plain(value: Any) -> Any:
    """Return an object of the SDK, which instructor puts into a chat when it retries, as JSON types."""
    return value.model_dump(mode="json", exclude_unset=True)
