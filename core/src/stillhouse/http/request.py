"""`Request`: what a backend makes of an input, and `RequestForm`: the form that it demands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stillhouse.http.transport.feeding import Feed
from stillhouse.http.transport.reading import Wire
from stillhouse.structured.answers import AnswerForm
from stillhouse.typing import StructuredOutput

__all__ = ["Request", "RequestForm"]


@dataclass(frozen=True)
class RequestForm(AnswerForm):
    """The form that an answer must have, and how a request demands it.

    Attributes:
        fields: the fields of the request.
        asked: the structured output, in its one shape.
    """

    fields: dict[str, Any]
    asked: StructuredOutput

    @property
    def retries(self) -> int:
        """How often an answer that violates the form is retried."""
        given = self.asked.get("max_retries")
        return 1 if given is None else given

    @property
    def is_instructed(self) -> bool:
        """Whether instructor makes the request."""
        return bool(self.asked.get("mode"))


@dataclass(slots=True)
class Request:
    """A request that generates.

    Attributes:
        path: below `base_url`, such as `chat/completions`. What is percent-encoded in it stays so.
        body: JSON types; bytes are sent as they are.
        form: the form that the answer must have, as `StructuredHTTPLLM.split` gives it, or `None`.
        method: the method.
        headers: to send besides those of every request.
        query: the parameters of the query, besides those of `base_url`.
        wire: how the body of the answer is read, and so what `output_of` gets: `json` its value,
            `bytes` the body as it is, `lines` a list of its lines as bytes, `events` a list of
            `ServerEvent`, and a function that returns a `StreamReader` a list of its values.
        max_new_tokens: how many tokens each generation may have, for the quota of tokens and the bound
            on the answer's size; `None` takes the argument `max_new_tokens` of the call.
    """

    path: str
    body: Any
    form: RequestForm | None = None
    method: str = "POST"
    headers: Mapping[str, str] | None = None
    query: Mapping[str, str | int] | None = None
    wire: Wire = "json"
    max_new_tokens: int | None = None
    _feed: Feed | None = field(default=None, init=False, repr=False, compare=False)
