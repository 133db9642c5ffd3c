"""`CompatibleLLM`: what every server that speaks OpenAI's chat completions API has in common."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from stillhouse import (
    Capability,
    ChatItem,
    FormattedInput,
    GenerateOutput,
    StructuredOutput,
    UnsupportedError,
)
from stillhouse.http import StructuredHTTPLLM, ask_instructed, ask_until_done
from stillhouse_openai.schemas import KEYWORDS, strict
from stillhouse_openai.wire import output_of, total_tokens

__all__ = ["CompatibleLLM"]


class CompatibleLLM(StructuredHTTPLLM):
    """A model behind an API like OpenAI's: chats go to `chat/completions`, raw prompts to `completions`.

    A subclass says where the API is and what it does in another way.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "logprobs", "num_generations", "raw_prompt", "seed", "tools"}
    )

    schema_keywords: ClassVar[frozenset[str]] = KEYWORDS
    """The keywords of JSON Schema that the API keeps to."""

    instructor_framework: ClassVar[str | None] = "openai"

    own_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters of `agenerate` that only this API has, and that are sent under their own names."""

    max_tokens_name: str = Field(
        default="max_completion_tokens",
        description="What the server calls max_new_tokens in chats; older ones call it max_tokens.",
    )

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        if structured_output["format"] != "json":
            raise UnsupportedError(
                f"{cls.__name__} has no structured output of the format {structured_output['format']}",
                hint="ask for JSON: an object with a property that has an enum for choices, or a pattern",
            )
        schema = structured_output["schema"]
        title = str(schema.get("title") or "answer")
        name = "".join(item if item.isascii() and item.isalnum() else "_" for item in title)[:64]
        narrow = strict(schema, cls.__name__, cls.schema_keywords)
        wanted = {"name": name, "schema": narrow, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": wanted}}

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
        self,
        input: FormattedInput,
        num_generations: int = 1,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        logit_bias: dict[str, int | float] | None = None,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = None,
        response_format: dict[str, Any] | None = None,
        reasoning_effort: str | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        """Generate for one chat or raw prompt. `None` is not sent: it means the server's default.

        Args:
            input: the chat, or the raw prompt.
            num_generations: how many generations, in one request if the server gives as many.
            max_new_tokens: how many tokens to generate at most, reasoning included.
            temperature: how evenly the tokens are drawn; 0 takes the likeliest.
            top_p: draw from the likeliest tokens that make up this share.
            stop: texts at which to stop.
            seed: the seed of the draw, as far as the server keeps to it.
            frequency_penalty: how much to avoid tokens for each time that they occurred.
            presence_penalty: how much to avoid tokens that occurred at all.
            logprobs: whether to return the log probabilities of the tokens.
            top_logprobs: how many of the likeliest tokens to return for each position; implies logprobs.
            logit_bias: what to add to the logits of tokens, by token id.
            tools: the tools that the model may call, in the API's form; chats only.
            tool_choice: which tool to call: `auto`, `none`, `required`, or one by name; chats only.
            response_format: the API's own response format; `structured_output` is the portable way.
            reasoning_effort: how long a reasoning model thinks: `low`, `medium`, `high`, …; chats only.
            extra_body: further fields of the request, as the server knows them; they win over others.
        """
        return await CompatibleLLM._generate(**locals())

    def body_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The body of a request to `chat/completions` or `completions`; the arguments are `agenerate`'s."""
        prompt, form = self.split(input)
        raw = type(prompt) is str
        body: dict[str, Any] = {"model": self.model, "prompt" if raw else "messages": prompt}
        fields: dict[str, Any] = {
            "n": num_generations if num_generations > 1 else None,
            "max_tokens" if raw else self.max_tokens_name: arguments.get("max_new_tokens"),
            "temperature": arguments.get("temperature"),
            "top_p": arguments.get("top_p"),
            "stop": arguments.get("stop"),
            "seed": arguments.get("seed"),
            "frequency_penalty": arguments.get("frequency_penalty"),
            "presence_penalty": arguments.get("presence_penalty"),
            "logit_bias": arguments.get("logit_bias"),
            "tools": arguments.get("tools"),
            "tool_choice": arguments.get("tool_choice"),
            "response_format": arguments.get("response_format"),
            "reasoning_effort": arguments.get("reasoning_effort"),
        }
        for name in ("tools", "tool_choice", "response_format", "reasoning_effort") if raw else ():
            if fields[name] is not None:
                raise UnsupportedError(f"{name} means nothing for a raw prompt", hint="send a chat")
        logprobs, top_logprobs = arguments.get("logprobs"), arguments.get("top_logprobs")
        if logprobs is not None or top_logprobs is not None:
            fields |= self.logprobs_fields(raw, logprobs, top_logprobs)
        for name in self.own_parameters:
            fields[name] = arguments.get(name)
        for name, value in fields.items():
            if value is not None:
                body[name] = value
        if form is not None:
            body |= form.fields
        body |= arguments.get("extra_body") or {}
        return body

    def path_of(self, body: dict[str, Any]) -> str:
        """Where a request goes: to `chat/completions`, or to `completions` if it has a raw prompt."""
        return "chat/completions" if "messages" in body else "completions"

    def body_for(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The body as it is sent to the path; for a subclass with another path."""
        return body

    def output_from(self, path: str, answer: Any) -> GenerateOutput:
        """The output of an answer from the path."""
        return output_of(answer, chat=path == "chat/completions")

    async def _generate(
        self, input: FormattedInput, num_generations: int, **arguments: Any
    ) -> GenerateOutput:
        body = self.body_of(input, num_generations, arguments)
        _, form = self.split(input)
        chat = "messages" in body
        path = self.path_of(body)
        max_new_tokens = arguments.get("max_new_tokens") or 0

        async def send(sent: dict[str, Any]) -> Any:
            tokens = max_new_tokens * sent.get("n", 1)
            return await self.post(
                path, self.body_for(path, sent), max_new_tokens=tokens, used_tokens=total_tokens
            )

        def read(answer: Any) -> GenerateOutput:
            return self.output_from(path, answer)

        async def ask(missing: int, made: int, messages: Sequence[ChatItem]) -> GenerateOutput:
            sent = body
            if made:
                sent = {**body, "n": missing} if missing != body.get("n", 1) else dict(body)
                if "seed" in body:
                    sent["seed"] += made
                if chat:
                    sent["messages"] = [*body["messages"], *messages]
            if form is not None and form.is_instructed:
                one = {name: value for name, value in sent.items() if name != "n"}
                return await ask_instructed(self, one, form, send, read)
            return read(await send(sent))

        return await ask_until_done(ask, num_generations, form)
