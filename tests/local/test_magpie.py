"""The pre-query template of Magpie."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import BaseModel, PrivateAttr, ValidationError

from stillhouse import LLM, ConfigurationError, GenerateOutput, GenerationError, MagpieChatTemplateMixin
from stillhouse.local import LocalLLM
from stillhouse.local.magpie import MAGPIE_PRE_QUERY_TEMPLATES

from ..support import SyncLLM, chat

SYSTEM: Any = [{"role": "system", "content": "You are kind."}]


class After(SyncLLM, MagpieChatTemplateMixin):
    pass


class Before(MagpieChatTemplateMixin, SyncLLM):
    pass


BOTH = pytest.mark.parametrize("kind", [After, Before])


@BOTH
@pytest.mark.parametrize("alias", ["llama3", "qwen2"])
def test_an_alias_is_resolved(kind: Any, alias: str) -> None:
    llm = kind(use_magpie_template=True, magpie_pre_query_template=alias)
    assert llm.magpie_pre_query_template == MAGPIE_PRE_QUERY_TEMPLATES[alias]
    assert (
        llm.apply_magpie_pre_query_template("prompt|", SYSTEM)
        == f"prompt|{MAGPIE_PRE_QUERY_TEMPLATES[alias]}"
    )
    llm.magpie_pre_query_template = "<user>"
    assert llm.apply_magpie_pre_query_template("prompt|", SYSTEM) == "prompt|<user>"


def test_the_templates_are_those_of_the_models() -> None:
    assert MAGPIE_PRE_QUERY_TEMPLATES == {
        "llama3": "<|start_header_id|>user<|end_header_id|>\n\n",
        "qwen2": "<|im_start|>user\n",
    }


@BOTH
def test_the_template_follows_unless_the_last_message_is_the_users(kind: Any) -> None:
    llm = kind(use_magpie_template=True, magpie_pre_query_template="<user>")
    assert llm.apply_magpie_pre_query_template("p", []) == "p<user>"
    assert (
        llm.apply_magpie_pre_query_template("p", [*chat(), {"role": "assistant", "content": "x"}])
        == "p<user>"
    )
    assert llm.apply_magpie_pre_query_template("p", [*SYSTEM, *chat()]) == "p"


@BOTH
def test_disabled_magpie_template_leaves_the_prompt_unchanged(kind: Any) -> None:
    assert kind(magpie_pre_query_template="<user>").apply_magpie_pre_query_template("p", SYSTEM) == "p"
    assert kind().apply_magpie_pre_query_template("p", SYSTEM) == "p"


@BOTH
def test_magpie_cannot_be_enabled_without_a_template(kind: Any) -> None:
    with pytest.raises(ValidationError, match="needs magpie_pre_query_template: llama3, qwen2, auto"):
        kind(use_magpie_template=True)
    llm = kind()
    with pytest.raises(ValidationError, match="magpie_pre_query_template"):
        llm.use_magpie_template = True
    assert not llm.use_magpie_template
    llm.magpie_pre_query_template = "llama3"
    llm.use_magpie_template = True
    with pytest.raises(ValidationError, match="magpie_pre_query_template"):
        llm.magpie_pre_query_template = None
    assert llm.magpie_pre_query_template


@BOTH
def test_magpie_fields_are_runtime_parameters(kind: Any) -> None:
    names = kind().runtime_parameters_names
    assert names["use_magpie_template"] is True
    assert names["magpie_pre_query_template"] is True


def test_magpie_mixin_validates_to_the_model_itself() -> None:
    data = {"use_magpie_template": True, "magpie_pre_query_template": "llama3"}
    assert isinstance(After.model_validate(data), LLM)
    assert issubclass(MagpieChatTemplateMixin, BaseModel)


# "auto": what the chat template itself puts before a user's message

Renderer = Callable[[Sequence[Any]], str]


def chatml(chat: Sequence[Any]) -> str:
    return "<s>" + "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in chat)


def instructions(chat: Sequence[Any]) -> str:
    """A template that writes the system prompt into the first user's message, and refuses one alone."""
    text, system = "<s>", ""
    for message in chat:
        if message["role"] == "system":
            system = f"<<SYS>>{message['content']}<</SYS>>"
        elif message["role"] == "user":
            text, system = f"{text}[INST] {system}{message['content']} [/INST]", ""
        else:
            text += f" {message['content']}</s>"
    if system:
        raise GenerationError("a system prompt needs a user", kind="invalid_request")
    return text


def single(chat: Sequence[Any]) -> str:
    """A template for one question."""
    if len(chat) > 1:
        raise GenerationError("one message only", kind="invalid_request")
    return f"Question: {chat[0]['content']}\nAnswer:"


class Renders(SyncLLM, MagpieChatTemplateMixin):
    _renderer: Any = PrivateAttr(default=None)

    def render_chat(self, chat: Sequence[Any]) -> str:
        return str(self._renderer(chat))

    def load(self) -> None:
        super().load()
        self.check_magpie_template()


def rendering(renderer: Renderer, template: str = "auto") -> Renders:
    llm = Renders(use_magpie_template=True, magpie_pre_query_template=template)
    llm._renderer = renderer
    return llm


@pytest.mark.parametrize(
    ("renderer", "chat_before", "expected"),
    [
        (chatml, [], "<s><|im_start|>user\n"),
        (chatml, SYSTEM, "<s><|im_start|>system\nYou are kind.<|im_end|>\n<|im_start|>user\n"),
        (instructions, [], "<s>[INST] "),
        (instructions, SYSTEM, "<s>[INST] <<SYS>>You are kind.<</SYS>>"),
        (
            instructions,
            [*chat("hi"), {"role": "assistant", "content": "stillhousemarkerword"}],
            "<s>[INST] hi [/INST] stillhousemarkerword</s>[INST] ",
        ),
        (single, [], "Question: "),
    ],
)
def test_auto_is_what_the_template_puts_before_a_user(
    renderer: Renderer, chat_before: Any, expected: str
) -> None:
    with rendering(renderer) as llm:
        before = copy.deepcopy(chat_before)
        assert llm.apply_magpie_pre_query_template("not used", chat_before) == expected
        assert chat_before == before
        assert llm.apply_magpie_pre_query_template("kept", chat()) == "kept"
    assert llm.magpie_pre_query_template == "auto"


@pytest.mark.parametrize(
    ("renderer", "message"),
    [
        (lambda chat: "<s>You are kind.", "leaves the user's message out"),
        (lambda chat: "".join(m["content"] for m in chat), "puts nothing before a user's message"),
        (lambda chat: "\n" + "\n".join(m["content"] for m in chat), "puts nothing before"),
        (
            lambda chat: "<s>" + "".join(f"{m['content']}</s>" for m in chat),
            "the same before a user's message",
        ),
        (lambda chat: single([*chat, *chat]), "one message only"),
    ],
)
def test_a_template_without_a_users_turn_is_refused_at_load(renderer: Renderer, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        rendering(renderer).load()
    assert "llama3 or qwen2" in caught.value.hint
    with rendering(renderer, "qwen2"):
        pass  # nothing is to be derived


def test_a_backend_that_renders_no_chats_says_so() -> None:
    llm = After(use_magpie_template=True, magpie_pre_query_template="auto")
    with pytest.raises(ConfigurationError, match="cannot take the pre-query template from a chat template"):
        llm.apply_magpie_pre_query_template("p", SYSTEM)


class Letters:
    """A tokenizer with a token for each character, which begins a text with the token 1."""

    backend_tokenizer = None
    chat_template = "{{ a template }}"

    def apply_chat_template(self, chat: Sequence[Any], **_: Any) -> str:
        return chatml(chat).replace("<s>", "\x01")

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [1] * add_special_tokens + [ord(letter) for letter in text]


class Local(LocalLLM):
    @property
    def model_name(self) -> str:
        return "local"

    def load(self) -> None:
        super().load()
        self.use_tokenizer(Letters())

    async def agenerate(self, input: Any, num_generations: int = 1) -> GenerateOutput:
        raise NotImplementedError


@pytest.mark.parametrize("template", ["auto", "qwen2"])
def test_a_prompt_for_magpie_begins_once_and_ends_where_the_user_would_write(template: str) -> None:
    with Local(use_magpie_template=True, magpie_pre_query_template=template) as llm:
        for before in ([], SYSTEM, [*chat(), {"role": "assistant", "content": "x"}]):
            tokens = llm.prompt_ids(before)
            rendered = chatml(before).removeprefix("<s>")
            assert "".join(map(chr, tokens)) == f"\x01{rendered}<|im_start|>user\n"


def test_a_local_llm_refuses_at_load_a_template_without_a_users_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Letters, "apply_chat_template", lambda self, chat, **_: "Be kind.")
    with pytest.raises(ConfigurationError, match="leaves the user's message out"):
        Local(use_magpie_template=True, magpie_pre_query_template="auto").load()
