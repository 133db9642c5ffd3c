"""Answers that are asked for as a stream: pieces while they come, and the same output at the end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from stillhouse import FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.http import HTTPLLM, Request
from stillhouse.http.transport.reading import EventReader, LineReader

from .conftest import Reply, ScriptedServer
from .raw import RawServer, chunked, raw_server

CHAT: Any = [{"role": "user", "content": "hello"}]
PATIENCE = 60


class StreamLLM(HTTPLLM):
    """A backend whose API streams `{"text": …}`, and ends with `{"stop": true}`."""

    api_key_required: ClassVar[bool] = False
    wire: Any = "events"

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, max_new_tokens: int | None = None
    ) -> GenerateOutput:
        return await self.complete(input, num_generations, {"max_new_tokens": max_new_tokens})

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        return Request("generate", {"input": input})

    def stream_request_of(self, request: Request) -> Request | None:
        return replace(request, body={**request.body, "stream": True}, wire=self.wire)

    def piece_of_event(self, event: Any) -> str | None:
        return event["text"]  # type: ignore[no-any-return]

    def answer_of_events(self, events: list[Any]) -> Any:
        for event in events:
            if isinstance(event, dict) and event.get("error"):
                return event
        if not any(event == "[DONE]" or "stop" in event for event in events):
            raise GenerationError("the stream broke off", kind="connection")
        texts = [event.get("text") for event in events if isinstance(event, dict)]
        return {"text": "".join(text for text in texts if isinstance(text, str))}

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return prepare_output([answer["text"]], finish_reasons=["stop"])


def event(value: Any, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


def stream_of(*texts: str) -> bytes:
    return b"".join(event({"text": text}) for text in texts) + event({"stop": True})


@pytest.fixture
def loaded() -> Iterator[Callable[..., StreamLLM]]:
    made: list[StreamLLM] = []

    def load(url: str, cls: type[StreamLLM] = StreamLLM, **fields: Any) -> StreamLLM:
        made.append(cls(**{"model": "m", "base_url": url, "retry_timeout": 5.0, **fields}))
        made[-1].load()
        return made[-1]

    yield load
    for llm in made:
        llm.unload()


Load = Callable[..., StreamLLM]


def test_pieces_come_while_the_answer_comes(loaded: Load) -> None:
    seen = threading.Event()

    def answer(connection: socket.socket, body: bytes) -> None:
        assert json.loads(body)["stream"] is True
        chunked(connection, event({"text": "one "}), content_type="text/event-stream", end=False)
        assert seen.wait(PATIENCE)
        for block in (event({"text": "two"}), event({"stop": True})):
            connection.sendall(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    with raw_server(answer) as server:
        items = loaded(server.url).stream(CHAT)
        assert next(items) == "one "
        seen.set()
        *rest, output = items
    assert rest == ["two"]
    assert output == prepare_output(["one two"], finish_reasons=["stop"])


@pytest.mark.parametrize("wire", ["events", "lines"])
def test_blocks_may_end_anywhere(loaded: Load, wire: str) -> None:
    texts = ["Zürich ", "\U0001f600", "\n\r\n", "end"]
    body = stream_of(*texts)
    if wire == "lines":
        body = b"".join(json.dumps({"text": text}).encode() + b"\r\n" for text in texts) + b'{"stop": 1}'
    blocks = [body[place : place + 1] for place in range(len(body))]
    with raw_server(lambda connection, _: chunked(connection, *blocks)) as server:
        *pieces, output = loaded(server.url, wire=wire).stream(CHAT)
    assert pieces == texts
    assert output["generations"] == ["".join(texts)]  # type: ignore[index]


def test_the_server_may_answer_in_one_piece(server: ScriptedServer, loaded: Load) -> None:
    assert [*loaded(server.url).stream(CHAT)][:-1] == ["fine"]
    assert server.requests[0].body["stream"] is True


def test_only_a_stream_asks_for_one(server: ScriptedServer, loaded: Load) -> None:
    llm = loaded(server.url)
    llm.generate_outputs([CHAT])
    assert "stream" not in server.requests[0].body


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (
            Reply(body=event({"text": "a"}) + event({"error": {"message": "overloaded", "code": 503}})),
            "server",
        ),
        (Reply(body=event({"text": "a"}) + event({"type": "overloaded"}, "error")), "connection"),
        (Reply(body=event({"text": "a"}) + event({"text": "b"})[:-9]), "connection"),
        (Reply(body=stream_of("a", "b"), cut=30), "connection"),
    ],
    ids=["error", "named error", "no end", "cut off"],
)
def test_after_a_piece_an_error_is_final(
    server: ScriptedServer, loaded: Load, reply: Reply, kind: str
) -> None:
    server.script = [reply]
    items = loaded(server.url).stream(CHAT)
    assert next(items) == "a"
    with pytest.raises(GenerationError) as caught:
        list(items)
    assert caught.value.kind == kind
    assert caught.value.attempts == 1
    assert len(server.requests) == 1


def test_before_a_piece_a_request_is_repeated(server: ScriptedServer, loaded: Load) -> None:
    server.script = [
        Reply(429, b"{}"),
        Reply(body=event({"error": {"message": "overloaded", "code": 503}})),
        Reply(body=b": wait\n\n"),
        Reply(body=stream_of("a", "b")),
    ]
    assert [*loaded(server.url).stream(CHAT)][:-1] == ["a", "b"]
    assert not server.script


def test_what_refuses_to_stream_is_asked_for_the_whole(server: ScriptedServer, loaded: Load) -> None:
    refusal = {"error": {"message": "Your organization must be verified to stream this model."}}
    server.script = [Reply(400, json.dumps(refusal).encode())]
    assert [*loaded(server.url).stream(CHAT)][:-1] == ["fine"]
    assert [request.body.get("stream") for request in server.requests] == [True, None]
    server.script = [Reply(400, b'{"error": {"message": "no such model"}}')]
    with pytest.raises(GenerationError, match="no such model"):
        list(loaded(server.url).stream(CHAT))
    assert len(server.requests) == 3


@pytest.mark.parametrize("odd", [5, None, [], "text", {}, {"text": 5}, {"text": None}, {"text": ""}])
def test_an_event_of_another_shape_adds_nothing(server: ScriptedServer, loaded: Load, odd: Any) -> None:
    class Odd(StreamLLM):
        def answer_of_events(self, events: list[Any]) -> Any:
            return {"text": "ab"}

    server.script = [Reply(body=event({"text": "a"}) + event(odd) + stream_of("b"))]
    assert [*loaded(server.url, Odd).stream(CHAT)][:-1] == ["a", "b"]


def test_an_event_that_is_no_json_ends_the_stream(server: ScriptedServer, loaded: Load) -> None:
    server.script = [Reply(body=event({"text": "a"}) + b"data: {no json\n\n" + stream_of("b"))]
    items = loaded(server.url).stream(CHAT)
    assert next(items) == "a"
    with pytest.raises(GenerationError, match="stream of events that cannot be read") as caught:
        list(items)
    assert "do not ask" not in caught.value.hint
    assert len(server.requests) == 1


def test_leaving_early_closes_the_connection_and_returns_the_permit(loaded: Load) -> None:
    gone = threading.Event()

    def answer(connection: socket.socket, body: bytes) -> None:
        chunked(connection, event({"text": "a"}), end=False)
        try:
            while connection.recv(100):
                pass
        except OSError:
            pass
        gone.set()

    with raw_server(answer) as server:
        llm = loaded(server.url, max_concurrency=1)
        items: Any = llm.stream(CHAT)
        next(items)
        items.close()
        assert gone.wait(PATIENCE)
        assert llm._transport is not None
        assert llm._transport.limits.in_flight == 0


def test_a_stream_ends_at_done_though_the_connection_stays_open(loaded: Load) -> None:
    blocks = [event({"text": "a"}), b"data: [DONE]\n\n"]

    def answer(connection: socket.socket, body: bytes) -> None:
        chunked(connection, *blocks, content_type="text/event-stream", end=False)

    server: RawServer
    with raw_server(answer) as server:
        assert [*loaded(server.url).stream(CHAT)][:-1] == ["a"]


def test_a_stream_may_not_be_larger_than_an_answer(server: ScriptedServer, loaded: Load) -> None:
    server.script = [Reply(body=stream_of("a", "b" * 10_000))]
    with pytest.raises(GenerationError, match="more than"):
        list(loaded(server.url, max_answer_bytes=5000).stream(CHAT))


def test_an_llm_inside_another_one_does_not_stream_for_it(server: ScriptedServer, loaded: Load) -> None:
    inner = loaded(server.url)

    class Outer(StreamLLM):
        async def agenerate(
            self, input: FormattedInput, num_generations: int = 1, max_new_tokens: int | None = None
        ) -> GenerateOutput:
            (output,) = await inner.agenerate_outputs([input])
            return prepare_output([f"{output['generations'][0]} indeed"])

    assert [*loaded(server.url, Outer).stream(CHAT)][:-1] == ["fine indeed"]
    assert "stream" not in server.requests[0].body


def test_readers_give_lines_as_soon_as_they_end() -> None:
    lines = LineReader()
    assert [lines.add(block) for block in (b"a", b"b\r", b"\nc\n", b"\n", b"d\re", b"f\n")] == [
        [], [b"ab"], [b"c"], [b""], [b"d"], [b"ef"],
    ]  # fmt: skip
    events = EventReader()
    given = [
        list(events.add(block)) for block in (b"\xef\xbb\xbfdata: 1\n", b"data: 2\n\ndata", b": 3\r\n\r\n")
    ]
    assert [[event.data for event in block] for block in given] == [[], ["1\n2"], ["3"]]


def test_long_lines_are_read_in_linear_time() -> None:
    events = EventReader()
    block = b"x" * 1000
    list(events.add(b"data: "))
    for _ in range(20_000):  # would take minutes if each block were joined to all before it
        list(events.add(block))
    (event,) = events.add(b"\n\n")
    assert len(event.data) == 20_000_000
