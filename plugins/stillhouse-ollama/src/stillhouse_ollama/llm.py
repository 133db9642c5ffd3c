"""`OllamaLLM`: Ollama's own API."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Unpack

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
from stillhouse.http import Failure, Request, StructuredHTTPLLM, effort_of
from stillhouse.typing import ModelInfo
from stillhouse_ollama.address import DEFAULT_ADDRESS, address_of
from stillhouse_ollama.failures import ollama_failure
from stillhouse_ollama.messages import request_messages
from stillhouse_ollama.parameters import OPTIONS, OllamaParameters
from stillhouse_ollama.schemas import format_of
from stillhouse_ollama.streams import answer_of_lines, piece_of_line
from stillhouse_ollama.wire import output_of

__all__ = ["OllamaLLM"]

_EFFORTS: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
}

_CHAT_ONLY = ("reasoning_effort", "think", "tool_choice", "tools")

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")

_USUAL_CONTEXTS = frozenset({2048, 4096, 32768, 262144})
"""How many tokens a context has where nobody said so, in older and newer servers."""


class OllamaLLM(StructuredHTTPLLM):
    """Models of an Ollama server, on this machine, on another or in Ollama's cloud.

    Chats go to `api/chat`, and raw prompts, without a template, to `api/generate`. Each
    generation is a separate request. A prompt that is longer than the context is an error: otherwise
    the server would silently drop its beginning.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "logprobs", "raw_prompt", "seed", "tools"}
    )

    raw_forms: ClassVar[bool] = True

    default_base_url: ClassVar[str | None] = DEFAULT_ADDRESS
    base_url_variable: ClassVar[str | None] = "OLLAMA_HOST"
    api_key_variable: ClassVar[str | None] = "OLLAMA_API_KEY"
    api_key_required: ClassVar[bool] = False

    models_path: ClassVar[str | tuple[str, ...] | None] = "api/tags"

    max_concurrency: RuntimeParameter[int] = Field(
        default=4,
        ge=1,
        description="Maximum number of inputs in flight; the server processes OLLAMA_NUM_PARALLEL at once.",
    )
    timeout: RuntimeParameter[float] = Field(
        default=900.0,
        gt=0,
        description="Time limit in seconds for one attempt, including its wait in the queue and loading "
        "the model.",
    )
    truncate: RuntimeParameter[bool] = Field(
        default=False,
        description="Whether to drop the beginning of a prompt that is longer than the context.",
    )
    shift: RuntimeParameter[bool] = Field(
        default=False,
        description="Whether to drop the beginning of the context and continue when an answer fills it.",
    )

    _num_generations_param_supported: bool = PrivateAttr(default=False)
    _told: set[str] = PrivateAttr(default_factory=set)

    def configured_base_url(self) -> str | None:
        return address_of(super().configured_base_url() or "")

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return ollama_failure(status, headers, body, self.model)

    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Failure | None:
        failure = super().failure_in(answer, headers)
        if failure is None and isinstance(answer, dict) and answer.get("done") is False:
            failure = Failure("connection", "the answer broke off before its end", retried=True, unclear=True)
        return failure

    def stream_request_of(self, request: Request) -> Request | None:
        return replace(request, body={**request.body, "stream": True}, wire="lines")

    def piece_of_event(self, event: Any) -> str | None:
        return piece_of_line(event)

    def answer_of_events(self, events: list[Any]) -> Any:
        return answer_of_lines(events)

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        """Those that the server has."""
        for model in answer["models"]:
            yield {"name": model.get("model") or model.get("name")}

    def check_input(self, input: Any) -> None:
        super().check_input(input)
        chat = input[0] if type(input) is tuple else input
        if type(chat) is list:
            request_messages(chat)

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        checked = super().check_arguments(arguments)
        self._fields({name: value for name, value in checked.items() if value is not None})
        return checked

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        return {"format": format_of(structured_output, cls.__name__)}

    async def agenerate(self, input: FormattedInput, **arguments: Unpack[OllamaParameters]) -> GenerateOutput:
        """Generate once for one chat or raw prompt. `None` is not sent: it means the model's default.

        Args:
            input: the chat, or the raw prompt.
            max_new_tokens: maximum number of tokens to generate, including thoughts.
            temperature: sampling temperature; 0 always takes the most likely token.
            top_p: sample from the most likely tokens with this total probability.
            top_k: sample from this many most likely tokens.
            min_p: sample from tokens with at least this fraction of the most likely token's probability.
            typical_p: sample from the most typical tokens with this total probability.
            stop: texts that end the generation.
            seed: seed for sampling.
            frequency_penalty: penalty for a token, for each time it has occurred.
            presence_penalty: penalty for a token that has occurred at all.
            repetition_penalty: penalty for tokens that occurred recently; 1 means none.
            repeat_last_n: number of recent tokens that penalties apply to; -1 for all.
            num_ctx: size of the context in tokens, prompt and answer together. If the value changes, the
                server reloads the model.
            num_keep: number of prompt tokens to keep when `truncate` or `shift` drops some.
            logprobs: whether to return the log probabilities of the tokens.
            top_logprobs: number of most likely tokens to return for each position; implies `logprobs`.
            tools: the tools that the model may call, in OpenAI's format; chats only.
            tool_choice: only `auto`, which is what the API does.
            think: whether to think before answering, or how much: `low`, `medium`, `high` or `max`, if the
                model supports it; chats only. The text is returned as `reasoning`.
            reasoning_effort: the same with the values that all backends share: `none` turns thinking off,
                and `minimal` is `low`.
            keep_alive: how long the server keeps the model loaded afterwards: seconds, or a duration such
                as `5m`; -1 means forever.
            format: `json` for any JSON, or a JSON schema; `structured_output` works with every backend and
                also validates the answer.
            options: further options of the model, in the API's format; parameters listed here override
                them.
            extra_body: further fields of the request, in the API's format; they override others.

        Raises:
            GenerationError: it failed; `kind` says how. With a `structured_output`, `truncated` if the
                answer was cut off, and `schema` if it does not validate.
        """
        return await self.complete(input, 1, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        prompt, form = self.split(input)
        given = {name: value for name, value in arguments.items() if value is not None}
        body: dict[str, Any] = {"model": self.model, "stream": False}
        body |= {"truncate": bool(self.truncate), "shift": bool(self.shift)}
        raw = type(prompt) is str
        if raw:
            for name in _CHAT_ONLY:
                if name in given:
                    raise UnsupportedError(f"{name} does not apply to raw prompts", hint="send a chat")
            body |= {"prompt": prompt, "raw": True}
        else:
            body["messages"] = request_messages(prompt)
        extra = dict(given.get("extra_body") or {})
        options = _options(given) | (extra.pop("options", None) or {})
        if options:
            body["options"] = options
        body |= self._fields(given)
        if form is not None:
            body |= form.fields
        return Request("api/generate" if raw else "api/chat", body | extra, form)

    def _fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a request for the parameters that are no options."""
        name = type(self).__name__
        fields: dict[str, Any] = {}
        if given.get("tool_choice", "auto") != "auto":
            raise UnsupportedError(
                f"{name} does not support tool_choice {given['tool_choice']!r}: "
                "the API leaves the choice to the model",
                hint="leave it out, and say in the prompt which tool to call",
            )
        if given.get("tools"):
            fields["tools"] = given["tools"]
        if "think" in given and "reasoning_effort" in given:
            raise ConfigurationError(
                "think and reasoning_effort set the same thing", hint="set only one of them"
            )
        if "reasoning_effort" in given:
            fields["think"] = effort_of(given["reasoning_effort"], _EFFORTS, name)
        for key in ("think", "top_logprobs"):
            if key in given:
                fields[key] = given[key]
        if "logprobs" in given or "top_logprobs" in given:
            fields["logprobs"] = given.get("logprobs", True)
        if given.get("format"):
            fields["format"] = given["format"]
        if "keep_alive" in given:
            fields["keep_alive"] = _duration(given["keep_alive"])
        return fields

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        output = output_of(answer, chat=request.path == "api/chat")
        self._warn(output, request.body)
        return output

    def _warn(self, output: GenerateOutput, body: Any) -> None:
        """Tell once what is wrong with many rows and an error of none."""
        tokens = output["statistics"].get("input_tokens", [0])[0]
        options = body.get("options") if isinstance(body, dict) else None
        limit = options.get("num_ctx") if isinstance(options, dict) else None
        if tokens == limit or (limit is None and tokens in _USUAL_CONTEXTS):
            self._tell(
                f"a prompt has {tokens} tokens, as many as the context: its beginning may be lost; "
                "raise num_ctx, and update the server: an old one does not say so"
            )
        if output["generations"] == [None] and output.get("reasoning"):
            self._tell(
                "an answer has thoughts and nothing else: raise max_new_tokens, or set think to false or low"
            )

    def _tell(self, sentence: str) -> None:
        key = sentence.partition(":")[2]
        if self._logger is not None and key not in self._told:
            self._told.add(key)
            self._logger.warning("%s", sentence)


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(given.get("options") or {})
    for name, theirs in OPTIONS.items():
        if name in given:
            options[theirs] = given[name]
    if "stop" in given:
        options["stop"] = [given["stop"]] if isinstance(given["stop"], str) else given["stop"]
    return options


def _duration(given: str | int | float) -> str | int | float:
    """A duration as the API takes it: a number is one, and not a text; a command line gives texts."""
    if isinstance(given, str):
        text = given.strip()
        if _NUMBER.fullmatch(text):
            return float(text) if "." in text else int(text)
        return text
    return given
