"""The table of providers: what each class sends, where, and with whose key; and a row of one's own."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

from stillhouse import LLM, ConfigurationError, GenerationError, Registry, UnsupportedError
from stillhouse_openai import Provider, provider_class, providers
from stillhouse_openai.providers import CLASSES, PROVIDERS

FOLDER = Path(__file__).parents[1]
CHAT: Any = [{"role": "user", "content": "hello"}]
TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
FORM: Any = {
    "format": "json",
    "schema": {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
}
VALUES: dict[str, Any] = {
    "max_new_tokens": 9, "temperature": 0.5, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "stop": "x", "seed": 1,
    "frequency_penalty": 0.1, "presence_penalty": 0.1, "repetition_penalty": 1.1, "logprobs": True,
    "top_logprobs": 2, "logit_bias": {"1": 1}, "tools": TOOLS, "tool_choice": "auto",
    "response_format": {"type": "json_object"}, "reasoning_effort": "high", "service_tier": "priority",
}  # fmt: skip

every = pytest.mark.parametrize("name", PROVIDERS)


def entry_points() -> list[importlib_metadata.EntryPoint]:
    """Those of this package's own `pyproject.toml`, whatever is installed."""
    declared = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    group = "stillhouse.llms"
    return [
        importlib_metadata.EntryPoint(name, value, group)
        for name, value in declared["entry-points"][group].items()
    ]


REGISTRY = Registry(entry_points())


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in PROVIDERS.values():
        for variable in (*row.key, row.base_url_variable):
            if variable:
                monkeypatch.delenv(variable, raising=False)


@every
def test_the_class_of_a_row_is_found_saved_and_pickled(name: str) -> None:
    row = PROVIDERS[name]
    cls = REGISTRY.get_llm(name)  # which validates it
    assert cls is getattr(providers, row.class_name)
    assert cls.__doc__ == row.about
    llm = REGISTRY.create(f"{name}:m", api_key="secret-1", generation_kwargs={"max_new_tokens": 5})
    assert pickle.loads(pickle.dumps(llm)) == llm
    again = LLM.from_dict(llm.dump(), registry=REGISTRY)
    assert type(again) is cls
    declared = cls.generation_parameters()
    assert all(declared.descriptions.get(parameter) for parameter in declared.parameters)
    for _, url in vars(row).items():
        assert "localhost" in str(url) or "http://" not in str(url), "no provider is asked without TLS"


@every
def test_every_parameter_of_a_row_is_sent_and_no_other_is_taken(name: str, server: Any) -> None:
    row = PROVIDERS[name]
    cls: Any = REGISTRY.get_llm(name)
    taken = {key: value for key, value in VALUES.items() if key in row.parameters()}
    with cls(model="m", base_url=f"{server.origin}/v1", api_key="key") as llm:
        llm.generate_outputs([CHAT], **taken)
        for key in VALUES.keys() - taken.keys():
            with pytest.raises(ConfigurationError, match=key):
                llm.generate_outputs([CHAT], **{key: VALUES[key]})
    (body,) = server.bodies
    wanted = {"model": "m", "messages": CHAT, **row.always_sent, **taken}
    wanted["max_tokens"] = wanted.pop("max_new_tokens")
    wanted |= row.efforts.get(wanted.pop("reasoning_effort", ""), {})
    assert body == {row.renamed.get(key, key): value for key, value in wanted.items()}
    with cls(model="m", base_url=f"{server.origin}/v1", api_key="key") as llm:
        llm.generate_outputs([CHAT])
    assert server.bodies[-1] == {"model": "m", "messages": CHAT, **row.always_sent}, "nothing unasked"


@every
def test_the_address_and_the_keys_of_a_row(name: str, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = PROVIDERS[name]
    cls: Any = REGISTRY.get_llm(name)
    assert cls(model="m").api_url.rstrip("/") == row.base_url
    for variable in row.key:
        monkeypatch.setenv(variable, f"from-{variable}")
        with cls(model="m", base_url=server.origin) as llm:  # the path of the table's address is added
            llm.generate_outputs([CHAT])
        assert server.headers[-1]["authorization"] == f"Bearer from-{variable}"
        monkeypatch.delenv(variable)
    if row.key:
        with pytest.raises(ConfigurationError, match="needs an API key") as caught:
            cls(model="m").load()
        assert row.key[0] in caught.value.hint
    else:
        with cls(model="m", base_url=server.origin) as llm:
            llm.generate_outputs([CHAT])
        assert "authorization" not in server.headers[-1]
    path = (row.base_url or "").partition("://")[2].partition("/")[2]
    assert set(server.paths) == {f"/{path}/chat/completions".replace("//", "/")}
    if row.base_url_variable:
        monkeypatch.setenv(row.base_url_variable, f"{server.origin}/other")
        with cls(model="m", api_key="key") as llm:
            llm.generate_outputs([CHAT])
        assert server.paths[-1] == "/other/chat/completions"
        assert cls(model="m", base_url="https://mine.example/v2").api_url == "https://mine.example/v2"


@every
def test_what_a_row_does_not_declare_is_refused_before_anything_is_sent(name: str, server: Any) -> None:
    row = PROVIDERS[name]
    cls: Any = REGISTRY.get_llm(name)
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://e.x/a.png"}}]}]
    with cls(model="m", base_url=server.origin, api_key="key") as llm:
        for capability, given in (("raw_prompt", "raw"), ("images", image), ("json_schema", (CHAT, FORM))):
            server.script[:] = [server.chat('{"river": "Ucayali"}')]
            if capability in row.capabilities:
                llm.generate_outputs([given])
            else:
                before = len(server.paths)
                with pytest.raises(UnsupportedError):
                    llm.generate_outputs([given])
                assert len(server.paths) == before
        llm.generate_outputs([CHAT], num_generations=2)
    asked = [body for body in server.bodies if isinstance(body, dict) and "n" in body]
    assert bool(asked) == ("num_generations" in row.capabilities)


@every
def test_a_form_is_asked_for_as_the_row_says_and_always_checked(name: str, server: Any) -> None:
    row = PROVIDERS[name]
    cls: Any = REGISTRY.get_llm(name)
    server.script[:] = [server.chat("a river"), server.chat('{"river": "Ucayali"}')]
    with cls(model="m", base_url=server.origin, api_key="key", structured_output=FORM) as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert json.loads(output["generations"][0]) == {"river": "Ucayali"}
    assert output["statistics"]["output_tokens"] == [6]
    first, second = server.bodies
    assert second["messages"][-1]["role"] == "user", "it was told what was wrong"
    assert "valid against" in second["messages"][-1]["content"] or "JSON" in second["messages"][-1]["content"]
    if row.json_form == "json_schema":
        assert first["response_format"]["json_schema"]["strict"] is True
        assert first["messages"] == CHAT
        return
    assert first.get("response_format") == (
        {"type": "json_object"} if row.json_form == "json_object" else None
    )
    for body in (first, second):
        assert body["messages"][0]["role"] == "system"
        assert json.dumps(FORM["schema"], separators=(",", ":")) in body["messages"][0]["content"]


def test_words_of_single_providers(server: Any) -> None:
    zai: Any = REGISTRY.get_llm("zai")
    with zai(model="m", base_url=server.origin, api_key="key", retry_timeout=5) as llm:
        server.script[:] = [
            server.chat(None, finish="sensitive"),
            server.chat("half", finish="network_error"), server.chat("whole"),
            server.chat("cut", finish="model_context_window_exceeded"),
        ]  # fmt: skip
        filtered, whole, cut = (
            llm.generate_outputs([CHAT]),
            llm.generate_outputs([CHAT]),
            llm.generate_outputs([CHAT]),
        )
    assert (filtered[0]["generations"], filtered[0]["finish_reasons"]) == ([None], ["content_filter"])
    assert whole[0]["generations"] == ["whole"]
    assert cut[0]["finish_reasons"] == ["length"]
    perplexity: Any = REGISTRY.get_llm("perplexity")
    sources = [{"title": "t", "url": "https://e.x", "date": None}]
    server.script[:] = [{**server.chat("a"), "citations": ["https://e.x"], "search_results": sources}]
    with perplexity(model="sonar", base_url=server.origin, api_key="key") as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert (output["citations"], output["search_results"]) == ([["https://e.x"]], [sources])
    xai: Any = REGISTRY.get_llm("xai")
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 19}
    usage["completion_tokens_details"] = {"reasoning_tokens": 7}
    server.script[:] = [server.chat(None, finish="", usage=usage, tool_calls=[call])]
    with xai(model="m", base_url=server.origin, api_key="key") as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert output["finish_reasons"] == ["tool_calls"]
    assert output["statistics"] == {"input_tokens": [10], "output_tokens": [9], "reasoning_tokens": [7]}


def test_minimax_has_its_reasoning_apart(server: Any) -> None:
    minimax: Any = REGISTRY.get_llm("minimax")
    details = [{"type": "reasoning.text", "text": "hm"}]
    server.script[:] = [server.chat("a", reasoning_details=details)]
    with minimax(model="m", base_url=server.origin, api_key="key") as llm:
        (output,) = llm.generate_outputs([CHAT])
        llm.generate_outputs([CHAT], extra_body={"reasoning_split": False})
    assert output["reasoning_details"] == [details]
    assert output["reasoning"] == ["hm"]
    assert [body["reasoning_split"] for body in server.bodies] == [True, False]


@pytest.mark.parametrize(("name", "key"), [("cerebras", "reasoning"), ("moonshot", "reasoning_content")])
def test_a_chat_of_other_backends_is_sent_as_the_provider_takes_it(name: str, key: str, server: Any) -> None:
    cls: Any = REGISTRY.get_llm(name)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat: Any = [
        {"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning": "hm"},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "42"}]},
        {"role": "assistant", "content": "ok", "reasoning_content": "hm", "reasoning": None},
        {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
    ]
    before = json.dumps(chat)
    with cls(model="m", base_url=server.origin, api_key="key") as llm:
        llm.generate_outputs([chat])
    assert json.dumps(chat) == before
    assert server.bodies[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call], key: "hm"},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "assistant", "content": "ok", key: "hm"},
        chat[5],
    ]


REFUSALS = [
    (400, {"message": "messages.1.assistant.reasoning_content: property is unsupported", "code": "wrong_api_format"}),
    (422, {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "store"],
                                                       "msg": "Extra inputs are not permitted"}]}}),
    (400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}),
    (400, {"error": {"code": "invalid_parameter_error", "message": "parameter.enable_thinking must be set to false"}}),
    (400, {"error": {"message": "user or tool message(s) should alternate", "type": "invalid_message", "code": 400}}),
    (400, {"error": {"message": "tools.function.parameters is not a valid moonshot flavored json schema"}}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), REFUSALS)
def test_a_refused_row_says_why_and_is_not_asked_again(status: int, body: Any, server: Any) -> None:
    cls: Any = REGISTRY.get_llm("fireworks")
    server.script[:] = [(status, body)]
    with (
        cls(model="m", base_url=server.origin, api_key="key") as llm,
        pytest.raises(GenerationError) as caught,
    ):
        llm.generate_outputs([CHAT])
    said = re.sub(r"[^a-z]", "", json.dumps(body).lower())
    assert (caught.value.kind, caught.value.attempts, caught.value.stops_run) == ("invalid_request", 1, False)
    words = re.findall(r"[a-z_.]{5,}", caught.value.message.split(": ", 1)[1].lower())
    assert words
    assert all(re.sub(r"[^a-z]", "", word) in said for word in words)


def test_a_key_of_another_region_names_the_address_and_stops_the_run(server: Any) -> None:
    cls: Any = REGISTRY.get_llm("moonshot")
    wrong = {"error": {"message": "Invalid Authentication", "type": "invalid_authentication_error"}}
    server.script[:] = [(401, wrong)] * 500
    base_url = f"{server.origin}/v1"
    with cls(model="m", base_url=base_url, api_key="key") as llm, pytest.raises(GenerationError) as caught:
        list(llm.iter_outputs([CHAT] * 400, on_error="yield"))
    assert (caught.value.kind, caught.value.stops_run) == ("authentication", True)
    assert f"{server.origin}/v1" in caught.value.hint
    assert len(server.paths) < 100


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_row_speaks_to_a_real_server(name: str, real_server: dict[str, str]) -> None:
    """It is not the provider, but a server of its own that refuses what is not OpenAI's API."""
    row = PROVIDERS[name]
    cls: Any = REGISTRY.get_llm(name)
    form = {
        "format": "json",
        "schema": {**FORM["schema"], "properties": {"river": {"enum": ["Ucayali", "Marañón"]}}},
    }
    with cls(model="smollm2", **real_server) as llm:
        (output,) = llm.generate_outputs([CHAT], max_new_tokens=6, temperature=0)
        assert output["generations"][0]
        assert output["statistics"]["output_tokens"][0] <= 6
        if row.json_form == "json_schema":
            (output,) = llm.generate_outputs([(CHAT, form)], max_new_tokens=60, temperature=0)
            assert json.loads(output["generations"][0])["river"] in ("Ucayali", "Marañón")
            return
        # Nothing but the prompt holds this small model to the schema.
        with contextlib.suppress(GenerationError):
            (output,) = llm.generate_outputs([(CHAT, form)], max_new_tokens=20)
            assert json.loads(output["generations"][0])["river"] in ("Ucayali", "Marañón")


BASE = {"id": "1", "choices": None, "usage": None}


@pytest.mark.parametrize(
    ("name", "status", "body", "meaning"),
    [
        ("minimax", 200, {**BASE, "base_resp": {"status_code": 1004, "status_msg": "login fail"}},
         ("authentication", True)),
        ("minimax", 200, {**BASE, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
         ("rate_limit", True)),
        ("minimax", 200, {**BASE, "base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}},
         ("content_filter", False)),
        ("minimax", 200, {**BASE, "base_resp": {"status_code": 2013, "status_msg": "invalid params"}},
         ("invalid_request", False)),
        ("dashscope", 400, {"error": {"code": "data_inspection_failed", "message": "Input data may contain …"}},
         ("content_filter", False)),
        ("dashscope", 400, {"error": {"code": "Arrearage", "message": "Access denied, … overdue-payment"}},
         ("rate_limit", True)),
        ("minimax", 200, {**BASE, "base_resp": {"status_code": "1004", "status_msg": "login fail"}},
         ("authentication", True)),
        ("dashscope", 400, {"error": {"code": "invalid_parameter_error",
                                      "message": "Range of input length should be [1, 30720]"}},
         ("context_length", False)),
        ("xai", 403, {"code": "The caller does not have permission",
                      "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"},
         ("content_filter", False)),
        ("xai", 403, {"code": "The caller does not have permission",
                      "error": "Your newly created team doesn't have any credits yet."},
         ("rate_limit", True)),
        ("lmstudio", 400, {"error": "No models loaded. Please load a model in the developer page."},
         ("invalid_request", True)),
        ("zai", 400, {"error": {"code": "1301", "message": "sensitive"}}, ("content_filter", False)),
        ("zai", 429, {"error": {"code": "1113", "message": "Insufficient balance or no resource package."}},
         ("rate_limit", True)),
        ("xai", 400, {"code": "Client specified an invalid argument",
                      "error": "Incorrect API key provided: ab***yz. You can obtain an API key from x.ai."},
         ("authentication", True)),
        ("perplexity", 401, b"<html><head><title>401 Authorization Required</title></head></html>",
         ("authentication", True)),
        ("moonshot", 400, {"error": {"message": "high risk", "type": "content_filter"}},
         ("content_filter", False)),
        ("github-models", 413, {"error": {"code": "tokens_limit_reached", "message":
                                          "Request body too large for gpt-4o model. Max size: 8000 tokens."}},
         ("context_length", False)),
    ],
)  # fmt: skip
def test_errors_of_single_providers(
    name: str, status: int, body: Any, meaning: tuple[str, bool], server: Any
) -> None:
    cls: Any = REGISTRY.get_llm(name)
    server.script[:] = [(status, body)]
    with (
        cls(model="m", base_url=server.origin, api_key="key") as llm,
        pytest.raises(GenerationError) as caught,
    ):
        llm.generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.stops_run) == meaning
    assert caught.value.attempts == 1


def test_a_passing_fault_in_a_base_resp_is_tried_again(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.offline.failures.INITIAL_BACKOFF_SECONDS", 0.05)
    minimax: Any = REGISTRY.get_llm("minimax")
    good = {**server.chat("a"), "base_resp": {"status_code": "0", "status_msg": ""}}
    odd = {**BASE, "base_resp": {"status_code": "x"}}
    server.script[:] = [{**BASE, "base_resp": {"status_code": code}} for code in (1002, 1039, 1013)] + [
        odd,
        good,
    ]
    with minimax(model="m", base_url=server.origin, api_key="key", retry_timeout=60) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["a"]
    assert len(server.paths) == 5


def test_cerebras_refuses_lengths_patterns_and_formats_of_a_schema() -> None:
    cerebras: Any = REGISTRY.get_llm("cerebras")
    for item in (
        {"type": "array", "items": {"type": "string"}, "minItems": 1}, {"type": "string", "pattern": "a"},
        {"type": "string", "format": "date"},
    ):  # fmt: skip
        schema = {"type": "object", "properties": {"a": item}}
        with pytest.raises(UnsupportedError, match="at #/properties/a"):
            cerebras(model="m", structured_output={"format": "json", "schema": schema})
        REGISTRY.create("fireworks:m", structured_output={"format": "json", "schema": schema})


# Rows of one's own

ACME = Provider(
    class_name="AcmeLLM",
    about="Models of Acme.",
    base_url="https://llm.acme.example/v1",
    key=("ACME_KEY",),
    capabilities=frozenset({"chat", "json_schema", "seed"}),
    further=("top_k",),
    lacking=("stop",),
)
AcmeLLM = provider_class(ACME)


def test_a_row_of_one_s_own_is_registered_saved_and_pickled(server: Any, tmp_path: Path) -> None:
    registry = Registry([])
    registry.register("acme", AcmeLLM)
    llm = registry.create("acme:m", base_url=server.origin, api_key="key", generation_kwargs={"top_k": 2})
    llm.save(tmp_path / "acme.yaml")
    assert type(LLM.from_file(tmp_path / "acme.yaml", registry)) is AcmeLLM
    assert pickle.loads(pickle.dumps(llm)) == llm
    with llm:
        llm.generate_outputs([CHAT])
        with pytest.raises(ConfigurationError, match="stop"):
            llm.generate_outputs([CHAT], stop="x")
        with pytest.raises(ConfigurationError, match="tools"):
            llm.generate_outputs([CHAT], tools=TOOLS)
    assert server.bodies == [{"model": "m", "messages": CHAT, "top_k": 2}]
    assert server.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize("field", ["further", "lacking"])
def test_a_row_with_an_unknown_parameter_is_refused(field: str) -> None:
    row = Provider(class_name="AcmeLLM", about="Acme.", **{field: ("top_kk",)})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="top_kk"):
        provider_class(row)


def test_importing_the_table_makes_no_class() -> None:
    code = (
        "from stillhouse_openai import providers, ProviderLLM; assert not ProviderLLM.__subclasses__();"
        "cls = providers.FireworksLLM; assert providers.FireworksLLM is cls;"
        "assert len(ProviderLLM.__subclasses__()) == 1; assert 'XAILLM' in dir(providers);"
        "assert not hasattr(providers, 'NoLLM')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_stub_has_every_class_with_the_first_sentence_of_its_row() -> None:
    stub = Path(providers.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    told = dict(re.findall(r'^class (\w+)\(ProviderLLM\):\n    """(.*)"""$', stub, re.M))
    assert told.keys() == CLASSES.keys()
    for name, first in told.items():
        assert PROVIDERS[CLASSES[name]].about.startswith(first), name


def test_every_row_has_an_entry_point_and_is_in_the_tables_of_the_pages() -> None:
    declared = {point.name: point.value for point in entry_points()}
    for name, row in PROVIDERS.items():
        assert declared[name] == f"stillhouse_openai.providers:{row.class_name}"
        assert CLASSES[row.class_name] == name
    for page in (FOLDER / "README.md", FOLDER.parents[1] / "docs/other-providers.md"):
        told = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", page.read_text(encoding="utf-8"), re.M))
        for name, row in PROVIDERS.items():
            line = told[name]
            assert f"`{row.base_url}`" in line, (page, name)
            assert all(f"`{variable}`" in line for variable in row.key), (page, name)
