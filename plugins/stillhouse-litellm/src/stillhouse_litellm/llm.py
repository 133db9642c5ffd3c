"""`LiteLLM`: every provider that LiteLLM knows."""

from __future__ import annotations

import copy
import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Unpack

import orjson
from pydantic import Field, PrivateAttr, SecretStr, field_validator

from stillhouse import (
    Capability,
    ChatItem,
    ConfigurationError,
    FormattedInput,
    GenerateOutput,
    GenerationError,
    RuntimeParameter,
    UnsupportedError,
)
from stillhouse.http import Failure, LimitedLLM, RequestForm, ask_until_done
from stillhouse.inputs import split_input
from stillhouse.structured import StructuredOutputMixin
from stillhouse.typing import OnPiece
from stillhouse_litellm.answers import failure_in, litellm_output
from stillhouse_litellm.failures import failure_of_exception
from stillhouse_litellm.forms import form_of
from stillhouse_litellm.parameters import RENAMED, LiteLLMParameters, request_parameters
from stillhouse_litellm.streams import BrokenStreamError, read_stream

__all__ = ["LiteLLM"]

# LiteLLM takes keys from the environment, under the names of some hundred providers.
_SECRET_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|AUTH", re.IGNORECASE)
_MIN_SECRET_CHARS = 8


class LiteLLM(LimitedLLM, StructuredOutputMixin):
    """Models of every provider that LiteLLM supports, under LiteLLM's names: `provider/model`.

    LiteLLM makes single attempts. Limits, retries and pauses are those of `LimitedLLM`, and no global state
    of LiteLLM is changed. A parameter that LiteLLM does not support for the model is rejected before
    anything is sent.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "logprobs", "num_generations", "seed", "tools"}
    )
    """What LiteLLM can hand on; the provider decides what of it there is."""

    model: str = Field(description="The model, as LiteLLM names it: provider/model.")
    base_url: RuntimeParameter[str] | None = Field(
        default=None, description="The address of the API; the provider's if None."
    )
    api_key: RuntimeParameter[SecretStr] | None = Field(
        default=None, description="The API key; LiteLLM looks for it in the environment if None."
    )
    api_version: str | None = Field(default=None, description="The version of the API, if it has versions.")
    custom_llm_provider: str | None = Field(
        default=None, description="The provider, if the model's name does not begin with it."
    )
    default_headers: RuntimeParameter[dict[str, SecretStr]] = Field(
        default_factory=dict, description="Headers to send with every request; all of them count as secrets."
    )

    _litellm: Any = PrivateAttr(default=None)
    _supported: frozenset[str] | None = PrivateAttr(default=None)

    @field_validator("structured_output", mode="after")
    @classmethod
    def _can_be_honoured(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            form_of(value)
        return value

    @property
    def model_name(self) -> str:
        return self.model

    # Loading

    def load(self) -> None:
        super().load()
        self._litellm = litellm = importlib.import_module("litellm")  # takes seconds
        provider = self.custom_llm_provider
        try:
            litellm.get_llm_provider(model=self.model, custom_llm_provider=provider, api_base=self.base_url)
        except Exception:
            raise ConfigurationError(
                f"LiteLLM does not know the provider of the model {self.model!r}",
                hint="write it as provider/model, such as openai/gpt-5.2, or set custom_llm_provider",
            ) from None
        supported = litellm.get_supported_openai_params(model=self.model, custom_llm_provider=provider)
        self._supported = None if supported is None else frozenset(supported)
        self._num_generations_param_supported = self._supported is None or "n" in self._supported
        self.check_arguments(self.get_generation_kwargs())
        if self.structured_output is not None:
            self._require("response_format")

    def unload(self) -> None:
        litellm, self._litellm = self._litellm, None
        self._supported = None
        if litellm is not None:
            self.run_on_loop(_close_clients(litellm))
        super().unload()

    def further_secrets(self) -> Iterable[str]:
        """Those in the environment, where LiteLLM finds its keys."""
        return [
            value
            for name, value in os.environ.items()
            if _SECRET_VARIABLE.search(name) and len(value) >= _MIN_SECRET_CHARS
        ]

    def _require(self, parameter: str) -> None:
        if self._supported is not None and RENAMED.get(parameter, parameter) not in self._supported:
            raise UnsupportedError(
                f"LiteLLM does not support the parameter {parameter} for the model {self.model}",
                hint="leave it out, choose another model, or install a newer LiteLLM",
            )

    # What is checked before anything is sent

    def check_input(self, input: Any) -> None:
        super().check_input(input)
        if type(input) is tuple and input[1] is not None:
            form_of(input[1])
            self._require("response_format")

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        checked = super().check_arguments(arguments)
        request_parameters(checked)
        for name, value in checked.items():
            if value is not None and name != "extra_body":
                self._require(name)
        return checked

    def failure_of(self, error: Exception) -> Failure:
        if isinstance(error, BrokenStreamError) and isinstance(error.__cause__, Exception):
            return replace(self.failure_of(error.__cause__), retried=False)
        if isinstance(error, GenerationError):  # of a stream
            return Failure(error.kind, error.message, hint=error.hint, retried=True, unclear=True)
        return failure_of_exception(error)

    def failure_in(self, answer: Any) -> Failure | None:
        return failure_in(answer)

    # Generating

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[LiteLLMParameters]
    ) -> GenerateOutput:
        """Generate for one chat. `None` is not sent: it means the provider's default.

        Args:
            input: the chat.
            num_generations: number of generations; one request if the provider supports that.
            max_new_tokens: maximum number of tokens to generate, including reasoning.
            temperature: sampling temperature.
            top_p: sample from the most likely tokens with this total probability.
            stop: texts that end the generation.
            seed: seed for sampling, if the provider supports it.
            frequency_penalty: penalty for a token, for each time it has occurred.
            presence_penalty: penalty for a token that has occurred at all.
            logprobs: whether to return log probabilities.
            top_logprobs: number of most likely tokens to return for each position.
            logit_bias: values to add to the logits of tokens, by token id.
            tools: the tools that the model may call, in OpenAI's format.
            tool_choice: which tool to call: `auto`, `none`, `required`, or one by name.
            parallel_tool_calls: whether to call several tools at once.
            response_format: the response format of OpenAI's API; the answer is not validated.
            reasoning_effort: how much to think before answering.
            thinking: how to think, in Anthropic's format.
            service_tier: the provider's class of service.
            extra_body: further arguments of `litellm.acompletion`, which it sends to the provider.

        Raises:
            GenerationError: it failed; `kind` says how. With a `structured_output`, `truncated` if the
                answer was cut off, and `schema` if it does not validate.
        """
        chat, own = split_input(input)
        assert not isinstance(chat, str)  # a raw prompt is refused
        asked = self.structured_output if own is None else own
        form = None if asked is None else form_of(asked)

        async def ask(missing: int, made: int, messages: Sequence[ChatItem]) -> GenerateOutput:
            given: dict[str, Any] = dict(arguments)
            if made and given.get("seed") is not None:
                given["seed"] += made
            on_piece = self.claim_stream() if num_generations == 1 and form is None else None
            return await self._ask(self._request([*chat, *messages], missing, given, form), given, on_piece)

        return await ask_until_done(ask, num_generations, form)

    def _request(
        self,
        chat: list[ChatItem],
        num_generations: int,
        arguments: Mapping[str, Any],
        form: RequestForm | None,
    ) -> dict[str, Any]:
        """Return the arguments of `acompletion`."""
        request: dict[str, Any] = {
            "model": self.model,
            "messages": chat,
            **request_parameters(arguments),
            **({} if form is None else form.fields),
            "timeout": self.timeout or 120.0,
            "num_retries": 0,
            "max_retries": 0,
        }
        if num_generations > 1 and self.makes_several:
            request["n"] = num_generations
        headers = {name: value.get_secret_value() for name, value in (self.default_headers or {}).items()}
        for name, value in (
            ("api_key", None if self.api_key is None else self.api_key.get_secret_value()),
            ("base_url", self.base_url),
            ("api_version", self.api_version),
            ("custom_llm_provider", self.custom_llm_provider),
            ("extra_headers", headers or None),
        ):
            if value is not None:
                request[name] = value
        return request

    async def _ask(
        self, request: dict[str, Any], arguments: Mapping[str, Any], on_piece: OnPiece | None
    ) -> GenerateOutput:
        acompletion: Callable[..., Any] = self._litellm.acompletion

        if on_piece is not None:
            request |= {"stream": True, "stream_options": {"include_usage": True}}

        given: list[str] = []

        def give(piece: str) -> None:
            given.append(piece)
            assert on_piece is not None
            on_piece(piece)

        async def call() -> dict[str, Any]:
            if given:  # the last attempt was given up because of its time limit
                raise GenerationError(
                    "the answer was not complete in time", kind="timeout", hint="raise timeout"
                )
            # LiteLLM may write into the messages and tools that it is given.
            answer = await acompletion(**copy.deepcopy(request))
            if on_piece is not None:
                return await read_stream(answer, give)
            dumped: dict[str, Any] = answer.model_dump(warnings=False)
            return dumped

        tokens = 0
        if self.tokens_per_minute:
            size = len(orjson.dumps(request["messages"], default=str))
            tokens = size // 4 + (arguments.get("max_new_tokens") or 0) * request.get("n", 1)
        answer = await self.limited(call, tokens=tokens, used_tokens=_used_tokens)
        return litellm_output(answer)


def _used_tokens(answer: dict[str, Any]) -> Any:
    usage = answer.get("usage")
    return usage.get("total_tokens") if isinstance(usage, dict) else None


async def _close_clients(litellm: Any) -> None:
    """Close the clients that LiteLLM keeps for this loop; those of other loops are somebody else's."""
    cache = litellm.in_memory_llm_clients_cache
    own = cache.update_cache_key_with_event_loop("")
    for key in [key for key in cache.cache_dict if own and key.endswith(own)]:
        client = cache.cache_dict.pop(key)
        close = getattr(client, "aclose", None) or getattr(client, "close", None)
        if close is not None:
            await close()
