"""The names of secrets: one table, for the fields of a class and for the keys of what is stored."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, create_model

from stillhouse._settings.secrets import is_secret_name
from stillhouse.registry import Registry
from stillhouse.registry.validation import validate_llm

from ..support import SyncLLM

SECRET = "hunter2-hunter2"

SECRET_NAMES = """
    api_key apikey apiKey APIKey API_KEY x-api-key X-Api-Key xapikey openai_api_key OPENAI_API_KEY api_keys
    access_key access-key secret_key secretkey aws_secret_access_key secretAccessKey
    private_key functions_key x-functions-key subscription_key Ocp-Apim-Subscription-Key
    secret client_secret secrets password passwd passphrase db_password credential credentials db_credentials
    token Token X-Token access_token accessToken accesstoken api_token apitoken auth_token bearer_token
    hf_token HFToken id_token idToken refresh_token security_token x-amz-security-token session_token
    oauth_token OAuthToken PRIVATE-TOKEN azure_ad_token azureADToken azureAdToken
    authorization Authorization proxy_authorization Proxy-Authorization
    cookie set_cookie Set-Cookie session_cookie bearer
"""

OTHER_NAMES = """
    max_tokens tokens_per_minute token_count stop_token_ids max_id_tokens tokens
    eos_token bos_token pad_token padToken padtoken PADToken valid_token stop_token tokenizer tokenizer_config
    public_key cache_key key keys monkey keyboard primary_key prompt_cache_key
    api_key_variable credentials_file password_hint secretary passwordless x X-Request-Id
"""


def class_with(field: str) -> Any:
    """An LLM with a field of plain text."""
    return create_model("FakeLLM", __base__=SyncLLM, **{field.replace("-", "_"): (str, "")})  # type: ignore[call-overload]


class HeadersLLM(SyncLLM):
    headers: dict[str, Any] = Field(default_factory=dict)


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_a_secret_name_is_refused_as_plain_text_and_omitted_from_a_dump(
    registry: Registry, name: str
) -> None:
    assert is_secret_name(name)
    problem = validate_llm(class_with(name))
    assert problem is not None
    assert problem.code == "E207"
    assert "holds a secret as plain text" in problem.cause
    registry.register("headers", HeadersLLM)
    assert registry.create("headers", headers={name: SECRET, "X-Team": "a"}).dump()["headers"] == {
        "X-Team": "a"
    }


@pytest.mark.parametrize("name", [*OTHER_NAMES.split(), "", "-", "_", "ключ"])
def test_ordinary_name_is_not_treated_as_secret(registry: Registry, name: str) -> None:
    assert not is_secret_name(name)
    registry.register("headers", HeadersLLM)
    assert registry.create("headers", headers={name: "x"}).dump()["headers"] == {name: "x"}
    if name.isidentifier() and name.isascii() and name != "_":
        assert validate_llm(class_with(name)) is None
