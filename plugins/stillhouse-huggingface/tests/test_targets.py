"""Whom it asks: the router, an endpoint by name that may be starting, or an address; and with which key."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError
from stillhouse.testing import Reply
from stillhouse_huggingface import InferenceEndpointsLLM
from stillhouse_huggingface.addresses import api_of, is_of_hugging_face, root_of
from stillhouse_huggingface.tokens import saved_token

CHAT: list[Any] = [{"role": "user", "content": "Name a river."}]


@pytest.mark.parametrize(
    ("given", "api", "root"),
    [
        ("https://h", "https://h/v1", "https://h"),
        ("https://h/", "https://h/v1", "https://h"),
        ("https://h/v1", "https://h/v1", "https://h"),
        ("https://h/v1/", "https://h/v1", "https://h"),
        ("https://h/v1/chat/completions", "https://h/v1", "https://h"),
        ("https://h/v1/chat/completions/", "https://h/v1", "https://h"),
        ("https://h/generate", "https://h/v1", "https://h"),
        ("https://h/v1/models", "https://h/v1", "https://h"),
        ("https://h/tgi/v1", "https://h/tgi/v1", "https://h/tgi"),
        ("https://h/tgi", "https://h/tgi/v1", "https://h/tgi"),
        ("https://h/v3/openai/chat/completions", "https://h/v3/openai", "https://h/v3/openai"),
        ("https://h/v1?a=b", "https://h/v1?a=b", "https://h?a=b"),
        ("https://u:p@h:8080//", "https://u:p@h:8080/v1", "https://u:p@h:8080"),
    ],
)
def test_address_is_taken_in_every_form(given: str, api: str, root: str) -> None:
    assert api_of(given) == api
    assert root_of(api) == root


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/v1/chat/completions", "/v1/chat/completions/"])
def test_every_form_of_an_address_reaches_the_one_path(make: Any, site: Any, ending: str) -> None:
    (output,) = make(base_url=f"{site.origin}{ending}", model="m").generate_outputs([CHAT])
    assert output["generations"] == ["The Ucayali."]
    assert site.paths == ["/v1/chat/completions"]


def test_not_found_names_the_address(make: Any, site: Any) -> None:
    del site.pages["/v1/chat/completions"]
    with pytest.raises(GenerationError, match=r"status 404 at http://127\.0\.0\.1:\d+/v1") as caught:
        make(model="m").generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.stops_run) == ("invalid_request", True)


def test_router_is_asked_with_the_model_and_the_payer(
    site: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InferenceEndpointsLLM, "default_base_url", f"{site.origin}/v1")
    llm = make(base_url=None, model="org/name:together", bill_to="my-company")
    llm.generate_outputs([CHAT], max_new_tokens=5, top_k=3, num_generations=1)
    assert site.paths == ["/v1/chat/completions"]
    assert site.body() == {"model": "org/name:together", "messages": CHAT, "max_tokens": 5, "top_k": 3}
    headers = site.server.requests[-1].headers
    assert (headers["x-hf-bill-to"], headers["authorization"]) == ("my-company", "Bearer hf_explicit")


def test_router_is_at_its_own_address() -> None:
    assert InferenceEndpointsLLM(model="org/name").api_url == "https://router.huggingface.co/v1"


def test_router_needs_a_model_and_a_key() -> None:
    with pytest.raises(ConfigurationError, match="requires a model"):
        InferenceEndpointsLLM().load()
    with pytest.raises(ConfigurationError, match="needs an API key") as caught:
        InferenceEndpointsLLM(model="org/name").load()
    assert "HF_TOKEN" in caught.value.hint
    assert "hf auth login" in caught.value.hint


def test_only_one_target_is_given() -> None:
    with pytest.raises(ConfigurationError, match="endpoint_name"):
        InferenceEndpointsLLM(base_url="http://h", endpoint_name="e").load()


class TestEndpointByName:
    @pytest.fixture(autouse=True)
    def hub(self, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("stillhouse_huggingface.endpoints.API", f"{site.origin}/v2")
        monkeypatch.setattr("stillhouse_huggingface.endpoints.HUB", f"{site.origin}/api")
        site.pages["/api/whoami-v2"] = {"type": "user", "name": "me"}
        self.site = site

    def found(self, state: str, message: str = "", **status: Any) -> dict[str, Any]:
        url = {"url": self.site.origin} if state in ("running", "scaledToZero", "updating") else {}
        return {
            "name": "e", "type": "protected", "model": {"repository": "org/name", "framework": "pytorch"},
            "status": {"state": state, "message": message, **url, **status},
        }  # fmt: skip

    def make(self, **fields: Any) -> InferenceEndpointsLLM:
        return InferenceEndpointsLLM(**{"endpoint_name": "e", "api_key": "hf_explicit", **fields})

    def test_it_is_looked_up_and_asked(self) -> None:
        self.site.pages["/v2/endpoint/me/e"] = self.found("running")
        self.site.pages["/v1/models"] = {"object": "list", "data": [{"id": "served-name"}]}
        with self.make() as llm:
            (output,) = llm.generate_outputs([CHAT])
            assert llm.api_url == f"{self.site.origin}/v1"
        assert output["generations"] == ["The Ucayali."]
        assert self.site.body()["model"] == "served-name"
        assert self.site.paths == [
            "/api/whoami-v2", "/v2/endpoint/me/e", "/info", "/v1/models", "/v1/chat/completions",
        ]  # fmt: skip
        assert {request.headers["authorization"] for request in self.site.server.requests} == {
            "Bearer hf_explicit"
        }

    def test_a_namespace_is_not_looked_up_and_names_stay_in_the_path(self) -> None:
        self.site.pages["/v2/endpoint/org/..%2Fe"] = self.found("running")
        self.site.pages["/v2/endpoint/org/%2E%2E%2Fe"] = self.found("running")
        with self.make(endpoint_name="../e", endpoint_namespace="org", model="m", api="openai"):
            pass
        assert [path for path in self.site.paths if "endpoint" in path] == self.site.paths
        assert "/v2/endpoint/org/" in self.site.paths[0]

    def test_it_is_waited_for_while_it_starts(self, at_once: None, caplog: pytest.LogCaptureFixture) -> None:
        self.site.pages["/v2/endpoint/me/e"] = [
            self.found(state) for state in ("pending", "initializing", "initializing", "updating", "running")
        ]
        with caplog.at_level(logging.WARNING), self.make(model="m", api="openai"):
            pass
        told = [record.message for record in caplog.records]
        assert len(told) == 3
        assert "me/e is pending; waiting at most 900 s" in told[0]
        assert caplog.records[0].name == "stillhouse.llm.m"

    @pytest.mark.parametrize("state", ["pending", "initializing", "updating", "newWord", "running"])
    def test_the_wait_has_an_end(self, at_once: None, state: str) -> None:
        self.site.pages["/v2/endpoint/me/e"] = self.found(state, url=None)
        with pytest.raises(ConfigurationError, match=f"is {state} after 0 s") as caught:
            self.make(start_timeout=0).load()
        assert "start_timeout" in caught.value.hint

    @pytest.mark.parametrize(
        ("state", "said"),
        [("paused", "is paused"), ("failed", "has failed"), ("updateFailed", "failed to update")],
    )
    def test_one_that_does_not_run_is_an_error(self, state: str, said: str) -> None:
        self.site.pages["/v2/endpoint/me/e"] = self.found(state, "Out\nof memory")
        with pytest.raises(ConfigurationError, match=f"me/e {said}: Out of memory") as caught:
            self.make().load()
        assert "endpoints.huggingface.co" in caught.value.hint

    def test_one_that_is_scaled_to_zero_is_woken_by_a_request(
        self, at_once: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.site.pages["/v2/endpoint/me/e"] = self.found("scaledToZero")
        asleep = Reply(503, {"error": "Service Unavailable", "estimated_time": 300.0})
        self.site.pages["/info"] = [asleep, Reply(502, b""), asleep, {"model_id": "org/name"}]
        with caplog.at_level(logging.WARNING), self.make() as llm:
            llm.generate_outputs([CHAT])
        assert self.site.body()["model"] == "tgi"
        assert self.site.paths.count("/info") == 4

    def test_waking_has_an_end(self, at_once: None) -> None:
        self.site.pages["/v2/endpoint/me/e"] = self.found("scaledToZero")
        self.site.pages["/info"] = Reply(503, b"")
        with pytest.raises(ConfigurationError, match="not answering"):
            self.make(start_timeout=0).load()

    def test_one_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match="me/e cannot be looked up") as caught:
            self.make().load()
        assert "endpoint_namespace" in caught.value.hint

    @pytest.mark.parametrize("who", [{"type": "org", "name": "o"}, {}, [], {"type": "user", "name": 5}])
    def test_a_token_of_no_user_wants_a_namespace(self, who: Any) -> None:
        self.site.pages["/api/whoami-v2"] = Reply(200, who)
        with pytest.raises(ConfigurationError, match="namespace"):
            self.make().load()

    def test_a_wrong_key_is_told(self) -> None:
        self.site.pages["/api/whoami-v2"] = Reply(
            401, {"error": "Invalid credentials in Authorization header"}
        )
        with pytest.raises(GenerationError) as caught:
            self.make().load()
        assert caught.value.kind == "authentication"
        assert "hf_explicit" not in str(caught.value)

    def test_a_key_is_needed(self) -> None:
        with pytest.raises(ConfigurationError, match="needs an API key"):
            InferenceEndpointsLLM(endpoint_name="e").load()
        assert not self.site.paths

    def test_it_can_be_loaded_again_and_pickled(self) -> None:
        self.site.pages["/v2/endpoint/me/e"] = self.found("running")
        llm = self.make(model="m")
        for _ in range(2):
            with llm:
                llm.generate_outputs([CHAT])
        again = pickle.loads(pickle.dumps(llm))
        assert again == llm
        with again:
            again.generate_outputs([CHAT])

    @pytest.mark.parametrize(
        "page",
        [
            [],
            {},
            {"status": None},
            {"status": {"state": 5, "url": "u"}},
            {"status": {"state": "running", "url": 5}},
        ],
    )
    def test_an_odd_state_is_one_that_is_not_running(self, at_once: None, page: Any) -> None:
        self.site.pages["/v2/endpoint/me/e"] = Reply(200, page)
        with pytest.raises(ConfigurationError, match="after 0 s"):
            self.make(start_timeout=0).load()


@pytest.mark.parametrize(
    ("info", "model", "sent"),
    [
        ({"model_id": "org/name"}, "", "tgi"),
        ({"model_id": "org/name"}, "org/name", "tgi"),
        ({"model_id": "org/name"}, "an-adapter", "an-adapter"),
        (Reply(200, b"<html>welcome</html>"), "m", "m"),
        (Reply(200, b"OK"), "m", "m"),
        (Reply(200, {"version": 1}), "m", "m"),
        (Reply(200, {"model_id": None}), "m", "m"),
        (Reply(401, {"error": "no"}), "m", "m"),
        (Reply(500, {"error": "no"}), "m", "m"),
        (Reply(404, b""), "", "first"),
    ],
)
def test_server_is_asked_what_it_is(make: Any, site: Any, info: Any, model: str, sent: str) -> None:
    site.pages["/info"] = info
    site.pages["/v1/models"] = {"data": [{"id": "first"}, {"id": "second"}]}
    make(model=model).generate_outputs([CHAT])
    assert site.body()["model"] == sent


def test_server_is_not_asked_where_it_is_said(site: Any) -> None:
    with InferenceEndpointsLLM(base_url=site.origin, model="m", api="openai"):
        assert not site.paths


def test_server_that_cannot_be_reached_is_told_at_once(at_once: None) -> None:
    with pytest.raises(GenerationError) as caught:
        InferenceEndpointsLLM(base_url="http://127.0.0.1:9", start_timeout=0).load()
    assert caught.value.kind == "connection"


# Keys


@pytest.mark.parametrize(
    ("address", "is_own"),
    [
        ("https://router.huggingface.co/v1", True),
        ("https://huggingface.co/api", True),
        ("https://HuggingFace.co:443/", True),
        ("https://abc.us-east-1.aws.endpoints.huggingface.cloud", True),
        ("https://endpoints.huggingface.cloud.evil.example", False),
        ("https://evilhuggingface.co", False),
        ("https://huggingface.co.evil.example/huggingface.co", False),
        ("https://evil.example/?a=.huggingface.co", False),
        ("https://huggingface.co@evil.example", False),
        ("https://me-space.hf.space", False),
        ("https://huggingface.cloud", False),
        ("http://router.huggingface.co/v1", False),
        ("http://127.0.0.1:8080", False),
        ("http://localhost", False),
        ("https://[::1", False),
        ("", False),
    ],
)
def test_saved_token_goes_to_hugging_face_alone(
    address: str, is_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_saved")
    assert is_of_hugging_face(address) is is_own
    if address:
        assert InferenceEndpointsLLM(base_url=address).configured_api_key() == ("hf_saved" if is_own else "")


def test_saved_token_is_not_sent_elsewhere_and_the_error_says_so(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_saved")
    site.pages["/v1/chat/completions"] = Reply(401, {"error": "Unauthorized"})
    with (
        InferenceEndpointsLLM(base_url=site.origin, model="m") as llm,
        pytest.raises(GenerationError) as caught,
    ):
        llm.generate_outputs([CHAT])
    assert all("authorization" not in request.headers for request in site.server.requests)
    assert "set api_key" in caught.value.hint


def test_explicit_key_goes_to_the_explicit_address(make: Any, site: Any) -> None:
    make(model="m").generate_outputs([CHAT])
    assert site.server.requests[-1].headers["authorization"] == "Bearer hf_explicit"


def test_key_does_not_follow_a_redirect(make: Any, site: Any) -> None:
    site.pages["/v1/chat/completions"] = Reply(307, b"", {"location": f"{site.origin}/elsewhere"})
    with pytest.raises(GenerationError, match="redirects"):
        make(model="m").generate_outputs([CHAT])
    assert site.paths == ["/v1/chat/completions"]


def test_token_is_found_where_the_tools_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(path: Path, token: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"  {token}\n")

    assert saved_token() == ""
    save(tmp_path / "cache" / "huggingface" / "token", "of-cache")
    save(tmp_path / "home" / "token", "of-home")
    save(tmp_path / "file", "of-file")
    monkeypatch.delenv("HF_TOKEN_PATH")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert saved_token() == "of-cache"
    monkeypatch.setenv("PLACE", str(tmp_path))
    monkeypatch.setenv("HF_HOME", "$PLACE/home")
    assert saved_token() == "of-home"
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "file"))
    assert saved_token() == "of-file"
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "of-old")
    assert saved_token() == "of-old"
    monkeypatch.setenv("HF_TOKEN", " of-variable\n")
    assert saved_token() == "of-variable"
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert saved_token() == ""


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_file_that_is_no_token_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "odd"
    path.mkdir() if content is None else path.write_bytes(content)  # type: ignore[func-returns-value]
    monkeypatch.setenv("HF_TOKEN_PATH", str(path))
    assert saved_token() == ""


# The list of models


def test_models_of_the_router_are_listed_with_their_providers(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InferenceEndpointsLLM, "default_base_url", f"{site.origin}/v1")
    site.pages["/v1/models"] = {
        "object": "list",
        "data": [
            {
                "id": "org/name", "object": "model", "created": 1730000000, "owned_by": "org",
                "providers": [
                    {"provider": "together", "status": "live", "context_length": 131072,
                     "pricing": {"input": 0.27, "output": 0.85}, "supports_tools": True},
                    {"provider": "gone", "status": "error", "context_length": 1},
                    {"provider": "hf-inference", "status": "live", "pricing": {"input": "?", "output": True}},
                    "odd",
                ],
            },
            {"id": None}, "odd",
            {"id": "served", "max_model_len": 4096},
        ],
    }  # fmt: skip
    assert InferenceEndpointsLLM(model="m", api_key="k").list_models() == [
        {"name": "org/name", "created": "2024-10-27T03:33:20Z"},
        {"name": "org/name:together", "created": "2024-10-27T03:33:20Z", "context_length": 131072, "input_price": 0.27,
         "output_price": 0.85},
        {"name": "org/name:hf-inference", "created": "2024-10-27T03:33:20Z"},
        {"name": "served", "context_length": 4096},
    ]  # fmt: skip
