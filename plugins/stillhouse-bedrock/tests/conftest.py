"""A server that answers as Bedrock does, by a script, and a machine without AWS credentials."""

from __future__ import annotations

import json
import os
import struct
from binascii import crc32
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from stillhouse.testing import Reply, ScriptedServer
from stillhouse_bedrock import BedrockLLM

MODEL = "anthropic.claude-test-v1:0"
CHAT: Any = [{"role": "user", "content": "What is the longest river of Peru?"}]
KEYS = {
    "aws_access_key_id": "AKIDEXAMPLE",
    "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
}


def answer(*content: Any, stop: str = "end_turn", **usage: int) -> dict[str, Any]:
    """An answer of `converse`, with every field that the service's model requires."""
    counts = {"inputTokens": 12, "outputTokens": 5, **usage}
    return {
        "output": {"message": {"role": "assistant", "content": list(content or [{"text": "The Ucayali."}])}},
        "stopReason": stop,
        "usage": {**counts, "totalTokens": sum(counts.values())},
        "metrics": {"latencyMs": 321},
    }


def refused(status: int, name: str, message: str, **body: Any) -> Reply:
    """An error as AWS sends it: its name is in a header, with an address behind it."""
    headers = {
        "x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/",
        "x-amzn-requestid": "5b3b2a57-0000-4000-8000-00000000e441",
    }
    return Reply(status, {"message": message, **body}, headers)


def frame(name: str, payload: Any, kind: str = "event") -> bytes:
    """A message of a stream, as AWS frames it; `payload` is JSON, or bytes as they are."""
    headers = b""
    for key, text in (
        (f":{kind}-type", name),
        (":content-type", "application/json"),
        (":message-type", kind),
    ):
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack("!H", len(text)) + text.encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack("!I", crc32(prelude)) + headers + body
    return message + struct.pack("!I", crc32(message))


def block(number: int, *deltas: dict[str, Any], start: Any = None) -> list[bytes]:
    """The messages of a block of an answer."""
    begun = [] if start is None else [("contentBlockStart", {"start": start})]
    named = [*begun, *(("contentBlockDelta", {"delta": delta}) for delta in deltas), ("contentBlockStop", {})]
    return [frame(name, {**fields, "contentBlockIndex": number}) for name, fields in named]


def streamed(*blocks: list[bytes], stop: str = "end_turn", **usage: int) -> list[bytes]:
    """The messages of an answer of `converse-stream`."""
    whole = answer(**usage)
    return [
        frame("messageStart", {"role": "assistant"}),
        *(message for messages in blocks for message in messages),
        frame("messageStop", {"stopReason": stop}),
        frame("metadata", {"usage": whole["usage"], "metrics": whole["metrics"]}),
    ]


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable and no file of the machine has anything to do with AWS; the folder is where its files go."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.fixture
def server(no_aws: Path) -> Iterator[ScriptedServer]:
    scripted = ScriptedServer(lambda path, body: answer())
    yield scripted
    scripted.close()


@pytest.fixture
def make(server: ScriptedServer) -> Iterator[Callable[..., BedrockLLM]]:
    """A loaded LLM that asks the scripted server."""
    with ExitStack() as stack:

        def loaded(**fields: Any) -> BedrockLLM:
            given = {"model": MODEL, "base_url": server.origin, "region": "us-east-1", **fields}
            return stack.enter_context(BedrockLLM(**given))

        yield loaded
