"""A provider with offline batches on a real socket, and the smallest backend for it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, ClassVar

import orjson
from aiohttp import web

from stillhouse import FormattedInput, GenerateOutput, prepare_output
from stillhouse.http import Failure, form_upload
from stillhouse.http.batches import BatchHTTPLLM, BatchLimits, Job, JobResult
from stillhouse.offline import Chunk
from stillhouse.typing import Capability

Outcome = Any
"""What becomes of a request: a text; an int, a status; `missing`, `expired` or `cancelled`."""


def echo(body: dict[str, Any]) -> Outcome:
    return body["text"].upper()


@dataclass
class ServedJob:
    id: str
    body: dict[str, Any]
    lines: list[dict[str, Any]]
    status: str = "in_progress"
    files: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


class BatchServer:
    """Files and jobs, in memory. A job goes on until the test says `finish`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, ServedJob] = {}
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.faults: dict[str, list[Any]] = {}
        """By `METHOD first-part-of-path`, used up from the front: a status, or `lost` or `cut`."""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    def finish(
        self,
        job: ServedJob | None = None,
        outcome: Callable[[dict[str, Any]], Outcome] = echo,
        *,
        status: str = "completed",
        reverse: bool = True,
        duplicate: bool = False,
        count: bool = True,
    ) -> None:
        """End a job, or all that go on; the results come in another order than the requests."""
        for one in [job] if job else [one for one in self.jobs.values() if one.status == "in_progress"]:
            good: list[bytes] = []
            bad: list[bytes] = []
            for line in reversed(one.lines) if reverse else one.lines:
                result = outcome(line["body"])
                if result == "missing":
                    continue
                entry: dict[str, Any] = {"custom_id": line["custom_id"]}
                if isinstance(result, int):
                    entry["error"] = {"status": result, "message": f"no: {line['body']['text']}"}
                elif result in ("expired", "cancelled"):
                    entry["error"] = {"code": result}
                else:
                    entry["answer"] = {"texts": [result] * line["body"].get("n", 1)}
                (bad if "error" in entry else good).append(json.dumps(entry).encode())
                if duplicate:
                    entry = {"custom_id": line["custom_id"], "answer": {"texts": ["again"]}}
                    good.append(json.dumps(entry).encode())
            if count:
                one.counts = {"completed": len(good), "failed": len(bad), "total": len(one.lines)}
            for kind, lines in (("output", good), ("error", bad)):
                if lines:
                    name = f"{kind}-{one.id}"
                    self.files[name] = b"\n".join(lines)
                    one.files.append(name)
            one.status = status

    def texts(self, job: ServedJob) -> list[str]:
        return [line["body"]["text"] for line in job.lines]

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/v1/{rest:.*}", self._handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._ready.set()
        await self._over.wait()
        await runner.cleanup()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        parts = request.match_info["rest"].split("/")
        name = f"{request.method} {parts[0]}"
        self.requests.append(f"{request.method} {'/'.join(parts)}")
        self.headers.append({key.lower(): text for key, text in request.headers.items()})
        faults = self.faults.get(name) or [None]
        fault = faults.pop(0)
        if isinstance(fault, int):
            return web.json_response({"error": {"message": "injected"}}, status=fault)
        answer = await self._answer(request, parts)
        if fault == "lost":  # it was carried out, and nobody is told
            assert request.transport is not None
            request.transport.abort()
            return answer
        if fault == "elsewhere":
            return web.Response(status=302, headers={"location": f"{self.url}/{'/'.join(parts)}?signed=yes"})
        if fault == "cut" and isinstance(answer.body, bytes):
            return web.Response(body=answer.body[: len(answer.body) * 2 // 3])
        return answer

    async def _answer(self, request: web.Request, parts: list[str]) -> web.Response:
        match request.method, parts:
            case "POST", ["files"]:
                form = await request.post()
                name = f"file-{len(self.files)}"
                self.files[name] = form["file"].file.read()  # type: ignore[union-attr]
                return web.json_response({"id": name})
            case "POST", ["jobs"]:
                body = await request.json()
                lines = [json.loads(line) for line in self.files[body["file"]].splitlines()]
                job = ServedJob(f"job-{len(self.jobs)}", body, lines)
                self.jobs[job.id] = job
                return self._shown(job)
            case "GET", ["jobs"]:
                return web.json_response([self._plain(job) for job in reversed(self.jobs.values())])
            case "GET", ["jobs", id]:
                return self._shown(self.jobs[id])
            case "POST", ["jobs", id, "cancel"]:
                self.finish(self.jobs[id], lambda body: "missing", status="cancelled")
                return self._shown(self.jobs[id])
            case "GET", ["files", name]:
                return web.Response(body=self.files[name])
            case "POST", ["generate"]:
                return web.json_response({"texts": ["online"]})
        return web.Response(status=404)

    def _plain(self, job: ServedJob) -> dict[str, Any]:
        return {
            "id": job.id,
            "name": job.body["name"],
            "status": job.status,
            "files": job.files,
            "counts": job.counts,
        }

    def _shown(self, job: ServedJob) -> web.Response:
        return web.json_response(self._plain(job))


STATES = {"completed": "finished", "expired": "expired", "failed": "failed", "cancelled": "cancelled"}


class TinyLLM(BatchHTTPLLM):
    """Sends the text of the last message, and may make several generations at once."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "num_generations", "choice", "offline_batch"}
    )
    api_key_required: ClassVar[bool] = False
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=1000, bytes=1_000_000)

    @classmethod
    def form_fields(cls, structured_output: Any) -> dict[str, Any]:
        return {"choices": structured_output["schema"]}

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, temperature: float | None = None
    ) -> GenerateOutput:
        return prepare_output((await self.post("generate", {}))["texts"] * num_generations)

    def batch_request(
        self, input: Any, num_generations: int, arguments: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        chat, form = self.split(input)
        body = {
            "text": chat[-1]["content"],
            **{key: value for key, value in arguments.items() if value is not None},
        }
        if num_generations > 1:
            body["n"] = num_generations
        return "generate", body | (form.fields if form else {})

    def batch_line(self, custom_id: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": custom_id, "body": body}

    def batch_answer(self, answer: Any, path: str) -> GenerateOutput:
        return prepare_output(answer["texts"], finish_reasons=["stop"] * len(answer["texts"]))

    def batch_result(self, line: dict[str, Any]) -> JobResult:
        error = line.get("error")
        if error is None:
            return JobResult(line["answer"])
        if "status" in error:
            return JobResult(failure=self.classify(error["status"], {}, orjson.dumps({"error": error})))
        if error["code"] == "cancelled":
            return JobResult()
        return JobResult(failure=Failure("timeout", "expired", retried=True))

    async def upload_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> str:
        answer = await self.request("POST", "files", form_upload({"purpose": "batch"}, "x.jsonl", file, size))
        return str(answer["id"])

    async def create_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> Job:
        body = orjson.dumps({"file": chunk.input_file, "name": chunk.name})
        return self._job(await self.request("POST", "jobs", body, once=True))

    async def find_batch(self, chunk: Chunk, known: set[str]) -> Job | None:
        jobs = await self.request("GET", "jobs")
        return next((self._job(job) for job in jobs if job["name"] == chunk.name), None)

    async def batch_job(self, chunk: Chunk) -> Job:
        return self._job(await self.request("GET", f"jobs/{chunk.job}"))

    async def save_results(self, chunk: Chunk, place: str, file: IO[bytes]) -> None:
        await self.request("GET", f"files/{place}", save_to=file)

    async def cancel_batch(self, chunk: Chunk) -> None:
        await self.request("POST", f"jobs/{chunk.job}/cancel")

    def _job(self, job: Any) -> Job:
        failure = (
            Failure("rate_limit", "the queue is full", retried=True) if job["status"] == "failed" else None
        )
        state: Any = STATES.get(job["status"], "created")
        return Job(job["id"], state, job["status"], job["counts"], tuple(job["files"]), failure)


class SingleLLM(TinyLLM):
    """Makes one generation a request."""

    _num_generations_param_supported: bool = False  # type: ignore[assignment]

    async def agenerate(self, input: FormattedInput, temperature: float | None = None) -> GenerateOutput:  # type: ignore[override]
        return prepare_output((await self.post("generate", {}))["texts"])


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def chats(*texts: str) -> list[Any]:
    return [chat(text) for text in texts]
