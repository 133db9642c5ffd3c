"""OpenAI batch files as the input of a run: what is sent is what the lines say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import stillhouse

MESSAGES = [{"role": "developer", "content": "be short"}, {"role": "user", "content": "hello"}]
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
FORM = {
    "type": "json_schema",
    "json_schema": {"name": "x", "strict": True, "schema": {"type": "object", "properties": {}}},
}

BODIES: list[dict[str, Any]] = [
    {"model": "m", "messages": MESSAGES, "temperature": 0.2, "max_completion_tokens": 5, "tools": [TOOL],
     "tool_choice": "auto", "stop": ["x"], "seed": 7, "user": "u", "metadata": {"a": "b"}},
    {"model": "m", "messages": MESSAGES, "response_format": FORM, "logprobs": True, "top_logprobs": 2,
     "parallel_tool_calls": False},
    {"model": "m", "messages": MESSAGES},
]  # fmt: skip


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "batch.jsonl"
    lines = [
        {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number, body in enumerate(BODIES)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_each_request_has_the_body_of_its_line(make: Any, server: Any, source: Path) -> None:
    done = stillhouse.run(source, llm=make(max_concurrency=1), show_bar=False)
    assert done.counts == (3, 3, {})
    assert server.bodies == BODIES
    assert [row["custom_id"] for row in done] == ["id-0", "id-1", "id-2"]


def test_an_offline_batch_has_them_too(make: Any, server: Any, source: Path, tmp_path: Path) -> None:
    job = {"id": "batch_1", "object": "batch", "status": "in_progress", "created_at": 1}
    server.script = [{"id": "file-1", "status": "processed"}, job, job]
    stillhouse.run(source, llm=make(), output=tmp_path / "out.jsonl", batch=True, show_bar=False)
    lines = [json.loads(line) for line in server.bodies[0].splitlines() if line.startswith('{"custom_id"')]
    assert [line["body"] for line in lines] == BODIES


def test_the_llm_that_is_named_is_asked(make: Any, server: Any, source: Path) -> None:
    stillhouse.run(source, llm=make(model="another", max_concurrency=1), show_bar=False)
    assert server.bodies == [{**body, "model": "another"} for body in BODIES]


def test_the_responses_api_gets_what_a_line_for_it_says(make: Any, server: Any, tmp_path: Path) -> None:
    body = {
        "model": "m", "input": "hello", "instructions": "be short", "max_output_tokens": 16,
        "reasoning": {"effort": "low"}, "tools": [{"type": "function", "strict": False, **TOOL["function"]}],
        "text": {"format": {"type": "json_schema", **FORM["json_schema"]}}, "store": True,
    }  # fmt: skip
    path = tmp_path / "batch.jsonl"
    path.write_text(
        json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}) + "\n"
    )
    server.script = [
        {"id": "r", "object": "response", "status": "completed", "output": [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "{}"}]}],
         "usage": {"input_tokens": 1, "output_tokens": 1}}
    ]  # fmt: skip
    done = stillhouse.run(path, llm=make(api="responses"), show_bar=False)
    assert done.counts == (1, 1, {})
    (sent,) = server.bodies
    assert sent["input"] == [{"role": "system", "content": "be short"}, {"role": "user", "content": "hello"}]
    rest = {name: value for name, value in body.items() if name not in ("input", "instructions")}
    assert {name: value for name, value in sent.items() if name != "input"} == rest
