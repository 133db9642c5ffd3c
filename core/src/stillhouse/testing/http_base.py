"""`HTTPBase`: the base of the rules on requests: the server, and the LLM that asks it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import pytest

from stillhouse.errors import GenerationError
from stillhouse.llm import LLM
from stillhouse.testing.base import Conformance, quietly_unload
from stillhouse.testing.rewriting import without_text
from stillhouse.testing.rule import Broken, said
from stillhouse.testing.server import Reply, ScriptedServer
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = ["KEY", "HTTPBase", "in_parts"]

KEY = "sk-5d41402abc4b2a76b9719d911017c592"
"""The LLM's key, which must not appear anywhere but where `credential` says."""

_EXAMPLES = {
    "json": json.dumps({"river": "Ucayali", "country": "Peru"}),
    "regex": "123-ab",
    "choice": "yes",
}


class HTTPBase(Conformance):
    """The base of the rules on requests. An author gives `make_at` and `respond`."""

    answers_are_scripted: ClassVar[bool] = True

    credential: ClassVar[Literal["header", "query", "signature"]] = "header"
    """Where a request has the key: in a header, in the query of its address, or, where it is signed with
    the key, nowhere."""

    _server: ClassVar[ScriptedServer | None] = None
    _own_server: ScriptedServer | None = None

    def make_at(self, base_url: str, api_key: str) -> LLM:
        """Return a new LLM, not loaded, that asks the server at this address, with this key."""
        raise NotImplementedError(f"{type(self).__name__} has no make_at(base_url, api_key)")

    def respond(self, path: str, body: Any) -> Any:
        """Return the API's answer to a request, as JSON types, or a `Reply` with headers of its own.

        It should answer with the text of the request, so that the kit can distinguish answers, with as
        many generations as requested, and with `example(…)` if a form is requested.

        Args:
            path: the path of the request, with its query.
            body: its body, as JSON types; bytes if it is not JSON, such as an upload, and `None` if it
                is empty.
        """
        raise NotImplementedError(f"{type(self).__name__} has no respond(path, body)")

    def respond_streamed(self, path: str, body: Any) -> Sequence[bytes] | None:
        """Return the API's answer to a request for a stream; `None` if this is not such a request.

        It should say what `respond` says, with the text in two events or more.

        Args:
            path: the path of the request, with its query.
            body: its body, as in `respond`.

        Returns:
            The events, each as the bytes that are sent for it.
        """
        return None

    def streamed_error(self, message: str) -> bytes | None:
        """Return the event with which the API reports in a stream that the model is overloaded.

        By default, it is a server-sent event with an `error` whose code is 503. `None` skips the case.
        """
        return b"data: %s\n\n" % json.dumps({"error": {"message": message, "code": 503}}).encode()

    def refusal(self, message: str) -> Any:
        """Return the body with which the API refuses a request."""
        return {"error": {"message": message}}

    def example(self, format: str) -> str:
        """Return a text of the form that the kit asks for: for `json`, `regex` or `choice`."""
        return _EXAMPLES[format]

    def make(self) -> LLM:
        return self.make_at(self.server.origin, KEY)

    def make_failing(self) -> tuple[LLM, FormattedInput]:
        self.server.always = Reply(400, self.refusal("the conformance kit refuses this"))
        return self.new(), self.inputs(1)[0]

    # For the rules

    def _any_response(self, path: str, body: Any) -> Any:
        events = self.respond_streamed(path, body)
        return self.respond(path, body) if events is None else in_parts(events)

    @classmethod
    def setup_class(cls) -> None:
        """Start the server; pytest calls it before the first test of the class."""
        super().setup_class()
        cls._server = ScriptedServer(lambda path, body: cls()._any_response(path, body))

    @classmethod
    def teardown_class(cls) -> None:
        """Stop the server; pytest calls it after the last test of the class."""
        super().teardown_class()
        if cls._server is not None:
            cls._server.close()
            cls._server = None

    @pytest.fixture(autouse=True)
    def _no_proxy(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Bypass any proxy: the kit's server is on this machine."""
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        yield
        self.server.reset()

    @property
    def server(self) -> ScriptedServer:
        server = self._own_server or self._server
        assert server is not None
        return server

    def asking(self, *script: Reply, always: Reply | None = None, **fields: Any) -> LLM:
        """Return a loaded LLM, and open a server of its own that answers by this script.

        A request that an earlier test cancelled can still be on its way to the server that tests share,
        and would take the first reply of the script.

        Fields that the LLM does not have are left out: an author whose backend has none of them sets
        short timeouts in `make_at`.
        """
        self._own_server = ScriptedServer(self._any_response)
        self._stack.callback(self._own_server.close)
        llm = self.new()
        for name, value in fields.items():
            if name in type(llm).model_fields:
                setattr(llm, name, value)
        self._stack.callback(quietly_unload, llm)
        with self._observed():
            llm.load()
        self.server.reset()
        self.server.script, self.server.always = list(script), always
        return llm

    def _sent_for(self, llm: LLM, **given: Any) -> list[Any] | None:
        server = self.server
        before = len(server.requests)
        self.ask(llm, self.inputs(1), **given)
        # Where a job is polled, its address is another each time.
        return [
            (request.path, request.body) if self.requests_per_input == 1 else request.body
            for request in server.requests[before:]
        ]

    def _ask_for_blank(self, llm: LLM) -> list[GenerateOutput] | None:
        changed: list[bool] = []

        def rewrite(answer: Any) -> Any:
            blank = without_text(answer, self.texts[0], "")
            changed.append(blank != answer)
            return blank

        self.server.rewrite = rewrite
        try:
            outputs = self._ask_raw(llm, self.inputs(1))
        finally:
            self.server.rewrite = None
        return outputs if any(changed) else None

    def answer(self, llm: LLM) -> GenerateOutput:
        """Return the output for one input; the rule is broken if it fails."""
        try:
            (output,) = self.ask(llm, self.inputs(1))
        except GenerationError as error:
            count = len(self.server.requests)
            raise Broken(f"after {count} requests it gave up: {said(error)}") from error
        return output

    def failure(self, llm: LLM) -> GenerationError:
        """Return the error for one input; the rule is broken if it does not fail."""
        try:
            (output,) = self.ask(llm, self.inputs(1))
        except GenerationError as error:
            return error
        raise Broken(f"no error was raised; the output is {str(output)[:200]}")


def in_parts(
    parts: Sequence[bytes | threading.Event], fault: Literal["", "truncate", "stall", "huge"] = ""
) -> Reply:
    """Return a reply that is sent in parts, with the type of a stream if it begins as one."""
    is_stream = isinstance(parts[0], bytes) and parts[0].startswith((b"data:", b"event:", b"id:", b":"))
    kind = "text/event-stream" if is_stream else "application/octet-stream"
    return Reply(parts=parts, headers={"content-type": kind}, fault=fault)
