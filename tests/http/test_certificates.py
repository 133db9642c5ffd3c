"""A certificate verifies, or nothing is sent."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from stillhouse import GenerationError

from .conftest import ScriptedServer, ScriptLLM

CHAT: Any = [{"role": "user", "content": "hello"}]

# In a process of its own, for the authorities that a process knows are read when it starts.
ASK = """
import sys
from stillhouse import GenerateOutput, GenerationError, prepare_output
from stillhouse.http import HTTPLLM

class LLM(HTTPLLM):
    async def agenerate(self, input, num_generations: int = 1) -> GenerateOutput:
        return prepare_output([(await self.post("generate", {}))["text"]])

with LLM(model="m", base_url=sys.argv[1], api_key="key-1234", retry_timeout=0) as llm:
    try:
        print(llm.generate_outputs([[{"role": "user", "content": "hello"}]])[0]["generations"])
    except GenerationError as error:
        print(error.kind, error.message)
"""


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[ScriptedServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    scripted = ScriptedServer(context)
    yield scripted
    scripted.close()


def test_certificate_of_an_unknown_authority_is_refused_without_retry(server: ScriptedServer) -> None:
    url = f"https://localhost:{server.port}/v1"
    with (
        ScriptLLM(model="m", base_url=url, api_key="key-1234") as llm,
        pytest.raises(GenerationError, match="certificate of localhost does not verify") as caught,
    ):
        llm.generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.attempts) == ("connection", 1)
    assert "authority known" in caught.value.hint
    assert server.requests == [], "the key was not sent"


@pytest.mark.parametrize(
    ("host", "said"),
    [("localhost", "['fine']"), ("127.0.0.1", "connection the certificate of 127.0.0.1 does not verify")],
    ids=["its host", "another host"],
)
def test_certificate_of_a_known_authority_is_valid_only_for_its_host(
    server: ScriptedServer, authority: trustme.CA, tmp_path: Path, host: str, said: str
) -> None:
    known = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(known))
    result = subprocess.run(
        [sys.executable, "-c", ASK, f"https://{host}:{server.port}/v1"],
        env={**os.environ, "SSL_CERT_FILE": str(known)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.startswith(said), result.stderr
    assert len(server.requests) == (1 if host == "localhost" else 0)
