"""Real answers with odd values in them: a row is done or fails alone, and the types hold."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stillhouse import GenerationError, OfflineBatchNotFinishedError
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.runs.bulk import open_bulk_run
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.online import RunStatistics
from stillhouse.testing.server import ScriptedServer
from stillhouse_openai import OpenAILLM

KEY = "sk-3b1f9c7d2e8a4650"
"""The key of the LLM, which a server may quote anywhere."""

ODD: tuple[Any, ...] = (
    *(2**63, 2**53 + 1, 10**40, 1e308, -1, 0, 0.5, float("nan"), True, False, None),
    *("x", "", "3", "9" * 30, "\ud83d", "\x1b[2J", [1], [[]], [None], {}, {"a": {"b": [1]}}, [{}]),
    *(f"wrong key: {KEY}", KEY[:12], {"error": {"message": f"bad field {KEY}", "code": 400}}),
)

ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": "text",
                "refusal": None,
                "reasoning_content": "hm",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "logprobs": {
                "content": [
                    {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "b", "logprob": -2.5}]}
                ]
            },
        }
    ],
    "usage": {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
}


class Api:
    """The API: row N gets the Nth answer, online and offline."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.server = ScriptedServer(self.respond)
        self.job: Any = {}
        self.line: Any = []
        self.rubbish: list[bytes] = []
        self.files: dict[str, list[Any]] = {}
        self.number = 0

    def llm(self, **fields: Any) -> OpenAILLM:
        given = {
            "model": "m",
            "base_url": f"{self.server.origin}/v1",
            "api_key": KEY,
            "retry_timeout": 0.01,
        }
        return OpenAILLM(**{**given, **fields})

    def begin(self, rows: list[Any], rubbish: list[bytes], line: Any, job: Any) -> None:
        """Prepare a batch: the answers but the last are mutated, and the first line and the job too."""
        self.answers = [ANSWER, *(mutated(ANSWER, row) for row in rows), ANSWER]
        self.rubbish, self.line, self.job = rubbish, line, job
        self.files.clear()

    def respond(self, path: str, body: Any) -> Any:
        parts = path.removeprefix("/v1/").split("/")
        if path.endswith("/chat/completions"):
            return self.sent(self.answers[int(body["messages"][-1]["content"].split()[1])])
        if path == "/v1/files":
            self.number += 1
            lines = [line for line in body.splitlines() if line.startswith(b'{"custom_id"')]
            self.files[f"file-{self.number}"] = [json.loads(line) for line in lines]
            return {"id": f"file-{self.number}"}
        if path == "/v1/batches":
            return {"id": body["input_file_id"].replace("file", "batch"), "status": "in_progress"}
        if parts[0] == "batches":
            whole = {
                "id": parts[1],
                "status": "completed",
                "output_file_id": parts[1].replace("batch", "file"),
            }
            whole |= {"request_counts": {"total": 1}, "errors": None, "error_file_id": None}
            for place, odd, _ in self.job:
                name = sorted(whole)[len(place) % len(whole)]
                # A file that is named must be there, and the transport reads JSON of the standard alone.
                if name in ("request_counts", "errors") or (
                    name == "error_file_id" and not isinstance(odd, str)
                ):
                    whole[name] = odd if odd == odd and odd != "\ud83d" else None
            return self.sent(whole)
        requests = self.files[parts[1]]
        made = []
        for request in requests:
            number = int(request["body"]["messages"][-1]["content"].split()[1])
            response = {"status_code": 200, "request_id": "r", "body": self.answers[number]}
            whole = {"custom_id": request["custom_id"], "response": response, "error": None}
            if number == 0:
                for place, odd, removed in self.line:
                    names = [
                        ("response",),
                        ("response", "status_code"),
                        ("error",),
                        ("response", "request_id"),
                    ]
                    whole = replaced(whole, names[len(place) % 4], odd, removed=removed)
            made.append(json.dumps(whole).encode())
        return b"\n".join([*self.rubbish, *made, b""])

    @staticmethod
    def sent(answer: Any) -> bytes:
        return json.dumps(answer).encode()


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all nodes."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths_of(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], odd: Any, *, removed: bool = False) -> Any:
    """A copy with the node at this place replaced, or removed; the same if there is no such place."""
    if not path:
        return odd
    changed = copy.deepcopy(value)
    holder = changed
    try:
        for key in path[:-1]:
            holder = holder[key]
        if removed:
            del holder[path[-1]]
        else:
            holder[path[-1]] = odd
    except (KeyError, IndexError, TypeError):
        pass
    return changed


def assert_without_key(text: str) -> None:
    """Hold an error to showing no part of the key."""
    parts = [KEY[place : place + 8] for place in range(len(KEY) - 7)]
    assert not [part for part in parts if part in text]


def check(result: Any) -> None:
    """Hold a result to the contract: an output with everything of its type, or an error of its row."""
    if isinstance(result, GenerationError):
        assert result.message
        assert_without_key(f"{result}{result!r}{result.__cause__!r}")
        assert len(result.message) < 2_000
        return
    (text,) = result["generations"]
    assert text is None or isinstance(text, str)
    for counts in result["statistics"].values():
        assert all(type(count) is int and 0 <= count <= 2**53 for count in counts)
    for reasons in (result.get("finish_reasons"), result.get("reasoning")):
        assert all(reason is None or isinstance(reason, str) for reason in reasons or ())
    for calls in result.get("tool_calls") or ():
        assert all(isinstance(call, dict) for call in calls or ())
    for positions in result.get("logprobs") or ():
        for candidates in positions or ():
            assert all(isinstance(item["token"], str) for item in candidates)
            assert all(type(item["logprob"]) in (int, float) for item in candidates)
    json.dumps(result, ensure_ascii=False, allow_nan=False).encode()


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    served = Api()
    yield served
    served.server.close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("stillhouse.offline.engine.backoff_seconds", lambda attempt: 0.0)
    monkeypatch.setattr("stillhouse.offline.sending.SETTLE_SECONDS", 0.0)


def test_no_node_of_an_answer_ends_a_run(api: Api, tmp_path: Path) -> None:
    paths = [path for path in paths_of(ANSWER) if path]
    api.answers = [ANSWER, *(replaced(ANSWER, path, odd) for path in paths for odd in ODD), ANSWER]
    source, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows = [json.dumps({"prompt": f"row {place}"}) for place in range(len(api.answers))]
    source.write_text("\n".join(rows))
    with api.llm(max_concurrency=32) as llm:
        command = Command(str(source), str(output), RowFormatter())
        with open_bulk_run(llm, command) as bulk:
            assert bulk.work(RunStatistics())
    written = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(written) == len(api.answers) > 300
    assert written[0]["generations"] == written[-1]["generations"] == ["text"]
    for row in written:
        if row["error"] is not None:
            assert_without_key(json.dumps(row["error"]))
        else:
            kept = {key: value for key, value in row.items() if key in CHECKED and value is not None}
            check({"statistics": {}, **kept})
    # What is not the text itself costs few rows their text.
    assert sum(row["error"] is None for row in written) > 0.7 * len(written)


CHECKED = ("generations", "statistics", "finish_reasons", "reasoning", "tool_calls", "logprobs")

PATHS = list(paths_of(ANSWER))
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(PATHS), st.sampled_from(ODD), st.booleans()), min_size=1, max_size=3
)


def mutated(answer: Any, mutations: list[tuple[tuple[Any, ...], Any, bool]]) -> Any:
    for path, odd, removed in mutations:
        answer = replaced(answer, path, odd, removed=removed)
    return answer


QUICK = settings(
    max_examples=int(os.environ.get("STILLHOUSE_EXAMPLES", "15")),
    derandomize=True,
    deadline=None,
    phases=(Phase.generate,),  # a smaller example is not worth minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@given(st.lists(MUTATIONS, min_size=1, max_size=12))
@QUICK
def test_a_row_is_done_or_fails_alone(api: Api, rows: list[Any]) -> None:
    api.answers = [ANSWER, *(mutated(ANSWER, row) for row in rows)]
    with api.llm() as llm:
        chats = [[{"role": "user", "content": f"row {place}"}] for place in range(len(api.answers))]
        results = dict(llm.iter_outputs(chats, on_error="yield"))
        assert results.keys() == set(range(len(chats)))
        for result in results.values():
            check(result)
        assert results[0]["generations"] == ["text"]
        try:
            outputs = llm.generate_outputs(chats)
        except GenerationError as error:
            outputs = [output for output in error.outputs if output is not None]
        for output in outputs:
            check(output)


LINES = st.sampled_from(
    [b"not json", b"", b"[1]", b"{}", b"\xef\xbb\xbf", b'{"custom_id": 5}', b"\xff\xfe{", b'{"a": NaN}']
)


@given(st.lists(MUTATIONS, min_size=1, max_size=6), st.lists(LINES, max_size=3), MUTATIONS, MUTATIONS)
@QUICK
def test_a_row_of_a_batch_is_done_or_fails_alone(
    api: Api, rows: list[Any], rubbish: list[bytes], line: Any, job: Any
) -> None:
    api.begin(rows, rubbish, line, job)
    chats = [[{"role": "user", "content": f"row {place}"}] for place in range(len(rows) + 2)]
    with api.llm() as llm:
        for _ in range(4):
            try:
                outputs: Any = llm.offline_batch_generate(chats)
                break
            except OfflineBatchNotFinishedError:
                continue
            except GenerationError as error:
                outputs = error.outputs
                if len(outputs) == len(chats):
                    break
        else:
            pytest.fail("it never ends")
    assert len(outputs) == len(chats)
    for output in outputs:
        if output is not None:
            check(output)
    assert outputs[-1]["generations"] == ["text"]


@pytest.mark.parametrize("reason", [odd for odd in ODD if odd != ""], ids=repr)
def test_a_finish_reason_of_any_type_costs_no_row(reason: Any) -> None:
    """A list was a row that failed, online alone."""
    (choice,) = ANSWER["choices"]
    answer = {**ANSWER, "choices": [{**choice, "finish_reason": reason}]}
    assert OpenAILLM(model="m").failure_in(answer, {}) is None
