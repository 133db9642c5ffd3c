"""`Request`: the request that a backend makes from an input, and `RequestForm`: the form of its answer."""

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
    """The form of an answer, and how a request asks for it.

    Attributes:
        fields: the fields of the request that ask for the form.
        asked: the normalised structured output.
    """

    fields: dict[str, Any]
    asked: StructuredOutput

    @property
    def retries(self) -> int:
        """Number of retries for an answer that violates the form."""
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
        path: the path below `base_url`, such as `chat/completions`; percent-encoded parts stay encoded.
        body: JSON types; bytes are sent as they are.
        form: the form of the answer, as `StructuredHTTPLLM.split` returns it, or `None`.
        method: the method.
        headers: headers to send in addition to those of every request.
        query: the parameters of the query, in addition to those of `base_url`.
        wire: how the body of the answer is read, which decides the type that `output_of` receives: for
            `json` its value, for `bytes` the body, for `lines` a list of its lines as bytes, for `events` a
            list of `ServerEvent`, and for a function that returns a `StreamReader` a list of its values.
        max_new_tokens: the maximum number of tokens of each generation, for the quota of tokens and the
            bound on the size of the answer; `None` means the argument `max_new_tokens` of the call.
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
