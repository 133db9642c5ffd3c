"""Files on their way up and down: whole after a failure, and never whole in memory."""

from __future__ import annotations

import tempfile
import tracemalloc
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse.http import UnclearError, form_upload
from stillhouse.http.transport.attempt import MAX_BODY_BYTES
from stillhouse.offline import Rows
from stillhouse.offline.files import RequestFile, ResultFile, custom_id
from stillhouse.offline.provider import BatchLimits, Framing

from .support import BatchServer


def test_failed_upload_is_retried_from_its_beginning(make: Any, server: BatchServer) -> None:
    llm = make()
    server.faults = {"POST files": ["lost", 503]}
    with tempfile.TemporaryFile() as file:
        size = file.write(b"line\n" * 500_000)
        upload = form_upload({"purpose": "batch"}, "x.jsonl", file, size)
        llm.run_on_loop(llm.request("POST", "files", upload))
    assert [len(content) for content in server.files.values()] == [size, size]


def test_a_download_may_be_larger_than_any_answer(make: Any, server: BatchServer) -> None:
    llm = make()
    server.files["big"] = b"x" * (MAX_BODY_BYTES + 1)
    with tempfile.TemporaryFile() as file:
        llm.run_on_loop(llm.request("GET", "files/big", save_to=file))
        assert file.tell() == MAX_BODY_BYTES + 1
    with pytest.raises(GenerationError, match="MiB"):
        llm.run_on_loop(llm.request("GET", "files/big"))


def test_an_error_is_no_download(make: Any, server: BatchServer) -> None:
    llm = make()
    with tempfile.TemporaryFile() as file:
        server.faults = {"GET files": [404]}
        with pytest.raises(GenerationError, match="injected"):
            llm.run_on_loop(llm.request("GET", "files/x", save_to=file))
        assert file.tell() == 0


@pytest.mark.parametrize(("fault", "unclear"), [("lost", True), (500, True), (400, False), (401, False)])
def test_request_sent_once_is_not_repeated_after_an_unclear_failure(
    make: Any, server: BatchServer, fault: Any, unclear: bool
) -> None:
    llm = make()
    server.files["f"] = b""
    server.faults = {"POST jobs": [fault]}
    with pytest.raises(GenerationError) as caught:
        llm.run_on_loop(llm.request("POST", "jobs", b'{"file": "f", "name": "n"}', once=True))
    assert isinstance(caught.value, UnclearError) is unclear
    assert server.requests.count("POST jobs") == 1


def test_request_sent_once_is_repeated_after_a_definite_refusal(make: Any, server: BatchServer) -> None:
    llm = make()
    server.files["f"] = b""
    server.faults = {"POST jobs": [429]}
    llm.run_on_loop(llm.request("POST", "jobs", b'{"file": "f", "name": "n"}', once=True))
    assert server.requests.count("POST jobs") == 2
    assert len(server.jobs) == 1


def test_redirected_download_is_fetched_without_the_api_key(make: Any, server: BatchServer) -> None:
    llm = make(api_key="sk-secret", default_headers={"x-team": "blue"})
    server.files["f"] = b"content"
    server.faults = {"GET files": ["elsewhere"]}
    with tempfile.TemporaryFile() as file:
        llm.run_on_loop(llm.request("GET", "files/f", save_to=file))
        file.seek(0)
        assert file.read() == b"content"
    asked, fetched = server.headers
    assert (asked["authorization"], asked["x-team"]) == ("Bearer sk-secret", "blue")
    assert "authorization" not in fetched
    assert "x-team" not in fetched
    server.faults = {"GET files": ["elsewhere"]}
    with pytest.raises(GenerationError, match="302"):  # an answer is not looked for elsewhere
        llm.run_on_loop(llm.request("GET", "files/f"))


def test_neither_requests_nor_results_are_held_in_memory() -> None:
    tracemalloc.start()
    try:
        requests = RequestFile("generate", 0, BatchLimits(1000, 10**9), Framing())
        for row in range(60):
            requests.add(row, [b"x" * 2**20], own_form=False)
        requests.finish()
        assert requests.size > 60 * 2**20
        results = ResultFile(requests.name, Rows(range(60)))
        file = results.new_file()
        for row in range(60):
            file.write(
                b'{"custom_id": "%s", "text": "%s"}\n'
                % (custom_id(requests.name, row, 0).encode(), b"x" * 2**20)
            )
        assert results.index() == 60
        assert [part for part, _ in results.results_of(59, 1)] == [0]
        assert tracemalloc.get_traced_memory()[1] < 25 * 2**20
    finally:
        tracemalloc.stop()
    requests.close()
    results.clear()
