"""What is never exported unless it is asked for, and how long it may be then."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from otlp_receiver import Receiver, attributes_of

import stillhouse
from stillhouse import GenerationError, Registry
from stillhouse_otel.content import shown_input, shown_output
from stillhouse_otel.origins import shown_model

SECRET = "SECRET-123"


class Quoting(stillhouse.LLM):
    """Quotes its prompt wherever a text of a provider can be."""

    path: str = "/home/ada-lovelace/models/small.gguf"

    @property
    def model_name(self) -> str:
        return self.path

    def generate(self, inputs: Any, num_generations: int = 1, note: str = "") -> Any:
        text = str(inputs[0])
        if "fail" in text:
            raise GenerationError(f"refused: {text}", kind="content_filter", request_id=text, hint=text)
        call = {"id": SECRET, "type": "function", "function": {"name": "look", "arguments": f'"{SECRET}"'}}
        return [
            stillhouse.prepare_output(
                [text], [3], [4], finish_reasons=[text], tool_calls=[[call]], reasoning=[text], own=[text]
            )
        ]


@pytest.fixture
def run(opened: Callable[..., Registry], receiver: Receiver, tmp_path: Path) -> Callable[..., None]:
    def start(**table: Any) -> None:
        registry = opened(endpoint=receiver.url, ratio=1.0, flush_seconds=30.0, **table)
        registry.register("quoting", Quoting)
        source = tmp_path / "ada-lovelace.jsonl"
        rows = [{"id": SECRET, "prompt": f"{SECRET} {what}"} for what in ("answer", "fail")]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not JSON " + SECRET + "\n")
        stillhouse.run(
            source, llm=registry.create("quoting"), output=tmp_path / "of-ada-lovelace.jsonl", note=SECRET,
            system=f"be {SECRET}",
        )  # fmt: skip

    return start


def test_no_content_is_exported_by_default(run: Callable[..., None], receiver: Receiver) -> None:
    run()
    assert len(receiver.rows) == 3  # one of them cannot be read
    assert len(receiver.points) == 4
    for hidden in (SECRET, "ada-lovelace", socket.gethostname(), sys.argv[0]):
        assert hidden.encode() not in receiver.raw, hidden
    assert [span.name for span in receiver.rows] == ["chat small.gguf"] * 3
    (resource,) = {json.dumps(resource, sort_keys=True) for resource in receiver.resources}
    assert json.loads(resource)["service.name"] == "stillhouse"
    assert not [name for name in json.loads(resource) if name.startswith(("process", "host", "os"))]


def test_content_is_exported_on_request(run: Callable[..., None], receiver: Receiver) -> None:
    run(capture_content=True)
    answered, failed, unreadable = sorted(
        receiver.rows, key=lambda span: attributes_of(span)["stillhouse.row.index"]
    )
    asked = json.loads(attributes_of(answered)["gen_ai.input.messages"])
    assert [message["role"] for message in asked] == ["system", "user"]
    assert asked[1]["parts"] == [{"type": "text", "content": f"{SECRET} answer"}]
    (message,) = json.loads(attributes_of(answered)["gen_ai.output.messages"])
    assert [part["type"] for part in message["parts"]] == ["text", "tool_call"]
    assert attributes_of(answered)["gen_ai.response.finish_reasons"] == ["other"]
    assert SECRET in failed.status.message
    assert "gen_ai.input.messages" not in attributes_of(unreadable)
    assert attributes_of(receiver.runs[0])["stillhouse.run.source"].endswith("ada-lovelace.jsonl")


def test_content_is_bounded(run: Callable[..., None], receiver: Receiver) -> None:
    run(capture_content=True, content_length=10)
    for span in receiver.spans:
        assert len(span.status.message) <= 10
        for name, value in attributes_of(span).items():
            if name.endswith("messages"):
                texts = [
                    part.get("content", "") for message in json.loads(value) for part in message["parts"]
                ]
                assert sum(map(len, texts)) <= 10, name
            elif isinstance(value, str):
                assert len(value) <= 40, name


def test_messages_are_bounded_whatever_they_hold() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    chat = [{"role": "user", "content": [{"type": "text", "text": "x" * 5000}, image]}] * 10_000
    shown = shown_input(chat, 4096)
    assert len(shown) < 8000
    assert "base64" not in shown
    (message,) = json.loads(shown)
    assert message["parts"][0]["content"].endswith("…")
    empty = shown_input([{"role": "user", "content": ""}] * 100_000, 4096)
    assert len(empty) < 40_000
    assert json.loads(shown_input(("a raw prompt", {"format": "json"}), 100))[0]["parts"][0]["type"] == "text"
    output = stillhouse.prepare_output(["y" * 5000, None, "z"])
    assert len(shown_output(output, 100)) < 1000


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gpt-5-mini", "gpt-5-mini"),
        ("meta-llama/Llama-3", "meta-llama/Llama-3"),
        ("/home/ada/llama.gguf", "llama.gguf"),
        ("~/models/llama/", "llama"),
        ("./llama", "llama"),
        (r"C:\Users\ada\llama.gguf", "llama.gguf"),
        ("a\x1b[31m\nb", "a[31mb"),
        ("x" * 400, "x" * 100),
    ],
)
def test_the_folders_of_a_model_are_not_shown(name: str, shown: str) -> None:
    assert shown_model(name) == shown
