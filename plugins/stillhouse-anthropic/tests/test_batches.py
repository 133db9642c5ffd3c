"""Message batches: a job without a name, found again all the same; results of every type."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stillhouse import GenerationError, OfflineBatchNotFinishedError
from stillhouse.offline import BatchLedger, default_path
from stillhouse_anthropic import AnthropicLLM

CHATS = [[{"role": "user", "content": text}] for text in "abc"]


def message(text: str) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1},
    }  # fmt: skip


def errored(kind: str) -> dict[str, Any]:
    inner = {"type": "error", "error": {"type": kind, "message": "no"}, "request_id": "req_9"}
    return {"type": "errored", "error": inner}


class Batches:
    """The provider: batches go on until the test ends them."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []
        self.results: dict[str, bytes] = {}
        self.bodies: dict[str, list[Any]] = {}
        self.paths: list[str] = []
        self.lose: int = 0
        """How many answers to a create are lost after the batch was made."""
        self.hidden = False
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                provider.paths.append(f"GET {self.path}")
                path, _, query = self.path.partition("?")
                parts = path.removeprefix("/v1/messages/batches").strip("/").split("/")
                if parts == [""]:
                    self._list(dict(item.split("=") for item in query.split("&")))
                elif len(parts) == 2:
                    self._send(provider.results[parts[0]])
                else:
                    self._send(next(item for item in provider.batches if item["id"] == parts[0]))

            def _list(self, query: dict[str, str]) -> None:
                newest = [] if provider.hidden else provider.batches[::-1]
                if "after_id" in query:
                    place = [item["id"] for item in newest].index(query["after_id"])
                    newest = newest[place + 1 :]
                page = newest[: min(int(query["limit"]), 2)]
                self._send({"data": page, "has_more": len(newest) > len(page)})

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"] or 0))
                provider.paths.append(f"POST {self.path}")
                if self.path.endswith("/cancel"):
                    batch = next(item for item in provider.batches if item["id"] == self.path.split("/")[4])
                    batch["cancel_initiated_at"] = "2026-01-01T00:00:00Z"
                    provider.end(batch, lambda text: {"type": "canceled"})
                    self._send(batch)
                    return
                made = provider.make(json.loads(raw)["requests"])
                if provider.lose:
                    provider.lose -= 1
                    self.close_connection = True
                else:
                    self._send(made)

            def _send(self, content: Any) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def make(self, requests: list[Any]) -> dict[str, Any]:
        counts = {"processing": len(requests), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        batch = {
            "id": f"msgbatch_{len(self.batches)}", "type": "message_batch", "processing_status": "in_progress",
            "request_counts": counts, "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z",
        }  # fmt: skip
        self.batches.append(batch)
        self.bodies[batch["id"]] = requests  # type: ignore[index]
        return batch

    def end(self, batch: dict[str, Any], outcome: Callable[[str], dict[str, Any]] | None = None) -> None:
        lines = []
        counts = dict.fromkeys(batch["request_counts"], 0)
        for request in reversed(self.bodies[batch["id"]]):
            text = request["params"]["messages"][-1]["content"]
            result = outcome(text) if outcome else {"type": "succeeded", "message": message(text.upper())}
            counts[result["type"]] += 1
            lines.append(json.dumps({"custom_id": request["custom_id"], "result": result}).encode())
        self.results[batch["id"]] = b"\n".join(lines)
        batch |= {"processing_status": "ended", "request_counts": counts}

    def end_all(self, outcome: Callable[[str], dict[str, Any]] | None = None) -> None:
        for batch in self.batches:
            if batch["processing_status"] == "in_progress":
                self.end(batch, outcome)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(autouse=True)
def quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("stillhouse.offline.sending.SETTLE_SECONDS", 0.0)


@pytest.fixture
def provider() -> Iterator[Batches]:
    batches = Batches()
    yield batches
    batches.close()


@pytest.fixture
def llm(provider: Batches) -> Iterator[AnthropicLLM]:
    with AnthropicLLM(model="m", base_url=provider.url, api_key="k") as loaded:
        yield loaded


def submit(llm: AnthropicLLM, inputs: Any = CHATS, **arguments: Any) -> None:
    with pytest.raises(OfflineBatchNotFinishedError):
        llm.offline_batch_generate(inputs, **arguments)


def texts(outputs: Any) -> list[Any]:
    return [output and output["generations"] for output in outputs]


def test_message_batch_is_submitted_and_its_results_are_collected(
    llm: AnthropicLLM, provider: Batches
) -> None:
    submit(llm, num_generations=2, temperature=0.5)
    requests = provider.bodies["msgbatch_0"]
    assert [request["params"]["messages"][0]["content"] for request in requests] == list("aabbcc")
    assert requests[0]["params"]["temperature"] == 0.5
    assert requests[0]["params"]["max_tokens"] == 4096
    submit(llm, num_generations=2, temperature=0.5)
    provider.end_all()
    outputs = llm.offline_batch_generate(CHATS, num_generations=2, temperature=0.5)
    assert texts(outputs) == [["A", "A"], ["B", "B"], ["C", "C"]]
    assert outputs[0]["statistics"] == {"input_tokens": [3, 3], "output_tokens": [1, 1]}
    assert len(provider.batches) == 1


def test_every_type_of_result(llm: AnthropicLLM, provider: Batches) -> None:
    submit(llm)
    outcomes = {
        "a": {"type": "expired"},
        "b": errored("invalid_request_error"),
        "c": errored("overloaded_error"),
    }
    provider.end_all(outcomes.__getitem__)
    submit(llm)
    again = [request["params"]["messages"][0]["content"] for request in provider.bodies["msgbatch_1"]]
    assert again == ["a", "c"]
    provider.end_all()
    with pytest.raises(GenerationError, match="number 1: status 400: no") as caught:
        llm.offline_batch_generate(CHATS)
    assert (caught.value.kind, caught.value.request_id) == ("invalid_request", "req_9")
    assert texts(caught.value.outputs) == [["A"], None, ["C"]]


def test_batch_with_a_lost_response_is_found_by_the_ids_in_its_results(
    llm: AnthropicLLM, provider: Batches
) -> None:
    provider.make(
        [{"custom_id": "old", "params": {"messages": CHATS[0]}}] * 3
    )  # older, so that it is none of ours
    provider.lose = 1
    submit(llm)
    assert llm.jobs_ids is None
    (chunk,) = ledger_chunks()
    assert (chunk.state, chunk.job, chunk.input_file) == ("uploaded", "", "msgbatch_0")
    # Somebody else's, as large as ours, makes no difference; nor does one of another size.
    foreign = provider.make([{"custom_id": f"x-{n}", "params": {"messages": CHATS[0]}} for n in range(3)])
    provider.make([{"custom_id": "y", "params": {"messages": CHATS[0]}}])
    submit(llm)
    provider.end(foreign)
    submit(llm)
    assert ledger_chunks()[0].state == "uploaded"
    provider.end_all()
    assert texts(llm.offline_batch_generate(CHATS)) == [["A"], ["B"], ["C"]]
    assert sum(path == "POST /v1/messages/batches" for path in provider.paths) == 1


def ledger_chunks() -> list[Any]:
    with BatchLedger(default_path()) as ledger:
        (key,) = [key for (key,) in ledger._rows("SELECT key FROM batch_runs")]
        return ledger.chunks(key)


def test_batch_creation_is_retried_when_no_batch_was_created(
    llm: AnthropicLLM, provider: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.lose = 1
    monkeypatch.setattr(
        provider, "make", lambda requests, make=provider.make: {} if provider.lose else make(requests)
    )
    submit(llm)
    assert [batch["id"] for batch in provider.batches] == ["msgbatch_0"]
    assert llm.jobs_ids == ("msgbatch_0",)


def test_cancel_offline_batch_makes_no_second_batch(llm: AnthropicLLM, provider: Batches) -> None:
    submit(llm)
    llm.cancel_offline_batch()
    with pytest.raises(GenerationError, match="cancelled"):
        llm.offline_batch_generate(CHATS)
    assert len(provider.batches) == 1


def test_archived_batch_results_are_an_error_and_not_generated_again(
    llm: AnthropicLLM, provider: Batches
) -> None:
    submit(llm)
    provider.end_all()
    provider.batches[0]["archived_at"] = "2026-02-01T00:00:00Z"
    with pytest.raises(GenerationError, match="kept no longer"):
        llm.offline_batch_generate(CHATS)
    assert len(provider.batches) == 1


def test_batch_requests_and_results_validate_against_the_sdk_types(
    llm: AnthropicLLM, provider: Batches
) -> None:
    types = pytest.importorskip("anthropic.types.messages")
    from pydantic import TypeAdapter

    submit(llm, max_new_tokens=5, stop=["x"])
    TypeAdapter(types.batch_create_params.BatchCreateParams).validate_python(
        {"requests": provider.bodies["msgbatch_0"]}
    )
    types.MessageBatch.model_validate(provider.batches[0])
    for result in (
        {"type": "expired"},
        {"type": "canceled"},
        errored("api_error"),
        {"type": "succeeded", "message": message("a")},
    ):
        line = {"custom_id": "sh-1-0-0", "result": result}
        found = types.MessageBatchIndividualResponse.model_validate(line)
        ours = llm.batch_result(line)
        assert (ours.answer is not None) == (found.result.type == "succeeded")


def test_offline_batch_runs_end_to_end_against_a_mock_server(
    llmock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmock.routers.batch._BATCH_DELAY", 0.0)
    fields = {"model": "m", "base_url": llmock.base_url("anthropic"), "api_key": "key"}
    with AnthropicLLM(
        **fields, use_offline_batch_generation=True, offline_batch_generation_block_until_done=0
    ) as llm:
        outputs = llm.generate_outputs(CHATS, num_generations=2)
    assert [len(output["generations"]) for output in outputs] == [2, 2, 2]
    assert all(all(output["generations"]) for output in outputs)


def test_a_message_that_is_an_error_fails_as_it_does_online(llm: AnthropicLLM) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    failure = llm.batch_result({"custom_id": "x", "result": {"type": "succeeded", "message": error}}).failure
    assert failure is not None
    assert failure == llm.failure_in(error, {})
    assert failure.retried
