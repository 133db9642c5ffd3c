"""Generating with the real model."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_reports import STRICT

import stillhouse
from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse_llamacpp import LlamaCppLLM
from stillhouse_llamacpp.server import Server

pytestmark = pytest.mark.model

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
AS_PERSON = {"format": "json", "schema": PERSON}


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def one(llm: LlamaCppLLM, input: Any, **kwargs: Any) -> Any:
    return llm.generate_outputs([input], **{"temperature": 0, "max_new_tokens": 6, **kwargs})[0]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The requests that reached the engine."""
    bodies: list[dict[str, Any]] = []
    generate = Server.generate

    def noted(self: Server, route: Any, body: dict[str, Any], *arguments: Any) -> Any:
        bodies.append(body)
        return generate(self, route, body, *arguments)

    monkeypatch.setattr(Server, "generate", noted)
    return bodies


def test_outputs_are_in_order_with_statistics_and_finish_reasons(llm: LlamaCppLLM) -> None:
    words = ["one", "two", "three", "four"]
    inputs = [user(f"Repeat the word {word}.") for word in words]
    outputs = llm.generate_outputs(inputs, temperature=0, max_new_tokens=4)
    alone = [one(llm, input, max_new_tokens=4) for input in inputs]
    assert [output["generations"] for output in outputs] == [output["generations"] for output in alone]
    assert len({output["generations"][0] for output in outputs}) > 1
    for output in outputs:
        assert output["finish_reasons"] == ["length"]
        assert output["statistics"]["output_tokens"] == [4]
        assert output["statistics"]["input_tokens"][0] > 30
        assert output["statistics"]["cached_tokens"][0] >= 0


def test_inputs_are_left_alone(llm: LlamaCppLLM) -> None:
    input = (user("A person"), {**AS_PERSON, "schema": dict(PERSON)})
    before = pickle.dumps(input)
    one(llm, input, max_new_tokens=32)
    assert pickle.dumps(input) == before


def test_a_raw_prompt_gets_no_chat_template(llm: LlamaCppLLM) -> None:
    raw, chat = one(llm, "The sky is"), one(llm, user("The sky is"))
    assert raw["statistics"]["input_tokens"] == [3]
    assert chat["statistics"]["input_tokens"][0] > 20
    assert one(llm, "")["generations"] == [None]


def test_generations_have_seeds_that_count_up(llm: LlamaCppLLM) -> None:
    several = llm.generate_outputs([user("Name a river.")], 3, seed=5, temperature=1, max_new_tokens=6)[0]
    single = one(llm, user("Name a river."), seed=6, temperature=1)
    assert len(several["generations"]) == 3
    assert several["generations"][1] == single["generations"][0]
    assert len(set(several["generations"])) > 1
    assert several["statistics"]["output_tokens"] == [6, 6, 6]
    assert several["finish_reasons"] == ["length"] * 3


def test_the_seed_decides(llm: LlamaCppLLM) -> None:
    outputs = [one(llm, user("Name a river."), seed=seed, temperature=1.5) for seed in (1, 1, 2)]
    assert outputs[0]["generations"] == outputs[1]["generations"] != outputs[2]["generations"]


def test_a_stop_sequence_ends_the_text_and_is_not_in_it(llm: LlamaCppLLM) -> None:
    text = one(llm, user("Say hi"))["generations"][0]
    word = text.split()[1]
    output = one(llm, user("Say hi"), stop=word)
    assert output["generations"] == [text.partition(word)[0]]
    assert output["finish_reasons"] == ["stop"]


@pytest.mark.parametrize("input", [user("Say hi"), "Say hi"], ids=["chat", "raw"])
def test_log_probabilities(llm: LlamaCppLLM, input: Any) -> None:
    assert "logprobs" not in one(llm, input)
    output = one(llm, input, logprobs=True)
    (positions,) = output["logprobs"]
    assert "".join(position[0]["token"] for position in positions) == output["generations"][0]
    assert {len(position) for position in positions} == {1}
    (positions,) = one(llm, input, top_logprobs=3)["logprobs"]
    for position in positions:
        assert len(position) == 3
        assert position[0]["logprob"] == max(item["logprob"] for item in position) <= 0


def test_log_probabilities_are_whole_with_a_stop_sequence(llm: LlamaCppLLM) -> None:
    text = one(llm, user("Say hi"))["generations"][0]
    held_back = text.split()[1] + " zzz"
    (positions,) = one(llm, user("Say hi"), stop=held_back, logprobs=True)["logprobs"]
    assert len(positions) == 6


def test_a_trailing_message_of_the_assistant_is_answered_and_not_continued(llm: LlamaCppLLM) -> None:
    chat = [
        {"role": "system", "content": "Be kind."},
        *user("Say hi"),
        {"role": "assistant", "content": "Well, hello"},
    ]
    rendered = "".join(f"<|im_start|>{item['role']}\n{item['content']}<|im_end|>\n" for item in chat)
    expected = one(llm, rendered + "<|im_start|>assistant\n")
    output = one(llm, chat)
    assert output["generations"] == expected["generations"]
    assert output["statistics"]["input_tokens"] == expected["statistics"]["input_tokens"]


def test_a_prompt_that_is_too_long(llm: LlamaCppLLM) -> None:
    with pytest.raises(GenerationError, match=r"prompt has \d+ tokens.* room for 512") as caught:
        one(llm, user("word " * 600))
    assert caught.value.kind == "context_length"
    results = dict(
        llm.iter_outputs(
            [user("word " * 600), user("Say hi")], on_error="yield", max_new_tokens=2, temperature=0
        )
    )
    assert isinstance(results[0], GenerationError)
    assert results[1]["generations"]  # type: ignore[index]


def test_input_that_the_engine_refuses_is_an_invalid_request(llm: LlamaCppLLM) -> None:
    with pytest.raises(GenerationError) as caught:
        one(llm, [{"role": "user", "content": "\ud800"}])
    assert caught.value.kind == "invalid_request"
    assert one(llm, user("Say hi"))["generations"][0]


@pytest.mark.parametrize("content", [3, b"Say hi"])
def test_content_that_is_no_text_never_reaches_the_engine(llm: LlamaCppLLM, content: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"of type {type(content).__name__}"):
        one(llm, [{"role": "user", "content": content}])
    assert one(llm, user("Say hi"))["generations"][0]


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1}, {"seed": -1}, {"top_p": 2}])
def test_parameters_are_checked(llm: LlamaCppLLM, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        one(llm, user("Say hi"), **wrong)


# Structured output


def test_structured_output_of_an_input_overrides_that_of_the_llm(llm: LlamaCppLLM) -> None:
    llm.structured_output = AS_PERSON
    plain, own, none = llm.generate_outputs(
        [
            user("A person"),
            (user("Is water wet?"), {"format": "choice", "schema": ["yes", "no"]}),
            (user("A person"), None),
        ],
        temperature=0,
        max_new_tokens=32,
    )
    assert json.loads(plain["generations"][0] or "").keys() == {"name", "age"}
    assert own["generations"][0] in ("yes", "no")
    assert none["generations"] == plain["generations"]
    llm.structured_output = None
    with pytest.raises(json.JSONDecodeError):
        json.loads(one(llm, user("A person"))["generations"][0])


def test_json_of_several_generations(llm: LlamaCppLLM) -> None:
    output = llm.generate_outputs([(user("A person"), AS_PERSON)], 2, seed=1, max_new_tokens=32)[0]
    for text in output["generations"]:
        assert abs(json.loads(text or "")["age"]) >= 0


def test_raw_prompt_is_guided_by_the_structured_output_of_the_llm(llm: LlamaCppLLM) -> None:
    llm.structured_output = {"format": "choice", "schema": ["blue", "green"]}
    assert one(llm, "The sky is")["generations"][0] in ("blue", "green")


@pytest.mark.parametrize(
    ("pattern", "length"), [(r"[A-Z][a-z]{3}", 4), (r"\d{2}/\d{2}", 5), (r"(é|ü)\\\d", 3)]
)
def test_generated_text_matches_the_regex(llm: LlamaCppLLM, pattern: str, length: int) -> None:
    text = one(llm, (user("Write"), {"format": "regex", "schema": pattern}), max_new_tokens=12)
    assert len(text["generations"][0]) == length
    assert text["generations"][0].isascii() or pattern.startswith("(é")


def test_a_choice_with_every_kind_of_character(llm: LlamaCppLLM) -> None:
    choice = 'a "b"\\c\n\t/é😀\''
    output = one(llm, (user("Write"), {"format": "choice", "schema": [choice]}), max_new_tokens=24)
    assert output["generations"] == [choice]


@pytest.mark.parametrize(
    "structured_output",
    [
        {"format": "json", "schema": {"type": "string", "format": "made-up"}},
        {"format": "json", "schema": {"type": "integer", "minimum": 4, "maximum": 3}},
        {"format": "json", "schema": {"$ref": "#/$defs/nowhere"}},
        {"format": "json", "schema": {"$ref": "#"}},
        {"format": "json", "schema": {"type": "number", "multipleOf": 0.1, "minimum": 0.25, "maximum": 0.35}},
        {"format": "json", "schema": {"type": "string", "pattern": "(?=a)b"}},
        {"format": "json", "schema": {"oneOf": [{"type": "integer"}, {"type": "number"}]}},
        {"format": "regex", "schema": r"(a)\1"},
        {"format": "regex", "schema": r"a\b"},
    ],
    ids=str,
)
def test_structured_output_that_the_engine_ignores_is_refused_before_sending(
    llm: LlamaCppLLM, structured_output: Any, sent: list[dict[str, Any]]
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        llm.generate_outputs([user("Say hi"), (user("Write"), structured_output)], max_new_tokens=2)
    assert caught.value.hint
    assert all(body["prompt"] == "A" for body in sent), "more than the trial of the grammar"
    with pytest.raises(UnsupportedError):
        one(llm, (user("Write"), structured_output))
    assert len(sent) <= 1, "the trial is not remembered"


def test_a_guide_is_tried_when_loading_and_in_a_coroutine(
    llm: LlamaCppLLM, small: dict[str, Any], sent: list[dict[str, Any]]
) -> None:
    ignored = {"format": "json", "schema": {"type": "string", "format": "made-up-too"}}

    async def called() -> None:
        with pytest.raises(UnsupportedError):
            await llm.agenerate((user("Write"), ignored))  # type: ignore[arg-type]
        with pytest.raises(UnsupportedError):
            await llm.agenerate_outputs([(user("Write"), ignored)])  # type: ignore[list-item]

    asyncio.run(called())
    assert len(sent) == 1
    other = LlamaCppLLM(**small, structured_output=ignored)
    with pytest.raises(UnsupportedError):
        other.load()
    assert not other.is_loaded
    assert other._engine is None


def test_json_cut_off_by_max_new_tokens_is_a_truncated_error(llm: LlamaCppLLM) -> None:
    with pytest.raises(GenerationError) as caught:
        one(llm, (user("A person"), AS_PERSON), max_new_tokens=3)
    assert caught.value.kind == "truncated"


def test_json_cut_off_by_a_stop_sequence_is_a_schema_error(llm: LlamaCppLLM) -> None:
    with pytest.raises(GenerationError) as caught:
        one(llm, (user("A person"), AS_PERSON), max_new_tokens=32, stop=[","])
    assert caught.value.kind == "schema"


def test_an_answer_that_the_engine_did_not_guide_is_an_error(
    llm: LlamaCppLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = Server.generate
    monkeypatch.setattr(
        Server,
        "generate",
        lambda self, route, body, *more: generate(self, route, {**body, "grammar": ""}, *more),
    )
    monkeypatch.setattr("stillhouse_llamacpp.engine.Engine.require", lambda self, guide: None)
    with pytest.raises(GenerationError) as caught:
        one(llm, (user("Say hi"), {"format": "regex", "schema": "[0-9]"}), max_new_tokens=64)
    assert caught.value.kind == "schema"


def test_a_failed_generation_keeps_the_others(llm: LlamaCppLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = Server.generate

    def second_fails(self: Server, route: Any, body: dict[str, Any], *more: Any) -> Any:
        if body["seed"] == 8:
            raise GenerationError("it failed, as it was told to", kind="server")
        return generate(self, route, body, *more)

    monkeypatch.setattr(Server, "generate", second_fails)
    with pytest.raises(GenerationError) as caught:
        asyncio.run(llm.agenerate(user("Say hi"), num_generations=3, seed=7, max_new_tokens=2))
    assert caught.value.kind == "server"
    (partial,) = caught.value.outputs
    assert partial is not None
    assert len(partial["generations"]) == 2


# Hidden states


def test_hidden_states(llm: LlamaCppLLM) -> None:
    import numpy

    chat, text, prefix = llm.get_last_hidden_states([user("Say hi"), "Hello world, this is", "Hello world"])
    assert chat.shape == (one(llm, user("Say hi"))["statistics"]["input_tokens"][0], 576)
    assert text.shape == (5, 576)
    assert text.dtype == numpy.float32
    assert numpy.abs(text[: len(prefix)] - prefix).max() < 1e-3
    assert numpy.abs(text[0] - text[1]).max() > 1
    assert llm.get_last_hidden_states([]) == []
    with pytest.raises(GenerationError, match=r"prompt has \d+ tokens.* room for 512") as caught:
        llm.get_last_hidden_states(["word " * 600])
    assert caught.value.kind == "context_length"


# Magpie


def test_magpie_lets_the_model_write_the_users_message(llm: LlamaCppLLM, sent: list[dict[str, Any]]) -> None:
    llm.magpie_pre_query_template = "qwen2"
    llm.use_magpie_template = True
    system: Any = {"role": "system", "content": "You help with maths."}
    one(llm, [system])
    one(llm, [])
    one(llm, [system, *user("What is 1 + 1?")])
    assert sent[0]["prompt"] == ("<|im_start|>system\nYou help with maths.<|im_end|>\n<|im_start|>user\n")
    assert sent[1]["prompt"] == "<|im_start|>user\n"
    assert sent[2]["messages"] == [system, *user("What is 1 + 1?")]
    llm.use_magpie_template = False
    with pytest.raises(ConfigurationError):
        one(llm, [])


def test_auto_is_the_pre_query_template_of_the_model(llm: LlamaCppLLM, sent: list[dict[str, Any]]) -> None:
    llm.magpie_pre_query_template = "auto"
    llm.use_magpie_template = True
    one(llm, [{"role": "system", "content": "You help with maths."}])
    one(llm, [])
    assert sent[0]["prompt"] == "<|im_start|>system\nYou help with maths.<|im_end|>\n<|im_start|>user\n"
    assert sent[1]["prompt"].endswith("<|im_end|>\n<|im_start|>user\n")  # its own system prompt comes first


# Chat templates


def test_a_chat_template_of_ones_own_with_variables(small: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text(
        "{{ tone }}{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{% endfor %}"
    )
    with LlamaCppLLM(**small, chat_template=str(path), chat_template_kwargs={"tone": "loud"}) as llm:
        as_text = "loud<|im_start|>user: Say hi"
        assert llm.prompt_text(user("Say hi")) == as_text
        chat, text = one(llm, user("Say hi")), one(llm, as_text)
        assert chat["generations"] == text["generations"]
        assert chat["statistics"]["input_tokens"] == text["statistics"]["input_tokens"]
    with pytest.raises(ConfigurationError, match="chat_template"):
        LlamaCppLLM(**small, chat_template="no-such-file.jinja").load()
    with pytest.raises(ConfigurationError) as caught:
        LlamaCppLLM(**small, chat_template="{% for m in").load()
    assert "chat_template" in caught.value.hint


def test_a_chat_that_the_template_refuses_fails_by_the_templates_words(small: dict[str, Any]) -> None:
    with LlamaCppLLM(**small, chat_template=STRICT) as llm:
        rows = [
            user("Hi"),
            [*user("Hi"), *user("there")],
            [{"role": "assistant", "content": "x"}, *user("Hi")],
        ]
        first, *others = (output for _, output in llm.iter_outputs(rows, on_error="yield", max_new_tokens=2))
        assert not isinstance(first, GenerationError)
        for error in others:
            assert isinstance(error, GenerationError)
            assert error.kind == "invalid_request"
            assert "template refuses this chat: Conversation roles must alternate" in error.message


def test_without_a_chat_template_raw_prompts_run_and_none_is_made_up(
    weights: Path, tmp_path: Path, small: dict[str, Any]
) -> None:
    path = tmp_path / "bare.gguf"
    path.write_bytes(weights.read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.chat_tEMPLATE", 1))
    with LlamaCppLLM(**small, model=str(path)) as llm:
        assert one(llm, "The sky is")["generations"][0]
        with pytest.raises(UnsupportedError, match="no chat template") as caught:
            one(llm, user("Hi"))
        assert "chat_template" in caught.value.hint
    refused = LlamaCppLLM(
        **small, model=str(path), use_magpie_template=True, magpie_pre_query_template="auto"
    )
    with pytest.raises(UnsupportedError, match="no chat template"):
        refused.load()
    with LlamaCppLLM(**small, model=str(path), chat_template=STRICT) as llm:
        assert one(llm, user("Hi"))["generations"][0]
    path.unlink()


# Cancelling, unloading, loading


@pytest.fixture
def long_call(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, list[Any]]:
    """An event that is set when a request has begun to be answered, and the answers that were finished."""
    began, finished = threading.Event(), []
    generate = Server.generate

    def watched(self: Server, route: Any, body: Any, cancelled: Callable[[], bool], *more: Any) -> Any:
        def look() -> bool:
            began.set()
            return cancelled()

        finished.append(generate(self, route, body, look, *more))
        return finished[-1]

    monkeypatch.setattr(Server, "generate", watched)
    return began, finished


ENDLESS: dict[str, Any] = {"max_new_tokens": 450, "extra_body": {"ignore_eos": True}}


def test_cancelling_a_coroutine_stops_the_engine(
    llm: LlamaCppLLM, long_call: tuple[threading.Event, list[Any]]
) -> None:
    began, finished = long_call

    async def main() -> None:
        task = asyncio.create_task(llm.agenerate(user("Tell a story"), num_generations=3, **ENDLESS))
        await asyncio.to_thread(began.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert llm._engine is not None
    deadline = time.monotonic() + 60
    while llm._engine.is_busy and time.monotonic() < deadline:  # what had begun ends at its next token
        time.sleep(0.01)
    assert not llm._engine.is_busy
    assert finished == []


def test_leaving_a_stream_stops_the_engine(
    llm: LlamaCppLLM, long_call: tuple[threading.Event, list[Any]]
) -> None:
    _, finished = long_call
    items: Any = llm.stream(user("Tell a story"), **ENDLESS)
    assert isinstance(next(items), str)
    items.close()
    assert llm._engine is not None
    deadline = time.monotonic() + 60
    while llm._engine.is_busy and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not llm._engine.is_busy
    assert finished == []


def test_log_probabilities_with_a_stop_text_come_with_the_whole_text(llm: LlamaCppLLM) -> None:
    """The engine streams them of a chat incompletely, so it is not asked to."""
    given: dict[str, Any] = {"temperature": 0, "max_new_tokens": 8, "logprobs": True, "stop": "###"}
    piece, output = llm.stream(user("Name a river."), **given)
    assert [piece] == output["generations"]  # type: ignore[index]


def test_unload_ends_the_calls_in_flight(
    small: dict[str, Any], long_call: tuple[threading.Event, list[Any]]
) -> None:
    began, finished = long_call
    llm = LlamaCppLLM(**small)
    llm.load()
    caught: list[BaseException] = []

    def generate() -> None:
        try:
            llm.generate_outputs([user("Tell a story")] * 4, **ENDLESS)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=generate)
    thread.start()
    began.wait(30)
    llm.unload()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(caught[0], GenerationError)
    assert caught[0].kind == "connection"
    assert finished == []


def test_loading_again_pickling_and_two_at_once(llm: LlamaCppLLM, small: dict[str, Any]) -> None:
    expected = one(llm, user("Say hi"))["generations"]
    other: LlamaCppLLM = pickle.loads(pickle.dumps(LlamaCppLLM(**small)))
    with pytest.raises(TypeError, match="unload"):
        pickle.dumps(llm)
    for _ in range(2):
        other.load()
        assert one(other, user("Say hi"))["generations"] == expected
        assert one(llm, user("Say hi"))["generations"] == expected
        other.unload()
        other.unload()
    with pytest.raises(ConfigurationError, match="not loaded"):
        one(other, user("Say hi"))
    assert pickle.loads(pickle.dumps(other)) == other


def test_settings_survive_a_file(small: dict[str, Any], tmp_path: Any) -> None:
    llm = LlamaCppLLM(**small, structured_output=AS_PERSON, generation_kwargs={"seed": 3})
    llm.save(tmp_path / "llm.json")
    assert stillhouse.LLM.from_file(tmp_path / "llm.json") == llm


def test_llm_works_in_a_running_loop_and_from_threads(llm: LlamaCppLLM) -> None:
    expected = one(llm, user("Say hi"))["generations"]

    async def main() -> None:
        assert one(llm, user("Say hi"))["generations"] == expected
        outputs = await llm.agenerate_outputs([user("Say hi")], temperature=0, max_new_tokens=6)
        assert outputs[0]["generations"] == expected

    asyncio.run(main())
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(one(llm, user("Say hi"))["generations"]))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [expected] * 3
