"""The names of secrets: one table, for the fields of a class and for the keys of what is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import Field, create_model

from stillhouse._settings.secrets import is_secret_header_value, is_secret_name, masked, without_login
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
    user_token userToken GITHUB_TOKEN X-Vault-Token client_key license-key jwt db_pwd
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
    options: dict[str, Any] = Field(default_factory=dict)
    header_list: list[tuple[str, str]] = Field(default_factory=list)
    base_url: str = ""


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
    assert registry.create("headers", options={name: SECRET, "team": "a"}).dump()["options"] == {"team": "a"}


@pytest.mark.parametrize("name", [*OTHER_NAMES.split(), "", "-", "_", "ключ"])
def test_ordinary_name_is_not_treated_as_secret(registry: Registry, name: str) -> None:
    assert not is_secret_name(name)
    registry.register("headers", HeadersLLM)
    assert registry.create("headers", options={name: "x"}).dump()["options"] == {name: "x"}
    if name.isidentifier() and name.isascii() and name != "_":
        assert validate_llm(class_with(name)) is None


HARMLESS = {
    "Accept": "text/plain",
    "content-type": "x/y",
    "User-Agent": "me/1",
    "Anthropic-Version": "2023-06-01",
    "anthropic-beta": "b",
    "OpenAI-Organization": "org-1",
    "HTTP-Referer": "https://me.test",
}


@pytest.mark.parametrize("name", ["X-Team", "X-Whatever", "api-key-2", "Cf-Access-Client-Id", "Ключ", ""])
@pytest.mark.parametrize("value", [SECRET, SECRET.encode(), [SECRET]])
def test_value_of_an_unknown_header_is_a_secret(registry: Registry, name: str, value: Any) -> None:
    assert is_secret_header_value(name, value)
    registry.register("headers", HeadersLLM)
    llm = registry.create("headers", headers={name: value, **HARMLESS}, header_list=[(name, SECRET)])
    assert SECRET not in repr(llm)
    assert name in repr(llm)
    dumped = llm.dump()
    assert dumped["headers"] == HARMLESS
    assert SECRET not in json.dumps(dumped)
    assert HeadersLLM.from_dict(dumped, registry).dump() == dumped


@pytest.mark.parametrize("name", HARMLESS)
def test_value_of_a_known_header_is_shown_unless_it_is_one(name: str) -> None:
    assert not is_secret_header_value(name, HARMLESS[name])
    assert is_secret_header_value(name, f"Bearer {SECRET}")


@pytest.mark.parametrize("value", [None, "", True, {}, []])
def test_header_without_a_value_is_no_secret(value: Any) -> None:
    assert not is_secret_header_value("X-Team", value)


def test_headers_are_masked_at_any_depth_and_a_schema_is_not(registry: Registry) -> None:
    registry.register("headers", HeadersLLM)
    schema = {"headers": {"type": "object", "title": "Headers"}, "header": {"description": "d"}}
    options = {"extra_headers": {"X-A": SECRET}, "deep": [{"httpHeaders": {"X-B": SECRET}}], "schema": schema}
    llm = registry.create("headers", options=options)
    assert SECRET not in repr(llm)
    assert "X-A" in repr(llm)
    assert llm.dump()["options"] == {"extra_headers": {}, "deep": [{"httpHeaders": {}}], "schema": schema}


ADDRESSES = {
    f"https://h.test/v1?key={SECRET}": ("https://h.test/v1", "https://h.test/v1?key=**********"),
    f"https://h.test/v1?api-version=1&sig={SECRET}&alt=sse#top": (
        "https://h.test/v1?api-version=1&alt=sse#top",
        "https://h.test/v1?api-version=1&sig=**********&alt=sse#top",
    ),
    f"https://h.test/v1?{SECRET}": ("https://h.test/v1", "https://h.test/v1?**********"),
    f"https://h.test?x%2Dy={SECRET}#f": ("https://h.test#f", "https://h.test?x%2Dy=**********#f"),
    f"http://user:{SECRET}@h.test:1/v1?a={SECRET}": (
        "http://h.test:1/v1",
        "http://**********@h.test:1/v1?a=**********",
    ),
    f"https://{SECRET}@h.test/v1": ("https://h.test/v1", "https://**********@h.test/v1"),
    f"https://u:{SECRET}@{SECRET}@h.test": ("https://h.test", "https://**********@h.test"),
    f"postgresql://u:{SECRET}@h/db?sslmode=require&password={SECRET}": (
        "postgresql://h/db?sslmode=require",
        "postgresql://**********@h/db?sslmode=require&password=**********",
    ),
    "ssh://git@h.test/x": ("ssh://git@h.test/x", "ssh://git@h.test/x"),
    "https://h.test/v1?api-version=2024-10-21": (
        "https://h.test/v1?api-version=2024-10-21",
        "https://h.test/v1?api-version=2024-10-21",
    ),
    "https://h.test/?q=1 is a page": ("https://h.test/?q=1 is a page", "https://h.test/?q=1 is a page"),
    "who? me=you": ("who? me=you", "who? me=you"),
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_secrets_of_an_address_are_masked_in_a_repr_and_omitted_from_a_dump(
    registry: Registry, address: str
) -> None:
    dumped, shown = ADDRESSES[address]
    assert without_login(address) == dumped
    assert without_login(dumped) == dumped
    assert masked("base_url", address) == shown
    registry.register("headers", HeadersLLM)
    llm = registry.create("headers", base_url=address, options={"deep": [address]})
    assert repr(shown) in repr(llm)
    assert SECRET not in repr(llm)
    again = HeadersLLM.from_dict(llm.dump(), registry)
    assert (again.base_url, again.options) == (dumped, {"deep": [dumped]})


def test_long_address_takes_one_pass() -> None:
    """A text of any form is masked at once: none of these would end otherwise."""
    for part in ("a://", "http://", "http://@", "http://a:", "?", "http://h?", "&=", "http://h?a=b&"):
        text = part * (400_000 // len(part))
        assert masked("", text) is not None
        assert without_login(text) is not None
