"""`MessageBatchLLM`: offline batches whose requests are sent with the job."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from typing import IO, TYPE_CHECKING, Any, ClassVar

import orjson

from stillhouse import GenerateOutput
from stillhouse.http import Failure, UnclearError, Upload
from stillhouse.http.batches import BatchHTTPLLM, BatchLimits, Framing, Job, JobResult, UndecidedError
from stillhouse.offline import Chunk, ChunkState, clean_words, path_segment
from stillhouse.outputs import count_of
from stillhouse_anthropic.wire import message_output

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["MESSAGES", "MessageBatchLLM"]

MESSAGES = "v1/messages"
"""The path of messages; that of batches is below."""

# https://docs.anthropic.com/en/api/errors
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_PAGE = 100
_MAX_LINE_BYTES = 64 * 2**20


class MessageBatchLLM(BatchHTTPLLM):
    """The offline batches of a backend for the Messages API.

    A batch has neither metadata nor a file; only the ids of its requests, which come with its results,
    identify it. Before a batch is requested, the id of the newest one is therefore recorded. If the
    answer is lost, the batch is one of those that are newer, unknown, and of the same size; if there is
    no such batch, none was made. One that has ended shows the ids of its requests. One that is running
    cannot be identified, and nothing is sent again until it has ended: that may take as long as a batch
    takes, and is certain.
    """

    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=100_000, bytes=256_000_000)
    batch_framing: ClassVar[Framing] = Framing(b'{"requests":[', b",", b"]}")

    def url_of(self, base_url: URL, path: str) -> URL:
        """The SDK's base URLs end before `/v1`; those of most servers with it."""
        ends = base_url.path.endswith("/v1")
        return super().url_of(base_url, path.removeprefix("v1/") if ends else path)

    def batch_line(self, custom_id: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": custom_id, "params": body}

    def batch_answer(self, answer: Any, path: str) -> GenerateOutput:
        return message_output(answer)

    def batch_result(self, line: dict[str, Any]) -> JobResult:
        result = line.get("result")
        if not isinstance(result, dict):
            result = {}
        kind = result.get("type")
        if kind == "succeeded" and result.get("message"):
            failure = self.failure_in(result["message"], {})
            return JobResult(result["message"]) if failure is None else JobResult(failure=failure)
        if kind == "canceled":
            return JobResult()
        if kind == "expired":
            return JobResult(failure=Failure("timeout", "the batch expired before its turn", retried=True))
        error = result.get("error")
        inner = error.get("error", error) if isinstance(error, dict) else {}
        status = _STATUSES.get(str(inner.get("type")), 500) if isinstance(inner, dict) else 500
        body = orjson.dumps(
            error
            if isinstance(error, dict)
            else {"error": {"message": f"it is {clean_words(kind) or 'nothing'}"}}
        )
        return JobResult(failure=self.classify(status, {}, body))

    async def upload_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> str:
        """The id of the newest batch, for `find_batch`; the requests go up with the job."""
        answer = await self.request("GET", f"{MESSAGES}/batches", query={"limit": 1})
        page = _page(answer)
        return str(page[0]["id"]) if page else ""

    async def create_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> Job:
        path = f"{MESSAGES}/batches"
        return self._job(await self.request("POST", path, Upload(file, size), once=True))

    async def find_batch(self, chunk: Chunk, known: set[str]) -> Job | None:
        undecided = False
        async for batch in self._newer(chunk.input_file):
            counts = batch.get("request_counts")
            known_counts = map(count_of, counts.values()) if isinstance(counts, dict) else ()
            if batch["id"] in known or sum(count or 0 for count in known_counts) != chunk.requests:
                continue
            job = self._job(batch)
            if job.state == "created":
                undecided = True
            elif job.result_files and await self._first_id(job) == chunk.name:
                return job
        if undecided:
            raise UndecidedError
        return None

    async def _newer(self, id: str) -> AsyncIterator[dict[str, Any]]:
        """The batches that are newer than this one, newest first."""
        query: dict[str, str | int] = {"limit": _PAGE}
        while True:
            answer = await self.request("GET", f"{MESSAGES}/batches", query=query)
            page = _page(answer)
            for batch in page:
                if batch["id"] == id:
                    return
                yield batch
            if not (page and answer.get("has_more")) or page[-1]["id"] == query.get("after_id"):
                return
            query["after_id"] = page[-1]["id"]

    async def _first_id(self, job: Job) -> str:
        """The name of the chunk that a batch with results was made of."""
        with tempfile.TemporaryFile() as file:
            await self.request("GET", f"{MESSAGES}/batches/{path_segment(job.id)}/results", save_to=file)
            file.seek(0)
            try:
                custom_id = str(orjson.loads(file.readline(_MAX_LINE_BYTES))["custom_id"])
            except (orjson.JSONDecodeError, KeyError, TypeError):
                return ""
        return custom_id.rsplit("-", 2)[0]

    async def batch_job(self, chunk: Chunk) -> Job:
        answer = await self.request("GET", f"{MESSAGES}/batches/{path_segment(chunk.job)}")
        # Which batch it is, is known; what it says of itself may be anything.
        return self._job({**answer, "id": chunk.job} if isinstance(answer, dict) else answer)

    async def save_results(self, chunk: Chunk, place: str, file: IO[bytes]) -> None:
        path = f"{MESSAGES}/batches/{path_segment(place)}/results"
        await self.request("GET", path, save_to=file)

    async def cancel_batch(self, chunk: Chunk) -> None:
        await self.request("POST", f"{MESSAGES}/batches/{path_segment(chunk.job)}/cancel")

    def _job(self, answer: Any) -> Job:
        id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(id, str) or not id:
            raise (None if id else self._refusal(answer)) or _odd("a batch")
        word = clean_words(answer.get("processing_status"))
        state: ChunkState = "created"
        failure = None
        if word == "ended":
            state = "cancelled" if answer.get("cancel_initiated_at") else "finished"
            if answer.get("archived_at"):
                state = "failed"
                failure = Failure("invalid_request", f"the results of {clean_words(id)} are kept no longer")
        given = answer.get("request_counts")
        counts = dict(given) if isinstance(given, dict) else {}
        counts["completed"] = counts.pop("succeeded", 0)
        counts["failed"] = counts.pop("errored", 0)
        ended = state != "created" and failure is None
        return Job(id, state, word, counts, (id,) if ended else (), failure)


def _page(answer: Any) -> list[dict[str, Any]]:
    page = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(page, list):
        raise _odd("a list of batches")
    return [batch for batch in page if isinstance(batch, dict) and isinstance(batch.get("id"), str)]


def _odd(what: str) -> UnclearError:
    """An answer that may be that of a gateway in between, so that what was asked for may be done."""
    return UnclearError(
        f"the server answered with something else than {what}",
        kind="server",
        hint="check that base_url is the address of an Anthropic API",
    )
