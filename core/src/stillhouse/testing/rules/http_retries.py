"""`HTTPRetryRules`: what is retried, when, and what is not."""

from __future__ import annotations

import math
import time
from email.utils import formatdate
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.testing.http_base import HTTPBase
from stillhouse.testing.rule import Broken, expect, rule
from stillhouse.testing.server import Reply

__all__ = ["HTTPRetryRules"]

_WAIT_SECONDS = 1
_WAIT_MILLISECONDS = 700
# Clocks are read with this much of an error.
_SLACK_SECONDS = 0.05


class HTTPRetryRules(HTTPBase):
    """What may succeed is tried again, after as long as the server asks; nothing else is."""

    # First: without any retry, the rules below could only repeat it.
    @rule
    def test_h07_server_errors_are_tried_again(self) -> None:
        """Several 5xx in a row are retried until the server answers.

        Why: an overloaded server recovers within seconds, and a run must survive it.

        Fix: derive from `stillhouse.http.HTTPLLM`, or retry 5xx with growing waits.
        """
        self._tried_again(Reply(503, self.refusal("overloaded")), Reply(500, b"oops"))

    @rule(after="H07")
    def test_h01_a_wait_in_seconds_is_obeyed(self) -> None:
        """After a 429 with `Retry-After` in seconds the request is retried after that time, not earlier.

        Why: an earlier retry is refused again, often for longer.

        Fix: derive from `stillhouse.http.HTTPLLM`, which does; in `classify`, keep `retry_after`.
        """
        self._waits({"retry-after": str(_WAIT_SECONDS)}, _WAIT_SECONDS)

    @rule(after="H07")
    def test_h02_a_wait_until_a_date_is_obeyed(self) -> None:
        """After a 429 with `Retry-After` as an HTTP date the request is retried after that date, not earlier.

        Why: some servers and most proxies send the date.

        Fix: derive from `stillhouse.http.HTTPLLM`; in `classify`, keep `retry_after`.
        """
        llm = self.asking()
        date = math.ceil(time.time()) + 1
        self.server.script = [self._limited({"retry-after": formatdate(date, usegmt=True)})]
        self.answer(llm)
        self._expect_requests(1)
        early = date - self.server.requests[1].at
        expect(early <= _SLACK_SECONDS, f"it was sent again {early:.2f} s before the date")

    @rule(after="H07")
    def test_h03_a_wait_in_milliseconds_is_obeyed(self) -> None:
        """After a 429 with `retry-after-ms` the request is retried after that time, not earlier.

        Why: it is the finer of the two headers, and the one that OpenAI and Azure send.

        Fix: derive from `stillhouse.http.HTTPLLM`; in `classify`, keep `retry_after`.
        """
        self._waits({"retry-after-ms": str(_WAIT_MILLISECONDS)}, _WAIT_MILLISECONDS / 1000)

    @rule(after="H07")
    def test_h04_a_dropped_connection_is_tried_again(self) -> None:
        """A request whose connection was closed without an answer is retried.

        Why: servers close idle connections, and are restarted.

        Fix: derive from `stillhouse.http.HTTPLLM`, or retry connection errors.
        """
        self._tried_again(Reply(fault="drop"))

    @rule(after="H07")
    def test_h05_a_truncated_answer_is_tried_again(self) -> None:
        """A request whose answer breaks off is retried.

        Why: a partial answer must not be taken for a complete one.

        Fix: derive from `stillhouse.http.HTTPLLM`, or retry incomplete bodies.
        """
        self._tried_again(Reply(fault="truncate"))

    @rule(after="H07")
    def test_h06_a_stalled_request_is_tried_again(self) -> None:
        """A request that is not answered within the timeout is retried.

        Why: one lost answer would block a run forever.

        Fix: derive from `stillhouse.http.HTTPLLM`, or give every attempt a timeout and retry it. The kit sets
        the field `timeout`; without one, give a short timeout in `make_at`.
        """
        self._tried_again(Reply(fault="stall"), timeout=0.5)

    @rule
    def test_h08_a_refused_key_stops_everything(self) -> None:
        """A 401 is not retried, has the kind `authentication`, and ends the run at once.

        Why: a million rows would fail one by one, and the account may be locked.

        Fix: raise `GenerationError(kind="authentication")`; in `classify`, keep 401 as it is.
        """
        llm = self.asking(always=Reply(401, self.refusal("no such key")), max_concurrency=2)
        stopped: list[GenerationError] = []
        try:
            for _ in llm.iter_outputs(self.inputs(20), on_error="yield", **self.given()):
                pass
        except GenerationError as error:
            stopped = [error]
        count = len(self.server.requests)
        expect(stopped, f"the run of 20 inputs went on to its end, with {count} requests")
        expect(stopped[0].kind == "authentication", f"the kind is {stopped[0].kind}")
        expect(count <= 4, f"{count} requests were sent with a key that was refused at once")

    @rule
    def test_h09_a_refused_request_is_not_tried_again(self) -> None:
        """A 400 fails only its own input and is not retried; the other inputs continue.

        Why: the same request is refused again, and each attempt counts against the quota.

        Fix: retry no 4xx but 408, 409, 425 and 429; keep `stops_run` False for them.
        """
        before = [Reply()] * self.requests_per_input
        llm = self.asking(*before, Reply(400, self.refusal("too odd")), max_concurrency=1)
        results = list(llm.iter_outputs(self.inputs(3), on_error="yield", **self.given()))
        failed = [isinstance(result, GenerationError) for _, result in results]
        expect(failed == [False, True, False], f"of three inputs the second was refused; failed: {failed}")
        count, expected = len(self.server.requests), 1 + 2 * self.requests_per_input
        expect(count == expected, f"{count} requests for three inputs instead of {expected}")

    @rule(after="H07")
    def test_h10_an_empty_answer_is_tried_again(self) -> None:
        """A request whose answer has an empty body is retried.

        Why: it is what a proxy sends when the server behind it goes away.

        Fix: derive from `stillhouse.http.HTTPLLM`, or treat an empty body as a server error.
        """
        self._tried_again(Reply(body=b""))

    @rule
    def test_h11_what_does_not_recover_is_an_error_of_its_kind(self) -> None:
        """A request that keeps failing is a `GenerationError` of the right kind: `rate_limit`, `server`,
        `connection` or `timeout`.

        Why: failures are counted and retried by kind.

        Fix: derive from `stillhouse.http.HTTPLLM`; in `classify`, keep the kind. The kit sets the field
        `retry_timeout`; without one, let `make_at` give up soon.
        """
        faults = {
            "rate_limit": self._limited({}),
            "server": Reply(502, b"<html>bad gateway</html>"),
            "connection": Reply(fault="drop"),
            "timeout": Reply(fault="stall"),
        }
        for kind, reply in faults.items():
            error = self.failure(self.asking(always=reply, timeout=0.5, retry_timeout=0.0))
            expect(error.kind == kind, f"what should be {kind} is {error.kind}: {error.message}")

    def _limited(self, headers: dict[str, str]) -> Reply:
        return Reply(429, self.refusal("slow down"), headers)

    def _waits(self, headers: dict[str, str], seconds: float) -> None:
        self.answer(self.asking(self._limited(headers)))
        self._expect_requests(1)
        waited = self.server.requests[1].at - self.server.requests[0].at
        seen = f"the server asked to wait {seconds} s, and it waited {waited:.2f} s"
        expect(waited >= seconds - _SLACK_SECONDS, seen)

    def _expect_requests(self, failed: int) -> None:
        """Count requests: those that failed, and those of an input that is answered."""
        count, expected = len(self.server.requests), failed + self.requests_per_input
        expect(count == expected, f"{count} requests instead of {expected}")

    def _tried_again(self, *faults: Reply, **fields: Any) -> None:
        output = self.answer(self.asking(*faults, **fields))
        self._expect_requests(len(faults))
        if not any(output["generations"]):
            raise Broken(f"after the fault the answer was not read: {output}")
