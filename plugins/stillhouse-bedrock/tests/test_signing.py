"""Signatures, against those of botocore."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from stillhouse.testing import ScriptedServer
from stillhouse_bedrock import BedrockLLM, Credentials
from stillhouse_bedrock.signing import signed_headers

from .conftest import CHAT, KEYS, refused

botocore = pytest.importorskip("botocore")
auth: Any = pytest.importorskip("botocore.auth")
awsrequest: Any = pytest.importorskip("botocore.awsrequest")
botocore_credentials: Any = pytest.importorskip("botocore.credentials")

NOW = datetime(2026, 11, 28, 12, 30, 15, tzinfo=UTC)
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40).filter(
    lambda text: set(text) != {"."}
)


def by_botocore(
    credentials: Credentials,
    region: str,
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes,
    now: datetime,
) -> dict[str, str]:
    """The headers that botocore adds to a request."""
    keys = botocore_credentials.Credentials(
        credentials.access_key_id, credentials.secret_access_key, credentials.session_token or None
    )
    request = awsrequest.AWSRequest(method, url, headers, body)
    with patch.object(auth, "get_current_datetime", lambda: now.replace(tzinfo=None)):
        auth.SigV4Auth(keys, "bedrock", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    id=IDS,
    body=st.binary(max_size=200),
    token=st.just("") | VISIBLE,
    secret=VISIBLE,
    region=st.sampled_from(["us-east-1", "ap-southeast-2", "us-gov-west-1"]),
    base=st.sampled_from(["https://bedrock.example", "http://127.0.0.1:8080/a%20b/", "https://h:8443/x//y"]),
    query=st.sampled_from(["", "?b=2&a=%2F&a=", "?nextToken=a%3D%3D&maxResults=10"]),
    extra=st.dictionaries(st.sampled_from(["x-amz-meta-a", "x-amz-b"]), VISIBLE),
)
@example("anthropic.claude-v1:0", b"{}", "t/+=", "s", "us-east-1", "https://bedrock.example", "", {})
@example(
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-v1:0",
    '{"text":"Río Ucayali 🦦"}'.encode(),
    "",
    "s",
    "us-east-1",
    "https://bedrock.example",
    "",
    {"x-amz-b": "a   b "},
)
def test_signature_is_that_of_botocore(
    id: str, body: bytes, token: str, secret: str, region: str, base: str, query: str, extra: dict[str, str]
) -> None:
    url = URL(f"{base.rstrip('/')}/model/{quote(id, safe='')}/converse{query}", encoded=True)
    headers = {"content-type": "application/json", **extra}
    credentials = Credentials("AKID", secret, token)
    ours = signed_headers(credentials, region, "POST", url, headers, body, NOW)
    theirs = by_botocore(credentials, region, "POST", str(url), headers, body, NOW)
    assert ours == {name: theirs[name] for name in ours}
    assert ("x-amz-security-token" in ours) is bool(token)


def test_secrets_are_not_shown() -> None:
    assert repr(Credentials("AKID", "secret", "token")) == "Credentials()"


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("us.anthropic.claude-v1:0", "/model/us.anthropic.claude-v1%3A0/converse"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2",
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fa1b2/converse",
        ),
    ],
)
@pytest.mark.parametrize("token", [None, "IQoJb3JpZ2luX2VjE//+=="])
def test_request_that_arrives_has_the_signature_of_botocore(
    make: Callable[..., BedrockLLM], server: ScriptedServer, model: str, path: str, token: str | None
) -> None:
    """What aiohttp sends is what was signed: the path is not encoded or decoded on its way."""
    llm = make(model=model, aws_session_token=token, **KEYS)
    llm.generate_outputs([[{"role": "user", "content": "¿Qué río? 🦦"}]], max_new_tokens=20)
    (request,) = server.requests
    assert request.path == path
    sent = {name.lower(): value for name, value in request.headers.items()}
    assert sent.get("x-amz-security-token") == token
    now = datetime.strptime(sent["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - now).total_seconds()) < 60
    credentials = Credentials(KEYS["aws_access_key_id"], KEYS["aws_secret_access_key"], token or "")
    signed = {name: sent[name] for name in ("host", "content-type")}
    url, body = f"{server.origin}{path}", orjson.dumps(request.body)
    theirs = by_botocore(credentials, "us-east-1", "POST", url, signed, body, now)
    assert sent["authorization"] == theirs["authorization"]


def test_each_attempt_has_a_signature_of_its_own(
    make: Callable[..., BedrockLLM], server: ScriptedServer, at_once: None
) -> None:
    server.script = [refused(503, "ServiceUnavailableException", "try again")]
    make(**KEYS).generate_outputs([CHAT])
    assert len(server.requests) == 2
    assert all(request.headers["x-amz-date"] for request in server.requests)


def test_key_of_bedrock_is_sent_and_nothing_is_signed(
    make: Callable[..., BedrockLLM], server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-1234567890")
    make().generate_outputs([CHAT])
    headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer bedrock-api-key-1234567890"
    assert "x-amz-date" not in headers
