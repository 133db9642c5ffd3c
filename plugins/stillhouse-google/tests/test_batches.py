"""Offline batches of the Gemini API: no job is made twice, and results of every form belong to their rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from stillhouse import GenerationError, OfflineBatchNotFinishedError
from stillhouse.offline import BatchLedger, default_path
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_google import GeminiLLM

CHATS: Any = [[{"role": "user", "content": text}] for text in "abc"]


def answer(text: str) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 4},
    }


class Provider:
    """The API: jobs go on until the test ends them."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.uploads: list[dict[str, Any]] = []
        self.server = ScriptedServer(self.respond)
        self.breaks = 0
        """How many uploads break off after they arrived."""
        self.lose = 0
        """How many answers to a request for a job are lost after it was made."""

    def respond(self, path: str, body: Any) -> Any:
        place, _, query = path.partition("?")
        if place == "/upload/v1beta/files":
            if "upload_id" not in query:
                url = f"https://upload.elsewhere.org/upload/v1beta/files?upload_id=u{len(self.uploads)}&x=1"
                self.uploads.append(body)
                return Reply(headers={"x-goog-upload-url": url}, body=b"")
            return self.upload(body)
        if place.endswith(":batchGenerateContent"):
            return self.create(place, body["batch"])
        if place == "/v1beta/batches":
            return self.page(parse_qs(query))
        if place.endswith(":download"):
            return self.files[place.removeprefix("/v1beta/").removesuffix(":download")]
        job = next(job for job in self.jobs if place.startswith(f"/v1beta/{job['name']}"))
        if place.endswith(":cancel"):
            job["metadata"]["state"] = "BATCH_STATE_CANCELLED"
            return {}
        return job

    def upload(self, body: Any) -> Any:
        if self.breaks:
            self.breaks -= 1
            return Reply(fault="drop")
        name = f"files/f{len(self.files)}"
        self.files[name] = body if isinstance(body, bytes) else json.dumps(body).encode()
        return {"file": {"name": name, "state": "ACTIVE"}}

    def create(self, place: str, batch: dict[str, Any]) -> Any:
        name = f"batches/b{len(self.jobs)}"
        stats = {"requestCount": "3", "pendingRequestCount": "3"}
        job: dict[str, Any] = {
            "name": name,
            "metadata": {
                "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
                "model": place.removeprefix("/v1beta/").partition(":")[0],
                "state": "BATCH_STATE_PENDING",
                "batchStats": stats,
                "name": name,
                **batch,
            },
        }
        self.jobs.append(job)
        if self.lose:
            self.lose -= 1
            self.create(place, {"displayName": "newer", "inputConfig": {"fileName": "files/other"}})
            return Reply(fault="drop")
        return job

    def page(self, query: dict[str, list[str]]) -> Any:
        """One job a page; the newest first; without any, there is nothing in the answer at all."""
        start = int(query.get("pageToken", ["0"])[0])
        newest = self.jobs[::-1]
        if not newest:
            return {}
        more = {"nextPageToken": str(start + 1)} if start + 1 < len(newest) else {}
        return {"operations": newest[start : start + 1], **more}

    def requests_of(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        file = self.files[job["metadata"]["inputConfig"]["fileName"]]
        return [json.loads(line) for line in file.splitlines()]

    def end(
        self, outcome: Callable[[str], dict[str, Any]] | None = None, state: str = "SUCCEEDED", at: int = -1
    ) -> None:
        job = self.jobs[at]
        results = []
        for line in reversed(self.requests_of(job)):
            text = line["request"]["contents"][-1]["parts"][0]["text"]
            result = outcome(text) if outcome else {"response": answer(text.upper())}
            if result:
                results.append(json.dumps({"key": line["key"], **result}) + "\n")
        name = f"files/results-{len(self.jobs)}"
        self.files[name] = "".join(results).encode()
        good = sum('"response"' in result for result in results)
        job["metadata"] |= {
            "state": f"BATCH_STATE_{state}",
            "output": {"responsesFile": name},
            "batchStats": {"requestCount": "3", "successfulRequestCount": str(good)},
        }
        job["done"] = True


@pytest.fixture(autouse=True)
def quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("stillhouse.offline.sending.SETTLE_SECONDS", 0.0)


@pytest.fixture
def provider() -> Iterator[Provider]:
    found = Provider()
    yield found
    found.server.close()


@pytest.fixture
def llm(provider: Provider) -> Iterator[GeminiLLM]:
    with GeminiLLM(model="gemini-3-flash", base_url=provider.server.origin, api_key="k") as loaded:
        yield loaded


def submit(llm: GeminiLLM, **arguments: Any) -> None:
    with pytest.raises(OfflineBatchNotFinishedError):
        llm.offline_batch_generate(CHATS, **arguments)


def texts(outputs: Any) -> list[Any]:
    return [output and output["generations"] for output in outputs]


def paths(provider: Provider, ending: str) -> list[str]:
    return [
        request.path for request in provider.server.requests if urlsplit(request.path).path.endswith(ending)
    ]


def chunks() -> list[Any]:
    with BatchLedger(default_path()) as ledger:
        (key,) = [key for (key,) in ledger._rows("SELECT key FROM batch_runs")]
        return ledger.chunks(key)


def test_batch_goes_up_as_a_file_and_its_results_are_collected(llm: GeminiLLM, provider: Provider) -> None:
    submit(llm, num_generations=2, temperature=0.5, seed=4)
    start, finish = provider.server.requests[:2]
    assert start.headers["x-goog-upload-protocol"] == "resumable"
    assert start.headers["x-goog-upload-header-content-length"] == str(len(provider.files["files/f0"]))
    assert finish.path == "/upload/v1beta/files?upload_id=u0&x=1"
    assert finish.headers["x-goog-upload-command"] == "upload, finalize"
    assert finish.headers["x-goog-api-key"] == "k"
    (job,) = provider.jobs
    lines = provider.requests_of(job)
    assert [line["request"]["contents"][0]["parts"][0]["text"] for line in lines] == list("aabbcc")
    assert [line["request"]["generationConfig"]["seed"] for line in lines] == [4, 5] * 3
    assert job["metadata"]["model"] == "models/gemini-3-flash"
    assert job["metadata"]["displayName"] == lines[0]["key"].rsplit("-", 2)[0]
    submit(llm, num_generations=2, temperature=0.5, seed=4)
    provider.end()
    outputs = llm.offline_batch_generate(CHATS, num_generations=2, temperature=0.5, seed=4)
    assert texts(outputs) == [["A", "A"], ["B", "B"], ["C", "C"]]
    assert outputs[0]["statistics"] == {"input_tokens": [3, 3], "output_tokens": [1, 1]}
    assert len(provider.jobs) == 1


def test_login_and_query_of_the_address_go_with_the_file(provider: Provider) -> None:
    url = provider.server.origin.replace("//", "//user:password@") + "/v1beta?tenant=t"
    fields: Any = {"model": "m", "base_url": url, "default_headers": {"x-goog-api-key": "k"}}
    with GeminiLLM(**fields) as llm:
        submit(llm)
    start, finish, create = provider.server.requests
    assert start.path == "/upload/v1beta/files?tenant=t"
    assert finish.path == "/upload/v1beta/files?tenant=t&upload_id=u0&x=1"
    assert create.path == "/v1beta/models/m:batchGenerateContent?tenant=t"
    assert all(request.headers["authorization"].startswith("Basic ") for request in (start, finish, create))


def test_counts_that_are_texts_are_counts(llm: GeminiLLM, provider: Provider) -> None:
    submit(llm)
    metadata = provider.jobs[0]["metadata"]
    metadata |= {
        "state": "BATCH_STATE_RUNNING",
        "batchStats": {"requestCount": "7", "successfulRequestCount": "6"},
    }
    submit(llm)
    (chunk,) = chunks()
    assert (chunk.counts, chunk.provider_state) == ({"total": 7, "completed": 6}, "running")


def test_every_line_fails_by_itself(llm: GeminiLLM, provider: Provider) -> None:
    submit(llm)
    outcomes: dict[str, dict[str, Any]] = {
        "a": {"error": {"code": 3, "message": "INVALID_ARGUMENT"}},
        "b": {"error": {"code": 14, "message": "overloaded"}},
        "c": {"response": {}},
    }
    provider.end(outcomes.__getitem__)
    submit(llm)
    again = provider.requests_of(provider.jobs[1])
    assert [line["request"]["contents"][0]["parts"][0]["text"] for line in again] == ["b", "c"]
    provider.end()
    with pytest.raises(GenerationError, match="number 0: status 400: INVALID_ARGUMENT") as caught:
        llm.offline_batch_generate(CHATS)
    assert caught.value.kind == "invalid_request"
    assert texts(caught.value.outputs) == [None, ["B"], ["C"]]


def test_job_that_succeeded_goes_on_until_its_file_is_there(llm: GeminiLLM, provider: Provider) -> None:
    submit(llm)
    provider.jobs[0]["metadata"]["state"] = "BATCH_STATE_SUCCEEDED"
    submit(llm)
    submit(llm)
    assert len(provider.jobs) == 1
    provider.end()
    assert texts(llm.offline_batch_generate(CHATS)) == [["A"], ["B"], ["C"]]


@pytest.mark.parametrize("state", ["BATCH_STATE_SUCCEEDED", "JOB_STATE_SUCCEEDED", None])
@pytest.mark.parametrize("place", ["output", "response", "dest"])
def test_file_of_results_is_found_where_the_versions_have_it(
    llm: GeminiLLM, provider: Provider, state: str | None, place: str
) -> None:
    submit(llm)
    provider.end()
    job = provider.jobs[0]
    name = job["metadata"].pop("output")["responsesFile"]
    if state is None:
        del job["metadata"]["state"]
    else:
        job["metadata"]["state"] = state
    if place == "output":
        job["metadata"]["output"] = {"responsesFile": name}
    else:
        job[place] = {"fileName" if place == "dest" else "responsesFile": name}
    assert texts(llm.offline_batch_generate(CHATS)) == [["A"], ["B"], ["C"]]


def test_job_whose_answer_was_lost_is_found_by_its_name_on_a_later_page(
    llm: GeminiLLM, provider: Provider
) -> None:
    provider.create("/v1beta/models/m:batchGenerateContent", {"displayName": "older", "inputConfig": {}})
    provider.lose = 1
    submit(llm)
    assert len(paths(provider, ":batchGenerateContent")) == 1
    assert llm.jobs_ids == ("batches/b1",)
    provider.end(at=1)
    assert texts(llm.offline_batch_generate(CHATS)) == [["A"], ["B"], ["C"]]


def test_job_is_asked_for_again_when_there_is_none(llm: GeminiLLM, provider: Provider) -> None:
    provider.server.script = [Reply(body=b"", headers={"x-goog-upload-url": "/upload/v1beta/files?u=1"})]
    provider.server.script += [Reply(body={"file": {"name": "files/f0"}}), Reply(fault="drop")]
    submit(llm)
    assert len(paths(provider, ":batchGenerateContent")) == 2
    assert len(provider.jobs) == 1


def test_upload_that_broke_off_begins_anew(llm: GeminiLLM, provider: Provider) -> None:
    provider.breaks = 2
    submit(llm)
    assert len(provider.uploads) == 3
    assert [upload["file"]["displayName"] for upload in provider.uploads] == [chunks()[0].name] * 3
    assert len(provider.jobs) == len(provider.files) == 1


def test_expired_job_gives_what_is_in_its_file_and_sends_the_rest_again(
    llm: GeminiLLM, provider: Provider
) -> None:
    submit(llm)
    provider.end(lambda text: {"response": answer("A")} if text == "a" else {}, state="EXPIRED")
    submit(llm)
    again = provider.requests_of(provider.jobs[1])
    assert [line["request"]["contents"][0]["parts"][0]["text"] for line in again] == ["b", "c"]
    provider.end()
    assert texts(llm.offline_batch_generate(CHATS)) == [["A"], ["B"], ["C"]]


def test_failed_job_fails_its_rows_with_its_message(llm: GeminiLLM, provider: Provider) -> None:
    submit(llm)
    provider.jobs[0]["metadata"]["state"] = "BATCH_STATE_FAILED"
    provider.jobs[0]["error"] = {"code": 3, "message": "the file is not JSONL"}
    with pytest.raises(GenerationError, match="the file is not JSONL") as caught:
        llm.offline_batch_generate(CHATS)
    assert caught.value.kind == "invalid_request"


def test_cancelled_job_is_not_made_again(llm: GeminiLLM, provider: Provider) -> None:
    submit(llm)
    llm.cancel_offline_batch()
    assert paths(provider, ":cancel") == ["/v1beta/batches/b0:cancel"]
    with pytest.raises(GenerationError, match="cancelled"):
        llm.offline_batch_generate(CHATS)
    assert len(provider.jobs) == 1


def test_refused_job_frees_its_rows(llm: GeminiLLM, provider: Provider) -> None:
    error = {"code": 400, "message": "Too many enqueued requests", "status": "FAILED_PRECONDITION"}
    provider.server.script = [Reply(body=b"", headers={"x-goog-upload-url": "/upload/v1beta/files?u=1"})]
    provider.server.script += [Reply(body={"file": {"name": "files/f0"}}), Reply(400, {"error": error})]
    with pytest.raises(GenerationError, match="enqueued"):
        llm.offline_batch_generate(CHATS)
    assert provider.jobs == []
    submit(llm)
    assert len(provider.jobs) == 1


@pytest.mark.parametrize("odd", [None, [], "x", {}, {"name": 5}, {"file": {"name": ""}}, {"file": []}])
def test_odd_answers_make_no_second_job(llm: GeminiLLM, provider: Provider, odd: Any) -> None:
    provider.server.script = [Reply(body=b"", headers={"x-goog-upload-url": "/upload/v1beta/files?u=1"})]
    provider.server.script += [Reply(body=json.dumps(odd).encode())]
    provider.server.script += [Reply(body=b"", headers={"x-goog-upload-url": ""})] * 2
    with pytest.raises(GenerationError):
        llm.offline_batch_generate(CHATS)
    assert provider.jobs == []


def test_cut_line_and_a_key_that_is_not_ours_cost_nothing_else(llm: GeminiLLM, provider: Provider) -> None:
    submit(llm)
    provider.end()
    name = provider.jobs[0]["metadata"]["output"]["responsesFile"]
    lines = provider.files[name].splitlines(keepends=True)  # of c, b, a
    broken = re.sub(rb'"response": ', b'"response" ', lines[1])
    provider.files[name] = b'{"key": "theirs", "response": {}}\n[1]\nnull\n' + lines[0] + broken + lines[2]
    with pytest.raises(GenerationError, match="number 1: the line of its result") as caught:
        llm.offline_batch_generate(CHATS)
    assert texts(caught.value.outputs) == [["A"], None, ["C"]]


def test_sdk_reads_the_same_of_a_job_and_takes_the_same_request(provider: Provider, llm: GeminiLLM) -> None:
    genai: Any = pytest.importorskip("google.genai", reason="google-genai is not installed")
    submit(llm)
    provider.end()
    client = genai.Client(
        api_key="k", http_options={"base_url": provider.server.origin, "api_version": "v1beta"}
    )
    theirs = client.batches.get(name="batches/b0")
    (chunk,) = chunks()
    assert (theirs.display_name, theirs.state.value) == (chunk.name, "JOB_STATE_SUCCEEDED")
    assert theirs.dest.file_name == provider.jobs[0]["metadata"]["output"]["responsesFile"]
    client.batches.create(model="gemini-3-flash", src="files/f0", config={"display_name": chunk.name})
    first, second = provider.jobs
    for key in ("displayName", "inputConfig", "model"):
        assert first["metadata"][key] == second["metadata"][key]
