"""Two backends that keep every rule and declare every capability; those in broken_backends break one each."""

from __future__ import annotations

import json
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
    ModelInfo,
    OfflineBatchNotFinishedError,
    RuntimeParameter,
    StructuredOutputMixin,
    prepare_output,
)
from stillhouse.inputs import split_input
from stillhouse.typing import CAPABILITIES

EXAMPLES = {"json": json.dumps({"river": "Ucayali", "country": "Peru"}), "regex": "123-ab", "choice": "yes"}


def text_of(input: FormattedInput) -> str:
    content, _ = split_input(input)
    if isinstance(content, str):
        return content
    parts = content[-1]["content"] or ""
    return parts if isinstance(parts, str) else "".join(part.get("text", "") for part in parts)


class Everything(StructuredOutputMixin):
    """What both have in common: an answer that the text, its position and the seed decide."""

    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    model: str = Field(default="m", description="The name to answer under.")
    api_key: RuntimeParameter[SecretStr] | None = Field(default=None, description="A key that opens nothing.")

    _submitted: Any = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        return self.model

    def answer(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        seed: int | None = None,
        logprobs: bool | None = None,
        max_new_tokens: int | None = None,
        **rest: Any,
    ) -> GenerateOutput:
        text = text_of(input)
        _, form = split_input(input)
        form = form or self.structured_output
        if form is not None:
            texts = [EXAMPLES[form["format"]]] * num_generations
        else:
            chance = random.Random(f"{seed} {text}")
            texts = [f"{text} {chance.random()}" for _ in range(num_generations)]
        shape = [[[{"token": "a", "logprob": -0.5}]]] * num_generations if logprobs else None
        words = [made.split()[:max_new_tokens] for made in texts]
        cut = [len(made.split()) > len(kept) for made, kept in zip(texts, words, strict=True)]
        return prepare_output(
            [" ".join(kept) if text else None for kept in words],
            [len(text.split()) or 1],
            [len(kept) for kept in words],
            shape,
            finish_reasons=["length" if is_cut else "stop" for is_cut in cut],
        )

    def get_last_hidden_states(self, inputs: Sequence[FormattedInput]) -> list[Any]:
        import numpy

        return [numpy.zeros((len(text_of(input).split()), 4)) for input in inputs]

    def list_models(self) -> list[ModelInfo]:
        return [{"name": "small", "context_length": 4096, "created": "2025-08-05"}, {"name": "large"}]

    def offline_batch_generate(
        self, inputs: Sequence[FormattedInput] | None = None, num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        if self.jobs_ids is None:
            self._submitted = inputs
            raise OfflineBatchNotFinishedError(["job-1"])
        return [self.answer(input, num_generations, **kwargs) for input in self._submitted]


class Good(Everything, AsyncLLM):
    """Answers coroutines."""

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        logprobs: bool | None = None,
        tools: list[dict[str, Any]] | None = None,
    ) -> GenerateOutput:
        """Answer.

        Args:
            input: the input.
            num_generations: how many generations.
            max_new_tokens: how many tokens at most.
            seed: the seed.
            logprobs: whether to give them.
            tools: the tools.
        """
        return await self.aanswer(
            input, num_generations, max_new_tokens=max_new_tokens, seed=seed, logprobs=logprobs, tools=tools
        )

    async def aanswer(self, input: FormattedInput, num_generations: int, **arguments: Any) -> GenerateOutput:
        return self.answer(input, num_generations, **arguments)


class GoodSync(Everything, LLM):
    """Answers lists."""

    def generate(
        self,
        inputs: Sequence[FormattedInput],
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        logprobs: bool | None = None,
        tools: list[dict[str, Any]] | None = None,
    ) -> list[GenerateOutput]:
        """Answer.

        Args:
            inputs: the inputs.
            num_generations: how many generations.
            max_new_tokens: how many tokens at most.
            seed: the seed.
            logprobs: whether to give them.
            tools: the tools.
        """
        return self.answers(
            inputs, num_generations, max_new_tokens=max_new_tokens, seed=seed, logprobs=logprobs, tools=tools
        )

    def answers(
        self, inputs: Sequence[FormattedInput], num_generations: int, **arguments: Any
    ) -> list[GenerateOutput]:
        return [self.answer(input, num_generations, **arguments) for input in inputs]


def fail(kind: Any = "server") -> GenerationError:
    return GenerationError("it failed on purpose", kind=kind)
