"""Answers that are no JSON, by choice or by accident: bytes, lines, events, and what never ends."""

from __future__ import annotations

import contextlib
import gzip
import socket
import struct
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import orjson
import pytest
from pydantic import Field

from stillhouse import ConfigurationError, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.http import HTTPLLM, Request, ServerEvent, Wire

from .conftest import Reply, ScriptedServer
from .raw import chunked, raw_server

CHAT: Any = [{"role": "user", "content": "hello"}]


class WireLLM(HTTPLLM):
    """A backend whose answers come by any wire; it keeps what `output_of` got."""

    api_key_required: ClassVar[bool] = False
    wire: Wire = "json"
    got: list[Any] = Field(default_factory=list)

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, max_new_tokens: int | None = None
    ) -> GenerateOutput:
        arguments = {"max_new_tokens": max_new_tokens}
        return await self.complete(input, num_generations, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        return Request("generate", {"input": input}, wire=self.wire)

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        self.got.append(answer)
        return prepare_output([str(answer)])


class JoiningLLM(WireLLM):
    """One whose API may stream of its own accord."""

    def answer_of_events(self, events: list[Any]) -> Any:
        assert events.pop() == "[DONE]"
        return {"text": "".join(event["text"] for event in events)}

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return prepare_output([answer["text"]])


@contextlib.contextmanager
def loaded(url: str, cls: type[WireLLM] = WireLLM, **fields: Any) -> Iterator[WireLLM]:
    given = {"model": "m", "base_url": url, "retry_timeout": 5.0, **fields}
    with cls(**given) as llm:
        yield llm


def failure(llm: HTTPLLM, **arguments: Any) -> GenerationError:
    with pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT], **arguments)
    return caught.value


@pytest.mark.parametrize(
    ("wire", "body", "answer"),
    [
        ("json", b' {"a": 1}', {"a": 1}),
        ("bytes", b"\x81\xa1a\x01", b"\x81\xa1a\x01"),
        ("lines", b'{"a": 1}\n\n{"b": 2}\r\n{"c": 3}', [b'{"a": 1}', b'{"b": 2}', b'{"c": 3}']),
        (
            "events",
            b": a comment\n\nretry: 3000\n\nid: 7\nevent: part\ndata: one\ndata:two\n\n\ndata: {}\n\ndata: [DONE]\n\ndata: 1\n\n",
            [
                ServerEvent("one\ntwo", "part", "7"),
                ServerEvent("{}", "", "7"),
                ServerEvent("[DONE]", "", "7"),
            ],
        ),
    ],
)
def test_wire_says_what_output_of_gets(server: ScriptedServer, wire: Wire, body: bytes, answer: Any) -> None:
    server.script = [Reply(429), Reply(body=b""), Reply(body=body)]
    with loaded(server.url, wire=wire, got=[]) as llm:
        llm.generate_outputs([CHAT])
        assert llm.got == [answer]
    assert not server.script, "every wire is retried"


def test_lines_and_events_are_put_together_from_any_blocks() -> None:
    text = 'data: {"text": "Zürich \U0001f600"}\n\n'.encode()
    blocks = [text[place : place + 1] for place in range(len(text))]
    with raw_server(lambda connection, _: chunked(connection, *blocks)) as server:
        with loaded(server.url, wire="events", got=[]) as llm:
            llm.generate_outputs([CHAT])
            assert llm.got == [[ServerEvent('{"text": "Zürich \U0001f600"}')]]
        with loaded(server.url, wire="lines", got=[]) as llm:
            llm.generate_outputs([CHAT])
            assert llm.got == [[text.rstrip()]]


@pytest.mark.parametrize("content_type", ["text/event-stream; charset=utf-8", "application/json"])
@pytest.mark.parametrize("ends", [True, False], ids=["ends", "stays open"])
def test_stream_where_json_was_asked_is_joined(content_type: str, ends: bool) -> None:
    if not ends and content_type == "application/json":
        pytest.skip("nothing says that it is a stream")
    blocks = [b'data: {"text": "h', b'e"}\n', b'\ndata: {"text": "llo"}\n\ndata: [DO', b"NE]\n\n"]

    def answer(connection: socket.socket, _: bytes) -> None:
        chunked(connection, *blocks, content_type=content_type, end=ends)

    with raw_server(answer) as server, loaded(server.url, JoiningLLM, timeout=30) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["hello"]


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("text/event-stream", b'data: {"delta": "he"}\n\ndata: [DONE]\n\n', "text/event-stream"),
        ("application/msgpack", b"\x82\xa4text\xa4fine", "application/msgpack"),
        ("text/html", b"<!doctype html><html><body>Please log in</body></html>", "page"),
        ("application/json", b'{"text": fine}', "JSON"),
    ],
)
def test_answer_that_cannot_be_read_is_not_paid_for_again(
    server: ScriptedServer, content_type: str, body: bytes, said: str
) -> None:
    server.answer = lambda _: Reply(body=body, headers={"content-type": content_type})
    with loaded(server.url) as llm:
        error = failure(llm)
    assert said in error.message
    assert error.hint
    assert len(server.requests) == error.attempts == 1


BUSY = {"message": "slow down", "code": 429}
STREAMS = [
    pytest.param("lines", b'{"text": "h"}\n{"error": %s}\n' % orjson.dumps(BUSY), "rate_limit", id="line"),
    pytest.param("events", b'data: {"error": %s}\n\n' % orjson.dumps(BUSY), "rate_limit", id="event"),
    pytest.param(
        "events", b"event: error\ndata: %s\n\n" % orjson.dumps(BUSY), "rate_limit", id="typed event"
    ),
    pytest.param(
        "events",
        b'data: {"text": "h"}\n\nevent: error\ndata: {"type": "error", "error": {"type": "overloaded_error"}}\n\n',
        "server",
        id="after the text",
    ),
    pytest.param("events", b"event: error\ndata: the model is overloaded\n\n", "server", id="no JSON"),
]


@pytest.mark.parametrize(("wire", "body", "kind"), STREAMS)
def test_error_in_a_stream_is_what_its_status_would_be(
    server: ScriptedServer, wire: Wire, body: bytes, kind: str
) -> None:
    server.script = [Reply(body=body), Reply(body=b"data: fine\n\n")]
    with loaded(server.url, wire=wire, got=[]) as llm:
        llm.generate_outputs([CHAT])
        assert len(llm.got) == 1, "output_of got the error"
    assert len(server.requests) == 2
    server.answer = lambda _: Reply(body=body)
    with loaded(server.url, wire=wire, got=[], retry_timeout=0.0) as llm:
        assert failure(llm).kind == kind


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        ("lines", b'{"text": "say \\"error\\": {}"}\n{"error": null}\nno JSON "error"\n'),
        ("events", b'data: {"text": "an \\"error\\""}\n\ndata: {"logs": {"error": 1}}\n\ndata: [DONE]\n\n'),
        ("bytes", b'{"error": {"code": 429}}'),
    ],
)
def test_stream_that_only_speaks_of_errors_is_an_answer(
    server: ScriptedServer, wire: Wire, body: bytes
) -> None:
    server.script = [Reply(body=body)]
    with loaded(server.url, wire=wire, got=[]) as llm:
        llm.generate_outputs([CHAT])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "kind", "said", "requests"),
    [
        (b'{"text": "fine"}', "server", "application/json, not a stream of events; it begins", 1),
        (b"<html>Please log in</html>", "invalid_request", "a page", 1),
        (b'{"error": {"code": 401, "message": "who are you?"}}', "authentication", "who are you?", 1),
        (b": keep-alive\n\n: keep-alive\n\n", "server", "empty", 2),
        (b" \n", "server", "empty", 2),
    ],
)
def test_answer_without_events_says_what_it_is(
    server: ScriptedServer, body: bytes, kind: str, said: str, requests: int
) -> None:
    server.script = [Reply(body=body), *[Reply(400, b'{"message": "it was repeated"}')] * 2]
    with loaded(server.url, wire="events") as llm:
        error = failure(llm)
    assert len(server.requests) == requests
    if requests == 1:
        assert (error.kind, said in error.message) == (kind, True), error.message


class DecodingLLM(WireLLM):
    """One whose decoder raises an exception of its own."""

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return prepare_output([str(struct.unpack(">d", answer))])


def test_any_exception_about_an_answer_fails_its_row_as_the_servers(server: ScriptedServer) -> None:
    server.script = [Reply(body=b"\xcb\x01", headers={"x-request-id": "r-7"})]
    with loaded(server.url, DecodingLLM, wire="bytes") as llm:
        error = failure(llm)
    assert (error.kind, error.request_id) == ("server", "r-7")
    assert "another shape" in error.message
    assert isinstance(error.__cause__, struct.error)


def test_page_in_the_middle_of_a_run_fails_its_row_alone(server: ScriptedServer) -> None:
    page = Reply(body=b"<html>maintenance</html>", headers={"content-type": "text/html"})
    server.script = [Reply(), page, Reply()]
    with loaded(server.url, max_concurrency=1) as llm:
        results = [result for _, result in llm.iter_outputs([CHAT] * 3, on_error="yield")]
    assert [isinstance(result, GenerationError) for result in results] == [False, True, False]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": NaN, "b": -Infinity}', {"a": None, "b": None}),
        (b'{"a": "x\\ud83d"}', {"a": "x\ufffd"}),
        (b'{"a": "x\xff"}', {"a": "x\ufffd"}),
        (b'\n\n  {"a": "tab\there"}', {"a": "tab\there"}),
    ],
)
def test_json_of_a_careless_server_is_read(server: ScriptedServer, body: bytes, answer: Any) -> None:
    server.script = [Reply(body=body)]
    with loaded(server.url, got=[]) as llm:
        llm.generate_outputs([CHAT])
        assert llm.got == [answer]


def endless(connection: socket.socket, block: bytes, content_type: str) -> None:
    with contextlib.suppress(OSError):
        chunked(connection, end=False, content_type=content_type)
        whole = f"{len(block):x}\r\n".encode() + block + b"\r\n"
        while True:
            connection.sendall(whole)


@pytest.mark.parametrize("wire", ["json", "bytes", "lines", "events"])
def test_body_without_an_end_is_given_up_in_bounded_memory(wire: Wire) -> None:
    block = b"data: x\n\n" * 4096 if wire == "events" else b"x" * 65536
    kind = "text/event-stream" if wire == "events" else "application/octet-stream"
    with (
        raw_server(lambda connection, _: endless(connection, block, kind)) as server,
        loaded(server.url, wire=wire, max_answer_bytes=2**20) as llm,
    ):
        tracemalloc.start()
        error = failure(llm)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert "more than 1 MiB" in error.message
    assert len(server.heads) == 1
    assert most < 16 * 2**20


def test_answer_that_unpacks_to_4_gib_is_given_up_in_bounded_memory() -> None:
    bomb = gzip.compress(b"\0" * 2**28)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"

    def answer(connection: socket.socket, _: bytes) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(head % (16 * len(bomb)) + bomb * 16)  # members of a file follow each other

    with raw_server(answer) as server, loaded(server.url) as llm:
        tracemalloc.start()
        error = failure(llm)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert error.kind in ("server", "connection")
    assert len(server.heads) == 1
    assert most < 64 * 2**20


def test_bound_of_an_answer_follows_the_tokens_asked_for(server: ScriptedServer) -> None:
    server.answer = lambda _: Reply(body=orjson.dumps({"text": "x" * (12 * 2**20)}))
    with loaded(server.url) as llm:
        assert "more than 8 MiB" in failure(llm).message
        assert llm.generate_outputs([CHAT], max_new_tokens=1000)


def test_stream_that_trickles_for_ever_is_a_timeout() -> None:
    def answer(connection: socket.socket, _: bytes) -> None:
        chunked(connection, b"data: x\n\n", content_type="text/event-stream", end=False)

    with (
        raw_server(answer) as server,
        loaded(server.url, wire="events", timeout=0.2, retry_timeout=0) as llm,
    ):
        error = failure(llm)
    assert error.kind == "timeout"
    assert len(server.heads) == 1


def test_white_space_before_an_answer_is_no_error() -> None:
    with (
        raw_server(lambda connection, _: chunked(connection, b"\n", b"\n", b" ", b'{"a": 1}')) as server,
        loaded(server.url, got=[]) as llm,
    ):
        llm.generate_outputs([CHAT])
        assert llm.got == [{"a": 1}]


@pytest.mark.parametrize("encoding", ["br", "gzip", "zstd"])
def test_answer_that_cannot_be_unpacked_is_not_paid_for_again(server: ScriptedServer, encoding: str) -> None:
    server.answer = lambda _: Reply(
        body=b"\x8b\x05\x80nothing of the kind", headers={"content-encoding": encoding}
    )
    with loaded(server.url) as llm:
        error = failure(llm)
    assert error.kind == "server"
    assert len(server.requests) == error.attempts == 1


def test_wire_that_does_not_exist_is_named(server: ScriptedServer) -> None:
    with loaded(server.url) as llm:
        llm.wire = "json"
        object.__setattr__(llm, "__dict__", {**llm.__dict__, "wire": "jsonl"})
        with pytest.raises((GenerationError, ConfigurationError), match="no wire 'jsonl'"):
            llm.generate_outputs([CHAT])
