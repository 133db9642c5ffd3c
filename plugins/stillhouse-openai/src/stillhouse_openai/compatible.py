"""`CompatibleLLM`: what every server that speaks OpenAI's chat completions API has in common."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Unpack

from pydantic import Field, field_validator

from stillhouse import (
    Capability,
    FormattedInput,
    GenerateOutput,
    RuntimeParameter,
    StructuredOutput,
    UnsupportedError,
)
from stillhouse.http import Failure, Request, RequestForm, StructuredHTTPLLM, effort_of
from stillhouse.structured import json_schema_of
from stillhouse.typing import ReasoningEffort
from stillhouse_openai.messages import plain_messages, with_reasoning_as, with_schema
from stillhouse_openai.parameters import ChatParameters
from stillhouse_openai.reasoning import without_thoughts
from stillhouse_openai.schemas import KEYWORDS, check_object, response_format
from stillhouse_openai.streams import answer_of_events, piece_of_event
from stillhouse_openai.wire import output_of

__all__ = ["CompatibleLLM", "efforts"]

# What is not sent under its own name, or not at once.
_RENAMED = frozenset({"extra_body", "logprobs", "max_new_tokens", "reasoning_effort", "top_logprobs"})

# Finish reasons of OpenRouter, Mistral, DeepSeek and Z.ai.
_FAILED = frozenset({"error", "insufficient_system_resource", "network_error"})

_STREAMED = frozenset({"chat/completions", "completions", "responses"})

_CHAT_ONLY = frozenset({"reasoning_effort", "response_format", "tool_choice", "tools"})


def efforts(*levels: ReasoningEffort) -> dict[str, dict[str, Any]]:
    """Return the fields of a request for levels of `reasoning_effort` that are sent as they are."""
    return {level: {"reasoning_effort": level} for level in levels}


class CompatibleLLM(StructuredHTTPLLM):
    """A model with an API like OpenAI's: chats go to `chat/completions`, raw prompts to `completions`.

    A subclass sets the address of the API and overrides what it does differently.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "logprobs", "num_generations", "raw_prompt", "seed", "tools"}
    )

    schema_keywords: ClassVar[frozenset[str]] = KEYWORDS
    """The keywords of JSON Schema that the API keeps to."""

    instructor_framework: ClassVar[str | None] = "openai"

    json_form: ClassVar[Literal["json_schema", "json_object", "prompt"]] = "json_schema"
    """How JSON is asked for: by its schema, as any object, or by the prompt alone. The latter two write the
    schema into a system message, and any schema will do."""

    reasoning_efforts: ClassVar[Mapping[str, Mapping[str, Any]]] = efforts(
        "none", "minimal", "low", "medium", "high", "max"
    )
    """The fields of a request for each level of `reasoning_effort` that the API has."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """The API's own names of parameters."""

    always_sent: ClassVar[Mapping[str, Any]] = {}
    """Fields of every request for a chat, unless `extra_body` says otherwise."""

    has_plain_contents: ClassVar[bool] = False
    """Whether contents that are lists of texts are sent as strings, and the role `developer` as `system`."""

    reasoning_key: ClassVar[str | None] = None
    """The key under which the assistant's messages have their reasoning; `None` sends them as they are."""

    kept_keys: ClassVar[tuple[str, ...]] = ()
    """Further keys of a message, or of an answer, that outputs keep."""

    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True, "stream_options": {"include_usage": True}}
    """The fields of a request that ask for a stream, with the tokens at its end."""

    models_path: ClassVar[str | tuple[str, ...] | None] = "models"

    reasoning_tag: RuntimeParameter[str] | None = Field(
        default=None,
        pattern=r"^[\w:|-]+$",
        description="The tag, such as think, around reasoning in the model's text; the reasoning is moved "
        "out of the text. None leaves texts unchanged.",
    )
    max_tokens_name: str = Field(
        default="max_completion_tokens",
        description="The server's name for max_new_tokens in chats; older servers use max_tokens.",
    )

    @field_validator("reasoning_tag", mode="before")
    @classmethod
    def _name_of_tag(cls, given: Any) -> Any:
        return given.strip("</>") if isinstance(given, str) else given

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        schema = json_schema_of(structured_output, cls.__name__)
        if cls.json_form == "prompt":
            return {}
        if cls.json_form == "json_object":
            check_object(schema, cls.__name__)
            return {"response_format": {"type": "json_object"}}
        return response_format(schema, cls.__name__, cls.schema_keywords)

    @classmethod
    def sdk_answer(cls, answer: Any) -> Any:
        types: Any = importlib.import_module("openai.types.chat")
        return types.ChatCompletion.model_construct(**answer)

    def logprobs_fields(self, raw: bool, logprobs: bool | None, top_logprobs: int | None) -> dict[str, Any]:
        """The fields of a request that ask for log probabilities; `None` is not sent."""
        if logprobs is None and top_logprobs is not None:
            logprobs = True
        if raw:  # a number there; 0 asks some servers for none at all
            return {"logprobs": max(top_logprobs or 0, 1) if logprobs else None}
        return {"logprobs": logprobs, "top_logprobs": top_logprobs if logprobs else None}

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[ChatParameters]
    ) -> GenerateOutput:
        """Generate for one chat or raw prompt. `None` is not sent: it means the server's default.

        Args:
            input: the chat, or the raw prompt.
            num_generations: number of generations; one request if the server supports that.
            max_new_tokens: maximum number of tokens to generate, including reasoning.
            temperature: sampling temperature; 0 always takes the most likely token.
            top_p: sample from the most likely tokens with this total probability.
            stop: texts that end the generation.
            seed: seed for sampling, if the server supports it.
            frequency_penalty: penalty for a token, for each time it has occurred.
            presence_penalty: penalty for a token that has occurred at all.
            logprobs: whether to return the log probabilities of the tokens.
            top_logprobs: number of most likely tokens to return for each position; implies `logprobs`.
            logit_bias: values to add to the logits of tokens, by token id.
            tools: the tools that the model may call, in the API's format; chats only.
            tool_choice: which tool to call: `auto`, `none`, `required`, or one by name; chats only.
            response_format: the API's own response format; `structured_output` works with every backend.
            reasoning_effort: how long a reasoning model thinks, from `none` to `max`; chats only.
            extra_body: further fields of the request, in the server's format; they override others.
        """
        return await self.complete(input, num_generations, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        prompt, form = self.split(input)
        raw = type(prompt) is str
        body: dict[str, Any] = {"model": self.model}
        if raw:
            body["prompt"] = prompt
        else:
            body["messages"] = self.messages_of(prompt, form)
            body |= self.always_sent
        if num_generations > 1:
            body["n"] = num_generations
        if arguments.get("tools") == [] and not raw:  # refused, and so is a choice of none
            arguments = {**arguments, "tools": None, "tool_choice": None}
        for name, value in arguments.items():
            if value is None:
                continue
            if raw and name in _CHAT_ONLY:
                raise UnsupportedError(f"{name} does not apply to raw prompts", hint="send a chat")
            if name not in _RENAMED:
                body[self.renamed.get(name, name)] = value
        limit = arguments.get("max_new_tokens")
        if limit is not None:
            body["max_tokens" if raw else self.max_tokens_name] = limit
        effort = arguments.get("reasoning_effort")
        if effort is not None:
            body |= effort_of(effort, self.reasoning_efforts, type(self).__name__)
        if "logprobs" in arguments or "top_logprobs" in arguments:
            asked = self.logprobs_fields(raw, arguments.get("logprobs"), arguments.get("top_logprobs"))
            body |= {name: value for name, value in asked.items() if value is not None}
        if form is not None:
            body |= form.fields
        extra = arguments.get("extra_body")
        if extra:
            body |= extra
        return Request("completions" if raw else "chat/completions", body, form)

    def messages_of(self, chat: Any, form: RequestForm | None) -> Any:
        """Return the messages of a chat as the API takes them; the chat is left alone."""
        if self.has_plain_contents:
            chat = plain_messages(chat)
        if self.reasoning_key is not None:
            chat = with_reasoning_as(self.reasoning_key, chat)
        if form is not None and self.json_form != "json_schema" and not form.is_instructed:
            chat = with_schema(chat, form.asked["schema"])
        return chat

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        output = output_of(answer, chat=request.path == "chat/completions", kept=self.kept_keys)
        return output if self.reasoning_tag is None else without_thoughts(output, self.reasoning_tag)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        failure = super().classify(status, headers, body)
        if failure.kind == "authentication" and failure.hint:  # a key of another region, or of another server
            failure = replace(failure, hint=f"{failure.hint}, at {self.api_url}")
        return failure

    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Failure | None:
        """As that of `HTTPLLM`; a choice can say that it failed, too, as those of OpenRouter do."""
        failure = super().failure_in(answer, headers)
        if failure is None and isinstance(answer, dict):
            choices = answer.get("choices")
            for choice in choices if isinstance(choices, list) else ():
                error = _error_of(choice) if isinstance(choice, dict) else None
                if error:
                    return super().failure_in({"error": error}, headers)
        return failure

    def stream_request_of(self, request: Request) -> Request | None:
        if self.reasoning_tag is not None or request.path not in _STREAMED:  # a tag is known at its end
            return None
        # The responses API counts tokens unasked, and refuses to be asked.
        fields = {"stream": True} if request.path == "responses" else self.stream_fields
        return replace(request, body={**request.body, **fields}, wire="events")

    def piece_of_event(self, event: Any) -> str | None:
        return piece_of_event(event)

    def answer_of_events(self, events: list[Any]) -> Any:
        return answer_of_events(events)


def _error_of(choice: dict[str, Any]) -> Any:
    """The error that a choice is; one that only says that it failed is its provider's."""
    if choice.get("error"):
        return choice["error"]
    for name in ("finish_reason", "native_finish_reason"):  # OpenRouter may say `stop` in the first
        reason = choice.get(name)
        if isinstance(reason, str) and reason.lower() in _FAILED:
            return {"message": f"the model's provider failed: {reason}", "code": 502}
    return None
