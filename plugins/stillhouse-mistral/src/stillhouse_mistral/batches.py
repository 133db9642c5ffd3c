"""`MistralBatchLLM`: offline batches as Mistral has them: a file of requests, a job, two files of results."""

from __future__ import annotations

from typing import IO, Any, ClassVar

import orjson

from stillhouse import Capability
from stillhouse.http import Failure, UnclearError
from stillhouse.http.batches import BatchLimits, Job
from stillhouse.offline import Chunk, ChunkState, clean_words, path_segment
from stillhouse_openai.batches import FileBatchLLM

__all__ = ["MistralBatchLLM"]

_STATES: dict[str, ChunkState] = {
    "SUCCESS": "finished",
    "TIMEOUT_EXCEEDED": "expired",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}
"""The states in which a job has ended; in any other it is running."""

_NAME = "stillhouse_chunk"
"""The key of the chunk's name in the job's metadata."""

_PAGE = 100


class MistralBatchLLM(FileBatchLLM):
    """The offline batches of Mistral: files and lines of results are OpenAI's, jobs are its own.

    A job is found again by the id of its file, and by the chunk's name in its metadata.
    """

    capabilities: ClassVar[frozenset[Capability]] = FileBatchLLM.capabilities - {"raw_prompt"}

    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=100_000, bytes=500_000_000)
    batch_endpoints: ClassVar[dict[str, str]] = {"chat/completions": "/v1/chat/completions"}

    def batch_line(self, custom_id: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        # The job names the model, once for all of its lines.
        return {"custom_id": custom_id, "body": {key: body[key] for key in body if key != "model"}}

    def batch_job_body(self, chunk: Chunk) -> dict[str, Any]:
        return {
            "input_files": [chunk.input_file],
            "endpoint": self.batch_endpoints[chunk.path],
            "model": self.model,
            "metadata": {_NAME: chunk.name},
            "timeout_hours": 24,
        }

    async def create_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> Job:
        body = orjson.dumps(self.batch_job_body(chunk))
        return self._job(await self.request("POST", "batch/jobs", body, check=True, once=True))

    async def find_batch(self, chunk: Chunk, known: set[str]) -> Job | None:
        seen: set[str] = set()
        page = 0
        while True:
            query = {"page": page, "page_size": _PAGE}
            answer = await self.request("GET", "batch/jobs", query=query, check=True)
            jobs = answer.get("data") if isinstance(answer, dict) else None
            if not isinstance(jobs, list):
                raise _odd("a list of jobs")
            found = [job for job in jobs if isinstance(job, dict) and isinstance(job.get("id"), str)]
            for job in found:
                if _is_of(job, chunk):
                    return self._job(job)
            ids = {job["id"] for job in found}
            if ids <= seen:  # a page beyond the last, or a server that returns the same for any query
                return None
            seen |= ids
            page += 1

    async def batch_job(self, chunk: Chunk) -> Job:
        answer = await self.request("GET", f"batch/jobs/{path_segment(chunk.job)}")
        # Which job it is, is known; what it says of itself may be anything.
        return self._job({**answer, "id": chunk.job} if isinstance(answer, dict) else answer)

    async def cancel_batch(self, chunk: Chunk) -> None:
        await self.request("POST", f"batch/jobs/{path_segment(chunk.job)}/cancel")

    def _job(self, answer: Any) -> Job:
        if not isinstance(answer, dict):
            raise _odd("a job")
        word = clean_words(answer.get("status"))
        state = _STATES.get(word.upper(), "created")
        files = tuple(_file_id(answer.get(name)) for name in ("output_file", "error_file"))
        # A job of which every request failed is FAILED, too; then the lines of its files say why.
        failed = state == "failed" and not any(files)
        return Job(
            id=answer.get("id"),  # type: ignore[arg-type]  # which is checked there
            state="finished" if state == "failed" and not failed else state,
            provider_state=word,
            counts={
                "total": answer.get("total_requests"),  # type: ignore[dict-item]
                "completed": answer.get("succeeded_requests"),  # type: ignore[dict-item]
                "failed": answer.get("failed_requests"),  # type: ignore[dict-item]
            },
            result_files=files,
            failure=self._job_failure(answer) if failed else None,
        )

    def _job_failure(self, answer: dict[str, Any]) -> Failure:
        errors = answer.get("errors")
        error = errors[0] if isinstance(errors, list) and errors else "the job failed"
        return self.classify(400, {}, orjson.dumps({"error": error}))


def _is_of(job: dict[str, Any], chunk: Chunk) -> bool:
    metadata, files = job.get("metadata"), job.get("input_files")
    if isinstance(metadata, dict) and metadata.get(_NAME) == chunk.name:
        return True
    return isinstance(files, list) and bool(chunk.input_file) and chunk.input_file in files


def _file_id(given: Any) -> str:
    """The id of a file, which some servers send with all that they know of it."""
    id = given.get("id") if isinstance(given, dict) else given
    return id if isinstance(id, str) else ""


def _odd(what: str) -> UnclearError:
    """An error for an answer that a gateway may have sent: the request may have been carried out."""
    return UnclearError(
        f"the server answered with something else than {what}",
        kind="server",
        hint="check that base_url is the address of Mistral's API",
    )
