"""Offline batches: uploads, results, and end-to-end runs against a mock of the API."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from stillhouse import GenerationError, OfflineBatchNotFinishedError, UnsupportedError
from stillhouse.offline import Chunk, Rows
from stillhouse_openai import AzureOpenAILLM, ClientvLLM, GroqLLM, OpenAILLM, TogetherLLM

CHAT = [{"role": "user", "content": "hello"}]
CHUNK = Chunk(
    "sh-1", 0, 0, "uploaded", "OpenAILLM", "chat/completions", Rows([0]), input_file="file-1", job="batch_1"
)


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))


def job(**fields: Any) -> dict[str, Any]:
    return {"id": "batch_1", "object": "batch", "status": "in_progress", "created_at": 1, **fields}


def answered(**fields: Any) -> dict[str, Any]:
    body = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "fine"}}]}
    return {
        "custom_id": "x",
        "response": {"status_code": 200, "request_id": "r", "body": body},
        "error": None,
        **fields,
    }


def submit(server: Any, llm: Any, inputs: Any = (CHAT,), **arguments: Any) -> list[dict[str, Any]]:
    """The lines of the file that goes up."""
    with llm, pytest.raises(OfflineBatchNotFinishedError) as caught:
        llm.offline_batch_generate(list(inputs), **arguments)
    assert caught.value.jobs_ids == ("batch_1",)
    upload = server.bodies[0]
    return [json.loads(line) for line in upload.splitlines() if line.startswith('{"custom_id"')]


def test_openai_batch_is_uploaded_created_and_read(make: Any, server: Any) -> None:
    server.script = [{"id": "file-1", "status": "processed"}, job()]
    (line,) = submit(server, make(), num_generations=2, max_new_tokens=5, seed=3)
    assert server.paths == ["/v1/files", "/v1/batches"]
    assert 'name="purpose"\r\n\r\nbatch\r\n' in server.bodies[0]
    body = {"model": "m", "messages": CHAT, "n": 2, "max_completion_tokens": 5, "seed": 3}
    assert (line["method"], line["url"], line["body"]) == ("POST", "/v1/chat/completions", body)
    created = server.bodies[1]
    assert created["metadata"]["stillhouse_chunk"] == line["custom_id"].rsplit("-", 2)[0]
    del created["metadata"]
    assert created == {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }


def test_raw_prompts_and_chats_are_different_jobs(make: Any, server: Any) -> None:
    server.script = [{"id": "file-1"}, job(id="batch_0"), {"id": "file-2"}, job()]
    llm = make()
    with llm, pytest.raises(OfflineBatchNotFinishedError):
        llm.offline_batch_generate([CHAT, "raw", CHAT, "raw"])
    assert [server.bodies[number]["endpoint"] for number in (1, 3)] == [
        "/v1/chat/completions",
        "/v1/completions",
    ]
    assert server.bodies[2].count('"prompt":"raw"') == 2


def test_batch_lines_for_the_responses_api(make: Any, server: Any) -> None:
    server.script = [{"id": "file-1"}, job()]
    lines = submit(server, make(api="responses"), num_generations=2, max_new_tokens=5)
    assert [line["url"] for line in lines] == ["/v1/responses"] * 2
    assert lines[0]["body"]["max_output_tokens"] == 5
    assert server.bodies[1]["endpoint"] == "/v1/responses"
    answer = {
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "fine"}]}],
        "status": "completed",
    }
    assert make(api="responses").batch_answer(answer, "responses")["generations"] == ["fine"]


def test_groq_batch_has_one_line_per_generation(server: Any) -> None:
    server.script = [{"id": "file-1"}, job()]
    lines = submit(server, GroqLLM(model="m", base_url=server.origin, api_key="k"), num_generations=3)
    assert server.paths == ["/openai/v1/files", "/openai/v1/batches"]
    assert [line["custom_id"].rsplit("-", 1)[1] for line in lines] == ["0", "1", "2"]
    assert {line["url"] for line in lines} == {"/v1/chat/completions"}
    assert "n" not in lines[0]["body"]


def test_together_batch_has_its_own_upload_path_and_line_format(server: Any) -> None:
    server.script = [{"id": "file-1"}, {"job": job(status="VALIDATING")}]
    llm = TogetherLLM(model="m", base_url=server.origin, api_key="k")
    (line,) = submit(server, llm, max_new_tokens=5, top_k=4)
    assert server.paths == ["/v1/files/upload", "/v1/batches"]
    assert set(line) == {"custom_id", "body"}
    assert line["body"] == {"model": "m", "messages": CHAT, "max_tokens": 5, "top_k": 4}
    assert 'name="purpose"\r\n\r\nbatch-api\r\n' in server.bodies[0]
    assert 'name="file_type"\r\n\r\njsonl\r\n' in server.bodies[0]
    assert "metadata" not in server.bodies[1]
    with llm, pytest.raises(UnsupportedError):
        llm.batch_request("raw", 1, {})


@pytest.mark.parametrize(
    ("base", "folder"),
    [("", "/openai"), ("/openai/v1", "/openai/v1"), ("/openai/deployments/m", "/openai")],
)
def test_azure_batch_waits_until_its_file_is_processed(
    server: Any, base: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse_openai.azure._FILE_SECONDS", 0.0)
    server.script = [
        {"id": "file-1", "status": "pending"},
        {"status": "pending"},
        {"status": "processed"},
        job(),
    ]
    llm = AzureOpenAILLM(model="m", base_url=server.origin + base, api_key="k", api_version="2024-10-21")
    (line,) = submit(server, llm)
    assert line["url"] == "/chat/completions"
    assert line["body"]["model"] == "m"
    names = ["files", "files/file-1", "files/file-1", "batches"]
    assert server.paths == [f"{folder}/{name}?api-version=2024-10-21" for name in names]


def test_a_file_that_azure_refuses(server: Any) -> None:
    server.script = [{"id": "file-1"}, {"status": "error", "status_details": "line 3 is bad"}]
    llm = AzureOpenAILLM(model="m", base_url=server.origin, api_key="k", api_version="2024-10-21")
    with llm, pytest.raises(GenerationError, match="line 3 is bad"):
        llm.offline_batch_generate([CHAT])


def test_offline_batch_capability_by_class() -> None:
    assert all(
        "offline_batch" in one.capabilities for one in (OpenAILLM, AzureOpenAILLM, GroqLLM, TogetherLLM)
    )
    assert "offline_batch" not in ClientvLLM.capabilities
    with ClientvLLM(model="m", base_url="http://localhost:1/v1") as llm, pytest.raises(UnsupportedError):
        llm.offline_batch_generate([CHAT])


# What comes back


def result(line: dict[str, Any]) -> Any:
    return OpenAILLM(model="m").batch_result(line)


@pytest.mark.parametrize(
    ("line", "kind", "again"),
    [
        ({"error": {"code": "batch_expired", "message": "m"}, "response": None}, "timeout", True),
        ({"error": {"code": "invalid_json", "message": "m"}, "response": None}, "invalid_request", False),
        ({"response": {"status_code": 429, "body": {"error": {"message": "m"}}}}, "rate_limit", True),
        ({"response": {"status_code": 500, "request_id": "r", "body": None}}, "server", True),
        ({"response": {"status_code": 400, "body": {"error": {"message": "m", "code": "context_length_exceeded"}}}}, "context_length", False),
        ({"response": {"status_code": 429, "body": {"error": {"code": "insufficient_quota", "message": "m"}}}}, "rate_limit", False),
        ({"response": {"status_code": 200, "request_id": "r", "body": None}}, "server", True),
        ({"response": {"status_code": 200, "body": {"error": {"message": "m", "code": 429}}}}, "rate_limit", True),
        ({"response": {"status_code": 200, "body": {"choices": [{"finish_reason": "error"}]}}}, "server", True),
        ({}, "invalid_request", False),
    ],
)  # fmt: skip
def test_a_failed_request(line: dict[str, Any], kind: str, again: bool) -> None:
    failure = result({"custom_id": "x", "error": None, **line}).failure
    assert (failure.kind, failure.retried) == (kind, again)


def test_a_request_that_was_cancelled_is_no_failure() -> None:
    found = result({"custom_id": "x", "error": {"code": "batch_cancelled", "message": "m"}, "response": None})
    assert (found.answer, found.failure) == (None, None)


@pytest.mark.parametrize(
    ("fields", "state", "kind"),
    [
        ({"status": "finalizing"}, "created", None),
        ({"status": "cancelling"}, "created", None),
        ({"status": "completed", "output_file_id": "o", "error_file_id": "e"}, "finished", None),
        ({"status": "expired", "output_file_id": "o"}, "expired", None),
        ({"status": "COMPLETED", "output_file_id": "o"}, "finished", None),
        ({"status": "failed", "errors": {"data": [{"code": "token_limit_exceeded", "message": "m"}]}}, "failed", "rate_limit"),
        ({"status": "failed", "errors": {"data": [{"code": "invalid_json_line", "message": "m", "line": 1}]}}, "failed", "invalid_request"),
        ({"status": "FAILED", "error": "no such model"}, "failed", "invalid_request"),
        ({"status": "failed", "errors": None}, "failed", "invalid_request"),
    ],
)  # fmt: skip
def test_the_states_of_a_job(fields: dict[str, Any], state: str, kind: str | None) -> None:
    found = OpenAILLM(model="m")._job(job(**fields))
    assert found.state == state
    assert (found.failure and found.failure.kind) == kind
    assert found.result_files == tuple(
        fields[name] for name in ("output_file_id", "error_file_id") if name in fields
    )


def test_a_job_is_found_on_a_later_page_by_its_name_or_its_file(make: Any, server: Any) -> None:
    def page(*jobs: dict[str, Any], more: bool = False) -> dict[str, Any]:
        return {"data": list(jobs), "has_more": more}

    recent = {"created_at": CHUNK.sent_at, "metadata": None}
    others = [job(id=f"batch_x{number}", **recent) for number in range(2)]
    with make() as llm:
        for found in (job(metadata={"stillhouse_chunk": "sh-1"}), job(input_file_id="file-1")):
            server.paths.clear()
            server.script = [page(*others, more=True), page(found)]
            assert llm.run_on_loop(llm.find_batch(CHUNK, set())).id == "batch_1"
            assert server.paths == ["/v1/batches?limit=100", "/v1/batches?limit=100&after=batch_x1"]
        server.script = [page(*others)]
        assert llm.run_on_loop(llm.find_batch(CHUNK, set())) is None
        full = {"data": [job(id=f"batch_{number}x") for number in range(100)]}
        server.script = [full, full]  # it does not say whether there is more, and has but one page
        assert llm.run_on_loop(llm.find_batch(CHUNK, set())) is None
        assert server.script == []
        server.script = [full, {"data": [job(input_file_id="file-1")]}]
        assert llm.run_on_loop(llm.find_batch(CHUNK, set())).id == "batch_1"


def test_unreadable_create_response_makes_the_job_be_looked_up(make: Any, server: Any) -> None:
    server.script = [{"id": "file-1"}, {"what": "is this"}, {"data": [job(input_file_id="file-1")]}]
    submit(server, make())
    assert server.paths == ["/v1/files", "/v1/batches", "/v1/batches?limit=100"]


def test_together_lists_its_jobs_without_pages(server: Any) -> None:
    with TogetherLLM(model="m", base_url=server.origin, api_key="k") as llm:
        server.script = [
            [job(created_at="1970-01-01T00:00:00Z", input_file_id="file-1", status="IN_PROGRESS")]
        ]
        assert llm.run_on_loop(llm.find_batch(CHUNK, set())).id == "batch_1"


def test_batch_lines_validate_against_the_sdk_types(make: Any, server: Any) -> None:
    pytest.importorskip("openai")
    from openai.types import BatchCreateParams
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
    from pydantic import TypeAdapter

    server.script = [{"id": "file-1"}, job()]
    (line,) = submit(server, make(), temperature=0.5, stop=["a"], max_new_tokens=5)
    TypeAdapter(CompletionCreateParamsNonStreaming).validate_python(line["body"])
    TypeAdapter(BatchCreateParams).validate_python(server.bodies[1])
    assert set(server.bodies[1]) <= set(BatchCreateParams.__annotations__)


# The whole way


@pytest.fixture
def mocked(llmock: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    batch = pytest.importorskip("llmock.routers.batch")
    monkeypatch.setattr(batch, "_BATCH_DELAY", 0.0)
    # It does not close what was uploaded to it, and would fail a later test when that is collected.
    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", lambda **_: io.BytesIO())
    batch._batches.clear()
    batch._files.clear()
    return llmock


@pytest.mark.parametrize(("cls", "provider"), [(OpenAILLM, "openai"), (GroqLLM, "groq")])
def test_offline_batch_runs_end_to_end_for_every_provider(mocked: Any, cls: Any, provider: str) -> None:
    inputs = [[{"role": "user", "content": f"Question {number}"}] for number in range(5)]
    fields = {"model": "m", "base_url": mocked.base_url(provider), "api_key": "key"}
    with cls(**fields, use_offline_batch_generation=True, offline_batch_generation_block_until_done=0) as llm:
        outputs = llm.generate_outputs(inputs, num_generations=2)
        assert llm.jobs_ids is None
    assert [len(output["generations"]) for output in outputs] == [2] * 5
    assert all(all(output["generations"]) for output in outputs)
    assert outputs[0]["statistics"]["output_tokens"][0] > 0


def test_another_llm_object_resumes_the_same_job(mocked: Any) -> None:
    from llmock.routers import batch

    with OpenAILLM(model="m", base_url=mocked.base_url("openai"), api_key="key") as llm:
        with pytest.raises(OfflineBatchNotFinishedError):
            llm.offline_batch_generate([CHAT])
        with llm.__class__(model="m", base_url=mocked.base_url("openai"), api_key="key") as other:
            assert len(other.offline_batch_generate([CHAT])) == 1
    assert len(batch._batches) == 1


@pytest.mark.parametrize("odd", ["x", 5, True, [1], {}, {"a": 1}, 1e308, None, "\x1b[2J"])
def test_no_part_of_a_line_or_a_job_is_trusted(make: Any, odd: Any) -> None:
    llm = make()
    for line in (answered(response=odd), answered(error=odd), answered(response={"status_code": odd})):
        result = llm.batch_result(line)
        assert result.answer is None or line["error"] in (None, {})
    for name in ("status", "request_counts", "output_file_id", "error_file_id", "errors", "error"):
        for status in ("completed", "failed", "in_progress"):
            made = llm._job(job(**{"status": status, name: odd}))
            assert "\x1b" not in made.provider_state
            assert all(type(count) is int for count in made.counts.values())
            assert all(isinstance(file, str) and file.isprintable() for file in made.result_files)
            assert made.failure is None or "\x1b" not in made.failure.message


def test_a_status_code_that_is_text_is_one(make: Any) -> None:
    llm = make()
    body = {"choices": []}
    assert llm.batch_result(answered(response={"status_code": "200", "body": body})).answer == body
    failure = llm.batch_result(answered(response={"status_code": "429", "body": {}})).failure
    assert failure is not None
    assert failure.kind == "rate_limit"


def test_the_ids_of_a_job_lead_to_no_other_path(make: Any, server: Any) -> None:
    server.script = [
        {"id": "file-1"}, {}, {"data": [5, {"id": 5}, job(id="../up", input_file_id="file-1")]},
        job(id=None, status="completed", output_file_id="../../../admin?x="), b"", b"", b"",
    ]  # fmt: skip
    llm = make()
    with llm, pytest.raises(OfflineBatchNotFinishedError):
        llm.offline_batch_generate([CHAT])
    with llm, contextlib.suppress(OfflineBatchNotFinishedError, GenerationError):
        llm.offline_batch_generate([CHAT])
    assert len(server.paths) > 4
    assert all(path.startswith(("/v1/files", "/v1/batches")) for path in server.paths)
    assert not any("/../" in path or "?x" in path for path in server.paths)
