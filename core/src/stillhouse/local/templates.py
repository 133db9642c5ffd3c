"""`Prompts`: converts chats to tokens with the model's own chat template."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.local.magpie import pre_query_of
from stillhouse.typing import ChatItem, StandardInput

__all__ = ["Prompts"]


class Prompts:
    """Makes prompts with the tokenizer of a model, without changing its settings.

    A chat is rendered by the chat template and then tokenised without further special tokens, because the
    template writes them. So there is never a second token that begins a text. A raw prompt gets the special
    tokens that the tokenizer adds. The methods may be called from any thread.

    Args:
        tokenizer: a tokenizer of the library `transformers`.
        chat_template: a Jinja2 template, the path of a file with one, or the name of one of the model's
            templates; `None` for the model's own.
        arguments: further variables of the template, such as `enable_thinking`.
        llm: the class of the LLM, for messages.

    Raises:
        ConfigurationError: `chat_template` is none of these.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str | None = None,
        *,
        arguments: Mapping[str, Any] | None = None,
        llm: str = "the LLM",
    ) -> None:
        self._tokenizer = tokenizer
        self._arguments = dict(arguments or {})
        self._llm = llm
        self._lock = threading.Lock()
        own = getattr(tokenizer, "chat_template", None)
        self._template = _chosen(chat_template, own)
        self._has_template = bool(self._template) or bool(
            "default" in own if isinstance(own, Mapping) else own
        )
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None and (backend.padding or backend.truncation):
            # A copy, for the tokenizer itself would cut prompts or pad them.
            backend = type(backend).from_str(backend.to_str())
            backend.no_padding()
            backend.no_truncation()
        self._backend = backend

    @property
    def template(self) -> str | None:
        """The text of the given template; `None` for the model's own."""
        return self._template

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template."""
        return self._has_template

    @functools.cached_property
    def takes_system(self) -> bool:
        """Whether the template accepts a message with the role `system`."""
        try:
            self.render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
        except GenerationError:
            return not self._takes_user
        return True

    @functools.cached_property
    def _takes_user(self) -> bool:
        """Whether the template renders anything: one that is broken refuses no role in particular."""
        try:
            self.render([{"role": "user", "content": "Hi"}])
        except GenerationError:
            return False
        return True

    def check(self, content: StandardInput | str) -> None:
        """Reject an input that the model has no prompt for.

        Raises:
            UnsupportedError: the input is a chat and there is no chat template, or it has a message with the
                role `system` that the template does not accept.
        """
        if isinstance(content, str):
            return
        if not self.has_template:
            raise UnsupportedError(
                f"the model of {self._llm} has no chat template, so that it takes no chats",
                hint="give one: --set chat_template=FILE; or use raw prompts, or a model made for chats",
                stops_run=True,
            )
        if not self.takes_system and any(message.get("role") == "system" for message in content):
            raise UnsupportedError(
                "the model's chat template refuses messages of the role system",
                hint="put the text into the first user message, or give another template as chat_template",
            )

    def render(self, chat: Sequence[ChatItem], *, answer: bool = True) -> str:
        """Return a chat as text.

        Args:
            chat: the chat.
            answer: whether the text ends where the assistant's answer begins.

        Raises:
            GenerationError: the template refuses the chat (`invalid_request`).
            UnsupportedError: there is no template.
        """
        if not self.has_template:
            self.check(list(chat))
        try:
            text = self._tokenizer.apply_chat_template(
                [_plain(message) for message in chat],
                **{
                    **self._arguments,
                    "chat_template": self._template,
                    "tokenize": False,
                    "add_generation_prompt": answer,
                },
            )
        except GenerationError:
            raise  # of an engine that renders chats itself
        except Exception as error:  # a template is a program, and raises what it likes
            words = str(error).strip().partition("\n")[0] or type(error).__name__
            raise GenerationError(
                f"the model's chat template refuses this chat: {words[:300]}",
                kind="invalid_request",
                hint="correct the roles and their order, or give another template as chat_template",
            ) from error
        return str(text)

    def pre_query(self, chat: Sequence[ChatItem] = ()) -> str:
        """Return a chat as text that ends where the content of the user's next message begins.

        Raises:
            GenerationError: the template refuses the chat, or leaves a user's message out.
        """
        return pre_query_of(functools.partial(self.render, answer=False), chat)

    def ids_of(self, content: StandardInput | str, *, answer: bool = True) -> list[int]:
        """Return the tokens of a chat, or of a raw prompt.

        Args:
            content: a chat, or a raw prompt.
            answer: of a chat, whether the prompt ends where the assistant's answer begins.

        Raises:
            GenerationError, UnsupportedError: as for `render`.
        """
        if isinstance(content, str):
            return self.encode(content, special=True)
        return self.encode(self.render(content, answer=answer))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the tokens of a text.

        Args:
            text: the text.
            special: whether the tokenizer adds the tokens that begin and end a text.

        Raises:
            GenerationError: the text has half a surrogate pair in it (`invalid_request`).
        """
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise GenerationError(
                    f"the prompt has {text[error.start]!r} in it, which is half a character",
                    kind="invalid_request",
                    hint="replace it in the row, for example by U+FFFD",
                ) from None
        with self._lock:
            if self._backend is not None:
                return list(self._backend.encode(text, add_special_tokens=special).ids)
            return list(self._tokenizer.encode(text, add_special_tokens=special))

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text of generated tokens, without special ones."""
        if self._backend is not None:
            return str(self._backend.decode(list(tokens), skip_special_tokens=True))
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))


def _chosen(given: str | None, own: Any) -> str | None:
    """The template that was given, read if it is a file's; `None` for the model's own."""
    if given is None or "{" in given:
        return given
    if isinstance(own, Mapping) and given in own:
        return str(own[given])
    try:
        return Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        named = f", nor one of {', '.join(map(str, own))}" if isinstance(own, Mapping) else ""
        raise ConfigurationError(
            f"chat_template is {given[:100]!r}, which is no template in Jinja2, and no file that can be read"
            f"{named}: {error}",
            hint="give a template in Jinja2, or the path of a file with one",
        ) from None


def _plain(message: Any) -> dict[str, Any]:
    """A message whose content is a text: most templates take no parts."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return {**message, "content": content}
