"""The built-in LLM `echo`, which answers with its input, for trying commands and for tests."""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import Any, ClassVar

from pydantic import Field

from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import ErrorKind, GenerationError
from stillhouse.inputs import split_input
from stillhouse.outputs import prepare_output
from stillhouse.typing import Capability, FormattedInput, GenerateOutput, OnPiece

__all__ = ["EchoLLM"]

_PIECES = re.compile(r"\S+\s*|\s+")


class EchoLLM(AsyncLLM):
    """Answers with the last message of a chat, or with the raw prompt, unchanged.

    The same input always has the same result, failures included. A token is a word.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "raw_prompt", "num_generations"})

    model: str = Field(default="echo", description="The model name to report.")
    latency: RuntimeParameter[float] = Field(
        default=0.0, ge=0, description="Seconds to wait before each answer."
    )
    failure_rate: RuntimeParameter[float] = Field(
        default=0.0, ge=0, le=1, description="Share of inputs that fail, chosen by a hash of their text."
    )
    failure_kind: ErrorKind = Field(default="server", description="The kind of these failures.")

    @property
    def model_name(self) -> str:
        return self.model

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, max_new_tokens: int | None = None
    ) -> GenerateOutput:
        """Answer with the input.

        Args:
            input: the input.
            num_generations: number of answers.
            max_new_tokens: maximum number of words of an answer; `None` means all.
        """
        if self.latency:
            await asyncio.sleep(self.latency)
        return self._answer(input, num_generations, max_new_tokens)

    async def agenerate_streamed(
        self, input: FormattedInput, on_piece: OnPiece, **kwargs: Any
    ) -> GenerateOutput:
        """Answer with the input, word by word; `latency` applies to the whole answer."""
        latency = self.latency or 0.0
        try:
            output = self._answer(input, 1, kwargs.get("max_new_tokens"))
        except GenerationError:
            await asyncio.sleep(latency)
            raise
        pieces = _PIECES.findall(output["generations"][0] or "") or [""]
        for piece in pieces:
            if latency:
                await asyncio.sleep(latency / len(pieces))
            on_piece(piece)
        return output

    def _answer(
        self, input: FormattedInput, num_generations: int, max_new_tokens: int | None
    ) -> GenerateOutput:
        content, _ = split_input(input)
        text = content if isinstance(content, str) else _text(content[-1].get("content"))
        if self.failure_rate and zlib.crc32(text.encode("utf-8", "replace")) < self.failure_rate * 2**32:
            raise GenerationError(
                "echo simulated a failure",
                kind=self.failure_kind,
                hint="set failure_rate to 0",
            )
        words = text.split()
        input_tokens = len(words)
        generation, reason = text, "stop"
        if max_new_tokens is not None and len(words) > max_new_tokens:
            words = words[:max_new_tokens]
            generation, reason = " ".join(words), "length"
        return prepare_output(
            [generation or None] * num_generations,
            input_tokens=[input_tokens],
            output_tokens=[len(words)] * num_generations,
            finish_reasons=[reason] * num_generations,
        )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or () if isinstance(part, dict))
