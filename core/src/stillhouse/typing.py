"""The types of inputs and outputs.

The typed dicts come from `typing_extensions`: before Python 3.12, pydantic accepts no others, neither in
`@validate_call` nor as the type of a field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypeAlias, get_args

from typing_extensions import TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy
    import numpy.typing

__all__ = [
    "CAPABILITIES",
    "Capability",
    "ChatItem",
    "ChatType",
    "FormattedInput",
    "GenerateOutput",
    "HiddenState",
    "ImageContent",
    "ImageUrl",
    "InstructorStructuredOutputType",
    "LLMLogprobs",
    "LLMOutput",
    "LLMStatistics",
    "Logprob",
    "ModelInfo",
    "OnPiece",
    "OutlinesStructuredOutputType",
    "ReasoningEffort",
    "StandardInput",
    "StreamItem",
    "StructuredInput",
    "StructuredOutput",
    "StructuredOutputType",
    "TextContent",
    "TokenCount",
]

Capability = Literal[
    "chat",
    "raw_prompt",
    "images",
    "tools",
    "num_generations",
    "logprobs",
    "hidden_states",
    "json_schema",
    "regex",
    "choice",
    "offline_batch",
    "seed",
]
"""What a backend can do.

`num_generations`: the engine or the API makes several generations for one input in one call. Without it,
each generation is one call, and the results are merged; the output has the same number either way.
"""

CAPABILITIES: frozenset[Capability] = frozenset(get_args(Capability))


ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "max"]
"""How long a model thinks before it answers.

A backend maps it to the provider's levels or budgets, and refuses a level that the provider does not have.
"""


class ChatItem(TypedDict):
    """One message of a chat.

    `role` is `system`, `user`, `assistant` or `tool`. `content` is a string, or a list of parts
    such as `{"type": "text", "text": …}` and `{"type": "image_url", "image_url": {"url": …}}`.
    Any other key is passed on to the provider, never dropped.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None
    name: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]


class StructuredOutput(TypedDict, total=False):
    """The form that a generation must have.

    `format` is `json`, `regex` or `choice`; `schema` is a pydantic class, a JSON schema (dict or
    string), a pattern, or a list of choices. `max_retries` is the number of retries for an answer that
    violates the form; 1 by default.
    `mode` is for `instructor`; `whitespace_pattern` is a pattern for the white space between JSON tokens.
    """

    format: Literal["json", "regex", "choice"]
    schema: Any
    mode: str | None
    max_retries: int
    whitespace_pattern: str | None


class Logprob(TypedDict):
    """One candidate for one position of a generation."""

    token: str
    logprob: float


class GenerateOutput(TypedDict):
    """What an LLM generated for one input.

    `generations` has one entry per generation, `None` where there is no text.
    `statistics` maps a name (`input_tokens`, `output_tokens`, …) to a list with one entry per
    generation, or one entry for the whole request. `logprobs[generation][position][candidate]`
    is present if it was requested. Every other key, one of those below or the backend's own, holds a list
    with one entry per generation.
    """

    generations: list[str | None]
    statistics: dict[str, list[Any]]
    logprobs: NotRequired[list[list[list[Logprob]] | None]]
    finish_reasons: NotRequired[list[str | None]]
    reasoning: NotRequired[list[str | None]]
    tool_calls: NotRequired[list[list[dict[str, Any]] | None]]


StreamItem: TypeAlias = "str | GenerateOutput"
"""An item of a stream: a piece of the text or, as the last item, the output."""

OnPiece: TypeAlias = "Callable[[str], None]"
"""The function to which a backend passes the pieces of a text; see `LLM.generate_streamed`."""


class ModelInfo(TypedDict):
    """A model that a provider offers, as `LLM.list_models` returns it.

    `name` is a value for the field `model`. Unknown values are left out: `context_length`, the maximum
    number of tokens of input and output together; `max_new_tokens`, the maximum for one generation;
    `created`, a date or a time in ISO 8601; `input_price` and `output_price`, in USD per million tokens.
    """

    name: str
    context_length: NotRequired[int]
    max_new_tokens: NotRequired[int]
    created: NotRequired[str]
    input_price: NotRequired[float]
    output_price: NotRequired[float]


# When pydantic validates them, as in `@validate_call`, they keep every key, including undeclared ones.
for _open in (ChatItem, StructuredOutput, GenerateOutput):
    setattr(_open, "__pydantic_config__", {"extra": "allow"})  # noqa: B010


StandardInput: TypeAlias = list[ChatItem]
"""A chat."""

StructuredInput: TypeAlias = tuple[StandardInput, StructuredOutput | None]
"""A chat, and the form of its answer, which wins over the LLM's `structured_output`."""

FormattedInput: TypeAlias = StandardInput | StructuredInput | str
"""A chat, a chat with a form, or a raw prompt that is sent without a chat template."""

HiddenState: TypeAlias = "numpy.typing.NDArray[numpy.floating[Any]]"
"""An array `[num_tokens, hidden_size]` of the last hidden states of one input, padding removed."""

# distilabel's names, so that a class written for distilabel works after a change of its imports.

ChatType: TypeAlias = StandardInput
"""distilabel's name for `StandardInput`."""

TextContent: TypeAlias = dict[str, Any]
"""distilabel's name for a part of a message: `{"type": "text", "text": …}`."""

ImageUrl: TypeAlias = dict[str, Any]
"""distilabel's name for the value of `image_url` in a part with an image: `{"url": …}`."""

ImageContent: TypeAlias = dict[str, Any]
"""distilabel's name for a part of a message: `{"type": "image_url", "image_url": {"url": …}}`."""

InstructorStructuredOutputType: TypeAlias = StructuredOutput
"""distilabel's name for a `StructuredOutput` through `instructor`."""

OutlinesStructuredOutputType: TypeAlias = StructuredOutput
"""distilabel's name for a `StructuredOutput` by constrained decoding."""

StructuredOutputType: TypeAlias = StructuredOutput
"""distilabel's name for either of these two, which are the same here."""

LLMOutput: TypeAlias = list[str | None]
"""distilabel's name for the `generations` of an output."""

LLMLogprobs: TypeAlias = list[list[list[Logprob]] | None]
"""distilabel's name for the `logprobs` of an output."""

LLMStatistics: TypeAlias = dict[str, list[Any]]
"""distilabel's name for the `statistics` of an output."""

TokenCount: TypeAlias = dict[str, list[int]]
"""distilabel's name for `statistics` that hold `input_tokens` and `output_tokens`."""
