"""`BatchContentLLM`: offline batches of the Gemini API, as files."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import orjson

from stillhouse import Capability, GenerationError
from stillhouse.http import Failure, UnclearError, Upload, answered
from stillhouse.http.batches import BatchHTTPLLM, BatchLimits, Job, JobResult
from stillhouse.offline import Chunk, ChunkState, clean_words, path_segment
from stillhouse_google.failures import status_of_code
from stillhouse_google.generate_content import GenerateContentLLM

__all__ = ["BatchContentLLM"]

_STATES: dict[str, ChunkState] = {
    "succeeded": "finished",
    "partially_succeeded": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
    "expired": "expired",
}
"""The states in which a job has ended; in any other it is running."""

_COUNTS = {
    "total": "requestCount",
    "completed": "successfulRequestCount",
    "failed": "failedRequestCount",
}
_UPLOADS = 3
_PAGE = 100
_CANCELLED = 1
"""The code of google.rpc."""

_MAX_LINE_BYTES = 64 * 2**20
_SEARCHED_BYTES = 4096
_PREFIX = re.compile("^(batch|job)_state_")
_KEY = re.compile(rb'"key"\s{0,9}:\s{0,9}"([A-Za-z0-9-]{1,64})"')


class BatchContentLLM(BatchHTTPLLM, GenerateContentLLM):
    """A `GenerateContentLLM` with offline batches.

    The requests go up as a file, each with a key that comes back with its result: the results of requests
    that are sent with the job come without. A job is found again by its display name, which is the chunk's,
    or by its file: the API would make a second job of a request that is repeated.
    """

    capabilities: ClassVar[frozenset[Capability]] = GenerateContentLLM.capabilities | {"offline_batch"}

    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=100_000, bytes=2_000_000_000)

    def batch_line(self, custom_id: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"key": custom_id, "request": body}

    def batch_result(self, line: dict[str, Any]) -> JobResult:
        answer, error = line.get("response"), line.get("error")
        if isinstance(answer, dict) and answer:
            failure = self.failure_in(answer, {})
            return JobResult(answer) if failure is None else JobResult(failure=failure)
        if not error:
            return JobResult(failure=Failure("server", "the answer is empty", retried=True))
        code = error.get("code") if isinstance(error, dict) else None
        if code == _CANCELLED:
            return JobResult()
        return JobResult(failure=self.classify(status_of_code(code), {}, orjson.dumps({"error": error})))

    async def upload_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> str:
        """Upload the file; one that broke off begins anew, since a part of it may have arrived."""
        attempt = 1
        while True:
            path, query = await self._begin_upload(chunk, size)
            headers = {"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "0"}
            upload = Upload(file, size, "application/jsonl")
            try:
                answer = await self.request("POST", path, upload, query=query, headers=headers, once=True)
                break
            except UnclearError:
                if attempt == _UPLOADS:
                    raise
                attempt += 1
        found = answer.get("file") if isinstance(answer, dict) else None
        return self._name_of(found if isinstance(found, dict) else answer, "a file")

    async def _begin_upload(self, chunk: Chunk, size: int) -> tuple[str, dict[str, str]]:
        """Return the path and the query at which the API waits for the file."""
        headers = {
            "content-type": "application/json",
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(size),
            "x-goog-upload-header-content-type": "application/jsonl",
        }
        body = orjson.dumps({"file": {"displayName": chunk.name, "mimeType": "application/jsonl"}})
        await self.request("POST", self.upload_path, body, headers=headers, wire="bytes")
        address = urlsplit(answered.get().get("x-goog-upload-url", ""))
        if not address.path.strip("/"):
            raise GenerationError(
                "the server returned no upload address for the batch file",
                kind="server",
                hint="check that base_url is the address of an API with offline batches",
            )
        return address.path, dict(parse_qsl(address.query))  # whatever host it names, the key goes to ours

    async def create_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> Job:
        path = chunk.path.removesuffix(":generateContent") + ":batchGenerateContent"
        batch = {"displayName": chunk.name, "inputConfig": {"fileName": chunk.input_file}}
        return self._job(await self.request("POST", path, orjson.dumps({"batch": batch}), once=True))

    async def find_batch(self, chunk: Chunk, known: set[str]) -> Job | None:
        async for job in self._list():
            fields = _fields(job)
            config = fields.get("inputConfig")
            file = config.get("fileName") if isinstance(config, dict) else None
            if fields.get("displayName") == chunk.name or file == chunk.input_file:
                return self._job(job)
        return None

    async def _list(self) -> AsyncIterator[dict[str, Any]]:
        """Yield all jobs, page by page."""
        query: dict[str, str | int] = {"pageSize": _PAGE}
        seen: set[str] = set()
        while True:
            answer = await self.request("GET", "batches", query=query)
            page = answer.get("operations", answer.get("batches", [])) if isinstance(answer, dict) else None
            if not isinstance(page, list):
                raise _odd("a list of jobs")
            if not page and (refusal := self._refusal(answer)) is not None:
                raise refusal
            for job in page:
                if isinstance(job, dict):
                    yield job
            token = answer.get("nextPageToken")
            if not isinstance(token, str) or not token or token in seen:
                return
            seen.add(token)
            query["pageToken"] = token

    async def batch_job(self, chunk: Chunk) -> Job:
        answer = await self.request("GET", f"batches/{_segment(chunk.job)}")
        # Which job it is, is known; what it says of itself may be anything.
        return self._job({**answer, "name": chunk.job} if isinstance(answer, dict) else answer)

    async def save_results(self, chunk: Chunk, place: str, file: IO[bytes]) -> None:
        path = f"files/{_segment(place)}:download"
        with tempfile.TemporaryFile() as raw:
            await self.request("GET", path, query={"alt": "media"}, save_to=raw)
            await asyncio.to_thread(_copy_with_ids, raw, file)

    async def cancel_batch(self, chunk: Chunk) -> None:
        await self.request("POST", f"batches/{_segment(chunk.job)}:cancel", b"{}")

    def _name_of(self, answer: Any, what: str) -> str:
        name = answer.get("name") if isinstance(answer, dict) else None
        if not isinstance(name, str) or not name or not name.isprintable():
            raise (None if name else self._refusal(answer)) or _odd(what)
        return name

    def _job(self, answer: Any) -> Job:
        name = self._name_of(answer, "a job")
        fields = _fields(answer)
        word = _PREFIX.sub("", clean_words(fields.get("state")).lower())
        if not word and answer.get("done") is True:
            word = "failed" if answer.get("error") else "succeeded"
        state = _STATES.get(word, "created")
        file = _results_file(fields, answer)
        if state == "finished" and not file:
            state = "created"  # the file comes a while after the word
        stats = fields.get("batchStats")
        counts = stats if isinstance(stats, dict) else {}
        return Job(
            id=name,
            state=state,
            provider_state=word,
            counts={name: counts[key] for name, key in _COUNTS.items() if key in counts},
            result_files=(file,) if file else (),
            failure=self._job_failure(answer) if state == "failed" else None,
        )

    def _job_failure(self, answer: dict[str, Any]) -> Failure:
        error = answer.get("error") or {"message": "the job failed"}
        code = error.get("code") if isinstance(error, dict) else None
        return self.classify(status_of_code(code), {}, orjson.dumps({"error": error}))


def _fields(job: dict[str, Any]) -> dict[str, Any]:
    """Return what a job says of itself: it is an operation, whose metadata is the job."""
    metadata = job.get("metadata")
    return metadata if isinstance(metadata, dict) else job


def _results_file(fields: dict[str, Any], answer: dict[str, Any]) -> str:
    for holder in (fields.get("output"), answer.get("response"), answer.get("dest")):
        if isinstance(holder, dict):
            name = holder.get("responsesFile") or holder.get("fileName")
            if isinstance(name, str) and name:
                return name
    return ""


def _segment(name: str) -> str:
    """Return what is behind the collection in a name, such as `files/1`, as one segment of a path."""
    return path_segment(name.partition("/")[2] or name)


def _copy_with_ids(raw: IO[bytes], file: IO[bytes]) -> None:
    """Copy lines of results, with the keys of the requests under the name that the engine reads."""
    raw.seek(0)
    while line := raw.readline(_MAX_LINE_BYTES):
        file.write(_with_id(line))


def _with_id(line: bytes) -> bytes:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        found = _KEY.search(line[:_SEARCHED_BYTES]) or _KEY.search(line[-_SEARCHED_BYTES:])
        return b'{"custom_id":"%b",' % found[1] + line.lstrip()[1:] if found else line
    metadata = value.get("metadata") if isinstance(value, dict) else None
    key = value.get("key") if isinstance(value, dict) else None
    if key is None and isinstance(metadata, dict):
        key = metadata.get("key")
    return b'{"custom_id":%b,' % orjson.dumps(key) + line.lstrip()[1:] if isinstance(key, str) else line


def _odd(what: str) -> UnclearError:
    """Return an error for an answer that a gateway may have sent: the request may have been carried out."""
    return UnclearError(
        f"the server answered with something else than {what}",
        kind="server",
        hint="check that base_url is the address of an API with offline batches",
    )
