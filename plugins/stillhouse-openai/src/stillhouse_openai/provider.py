"""`Provider`: a row of facts about a provider that speaks OpenAI's API, and the class that is made of one."""

from __future__ import annotations

import os
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypedDict, Unpack
from urllib.parse import urlsplit

import orjson
from pydantic import Field, PrivateAttr

from stillhouse import Capability, ConfigurationError, FormattedInput, GenerateOutput
from stillhouse.errors import ErrorKind
from stillhouse.http import Failure, message_of
from stillhouse_openai.compatible import CompatibleLLM, efforts
from stillhouse_openai.failures import of_kind
from stillhouse_openai.parameters import ChatParameters
from stillhouse_openai.schemas import KEYWORDS

__all__ = ["Provider", "ProviderLLM", "provider_class"]

_FURTHER: dict[str, tuple[Any, str]] = {
    "min_p": (float | None, "draw from the tokens that are at least this share as likely as the likeliest."),
    "repetition_penalty": (
        float | None,
        "how much to avoid tokens that occurred, prompt included; 1 is not at all.",
    ),
    "service_tier": (str | None, "the tier of service, as the provider names it."),
    "top_k": (int | None, "draw from this many of the likeliest tokens."),
}
"""What a provider may have beyond OpenAI's parameters: the type and the meaning of each."""

_MAX_DIGITS = 9
"""How long a code may be."""

_NEEDED: dict[Capability, tuple[str, ...]] = {
    "logprobs": ("logprobs", "top_logprobs"),
    "seed": ("seed",),
    "tools": ("tools", "tool_choice"),
}
"""The parameters that come with a capability."""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """What is known of a provider, or of a server, that speaks OpenAI's API.

    Attributes:
        class_name: the name of the class that is made of it.
        about: what it is, in a sentence or two; the class's docstring.
        base_url: its address; `None` where every user has another. An address of the user's without a
            path gets that of this one.
        key: the environment variables of its key, the first of which is that of its SDK; none where
            no key is needed.
        base_url_variable: the variable of its address, where its SDK has one.
        capabilities: what it can do; those of `CompatibleLLM` that are not named are refused.
        further: parameters beyond OpenAI's: `top_k`, `min_p`, `repetition_penalty`, `service_tier`.
        lacking: parameters of OpenAI's that it lacks, besides those of missing capabilities.
        renamed: its own names of parameters.
        efforts: the fields of a request for each level of `reasoning_effort` that it has.
        json_form: how JSON is asked for: by its schema, as any object, or by the prompt alone.
        schema_keywords: the keywords of JSON Schema that the API keeps to, where it gets the schema.
        always_sent: fields of every request for a chat.
        reasoning_key: where the assistant's messages have their reasoning; `None` leaves them alone.
        kept_keys: further keys of a message, or of an answer, that outputs keep.
        models_path: the path of its list of models; `None` where there is none.
        error_kinds: what its own codes of errors mean, where their status and their words do not say it.
        statuses: the statuses of its codes in a `base_resp`, an error in an answer with status 200.
    """

    class_name: str
    about: str
    base_url: str | None = None
    key: tuple[str, ...] = ()
    base_url_variable: str | None = None
    capabilities: frozenset[Capability] = frozenset({"chat", "tools"})
    further: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    efforts: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: efforts("low", "medium", "high"))
    json_form: Literal["json_schema", "json_object", "prompt"] = "json_schema"
    schema_keywords: frozenset[str] = KEYWORDS
    always_sent: Mapping[str, Any] = field(default_factory=dict)
    reasoning_key: str | None = None
    kept_keys: tuple[str, ...] = ()
    models_path: str | None = "models"
    error_kinds: Mapping[str, ErrorKind] = field(default_factory=dict)
    statuses: Mapping[int, int] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """Return the generation parameters, and the type of each.

        Raises:
            ConfigurationError: one in `further` or `lacking` is not known.
        """
        known = {
            **typing.get_type_hints(ChatParameters),
            **{name: kind for name, (kind, _) in _FURTHER.items()},
        }
        unknown = sorted({*self.further, *self.lacking} - known.keys())
        if unknown:
            raise ConfigurationError(
                f"{unknown[0]!r} is not a parameter that a provider may have or lack",
                hint="derive a class from CompatibleLLM for parameters of its own, or use extra_body",
            )
        lacking = {*self.lacking, *(_FURTHER.keys() - {*self.further})}
        for capability, names in _NEEDED.items():
            if capability not in self.capabilities:
                lacking.update(names)
        if not self.efforts:
            lacking.add("reasoning_effort")
        if self.json_form == "prompt":
            lacking.add("response_format")
        return {name: kind for name, kind in known.items() if name not in lacking}


class ProviderLLM(CompatibleLLM):
    """The base of the classes that are made of a `Provider`."""

    provider: ClassVar[Provider]
    """The row that the class is made of."""

    has_plain_contents: ClassVar[bool] = True

    max_tokens_name: str = Field(
        default="max_tokens", description="The server's name for max_new_tokens in chats."
    )

    def configured_api_key(self) -> str:
        found = super().configured_api_key()
        if found or self.api_key is not None:
            return found
        return next(filter(None, (os.environ.get(name) for name in self.provider.key[1:])), "")

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        failure = super().classify(status, headers, body)
        kinds = self.provider.error_kinds
        kind = kinds.get(message_of(body)[0]) if kinds else None
        return failure if kind is None else of_kind(failure, kind)

    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Failure | None:
        statuses = self.provider.statuses
        told = answer.get("base_resp") if statuses and isinstance(answer, dict) else None
        code = told.get("status_code") if isinstance(told, dict) else None
        if isinstance(code, str) and code.isdecimal():
            code = int(code[:_MAX_DIGITS])
        if not code:
            return super().failure_in(answer, headers)
        status = statuses.get(code, 500) if isinstance(code, int) else 500
        error = {"code": str(code), "message": told.get("status_msg")} if isinstance(told, dict) else told
        return self.classify(status, headers, orjson.dumps({"error": error}))


def provider_class(provider: Provider, *, module: str | None = None) -> type[ProviderLLM]:
    """Make the class of a provider's models.

    Its LLMs can be pickled where the class is found under its name in its module, as in
    `AcmeLLM = provider_class(Provider(class_name="AcmeLLM", …))`.

    Args:
        provider: what is known of the provider.
        module: the name of the module that the class is in; the caller's if `None`.

    Raises:
        ConfigurationError: the provider cannot have such a parameter.
    """
    name = provider.class_name
    namespace: dict[str, Any] = {
        "__module__": module or sys._getframe(1).f_globals.get("__name__", __name__),
        "__qualname__": name,
        "__doc__": provider.about,
        "__annotations__": {"_num_generations_param_supported": bool},
        "_num_generations_param_supported": PrivateAttr(default="num_generations" in provider.capabilities),
        "provider": provider,
        "capabilities": provider.capabilities,
        "default_base_url": provider.base_url,
        "base_url_variable": provider.base_url_variable,
        "base_path": urlsplit(provider.base_url or "").path.strip("/"),
        "api_key_variable": provider.key[0] if provider.key else None,
        "api_key_required": bool(provider.key),
        "renamed": provider.renamed,
        "reasoning_efforts": provider.efforts,
        "json_form": provider.json_form,
        "schema_keywords": provider.schema_keywords,
        "always_sent": provider.always_sent,
        "reasoning_key": provider.reasoning_key,
        "kept_keys": provider.kept_keys,
        "models_path": provider.models_path,
        "agenerate": _agenerate(provider),
    }
    return types.new_class(name, (ProviderLLM,), exec_body=lambda made: made.update(namespace))


def _agenerate(provider: Provider) -> Any:
    """Return the method that declares a provider's parameters."""
    name = f"{provider.class_name}Parameters"
    parameters = TypedDict(name, provider.parameters(), total=False)  # type: ignore[misc]

    async def agenerate(
        self: ProviderLLM, input: FormattedInput, num_generations: int = 1, **arguments: Any
    ) -> GenerateOutput:
        return await self.complete(input, num_generations, arguments)

    agenerate.__annotations__["arguments"] = Unpack[parameters]
    agenerate.__qualname__ = f"{provider.class_name}.agenerate"
    lines = ["Like that of `CompatibleLLM`, with the provider's parameters."]
    if provider.further:
        lines += ["", "Args:", *(f"    {name}: {_FURTHER[name][1]}" for name in provider.further)]
    agenerate.__doc__ = "\n".join(lines)
    return agenerate
