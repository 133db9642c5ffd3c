"""A tokenizer with the members of those of `transformers` that are used, around a real one of `tokenizers`."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

STRICT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "[{{ message['role'] }}]{{ message['content'] | trim }}{% endfor %}"
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


class SmallTokenizer:
    """Byte-level tokens, a few of them merged, and three special ones: 0 begins a text, 2 ends an answer."""

    def __init__(self, chat_template: Any = CHATML, *, bos: bool = False, fast: bool = True) -> None:
        tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
        backend = tokenizers.Tokenizer(tokenizers.models.BPE())
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=SPECIAL,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(["the river and the rain", "user assistant system"], trainer)
        if bos:
            backend.post_processor = tokenizers.processors.TemplateProcessing(
                single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
            )
        self._backend = backend
        if fast:
            self.backend_tokenizer = backend
        self.chat_template = chat_template
        self.rendered = 0

    @property
    def size(self) -> int:
        return int(self._backend.get_vocab_size())

    def apply_chat_template(
        self,
        chat: Any,
        *,
        chat_template: str | None,
        tokenize: bool,
        add_generation_prompt: bool,
        **more: Any,
    ) -> str:
        assert not tokenize
        self.rendered += 1
        own = self.chat_template["default"] if isinstance(self.chat_template, dict) else self.chat_template

        def raise_exception(words: str) -> None:
            raise jinja2.TemplateError(words)

        return jinja2.Template(chat_template or own, keep_trailing_newline=True).render(
            messages=chat,
            add_generation_prompt=add_generation_prompt,
            bos_token="<|endoftext|>",
            raise_exception=raise_exception,
            **more,
        )

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, tokens: list[int], *, skip_special_tokens: bool, **_: Any) -> str:
        return str(self._backend.decode(tokens, skip_special_tokens=skip_special_tokens))
