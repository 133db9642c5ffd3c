"""`OpenAICompatibleLLM`: any other server that speaks OpenAI's API."""

from __future__ import annotations

import os
from typing import ClassVar, Unpack

from pydantic import Field

from stillhouse import ConfigurationError, FormattedInput, GenerateOutput, RuntimeParameter
from stillhouse_openai.compatible import CompatibleLLM
from stillhouse_openai.parameters import TogetherParameters

__all__ = ["OpenAICompatibleLLM"]


class OpenAICompatibleLLM(CompatibleLLM):
    """A model of any server or provider that speaks OpenAI's API, at a `base_url` that must be given.

    The key comes from the environment variable that `key_variable` names, so that no file and no
    command line holds it; without one no key is sent. What the server lacks, it refuses.
    """

    api_key_required: ClassVar[bool] = False
    has_plain_contents: ClassVar[bool] = True

    base_url: RuntimeParameter[str] = Field(
        description="The address of the API, such as https://llm.example/v1."
    )
    key_variable: RuntimeParameter[str] | None = Field(
        default=None, description="The environment variable with the API key; None sends no key."
    )
    max_tokens_name: str = Field(
        default="max_tokens", description="What the server calls max_new_tokens in chats."
    )

    def configured_api_key(self) -> str:
        key = super().configured_api_key()
        if key or not self.key_variable:
            return key
        found = os.environ.get(self.key_variable, "")
        if not found:
            raise ConfigurationError(
                f"the environment variable {self.key_variable}, which key_variable names, is not set",
                hint=f"set {self.key_variable}, or remove key_variable where no key is needed",
            )
        return found

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[TogetherParameters]
    ) -> GenerateOutput:
        """As that of `CompatibleLLM`, with parameters that most servers of open models have.

        Args:
            top_k: draw from this many of the likeliest tokens.
            min_p: draw from the tokens that are at least this share as likely as the likeliest.
            repetition_penalty: how much to avoid tokens that occurred, prompt included; 1 is not at all.
        """
        return await self.complete(input, num_generations, arguments)
