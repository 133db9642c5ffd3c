"""`LocalLLM`: the base of backends with an engine on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, PrivateAttr, field_validator

from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.async_llm import AsyncLLM
from stillhouse.inputs import split_input
from stillhouse.local.guides import Guide, GuideCompiler, guide_for
from stillhouse.local.magpie import MagpieChatTemplateMixin
from stillhouse.local.outputs import unloaded
from stillhouse.local.templates import Prompts
from stillhouse.structured import StructuredOutputMixin
from stillhouse.typing import ChatItem, FormattedInput, StandardInput

__all__ = ["LocalLLM"]


class LocalLLM(AsyncLLM, StructuredOutputMixin, MagpieChatTemplateMixin):
    """A language model on this machine.

    A backend implements `load`, `unload` and `agenerate`. If the engine works with tokens and a tokenizer of
    the library `transformers`, its `load` calls `use_tokenizer`; this enables `prompt_ids`, the checks of
    inputs and the guides of structured outputs. For an engine that renders chats itself, override
    `check_chat`, `require_guide` and any other method that differs.
    """

    chat_template: str | None = Field(
        default=None,
        description="A Jinja2 chat template, or the path of a file with one, instead of the model's own.",
    )
    chat_template_kwargs: RuntimeParameter[dict[str, Any]] | None = Field(
        default=None,
        description="Further variables of the chat template, such as enable_thinking.",
    )

    _prompts: Prompts | None = PrivateAttr(default=None)
    _compiler: GuideCompiler | None = PrivateAttr(default=None)
    _compiler_of: tuple[Any, int, tuple[int, ...]] | None = PrivateAttr(default=None)

    @field_validator("structured_output", mode="after")
    @classmethod
    def _honourable(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            guide_for(value, cls.__name__)
        return value

    # For the backend

    def use_tokenizer(
        self, tokenizer: Any, vocabulary_size: int | None = None, eos_ids: Sequence[int] = ()
    ) -> None:
        """Use this tokenizer for prompts and, if the size of the vocabulary is given, for guides.

        Args:
            tokenizer: a tokenizer of the library `transformers`.
            vocabulary_size: the width of the model's logits; `None` for an engine with its own guides.
            eos_ids: the tokens that end an answer.

        Raises:
            ConfigurationError: `chat_template` is not a template, or gives no pre-query template for Magpie.
            UnsupportedError: `structured_output` cannot be enforced.
        """
        self._prompts = Prompts(
            tokenizer, self.chat_template, arguments=self.chat_template_kwargs, llm=type(self).__name__
        )
        self.check_magpie_template()
        if vocabulary_size is not None:
            # Made when the first form is there: it takes a second, and an odd tokenizer has none.
            self._compiler = None
            self._compiler_of = (tokenizer, vocabulary_size, tuple(eos_ids))
        if self.structured_output is not None:
            self.require_guide(guide_for(self.structured_output, type(self).__name__))

    @property
    def prompts(self) -> Prompts:
        """The `Prompts` that render chats and tokenise prompts.

        Raises:
            GenerationError, ConfigurationError: the LLM is not loaded.
        """
        if self._prompts is None:
            self.require_loaded()
            raise unloaded()
        return self._prompts

    @property
    def guides(self) -> GuideCompiler:
        """The compiler of guides.

        Raises:
            GenerationError, ConfigurationError: the LLM is not loaded.
            UnsupportedError: the model's tokenizer cannot be used for guides.
        """
        if self._compiler is None:
            if self._compiler_of is None:
                self.require_loaded()
                raise unloaded()
            self._compiler = GuideCompiler(*self._compiler_of)
        return self._compiler

    def guide_of(self, input: Any) -> Guide | None:
        """Return the guide for an input: its own structured output wins over the LLM's."""
        structured_output = split_input(input)[1] or self.structured_output
        return None if structured_output is None else guide_for(structured_output, type(self).__name__)

    def require_guide(self, guide: Guide) -> None:
        """Reject a form that the engine would not enforce.

        Raises:
            UnsupportedError: the message names the part that is not enforced.
        """
        if self._compiler_of is not None:
            self.guides.require(guide)

    def check_chat(self, content: StandardInput | str) -> None:
        """Reject a chat that the model has no prompt for, as far as this is known without rendering it.

        Raises:
            UnsupportedError: there is no chat template, or it does not accept a role.
        """
        if self._prompts is not None:
            self._prompts.check(content)

    def is_magpie(self, content: StandardInput | str) -> bool:
        """Whether the model writes the user's next message."""
        if not self.use_magpie_template or isinstance(content, str):
            return False
        return not content or content[-1]["role"] != "user"

    def prompt_ids(self, content: StandardInput | str) -> list[int]:
        """Return the prompt of an input as tokens.

        Args:
            content: a chat, or a raw prompt.

        Raises:
            GenerationError: the chat template refuses the chat.
        """
        # What the template has rendered begins with the token that begins a text.
        is_bare = isinstance(content, str) or not (content or self.magpie_pre_query_template == "auto")
        return self.prompts.encode(self.prompt_text(content), special=is_bare)

    def prompt_text(self, content: StandardInput | str) -> str:
        """Return the prompt of an input as text.

        Args:
            content: a chat, or a raw prompt.

        Raises:
            GenerationError: the chat template refuses the chat.
        """
        if isinstance(content, str):
            return content
        if not self.is_magpie(content):
            return self.prompts.render(content)
        is_derived = self.magpie_pre_query_template == "auto"
        rendered = self.render_chat(content) if content and not is_derived else ""
        return self.apply_magpie_pre_query_template(rendered, content)

    def render_chat(self, chat: Sequence[ChatItem]) -> str:
        """Return a chat as the chat template renders it, without the beginning of an answer."""
        return self.prompts.render(chat, answer=False)

    # The contract

    def unload(self) -> None:
        """Release the tokenizer; the LLM's own `unload` ends the running calls."""
        self._prompts = self._compiler = self._compiler_of = None
        super().unload()

    def check_input(self, input: Any) -> None:
        """Do the same as `LLM.check_input`, and reject a structured output that the engine cannot enforce.

        With Magpie, a chat without messages is valid: the model writes the first message.
        """
        content, _ = input if type(input) is tuple and len(input) == 2 else (input, None)
        if not (self.use_magpie_template and content == []):
            super().check_input(input)
        guide = self.guide_of(input)
        if guide is not None:
            self.require_guide(guide)
        self.check_chat(content)

    def batch_key(self, input: FormattedInput) -> int | str | None:
        """Return the length of an input in characters: inputs of similar length are faster together."""
        content, _ = split_input(input)
        return len(content) if isinstance(content, str) else sum(map(_length, content))

    def _prepare_structured_output(
        self, structured_output: Any, client: Any = None, framework: str | None = None
    ) -> dict[str, Any]:
        """Return the guide of an answer; the other arguments mean nothing here."""
        return {"grammar": guide_for(structured_output, type(self).__name__).grammar}


def _length(message: ChatItem) -> int:
    content: Any = message.get("content")
    if isinstance(content, list):
        return sum(len(part.get("text", "")) for part in content if isinstance(part, dict))
    return len(content or "")
