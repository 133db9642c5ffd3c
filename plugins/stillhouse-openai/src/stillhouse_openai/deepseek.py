"""`DeepSeekLLM`: the models of DeepSeek."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Unpack

from pydantic import Field, PrivateAttr

from stillhouse import Capability, FormattedInput, GenerateOutput, RuntimeParameter
from stillhouse_openai.compatible import CompatibleLLM
from stillhouse_openai.parameters import DeepSeekParameters

__all__ = ["DeepSeekLLM"]

_LEVELS = {"minimal": "low", "low": "low", "medium": "high", "high": "high", "max": "max"}
"""DeepSeek's levels, as it maps those of others."""


class DeepSeekLLM(CompatibleLLM):
    """Models of DeepSeek, which think before they answer unless `thinking` or `reasoning_effort` disables it.

    Chats only, one generation per request. The API returns JSON objects, but does not support schemas: the
    schema goes into a system message, and every answer is validated. While the model thinks, the
    temperature and the penalties have no effect. With tools, the reasoning of an assistant message must be
    sent back, as `reasoning_content` or as `reasoning`, which outputs have.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "logprobs", "tools"}
    )

    default_base_url: ClassVar[str | None] = "https://api.deepseek.com"
    base_url_variable: ClassVar[str | None] = "DEEPSEEK_BASE_URL"
    api_key_variable: ClassVar[str | None] = "DEEPSEEK_API_KEY"

    json_form: ClassVar[Literal["json_schema", "json_object", "prompt"]] = "json_object"
    has_plain_contents: ClassVar[bool] = True
    reasoning_key: ClassVar[str | None] = "reasoning_content"
    reasoning_efforts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "none": {"thinking": {"type": "disabled"}},
        **{level: {"reasoning_effort": name} for level, name in _LEVELS.items()},
    }

    max_tokens_name: str = Field(default="max_tokens", description="The server's name for max_new_tokens.")
    # Under load the server sends empty lines until it answers, for up to ten minutes.
    timeout: RuntimeParameter[float] = Field(
        default=600.0,
        gt=0,
        description="Time limit in seconds for one attempt; an answer may take ten minutes.",
    )

    _num_generations_param_supported: bool = PrivateAttr(default=False)

    async def agenerate(  # type: ignore[override]  # the API has fewer parameters
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[DeepSeekParameters]
    ) -> GenerateOutput:
        """Generate like `CompatibleLLM`, with a further parameter.

        Args:
            thinking: whether the model thinks: `{"type": "enabled"}` or `{"type": "disabled"}`.
            reasoning_effort: how long it thinks: `low` (also `minimal`), `high` (also `medium`) or `max`;
                `none` turns thinking off.
        """
        return await self.complete(input, num_generations, arguments)
