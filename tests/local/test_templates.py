"""Prompts: what the model's chat template makes of a chat, once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.local import Prompts

from .small_tokenizer import STRICT, SmallTokenizer

USER: Any = [{"role": "user", "content": "the river"}]
SYSTEM: Any = [{"role": "system", "content": "Be brief."}, *USER]


@pytest.mark.parametrize("bos", [False, True])
def test_a_chat_has_the_first_token_that_its_template_writes_and_no_other(bos: bool) -> None:
    prompts = Prompts(SmallTokenizer(STRICT, bos=bos))
    assert prompts.ids_of(USER).count(0) == 1
    assert Prompts(SmallTokenizer(bos=bos)).ids_of(USER).count(0) == 0


@pytest.mark.parametrize("bos", [False, True])
def test_a_raw_prompt_has_the_first_token_that_its_tokenizer_adds(bos: bool) -> None:
    assert Prompts(SmallTokenizer(bos=bos)).ids_of("the river").count(0) == int(bos)


@pytest.mark.parametrize(
    "content", ["caf\ud83d", [{"role": "user", "content": "caf\ud83d"}]], ids=["raw", "chat"]
)
def test_half_a_character_is_an_error_of_that_row(content: Any) -> None:
    with pytest.raises(GenerationError, match=r"\\ud83d.* half a character") as raised:
        Prompts(SmallTokenizer()).ids_of(content)
    assert raised.value.kind == "invalid_request"


def test_a_chat_ends_where_the_answer_begins_unless_it_is_said_otherwise() -> None:
    prompts = Prompts(SmallTokenizer())
    assert prompts.render(USER).endswith("<|im_start|>assistant\n")
    assert prompts.render(USER, answer=False).endswith("the river<|im_end|>\n")


def test_a_content_in_parts_is_one_text() -> None:
    parts: Any = [
        {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "river"}]}
    ]
    prompts = Prompts(SmallTokenizer())
    assert prompts.ids_of(parts) == prompts.ids_of(USER)


def test_the_settings_of_the_tokenizer_neither_cut_nor_pad_and_stay_as_they_are() -> None:
    tokenizer = SmallTokenizer()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    plain, odd = Prompts(SmallTokenizer()), Prompts(tokenizer)
    assert odd.ids_of(USER) == plain.ids_of(USER)
    assert odd.ids_of("the river and the rain") == plain.ids_of("the river and the rain")
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 4
    assert tokenizer.backend_tokenizer.padding["length"] == 50


@pytest.mark.parametrize(
    ("chat", "words"),
    [
        ([*USER, *USER], "must alternate"),
        ([{"role": "assistant", "content": "Hi"}, *USER], "must alternate"),
    ],
)
def test_what_the_template_refuses_is_an_error_of_that_row_in_its_words(chat: Any, words: str) -> None:
    prompts = Prompts(SmallTokenizer(STRICT))
    with pytest.raises(GenerationError, match=words) as raised:
        prompts.ids_of(chat)
    assert raised.value.kind == "invalid_request"
    assert not raised.value.stops_run


@pytest.mark.parametrize(
    "template", ["{{ messages[7].content }}", "{{ 1 / 0 }}", "{% broken", "{{ messages | nope }}"]
)
def test_a_broken_template_is_an_error_and_no_traceback(template: str) -> None:
    prompts = Prompts(SmallTokenizer(template))
    with pytest.raises(GenerationError, match="chat template") as raised:
        prompts.ids_of(USER)
    assert raised.value.kind == "invalid_request"
    prompts.check(SYSTEM)  # no role in particular is to blame


def test_a_role_system_that_the_template_refuses_is_known_before_anything_is_rendered_for_a_row() -> None:
    tokenizer = SmallTokenizer(STRICT)
    prompts = Prompts(tokenizer)
    with pytest.raises(UnsupportedError, match="role system"):
        prompts.check(SYSTEM)
    rendered = tokenizer.rendered
    for _ in range(5):
        prompts.check(USER)
        with pytest.raises(UnsupportedError):
            prompts.check(SYSTEM)
    assert tokenizer.rendered == rendered
    Prompts(SmallTokenizer()).check(SYSTEM)


@pytest.mark.parametrize("template", [None, "", {}, {"tool_use": "{{ messages }}"}])
def test_without_a_template_raw_prompts_run_and_chats_stop_the_run(template: Any) -> None:
    prompts = Prompts(SmallTokenizer(template))
    assert prompts.ids_of("the river")
    prompts.check("the river")
    for refuse in (prompts.check, prompts.ids_of):
        with pytest.raises(UnsupportedError, match="no chat template") as raised:
            refuse(USER)
        assert raised.value.stops_run
        assert "chat_template" in raised.value.hint


def test_a_template_can_be_given_as_text_as_a_file_or_by_name(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("<{{ messages[0].content }}>", encoding="utf-8")
    several = {"default": "{{ 0 }}", "short": "<{{ messages[0].content }}>"}
    for given, own in ((str(file), None), (file.read_text(encoding="utf-8"), None), ("short", several)):
        prompts = Prompts(SmallTokenizer(own), given)
        prompts.check(USER)
        assert prompts.render(USER) == "<the river>"
    with pytest.raises(ConfigurationError, match=r"chat_template is 'long'.*short"):
        Prompts(SmallTokenizer(several), "long")


def test_variables_of_the_template_are_passed_on_and_change_nothing_else() -> None:
    prompts = Prompts(
        SmallTokenizer("{{ messages[0].content }}{% if enable_thinking %}!{% endif %}"),
        arguments={"enable_thinking": True, "tokenize": True},
    )
    assert prompts.render(USER) == "the river!"


def test_what_stands_before_a_users_message_comes_from_the_template() -> None:
    prompts = Prompts(SmallTokenizer())
    assert prompts.pre_query() == "<|im_start|>user\n"
    assert prompts.pre_query(SYSTEM[:1]) == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    with pytest.raises(GenerationError, match="leaves the user's message out"):
        Prompts(SmallTokenizer("nothing")).pre_query()


def test_prompts_are_made_from_several_threads_at_once() -> None:
    prompts = Prompts(SmallTokenizer())
    expected = prompts.ids_of(USER)
    made: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: made.extend(prompts.ids_of(USER) for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [expected] * 200


def test_a_slow_tokenizer_makes_the_same_prompts() -> None:
    slow = Prompts(SmallTokenizer(bos=True, fast=False))
    fast = Prompts(SmallTokenizer(bos=True))
    assert slow.ids_of(USER) == fast.ids_of(USER)
    assert slow.ids_of("the rain") == fast.ids_of("the rain")
    assert slow.text_of(fast.encode("the rain")) == "the rain"
