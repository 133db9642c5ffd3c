"""The models that a server lists, and what is said of one that it does not have."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import GenerationError, ModelInfo, Registry, UnsupportedError
from stillhouse._settings.models import MAX_MODELS, MAX_NAME_CHARS, nearest, problem_in, read_model
from stillhouse.errors import ConfigurationError
from stillhouse.http import HTTPLLM
from stillhouse.http.listing import MAX_PAGES, listed_models
from stillhouse.http.transport.failures import failure_of

from .conftest import ANSWER, Reply, Request, ScriptedServer, ScriptLLM

LIST = {
    "object": "list",
    "data": [
        {"id": "gpt-5-mini", "object": "model", "created": 1754425928, "owned_by": "system"},
        {"id": "gpt-5", "object": "model", "created": 1754425777, "owned_by": "system"},
    ],
}
LISTED: list[Any] = [
    {"name": "gpt-5-mini", "created": "2025-08-05T20:32:08Z"},
    {"name": "gpt-5", "created": "2025-08-05T20:29:37Z"},
]
UNKNOWN = {"error": {"message": "The model `gpt-5-minni` does not exist", "code": "model_not_found"}}


def reply(body: Any, status: int = 200) -> Reply:
    return Reply(status=status, body=json.dumps(body).encode())


class ListLLM(ScriptLLM):
    models_path: ClassVar[str | None] = "models"


class PagedLLM(ListLLM):
    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        return [{"name": item["id"]} for item in answer["models"]]

    def models_page_after(self, answer: Any) -> Mapping[str, str | int] | None:
        return {"after": answer["next"]}


@pytest.fixture
def make(server: ScriptedServer) -> Callable[..., ListLLM]:
    def llm(cls: type[ListLLM] = ListLLM, **fields: Any) -> ListLLM:
        return cls(**{"model": "m", "base_url": server.url, "api_key": "key-1234", **fields})

    return llm


def listing(server: ScriptedServer, models: Any, other: Reply | None = None) -> None:
    """Answer each request for the list with this one, and every other with `other`."""

    def answer(request: Request) -> Reply | None:
        return reply(models) if request.path.startswith("/v1/models") else other

    server.answer = answer


def test_models_are_listed_whether_or_not_the_llm_is_loaded(
    make: Callable[..., ListLLM], server: ScriptedServer
) -> None:
    listing(server, LIST)
    llm = make()
    assert llm.list_models() == LISTED
    assert not llm.is_loaded
    with llm:
        assert llm.list_models() == LISTED
        assert llm.is_loaded
    assert [request.path for request in server.requests] == ["/v1/models"] * 2
    assert server.requests[0].headers["authorization"] == "Bearer key-1234"


def test_listing_leaves_one_that_somebody_loads_meanwhile_alone(
    make: Callable[..., ListLLM], server: ScriptedServer
) -> None:
    llm, asked = make(), threading.Event()

    def answer(request: Request) -> Reply:
        llm.load()
        asked.set()
        return reply(LIST)

    server.answer = answer
    llm.list_models()
    assert asked.is_set()
    assert llm.is_loaded
    llm.unload()


def test_backend_without_a_list_says_what_to_do(server: ScriptedServer) -> None:
    for llm in (
        ScriptLLM(model="m", base_url=server.url, api_key="k"),
        Registry(entry_points=[]).create("echo"),
    ):
        with pytest.raises(UnsupportedError, match=r"LLM lists no models\n  try  look the name"):
            llm.list_models()
    assert server.requests == []


def test_missing_key_is_an_error(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCRIPT_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="SCRIPT_API_KEY"):
        ListLLM(model="m", base_url=server.url).list_models()


@pytest.mark.parametrize(
    ("entry", "facts"),
    [
        ({"id": "m", "context_length": 131072}, {"context_length": 131072}),
        ({"id": "m", "context_window": 8192, "max_completion_tokens": 4096},
         {"context_length": 8192, "max_new_tokens": 4096}),
        ({"id": "m", "max_model_len": 32768.0, "created": 1754425928.5},
         {"context_length": 32768, "created": "2025-08-05T20:32:08Z"}),
        ({"id": "m", "max_context_length": "4096"}, {"context_length": 4096}),
        ({"id": "m", "created_at": "2025-08-05T20:32:08Z"}, {"created": "2025-08-05T20:32:08Z"}),
        ({"id": "m", "created_at": "2023-12-07T09:32:18.757212583-08:00"},
         {"created": "2023-12-07T09:32:18.757212583-08:00"}),
        ({"id": "m", "created": 0, "context_length": 0}, {}),
        ({"id": "m", "created": 10**30, "context_length": -1}, {}),
        ({"id": "m", "created": "2025-02-31", "context_length": None}, {}),
        ({"id": "m", "created": float("nan"), "context_length": True}, {}),
        ({"id": "m", "created": ["2025-01-01"], "context_length": {"a": 1}}, {}),
        ({"id": "m", "created": "yesterday\x1b[2J"}, {}),
        ({"name": " m "}, {}),
        ("m", {}),
    ],
)  # fmt: skip
def test_facts_of_a_model_are_read_or_left_out(
    entry: Any, facts: dict[str, Any], make: Callable[..., ListLLM], server: ScriptedServer
) -> None:
    for body in ({"data": [entry]}, [entry]):
        server.script = [reply(body)]
        assert make().list_models() == [{"name": "m", **facts}]


@pytest.mark.parametrize(
    "name",
    ["", "  ", "a\x1b[31mb", "a\nb", "a\u202eb", "a\ud800b", "x" * (MAX_NAME_CHARS + 1), "x" * 10**6, 5, None, ["m"], {"a": 1}, True],
    ids=lambda name: repr(name)[:20],
)  # fmt: skip
def test_name_that_cannot_be_printed_is_left_out(name: Any) -> None:
    assert read_model({"name": name}) is None


@pytest.mark.parametrize(
    ("price", "read"),
    [(1e6 * 0.0000028, 2.8), (0, 0.0), (3, 3.0), (-1, None), (float("inf"), None), (10**400, None), ("3", None), (True, None)],
)  # fmt: skip
def test_price_is_a_number_or_nothing(price: Any, read: Any) -> None:
    model = read_model({"name": "m", "input_price": price})
    assert model is not None
    assert model.get("input_price") == read


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "id", "name", "created", "created_at", "context_length", "max_model_len", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)  # fmt: skip


@settings(derandomize=True, max_examples=500, deadline=None)
@given(JSON)
def test_whatever_is_listed_what_is_kept_is_well_formed(answer: Any) -> None:
    try:
        entries = list(listed_models(answer))
    except (LookupError, TypeError):
        return
    found = {model["name"]: model for model in map(read_model, entries) if model is not None}
    assert problem_in(list(found.values())) == ""


@pytest.mark.parametrize(
    "body", [{}, {"data": 5}, {"data": {"a": 1}}, {"data": "models"}, {"models": []}, 5, "text"], ids=repr
)
def test_answer_of_another_shape_is_an_error(
    body: Any, make: Callable[..., ListLLM], server: ScriptedServer
) -> None:
    listing(server, body)
    with pytest.raises(GenerationError, match=r"another shape|not JSON|base_url") as caught:
        make(retry_timeout=0).list_models()
    assert caught.value.kind == "server"


def test_error_in_an_answer_is_that_error(make: Callable[..., ListLLM], server: ScriptedServer) -> None:
    listing(server, {"error": {"message": "the key key-1234 is wrong", "code": "invalid_api_key"}})
    with pytest.raises(GenerationError, match=r"the key \*+ is wrong") as caught:
        make(retry_timeout=0).list_models()
    assert caught.value.kind == "authentication"
    listing(server, {"data": None})
    assert make().list_models() == []


def test_busy_server_is_asked_again(make: Callable[..., ListLLM], server: ScriptedServer) -> None:
    server.script = [reply({"error": "busy"}, 503), reply(LIST)]
    assert make().list_models() == LISTED


def test_key_is_masked_in_a_name_and_in_an_error(
    make: Callable[..., ListLLM], server: ScriptedServer
) -> None:
    key = "sk-5d41402abc4b2a76b9719d911017c592"
    listing(server, {"data": [{"id": f"a-{key}"}, {"id": "b"}, {"id": "b", "created": 1754425928}]})
    assert make(api_key=key).list_models() == [{"name": "a-**********"}, {"name": "b"}]
    listing(server, {key: 5})
    with pytest.raises(GenerationError) as caught:
        make(PagedLLM, api_key=key).list_models()
    assert key not in str(caught.value)


def test_pages_are_read_to_the_last(make: Callable[..., ListLLM], server: ScriptedServer) -> None:
    server.script = [
        reply({"models": [{"id": "a"}], "next": "x y"}),
        reply({"models": [{"id": "b"}, {"id": "a"}], "next": 7}),
        reply({"models": [{"id": "c"}], "next": ""}),
    ]
    assert [model["name"] for model in make(PagedLLM).list_models()] == ["a", "b", "c"]
    assert [request.path for request in server.requests] == [
        "/v1/models", "/v1/models?after=x+y", "/v1/models?after=7",
    ]  # fmt: skip


@pytest.mark.parametrize("following", [None, True, 1.5, ["x"], {"a": 1}])
def test_odd_next_page_is_none(following: Any, make: Callable[..., ListLLM], server: ScriptedServer) -> None:
    listing(server, {"models": [{"id": "a"}], "next": following})
    assert make(PagedLLM).list_models() == [{"name": "a"}]
    assert len(server.requests) == 1


def test_pages_without_an_end_are_not_read_for_ever(
    make: Callable[..., ListLLM], server: ScriptedServer
) -> None:
    listing(server, {"models": [{"id": "a"}], "next": "same"})
    assert make(PagedLLM).list_models() == [{"name": "a"}]
    assert len(server.requests) == 2  # the same page twice is the last
    server.requests.clear()

    def another(request: Request) -> Reply:
        return reply({"models": [{"id": "a"}], "next": len(server.requests)})

    server.answer = another
    assert make(PagedLLM).list_models() == [{"name": "a"}]
    assert len(server.requests) == MAX_PAGES
    server.requests.clear()
    many = [{"id": f"m{number}"} for number in range(MAX_MODELS + 1)]
    server.answer = lambda _: reply({"models": many, "next": len(server.requests)})
    assert len(make(PagedLLM).list_models()) == MAX_MODELS
    assert len(server.requests) == 1


# The names near an unknown one


@pytest.mark.parametrize(
    ("name", "names", "near"),
    [
        ("gpt-5-minni", ["gpt-5", "gpt-5-mini", "o3"], ["gpt-5-mini", "gpt-5"]),
        ("GPT-5-Mini", ["gpt-5-mini"], ["gpt-5-mini"]),
        ("gpt-5-mini", ["openai/gpt-5-mini", "x/y"], ["openai/gpt-5-mini"]),
        ("openai/gpt-5-mini", ["gpt-5-mini"], ["gpt-5-mini"]),
        ("llama-3.3-70b-instruct", ["meta-llama/Llama-3.3-70B-Instruct"], ["meta-llama/Llama-3.3-70B-Instruct"]),
        ("gpt-5", ["gpt-5", "gpt-5-mini"], []),
        ("claude", ["gpt-5", "o3"], []),
        ("", ["gpt-5"], []),
    ],
)  # fmt: skip
def test_nearest_names(name: str, names: list[str], near: list[str]) -> None:
    assert nearest(name, names) == near


def test_long_names_are_compared_in_part() -> None:
    assert nearest("x" * 10**6, [f"y{number}" for number in range(10**5)]) == []


def unknown(llm: HTTPLLM) -> GenerationError:
    with pytest.raises(GenerationError) as caught:
        llm.generate_outputs([[{"role": "user", "content": "hello"}]] * 8)
    assert caught.value.kind == "invalid_request"
    assert caught.value.stops_run
    return caught.value


@pytest.fixture
def known_as() -> Registry:
    registry = Registry(entry_points=[])
    registry.register("listing", ListLLM)
    return registry


def test_unknown_model_names_the_nearest(
    make: Callable[..., ListLLM],
    server: ScriptedServer,
    known_as: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listing(server, LIST, reply(UNKNOWN, 404))
    compared: list[str] = []

    def counted(name: str, names: list[str]) -> list[str]:
        compared.append(name)
        return nearest(name, names)

    monkeypatch.setattr("stillhouse.http.listing.nearest", counted)
    with make(model="gpt-5-minni") as llm:
        llm.use_registry(known_as)
        assert unknown(llm).hint == (
            "check the model's name: did you mean 'gpt-5-mini' or 'gpt-5'? "
            "`stillhouse models listing` lists its models"
        )
        unknown(llm)
    paths = [request.path for request in server.requests]
    assert paths.count("/v1/models") == 1, "once in each load"
    assert compared == ["gpt-5-minni"], "names are compared once, and not for every row in flight"
    with make(model="something-else") as llm:
        llm.use_registry(known_as)
        assert unknown(llm).hint == "check the model's name; `stillhouse models listing` lists its models"
    with make(model="gpt-5-minni") as llm:  # of a class that has no name
        assert unknown(llm).hint == "check the model's name: did you mean 'gpt-5-mini' or 'gpt-5'?"


def test_model_that_is_listed_is_not_the_matter(
    make: Callable[..., ListLLM], server: ScriptedServer, known_as: Registry
) -> None:
    listing(server, LIST, reply({"error": "not found"}, 404))
    with make(model="gpt-5") as llm:
        llm.use_registry(known_as)
        assert unknown(llm).hint == "check base_url and the model's name"


def test_request_that_is_made_once_names_the_nearest_too(
    make: Callable[..., ListLLM], server: ScriptedServer
) -> None:
    """As the one that makes an offline batch."""
    listing(server, LIST, reply(UNKNOWN, 400))
    with make(model="gpt-5-minni") as llm, pytest.raises(GenerationError, match="did you mean 'gpt-5-mini'"):
        llm.run_on_loop(llm.request("POST", "batches", b"{}", once=True))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(reply(UNKNOWN, 404), id="the list fails in the same way"),
        pytest.param(reply({"error": "no"}, 401), id="refused"),
        pytest.param(reply({"data": []}), id="empty"),
        pytest.param(reply({"data": [{"id": "gpt-5-minni"}]}), id="it is there"),
        pytest.param(reply([5, None, {"id": 7}]), id="odd"),
        pytest.param(Reply(body=b"<html>"), id="a page"),
        pytest.param(Reply(cut=0), id="dropped"),
    ],
)
def test_list_that_does_not_help_changes_nothing(
    other: Reply, make: Callable[..., ListLLM], server: ScriptedServer
) -> None:
    server.answer = lambda request: other if request.path.endswith("models") else reply(UNKNOWN, 404)
    with make(model="gpt-5-minni", retry_timeout=0) as llm:
        error = unknown(llm)
    assert error.hint == "check the model's name"
    assert "does not exist" in error.message


def test_list_that_takes_long_is_not_waited_for(
    make: Callable[..., ListLLM], server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.http.listing.NEAR_SECONDS", 0.0)
    server.answer = lambda request: (
        Reply(stall=True) if request.path.endswith("models") else reply(UNKNOWN, 404)
    )
    with make(model="gpt-5-minni") as llm:
        assert unknown(llm).hint == "check the model's name"


def test_nobody_is_asked_where_nothing_is_listed_or_the_model_is_not_the_matter(
    make: Callable[..., ListLLM], server: ScriptedServer
) -> None:
    server.answer = lambda _: reply(UNKNOWN, 404)
    with ScriptLLM(model="m", base_url=server.url, api_key="k") as llm:
        unknown(llm)
    assert "/v1/models" not in [request.path for request in server.requests]
    server.requests.clear()
    server.answer = lambda request: reply(LIST if request.path.endswith("models") else {"error": "bad"}, 400)
    with make() as llm, pytest.raises(GenerationError):
        llm.generate_outputs([[{"role": "user", "content": "hello"}]])
    server.answer = lambda _: reply(ANSWER)
    with make() as llm:
        llm.generate_outputs([[{"role": "user", "content": "hello"}]])
    assert "/v1/models" not in [request.path for request in server.requests]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"error": {"message": "The model `m` does not exist or you do not have access to it.", "code": "model_not_found"}}),
        (404, {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-x"}}),
        (404, {"error": "model 'm' not found"}),
        (404, {"error": {"code": 404, "message": "models/m is not found for API version v1beta", "status": "NOT_FOUND"}}),
        (400, {"error": {"message": "Model Not Exist", "code": "invalid_request_error"}}),
        (400, {"object": "error", "message": "Invalid model: m", "type": "invalid_model", "code": "1500"}),
        (400, {"error": {"message": "m is not a valid model ID", "code": 400}}),
        (400, {"error": {"message": "The requested model 'm' is not supported by any provider", "code": "model_not_supported"}}),
        (400, {"error": {"message": "Invalid model 'm'. Permitted models can be found in the documentation.", "type": "invalid_model", "code": 400}}),
        (400, {"error": {"code": "1211", "message": "Unknown Model, please check the model code."}}),
        (400, {"message": "The provided model identifier is invalid."}),
        (404, {"error": {"message": "Unable to access model m.", "code": "model_not_available"}}),
        (410, {"error": {"message": "gone"}}),
        (400, {"error": {"message": "The model `m` has been decommissioned", "code": "model_decommissioned"}}),
        (422, {"detail": "Unknown model: m"}),
    ],
)  # fmt: skip
def test_failure_of_an_unknown_model_is_one(status: int, body: Any) -> None:
    failure = failure_of(status, {}, json.dumps(body).encode())
    assert failure.unknown_model
    assert failure.stops_run
    assert not failure.retried


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "Invalid model parameters: temperature must be below 2"}}),
        (400, {"error": {"message": "this model does not support tools"}}),
        (400, {"error": {"message": "Invalid value for 'model_kwargs'"}}),
        (401, {"error": {"message": "invalid api key"}}),
        (500, {"error": {"message": "model m crashed"}}),
        (503, {"error": {"message": "Model m is currently loading"}}),
    ],
)
def test_other_failures_are_not(status: int, body: Any) -> None:
    assert not failure_of(status, {}, json.dumps(body).encode()).unknown_model


def test_a_copy_of_a_loaded_llm_is_not_made(make: Callable[..., ListLLM], server: ScriptedServer) -> None:
    listing(server, LIST)
    with make() as llm:
        llm.list_models()
        with pytest.raises(TypeError):
            copy.copy(llm)
