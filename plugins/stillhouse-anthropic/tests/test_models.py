"""The list of the account's models, and what is said of one that is not in it."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import ModelInfo

from stillhouse import GenerationError
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_anthropic import AnthropicLLM

NEWER: dict[str, Any] = {
    "type": "model", "id": "claude-sonnet-4-5", "display_name": "Claude Sonnet 4.5", "lifecycle": "active",
    "created_at": "2025-09-29T00:00:00Z", "max_input_tokens": 200000, "max_tokens": 64000,
}  # fmt: skip
OLDER = {**NEWER, "id": "claude-haiku-4-5", "max_input_tokens": None, "max_tokens": None}


@pytest.mark.parametrize("ending", ["", "/v1"])
def test_every_page_is_read_at_the_path_beside_that_of_messages(ending: str) -> None:
    for entry in (NEWER, OLDER):
        ModelInfo.model_validate(entry)
    server = ScriptedServer(lambda path, body: {})
    server.script = [
        Reply(body={"data": [NEWER, 5], "has_more": True, "last_id": "claude-sonnet-4-5"}),
        Reply(body={"data": [OLDER], "has_more": False, "last_id": "claude-haiku-4-5"}),
    ]
    llm = AnthropicLLM(model="any", base_url=f"{server.origin}{ending}", api_key="k-1")
    assert llm.list_models() == [
        {"name": "claude-sonnet-4-5", "context_length": 200000, "max_new_tokens": 64000,
         "created": "2025-09-29T00:00:00Z"},
        {"name": "claude-haiku-4-5", "created": "2025-09-29T00:00:00Z"},
    ]  # fmt: skip
    assert [request.path for request in server.requests] == [
        "/v1/models", "/v1/models?after_id=claude-sonnet-4-5",
    ]  # fmt: skip
    assert server.requests[0].headers["x-api-key"] == "k-1"
    server.close()


def test_unknown_model_names_the_nearest() -> None:
    refused = {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-sonet-4-5"}}
    server = ScriptedServer(lambda path, body: {"data": [NEWER, OLDER], "has_more": False})
    server.script = [Reply(404, refused)]
    with (
        AnthropicLLM(model="claude-sonet-4-5", base_url=server.origin, api_key="k-1") as llm,
        pytest.raises(GenerationError, match="did you mean 'claude-sonnet-4-5' or") as caught,
    ):
        llm.generate_outputs([[{"role": "user", "content": "Hi"}]])
    assert caught.value.stops_run
    server.close()


@pytest.mark.parametrize("answer", [[NEWER], {"data": [NEWER], "has_more": True}, {"data": [NEWER]}])
def test_list_of_another_server_is_read(answer: Any) -> None:
    server = ScriptedServer(lambda path, body: answer)
    llm = AnthropicLLM(model="any", base_url=server.origin, api_key="k-1")
    assert [model["name"] for model in llm.list_models()] == ["claude-sonnet-4-5"]
    server.close()
