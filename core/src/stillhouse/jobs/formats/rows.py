"""`Row` and `RowFormatter`: a row of the input file, and the input that it becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.jobs.prompts.batch_lines import LINE, is_batch_line
from stillhouse.jobs.prompts.batch_requests import BatchContents
from stillhouse.jobs.prompts.chats import chat_of, without_answer
from stillhouse.jobs.prompts.images import RowImages
from stillhouse.jobs.prompts.parameters import RowParameters
from stillhouse.jobs.prompts.shapes import CHATS, shape_of, text_in, text_of
from stillhouse.protocols import InputWithArguments, Row
from stillhouse.typing import FormattedInput, StandardInput, StructuredOutput

if TYPE_CHECKING:
    from stillhouse.jobs.prompts.templates import PromptTemplate

__all__ = ["Row", "RowFormatter", "digest_of", "invalid_row", "is_encodable"]


def digest_of(content: bytes) -> int:
    """Return a signed 64-bit digest of the content of a row, which a database stores well."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), signed=True)


def is_encodable(text: str) -> bool:
    """Return whether UTF-8 can encode a text: half a surrogate pair cannot be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def invalid_row(line: int | str, problem: str) -> GenerationError:
    """Return the error of a row that cannot be used, with its line number or where else it is."""
    where = f"line {line}" if isinstance(line, int) else line
    return GenerationError(f"{where}: {problem}", kind="invalid_input", attempts=0)


class RowFormatter:
    """Turns a row's columns into an input.

    A template, a column of texts or a column of chats takes precedence. Without one it is the first of the
    columns `messages`, `conversations`, `prompt` and `instruction` that has a value, the last with `input`.

    Args:
        template: a Jinja2 template over the row's columns.
        system: a system message to put before a chat that does not begin with one.
        raw: send the text as a raw prompt instead of as a user's message.
        prompt_column: the column that has the prompt.
        messages_column: the column that has the chat.
        drop_last_assistant: leave out the assistant's answer at the end of a chat.
        form: the form that every answer must have.
        parameters: takes what a row asks for itself; `None` for nothing.
        images: puts the images of a row into its input; `None` leaves it as it is.
        requests: reads the lines of an OpenAI batch file, for rows that turn out to be some.

    Attributes:
        system: the system message.
        raw: whether the inputs are raw prompts.
        has_arguments: whether an input may have arguments of its own.
        is_batch: whether the rows are lines of an OpenAI batch file.
        parameters: the argument.
        images: the argument.
        requests: the argument; `None` once the rows turned out to be no lines of a batch file.
        form: the form of the answers, or `None`.
        template: the template, or `None`.
        column: the column that was named, or `None`.

    Raises:
        ConfigurationError: the template is not valid, or the arguments exclude each other.
    """

    def __init__(
        self,
        template: str | None = None,
        system: str | None = None,
        raw: bool = False,
        *,
        prompt_column: str | None = None,
        messages_column: str | None = None,
        drop_last_assistant: bool = False,
        form: StructuredOutput | None = None,
        parameters: RowParameters | None = None,
        images: RowImages | None = None,
        requests: BatchContents | None = None,
    ) -> None:
        if raw and system is not None:
            raise ConfigurationError(
                "a raw prompt has no system message", hint="leave out --system, or --raw"
            )
        self.template: PromptTemplate | None = None
        if template is not None:
            from stillhouse.jobs.prompts.templates import PromptTemplate

            self.template = PromptTemplate(template)
        self.system = system
        self.raw = raw
        self.form = form
        self.parameters = parameters
        self.images = images
        self.requests = requests
        self.is_batch = False
        self.has_arguments = parameters is not None
        self.column = prompt_column if messages_column is None else messages_column
        self._is_chat = messages_column is not None
        self._drops_answer = drop_last_assistant

    def __call__(self, row: Row) -> FormattedInput | InputWithArguments | GenerationError:
        """Return the row's input, or the error that says why it has none."""
        if row.error is not None:
            return row.error
        try:
            input = self._input(row)
            if self.images is not None:
                input = self.images(row.columns, input)
            if self.is_batch and self.requests is not None:
                return self.requests.with_parameters(row.columns, input)
            return input if self.parameters is None else self.parameters.of_row(row, input)
        except ValueError as error:
            return invalid_row(row.place, str(error))

    def prompt(self, row: Row) -> FormattedInput | GenerationError:
        """Return the row's input without its images and parameters, or why it has none."""
        if row.error is not None:
            return row.error
        try:
            return self._input(row)
        except ValueError as error:
            return invalid_row(row.place, str(error))

    def recognise(self, row: Row) -> None:
        """Find out by the first row that can be read whether the rows are lines of an OpenAI batch file."""
        is_open = self.template is None and self.column is None and not row.typed
        self.is_batch = self.requests is not None and is_open and is_batch_line(row.columns)
        self.has_arguments = self.is_batch or self.parameters is not None

    def used(self, columns: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the columns that the prompt of a row is made of; none if it has none."""
        if self.template is not None:
            return self.template.used(columns)
        if self.column is not None:
            return (self.column,) if self.column in columns else ()
        if self.is_batch:
            return LINE
        try:
            return shape_of(columns)
        except ValueError:
            return ()

    def missing(self, columns: Iterable[str]) -> list[str]:
        """Return the columns that were named, and that are not among these."""
        if self.template is not None:
            return self.template.missing(columns)
        return [] if self.column is None or self.column in columns else [self.column]

    def _input(self, row: Row) -> FormattedInput:
        columns = row.columns
        if self.template is not None:
            return self._from_text(self.template(columns))
        if self.is_batch and self.requests is not None:
            content = self.requests.content_of(columns)
            if isinstance(content, str):
                return content
            if self.raw:
                raise ValueError("the line is a request for a chat, which is no raw prompt; leave out --raw")
            return self._from_chat(self._finished(chat_of(content, "body.messages")))
        if self.column is None:
            shape = shape_of(columns)
            if shape[0] not in CHATS:
                return self._from_text(text_of(columns, shape))
            name = shape[0]
        elif self._is_chat:
            name = self.column
            if columns.get(name) is None:
                raise ValueError(f"its {name} is null" if name in columns else f"the row has no {name}")
        else:
            return self._from_text(text_in(columns, self.column))
        if self.raw:
            raise ValueError(f"the row has {name}, which are no raw prompt; leave out --raw")
        chat = chat_of(columns[name], name, typed=row.typed)
        return self._from_chat(self._finished(chat))

    def _finished(self, chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return without_answer(chat) if self._drops_answer else chat

    def _from_text(self, text: str) -> FormattedInput:
        if self.raw:
            return text
        return self._from_chat([{"role": "user", "content": text}])

    def _from_chat(self, messages: list[dict[str, Any]]) -> FormattedInput:
        if self.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        chat = cast(StandardInput, messages)
        return chat if self.form is None else (chat, self.form)
