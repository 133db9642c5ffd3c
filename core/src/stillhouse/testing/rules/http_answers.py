"""`HTTPAnswerRules`: broken answers, secrets, and the number of requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import GenerationError
from stillhouse.testing.http_base import KEY, HTTPBase
from stillhouse.testing.rule import expect, rule
from stillhouse.testing.server import HUGE_BYTES, Reply, ScriptedServer

__all__ = ["HTTPAnswerRules"]

_PATIENCE_SECONDS = 5.0
_PAGE = b"<!DOCTYPE html><html><head><title>Welcome</title></head><body>Please sign in.</body></html>"


class HTTPAnswerRules(HTTPBase):
    """What is no answer is an error; a secret goes to the server and nowhere else."""

    @rule
    def test_h20_a_page_is_no_answer(self) -> None:
        """An HTML page with status 200 is a `GenerationError` with a kind.

        Why: a proxy's sign-in page must not become a million empty answers.

        Fix: read answers as JSON, and raise `GenerationError` if they are not JSON.
        """
        llm = self.asking(always=Reply(body=_PAGE, headers={"content-type": "text/html"}), retry_timeout=0.0)
        self._known(self.failure(llm), "a page")

    @rule
    def test_h21_an_answer_of_another_shape_is_an_error(self) -> None:
        """JSON of another shape than the API's is a `GenerationError` with a kind.

        Why: a `KeyError` from inside a backend does not say that the address is wrong.

        Fix: check the answer's shape where it is read, and raise `GenerationError(kind="server")`.
        `HTTPLLM.complete` and `ask_until_done` do so for every exception that is raised while an answer is
        read.
        """
        bodies: list[Any] = [{}, [], {"error": {"message": "it went wrong"}}, b"null", "text"]
        for body in bodies:
            llm = self.asking(always=Reply(body=body), retry_timeout=0.0)
            self._known(self.failure(llm), f"the answer {body!r}")

    @rule
    def test_h22_a_huge_answer_is_not_read_to_its_end(self) -> None:
        """A body that does not end is abandoned, with a `GenerationError`.

        Why: a server must not be able to exhaust the memory of a run.

        Fix: derive from `stillhouse.http.HTTPLLM`, or bound the bytes that are read.
        """
        llm = self.asking(always=Reply(fault="huge"), retry_timeout=0.0)
        error = self.failure(llm)
        expect(self.server.sent < HUGE_BYTES, f"all of {HUGE_BYTES >> 20} MiB were read")
        self._known(error, "a huge answer")

    @rule
    def test_h23_a_redirect_takes_no_key_along(self) -> None:
        """A redirect to another host never gets the credentials.

        Why: an attacker who can redirect a request would get the key.

        Fix: derive from `stillhouse.http.HTTPLLM`, or switch redirects off.
        """
        other = ScriptedServer(self.server.respond)
        self._stack.callback(other.close)
        elsewhere = other.origin.replace("127.0.0.1", "localhost") + "/elsewhere"
        llm = self.asking(
            always=Reply(307, self.refusal("elsewhere"), {"location": elsewhere}), retry_timeout=0.0
        )
        with contextlib.suppress(GenerationError):
            self.ask(llm, self.inputs(1))
        sent = [item for request in other.requests for item in request.headers.items()]
        seen = sorted({f"the header {name}" for name, text in sent if KEY in text})
        seen += ["the address" for request in other.requests if KEY in request.path]
        seen += ["the body" for request in other.requests if KEY in str(request.body)]
        expect(not seen, f"another host was sent the key, in {', '.join(seen)}")

    @rule
    def test_h24_the_key_is_in_no_error_and_no_log(self) -> None:
        """The key is in no error, not even if the server quotes it, and in no log at any level.

        Why: errors are written beside rows, and logs are shared.

        Fix: log neither headers nor settings; replace the key in what the server says.
        """
        quoting = self.refusal(f"the key {KEY} may not do this")
        replies = [
            Reply(401, quoting),
            Reply(400, quoting),
            Reply(500, quoting),
            Reply(302, quoting, {"location": f"/elsewhere?key={KEY}"}),
            Reply(body=quoting),
            Reply(body=f"no JSON, but {KEY}".encode()),
            Reply(fault="drop"),
            Reply(body={}),
        ]
        errors: list[GenerationError] = []
        with _logged() as lines:
            for reply in replies:
                llm = self.asking(always=reply, retry_timeout=0.0)
                errors.append(self.failure(llm))
                llm.unload()
        for reply, error in zip(replies, errors, strict=True):
            shown = "".join([str(error), repr(error), error.hint, *traceback.format_exception(error)])
            what = reply.fault or f"status {reply.status}"
            expect(KEY not in shown, f"the key is in the error after {what}")
        leaks = [line for line in lines if KEY in line]
        expect(
            not leaks, f"the key is in {len(leaks)} lines of the log, such as {leaks and leaks[0][:40]!r} …"
        )

    @rule
    def test_h25_the_key_goes_in_a_header(self) -> None:
        """Every request has the key in a header, and not in its address or its body; for an API with another
        scheme, only where `credential` says.

        Why: addresses are written to the logs of every proxy on the way.

        Fix: override `auth_headers`, not `url_of`. For an API that takes the key in the query, or a signature
        made with it, let `auth_headers` return `{}`, and set `credential` to `"query"` or `"signature"` in
        the test class.
        """
        self.answer(self.asking())
        for request in self.server.requests:
            path, _, query = request.path.partition("?")
            places = {
                "header": any(KEY in text for text in request.headers.values()),
                "query": KEY in query,
                "address": KEY in path,
                "body": KEY in str(request.body),
            }
            wanted = places.pop(self.credential, True)
            expect(wanted, f"a request has no key in its {self.credential}")
            found = [place for place, has_key in places.items() if has_key]
            expect(not found, f"a request has the key in its {' and its '.join(found)}")

    @rule
    def test_h26_an_input_is_sent_once(self) -> None:
        """If nothing fails, there is one request for each input, or the number in `requests_per_input`.

        Why: every request is paid for.

        Fix: do not probe the server before each request. For an API whose jobs are polled, set
        `requests_per_input` in the test class.
        """
        llm = self.asking()
        self.ask(llm)
        count, expected = len(self.server.requests), len(self.texts) * self.requests_per_input
        expect(count == expected, f"{count} requests for {len(self.texts)} inputs instead of {expected}")

    @rule(concurrent=True)
    def test_h27_the_server_sees_as_many_at_once_as_allowed(self) -> None:
        """The server receives requests for `max_concurrency` inputs at once, and for no more.

        Why: a lock or a small pool behind `agenerate` makes a run many times slower without any error.

        Fix: size the connection pool to `max_concurrency`; hold no lock around a request.
        """
        llm = self.asking(max_concurrency=4, retry_timeout=0.0)
        self.server.meeting = threading.Barrier(4, timeout=_PATIENCE_SECONDS)
        with contextlib.suppress(GenerationError):
            self.ask(llm, self.inputs(8))
        expect(self.server.most == 4, f"max_concurrency is 4, and the server saw {self.server.most} at once")

    @rule(concurrent=True)
    def test_h28_who_cancels_hangs_up(self) -> None:
        """A cancelled request is aborted: the server sees its connection closed.

        Why: otherwise the server continues to generate, and the account pays for it.

        Fix: make the request with an asynchronous client, not in a thread; do not `shield` it.
        """
        llm = self.asking(always=Reply(fault="stall"), max_concurrency=3)
        assert isinstance(llm, AsyncLLM)

        async def main() -> None:
            task = asyncio.create_task(llm.agenerate_outputs(self.inputs(1), **self.given()))
            await asyncio.to_thread(_until, lambda: self.server.requests)
            task.cancel()
            await asyncio.wait([task], timeout=_PATIENCE_SECONDS)

        asyncio.run(main())
        expect(self.server.requests, "no request arrived")
        expect(
            self.server.hung_up.wait(_PATIENCE_SECONDS), "after the cancellation the connection stayed open"
        )

    def _known(self, error: GenerationError, what: str) -> None:
        expect(error.kind != "unknown", f"{what} raised an error of the kind unknown: {error.message}")


def _until(condition: Any) -> None:
    """Wait until a condition holds; there is no event for it."""
    pause = threading.Event()
    for _ in range(int(_PATIENCE_SECONDS / 0.01)):
        if condition():
            return
        pause.wait(0.01)


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """Every line that is logged in this context, at any level, as it would be written."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter().format(record))

    root, handler = logging.getLogger(), Keep()
    levels = {name: logging.getLogger(name).level for name in ("", "stillhouse")}
    root.addHandler(handler)
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
