"""`openai-compatible`: any server, with the key in a variable that a file may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse import LLM, ConfigurationError, Registry
from stillhouse_openai import DeepSeekLLM, GroqLLM, OpenAICompatibleLLM

CHAT: Any = [{"role": "user", "content": "hello"}]


def registry() -> Registry:
    made = Registry([])
    made.register("openai-compatible", OpenAICompatibleLLM)
    return made


def test_a_file_names_the_variable_of_the_key(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text(
        f"llm: openai-compatible\nbase_url: {server.origin}/v1\nmodel: m\nkey_variable: ACME_KEY\n"
    )
    llm = LLM.from_file(file, registry())
    monkeypatch.delenv("ACME_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="ACME_KEY") as caught:
        llm.load()
    assert "set ACME_KEY" in caught.value.hint
    monkeypatch.setenv("ACME_KEY", " secret-of-acme\n")
    with llm:
        llm.generate_outputs([CHAT], max_new_tokens=5, top_k=3, reasoning_effort="max", stop=None)
    assert server.headers[0]["authorization"] == "Bearer secret-of-acme"
    assert server.bodies[0] == {
        "model": "m", "messages": CHAT, "max_tokens": 5, "top_k": 3, "reasoning_effort": "max",
    }  # fmt: skip
    assert "secret-of-acme" not in repr(llm) + str(llm.dump())
    llm.api_key = "mine"  # type: ignore[assignment]
    with llm:
        llm.generate_outputs([CHAT])
    assert server.headers[-1]["authorization"] == "Bearer mine"


def test_without_a_variable_no_key_is_sent(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of another server")
    with OpenAICompatibleLLM(model="m", base_url=server.origin) as llm:
        llm.generate_outputs([CHAT])
    assert "authorization" not in server.headers[0]
    assert server.paths == ["/chat/completions"]


def test_the_address_must_be_given() -> None:
    with pytest.raises(ConfigurationError, match="where the API is") as caught:
        registry().create("openai-compatible:m").load()
    assert "base_url" in caught.value.hint
    assert OpenAICompatibleLLM.model_fields["base_url"].is_required()


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ("<think>hm</think>\n\n42", "42", "hm"),
        ("Let me see.</think>\n\n42", "42", "Let me see."),
        ("<think>hm", None, "hm"),
        ("\n<think></think>42", "42", None),
        ("In code, `<think>x</think>` is a tag.", "In code, `<think>x</think>` is a tag.", None),
        ("Write <think> first.", "Write <think> first.", None),
        ("<think>a</think>b</think>c", "b</think>c", "a"),
        ("42", "42", None),
        (None, None, None),
    ],
)
def test_reasoning_in_the_text_is_taken_out_when_asked(
    server: Any, content: str | None, text: str | None, reasoning: str | None
) -> None:
    server.script[:] = [server.chat(content, finish="length")] * 2
    with OpenAICompatibleLLM(model="m", base_url=server.origin, reasoning_tag="think") as llm:
        (output,) = llm.generate_outputs([CHAT])
    with OpenAICompatibleLLM(model="m", base_url=server.origin) as llm:
        (plain,) = llm.generate_outputs([CHAT])
    assert (output["generations"], output["finish_reasons"]) == ([text], ["length"])
    assert output.get("reasoning") == ([reasoning] if reasoning else None)
    assert plain["generations"] == [content]


def test_a_form_is_checked_without_the_reasoning(server: Any) -> None:
    form = {"format": "json", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    server.script[:] = [server.chat('<think>{"a": "no"}</think>{"a": 1}')]
    with OpenAICompatibleLLM(
        model="m", base_url=server.origin, reasoning_tag="think", structured_output=form
    ) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ['{"a": 1}']


@pytest.mark.parametrize("tag", ["think", "<think>", "</think>"])
def test_a_tag_may_be_given_as_it_stands_in_the_text(tag: str) -> None:
    llm = OpenAICompatibleLLM(model="m", base_url="https://e.x/v1", reasoning_tag=tag)
    assert llm.reasoning_tag == "think"
    with pytest.raises(ValueError, match="reasoning_tag"):
        OpenAICompatibleLLM(model="m", base_url="https://e.x/v1", reasoning_tag="<>")


def test_chats_are_sent_as_every_server_takes_them(server: Any) -> None:
    parts = [{"type": "text", "text": "Answer "}, {"type": "text", "text": "briefly."}]
    chat: Any = [{"role": "developer", "content": parts}, {"role": "user", "content": parts[:1]}]
    wanted = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Answer "}]
    for cls in (OpenAICompatibleLLM, DeepSeekLLM, GroqLLM):
        with cls(model="m", base_url=server.origin, api_key="key") as llm:
            llm.generate_outputs([chat], tools=[], tool_choice="auto")  # none, which is refused as a list
        assert server.bodies[-1] == {"model": "m", "messages": wanted}
    assert chat[0]["role"] == "developer"
