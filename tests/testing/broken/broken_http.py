"""Backends that ask a server, each breaking one of the rules on requests, and which rule each breaks."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from pydantic import PrivateAttr

from stillhouse import Capability, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.http import HTTPLLM, Failure, Request, Wire, ask_until_done
from stillhouse.inputs import split_input

T = TypeVar("T", bound=type[HTTPLLM])

BREAKS: dict[type[HTTPLLM], str] = {}


def breaks(rule: str) -> Callable[[T], T]:
    def note(cls: T) -> T:
        BREAKS[cls] = rule
        return cls

    return note


class GoodHTTP(HTTPLLM):
    """Keeps every rule: it sends the chat, and reads the texts that come back."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "num_generations"})

    api_key_variable: ClassVar[str | None] = "BROKEN_API_KEY"
    api_key_required: ClassVar[bool] = False

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
    ) -> GenerateOutput:
        """Ask the server.

        Args:
            input: the chat.
            num_generations: how many generations.
            max_new_tokens: how many tokens at most.
            temperature: how evenly they are drawn.
        """
        chat, _ = split_input(input)
        body = {"chat": chat, "n": num_generations, "limit": max_new_tokens, "temperature": temperature}
        return self.read(await self.ask(body))

    async def ask(self, body: Any) -> Any:
        return await self.post("generate", body)

    def read(self, answer: Any) -> GenerateOutput:
        if isinstance(answer, dict) and answer.get("error"):
            raise GenerationError("the answer is an error", kind="server")
        texts = answer.get("texts") if isinstance(answer, dict) else None
        if not texts or not all(self.is_text(text) for text in texts):
            raise GenerationError("the answer has no texts", kind="server", hint="check base_url")
        count = self.count(answer.get("tokens"))
        made = [text or None for text in texts]
        return prepare_output(made, None if count is None else [count], finish_reasons=["stop"] * len(texts))

    def is_text(self, text: Any) -> bool:
        return text is None or isinstance(text, str)

    def count(self, value: Any) -> int | None:
        return value if type(value) is int and 0 <= value <= 2**53 else None


class Polled(GoodHTTP):
    """Keeps every rule: it hands a job in, and asks until the job is done."""

    async def ask(self, body: Any) -> Any:
        job = await super().ask(body)
        if not isinstance(job, dict) or "job" not in job:
            return job
        while True:
            answer = await self.request("GET", f"jobs/{job['job']}")
            if not isinstance(answer, dict) or answer.get("state") != "running":
                return answer
            await asyncio.sleep(0.001)


class Signing(GoodHTTP):
    """Keeps every rule: each attempt has a signature made with the key, and the key stays here."""

    def auth_headers(self, api_key: str) -> dict[str, str]:
        return {}

    def sign(self, method: str, url: Any, headers: Any, body: Any) -> dict[str, str]:
        signed = b"\n".join([method.encode(), str(url).encode(), body])
        return {"x-signature": hmac.new(self.resolved_key.encode(), signed, "sha256").hexdigest()}


class KeyInTheQuery(GoodHTTP):
    """Keeps every rule: the API takes the key in the query."""

    def auth_headers(self, api_key: str) -> dict[str, str]:
        return {}

    def url_of(self, base_url: Any, path: str) -> Any:
        return super().url_of(base_url, path).update_query(key=self.resolved_key)


class PolledCarelessly(GoodHTTP):
    """Keeps every rule: it reads jobs without a check of its own, inside `ask_until_done`."""

    async def ask(self, body: Any) -> Any:
        job = made = await self.request("POST", "generate", json.dumps(body).encode(), check=True)
        while "texts" not in job:
            await asyncio.sleep(0.001)
            job = await self.request("GET", f"jobs/{made['job']}", check=True)
        return job

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
    ) -> GenerateOutput:
        """Ask the server.

        Args:
            input: the chat.
            num_generations: how many generations.
            max_new_tokens: how many tokens at most.
            temperature: how evenly they are drawn.
        """

        async def ask(missing: int, made: int, messages: Any) -> GenerateOutput:
            body = {"chat": input, "n": missing, "limit": max_new_tokens, "temperature": temperature}
            job = await self.ask(body)
            tokens = self.count(job["tokens"])
            texts = [text if isinstance(text, str) else text["text"] for text in job["texts"]]
            return prepare_output(
                [text or None for text in texts],
                None if tokens is None else [tokens],
                finish_reasons=["stop"] * len(texts),
            )

        return await ask_until_done(ask, num_generations)


class Streaming(GoodHTTP):
    """Keeps every rule: the API streams events, which `output_of` joins."""

    wire: ClassVar[Wire] = "events"

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
    ) -> GenerateOutput:
        """Ask the server.

        Args:
            input: the chat.
            num_generations: how many generations.
            max_new_tokens: how many tokens at most.
            temperature: how evenly they are drawn.
        """
        arguments = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        return await self.complete(input, num_generations, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        body = {"chat": split_input(input)[0], "n": num_generations, **arguments}
        return Request("generate", body, wire=self.wire)

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        joined: dict[str, Any] = {}
        for event in answer:
            joined |= event.json()
        return self.read(joined)

    @staticmethod
    def written(answer: Any) -> bytes:
        """Return an answer as the API sends it."""
        return b"".join(b"data: %s\n\n" % json.dumps({key: answer[key]}).encode() for key in answer)


class Packed(Streaming):
    """Keeps every rule: answers are in a format that is no JSON, whose reader has exceptions of its own."""

    wire: ClassVar[Wire] = "bytes"

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return self.read(json.loads(zlib.decompress(answer)))

    @staticmethod
    def written(answer: Any) -> bytes:
        return zlib.compress(json.dumps(answer).encode())


class InPieces(GoodHTTP):
    """Keeps every rule: its answers can be streamed, a text in pieces and last how many tokens it has."""

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
    ) -> GenerateOutput:
        """Ask the server.

        Args:
            input: the chat.
            num_generations: how many generations.
            max_new_tokens: how many tokens at most.
            temperature: how evenly they are drawn.
        """
        arguments = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        return await self.complete(input, num_generations, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        return Request("generate", {"chat": split_input(input)[0], "n": num_generations, **arguments})

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return self.read(answer)

    def stream_request_of(self, request: Request) -> Request | None:
        return replace(request, body={**request.body, "stream": True}, wire="events")

    def piece_of_event(self, event: Any) -> str | None:
        return event["piece"]  # type: ignore[no-any-return]

    def answer_of_events(self, events: list[Any]) -> Any:
        for event in events:
            if "error" in event:
                return event
        if "tokens" not in events[-1]:
            raise GenerationError("the stream broke off", kind="connection")
        return self.joined(events)

    def joined(self, events: list[Any]) -> Any:
        text = "".join(event.get("piece", "") for event in events)
        return {"texts": [text], "tokens": events[-1].get("tokens")}

    @staticmethod
    def sent(answer: Any) -> list[bytes]:
        """Return an answer as the API streams it."""
        (text,) = answer["texts"]
        halves = [{"piece": text[:5]}, {"piece": text[5:]}, {"tokens": answer["tokens"]}]
        return [b"data: %s\n\n" % json.dumps(event).encode() for event in halves]


KEEPING: dict[type[HTTPLLM], dict[str, Any]] = {
    GoodHTTP: {},
    Polled: {"requests_per_input": 3},
    Signing: {"credential": "signature"},
    KeyInTheQuery: {"credential": "query"},
    PolledCarelessly: {"requests_per_input": 3},
    Streaming: {},
    Packed: {},
    InPieces: {},
}
"""The backends that keep every rule, and what their test classes declare."""


# What is done with a failure, or with an answer, before the transport goes on with it.


class _Changed(GoodHTTP):
    async def _open(self, headers: Any) -> Any:
        transport: Any = await super()._open(headers)
        attempt = transport._client.attempt

        async def changed(*args: Any, **kwargs: Any) -> Any:
            result = await attempt(*args, **kwargs)
            return self.change(result) if isinstance(result, Failure) else result

        transport._client.attempt = changed
        return transport

    def change(self, failure: Failure) -> Any:
        raise NotImplementedError


class _ReadsHeaders(GoodHTTP):
    ignored: ClassVar[Callable[[str, str], bool]]

    def classify(self, status: int, headers: Any, body: bytes) -> Failure:
        kept = {name.lower(): text for name, text in headers.items() if not self.ignored(name.lower(), text)}
        return super().classify(status, kept, body)


@breaks("H01")
class IgnoresSeconds(_ReadsHeaders):
    """Comes back before the seconds are over."""

    ignored = staticmethod(lambda name, text: name == "retry-after" and text.isdigit())


@breaks("H02")
class IgnoresDates(_ReadsHeaders):
    """Comes back before the date."""

    ignored = staticmethod(lambda name, text: name == "retry-after" and not text.isdigit())


@breaks("H03")
class IgnoresMilliseconds(_ReadsHeaders):
    """Comes back before the milliseconds are over."""

    ignored = staticmethod(lambda name, text: name == "retry-after-ms")


class _GivesUp(_Changed):
    words: ClassVar[str]

    def change(self, failure: Failure) -> Any:
        return replace(failure, retried=False) if self.words in failure.message else failure


@breaks("H04")
class GivesUpAtDrops(_GivesUp):
    """Gives up when a connection drops."""

    words = "Server disconnected"


@breaks("H05")
class GivesUpAtHalves(_GivesUp):
    """Gives up when an answer breaks off."""

    words = "payload is not completed"


@breaks("H06")
class GivesUpAtTimeouts(_GivesUp):
    """Gives up at a timeout."""

    words = "did not answer in time"


@breaks("H07")
class GivesUpAtErrors(_GivesUp):
    """Gives up when the server is overloaded."""

    words = "status 503"


@breaks("H10")
class GivesUpAtNothing(_GivesUp):
    """Gives up at an empty answer."""

    words = "the answer is empty"


@breaks("H08")
class GoesOnRefused(GoodHTTP):
    """Lets every input of a run be refused."""

    async def ask(self, body: Any) -> Any:
        try:
            return await super().ask(body)
        except GenerationError as error:
            error.stops_run = False
            raise


@breaks("H09")
class AsksAgainRefused(_Changed):
    """Sends a refused request again."""

    def change(self, failure: Failure) -> Any:
        return replace(failure, retried=True) if "too odd" in failure.message else failure


@breaks("H11")
class OneKind(_Changed):
    """Gives everything that is limited the kind of a server's error."""

    def change(self, failure: Failure) -> Any:
        return replace(failure, kind="server") if failure.kind == "rate_limit" else failure


@breaks("H12")
class OverlooksErrors(GoodHTTP):
    """Reads an answer whatever else is in it."""

    def failure_in(self, answer: Any, headers: Any) -> None:
        return None

    def read(self, answer: Any) -> GenerateOutput:
        has_texts = isinstance(answer, dict) and "texts" in answer
        return super().read({**answer, "error": None} if has_texts else answer)


@breaks("H29")
class ForgetsTemperature(GoodHTTP):
    """Does not send a parameter."""

    async def ask(self, body: Any) -> Any:
        return await super().ask({**body, "temperature": None})


@breaks("H30")
class TrustsCounts(GoodHTTP):
    """Gives counts as they come."""

    def read(self, answer: Any) -> GenerateOutput:
        output = super().read(answer)
        output["statistics"]["input_tokens"] = [answer["tokens"]]
        return output


@breaks("H31")
class TrustsTexts(GoodHTTP):
    """Takes whatever is there for a text."""

    def is_text(self, text: Any) -> bool:
        return True

    def read(self, answer: Any) -> GenerateOutput:
        output = super().read(answer)
        output["generations"] = [text and str(text) for text in output["generations"]]
        return output


@breaks("H20")
class ReadsPages(_Changed):
    """Takes a page for an answer."""

    def change(self, failure: Failure) -> Any:
        page = {"texts": ["<html>"], "tokens": 1}
        return page if "a page instead of JSON" in failure.message else failure


@breaks("H21")
class TrustsShapes(GoodHTTP):
    """Takes every answer to have the API's shape."""

    def read(self, answer: Any) -> GenerateOutput:
        return super().read({**answer, "texts": answer["texts"]})


@breaks("H22")
class ReadsEverything(GoodHTTP):
    """Reads a body to its end, however large."""

    max_answer_bytes: int | None = 2**40


@breaks("H23")
class FollowsRedirects(GoodHTTP):
    """Follows redirects, with the key in a header that the client does not know for one."""

    def auth_headers(self, api_key: str) -> dict[str, str]:
        return {"x-api-key": api_key}

    async def _open(self, headers: Any) -> Any:
        transport: Any = await super()._open(headers)
        request = transport._session._request

        def follow(*args: Any, **kwargs: Any) -> Any:
            return request(*args, **{**kwargs, "allow_redirects": True})

        object.__setattr__(transport._session, "_request", follow)
        return transport


@breaks("H24")
class LogsTheKey(GoodHTTP):
    """Logs its headers."""

    def auth_headers(self, api_key: str) -> dict[str, str]:
        headers = super().auth_headers(api_key)
        logging.getLogger("stillhouse.llm").debug("headers: %s", headers)
        return headers


@breaks("H25")
class KeyInTheBody(GoodHTTP):
    """Sends the key in the body, too."""

    async def ask(self, body: Any) -> Any:
        return await super().ask({**body, "key": self.api_key and self.api_key.get_secret_value()})


@breaks("H26")
class AsksTwice(GoodHTTP):
    """Asks some things twice."""

    async def ask(self, body: Any) -> Any:
        if self.max_concurrency == 64 and "one lake" in str(body):
            await super().ask({**body, "limit": 1})
        return await super().ask(body)


@breaks("H27")
class OneByOne(GoodHTTP):
    """Holds a lock around every request."""

    _lock: Any = PrivateAttr(default_factory=asyncio.Lock)

    async def ask(self, body: Any) -> Any:
        async with self._lock:
            return await super().ask(body)


@breaks("H28")
class InAThread(GoodHTTP):
    """Asks in a thread, which nothing breaks off."""

    async def ask(self, body: Any) -> Any:
        if self.max_concurrency != 3:
            return await super().ask(body)
        return await asyncio.to_thread(urllib.request.urlopen, f"{self.base_url}/generate", b"{}")


@breaks("H40")
class HoldsPiecesBack(InPieces):
    """Gives the pieces when all have come."""

    async def agenerate_streamed(self, input: FormattedInput, on_piece: Any, **kwargs: Any) -> GenerateOutput:
        pieces: list[str] = []
        output = await super().agenerate_streamed(input, pieces.append, **kwargs)
        for piece in pieces:
            on_piece(piece)
        return output


@breaks("H41")
class KeepsHalves(InPieces):
    """Takes the part that came for the answer."""

    def answer_of_events(self, events: list[Any]) -> Any:
        return self.joined(events)


@breaks("H42")
class StreamsOnce(InPieces):
    """Does not retry a stream."""

    async def _open(self, headers: Any) -> Any:
        transport: Any = await super()._open(headers)
        attempt = transport._client.attempt

        async def once(*args: Any) -> Any:
            result = await attempt(*args)
            is_stream = args[-1] is not None
            return replace(result, retried=False) if is_stream and isinstance(result, Failure) else result

        transport._client.attempt = once
        return transport


@breaks("H43")
class ReadsOn(InPieces):
    """Reads a stream to its end, also where nobody takes it."""

    async def agenerate_streamed(self, input: FormattedInput, on_piece: Any, **kwargs: Any) -> GenerateOutput:
        def give(piece: str) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                on_piece(piece)

        reading = asyncio.ensure_future(super().agenerate_streamed(input, give, **kwargs))
        return await asyncio.shield(reading)
