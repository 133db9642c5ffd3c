"""Whatever a job or a line of its results holds, no more than that line's row is lost to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError, OfflineBatchNotFinishedError
from stillhouse.http import Failure
from stillhouse.offline import Job, OfflineBatch, Rows
from stillhouse.offline.failures import UnclearError
from stillhouse.offline.files import ResultFile, custom_id
from stillhouse.offline.ledger import BatchLedger
from stillhouse.offline.provider import clean_words, path_segment

from .support import BatchServer, TinyLLM, chats

INPUTS = chats("a", "b", "c", "d")


def submit(llm: Any, inputs: Any = INPUTS) -> None:
    with pytest.raises(OfflineBatchNotFinishedError):
        llm.offline_batch_generate(inputs)


def texts(outputs: Any) -> list[Any]:
    return [output and output["generations"] for output in outputs]


def collected(llm: Any, inputs: Any = INPUTS) -> tuple[list[Any], GenerationError | None]:
    try:
        return texts(llm.offline_batch_generate(inputs)), None
    except GenerationError as error:
        return texts(error.outputs), error


def rewritten(server: BatchServer, change: Callable[[list[bytes]], list[bytes]], job: str = "job-0") -> None:
    """Change the lines of the results, which are in the order of the requests."""
    name = f"output-{job}"
    server.files[name] = b"\n".join([*change(server.files[name].split(b"\n")), b""])


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [b"not json", *lines],
        lambda lines: [*lines, b"not json"],
        lambda lines: [b"\xef\xbb\xbf" + lines[0], *lines[1:]],
        lambda lines: [b"[1]", b'"text"', b"null", b"{}", b'{"custom_id": 5}', b"<html>", *lines],
        lambda lines: [
            b'{"custom_id": "sh-1-2-\xd9\xa3"}',
            b'{"custom_id": "x-%s-0"}' % (b"9" * 5000),
            *lines,
        ],
        lambda lines: [b"\r\n", b" ", *(line + b"\r" for line in lines)],
        lambda lines: [b"[" * 100_000, *lines],
    ],
)
def test_rubbish_among_the_lines_costs_nothing(
    make: Any, server: BatchServer, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    llm = make()
    submit(llm)
    server.finish(reverse=False)
    rewritten(server, change)
    assert collected(llm) == ([["A"], ["B"], ["C"], ["D"]], None)
    assert server.requests.count("GET files/output-job-0") == 1
    assert len(server.jobs) == 1


@pytest.mark.parametrize("text", [rb"\ud83d", b"\xff\xfe", b"x\ty\x01"])
def test_a_line_that_is_nearly_json_is_read(make: Any, server: BatchServer, text: bytes) -> None:
    llm = make()
    submit(llm)
    server.finish(reverse=False)
    rewritten(server, lambda lines: [lines[0].replace(b'"A"', b'"%s"' % text), *lines[1:]])
    (first, *rest), error = collected(llm)
    assert error is None
    assert rest == [["B"], ["C"], ["D"]]
    (read,) = first
    assert read.encode().replace("\ufffd".encode(), b"") in (b"", b"x\ty\x01")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:-9],
        lambda line: line.replace(b'"answer"', b'"answer"' + b"[" * 3_000),
        lambda line: line.replace(b'"answer"', b'"other"'),
        lambda line: line.replace(b'{"texts": ["B"]}', b'{"texts": 5}'),
        lambda line: line.replace(b'{"texts": ["B"]}', b'{"texts": [5]}'),
        lambda line: line.replace(b'{"texts": ["B"]}', b'"text"'),
        lambda line: line.replace(b'"answer": {"texts": ["B"]}', b'"error": {}'),
        lambda line: line.replace(b'"answer": {"texts": ["B"]}', b'"error": "no"'),
        lambda line: line.replace(b'"answer": {"texts": ["B"]}', b'"error": {"status": "429"}'),
    ],
)
def test_an_odd_line_fails_its_row_alone(
    make: Any, server: BatchServer, spoil: Callable[[bytes], bytes]
) -> None:
    llm = make()
    submit(llm)
    server.finish(reverse=False)
    rewritten(server, lambda lines: [lines[0], spoil(lines[1]), *lines[2:]])
    found, error = collected(llm)
    assert error is not None
    assert found[:1] + found[2:] == [["A"], ["C"], ["D"]]
    assert found[1] is None
    assert "1 of 4 inputs failed" in error.message
    assert server.requests.count("GET files/output-job-0") == 1
    assert len(server.jobs) == 1


def test_a_line_of_any_length_is_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.offline.files.MAX_LINE_BYTES", 1000)
    results = ResultFile("sh-1", Rows(range(5)))
    file = results.new_file()

    def line(row: int, filler: int, end: bytes = b"\n") -> bytes:
        name = custom_id("sh-1", row, 0).encode()
        return b'{"custom_id": "%s", "text": "%s"}' % (name, b"x" * filler) + end

    file.write(line(0, 5) + line(1, 3_000_000) + line(2, 5) + line(3, 940) + line(4, 5_000, b""))
    assert (results.index(), results.lines, results.is_cut) == (4, 4, True)
    read = {row: [item and len(item["text"]) for _, item in results.results_of(row, 1)] for row in range(5)}
    assert read == {0: [5], 1: [None], 2: [5], 3: [940], 4: []}
    results.clear()


def test_a_readable_line_counts_before_an_unreadable_one() -> None:
    results = ResultFile("sh-1", Rows([0]))
    results.new_file().write(b'{"custom_id": "sh-1-0-0" ?}\n{"custom_id": "sh-1-0-0", "n": 1}\n')
    assert results.index() == 1
    assert list(results.results_of(0, 1)) == [(0, {"custom_id": "sh-1-0-0", "n": 1})]
    results.clear()


def test_results_that_stay_cut_off_are_taken_as_they_are_at_last(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm)
    server.finish(reverse=False)
    whole = server.files["output-job-0"]
    server.files["output-job-0"] = whole[: len(whole) * 2 // 3]
    _, error = collected(llm)
    assert error is not None
    assert "not whole" in error.message
    assert len(server.jobs) == 1
    submit(llm)  # what is missing goes out again
    assert server.requests.count("GET files/output-job-0") == 6
    (again,) = [job for job in server.jobs.values() if job.id != "job-0"]
    assert server.texts(again) == ["c", "d"]
    server.finish()
    assert collected(llm) == ([["A"], ["B"], ["C"], ["D"]], None)


def test_a_last_line_that_stays_bad_is_fetched_twice(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm)
    server.finish(reverse=False)
    server.files["output-job-0"] = server.files["output-job-0"][:-4]
    submit(llm)
    assert server.requests.count("GET files/output-job-0") == 2
    assert server.texts(server.jobs["job-1"]) == ["d"]


def test_missing_lines_are_waited_for_once(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm)
    server.finish(reverse=False)
    rewritten(server, lambda lines: lines[:2])
    assert "not whole" in str(collected(llm)[1])
    submit(llm)
    assert server.texts(server.jobs["job-1"]) == ["c", "d"]


ODD: tuple[Any, ...] = ("x", 5, 2**63, 1e308, True, [1], {}, {"a": {}}, "\x1b]0;title\x07\x1b[2J", "\ud83d")


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_no_field_of_a_job_ends_in_a_traceback(make: Any, server: BatchServer, odd: Any) -> None:
    class LooseLLM(TinyLLM):
        """As a backend that hands on what the provider says."""

        def _job(self, job: Any) -> Job:
            state: Any = {"completed": "finished"}.get(job["status"], "created")
            return Job(job["id"], state, odd, odd, (*job["files"], odd), None)

    llm = make(LooseLLM)
    submit(llm)
    submit(llm)
    server.finish(reverse=False)
    server.files["x"] = b""
    assert collected(llm) == ([["A"], ["B"], ["C"], ["D"]], None)


def test_the_words_of_a_job_are_one_clean_line() -> None:
    job = Job(
        "j", "created", "in\x1b[2J\n\x9bprogress \u202e", {"done\x07": "3", "x": -1, "y": True}, ("f", "", 5)
    )  # type: ignore[dict-item, arg-type]
    assert (job.provider_state, job.counts, job.result_files) == ("in [2J progress", {"done": 3}, ("f",))
    assert clean_words("a" * 10_000) == "a" * 500
    assert clean_words({"a": 1}) == clean_words(None) == ""
    for id in ("", "\x1b", "a\nb", "a" * 2_000, None, 5):
        with pytest.raises(UnclearError):
            Job(id, "created", "")  # type: ignore[arg-type]


@pytest.mark.parametrize("id", ["..", "."])
def test_an_id_of_dots_alone_is_refused(make: Any, id: str) -> None:
    with pytest.raises(ConfigurationError, match="leads out of the API"):
        make().url_of(make()._base, f"files/{path_segment(id)}/content")


@pytest.mark.parametrize(
    "id",
    [
        "../../../admin?x=",
        "a/b",
        "\\\\host\\x",
        "/etc/passwd",
        "a/../b",
        "%2e%2e%2fadmin",
        "a%2fb",
        "x?y=1#z",
    ],
)
def test_an_id_never_leads_to_another_path(make: Any, id: str) -> None:
    url = make().url_of(make()._base, f"files/{path_segment(id)}/content")
    assert url.raw_path.startswith("/v1/files/")
    assert url.raw_path.endswith("/content")
    assert len(url.raw_parts) == 5
    assert (url.raw_query_string, url.raw_fragment) == ("", "")
    assert ".." not in url.raw_parts
    assert path_segment("file-abc_1:2@x.jsonl") == "file-abc_1:2@x.jsonl"


def test_a_job_that_is_gone_is_told_and_frees_its_rows_when_it_is_cancelled(
    make: Any, server: BatchServer
) -> None:
    class SmallLLM(TinyLLM):
        batch_limits = TinyLLM.batch_limits.__class__(requests=2, bytes=10_000)

    llm = make(SmallLLM)
    submit(llm)
    server.finish(server.jobs["job-1"], reverse=False)
    server.faults = {"GET jobs": [404]}
    found, error = collected(llm)
    assert error is not None
    assert "job-0 is not to be had from the provider any more (status 404" in error.message
    assert "--cancel" in error.hint
    assert "cancel_offline_batch" in error.hint
    assert error.stops_run
    # It did not hold up the other job, and nothing was sent twice.
    assert server.requests.count("GET files/output-job-1") == 1
    assert len(server.jobs) == 2
    server.faults = {"GET jobs": [404], "POST jobs": [404]}
    llm.cancel_offline_batch()
    found, error = collected(llm)
    assert found == [None, None, ["C"], ["D"]]
    assert "cancelled before its turn" in str(error)
    assert len(server.jobs) == 2
    submit(llm, INPUTS[:2])


def test_a_job_that_shows_up_again_goes_on(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm)
    server.faults = {"GET jobs": [404]}
    assert collected(llm)[1] is not None
    server.finish()
    assert collected(llm) == ([["A"], ["B"], ["C"], ["D"]], None)
    assert len(server.jobs) == 1


def test_a_fresh_job_that_is_not_shown_yet_goes_on(
    make: Any, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.offline.sending.SETTLE_SECONDS", 3600.0)
    llm = make()
    submit(llm)
    server.faults = {"GET jobs": [404]}
    submit(llm)
    server.faults = {"GET jobs": [404], "POST jobs": [404]}
    with pytest.raises(GenerationError, match="404"):
        llm.cancel_offline_batch()


def test_results_that_are_gone_are_told_and_their_rows_can_be_freed(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm)
    server.finish()
    server.faults = {"GET files": [404]}
    _, error = collected(llm)
    assert "a file of results of the job job-0 is not to be had" in str(error)
    llm.cancel_offline_batch()
    _, error = collected(llm)
    assert "cancelled before its turn" in str(error)
    assert len(server.jobs) == 1


def test_what_a_backend_adds_is_kept_as_text(make: Any, server: BatchServer) -> None:
    class AddingLLM(TinyLLM):
        def batch_answer(self, answer: Any, path: str) -> Any:
            return {
                **super().batch_answer(answer, path),
                "own": [object()],
                "deep": [json.loads("[" * 80 + "]" * 80)],
            }

    llm = make(AddingLLM)
    submit(llm)
    server.finish()
    outputs = llm.offline_batch_generate(INPUTS)
    assert outputs[0]["own"][0].startswith("<object")
    assert "deep" not in outputs[0]


def test_no_result_shows_the_key_that_the_provider_quotes(make: Any, server: BatchServer) -> None:
    """Online it was masked; offline it was kept in the ledger, and written with the row."""
    key = "sk-1234567890abcdef"
    llm, inputs = make(api_key=key), chats("a", f"wrong key {key}")
    submit(llm, inputs)
    server.finish(outcome=lambda body: 400 if key in body["text"] else body["text"])
    got, error = collected(llm, inputs)
    assert got == [["a"], None]
    assert error is not None
    assert key not in str(error)
    assert "wrong key **********" in str(error)


def test_the_state_of_a_job_does_not_show_the_key(make: Any, server: BatchServer, tmp_path: Any) -> None:
    key = "sk-1234567890abcdef"

    class QuotingLLM(TinyLLM):
        def _job(self, job: Any) -> Job:
            failure = Failure("authentication", f"wrong key {key}")
            return Job(job["id"], "failed", "failed", {}, (), failure)

        def batch_request(self, input: Any, num_generations: int, arguments: Any) -> Any:
            raise ValueError(f"refused by {key}")

    sent = make(api_key=key)
    refused: list[GenerationError] = []
    with BatchLedger(tmp_path / "ledger") as ledger:
        OfflineBatch(sent, ledger, "run").submit(enumerate(INPUTS), pytest.fail)
        quoting = OfflineBatch(make(QuotingLLM, api_key=key), ledger, "run")
        (chunk,) = quoting.poll()
        assert chunk.message == "wrong key **********"
        quoting.submit([(9, INPUTS[0])], lambda _, error: refused.append(error))
    (error,) = refused
    assert "failed: ValueError: refused by ********** (" in error.message
