"""Where credentials, the region and the address come from, and how credentials are renewed."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from stillhouse import ConfigurationError, GenerationError
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_bedrock import BedrockLLM, Credentials
from stillhouse_bedrock.credentials import usable
from stillhouse_bedrock.keys import Keys, find_credentials
from stillhouse_bedrock.regions import host_of

from .conftest import CHAT, KEYS, MODEL, refused

EXPIRED = refused(403, "ExpiredTokenException", "The security token included in the request is expired")


def write(folder: Path, credentials: str = "", config: str = "") -> None:
    (folder / "credentials").write_text(credentials)
    (folder / "config").write_text(config)


def keys(id: str, token: str = "") -> str:
    end = f"aws_session_token = {token}\n" if token else ""
    return f"aws_access_key_id = {id}\naws_secret_access_key = secret-of-{id}\n{end}"


def used(server: ScriptedServer) -> list[tuple[str, str]]:
    """The access key and the session token of each request."""
    headers = [request.headers for request in server.requests]
    return [
        (
            head["authorization"].partition("Credential=")[2].partition("/")[0],
            head.get("x-amz-security-token", ""),
        )
        for head in headers
    ]


# Where they are


def test_credentials_of_the_environment(no_aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(no_aws, f"[default]\n{keys('AKPROFILE')}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", " AKENV ")
    with pytest.raises(ConfigurationError, match="AWS_SECRET_ACCESS_KEY is not"):
        find_credentials(None)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert find_credentials(None) == Credentials("AKENV", "s")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    assert find_credentials(None) == Credentials("AKENV", "s", "t")
    assert find_credentials("default").access_key_id == "AKPROFILE"


@pytest.mark.parametrize(
    ("credentials", "config"),
    [
        (f"[default]\n{keys('X')}\n[work]\n{keys('AK', 'tok=')}", ""),
        (
            "",
            f"[default]\n{keys('X')}\n[profile work]\n{keys('AK', 'tok=')}s3 =\n  addressing_style = path\n",
        ),
        ("", f'[work]\n{keys("X")}\n[profile "work"]\n{keys("AK", "tok=")}'),
        (f"[work]\n{keys('AK', 'tok=')}", f"[profile work]\n{keys('X')}"),
    ],
)
def test_credentials_of_a_profile(
    no_aws: Path, monkeypatch: pytest.MonkeyPatch, credentials: str, config: str
) -> None:
    write(no_aws, credentials, config)
    expected = Credentials("AK", "secret-of-AK", "tok=")
    assert find_credentials("work") == expected
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert find_credentials(None) == expected
    botocore = pytest.importorskip("botocore.session").Session(profile="work").get_credentials()
    assert usable(botocore) == expected


def test_profile_that_is_not_there(no_aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(no_aws, f"[other]\n{keys('AK')}")
    with pytest.raises(ConfigurationError, match="no profile 'work'"):
        find_credentials("work")
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(ConfigurationError, match="no profile 'absent'"):
        find_credentials(None)


def test_file_that_cannot_be_read_is_told_without_its_lines(no_aws: Path) -> None:
    (no_aws / "credentials").write_text("aws_secret_access_key = topsecret\n[default]\n")
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        find_credentials(None)
    assert "topsecret" not in f"{caught.value!r} {caught.value.__cause__} {caught.value.hint}"


@pytest.mark.parametrize(
    "settings",
    [
        "role_arn = arn:aws:iam::1:role/r\nsource_profile = default",
        "sso_session = corp",
        "credential_process = x",
    ],
)
def test_profile_that_takes_a_request_needs_botocore(
    no_aws: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    write(no_aws, "", f"[profile work]\n{settings}\n")
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(ConfigurationError, match=settings.split(" ")[0]) as caught:
        find_credentials("work")
    assert "stillhouse-bedrock[aws]" in caught.value.hint
    assert find_credentials(None) is None


def test_role_of_a_profile_comes_before_its_keys(no_aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(no_aws, f"[work]\n{keys('AK')}", "[profile work]\nrole_arn = arn:aws:iam::1:role/r\n")
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(ConfigurationError, match="role_arn"):
        find_credentials("work")


def test_profile_with_a_process_is_read_by_botocore(no_aws: Path) -> None:
    pytest.importorskip("botocore")
    answer = '{"Version": 1, "AccessKeyId": "AKPROC", "SecretAccessKey": "s", "SessionToken": "t"}'
    (no_aws / "answer.json").write_text(answer)
    command = f"{sys.executable} -c \"print(open('{no_aws / 'answer.json'}').read())\""
    write(no_aws, "", f"[profile work]\ncredential_process = {command}\n")
    assert usable(find_credentials("work")) == Credentials("AKPROC", "s", "t")


def test_botocore_that_fails_says_why(no_aws: Path) -> None:
    pytest.importorskip("botocore")
    write(no_aws, "", "[profile work]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = absent\n")
    with pytest.raises(ConfigurationError, match=r"botocore cannot get AWS credentials: .*absent"):
        find_credentials("work")


def test_nothing_is_found_on_a_machine_without_credentials(no_aws: Path) -> None:
    assert find_credentials(None) is None
    with pytest.raises(ConfigurationError, match="needs an API key, or AWS credentials"):
        BedrockLLM(model=MODEL, region="us-east-1").load()


def test_half_of_the_credentials_is_refused(make: Callable[..., BedrockLLM]) -> None:
    with pytest.raises(ConfigurationError, match="only one of"):
        make(aws_access_key_id="AK")


@pytest.mark.parametrize(
    "given",
    [
        Credentials("AK", "s", "t"),
        {"AccessKeyId": "AK", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": 5},
        SimpleNamespace(access_key="AK", secret_key="s", token="t"),
        SimpleNamespace(
            get_frozen_credentials=lambda: SimpleNamespace(access_key="AK", secret_key="s", token="t")
        ),
    ],
)
def test_provider_may_give_credentials_in_any_form(
    make: Callable[..., BedrockLLM], server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, given: Any
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "not-this-key-of-the-environment")

    async def later() -> Any:
        return given

    for provider in (lambda: given, later):
        server.requests.clear()
        llm = make(credentials_provider=provider)
        llm.generate_outputs([CHAT])
        assert used(server) == [("AK", "t")]
        assert "credentials_provider" not in llm.dump()


@pytest.mark.parametrize("given", [None, "AKIA", {}, {"AccessKeyId": "AK"}, SimpleNamespace(access_key=5)])
def test_provider_that_gives_none_stops_the_run(make: Callable[..., BedrockLLM], given: Any) -> None:
    with pytest.raises(GenerationError, match="no credentials in") as caught:
        make(credentials_provider=lambda: given).generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.stops_run) == ("authentication", True)


def test_own_fields_are_nowhere_to_be_seen(make: Callable[..., BedrockLLM], server: ScriptedServer) -> None:
    server.always = refused(
        403, "UnrecognizedClientException", f"not {KEYS['aws_secret_access_key']} a-token-of-mine"
    )
    llm = make(aws_session_token=SecretStr("a-token-of-mine"), **KEYS)
    with pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    shown = f"{llm!r} {llm.dump()} {caught.value} {caught.value.hint}"
    assert not any(secret in shown for secret in (*KEYS.values(), "a-token-of-mine"))


# The region and the address


def llm_with(**fields: Any) -> BedrockLLM:
    return BedrockLLM(**{"model": MODEL, **fields})


def test_region_is_found(no_aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="requires a region"):
        llm_with().api_url  # noqa: B018
    write(no_aws, "", "[default]\nregion = eu-west-1\n[profile work]\nregion = eu-west-2\n")
    url = "https://bedrock-runtime.{}.amazonaws.com/"
    assert llm_with().api_url == url.format("eu-west-1")
    assert llm_with(profile="work").api_url == url.format("eu-west-2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-1")
    assert llm_with().api_url == url.format("us-west-1")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert llm_with().api_url == url.format("us-west-2")
    arn = "arn:aws:bedrock:ap-south-1:123456789012:inference-profile/apac.amazon.nova-v1:0"
    assert llm_with(model=arn).api_url == url.format("ap-south-1")
    assert llm_with(model=arn, region="us-east-1").api_url == url.format("us-east-1")
    assert llm_with(model="arn:odd", region="us-east-1").api_url == url.format("us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:1/x")
    assert llm_with().api_url == "http://127.0.0.1:1/x"
    assert llm_with(base_url="http://127.0.0.1:2").api_url == "http://127.0.0.1:2/"


@pytest.mark.parametrize("region", ["us east 1", "evil.example/", "us-east-1.evil.example", "x", "ü-1"])
def test_region_that_is_none_leads_nowhere(no_aws: Path, region: str) -> None:
    with pytest.raises(ConfigurationError, match="not an AWS region"):
        llm_with(region=region).api_url  # noqa: B018


def test_hosts_are_those_of_botocore() -> None:
    loader = pytest.importorskip("botocore.loaders").Loader()
    regions = pytest.importorskip("botocore.endpoint_provider")
    rules = loader.load_service_model("bedrock-runtime", "endpoint-rule-set-1")
    provider = regions.EndpointProvider(rules, loader.load_data("partitions"))
    names = [
        name for partition in loader.load_data("partitions")["partitions"] for name in partition["regions"]
    ]
    assert len(names) > 30
    for name in names:
        if not name.endswith("-global"):
            endpoint = provider.resolve_endpoint(Region=name, UseDualStack=False, UseFIPS=False)
            assert f"https://{host_of(name)}" == endpoint.url


def test_gateway_with_a_key_needs_no_region_and_a_signature_does(
    no_aws: Path, server: ScriptedServer
) -> None:
    with BedrockLLM(model=MODEL, base_url=server.origin, api_key=SecretStr("key-of-the-gateway")) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"]
    with pytest.raises(ConfigurationError, match="region that requests are signed for"):
        BedrockLLM(model=MODEL, base_url=server.origin, **KEYS).load()


# Renewal


def test_credentials_that_expired_are_read_again_and_the_row_is_retried(
    make: Callable[..., BedrockLLM], server: ScriptedServer, no_aws: Path, at_once: None
) -> None:
    write(no_aws, f"[default]\n{keys('AK1', 't1')}")
    llm = make()
    llm.generate_outputs([CHAT])
    write(no_aws, f"[default]\n{keys('AK2', 't2')}")
    server.script = [EXPIRED]
    assert llm.generate_outputs([CHAT])[0]["generations"] == ["The Ucayali."]
    assert used(server) == [("AK1", "t1"), ("AK1", "t1"), ("AK2", "t2")]
    # Those may expire in their turn.
    write(no_aws, f"[default]\n{keys('AK3', 't3')}")
    server.script = [EXPIRED]
    llm.generate_outputs([CHAT])
    assert used(server)[3:] == [("AK2", "t2"), ("AK3", "t3")]


@pytest.mark.parametrize("status", [400, 403])
def test_expired_credentials_without_others_stop_the_run_at_once(
    make: Callable[..., BedrockLLM], server: ScriptedServer, no_aws: Path, at_once: None, status: int
) -> None:
    write(no_aws, f"[default]\n{keys('AK1', 't1')}")
    server.always = Reply(status, EXPIRED.body, EXPIRED.headers)
    llm = make(max_concurrency=4)
    with pytest.raises(GenerationError, match="expired") as caught:
        list(llm.iter_outputs([CHAT] * 500, on_error="yield"))
    assert (caught.value.kind, caught.value.stops_run) == ("authentication", True)
    assert "log in again" in caught.value.hint
    assert len(server.requests) <= 4
    # Whoever then logs in can go on with the same LLM.
    server.always = None
    write(no_aws, f"[default]\n{keys('AK2', 't2')}")
    assert llm.generate_outputs([CHAT])[0]["generations"]


def test_fresh_credentials_that_have_expired_too_stop_the_run(
    make: Callable[..., BedrockLLM], server: ScriptedServer, at_once: None
) -> None:
    given = iter(range(100))
    server.always = EXPIRED
    with pytest.raises(GenerationError, match="expired") as caught:
        make(credentials_provider=lambda: Credentials("AK", "s", f"t{next(given)}")).generate_outputs([CHAT])
    assert caught.value.stops_run
    assert [token for _, token in used(server)] == ["t0", "t1"]


def test_many_rows_that_meet_an_expiry_renew_once(
    make: Callable[..., BedrockLLM], server: ScriptedServer, at_once: None
) -> None:
    asked: list[int] = []

    def provider() -> Credentials:
        asked.append(1)
        return Credentials("AK", "s", f"t{len(asked)}")

    llm = make(credentials_provider=provider, max_concurrency=8)
    llm.generate_outputs([CHAT] * 20)  # so that many are in flight at once
    server.requests.clear()
    server.meeting = threading.Barrier(8, lambda: setattr(server, "meeting", None), timeout=20)
    server.script = [EXPIRED] * 8
    outputs = llm.generate_outputs([CHAT] * 8)
    assert [output["generations"] for output in outputs] == [["The Ucayali."]] * 8
    assert len(asked) == 2


def test_provider_is_asked_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("stillhouse_bedrock.keys.time", SimpleNamespace(monotonic=lambda: now[0]))
    given = iter(range(10))
    held = Keys(lambda: None, lambda: Credentials("AK", "s", str(next(given))))
    tokens = []

    async def go() -> None:
        for later in (0.0, 59.0, 2.0, 1.0, 60.0):
            now[0] += later
            await held.renew()
            tokens.append(held.use().session_token)

    asyncio.run(go())
    assert tokens == ["0", "0", "1", "1", "2"]


def test_credentials_of_a_file_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    held = Keys(lambda: found.append(1) or Credentials("AK", "s"))
    assert held.exist()

    async def go() -> None:
        for _ in range(3):
            await held.renew()

    asyncio.run(go())
    assert found == [1]


# Models


def test_models_and_profiles_are_listed_with_a_signature(
    make: Callable[..., BedrockLLM], server: ScriptedServer
) -> None:
    summary = {"outputModalities": ["TEXT"], "inferenceTypesSupported": ["ON_DEMAND"]}
    born = {"modelLifecycle": {"status": "ACTIVE", "startOfLifeTime": "2025-03-01T00:00:00Z"}}
    models = [
        {"modelId": "amazon.nova-v1:0", **summary, **born},
        {"modelId": "anthropic.new-v1:0", **summary, "inferenceTypesSupported": ["INFERENCE_PROFILE"]},
        {"modelId": "amazon.canvas-v1:0", **summary, "outputModalities": ["IMAGE"]},
        {"modelId": None},
        None,
        {"modelId": "meta.llama-v1:0"},
    ]
    profile = {"inferenceProfileId": "us.anthropic.new-v1:0", "status": "ACTIVE", "type": "SYSTEM_DEFINED"}

    def respond(path: str, body: Any) -> Any:
        assert body is None
        if path == "/foundation-models":
            return {"modelSummaries": models}
        if path == "/inference-profiles":
            return {"inferenceProfileSummaries": [profile], "nextToken": "a/b+c=="}
        assert path == "/inference-profiles?nextToken=a/b%2Bc%3D%3D"
        return {"inferenceProfileSummaries": [{**profile, "inferenceProfileId": "global.x"}]}

    server.respond = respond
    expected = [
        {"name": "amazon.nova-v1:0", "created": "2025-03-01T00:00:00Z"},
        {"name": "meta.llama-v1:0"},
        {"name": "us.anthropic.new-v1:0"},
        {"name": "global.x"},
    ]
    assert make(**KEYS).list_models() == expected
    assert (
        BedrockLLM(model=MODEL, base_url=server.origin, region="us-east-1", **KEYS).list_models() == expected
    )
    assert all("Credential=AKIDEXAMPLE/" in request.headers["authorization"] for request in server.requests)


def test_models_are_listed_at_the_other_host(no_aws: Path) -> None:
    with llm_with(region="eu-central-1", **KEYS) as llm:
        base = llm._base
        assert llm.url_of(base, "foundation-models").host == "bedrock.eu-central-1.amazonaws.com"
        assert llm.url_of(base, "model/m/converse").host == "bedrock-runtime.eu-central-1.amazonaws.com"
