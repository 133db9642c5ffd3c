"""Offline batches: uploads, jobs, results, and the whole way against a mock of the API."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from stillhouse import GenerationError, OfflineBatchNotFinishedError
from stillhouse.http import UnclearError
from stillhouse.offline import Chunk, Rows
from stillhouse_mistral import MistralLLM

from .conftest import answer

CHAT: Any = [{"role": "user", "content": "hello"}]
CHUNK = Chunk(
    "sh-1", 0, 0, "uploaded", "MistralLLM", "chat/completions", Rows([0]), input_file="file-1", job="job-1"
)
LLM = MistralLLM(model="m", api_key="k")


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))


def job(**fields: Any) -> dict[str, Any]:
    return {
        "id": "job-1", "object": "batch", "input_files": ["file-0"], "endpoint": "/v1/chat/completions",
        "errors": [], "status": "RUNNING", "created_at": 1, "total_requests": 1, "completed_requests": 0,
        "succeeded_requests": 0, "failed_requests": 0, "output_file": None, "error_file": None, **fields,
    }  # fmt: skip


def result(number: int, body: Any, row: int = 0, chunk: str = "sh-1", **fields: Any) -> bytes:
    line = {
        "id": f"r{number}", "custom_id": f"{chunk}-{row}-0",
        "response": {"status_code": 200, "body": body}, "error": None, **fields,
    }  # fmt: skip
    return json.dumps(line).encode() + b"\n"


def lines_of(script: Any) -> list[dict[str, Any]]:
    """The lines of the file that went up first."""
    upload = next(asked.body for asked in script.requests if asked.path == "/v1/files")
    return [json.loads(line) for line in upload.splitlines() if line.startswith('{"custom_id"')]


def test_file_and_job_are_as_the_api_has_them(make: Any, script: Any) -> None:
    script.reply({"id": "file-1", "purpose": "batch"})
    script.reply(job(status="QUEUED"))
    with pytest.raises(OfflineBatchNotFinishedError) as caught:
        make().offline_batch_generate([CHAT, CHAT], num_generations=2, max_new_tokens=5, seed=3)
    assert caught.value.jobs_ids == ("job-1",)
    assert [asked.path for asked in script.requests] == ["/v1/files", "/v1/batch/jobs"]
    assert 'name="purpose"\r\n\r\nbatch\r\n' in script.requests[0].body
    first, second = lines_of(script)
    assert set(first) == {"custom_id", "body"}
    assert first["body"] == {"messages": CHAT, "n": 2, "max_tokens": 5, "random_seed": 3}
    assert second["custom_id"] != first["custom_id"]
    made = script.requests[1].body
    name = first["custom_id"].rsplit("-", 2)[0]
    assert made == {
        "input_files": ["file-1"], "endpoint": "/v1/chat/completions", "model": "m",
        "metadata": {"stillhouse_chunk": name}, "timeout_hours": 24,
    }  # fmt: skip


def test_job_and_lines_validate_against_the_sdk_types(make: Any, script: Any) -> None:
    models: Any = pytest.importorskip("mistralai.client.models")
    script.reply({"id": "file-1"})
    script.reply(job())
    with pytest.raises(OfflineBatchNotFinishedError):
        make().offline_batch_generate([CHAT])
    made = script.requests[1].body
    assert set(made) <= set(models.CreateBatchJobRequest.model_fields)
    models.CreateBatchJobRequest.model_validate(made)
    (line,) = lines_of(script)
    models.BatchRequest.model_validate(line)
    assert models.BatchJob.model_validate(job()).id == LLM._job(job()).id


@pytest.mark.parametrize(
    ("fields", "state", "kind"),
    [
        ({"status": "QUEUED"}, "created", None),
        ({"status": "CANCELLATION_REQUESTED"}, "created", None),
        ({"status": "STATE_OF_2027"}, "created", None),
        ({"status": "SUCCESS", "output_file": "o", "error_file": "e"}, "finished", None),
        ({"status": "SUCCESS", "output_file": "", "error_file": "e"}, "finished", None),
        ({"status": "TIMEOUT_EXCEEDED", "output_file": "o"}, "expired", None),
        ({"status": "CANCELLED", "output_file": "o"}, "cancelled", None),
        ({"status": "FAILED", "error_file": "e"}, "finished", None),
        ({"status": "FAILED", "errors": [{"message": "Invalid JSON line", "count": 2}]}, "failed", "invalid_request"),
        ({"status": "FAILED", "errors": [{"message": "Invalid model: m"}]}, "failed", "invalid_request"),
        ({"status": "FAILED", "errors": None}, "failed", "invalid_request"),
    ],
)  # fmt: skip
def test_states_of_a_job(fields: dict[str, Any], state: str, kind: str | None) -> None:
    found = LLM._job(job(**fields))
    assert (found.state, found.provider_state) == (state, fields["status"])
    assert (found.failure and found.failure.kind) == kind
    files = [fields.get(name) for name in ("output_file", "error_file")]
    assert found.result_files == tuple(file for file in files if file)


def test_counts_of_a_job() -> None:
    found = LLM._job(job(total_requests=5, succeeded_requests=3, failed_requests=1))
    assert found.counts == {"total": 5, "completed": 3, "failed": 1}


def test_job_is_found_on_a_later_page_by_its_name_or_its_file(make: Any, script: Any) -> None:
    llm = make()
    others = [job(id=f"job-x{number}") for number in range(2)]
    for found in (job(metadata={"stillhouse_chunk": "sh-1"}), job(input_files=["file-1"], metadata=None)):
        script.requests.clear()
        script.replies.clear()
        script.reply({"data": others, "total": 3})
        script.reply({"data": [5, {"id": 5}, found], "total": 3})
        assert llm.run_on_loop(llm.find_batch(CHUNK, set())).id == "job-1"
        assert [asked.path for asked in script.requests] == [
            "/v1/batch/jobs?page=0&page_size=100",
            "/v1/batch/jobs?page=1&page_size=100",
        ]


@pytest.mark.parametrize("second", [{"data": [], "total": 1}, {"data": [job(id="job-x")], "total": 1}])
def test_list_ends_where_nothing_is_new(make: Any, script: Any, second: Any) -> None:
    llm = make()
    script.reply({"data": [job(id="job-x")], "total": 1})
    script.reply(second)
    assert llm.run_on_loop(asyncio.wait_for(llm.find_batch(CHUNK, set()), 20)) is None
    assert len(script.requests) == 2


@pytest.mark.parametrize("odd", [[], 5, {}, {"data": None}, {"data": {}}])
def test_list_that_is_none_decides_nothing(make: Any, script: Any, odd: Any) -> None:
    llm = make()
    script.reply(odd)
    with pytest.raises(UnclearError):
        llm.run_on_loop(llm.find_batch(CHUNK, set()))


@pytest.mark.parametrize("odd", [b'"x"', [], {"id": 5}, {"what": "is this"}])
def test_answer_that_is_no_job_makes_the_job_be_looked_up(make: Any, script: Any, odd: Any) -> None:
    script.reply({"id": "file-1"})
    script.reply(odd)
    script.reply({"data": [job(input_files=["file-1"])]})
    with pytest.raises(OfflineBatchNotFinishedError):
        make().offline_batch_generate([CHAT])
    assert [asked.path for asked in script.requests].count("/v1/batch/jobs") == 1


def test_job_that_is_refused_with_a_good_status_is_no_job(make: Any, script: Any) -> None:
    script.reply({"id": "file-1"})
    script.reply({"object": "error", "message": "Invalid model: m", "type": "invalid_request_error"})
    with pytest.raises(GenerationError, match="Invalid model") as caught:
        make().offline_batch_generate([CHAT])
    assert not isinstance(caught.value, UnclearError)
    assert "/v1/batch/jobs?page=0&page_size=100" not in [asked.path for asked in script.requests]


def collected(make: Any, script: Any, ended: dict[str, Any], *files: Any, asked: int = 2) -> Any:
    """What comes of two rows, whose job has ended in this way with these files."""
    script.reply({"id": "file-1"})
    script.reply(job())
    llm = make()
    with pytest.raises(OfflineBatchNotFinishedError):
        llm.offline_batch_generate([CHAT, CHAT])
    name = lines_of(script)[0]["custom_id"].rsplit("-", 2)[0]
    script.replies.clear()
    for _ in range(asked):
        script.reply(ended)
    for file in files:
        script.reply(b"".join(result(row, body, row, name, **more) for row, body, more in file))
    script.reply({"id": "file-2"})
    script.reply(job(id="job-2"))
    return llm


def test_both_files_are_read_and_joined_by_id(make: Any, script: Any) -> None:
    error = {"detail": [{"loc": ["body", "store"], "msg": "Extra inputs are not permitted"}]}
    failed = (0, None, {"response": {"status_code": 422, "body": error}})
    ended = job(status="SUCCESS", output_file="o", error_file="e", succeeded_requests=1, failed_requests=1)
    llm = collected(make, script, ended, [(1, answer("second"), {})], [failed])
    with pytest.raises(GenerationError, match=r"body.store: Extra inputs") as caught:
        llm.offline_batch_generate([CHAT, CHAT])
    assert caught.value.kind == "invalid_request"
    assert caught.value.outputs[0] is None
    assert caught.value.outputs[1]["generations"] == ["second"]  # type: ignore[index]
    paths = [asked.path for asked in script.requests if asked.path.endswith("/content")]
    assert paths == ["/v1/files/o/content", "/v1/files/e/content"]


def test_job_out_of_time_keeps_what_is_paid_and_sends_the_rest_again(make: Any, script: Any) -> None:
    ended = job(status="TIMEOUT_EXCEEDED", output_file="o", succeeded_requests=1)
    llm = collected(make, script, ended, [(1, answer("second"), {})])
    with pytest.raises(OfflineBatchNotFinishedError) as caught:
        llm.offline_batch_generate([CHAT, CHAT])
    assert "job-2" in caught.value.jobs_ids
    again = [asked.body for asked in script.requests if asked.path == "/v1/files"][1]
    assert again.count('{"custom_id"') == 1


def test_answer_that_was_lost_is_sent_again(make: Any, script: Any) -> None:
    lost = (0, None, {"response": {"status_code": 0, "body": {}}})
    ended = job(status="FAILED", error_file="e", failed_requests=1)
    llm = collected(make, script, ended, [lost])
    with pytest.raises(OfflineBatchNotFinishedError):
        llm.offline_batch_generate([CHAT, CHAT])
    again = [asked.body for asked in script.requests if asked.path == "/v1/files"][1]
    assert again.count('{"custom_id"') == 2  # the other is in no file at all


def test_cancelled_job_gives_what_was_finished(make: Any, script: Any) -> None:
    ended = job(status="CANCELLED", output_file="o", succeeded_requests=1)
    llm = collected(make, script, ended, [(1, answer("second"), {})], asked=3)
    llm.cancel_offline_batch()
    assert script.requests[2].path == "/v1/batch/jobs/job-1/cancel"
    with pytest.raises(GenerationError, match="was cancelled") as caught:
        llm.offline_batch_generate([CHAT, CHAT])
    assert caught.value.outputs[1]["generations"] == ["second"]  # type: ignore[index]


@pytest.mark.parametrize("odd", ["x", 5, True, [1], {}, {"a": 1}, 1e308, None, "\x1b[2J"])
def test_no_part_of_a_job_is_trusted(odd: Any) -> None:
    for name in job():
        for status in ("SUCCESS", "FAILED", "RUNNING"):
            with contextlib.suppress(UnclearError):
                made = LLM._job(job(**{"status": status, name: odd}))
                assert "\x1b" not in made.provider_state
                assert all(type(count) is int for count in made.counts.values())
                assert all(isinstance(file, str) and file.isprintable() for file in made.result_files)
                assert made.failure is None or "\x1b" not in made.failure.message


def test_ids_of_a_job_lead_to_no_other_path(make: Any, script: Any) -> None:
    llm = make()
    chunk = Chunk("sh-1", 0, 0, "created", "MistralLLM", "chat/completions", Rows([0]), job="../up?x=")
    script.reply(job())
    assert llm.run_on_loop(llm.batch_job(chunk)).id == "../up?x="
    llm.run_on_loop(llm.cancel_batch(chunk))
    assert all(asked.path.startswith("/v1/batch/jobs/%2E") for asked in script.requests)


# The whole way

# The mock does not close what was uploaded to it.
LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def fields(llmock: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    batch = pytest.importorskip("llmock.routers.batch")
    monkeypatch.setattr(batch, "_BATCH_DELAY", 0.0)
    batch._batches.clear()
    batch._files.clear()
    return {"model": "m", "base_url": llmock.base_url("mistral"), "api_key": "key-0001-test"}


@LEAVES_FILES_OPEN
def test_offline_batch_runs_end_to_end(fields: dict[str, Any]) -> None:
    inputs: Any = [[{"role": "user", "content": f"Question {number}"}] for number in range(5)]
    fields |= {"use_offline_batch_generation": True, "offline_batch_generation_block_until_done": 0}
    with MistralLLM(**fields) as llm:
        outputs = llm.generate_outputs(inputs)
        assert llm.jobs_ids is None
    assert all(output["generations"][0] for output in outputs)
    assert outputs[0]["statistics"]["output_tokens"][0] > 0


@LEAVES_FILES_OPEN
def test_another_llm_object_resumes_the_same_job(fields: dict[str, Any]) -> None:
    from llmock.routers import batch

    with MistralLLM(**fields) as llm, pytest.raises(OfflineBatchNotFinishedError):
        llm.offline_batch_generate([CHAT])
    with MistralLLM(**fields) as other:
        assert len(other.offline_batch_generate([CHAT])) == 1
        none = other.run_on_loop(asyncio.wait_for(other.find_batch(CHUNK, set()), 20))
        assert none is None  # the mock has no pages
    assert len(batch._batches) == 1
