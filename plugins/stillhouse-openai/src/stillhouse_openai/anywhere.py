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
    """A model of any server or provider that implements OpenAI's API; `base_url` is required.

    The key comes from the environment variable that `key_variable` names, so it appears in no file and on
    no command line. Without `key_variable`, no key is sent. The server rejects what it does not support.
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
        default="max_tokens", description="The server's name for max_new_tokens in chats."
    )

    def configured_api_key(self) -> str:
        key = super().configured_api_key()
        if key or not self.key_variable:
            return key
        found = os.environ.get(self.key_variable, "")
        if not found:
            raise ConfigurationError(
                f"the environment variable {self.key_variable}, which key_variable names, is not set",
                hint=f"set {self.key_variable}, or remove key_variable if no key is required",
            )
        return found

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[TogetherParameters]
    ) -> GenerateOutput:
        """Generate like `CompatibleLLM`, with parameters that most servers of open models have.

        Args:
            top_k: sample from this many most likely tokens.
            min_p: sample from tokens with at least this fraction of the most likely token's probability.
            repetition_penalty: penalty for tokens that have occurred, including in the prompt; 1 means
                none.
        """
        return await self.complete(input, num_generations, arguments)
