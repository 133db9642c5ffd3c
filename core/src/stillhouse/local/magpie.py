"""Magpie: a model writes the user's message, because the prompt ends where a user's message would begin.

The method is from Xu et al., 2024, https://arxiv.org/abs/2406.08464. The text before a user's message is
given by name or as a text, or comes from the model's own chat template: a chat is rendered with a marker as
the user's next message, and cut where the marker begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.typing import ChatItem, StandardInput

__all__ = ["MAGPIE_PRE_QUERY_TEMPLATES", "MagpieChatTemplateMixin", "pre_query_of"]

MAGPIE_PRE_QUERY_TEMPLATES: dict[str, str] = {
    "llama3": "<|start_header_id|>user<|end_header_id|>\n\n",
    "qwen2": "<|im_start|>user\n",
}
"""What stands before a user's message, by the family of the chat template."""

# They stand where messages would. No template changes a word of letters.
_MARKERS = ("stillhousemarkerword", "stillhouseanswerword", "stillhousequestionword")

_HINT = "give the text itself as magpie_pre_query_template, or the name llama3 or qwen2"


def pre_query_of(render: Callable[[Sequence[ChatItem]], str], chat: Sequence[ChatItem] = ()) -> str:
    """Return a chat as text that ends where the content of the user's next message begins.

    Args:
        render: makes the text of a chat, with no answer begun.
        chat: what comes before that message.

    Raises:
        GenerationError: the template leaves a user's message out, or puts nothing before it.
    """
    text = render([*chat, {"role": "user", "content": _MARKERS[0]}])
    before, marker, _ = text.rpartition(_MARKERS[0])
    if not marker or not before.strip():
        problem = "puts nothing before a user's message" if marker else "leaves the user's message out"
        raise GenerationError(
            f"the model's chat template {problem}: no pre-query template follows from it",
            kind="invalid_request",
            hint=_HINT,
        )
    return before


def _tells_roles_apart(render: Callable[[Sequence[ChatItem]], str]) -> bool:
    """Whether another text stands before a user's message than before an answer."""
    roles: tuple[Any, ...] = ("user", "assistant", "user")
    try:
        text = render(
            [{"role": role, "content": marker} for role, marker in zip(roles, _MARKERS, strict=True)]
        )
    except GenerationError:
        return True  # it takes no answers, and so there is nothing to compare
    question, answer, last = (text.find(marker) for marker in _MARKERS)
    if min(question, answer, last) < 0:
        return True
    return text[question + len(_MARKERS[0]) : answer] != text[answer + len(_MARKERS[1]) : last]


class MagpieChatTemplateMixin(BaseModel, validate_assignment=True):
    """Magpie for backends that render the chat template themselves."""

    use_magpie_template: RuntimeParameter[bool] = Field(
        default=False,
        description="Whether to end the prompt with the pre-query template, for Magpie.",
    )
    magpie_pre_query_template: RuntimeParameter[str] | None = Field(
        default=None,
        description='The pre-query template: "llama3", "qwen2", "auto" to take it from the chat template, '
        "or a text of your own.",
    )

    @field_validator("magpie_pre_query_template", mode="after")
    @classmethod
    def _resolve_alias(cls, value: str | None) -> str | None:
        return None if value is None else MAGPIE_PRE_QUERY_TEMPLATES.get(value, value)

    @model_validator(mode="after")
    def _has_template(self) -> Self:
        if self.use_magpie_template and self.magpie_pre_query_template is None:
            raise ValueError(
                "use_magpie_template needs magpie_pre_query_template: "
                f"{', '.join(MAGPIE_PRE_QUERY_TEMPLATES)}, auto, or a template of your own"
            )
        return self

    def render_chat(self, chat: Sequence[ChatItem]) -> str:
        """Return a chat as the chat template renders it, without the beginning of an answer.

        A backend overrides it to support the pre-query template "auto".

        Raises:
            GenerationError: the template rejects the chat.
            ConfigurationError: this backend cannot render a chat.
        """
        raise ConfigurationError(
            f'{type(self).__name__} cannot take the pre-query template from a chat template ("auto")',
            hint=_HINT,
        )

    def check_magpie_template(self) -> None:
        """For "auto", reject a chat template that gives no pre-query template.

        A backend calls it in `load`, once it can render chats.

        Raises:
            ConfigurationError: the template has no text of its own before a user's message.
        """
        if not self.use_magpie_template or self.magpie_pre_query_template != "auto":
            return
        try:
            pre_query_of(self.render_chat)
            told_apart = _tells_roles_apart(self.render_chat)
        except GenerationError as error:
            raise ConfigurationError(error.message, hint=_HINT) from error
        if not told_apart:
            raise ConfigurationError(
                "the model's chat template puts the same before a user's message as before an answer: "
                "no pre-query template follows from it",
                hint=_HINT,
            )

    def apply_magpie_pre_query_template(self, prompt: str, input: StandardInput | list[Any]) -> str:
        """Return the prompt, followed by the pre-query template if the next message is the user's.

        Args:
            prompt: the chat, rendered with its template.
            input: the chat. If its last message is the user's, or Magpie is off, the prompt is unchanged. For
                "auto" it is rendered again: some templates write a system prompt into the user's message.

        Raises:
            GenerationError: for "auto", the chat template rejects the chat, or leaves the message out.
            ConfigurationError: for "auto", this backend cannot render a chat.
        """
        if not self.use_magpie_template or (input and input[-1]["role"] == "user"):
            return prompt
        if self.magpie_pre_query_template == "auto":
            return pre_query_of(self.render_chat, input)
        return prompt + (self.magpie_pre_query_template or "")
