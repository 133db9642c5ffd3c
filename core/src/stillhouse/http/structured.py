"""`StructuredHTTPLLM`: the base of backends whose API has structured output."""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import orjson
from pydantic import PrivateAttr, field_validator

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError, UnsupportedError
from stillhouse.http.instructed import ask_instructed
from stillhouse.http.llm import HTTPLLM
from stillhouse.http.request import Request, RequestForm
from stillhouse.structured.answers import answer_problem
from stillhouse.structured.field import StructuredOutputMixin
from stillhouse.structured.instructor import check_mode
from stillhouse.structured.shape import normalize_structured_output
from stillhouse.typing import FormattedInput, GenerateOutput, StructuredOutput

__all__ = ["RequestForm", "StructuredHTTPLLM"]


class StructuredHTTPLLM(HTTPLLM, StructuredOutputMixin):
    """An `HTTPLLM` with structured output.

    A backend implements `form_fields`, and passes the form that `split` returns to its `Request`. A form
    that the API cannot enforce exactly is rejected when it is set, or before anything is sent.
    """

    raw_forms: ClassVar[bool] = False
    """Whether a raw prompt can have a structured output."""

    instructor_framework: ClassVar[str | None] = None
    """instructor's name for the API's format; `None` if instructor does not support it."""

    _made_form: tuple[Any, RequestForm] | None = PrivateAttr(default=None)

    @field_validator("structured_output", mode="after")
    @classmethod
    def _can_be_honoured(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            cls.form_of(value)
        return value

    def check_input(self, input: Any) -> None:
        super().check_input(input)
        if type(input) is tuple:
            if input[1] is not None:
                self.form_of(input[1])
        elif type(input) is str and not self._has_raw_form():
            raise UnsupportedError(
                f"{type(self).__name__} has no structured output for raw prompts", hint="send a chat"
            )

    def _has_raw_form(self) -> bool:
        own = self.structured_output
        return own is None or (self.raw_forms and not own.get("mode"))

    @classmethod
    @abstractmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        """Return the fields of a request that ask for a form.

        Args:
            structured_output: the normalised structured output, of JSON types, with a valid schema.

        Raises:
            UnsupportedError: the API cannot enforce it exactly; the message names the keyword and its place.
        """

    @classmethod
    def form_of(cls, structured_output: Any) -> RequestForm:
        """Return the form for a structured output, in any of its shapes; equal ones give the same form.

        Raises:
            ConfigurationError: it has another shape, or the schema is not valid.
            UnsupportedError: the API cannot honour it exactly; it says which keyword, and where.
        """
        try:
            key = orjson.dumps(normalize_structured_output(structured_output))
        except TypeError as error:
            raise ConfigurationError(f"the schema is not JSON: {error}") from None
        return _form(cls, key)

    def split(self, input: FormattedInput) -> tuple[Any, RequestForm | None]:
        """Return the chat or raw prompt of an input, and the form of its answer, its own or the LLM's."""
        own = self.structured_output
        if type(input) is tuple:
            input, given = input
            if given is not None:
                return input, self.form_of(given)
        return input, None if own is None else self._own_form(own)

    def _own_form(self, structured_output: Any) -> RequestForm:
        """Return the form of the LLM's own structured output, which is made once for all rows."""
        made = self._made_form
        if made is None or made[0] is not structured_output:
            made = self._made_form = structured_output, self.form_of(structured_output)
        return made[1]

    async def _ask_once(self, request: Request, num_generations: int) -> GenerateOutput:
        if request.form is None or not request.form.is_instructed:
            return await self.exchange(request, num_generations)

        answers: list[Any] = []

        def keep(answer: Any, request: Request) -> GenerateOutput:
            answers.append(answer)
            return self.output_of(answer, request)

        async def send(body: dict[str, Any]) -> Any:
            await self.exchange(replace(request, body=body), read=keep)
            return answers[-1]

        def read(answer: Any) -> GenerateOutput:
            return self.output_of(answer, request)

        return await ask_instructed(self, request.body, request.form, send, read)

    def _prepare_structured_output(
        self, structured_output: Any, client: Any = None, framework: str | None = None
    ) -> dict[str, Any]:
        """Return the fields of a request that demand the form; with a client, that client wrapped."""
        if client is not None:
            return super()._prepare_structured_output(structured_output, client, framework)
        return self.form_of(structured_output).fields

    @classmethod
    def sdk_answer(cls, answer: Any) -> Any:
        """Return an answer as an object of the provider's SDK, which instructor reads.

        A backend with an `instructor_framework` implements it; the extra installs the SDK's types.
        """
        raise NotImplementedError


@functools.lru_cache(maxsize=256)
def _form(cls: type[StructuredHTTPLLM], key: bytes) -> RequestForm:
    normal = orjson.loads(key)
    problem = answer_problem(normal)
    if not normal.get("mode"):
        return RequestForm(normal["format"], problem, cls.form_fields(normal), normal)
    if cls.instructor_framework is None:
        raise UnsupportedError(
            f"{cls.__name__} has no structured output with a mode", hint="remove mode from structured_output"
        )
    check_mode(normal, cls.instructor_framework)
    try:
        cls.sdk_answer({})
    except ImportError as error:
        raise ConfigurationError(
            f"a structured output with a mode needs {error.name}", hint=_hint_for_sdk(cls, error)
        ) from None
    return RequestForm(normal["format"], problem, {}, normal)


def _hint_for_sdk(cls: type[StructuredHTTPLLM], error: ImportError) -> str:
    """Return how to install the types of an SDK: the extra of the package that reads its answers."""
    module = next(base.__module__ for base in cls.__mro__ if "sdk_answer" in vars(base))
    package = module.partition(".")[0].replace("_", "-")
    if package.startswith("stillhouse-"):
        return install_command(f"{package}[instructor]")
    return f"install {error.name} in the environment of stillhouse"
