"""The errors of a server, each with what it means for the row and for the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse.testing import ScriptedServer

CHAT: list[Any] = [{"role": "user", "content": "Name a river."}]

SIGN_IN = "https://ollama.com/connect?name=desk&key=c3NoLWVkMjU1MTk"

ERRORS = [
    (400, {"error": "\"llama3.2\" does not support thinking"}, "invalid_request", True, "think"),
    (400, {"error": "registry.ollama.ai/library/gemma:2b does not support tools"}, "invalid_request", True, "tools"),
    (400, {"error": "\"m\" does not support insert"}, "invalid_request", False, "insert"),
    (400, {"error": "the prompt is longer than the context length of 4096 tokens"}, "context_length", False, "num_ctx"),
    (400, {"error": "input length exceeds maximum context length"}, "context_length", False, "num_ctx"),
    (400, {"error": "illegal base64 data at input byte 4"}, "invalid_request", False, ""),
    (400, {"error": "time: missing unit in duration \"-1\""}, "invalid_request", False, ""),
    (400, {"error": "json: cannot unmarshal string into Go struct field ChatRequest.messages"}, "invalid_request", False, ""),
    (401, {"error": "unauthorized", "signin_url": SIGN_IN}, "authentication", True, SIGN_IN),
    (401, {"error": "unauthorized"}, "authentication", True, "OLLAMA_API_KEY"),
    (403, {"error": "this model requires a subscription, upgrade for access"}, "authentication", True, "another model"),
    (429, {"error": "you've reached your hourly usage limit, please wait or upgrade to continue"}, "rate_limit", True, "run the same command again"),
    (429, {"error": "you (bob) have reached your session usage limit, upgrade for higher limits: https://ollama.com/upgrade"}, "rate_limit", True, "run the same command again"),
    (400, {"error": "\"nomic-embed-text\" does not support chat"}, "invalid_request", True, "generates text"),
    (500, {"error": "Failed to create new sequence: the input length exceeds the context length"}, "context_length", False, "num_ctx"),
    (500, {"error": "this model is missing data required for image input"}, "invalid_request", False, ""),
    (500, {"error": "invalid JSON schema in format"}, "invalid_request", False, ""),
    (404, {"error": "model 'llama3.2' not found"}, "invalid_request", True, "ollama pull llama3.2"),
    (404, {"error": "model \"llama3.2\" not found, try pulling it first"}, "invalid_request", True, "ollama pull llama3.2"),
    (404, b"404 page not found", "invalid_request", True, "base_url"),
    (500, {"error": "model requires more system memory (18.4 GiB) than is available (11.2 GiB)"}, "server", True, "smaller model"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "stops_run", "hint"), ERRORS)
def test_error_that_another_try_does_not_help(
    make: Any, says: Callable[..., None], server: ScriptedServer,
    status: int, body: Any, kind: str, stops_run: bool, hint: str,
) -> None:  # fmt: skip
    says(body, status)
    with pytest.raises(GenerationError) as caught:
        make().generate_outputs([CHAT])
    error = caught.value
    tries = [request.path for request in server.requests].count("/api/chat")
    assert (error.kind, error.stops_run, tries) == (kind, stops_run, 1)
    assert hint in error.hint
    if isinstance(body, dict):
        assert body["error"].split()[-1] in error.message


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"error": "too many concurrent requests"}),
        (499, {"error": "request canceled"}),
        (500, {"error": "error parsing tool call: raw='{\"a\"', err=unexpected end of JSON input"}),
        (500, {"error": "model runner has unexpectedly stopped, this may be due to resource limitations"}),
        (502, {"error": "ollama.com is unreachable"}),
        (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}),
        (200, {"error": "an error was encountered while running the model"}),
        (200, {"error": "server busy, please try again.  maximum pending requests exceeded"}),
    ],
)
def test_error_that_passes_is_tried_again(
    make: Any, says: Callable[..., None], server: ScriptedServer, at_once: None, status: int, body: Any
) -> None:
    says(body, status)
    says(body, status)
    (output,) = make().generate_outputs([CHAT])
    assert output["generations"] == ["The Ucayali."]
    assert len(server.requests) == 3


def test_error_in_an_answer_is_what_it_is_with_its_status(
    make: Any, says: Callable[..., None], server: ScriptedServer
) -> None:
    says({"error": "model 'llama3.2' not found"})
    with pytest.raises(GenerationError) as caught:
        make().generate_outputs([CHAT])
    assert caught.value.stops_run
    assert "ollama pull" in caught.value.hint


def test_address_to_sign_in_that_is_none_is_not_shown(make: Any, says: Callable[..., None]) -> None:
    says({"error": "unauthorized", "signin_url": "javascript:alert(1)"}, 401)
    with pytest.raises(GenerationError) as caught:
        make().generate_outputs([CHAT])
    assert "javascript" not in str(caught.value)
