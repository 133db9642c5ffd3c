"""`stillhouse models`: what a provider offers, as a table and for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import jsonschema
import pytest
from pydantic import Field

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput
from stillhouse.http import HTTPLLM
from stillhouse.testing import Reply, ScriptedServer

MODELS_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "models", "prices"],
    "properties": {
        "name": {"type": "string"},
        "prices": {"type": ["string", "null"]},
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "context_length": {"type": "integer", "minimum": 1},
                    "max_new_tokens": {"type": "integer", "minimum": 1},
                    "created": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d"},
                    "input_price": {"type": "number", "minimum": 0},
                    "output_price": {"type": "number", "minimum": 0},
                },
            },
        },
    },
}

LIST = {
    "data": [
        {"id": "gpt-5-mini", "created": 1754425928, "context_length": 400000},
        {"id": "gpt-5", "created": 1754425777},
        {"id": "own-[bold]model", "created": 1754425777},
        {"id": "a\x1b[31mb"},
    ]
}


class ServerLLM(HTTPLLM):
    api_key_variable: ClassVar[str | None] = "TEST_MODELS_KEY"
    default_base_url: ClassVar[str | None] = "https://api.openai.com/v1"
    models_path: ClassVar[str | None] = "models"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        raise NotImplementedError


class ListlessLLM(ServerLLM):
    models_path: ClassVar[str | None] = None


class CompositeLLM(AsyncLLM):
    llms: list[str] = Field(description="What it is made of.")

    @property
    def model_name(self) -> str:
        return "composite"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        raise NotImplementedError


class OwnListLLM(CompositeLLM):
    llms: list[str] = Field(default=["m"], description="What it is made of.")

    def list_models(self) -> Any:
        return [{"name": "a\x1b[2J"}, {"name": "b", "input_price": 2.5, "output_price": 10}, 5]


@pytest.fixture
def server(own_registry: stillhouse.Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    own_registry.register("server", ServerLLM)
    own_registry.register("listless", ListlessLLM)
    own_registry.register("composite", CompositeLLM)
    own_registry.register("own-list", OwnListLLM)
    monkeypatch.setenv("TEST_MODELS_KEY", "key-1234")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    scripted = ScriptedServer(lambda path, body: LIST)
    yield scripted
    scripted.close()


def test_models_are_a_table_without_the_columns_that_nobody_fills(run: Any, server: ScriptedServer) -> None:
    result = run("models", "server", "--set", f"base_url={server.origin}")
    assert result.status == 0
    assert result.out == (
        "NAME             CONTEXT  CREATED\n"
        "gpt-5                     2025-08-05\n"
        "gpt-5-mini       400,000  2025-08-05\n"
        "own-[bold]model           2025-08-05\n"
    )
    assert result.err == ""
    assert [request.path for request in server.requests] == ["/models"]


def test_filter_chooses_by_a_part_of_the_name(run: Any, server: ScriptedServer) -> None:
    at = ("--set", f"base_url={server.origin}")
    assert run("models", "server", "MINI", *at).out == (
        "NAME        CONTEXT  CREATED\ngpt-5-mini  400,000  2025-08-05\n"
    )
    nothing = run("models", "server", "gtp-5", *at)
    assert (nothing.status, nothing.out) == (0, "")
    assert nothing.err == "no model has 'gtp-5' in its name; did you mean 'gpt-5'?\n"
    server.always = Reply(body={"data": []})
    assert run("models", "server", *at).err == "the provider lists no models\n"
    assert json.loads(run("models", "server", "--json", *at).out)["models"] == []


def test_json_matches_its_schema(run: Any, server: ScriptedServer) -> None:
    listed = json.loads(run("models", "server", "--json", "--set", f"base_url={server.origin}").out)
    jsonschema.validate(listed, MODELS_SCHEMA)
    assert listed["models"][1] == {
        "name": "gpt-5-mini", "context_length": 400000, "created": "2025-08-05T20:32:08Z",
    }  # fmt: skip
    assert (listed["name"], listed["prices"]) == ("server", None)


def test_prices_are_those_of_the_library_where_the_provider_tells_none(
    run: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    genai_prices = pytest.importorskip("genai_prices")
    # The list comes from here; the prices are those of the address that it is asked at.
    monkeypatch.setattr(ServerLLM, "api_url", "https://api.openai.com/v1")
    at = ("--set", f"base_url={server.origin}")
    listed = json.loads(run("models", "server", "--json", *at).out)
    jsonschema.validate(listed, MODELS_SCHEMA)
    assert listed["prices"] == f"genai-prices {genai_prices.__version__}"
    usage = genai_prices.Usage(input_tokens=10**6, output_tokens=10**6)
    for model in listed["models"][:2]:
        price = genai_prices.calc_price(usage, model["name"], provider_id="openai")
        assert model["input_price"] == pytest.approx(float(price.input_price))
        assert model["output_price"] == pytest.approx(float(price.output_price))
    assert "input_price" not in listed["models"][2]
    table = run("models", "server", *at)
    assert "INPUT $/M  OUTPUT $/M" in table.out
    assert "prices of genai-prices" in table.err


def test_backend_with_a_list_of_its_own_is_not_believed_either(run: Any, server: ScriptedServer) -> None:
    assert run("models", "own-list").out == "NAME  INPUT $/M  OUTPUT $/M\nb     2.5        10\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "servr"], "there is no LLM \"servr\"\n  try  did you mean 'server'"),
        (["models", "listless"], "ListlessLLM lists no models\n  try  look the name of a model up"),
        (["models", "composite"], "composite lists no models\n  try  look the name of a model up"),
        (["models", "echo"], "echo lists no models\n  try  look"),
        (["models", "server", "--set", "base_ulr=x"], "server has no field 'base_ulr'\n  try  did you mean 'base_url'"),
        (["models", "server", "--set", "base_url"], "is not of the form NAME=VALUE"),
        (["models", "server", "--set", "base_url=nowhere"], "is not an address"),
    ],
)  # fmt: skip
def test_what_cannot_be_listed_is_an_error(
    arguments: list[str], message: str, run: Any, server: ScriptedServer
) -> None:
    result = run(*arguments)
    assert result.status == (2 if any("base_u" in argument for argument in arguments) else 1)
    assert message in result.err
    assert result.out == ""


def test_what_the_server_refuses_is_an_error(
    run: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--set", f"base_url={server.origin}", "--set", "retry_timeout=0")
    for reply, message in (
        (Reply(401, {"error": {"message": "no"}}), "check the API key"),
        (Reply(404, {"error": {"message": "not found"}}), "check base_url: no list of models is there"),
        (Reply(body={"models": []}), "the answer has another shape"),
        (Reply(body=b"<html>", headers={"content-type": "text/html"}), "a page instead of JSON"),
    ):
        server.always = reply
        result = run("models", "server", *at)
        assert result.status == 1
        assert message in result.err
    server.close()
    dead = run("models", "server:m", *at)
    assert dead.status == 1
    assert dead.err.startswith("error: ")
    monkeypatch.delenv("TEST_MODELS_KEY")
    assert "TEST_MODELS_KEY" in run("models", "server", *at).err
