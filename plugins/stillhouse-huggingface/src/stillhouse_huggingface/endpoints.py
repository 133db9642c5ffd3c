"""What is found out before the first request: where an endpoint is, and what it speaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from pydantic import SecretStr

from stillhouse import ConfigurationError, FormattedInput, GenerateOutput, GenerationError, UnsupportedError
from stillhouse.http import HTTPLLM, Failure, string_of
from stillhouse.offline import clean_words, path_segment
from stillhouse_huggingface.addresses import API, HUB
from stillhouse_huggingface.failures import endpoint_failure

__all__ = ["Finder"]

POLL_SECONDS = 5.0

_STARTING = ("pending", "initializing", "updating")
_NOT_YET = frozenset({429, 502, 503, 504})
_PROBE_SECONDS = 20.0


class _Client(HTTPLLM):
    """Asks an API that generates nothing, by the same transport as a backend: proxies, retries, masking."""

    api_key_required = False

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return endpoint_failure(status, headers, body)

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        raise UnsupportedError("this client generates nothing")


class _Probe(_Client):
    """Asks a server that may be starting, or be none of the kind that is looked for."""

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        failure = super().classify(status, headers, body)
        if status in _NOT_YET:
            # The wait that it asks for may be longer than a try, and it is asked again all the same.
            return replace(failure, kind="server", retried=True, stops_run=False, retry_after=None)
        return replace(failure, kind="invalid_request", retried=False)


class Finder:
    """Finds an endpoint, and waits while it starts.

    Args:
        api_key: the key, sent to every address that is asked.
        headers: to send to the endpoint besides.
        start_timeout: seconds to wait at most until the endpoint answers.
        logger: is told what is waited for.
    """

    def __init__(
        self,
        api_key: str,
        headers: Mapping[str, str | SecretStr],
        start_timeout: float,
        logger: logging.Logger,
    ) -> None:
        self._key = api_key
        self._headers = headers
        self._wait = start_timeout
        self._logger = logger
        self._said = ""

    def endpoint(self, name: str, namespace: str | None) -> dict[str, Any]:
        """Return the state of an endpoint by name, once it runs or wakes at a request.

        Raises:
            ConfigurationError: there is none, it is paused or has failed, or it did not start in time.
            GenerationError: the API did not answer.
        """
        if not namespace:
            namespace = self._user()
        with self._client(API) as client:
            return client.run_on_loop(self._running(client, name, namespace))

    def _user(self) -> str:
        with self._client(HUB) as client:
            user = client.run_on_loop(client.request("GET", "whoami-v2"))
        given = user if isinstance(user, dict) else {}
        name = given.get("name")
        if given.get("type", "user") != "user" or not isinstance(name, str) or not name:
            raise ConfigurationError(
                "the token does not belong to a user, so the endpoint's namespace is unknown",
                hint="set endpoint_namespace to the user or the organization that owns the endpoint",
            )
        return name

    async def _running(self, client: HTTPLLM, name: str, namespace: str) -> dict[str, Any]:
        path = f"endpoint/{path_segment(namespace)}/{path_segment(name)}"
        ends = client.event_loop.time() + self._wait
        place = f"the endpoint {namespace}/{name}"
        while True:
            try:
                found = await client.request("GET", path)
            except GenerationError as error:
                if error.kind != "invalid_request":
                    raise
                raise ConfigurationError(
                    f"{place} cannot be looked up: {error.message}",
                    hint="check endpoint_name, endpoint_namespace, and the permissions of the token",
                ) from None
            given = found if isinstance(found, dict) else {}
            status = given.get("status")
            status = status if isinstance(status, dict) else {}
            state, url = clean_words(status.get("state")), status.get("url")
            has_url = isinstance(url, str) and bool(url)
            if has_url and state in ("running", "scaledToZero"):
                return given
            if state in ("paused", "failed", "updateFailed"):
                raise self._stopped(place, state, clean_words(status.get("message")))
            if client.event_loop.time() >= ends:
                raise self._late(place, state or "in a state that it does not say")
            self._tell(f"{place} is {state or 'starting'}; waiting at most {self._wait:g} s until it runs")
            await asyncio.sleep(POLL_SECONDS)

    def _stopped(self, place: str, state: str, message: str) -> ConfigurationError:
        said = {"paused": "is paused", "failed": "has failed", "updateFailed": "failed to update"}[state]
        hint = "resume it" if state == "paused" else "see its logs"
        return ConfigurationError(
            f"{place} {said}" + (f": {message}" if message else ""),
            hint=f"{hint} at https://endpoints.huggingface.co, or choose another endpoint",
        )

    def _late(self, place: str, state: str) -> ConfigurationError:
        return ConfigurationError(
            f"{place} is {state} after {self._wait:g} s",
            hint="wait and repeat the call, or raise start_timeout",
        )

    def info(self, root: str) -> dict[str, Any] | None:
        """Return what a TGI server says of itself; `None` if the server at an address is another.

        A request wakes an endpoint that is scaled to zero, so that this may have to wait.

        Raises:
            ConfigurationError: the endpoint did not start in time.
            GenerationError: there is no server.
        """
        found = self._ask(root, "info")
        return found if isinstance(found, dict) and isinstance(found.get("model_id"), str) else None

    def model(self, api: str) -> str | None:
        """Return the name under which an endpoint serves its model; `None` if it does not say."""
        found = self._ask(api, "models")
        models = found.get("data") if isinstance(found, dict) else None
        first = models[0] if isinstance(models, list) and models else None
        return string_of(first.get("id")) if isinstance(first, dict) else None

    def _ask(self, address: str, path: str) -> Any:
        """What a server says at a path, JSON types; `None` where it has none, or refuses to say."""
        with self._client(address, _Probe, self._headers) as client:
            try:
                raw = client.run_on_loop(self._answer(client, path))
                return None if raw is None else orjson.loads(raw)
            except orjson.JSONDecodeError:
                return None

    async def _answer(self, client: HTTPLLM, path: str) -> Any:
        ends = client.event_loop.time() + self._wait
        while True:
            try:
                return await client.request("GET", path, wire="bytes")
            except GenerationError as error:
                if error.kind == "connection":
                    raise
                if error.kind not in ("server", "timeout"):
                    return None
                if client.event_loop.time() >= ends:
                    raise self._late("the endpoint", f"not answering ({error.message})") from None
            self._tell(f"the endpoint is starting; waiting at most {self._wait:g} s until it answers")

    def _client(
        self,
        address: str,
        kind: type[_Client] = _Client,
        headers: Mapping[str, str | SecretStr] | None = None,
    ) -> HTTPLLM:
        return kind(
            model="endpoint",
            base_url=address,
            api_key=SecretStr(self._key),
            default_headers=dict(headers or {}),
            timeout=_PROBE_SECONDS,
            retry_timeout=min(self._wait, _PROBE_SECONDS),
        )

    def _tell(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            self._logger.warning("%s", sentence)
