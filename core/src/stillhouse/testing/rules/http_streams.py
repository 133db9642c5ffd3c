"""`HTTPStreamRules`: answers that a server streams, whole, broken, and left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.llm import LLM
from stillhouse.testing.http_base import HTTPBase, in_parts
from stillhouse.testing.rewriting import unescaped
from stillhouse.testing.rule import Broken, expect, rule, said, unseen
from stillhouse.testing.server import HUGE_BYTES, Reply

__all__ = ["HTTPStreamRules"]

_TEXT = "Two boats: Zoë's 🙂 and 小林's, said Søren."
_BEGINNING = b"Two"

_PATIENCE_SECONDS = 5.0

Plan = Callable[[list[bytes]], Reply]


class HTTPStreamRules(HTTPBase):
    """What a stream says is what an answer in one piece says, however it arrives; what breaks it is an error.

    They are skipped for a backend that does not stream, and where `respond_streamed` gives no stream.
    """

    @rule(after="C53", since="0.2")
    def test_h40_pieces_come_while_the_answer_is_sent(self) -> None:
        """The text of a stream comes in pieces while it is sent, wherever the network splits its bytes.

        Why: a caller shows the pieces as they arrive, and keeps the answer.

        Fix: read events with `stream_request_of`, `piece_of_event` and `answer_of_events` of `HTTPLLM`, which
        cut bytes into events; or decode a character when all of its bytes are there.
        """
        held = threading.Event()

        def byte_by_byte(events: list[bytes]) -> Reply:
            raw = b"".join(map(unescaped, events))
            return in_parts([raw[place : place + 1] for place in range(len(raw))])

        llm = self._streaming(byte_by_byte)
        pieces, output = self._streamed(llm)
        whole = self.ask(llm, [self._input()])[0]["generations"][0]
        self._require_stream()
        expect("".join(pieces) == whole, f"the pieces are {''.join(pieces)!r}, and an answer is {whole!r}")
        expect(output["generations"] == [whole], f"the output of the stream is {output['generations']}")

        llm = self._streaming(lambda events: in_parts([*events[:-1], held, events[-1]]))
        items = llm.stream(self._input(), **self.given())
        first = next(items)
        is_late = self.server.is_late
        held.set()
        list(items)
        came = isinstance(first, str) and not is_late
        expect(came, "no piece came before the whole answer had been sent")

    @rule(after="H40", since="0.2")
    def test_h41_what_breaks_a_stream_is_an_error(self) -> None:
        """A stream that breaks off, reports an error, stalls or does not end is a `GenerationError` of the
        right kind, after the pieces that came; nothing is requested again.

        Why: half an answer must not be kept as a whole one, nor be shown twice.

        Fix: in `answer_of_events`, look for an error, and for the event that ends a stream; raise
        `GenerationError(kind="connection")` without it.
        """
        cases: dict[str, tuple[Plan, str | None]] = {
            "the connection is closed within an event": (
                lambda events: in_parts(self._cut(events), "truncate"),
                "connection",
            ),
            "the stream ends before its last events": (
                lambda events: in_parts(self._begun(events)),
                "connection",
            ),
            "the server falls silent": (lambda events: in_parts(self._begun(events), "stall"), "timeout"),
            "a line does not end": (lambda events: in_parts(self._begun(events), "huge"), None),
        }
        error = self.streamed_error("the model is overloaded")
        if error is not None:
            cases["an error follows a piece"] = (
                lambda events: in_parts([*self._begun(events), error]),
                "server",
            )
        for name, (plan, kind) in cases.items():
            timeout = {"timeout": 0.5} if kind == "timeout" else {}
            llm = self._streaming(plan, retry_timeout=5.0, **timeout)
            pieces: list[str] = []
            try:
                for item in llm.stream(self._input(), **self.given()):
                    if not isinstance(item, str):
                        self._require_stream()
                        raise Broken(f"{name}: the answer was taken as whole")
                    pieces.append(item)
            except GenerationError as failure:
                seen = f"{name}: the kind is {failure.kind}: {said(failure)}"
                expect(failure.kind == kind or (kind is None and failure.kind != "unknown"), seen)
            self._require_stream()
            joined = "".join(pieces)
            expect(pieces and _TEXT.startswith(joined), f"{name}: the pieces were {joined!r}")
            count = len(self.server.requests)
            expect(count == 1, f"{name}: after the first piece there were {count} requests")
            expect(self.server.sent < HUGE_BYTES, f"{name}: all of {HUGE_BYTES >> 20} MiB were read")

    @rule(after=("H40", "H07"), since="0.2")
    def test_h42_a_stream_that_has_not_begun_is_requested_again(self) -> None:
        """A 429, and a connection that is closed before the first piece, are retried.

        Why: a caller who waits for pieces must not have to retry.

        Fix: send streams with `HTTPLLM.complete`, which retries until a piece was given.
        """
        for refusal in (Reply(429, self.refusal("slow down"), {"retry-after": "0"}), Reply(fault="drop")):
            llm = self._streaming(in_parts, retry_timeout=5.0)
            self.server.script = [refusal]
            try:
                pieces, _ = self._streamed(llm)
            except GenerationError as error:
                raise Broken(f"it gave up: {said(error)}") from error
            self._require_stream()
            expect("".join(pieces) == _TEXT, f"the pieces were {pieces}")

    @rule(after="H40", since="0.2")
    def test_h43_a_stream_that_is_left_is_broken_off(self) -> None:
        """When the caller closes a stream, its connection is closed, and its slot of `max_concurrency` is
        free.

        Why: the provider bills what it generates for nobody.

        Fix: let the `CancelledError` pass that `on_piece` and the cancelled coroutine raise.
        """
        llm = self._streaming(lambda events: in_parts(self._begun(events), "stall"), max_concurrency=1)
        items: Any = llm.stream(self._input(), **self.given())
        next(items)
        items.close()
        self._require_stream()
        closed = self.server.hung_up.wait(_PATIENCE_SECONDS)
        expect(closed, "the connection was still open after the stream had been left")
        self.ask(llm, self.inputs(1))

    def _streaming(self, plan: Plan, **fields: Any) -> LLM:
        """Return a loaded LLM whose server sends the events of a stream by this plan."""
        llm = self.asking(**fields)
        ordinary, self._planned = self.server.respond, 0

        def respond(path: str, body: Any) -> Any:
            events = self.respond_streamed(path, body)
            if events is None:
                return ordinary(path, body)
            self._planned += 1
            return plan(list(events))

        self.server.respond = respond
        return llm

    _planned: int

    def _require_stream(self) -> None:
        """Skip the rule if no stream was requested."""
        if not self._planned:
            unseen("the backend streams nothing, or respond_streamed() gives no stream")

    def _streamed(self, llm: LLM) -> tuple[list[str], Any]:
        *pieces, output = llm.stream(self._input(), **self.given())
        return list(map(str, pieces)), output

    def _input(self) -> Any:
        return [{"role": "user", "content": _TEXT}] if "chat" in self.capabilities else _TEXT

    def _begun(self, events: list[bytes]) -> list[bytes]:
        """Return the events until the first one with a part of the text."""
        found = [place for place, event in enumerate(events) if _BEGINNING in event]
        return events[: found[0] + 1] if found else events[: len(events) // 2]

    def _cut(self, events: list[bytes]) -> list[bytes]:
        """Return the same, and half of the next event."""
        begun = self._begun(events)
        following = events[len(begun)]
        return [*begun, following[: len(following) // 2]]
