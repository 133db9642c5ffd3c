"""Parameters, tools and forms of single rows, in the bodies of requests, online and in offline batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import stillhouse

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
SCHEMA = {
    "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False,
}  # fmt: skip
FORM = {"format": "json", "schema": SCHEMA}

ROWS: list[dict[str, Any]] = [
    {"prompt": "a", "temperature": 0.1, "tools": [TOOL], "tool_choice": "auto"},
    {"prompt": "b", "max_new_tokens": 5, "stop": ["x"], "reasoning_effort": "low"},
    {"prompt": "c", "structured_output": FORM},
    {"prompt": "d"},
]

# By the text of the row: what is in the body beside the model and the messages.
BODIES = {
    "a": {"temperature": 0.1, "tools": [TOOL], "tool_choice": "auto", "seed": 4},
    "b": {
        "temperature": 0.9,
        "max_completion_tokens": 5,
        "stop": ["x"],
        "reasoning_effort": "low",
        "seed": 4,
    },
    "c": {"temperature": 0.9, "seed": 4, "response_format": ["a"]},
    "d": {"temperature": 0.9, "seed": 4},
}


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path / "state"))


def told(bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """By the text of the row: what is in its body beside the model and the messages."""
    made = {}
    for body in bodies:
        rest = {name: value for name, value in body.items() if name not in ("model", "messages")}
        if "response_format" in rest:
            rest["response_format"] = [*rest["response_format"]["json_schema"]["schema"]["properties"]]
        made[body["messages"][-1]["content"]] = rest
    return made


def test_each_row_is_asked_for_with_its_own_parameters(make: Any, server: Any) -> None:
    server.script = [server.chat('{"a": "b"}')] * 4
    done = stillhouse.run(
        ROWS, llm=make(), row_params=True, temperature=0.9, seed=4, max_concurrency=None, show_bar=False
    )
    assert done.counts == (4, 4, {})
    assert told(server.bodies) == BODIES


def test_an_answer_is_held_to_the_form_of_its_row(make: Any, server: Any) -> None:
    server.script = [server.chat("no JSON")] * 10
    rows = [{"prompt": "a", "structured_output": {**FORM, "max_retries": 0}}, {"prompt": "b"}]
    done = stillhouse.run(rows, llm=make(max_concurrency=1), row_params=True, show_bar=False)
    assert done.counts == (2, 1, {"schema": 1})


def test_an_offline_batch_has_the_parameters_of_each_row(make: Any, server: Any, tmp_path: Path) -> None:
    job = {"id": "batch_1", "object": "batch", "status": "in_progress", "created_at": 1}
    server.script = [{"id": "file-1", "status": "processed"}, job, job]
    rows = [*ROWS, {"prompt": "e", "temperature": "hot"}]
    output = tmp_path / "out.jsonl"
    options: dict[str, Any] = {
        "llm": make(), "output": output, "row_params": True, "batch": True, "temperature": 0.9, "seed": 4,
        "show_bar": False,
    }  # fmt: skip
    done = stillhouse.run(rows, **options)
    assert done.outcome == "waiting"
    lines = [json.loads(line) for line in server.bodies[0].splitlines() if line.startswith('{"custom_id"')]
    assert told([line["body"] for line in lines]) == BODIES
    # The answers of the rows with a form are held to it when they are collected.
    results = [
        {
            "custom_id": line["custom_id"], "error": None,
            "response": {"status_code": 200, "request_id": "r", "body": server.chat("no JSON")},
        }
        for line in lines
    ]  # fmt: skip
    server.script = [
        {**job, "status": "completed", "output_file_id": "file-2", "request_counts": {"completed": 4, "failed": 0, "total": 4}}
    ] * 2 + [(200, "".join(json.dumps(line) + "\n" for line in results).encode())]  # fmt: skip
    done = stillhouse.run(rows, **options)
    assert done.outcome == "complete"
    assert done.counts == (5, 3, {"invalid_input": 1, "schema": 1})


def test_the_parts_of_a_row_in_a_batch_raise_its_own_seed(make: Any, server: Any, tmp_path: Path) -> None:
    job = {"id": "batch_1", "object": "batch", "status": "in_progress", "created_at": 1}
    server.script = [{"id": "file-1", "status": "processed"}, job, job]

    class OneByOne(type(make())):  # type: ignore[misc]
        def load(self) -> None:
            super().load()
            self._num_generations_param_supported = False

    llm = OneByOne(**make().model_dump(include={"model", "base_url"}), api_key="key")
    stillhouse.run(
        [{"prompt": "a", "seed": 50}, {"prompt": "b"}], llm=llm, output=tmp_path / "out.jsonl", row_params=True,
        batch=True, seed=4, num_generations=2, show_bar=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in server.bodies[0].splitlines() if line.startswith('{"custom_id"')]
    assert [(line["body"]["messages"][-1]["content"], line["body"]["seed"]) for line in lines] == [
        ("a", 50), ("a", 51), ("b", 4), ("b", 5),
    ]  # fmt: skip
