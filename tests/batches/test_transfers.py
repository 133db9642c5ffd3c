"""Files on their way up and down: whole after a failure, and never whole in memory."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse.http.failures import UnclearError
from stillhouse.http.transport import LARGEST_BODY
from stillhouse.http.uploads import form_upload

from .support import BatchServer


def test_an_upload_that_failed_is_sent_again_from_its_beginning(make: Any, server: BatchServer) -> None:
    llm = make()
    server.faults = {"POST files": ["lost", 503]}
    with tempfile.TemporaryFile() as file:
        size = file.write(b"line\n" * 500_000)
        upload = form_upload({"purpose": "batch"}, "x.jsonl", file, size)
        llm.run_on_loop(llm.request("POST", "files", upload))
    assert [len(content) for content in server.files.values()] == [size, size]


def test_a_download_may_be_larger_than_any_answer(make: Any, server: BatchServer) -> None:
    llm = make()
    server.files["big"] = b"x" * (LARGEST_BODY + 1)
    with tempfile.TemporaryFile() as file:
        llm.run_on_loop(llm.request("GET", "files/big", save_to=file))
        assert file.tell() == LARGEST_BODY + 1
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
def test_what_must_not_be_repeated_is_not(make: Any, server: BatchServer, fault: Any, unclear: bool) -> None:
    llm = make()
    server.files["f"] = b""
    server.faults = {"POST jobs": [fault]}
    with pytest.raises(GenerationError) as caught:
        llm.run_on_loop(llm.request("POST", "jobs", b'{"file": "f", "name": "n"}', once=True))
    assert isinstance(caught.value, UnclearError) is unclear
    assert server.requests.count("POST jobs") == 1


def test_what_was_surely_not_done_is_repeated_even_so(make: Any, server: BatchServer) -> None:
    llm = make()
    server.files["f"] = b""
    server.faults = {"POST jobs": [429]}
    llm.run_on_loop(llm.request("POST", "jobs", b'{"file": "f", "name": "n"}', once=True))
    assert server.requests.count("POST jobs") == 2
    assert len(server.jobs) == 1
