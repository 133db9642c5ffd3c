"""An upper bound on the tokens a row can use, computed before anything is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from stillhouse.inputs import split_input
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = ["Bound", "Bounds", "size_of", "size_of_input"]

# Tokens that a chat template adds around a message, and before and after all of them.
MESSAGE_TOKENS = 16
TEMPLATE_TOKENS = 64

# Tokens of the correction message sent after an answer that violates its schema.
CORRECTION_TOKENS = 4096


class Bound(NamedTuple):
    """An upper bound on the tokens of a row.

    Attributes:
        input: tokens of the input, in all requests together.
        output: tokens of the output, likewise.
    """

    input: int
    output: int

    @property
    def tokens(self) -> int:
        return self.input + self.output


class Bounds:
    """Bounds for the rows of a run.

    A tokenizer that works on bytes makes no more tokens of a text than it has bytes, so the bytes
    of an input are its bound, with an allowance for what a chat template adds. Every generation
    counts as a request of its own, and every answer as one that violates its schema until the last
    retry.

    Args:
        llm: the LLM; it need not be loaded.
        arguments: the generation parameters of the run, in addition to the LLM's own.

    Attributes:
        max_new_tokens: how many tokens a generation may have; `None` where nothing bounds it.
        can_be_set: whether the LLM has the parameter `max_new_tokens`.
    """

    def __init__(self, llm: LLM, arguments: dict[str, Any]) -> None:
        declared = llm.generation_parameters().parameters
        in_force = {
            **{name: parameter.default for name, parameter in declared.items()},
            **llm.get_generation_kwargs(),
            **arguments,
        }
        self.max_new_tokens: int | None = in_force.get("max_new_tokens")
        self.can_be_set = "max_new_tokens" in declared or self.max_new_tokens is not None
        self._form = getattr(llm, "structured_output", None)
        # Tools and schemas are input too.
        self._sizes = {name: _size_beside(value) for name, value in in_force.items()}
        self._fixed = TEMPLATE_TOKENS + sum(self._sizes.values())

    def __call__(self, input: FormattedInput | InputWithArguments, num_generations: int) -> Bound | None:
        """Return the bound of an input, or `None` if it has none, as an image does not."""
        most, fixed = self.longest(input), self._fixed
        if isinstance(input, InputWithArguments):
            own, input = input.arguments, input.input
            fixed += sum(_size_beside(value) - self._sizes.get(name, 0) for name, value in own.items())
        content, own_form = split_input(input)
        form = self._form if own_form is None else own_form
        if most is None or _has_image(content):
            return None
        repeats = _repeats(form)
        messages = len(content) if isinstance(content, list) else 1
        once = size_of(content) + MESSAGE_TOKENS * messages + fixed + _size_beside(form)
        # Each retry may add the answer and the correction message to the input.
        request = once + repeats * (most + CORRECTION_TOKENS)
        requests = num_generations * (1 + repeats)
        return Bound(requests * request, requests * most)

    def longest(self, input: FormattedInput | InputWithArguments) -> int | None:
        """Return how many tokens a generation of an input may have; `None` where nothing bounds it."""
        own = input.arguments if isinstance(input, InputWithArguments) else {}
        most: int | None = own.get("max_new_tokens", self.max_new_tokens)
        return most


def _repeats(form: Any) -> int:
    """Return how often an answer may be asked for again because it violates its form."""
    if form is None:
        return 0
    retries = form.get("max_retries")
    return 1 if retries is None else int(retries)


def _size_beside(value: Any) -> int:
    """Return what a parameter or a form adds to the input; numbers add nothing."""
    return size_of(value) if isinstance(value, (dict, list, tuple, str)) else 0


def size_of_input(input: FormattedInput | InputWithArguments) -> int:
    """Return the bytes of an input that are text: the data of an image makes no tokens by its length."""
    if isinstance(input, InputWithArguments):
        input = input.input
    content, form = split_input(input)
    if _has_image(content):
        return _size_beside(form) + sum(
            size_of([part for part in parts if not _is_image(part)] if isinstance(parts, list) else parts)
            for parts in (message.get("content") for message in content if isinstance(message, dict))
        )
    return size_of(content) + _size_beside(form)


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def size_of(value: Any) -> int:
    """Return the bytes of a text, or of the JSON that a value is sent as."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return len(text.encode("utf-8", "surrogatepass"))


def _has_image(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type", "text") != "text"
        for message in content
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )
