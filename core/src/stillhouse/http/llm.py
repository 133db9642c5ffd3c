"""`HTTPLLM`: the base of every backend that asks a server.

Over 300 lines: it is one class, and most lines document what a backend says.
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
"""The bound on an answer's size: the least, what each token asked for adds, and the most. A token with the
log probabilities of twenty candidates has about 2 KiB."""

MAX_PATHS = 64
"""How many addresses are remembered."""


class HTTPLLM(PacingMixin, ServerLLM):
    """A model behind an HTTP API.

    A backend says where the API is and how it is authorised (the class variables, and `auth_headers`).
    It gives two plain functions: `request_of` turns an input into a `Request`, and `output_of` turns an
    answer into a `GenerateOutput`. Its `agenerate` declares the parameters, and returns
    `await self.complete(input, num_generations, arguments)`. This class handles connections, retries,
    rate limits, timeouts, answers that are short or ill-formed, and errors.
    """

    quota_headers: ClassVar[tuple[QuotaHeaders, ...]] = X_RATELIMIT
    """The headers of a response that say what is left of a quota."""

    models_path: ClassVar[str | tuple[str, ...] | None] = None
    """The path below `base_url` at which the API lists its models, or several; `None` where it lists none.

    A backend whose paths depend on its settings makes it a property, which is read while it is loaded."""

    _shows_messages: ClassVar[bool] = True  # the transport shows what is sent and answered

    max_answer_bytes: RuntimeParameter[int] | None = Field(
        default=None, gt=0, description="Size above which an answer is refused; None follows max_new_tokens."
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

        This one reads OpenAI's form, and a bare list. Nothing need be checked: what is not well formed is
        left out, and an exception becomes an error that says that the answer has another shape.

        Args:
            answer: JSON types.
        """
        return cast("Iterable[ModelInfo]", listed_models(answer))

    def models_page_after(self, answer: Any) -> Mapping[str, str | int] | None:
        """Return the query of the page after an answer of `models_path`; `None` after the last.

        Args:
            answer: JSON types.
        """
        return None

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
        not wait: what has to be waited for, such as fresh credentials, is fetched in `authorize`.

        Args:
            method: the method.
            url: the address, exactly as it is sent.
            headers: those of the API and of `authorize`; the client adds only those of the connection.
            body: exactly what is sent; an `Upload` if that is a file.
        """
        return {}

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Return the failure that a response with an error status is; a backend may know better."""
        return failure_of(status, headers, body)

    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Failure | None:
        """Return the failure that an answer with a good status is, or `None` if it is an answer.

        What follows is what follows from an error status: the request is retried, all requests pause or
        slow down, or the run stops, as the `Failure` says. This one knows an `error` at the top of a JSON
        object, of a line or of an event, and an event of the type `error`; it asks `classify` what the same
        refusal with an error status is. An answer with nothing in it never gets here: it is retried.

        It looks at what `complete` gets. What `post` gets is looked at only where a backend overrides it, and
        what `request` gets only with `check`.

        Args:
            answer: as `output_of` gets it.
            headers: of the response.
        """
        return failure_in(answer, headers, self.classify)

    def quotas_in(self, answer: Any, headers: Mapping[str, str]) -> Mapping[str, QuotaLeft | None]:
        """Return what an answer itself says is left of the provider's quotas, by their names.

        It is for an API that says so in the body, and called for every good answer only if a backend
        overrides it. Requests slow down before they are refused, as they do by `quota_headers`. A quota
        whose name has `token` in it is one of tokens; every other is one of requests. An answer that says
        nothing, or says it in another shape, changes nothing: it need not be checked first.

        Args:
            answer: as `output_of` gets it.
            headers: of the response.

        Returns:
            What `quota_left` makes of each quota.
        """
        return {}

    def answer_of_events(self, events: list[Any]) -> Any:
        """Join a stream into the answer that was asked for, where a server streams it all the same.

        Only if a backend overrides it; else such an answer is a failure that says what came.

        Args:
            events: the JSON of each event's data, or of each line of an API that streams lines; the last is
                the text `[DONE]` if the stream ended with it.

        Raises:
            ValueError: it is not a stream of this API.
            GenerationError: it broke off, which is of the kind `connection`, or it has no answer, of the kind
                `server`. Of either kind, the request is retried.
        """
        raise ValueError("the API streams nothing")

    def stream_request_of(self, request: Request) -> Request | None:
        """Return the request for the same answer as a stream; `None` where the API does not stream it.

        A backend that can stream overrides it, `piece_of_event` and `answer_of_events`, with which the end of
        a stream is read as the same answer in one piece. A structured output is never streamed: an answer
        that violates the form is retried. Where the server refuses to stream, or answers in one piece all
        the same, the whole text comes at once.

        Args:
            request: for one generation, as `request_of` made it; it and its body are not to be mutated.

        Returns:
            Usually `dataclasses.replace(request, body={**request.body, "stream": True}, wire="events")`. The
                wire is `events`, or `lines`, each of which must be JSON, or a function that returns a
                `StreamReader`.
        """
        return None

    def piece_of_event(self, event: Any) -> str | None:
        """Return the text that an event of a stream adds to the answer; `None` for any other event.

        Nothing need be checked: an event that has another shape, so that this raises a `KeyError` or such,
        adds nothing, and what is returned and is no text is passed over.

        Args:
            event: JSON types, as in `answer_of_events`.
        """
        return None

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        """Return the request for an input; online, offline and when it is repeated.

        Args:
            input: the input, not to be mutated.
            num_generations: how many generations to ask for.
            arguments: the generation parameters that were given; `None` means the API's default.

        Raises:
            UnsupportedError, ConfigurationError: the API cannot be asked for this.
        """
        raise NotImplementedError(f"{type(self).__name__} has no request_of, which complete() needs")

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        """Return the output of an answer, before anything is validated.

        An exception of another type, such as a `KeyError`, becomes a `GenerationError` that says that the
        answer has another shape: an answer need not be checked first.

        Args:
            answer: JSON types, or what `request.wire` gives.
            request: the request. Of one of an offline batch only the path is known: its body is `None`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no output_of, which complete() needs")

    def used_tokens(self, output: GenerateOutput) -> int | None:
        """Return the tokens that an answer counts towards the quota; `None` without both counts."""
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
        """Generate for one input, by `request_of` and `output_of`: what `agenerate` returns.

        Generations that are missing, or violate the form, are asked for again.

        Raises:
            GenerationError: it failed after all retries; `kind` says how.
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
        """Send one request, and return the output of its answer, whatever it lacks.

        Args:
            request: the request.
            num_generations: how many generations it asks for.
            read: returns the output of an answer; `None` is `output_of`.

        Raises:
            GenerationError: it failed after all retries; `kind` says how.
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

        It is for a backend whose `agenerate` makes its requests itself; `complete` does all of it.

        Args:
            path: such as `chat/completions`.
            body: what to send; JSON types.
            max_new_tokens: how many tokens may be generated, for the estimate that
                `tokens_per_minute` needs.
            used_tokens: returns how many tokens an answer says that it used, for the same. It need
                not check the shape of the answer.

        Raises:
            GenerationError: it failed after all retries; `kind` says how.
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

        A `POST` of bytes counts towards `tokens_per_minute`, since it may generate; every request counts
        towards `requests_per_minute`.

        Args:
            method: such as `GET`.
            path: such as `batches`.
            data: the body: JSON, or a file.
            query: the parameters of the query, besides those of `base_url`.
            headers: to send besides those of every request.
            wire: how the body of the answer is read, as in `Request`.
            max_new_tokens: how many tokens it may generate.
            check: whether `failure_in` looks at the answer. A job may have an `error` and still be an answer.
            save_to: a file for an answer of any size; `None` is returned then. It may take any time, as
                long as no more than `timeout` seconds pass without a byte.
            once: do not repeat it when it may have been carried out.

        Raises:
            UnclearError: it was made `once`, and may have been carried out.
            GenerationError: it failed after all retries; `kind` says how.
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
