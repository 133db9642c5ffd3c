"""An LLM that takes lists, and one of coroutines."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr, SecretStr

from stillhouse import (
    LLM,
    AsyncLLM,
    Capability,
    FormattedInput,
    GenerateOutput,
    GenerationError,
    MagpieChatTemplateMixin,
    RuntimeParameter,
    StandardInput,
    compute_tokens,
    merge_responses,
    prepare_output,
)
from stillhouse.inputs import split_input

__all__ = ["SteadyAsyncLLM", "SteadyLLM"]


def text_of(input: FormattedInput) -> str:
    content, _ = split_input(input)
    if isinstance(content, str):
        return content
    last = content[-1]["content"] or ""
    return last if isinstance(last, str) else "".join(part.get("text", "") for part in last)


class Words:
    """A tokenizer whose tokens are words."""

    def encode(self, text: str) -> list[str]:
        return text.split()


class SteadyLLM(MagpieChatTemplateMixin, LLM):
    """Answers a list of inputs."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "raw_prompt", "num_generations", "seed", "logprobs"}
    )

    model: str = Field(default="steady", description="The name to answer under.")
    prefix: RuntimeParameter[str] = Field(default="", description="What each answer begins with.")

    _is_open: bool = PrivateAttr(default=False)

    @property
    def model_name(self) -> str:
        return self.model

    def load(self) -> None:
        super().load()
        self._is_open = True

    def unload(self) -> None:
        self._is_open = False
        super().unload()

    def prepare_input(self, input: StandardInput) -> str:
        return self.apply_magpie_pre_query_template("".join(text_of([message]) for message in input), input)

    def generate(
        self,
        inputs: Sequence[FormattedInput],
        num_generations: int = 1,
        max_new_tokens: int = 16,
        seed: int | None = None,
        logprobs: bool = False,
    ) -> list[GenerateOutput]:
        """Answer.

        Args:
            inputs: the inputs.
            num_generations: how many answers.
            max_new_tokens: how many words at most.
            seed: the seed.
            logprobs: whether to give them.
        """
        assert self._is_open
        return [
            self._answer(text_of(input), num_generations, max_new_tokens, seed, logprobs) for input in inputs
        ]

    def _answer(self, text: str, count: int, limit: int, seed: int | None, logprobs: bool) -> GenerateOutput:
        if not text:
            raise GenerationError("there is no text", kind="invalid_request", hint="ask something")
        outputs = []
        for position in range(count):
            chance = random.Random(None if seed is None else f"{seed + position} {text}")
            words = [*text.split(), str(chance.random())][:limit]
            outputs.append(
                prepare_output(
                    [f"{self.prefix}{' '.join(words)}"],
                    [compute_tokens(text, Words())],
                    [len(words)],
                    [[[{"token": word, "logprob": -0.5}] for word in words]] if logprobs else None,
                    finish_reasons=["length" if len(words) == limit else "stop"],
                )
            )
        return merge_responses(outputs, count)[0]


class SteadyAsyncLLM(AsyncLLM):
    """Answers one input."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "raw_prompt", "num_generations", "tools"}
    )

    model: str = Field(default="steady", description="The name to answer under.")
    api_key: RuntimeParameter[SecretStr] | None = Field(default=None, description="A key that opens nothing.")

    @property
    def model_name(self) -> str:
        return self.model

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        tools: list[dict[str, Any]] | None = None,
    ) -> GenerateOutput:
        """Answer.

        Args:
            input: the input.
            num_generations: how many answers.
            max_new_tokens: how many words at most.
            tools: the tools.
        """
        await asyncio.sleep(0.001)
        text = text_of(input)
        if not text:
            raise GenerationError("there is no text", kind="invalid_request")
        words = text.split()[:max_new_tokens]
        return prepare_output(
            [" ".join(words)] * num_generations,
            [len(text.split())],
            [len(words)] * num_generations,
            finish_reasons=["stop"] * num_generations,
        )
