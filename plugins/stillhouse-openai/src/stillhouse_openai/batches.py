"""`FileBatchLLM`: offline batches as OpenAI has them: a file of requests, a job, files of results."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import IO, Any, ClassVar

import orjson

from stillhouse import Capability, FormattedInput, UnsupportedError
from stillhouse.http import Failure, UnclearError, form_upload
from stillhouse.http.batches import BatchHTTPLLM, BatchLimits, Job, JobResult
from stillhouse.offline import Chunk, ChunkState, clean_words, path_segment
from stillhouse.outputs import count_of
from stillhouse_openai.compatible import CompatibleLLM

__all__ = ["FileBatchLLM"]

_STATES: dict[str, ChunkState] = {
    "completed": "finished",
    "expired": "expired",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""The states in which a job has ended; in any other it is running."""

_NAME = "stillhouse_chunk"
"""The key of the chunk's name in the job's metadata."""

_PAGE = 100


class FileBatchLLM(BatchHTTPLLM, CompatibleLLM):
    """A `CompatibleLLM` with offline batches, as files.

    A job is found again by the id of its file, which is recorded before the job is requested, and by
    the chunk's name in its metadata.
    """

    capabilities: ClassVar[frozenset[Capability]] = CompatibleLLM.capabilities | {"offline_batch"}

    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=50_000, bytes=200_000_000)

    batch_endpoints: ClassVar[dict[str, str]] = {
        "chat/completions": "/v1/chat/completions",
        "completions": "/v1/completions",
        "responses": "/v1/responses",
    }
    """The names of paths in jobs, by the path of the API."""

    batch_upload_path: ClassVar[str] = "files"
    batch_file_purpose: ClassVar[str] = "batch"

    def batch_request(
        self, input: FormattedInput, num_generations: int, arguments: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        path, body = super().batch_request(input, num_generations, arguments)
        if path not in self.batch_endpoints:
            raise UnsupportedError(
                f"{type(self).__name__} does not support offline batches of raw prompts", hint="send chats"
            )
        return path, body

    def batch_line(self, custom_id: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": custom_id, "method": "POST", "url": self.batch_endpoints[path], "body": body}

    def batch_result(self, line: dict[str, Any]) -> JobResult:
        response = line.get("response")
        response = response if isinstance(response, dict) else {}
        error = line.get("error")
        status = count_of(response.get("status_code")) or 0
        request_id = clean_words(response.get("request_id"))
        answer = response.get("body")
        if not error and (200 <= status < 300 or (answer and not status)):
            failure = (
                self.failure_in(answer, {"x-request-id": request_id}) if answer else _nothing(request_id)
            )
            return JobResult(answer if failure is None else None, failure)
        if not error and not status and response:  # the error file has such lines for answers that were lost
            return JobResult(failure=_nothing(request_id))
        if status >= 400:
            body = orjson.dumps(answer or {"error": error})
            return JobResult(failure=self.classify(status, {"x-request-id": request_id}, body))
        code = clean_words(error.get("code")) if isinstance(error, dict) else ""
        if "cancel" in code:
            return JobResult()
        return JobResult(failure=_failure(error, code, request_id))

    async def upload_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> str:
        fields = self.batch_file_fields(f"{chunk.name}.jsonl")
        upload = form_upload(fields, f"{chunk.name}.jsonl", file, size)
        answer = await self.request("POST", self.batch_upload_path, upload)
        return _id_of(self, answer, "file")

    def batch_file_fields(self, name: str) -> dict[str, str]:
        """Return the fields that are sent with a file."""
        return {"purpose": self.batch_file_purpose}

    def batch_job_body(self, chunk: Chunk) -> dict[str, Any]:
        """Return the body of the request for a job."""
        return {
            "input_file_id": chunk.input_file,
            "endpoint": self.batch_endpoints[chunk.path],
            "completion_window": "24h",
            "metadata": {_NAME: chunk.name},
        }

    async def create_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> Job:
        body = orjson.dumps(self.batch_job_body(chunk))
        answer = await self.request("POST", "batches", body, once=True)
        if isinstance(answer, dict):
            answer = answer.get("job", answer)
        return self._job(answer)

    async def find_batch(self, chunk: Chunk, known: set[str]) -> Job | None:
        async for job in self._list():
            metadata = job.get("metadata")
            name = metadata.get(_NAME) if isinstance(metadata, dict) else None
            if name == chunk.name or job.get("input_file_id") == chunk.input_file:
                return self._job(job)
        return None

    async def _list(self) -> AsyncIterator[dict[str, Any]]:
        """Yield all jobs, page by page, without relying on their order or on a clock."""
        query: dict[str, str | int] = {"limit": _PAGE}
        seen: set[str] = set()
        while True:
            answer = await self.request("GET", "batches", query=query)
            page = answer.get("data") if isinstance(answer, dict) else answer
            if not isinstance(page, list):
                raise _odd("a list of jobs")
            page = [job for job in page if isinstance(job, dict) and isinstance(job.get("id"), str)]
            news = [job for job in page if job["id"] not in seen]
            for job in news:
                yield job
            # Some servers do not say whether there is more, and some return the same page for any query.
            more = answer.get("has_more", len(page) >= _PAGE) if isinstance(answer, dict) else False
            if not (news and more):
                return
            seen.update(job["id"] for job in news)
            query["after"] = page[-1]["id"]

    async def batch_job(self, chunk: Chunk) -> Job:
        answer = await self.request("GET", f"batches/{path_segment(chunk.job)}")
        # Which job it is, is known; what it says of itself may be anything.
        return self._job({**answer, "id": chunk.job} if isinstance(answer, dict) else answer)

    async def save_results(self, chunk: Chunk, place: str, file: IO[bytes]) -> None:
        await self.request("GET", f"files/{path_segment(place)}/content", save_to=file)

    async def cancel_batch(self, chunk: Chunk) -> None:
        await self.request("POST", f"batches/{path_segment(chunk.job)}/cancel")

    def _job(self, answer: Any) -> Job:
        id = _id_of(self, answer, "job")
        word = clean_words(answer.get("status"))
        state = _STATES.get(word.lower(), "created")
        return Job(
            id=id,
            state=state,
            provider_state=word,
            counts=answer.get("request_counts") or {},
            result_files=(answer.get("output_file_id"), answer.get("error_file_id")),
            failure=self._job_failure(answer) if state == "failed" else None,
        )

    def _job_failure(self, answer: dict[str, Any]) -> Failure:
        errors = answer.get("errors")
        listed = errors.get("data") if isinstance(errors, dict) else None
        first: Any = (
            listed[0] if isinstance(listed, list) and listed else answer.get("error") or "the job failed"
        )
        code = clean_words(first.get("code")) if isinstance(first, dict) else ""
        if code == "token_limit_exceeded":  # of all jobs waiting for a model; there is room later
            return Failure("rate_limit", clean_words(first.get("message")) or code, retried=True)
        return self.classify(400, {}, orjson.dumps({"error": first}))


def _failure(error: Any, code: str, request_id: str) -> Failure:
    message = error.get("message") if isinstance(error, dict) else error
    message = clean_words(message) or code or "no answer"
    if "expired" in code:
        return Failure("timeout", message, retried=True, request_id=request_id)
    return Failure("invalid_request", message, request_id=request_id)


def _nothing(request_id: str) -> Failure:
    return Failure("server", "the answer is empty", retried=True, request_id=request_id)


def _id_of(llm: FileBatchLLM, answer: Any, what: str) -> str:
    id = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(id, str) or not id or not id.isprintable():
        raise (None if id else llm._refusal(answer)) or _odd(f"the id of a {what}")
    return id


def _odd(what: str) -> UnclearError:
    """Return an error for an answer that a gateway may have sent: the request may have been carried out."""
    return UnclearError(
        f"the server answered with something else than {what}",
        kind="server",
        hint="check that base_url is the address of an API with offline batches",
    )
