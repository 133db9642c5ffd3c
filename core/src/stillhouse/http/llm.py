"""`HTTPLLM`: the base of every backend that asks a server.

Over 300 lines: it is one class, and most lines document what a backend defines.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

import orjson
from pydantic import Field, PrivateAttr

from stillhouse._settings.models import cannot_list
from stillhouse._settings.redaction import Redactor
from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.errors import GenerationError, StillhouseError
from stillhouse.http.asking import Ask, ask_until_done, continued, unreadable
from stillhouse.http.listing import NearNames, listed_models, read_pages
from stillhouse.http.pacing import PacingMixin, correct_tokens
from stillhouse.http.request import Request
from stillhouse.http.server import ServerLLM
from stillhouse.http.transport.answers import failure_in
from stillhouse.http.transport.failures import failure_of
from stillhouse.http.transport.feeding import Feed
from stillhouse.http.transport.quotas import X_RATELIMIT, QuotaHeaders, QuotaLeft
from stillhouse.http.transport.reading import Wire
from stillhouse.offline.failures import Failure
from stillhouse.outputs import check_output, count_of
from stillhouse.typing import ChatItem, FormattedInput, GenerateOutput, ModelInfo, OnPiece

if TYPE_CHECKING:
    from yarl import URL

    from stillhouse.http.transport.files import Upload
    from stillhouse.http.transport.session import Transport

__all__ = ["HTTPLLM"]

MIN_ANSWER_BYTES = 8 * 2**20
BYTES_PER_TOKEN = 8 * 2**10
MAX_ANSWER_BYTES = 64 * 2**20
"""The bound on the size of an answer: the minimum, the addition for each requested token, and the maximum. A
token with the log probabilities of twenty candidates takes about 2 KiB."""

MAX_PATHS = 64
"""Number of addresses that are kept in memory."""


class HTTPLLM(PacingMixin, ServerLLM):
    """A model behind an HTTP API.

    A backend defines where the API is and how requests are authorised (the class variables, and
    `auth_headers`). It implements two plain functions: `request_of` turns an input into a `Request`, and
    `output_of` turns an answer into a `GenerateOutput`. Its `agenerate` declares the generation parameters
    and returns `await self.complete(input, num_generations, arguments)`. This class handles connections,
    retries, rate limits, timeouts, incomplete and invalid answers, and errors.
    """

    quota_headers: ClassVar[tuple[QuotaHeaders, ...]] = X_RATELIMIT
    """The headers of a response that report the remaining quotas."""

    models_path: ClassVar[str | tuple[str, ...] | None] = None
    """The path, or paths, below `base_url` that list the models of the API; `None` if there is no list.

    If the paths depend on the settings, make it a property; it is read while the LLM is loaded."""

    _shows_messages: ClassVar[bool] = True  # the transport shows what is sent and answered

    max_answer_bytes: RuntimeParameter[int] | None = Field(
        default=None,
        gt=0,
        description="Maximum size of an answer in bytes; None derives it from max_new_tokens.",
    )

    _transport: Transport | None = PrivateAttr(default=None)

    def load(self) -> None:
        super().load()
        self._transport = self.run_on_loop(self._open(self._prepare()))
        self._loop_thread().close_at_end(self._transport.close_session)

    def unload(self) -> None:
        transport, self._transport = self._transport, None
        self._key = None
        if transport is not None:
            self.run_on_loop(transport.close())
        super().unload()

    async def _open(self, headers: Mapping[str, str]) -> Transport:
        # aiohttp takes long to import, and listing or checking backends does not need it.
        from stillhouse.http.transport.authorization import Authorization
        from stillhouse.http.transport.hooks import Hooks
        from stillhouse.http.transport.session import Transport

        cls = type(self)
        authorize = None if cls.authorize is HTTPLLM.authorize else self.authorize
        sign = None if cls.sign is HTTPLLM.sign else self.sign
        tells = cls.quotas_in is not HTTPLLM.quotas_in
        joins = cls.answer_of_events is not HTTPLLM.answer_of_events
        near = NearNames(self._models, self.model_name, self._registered_name, self._mask)
        return Transport(
            self._base,
            headers,
            self._limits(self.max_concurrency),
            timeout=self.timeout or 120.0,
            retry_timeout=self.retry_timeout or 0.0,
            hooks=Hooks(
                self.classify,
                self.failure_in,
                self.answer_of_events if joins else None,
                self.quota_headers,
                self.quotas_in if tells else None,
                near.explained if self.models_path else None,
            ),
            authorization=Authorization(authorize, sign) if authorize or sign else None,
            secrets=self._secrets(headers),
        )

    def list_models(self) -> list[ModelInfo]:
        if type(self).models_path is None:
            raise cannot_list(type(self).__name__)
        if self.is_loaded:
            return self.run_on_loop(self._models())
        # A copy: whoever loads this one meanwhile must not find it unloaded again.
        with copy.copy(self) as llm:
            return llm.run_on_loop(llm._models())

    async def _models(self) -> list[ModelInfo]:
        paths = self.models_path or ()
        # What a backend looks for in an answer is that of its generations.
        check = type(self).failure_in is HTTPLLM.failure_in
        found: dict[str, ModelInfo] = {}
        try:
            for path in (paths,) if isinstance(paths, str) else paths:

                async def get(query: Mapping[str, str | int] | None, path: str = path) -> Any:
                    return await self.request("GET", path, query=query, check=check)

                await read_pages(get, self.models_in, self.models_page_after, self._mask, found)
        except GenerationError as error:
            self._redactor().redact_error(error)
            raise
        return list(found.values())

    def _mask(self, text: str) -> str:
        return self._redactor().redact(text)

    def _registered_name(self) -> str:
        try:
            return self.registry.name_of(type(self))
        except StillhouseError:
            return ""

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        """Return the models in an answer of `models_path`.

        The default reads OpenAI's format, and a plain list. An override need not check the answer: malformed
        entries are left out, and an exception becomes an error about the shape of the answer.

        Args:
            answer: JSON types.
        """
        return cast("Iterable[ModelInfo]", listed_models(answer))

    def models_page_after(self, answer: Any) -> Mapping[str, str | int] | None:
        """Return the query of the page that follows an answer of `models_path`; `None` after the last page.

        Args:
            answer: JSON types.
        """
        return None

    @property
    def seconds_waited(self) -> float | None:
        """Seconds that requests have waited for a limit, or to be sent again; `None` if it is not loaded."""
        transport = self._transport
        return None if transport is None else transport.limits.seconds_waited

    def _redactor(self) -> Redactor:
        transport = self._transport
        return super()._redactor() if transport is None else transport.redactor

    async def authorize(self) -> Mapping[str, str]:
        """Return the headers that authorise one attempt, for credentials that expire while the LLM is loaded.

        It is called for every attempt, on the LLM's loop, and only if a backend overrides it.
        """
        return {}

    def sign(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | Upload
    ) -> Mapping[str, str]:
        """Return the headers that sign one attempt.

        It is called for every attempt, on the LLM's loop, and only if a backend overrides it. It must
        not block: fetch credentials in `authorize`.

        Args:
            method: the method.
            url: the address, exactly as it is sent.
            headers: the headers of the API and of `authorize`; the client adds only those of the connection.
            body: the body, exactly as it is sent; an `Upload` if it is a file.
        """
        return {}

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return the `Failure` for a response with an error status. A backend may correct the default."""
        return failure_of(status, headers, body)

    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Failure | None:
        """Return the `Failure` that an answer with a good status reports, or `None` if it is a real answer.

        A `Failure` has the same effect as an error status: the request is retried, all requests pause or slow
        down, or the run stops. The default recognises an `error` at the top of a JSON object, a line or an
        event, and an event of the type `error`, and passes it to `classify`. Empty answers are retried
        without calling this method.

        It is called for the answers of `complete`; for those of `post` only if a backend overrides it, and
        for those of `request` only with `check`.

        Args:
            answer: the answer, as in `output_of`.
            headers: the headers of the response.
        """
        return failure_in(answer, headers, self.classify)

    def quotas_in(self, answer: Any, headers: Mapping[str, str]) -> Mapping[str, QuotaLeft | None]:
        """Return the remaining quotas that an answer reports in its body, by name.

        Override it for an API that reports quotas in the body; it is then called for every good answer.
        Requests slow down before they are refused, as with `quota_headers`. A quota whose name contains
        `token` counts tokens; any other counts requests. An answer without quotas, or with another shape,
        has no effect, so an override need not check it.

        Args:
            answer: the answer, as in `output_of`.
            headers: the headers of the response.

        Returns:
            The result of `quota_left` for each quota.
        """
        return {}

    def answer_of_events(self, events: list[Any]) -> Any:
        """Join the events of a stream into the answer that the API gives without streaming.

        It is used for streams, and if a server streams although it was not asked to. Without an override,
        such an answer is a failure.

        Args:
            events: the JSON of each event's data, or of each line of an API that streams lines; the last is
                the text `[DONE]` if the stream ended with it.

        Raises:
            ValueError: this is not a stream of this API.
            GenerationError: the stream broke off (kind `connection`), or has no answer (kind `server`). The
                request is retried in both cases.
        """
        raise ValueError("the API streams nothing")

    def stream_request_of(self, request: Request) -> Request | None:
        """Return a request that streams the answer; `None` if the API cannot stream it.

        A backend that can stream overrides this method, `piece_of_event`, and `answer_of_events`, which joins
        the events into one answer at the end. A structured output is never streamed, because an answer that
        violates the form is retried. If the server refuses to stream, or answers in one piece, the whole text
        is one piece.

        Args:
            request: a request for one generation, as `request_of` made it. Do not change it or its body.

        Returns:
            Usually `dataclasses.replace(request, body={**request.body, "stream": True}, wire="events")`. The
                wire is `events` or `lines`, and each event or line must be JSON; or it is a function that
                returns a `StreamReader`.
        """
        return None

    def piece_of_event(self, event: Any) -> str | None:
        """Return the text that an event of a stream adds to the answer; `None` for any other event.

        An override need not check the event: if it raises an exception such as a `KeyError`, or returns
        something other than a text, the event adds nothing.

        Args:
            event: JSON types, as in `answer_of_events`.
        """
        return None

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        """Return the request for an input. It is used online, in offline batches, and for retries.

        Args:
            input: the input, which must not be changed.
            num_generations: the number of generations to request.
            arguments: the given generation parameters; `None` means the API's default.

        Raises:
            UnsupportedError, ConfigurationError: the API does not support this request.
        """
        raise NotImplementedError(f"{type(self).__name__} has no request_of, which complete() needs")

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        """Return the output of an answer, before it is validated.

        The answer need not be checked first: an exception such as a `KeyError` becomes a `GenerationError`
        about the shape of the answer.

        Args:
            answer: JSON types, or the type that belongs to `request.wire`.
            request: the request. For a request of an offline batch, only the path is known; its body is
                `None`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no output_of, which complete() needs")

    def used_tokens(self, output: GenerateOutput) -> int | None:
        """Return the number of tokens that count towards the quota; `None` unless both counts are known."""
        total = 0
        for name in ("input_tokens", "output_tokens"):
            counts = output["statistics"].get(name)
            if not isinstance(counts, (list, tuple)):
                counts = [counts]
            known = [count for count in map(count_of, counts) if count is not None]
            if not known:
                return None
            total += sum(known)
        return total

    async def complete(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> GenerateOutput:
        """Generate for one input with `request_of` and `output_of`; call it in `agenerate`.

        Generations that are missing or violate the form are requested again.

        Raises:
            GenerationError: the request failed after all retries; `kind` says how.
        """
        request = self.request_of(input, num_generations, arguments)
        if request.max_new_tokens is None:
            request.max_new_tokens = arguments.get("max_new_tokens")
        output = None
        if request.form is None:
            on_piece = self.claim_stream() if num_generations == 1 else None
            if on_piece is not None:
                output = await self._streamed(request, on_piece)
            if output is None:
                output = await self.exchange(request, num_generations)
            if len(output["generations"]) == num_generations:
                return output
        ask = self._asker(input, arguments, request, output)
        return await ask_until_done(ask, num_generations, request.form)

    async def _streamed(self, request: Request, on_piece: OnPiece) -> GenerateOutput | None:
        """Send a request as a stream, and return its output; `None` if it must be sent as it is."""
        asked = self.stream_request_of(request)
        if asked is None:
            return None
        feed = Feed(asked.wire, self.piece_of_event, on_piece)
        asked = replace(asked, wire="json")  # the end of a stream is read as an answer
        asked._feed = feed
        try:
            return await self.exchange(asked)
        except GenerationError as error:
            kinds = ("authentication", "invalid_request")  # a permission may be for whole answers only
            refused = error.kind in kinds and "stream" in error.message.lower()
            if feed.has_given or not refused:
                raise
            return None

    def _asker(
        self,
        input: FormattedInput,
        arguments: Mapping[str, Any],
        request: Request,
        output: GenerateOutput | None,
    ) -> Ask:
        """Return what makes the requests for an input, the first of which is `request`.

        `output` is the first's if it was made.
        """
        first: Request | None = request
        is_instructed = request.form is not None and request.form.is_instructed

        async def ask(missing: int, made: int, messages: Sequence[ChatItem]) -> GenerateOutput:
            nonlocal first
            made_of_input, first = first, None
            if made_of_input is not None:
                if output is not None:
                    return output
                if missing == 1 or not is_instructed:
                    return await self._ask_once(made_of_input, missing)
            given = dict(arguments)
            if made and given.get("seed") is not None:
                given["seed"] += made
            again = self.request_of(continued(input, messages), 1 if is_instructed else missing, given)
            if again.max_new_tokens is None:
                again.max_new_tokens = given.get("max_new_tokens")
            return await self._ask_once(again, missing)

        return ask

    async def _ask_once(self, request: Request, num_generations: int) -> GenerateOutput:
        return await self.exchange(request, num_generations)

    async def exchange(
        self,
        request: Request,
        num_generations: int = 1,
        *,
        read: Callable[[Any, Request], GenerateOutput] | None = None,
    ) -> GenerateOutput:
        """Send one request, and return the output of its answer, even if generations are missing.

        Args:
            request: the request.
            num_generations: the number of generations that it asks for.
            read: returns the output of an answer; `None` means `output_of`.

        Raises:
            GenerationError: the request failed after all retries; `kind` says how.
        """
        transport = self._connected()
        path, query = request.path, request.query
        url = transport.urls.get(path)
        if url is None:
            url = self._url(transport, path)
        if query:
            url = url.update_query(query)
        body, asked = request.body, (request.max_new_tokens or 0) * num_generations
        data = body if type(body) is bytes else _json(body)
        limits = transport.limits
        tokens = len(data) // 4 + asked if limits.counts_tokens else 0
        answer = await transport.send(
            request.method,
            url,
            data,
            headers=request.headers,
            tokens=tokens,
            wire=request.wire,
            max_bytes=self._max_bytes(asked),
            feed=request._feed,
        )
        try:
            output = (read or self.output_of)(answer, request)
        except StillhouseError:
            raise
        except Exception as error:  # of a decoder, for one: whatever it is, the answer cannot be read
            raise unreadable(error) from error
        if (
            type(output) is not dict
            or type(output.get("generations")) is not list
            or type(output.get("statistics")) is not dict
        ):
            output = check_output(output, None, type(self).__name__)  # says what is wrong with it
        if limits.counts_tokens:
            correct_tokens(limits, tokens, self.used_tokens, output)
        return output

    def _max_bytes(self, max_new_tokens: int) -> int:
        """Return how large the answer to a request for so many tokens may be."""
        follows = MIN_ANSWER_BYTES + max_new_tokens * BYTES_PER_TOKEN
        return self.max_answer_bytes or min(follows, MAX_ANSWER_BYTES)

    def _url(self, transport: Transport, path: str) -> URL:
        """Return the address of a path, remembered unless there are many of them, as of ids."""
        url = self.url_of(self._base, path)
        if len(transport.urls) < MAX_PATHS:
            transport.urls[path] = url
        return url

    async def post(
        self,
        path: str,
        body: Any,
        *,
        max_new_tokens: int | None = None,
        used_tokens: Callable[[Any], int | None] | None = None,
    ) -> Any:
        """Send a body to a path below `base_url`, and return the JSON of the answer.

        Use it in a backend whose `agenerate` makes its requests itself; `complete` does all of this.

        Args:
            path: such as `chat/completions`.
            body: the body to send; JSON types.
            max_new_tokens: the maximum number of generated tokens, for the estimate that
                `tokens_per_minute` needs.
            used_tokens: returns the number of tokens that an answer reports as used, for the same purpose.
                It need not check the shape of the answer.

        Raises:
            GenerationError: the request failed after all retries; `kind` says how.
        """
        transport = self._connected()
        url = transport.urls.get(path) or self._url(transport, path)
        data, asked, limits = _json(body), max_new_tokens or 0, transport.limits
        tokens = len(data) // 4 + asked
        answer = await transport.send(
            "POST",
            url,
            data,
            tokens=tokens,
            max_bytes=self._max_bytes(asked),
            is_checked=type(self).failure_in is not HTTPLLM.failure_in,
        )
        if used_tokens is not None and limits.counts_tokens:
            correct_tokens(limits, tokens, used_tokens, answer)
        return answer

    async def request(
        self,
        method: str,
        path: str,
        data: bytes | Upload | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        wire: Wire = "json",
        max_new_tokens: int | None = None,
        check: bool = False,
        save_to: IO[bytes] | None = None,
        once: bool = False,
    ) -> Any:
        """Make any other request to a path below `base_url`, and return the answer.

        Every request counts towards `requests_per_minute`. A `POST` of bytes also counts towards
        `tokens_per_minute`, because it may generate.

        Args:
            method: such as `GET`.
            path: such as `batches`.
            data: the body: JSON, or a file.
            query: the parameters of the query, in addition to those of `base_url`.
            headers: headers to send in addition to those of every request.
            wire: how the body of the answer is read, as in `Request`.
            max_new_tokens: the maximum number of tokens that it may generate.
            check: whether `failure_in` checks the answer. A job with an `error` may still be a valid answer.
            save_to: a file for an answer of any size; `None` is returned then. The download may take any
                time, as long as no more than `timeout` seconds pass without a byte.
            once: whether the request must not be repeated if it may have been carried out.

        Raises:
            UnclearError: `once` is set, and the request may have been carried out.
            GenerationError: the request failed after all retries; `kind` says how.
        """
        transport = self._connected()
        url = self.url_of(self._base, path)
        if query:
            url = url.update_query(query)
        tokens = 0
        if method == "POST" and isinstance(data, bytes) and not once:
            tokens = len(data) // 4 + (max_new_tokens or 0)
        return await transport.send(
            method,
            url,
            data,
            headers=headers,
            tokens=tokens,
            wire=wire,
            max_bytes=self.max_answer_bytes or MAX_ANSWER_BYTES,
            is_checked=check,
            save_to=save_to,
            once=once,
        )

    def _connected(self) -> Transport:
        # pydantic looks for a private attribute everywhere else first.
        transport: Transport | None = (self.__pydantic_private__ or {})["_transport"]
        if transport is None:
            self.require_loaded()
            raise AssertionError
        return transport


def _json(body: Any) -> bytes:
    """Return a body as JSON.

    Raises:
        GenerationError: it is not JSON.
    """
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise GenerationError(
            f"the request cannot be written as JSON: {error}",
            kind="invalid_request",
            attempts=0,
            hint="give text that is valid Unicode, and values that JSON knows",
        ) from None
