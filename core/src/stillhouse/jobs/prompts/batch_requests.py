"""`BatchRequests`: makes inputs of the lines of an OpenAI batch file, for whatever LLM.

`BatchContents` reads the same lines for people who look at a run, without an LLM.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stillhouse.jobs.prompts.batch_lines import BatchLine, read_line
from stillhouse.jobs.prompts.parameters import STRUCTURED_OUTPUT, RowParameters
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = ["BatchContents", "BatchRequests"]

_logger = logging.getLogger("stillhouse.jobs")

_EXTRA = "extra_body"

# Parameters that have a name here: a backend that lacks one has it under no other name either.
_VOCABULARY = frozenset(
    {
        "frequency_penalty", "logit_bias", "logprobs", "max_new_tokens", "min_p", "presence_penalty",
        "reasoning_effort", "repetition_penalty", "seed", "service_tier", "stop", "temperature",
        "tool_choice", "top_k", "top_logprobs", "top_p",
    }
)  # fmt: skip

# What says how an answer is sent, and nothing about what is in it.
_ABOUT_SENDING = frozenset({"stream", "stream_options", "background"})


class BatchContents:
    """Reads what the lines of a batch file ask, without their parameters; no LLM is needed."""

    def __init__(self) -> None:
        self._latest: tuple[Mapping[str, Any], BatchLine] | None = None

    def content_of(self, columns: Mapping[str, Any]) -> Any:
        """Return the messages of a line, or its raw prompt.

        Raises:
            ValueError: it is no request for a text, or has another shape.
        """
        return self._line_of(columns).content

    def with_parameters(
        self, columns: Mapping[str, Any], input: FormattedInput
    ) -> FormattedInput | InputWithArguments:
        """Return the input of a line as it is."""
        del columns
        return input

    def take_notes(self) -> list[str]:
        """Return what was to be told so far: nothing."""
        return []

    def _line_of(self, columns: Mapping[str, Any]) -> BatchLine:
        latest = self._latest
        if latest is None or latest[0] is not columns:
            latest = self._latest = columns, read_line(columns)
        return latest[1]


class BatchRequests(BatchContents):
    """Makes inputs of the lines, with the parameters of their bodies.

    What is not done as a line says is told once: another model, and parameters that the LLM does not have.

    Args:
        llm: the LLM; it need not be loaded.
        arguments: the generation parameters of the run.
        num_generations: how many generations of each row.
    """

    def __init__(self, llm: LLM, arguments: Mapping[str, Any], num_generations: int) -> None:
        super().__init__()
        self._name = type(llm).__name__
        self._model = llm.model_name
        self._declared = frozenset(type(llm).generation_parameters().parameters)
        self._parameters = RowParameters(type(llm))
        self._num_generations = num_generations
        given = {**llm.get_generation_kwargs(), **arguments}.get(_EXTRA)
        self._extra = given if isinstance(given, dict) else {}
        self._told: set[str] = set()
        self._notes: list[str] | None = []

    def with_parameters(
        self, columns: Mapping[str, Any], input: FormattedInput
    ) -> FormattedInput | InputWithArguments:
        """Return the input of a line with the parameters of its body.

        Raises:
            ValueError: a parameter has a wrong value, or asks for what the LLM cannot do.
        """
        line = self._line_of(columns)
        self._tell(line)
        given = self._known(line)
        return self._parameters.applied(input, given, line.told)

    def take_notes(self) -> list[str]:
        """Return what was to be told so far, for whoever tells it; what comes later is logged."""
        notes, self._notes = self._notes or [], None
        return notes

    def _known(self, line: BatchLine) -> dict[str, Any]:
        """Return the parameters of a line that the LLM has; the others become fields of its requests."""
        given: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, value in line.given.items():
            told = line.told[name]
            if name in self._declared and name != _EXTRA:
                given[name] = value
            elif name == "response_format":
                given |= self._form(value)
            elif name == "tools":
                given[name] = value  # refused where there are some
            elif name not in _VOCABULARY | _ABOUT_SENDING and _EXTRA in self._declared:
                extra[name] = value
                self._say(told, f"{told} is sent as it is: there is no parameter {name} here")
            else:
                self._say(told, f"{told} is left out: {self._name} has no parameter {name}")
        if extra:
            given[_EXTRA] = {**self._extra, **extra}
            line.told[_EXTRA] = "the body"
        if given.get("tools") == [] and "tools" not in self._declared:
            del given["tools"]
        return given

    def _form(self, form: Any) -> dict[str, Any]:
        """Return a response format as a structured output, for an LLM that has no parameter of that name."""
        kind = form.get("type") if isinstance(form, dict) else None
        if kind == "text":
            return {}
        schema = form.get("json_schema") if isinstance(form, dict) else None
        if kind == "json_schema" and isinstance(schema, dict) and isinstance(schema.get("schema"), dict):
            return {STRUCTURED_OUTPUT: {"format": "json", "schema": schema["schema"]}}
        raise ValueError(
            f"body.response_format is of the type {kind!r}, and {self._name} has json_schema at most"
        )

    def _tell(self, line: BatchLine) -> None:
        model, count = line.model, line.num_generations
        if model is not None and model != self._model:
            self._say(
                f"model {model}",
                f"the lines name the model {str(model)[:80]!r}: {self._model} is asked instead",
            )
        if count is not None and count != self._num_generations:
            self._say("n", f"body.n is left out: -n says that there are {self._num_generations}")

    def _say(self, what: str, sentence: str) -> None:
        if what not in self._told and len(self._told) < 20:
            self._told.add(what)
            if self._notes is None:
                _logger.warning("%s", sentence)
            else:
                self._notes.append(sentence)
