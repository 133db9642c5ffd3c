"""An upper bound on the tokens a row can use, computed before anything is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from stillhouse.typing import FormattedInput

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = ["Bound", "Bounds", "size_of"]

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
        form = getattr(llm, "structured_output", None)
        self._repeats = 0
        if form is not None:
            retries = form.get("max_retries")
            self._repeats = 1 if retries is None else retries
        # Tools and schemas are input too.
        self._fixed = TEMPLATE_TOKENS + sum(
            size_of(value)
            for value in (form, *in_force.values())
            if isinstance(value, (dict, list, tuple, str))
        )

    def __call__(self, input: FormattedInput, num_generations: int) -> Bound | None:
        """Return the bound of an input, or `None` if it has none, as an image does not."""
        if self.max_new_tokens is None or _has_image(input):
            return None
        messages = len(input) if isinstance(input, list) else 1
        once = size_of(input) + MESSAGE_TOKENS * messages + self._fixed
        # Each retry may add the answer and the correction message to the input.
        request = once + self._repeats * (self.max_new_tokens + CORRECTION_TOKENS)
        requests = num_generations * (1 + self._repeats)
        return Bound(requests * request, requests * self.max_new_tokens)


def size_of(value: Any) -> int:
    """Return the bytes of a text, or of the JSON that a value is sent as."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return len(text.encode("utf-8", "surrogatepass"))


def _has_image(input: Any) -> bool:
    return isinstance(input, list) and any(
        isinstance(part, dict) and part.get("type", "text") != "text"
        for message in input
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )
