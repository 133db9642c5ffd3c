"""A server that answers as Bedrock does, by a script, and a machine without AWS credentials."""

from __future__ import annotations

import os
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
