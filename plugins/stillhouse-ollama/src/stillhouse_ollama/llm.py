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
    """Models that an Ollama server runs, on this machine, on another or in Ollama's cloud.

    Chats go to `api/chat`, and raw prompts, without a template, to `api/generate`. A request has one
    generation. A prompt that is longer than the context is an error: the server would drop its
    beginning without a word.
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
        description="How many inputs may be in flight at once; the server works at OLLAMA_NUM_PARALLEL.",
    )
    timeout: RuntimeParameter[float] = Field(
        default=900.0,
        gt=0,
        description="Seconds that one attempt may take: its turn and the loading of the model included.",
    )
    truncate: RuntimeParameter[bool] = Field(
        default=False, description="Whether a prompt that is longer than the context loses its beginning."
    )
    shift: RuntimeParameter[bool] = Field(
        default=False, description="Whether an answer that fills the context goes on without its beginning."
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
            failure = Failure("server", "the answer is not whole", retried=True, unclear=True)
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
            max_new_tokens: how many tokens to generate at most, thoughts included.
            temperature: how evenly the tokens are drawn; 0 takes the likeliest.
            top_p: draw from the likeliest tokens that make up this share.
            top_k: draw from so many of the likeliest tokens.
            min_p: draw from the tokens that are at least this share as likely as the likeliest.
            typical_p: draw from the tokens whose likelihood is nearest to what is expected.
            stop: texts at which to stop.
            seed: the seed of the draw.
            frequency_penalty: how much to avoid tokens for each time that they occurred.
            presence_penalty: how much to avoid tokens that occurred at all.
            repetition_penalty: how much to avoid tokens that occurred lately; 1 is not at all.
            repeat_last_n: how many of the last tokens the penalties look at; -1 is all.
            num_ctx: how many tokens the context has, prompt and answer together. Another value than
                before makes the server load the model again.
            num_keep: how many tokens of the prompt stay where `truncate` or `shift` drops some.
            logprobs: whether to return the log probabilities of the tokens.
            top_logprobs: how many of the likeliest tokens to return for each position; implies logprobs.
            tools: the tools that the model may call, in OpenAI's form; chats only.
            tool_choice: `auto`, which is what the API does; it can do nothing else.
            think: whether to think before answering, or how much: `low`, `medium`, `high` or `max`, as
                the model has it; chats only. The text is returned as `reasoning`.
            reasoning_effort: the same in the words of all backends: `none` does not think, and `minimal` is
                `low`.
            keep_alive: how long the server keeps the model loaded afterwards: seconds, or a duration such as
                `5m`; -1 is for ever.
            format: `json` for any JSON, or a JSON schema; `structured_output` is the portable way, which
                also checks the answer.
            options: further options of the model, as the API knows them; those with a name here win.
            extra_body: further fields of the request, as the API knows them; they win over others.

        Raises:
            GenerationError: it failed; `kind` says how. Of an answer with a `structured_output`,
                `truncated` if it was cut off, and `schema` if it does not validate.
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
                    raise UnsupportedError(f"{name} means nothing for a raw prompt", hint="send a chat")
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
                f"{name} has no tool_choice {given['tool_choice']!r}: the API leaves the choice to the model",
                hint="leave it out, and say in the prompt which tool to call",
            )
        if given.get("tools"):
            fields["tools"] = given["tools"]
        if "think" in given and "reasoning_effort" in given:
            raise ConfigurationError(
                "think and reasoning_effort say the same thing twice", hint="give one of them"
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
