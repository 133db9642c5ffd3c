"""`GenerateContentLLM`: what the Gemini API and Vertex AI share, which is one wire."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from pydantic import Field, PrivateAttr

from stillhouse import (
    Capability,
    ConfigurationError,
    FormattedInput,
    GenerateOutput,
    RuntimeParameter,
    StructuredOutput,
    UnsupportedError,
)
from stillhouse.http import Failure, Request, StructuredHTTPLLM
from stillhouse_google.failures import google_failure
from stillhouse_google.messages import request_contents
from stillhouse_google.parameters import GenerateContentParameters
from stillhouse_google.schemas import generation_config_of
from stillhouse_google.streams import answer_of_events, piece_of_event
from stillhouse_google.thinking import major_version, thinking_of
from stillhouse_google.tools import request_tool_config, request_tools
from stillhouse_google.wire import content_output

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["GenerateContentLLM"]

_VERSION = re.compile(r"/v\d[a-z0-9]*$")

_CONFIG = {
    "max_new_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
"""The parameters that stand in `generationConfig` as they are given, and what they are called there."""

_TOP = {"safety_settings": "safetySettings", "labels": "labels", "service_tier": "serviceTier"}
"""Those that stand beside it."""


class GenerateContentLLM(StructuredHTTPLLM):
    """A model that is called with `generateContent`.

    Each generation is a separate request with its own retries, because newer models reject several
    candidates.

    `input_tokens` counts the whole input, and `cached_tokens` the part read from a cache. `output_tokens`
    includes thoughts, which `reasoning_tokens` counts.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "logprobs", "seed", "tools"}
    )

    credential_headers: ClassVar[tuple[str, ...]] = ("x-goog-api-key", "authorization")

    default_api_version: ClassVar[str]
    """The version that is asked if nothing else is set: the newest fields come to it first."""

    api_version: RuntimeParameter[str] | None = Field(
        default=None,
        description="The version of the API, such as v1; GOOGLE_GENAI_API_VERSION, or the newest, if None.",
    )

    _num_generations_param_supported: bool = PrivateAttr(default=False)
    _version: str = PrivateAttr(default="")

    def load(self) -> None:
        version = self.api_version or os.environ.get("GOOGLE_GENAI_API_VERSION", "")
        self._version = self.default_api_version if version in ("", "beta") else version
        if not _VERSION.fullmatch(f"/{self._version}"):
            raise ConfigurationError(
                f"{self._version[:40]!r} is not a version of the API",
                hint="set api_version, or GOOGLE_GENAI_API_VERSION, such as v1 or v1beta",
            )
        super().load()

    def url_of(self, base_url: URL, path: str) -> URL:
        """Return the address of a path, below that of the API's version; a base URL may end with one.

        A path that begins with a slash is the whole path.
        """
        if path.startswith("/"):
            return super().url_of(base_url.with_path("/").with_query(base_url.query), path)
        return super().url_of(base_url, path if _VERSION.search(base_url.path) else f"{self._version}/{path}")

    @property
    def upload_path(self) -> str:
        """The whole path at which files go up, where the API takes some."""
        given = self._base.path.rstrip("/")
        found = _VERSION.search(given)
        version = found[0].lstrip("/") if found else self._version
        return f"{_VERSION.sub('', given)}/upload/{version}/files"

    @property
    def model_path(self) -> str:
        """The path of the model, below that of the API's version."""
        raise NotImplementedError

    def resource_path(self, name: str) -> str:
        """Return the full name of a cached content."""
        return name if "/" in name else f"cachedContents/{name}"

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return google_failure(status, headers, body)

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        return {"generationConfig": generation_config_of(structured_output, cls.__name__)}

    async def agenerate(
        self, input: FormattedInput, **arguments: Unpack[GenerateContentParameters]
    ) -> GenerateOutput:
        """Generate once for one chat. `None` is not sent: it means the model's default.

        Args:
            input: the chat.
            max_new_tokens: maximum number of tokens to generate, including thoughts.
            temperature: sampling temperature, from 0 to 2.
            top_p: sample from the most likely tokens with this total probability.
            top_k: sample from this many most likely tokens.
            stop: texts that end the generation, at most five.
            seed: seed for sampling.
            frequency_penalty: penalty for a token, for each time it has occurred.
            presence_penalty: penalty for a token that has occurred at all.
            logprobs: whether to return the log probabilities of the tokens. Not all models support it.
            top_logprobs: number of most likely tokens to return for each position, from 0 to 20.
            tools: the tools that the model may call, in OpenAI's formatat or the API's.
            tool_choice: which tool to call: `auto`, `none`, `required`, one by name, or the API's
                `toolConfig`.
            reasoning_effort: how long to think first: a budget for Gemini 2.5, a level from Gemini 3 on.
            thinking: how to think first, in the API's format, such as `{"includeThoughts": true,
                "thinkingLevel": "LOW"}`. The thoughts are returned as `reasoning`.
            safety_settings: which content to block, in the API's format.
            media_resolution: resolution of images: `low`, `medium` or `high`.
            labels: labels of the request, for billing.
            cached_content: name of cached content that the chat continues.
            service_tier: `flex`, `standard` or `priority`.
            extra_body: further fields of the request, in the API's format; objects are merged.

        Raises:
            GenerationError: it failed; `kind` says how. With a `structured_output`, `truncated` if the
                answer was cut off, and `schema` if it does not validate.
        """
        return await self.complete(input, 1, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        chat, form = self.split(input)
        system, contents = request_contents(chat)
        body: dict[str, Any] = {"contents": contents}
        if system is not None:
            body["systemInstruction"] = system
        config: dict[str, Any] = {}
        for name, value in arguments.items():
            if value is None:
                continue
            if name in _CONFIG:
                config[_CONFIG[name]] = value
            elif name in _TOP:
                body[_TOP[name]] = value
            elif name not in ("extra_body", "reasoning_effort"):
                self._add(name, value, body, config)
        effort = arguments.get("reasoning_effort")
        if effort is not None:
            thinking = thinking_of(effort, self.model, type(self).__name__)
            config["thinkingConfig"] = thinking | config.get("thinkingConfig", {})
        if "logprobs" in config:
            config.setdefault("responseLogprobs", True)
        if form is not None:
            if body.get("tools"):
                self._check_tools_with_form()
            config |= form.fields.get("generationConfig", {})
        if config:
            body["generationConfig"] = config
        extra = arguments.get("extra_body")
        return Request(f"{self.model_path}:generateContent", _merged(body, extra) if extra else body, form)

    def _add(self, name: str, value: Any, body: dict[str, Any], config: dict[str, Any]) -> None:
        """Add a parameter that has another form in the API."""
        if name == "stop":
            config["stopSequences"] = [value] if isinstance(value, str) else value
        elif name == "tools":
            if value:
                body["tools"] = request_tools(value)
        elif name == "tool_choice":
            body["toolConfig"] = request_tool_config(value)
        elif name == "thinking":
            config["thinkingConfig"] = value
        elif name == "media_resolution":
            word = value.upper()
            config["mediaResolution"] = (
                word if word.startswith("MEDIA_RESOLUTION_") else f"MEDIA_RESOLUTION_{word}"
            )
        elif name == "cached_content":
            body["cachedContent"] = self.resource_path(value)

    def _check_tools_with_form(self) -> None:
        """Reject tools beside a structured output where the model is known to refuse them."""
        version = major_version(self.model)
        if version is not None and version < 3:
            raise UnsupportedError(
                f"{self.model} does not support tools together with a structured output",
                hint="leave out one of them, or use a model from Gemini 3 on",
            )

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return content_output(answer)

    def stream_request_of(self, request: Request) -> Request | None:
        path = request.path.removesuffix(":generateContent")
        query = {**(request.query or {}), "alt": "sse"}
        return replace(request, path=f"{path}:streamGenerateContent", query=query, wire="events")

    def piece_of_event(self, event: Any) -> str | None:
        return piece_of_event(event)

    def answer_of_events(self, events: list[Any]) -> Any:
        return answer_of_events(events)

    def entries(self, answer: Any, name: str) -> Any:
        """Return what a page of a list has under a name: the API leaves out a list with nothing in it."""
        return answer[name] if answer.keys() - {"nextPageToken"} else ()

    def models_page_after(self, answer: Any) -> Mapping[str, str | int] | None:
        token = answer.get("nextPageToken")
        return {"pageToken": token} if isinstance(token, str) and token else None


def _merged(given: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the fields of another, whose objects are merged with its own."""
    merged = dict(given)
    for key, value in more.items():
        own = merged.get(key)
        merged[key] = _merged(own, value) if isinstance(own, dict) and isinstance(value, dict) else value
    return merged
