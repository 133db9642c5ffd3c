"""OpenAI batch request files as the input of a run."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

import stillhouse
from stillhouse import AsyncLLM, ConfigurationError, FormattedInput, GenerateOutput
from stillhouse.inputs import split_input
from stillhouse.jobs.prompts.batch_lines import is_batch_line, read_line
from stillhouse.typing import CAPABILITIES, Capability

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
HELLO = [{"role": "user", "content": "hello"}]


class RecordingLLM(AsyncLLM):
    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES
    model: str = "m"
    _calls: list[tuple[Any, dict[str, Any]]] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return self.model

    async def agenerate(  # type: ignore[override]
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = None,
        reasoning_effort: str | None = None,
    ) -> GenerateOutput:
        given = {
            "max_new_tokens": max_new_tokens, "temperature": temperature, "stop": stop, "seed": seed,
            "logprobs": logprobs, "top_logprobs": top_logprobs, "tools": tools, "tool_choice": tool_choice,
            "reasoning_effort": reasoning_effort,
        }  # fmt: skip
        content, form = split_input(input)
        given["structured_output"] = form
        self._calls.append((content, {name: value for name, value in given.items() if value is not None}))
        return stillhouse.prepare_output(["fine"] * num_generations)


class ExtraLLM(RecordingLLM):
    async def agenerate(  # type: ignore[override]
        self,
        input: FormattedInput,
        num_generations: int = 1,
        response_format: dict[str, Any] | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        self._calls.append((input, {"response_format": response_format, "extra_body": extra_body}))
        return stillhouse.prepare_output(["fine"] * num_generations)


def line(custom_id: Any = "a", path: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    if not body.keys() & {"messages", "input", "prompt"}:
        body = {"messages": HELLO, **body}
    return {"custom_id": custom_id, "method": "POST", "url": path, "body": {"model": "m", **body}}


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    return path


def run(tmp_path: Path, *lines: Any, llm: Any = None, **options: Any) -> tuple[Any, Any]:
    llm = llm or RecordingLLM(max_concurrency=1)
    source = write(tmp_path / "batch.jsonl", *lines)
    return llm, stillhouse.run(source, llm=llm, output=tmp_path / "out.jsonl", show_bar=False, **options)


def test_a_batch_file_needs_no_option(tmp_path: Path) -> None:
    chat = [{"role": "developer", "content": "be short"}, *HELLO]
    llm, done = run(
        tmp_path,
        line("a", messages=chat, max_tokens=5, temperature=0.2, tools=[TOOL], tool_choice="auto", stop=["x"]),
        line("b", max_completion_tokens=7, seed=3, reasoning_effort="low", logprobs=True, top_logprobs=2),
        line("c", response_format=JSON_SCHEMA, temperature=None),
        line("d", response_format={"type": "text"}, tools=[]),
        temperature=0.9,
    )
    assert llm._calls == [
        (chat, {"max_new_tokens": 5, "temperature": 0.2, "tools": [TOOL], "tool_choice": "auto", "stop": ["x"]}),
        (HELLO, {"max_new_tokens": 7, "temperature": 0.9, "seed": 3, "reasoning_effort": "low", "logprobs": True,
                 "top_logprobs": 2}),
        (HELLO, {"temperature": 0.9, "structured_output": {"format": "json", "schema": SCHEMA}}),
        (HELLO, {"temperature": 0.9, "tools": []}),
    ]  # fmt: skip
    assert [row["custom_id"] for row in done] == ["a", "b", "c", "d"]
    assert all(row["body"]["model"] == "m" and row["generations"] == ["fine"] for row in done)


def test_the_bodies_of_the_other_paths(tmp_path: Path) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "look"},
                                     {"type": "input_image", "image_url": "https://example.org/a.png"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}", "id": "fc"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It rains."}]},
        {"role": "user", "content": "so?"},
    ]  # fmt: skip
    flat = {"type": "function", **TOOL["function"]}  # type: ignore[dict-item]
    llm, done = run(
        tmp_path,
        line("a", "/v1/responses", input="hello", instructions="be short", max_output_tokens=4,
             text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}, tools=[flat],
             tool_choice={"type": "function", "name": "weather"}, reasoning={"effort": "high"}),
        line("b", "/v1/responses", input=items),
        line("c", "/v1/completions", prompt="Once", max_tokens=3, logprobs=2),
        line("d", "/v1/completions", prompt=["Once"]),
    )  # fmt: skip
    assert done.counts == (4, 4, {})
    assert llm._calls == [
        (
            [{"role": "system", "content": "be short"}, *HELLO],
            {
                "max_new_tokens": 4, "structured_output": {"format": "json", "schema": SCHEMA}, "tools": [TOOL],
                "tool_choice": {"type": "function", "function": {"name": "weather"}}, "reasoning_effort": "high",
            },
        ),
        (
            [
                {"role": "user", "content": [{"type": "text", "text": "look"},
                                             {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "rain"},
                {"role": "assistant", "content": [{"type": "text", "text": "It rains."}]},
                {"role": "user", "content": "so?"},
            ],
            {},
        ),
        ("Once", {"max_new_tokens": 3, "logprobs": True, "top_logprobs": 2}),
        ("Once", {}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (line(method="GET") | {"method": "GET"}, "its method is 'GET'"),
        (line(path="/v1/embeddings", input="x"), "at which no text is generated"),
        (line(path="/v1/completions", prompt=["a", "b"]), "not one text"),
        (line(path="/v1/responses", input=[{"type": "reasoning"}]), "type 'reasoning'"),
        (line(max_tokens=1, max_completion_tokens=2), "body.max_tokens and body.max_completion_tokens"),
        (line(temperature="hot"), "body.temperature"),
        (line(response_format={"type": "json_object"}), "json_object"),
        (line(response_format=5), "response_format"),
        (line(messages=[]), "not a list of messages"),
        (line(messages="x"), "not a list of messages"),
        ({**line(), "body": {"model": "m"}}, "body"),
        ({"prompt": "x"}, "body"),
    ],
)
def test_a_line_that_cannot_be_used_fails_alone(tmp_path: Path, given: Any, words: str) -> None:
    given = {**given, "custom_id": "z"}
    _, done = run(tmp_path, line("a"), given, line("b"))
    assert done.counts == (3, 2, {"invalid_input": 1})
    message = [*done][1]["error"]["message"]
    assert message.startswith("line 2: ")
    assert words in message


def test_tools_for_an_llm_without_any_are_not_left_out(tmp_path: Path) -> None:
    _, done = run(tmp_path, line("a", tools=[TOOL]), line("b", tools=[]), line("c"), llm="echo")
    assert done.counts == (3, 2, {"invalid_input": 1})


def test_what_is_not_done_as_the_lines_say_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [
        line(str(number), temperature=0.1, max_tokens=9, user="u", n=2, stream=True) for number in range(30)
    ]
    lines = [{**item, "body": {**item["body"], "model": "gpt-4o-mini"}} for item in lines]
    with caplog.at_level(logging.INFO, "stillhouse.jobs"):
        _, done = run(tmp_path, *lines, llm="echo")
    assert done.counts == (30, 30, {})
    for words in ("'gpt-4o-mini': echo is asked instead", "body.temperature is left out", "body.user is left out",
                  "body.n is left out", "body.stream is left out"):  # fmt: skip
        assert caplog.text.count(words) == 1, words
    assert "max_tokens" not in caplog.text
    assert "prompt: the requests of an OpenAI batch file" in caplog.text


def test_an_unknown_parameter_is_sent_where_the_llm_sends_such(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    llm = ExtraLLM(max_concurrency=1, generation_kwargs={"extra_body": {"store": False, "user": "mine"}})
    with caplog.at_level(logging.INFO, "stillhouse.jobs"):
        run(
            tmp_path,
            line("a", user="u", metadata={"x": "y"}, seed=3, response_format={"type": "json_object"}),
            line("b"),
            llm=llm,
        )
    assert [given for _, given in llm._calls] == [
        {
            "response_format": {"type": "json_object"},
            "extra_body": {"store": False, "user": "u", "metadata": {"x": "y"}},
        },
        {"response_format": None, "extra_body": {"store": False, "user": "mine"}},
    ]
    assert caplog.text.count("body.user is sent as it is") == 1
    # What has a name here, and is none of this backend's, is no unknown field either.
    assert caplog.text.count("body.seed is left out") == 1


def test_images_of_a_line_are_read_from_allowed_folders(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(GIF)
    parts = [{"type": "image_url", "image_url": {"url": "a.gif"}}]
    llm, done = run(
        tmp_path, line("a", messages=[{"role": "user", "content": parts}], seed=2), images_from=tmp_path
    )
    assert done.counts == (1, 1, {})
    ((chat, given),) = llm._calls
    assert chat[0]["content"][0]["image_url"]["url"].startswith("data:image/gif;base64,")
    assert given == {"seed": 2}


def test_the_number_of_generations_is_that_of_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "stillhouse.jobs"):
        _, done = run(tmp_path, line("a", n=2), num_generations=2)
    assert [row["generations"] for row in done] == [["fine", "fine"]]
    assert [record.message for record in caplog.records] == [
        "prompt: the requests of an OpenAI batch file, with the parameters of their bodies; unused: none"
    ]


# Which files are such


@pytest.mark.parametrize(
    ("columns", "is_one"),
    [
        (line(), True),
        ({"custom_id": "a", "body": {"messages": HELLO}}, True),  # as Mistral has it
        ({"method": "POST", "url": "/v1/chat/completions", "body": {"messages": HELLO}}, True),
        ({"custom_id": "a", "body": "a text"}, False),
        ({"id": 1, "body": {"messages": HELLO}}, False),
        ({"custom_id": "a", "body": {"text": "x"}}, False),
        ({"custom_id": "a", "prompt": "x"}, False),
        ({}, False),
    ],
)
def test_a_batch_file_is_recognised_by_its_shape(columns: Any, is_one: bool) -> None:
    assert is_batch_line(columns) == is_one


def test_a_file_that_is_none_from_its_first_line_on_is_none(tmp_path: Path) -> None:
    llm, done = run(tmp_path, {"prompt": "x"}, line("a", temperature=0.3))
    assert [content for content, _ in llm._calls] == [[{"role": "user", "content": "x"}]]
    assert done.counts == (2, 1, {"invalid_input": 1})


def test_a_template_of_the_user_wins(tmp_path: Path) -> None:
    llm, _ = run(tmp_path, line("a", temperature=0.3), template="{{ custom_id }}!")
    assert llm._calls == [([{"role": "user", "content": "a!"}], {})]


# Ids


def test_an_id_twice_is_one_error_before_anything_is_sent(tmp_path: Path) -> None:
    llm = RecordingLLM()
    for twice in ((line("a"), line("b"), line("a")), (line("1"), line("b"), line(1))):
        with pytest.raises(ConfigurationError, match=r"line 1 and line 3 .*custom_id"):
            run(tmp_path, *twice, llm=llm)
    with pytest.raises(ConfigurationError, match="line 2 has no custom_id"):
        run(tmp_path, line("a"), {**line(), "custom_id": None}, llm=llm)
    assert llm._calls == []
    assert not (tmp_path / "out.jsonl").exists()


def test_ids_of_rows_beyond_the_limit_do_not_matter(tmp_path: Path) -> None:
    _, done = run(tmp_path, line("a"), line("b"), line("a"), limit=2)
    assert done.counts == (2, 2, {})


def test_a_broken_line_has_no_id_to_be_twice(tmp_path: Path) -> None:
    source = tmp_path / "batch.jsonl"
    source.write_text(json.dumps(line("a")) + "\n{broken\n{broken\n" + json.dumps(line("b")) + "\n")
    done = stillhouse.run(source, llm=RecordingLLM(), output=tmp_path / "out.jsonl", show_bar=False)
    assert done.counts == (4, 2, {"invalid_input": 2})


def test_what_a_line_asks_for_is_not_changed() -> None:
    given = line("a", "/v1/responses", input=[{"role": "user", "content": [{"type": "input_text", "text": "x"}]}],
                 tools=[{"type": "function", "name": "w"}])  # fmt: skip
    before = json.dumps(given)
    read_line(given)
    assert json.dumps(given) == before


def test_ids_of_several_files(tmp_path: Path) -> None:
    line = {
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": "x"}]},
    }
    for name, ids in (("a.jsonl", "pq"), ("b.jsonl", "rq")):
        (tmp_path / name).write_text("".join(json.dumps({"custom_id": id, **line}) + "\n" for id in ids))
    (tmp_path / "o").mkdir()
    places = re.escape(f"{tmp_path}/a.jsonl, line 2 and {tmp_path}/b.jsonl, line 2")
    with pytest.raises(ConfigurationError, match=f"{places} have the same custom_id, 'q'"):
        stillhouse.run(
            [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], llm="echo", output=tmp_path / "o" / "x.jsonl"
        )
