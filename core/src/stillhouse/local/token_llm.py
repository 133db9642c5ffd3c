"""`TokenLLM`: the base of backends whose engine returns logits, so that Stillhouse chooses the next token."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Field, PrivateAttr

from stillhouse.errors import GenerationError
from stillhouse.inputs import split_input
from stillhouse.local.generation import Generation, SamplingDefaults
from stillhouse.local.llm import LocalLLM
from stillhouse.local.outputs import merged, too_long, unloaded
from stillhouse.local.stops import StopTexts
from stillhouse.local.worker import EngineWorker
from stillhouse.typing import Capability, FormattedInput, GenerateOutput, OnPiece

__all__ = ["TokenEngine", "TokenLLM"]


class TokenEngine(Protocol):
    """The facts about an open engine that `TokenLLM` needs.

    Attributes:
        tokenizer: a tokenizer with the interface of the library `transformers`.
        vocabulary_size: the width of the model's logits.
        context_length: maximum number of tokens of prompt and answer together.
        eos: the tokens that end an answer.
        defaults: the defaults in the model's `generation_config.json`.
    """

    @property
    def tokenizer(self) -> Any: ...

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    @property
    def eos(self) -> frozenset[int]: ...

    @property
    def defaults(self) -> SamplingDefaults: ...


class TokenLLM(LocalLLM):
    """A model whose engine produces a `GenerateOutput` for each `Generation`, in batches.

    A backend implements `load`, which creates an `EngineWorker` and calls `use_engine`, and `unload`, which
    calls `release_engine`. Each job of the engine is a `Generation`, and ends with the output of an `Answer`,
    which gets the job's `on_piece`.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            "chat",
            "raw_prompt",
            "num_generations",
            "logprobs",
            "json_schema",
            "regex",
            "choice",
            "seed",
        }
    )

    context_length: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of tokens of prompt and answer together; by default the model's.",
    )

    _engine: Any = PrivateAttr(default=None)
    _worker: EngineWorker[Any, Any, Any] | None = PrivateAttr(default=None)

    @property
    def seconds_waited(self) -> float | None:
        """Seconds that calls have waited for the engine; `None` if the LLM is not loaded."""
        worker = self._worker
        return None if worker is None else worker.seconds_waited

    def use_engine(self, worker: EngineWorker[Any, Any, Any], engine: TokenEngine) -> None:
        """Use this engine from now on.

        Raises:
            ConfigurationError: `chat_template` is not a template.
            UnsupportedError: `structured_output` cannot be enforced.
        """
        self._worker, self._engine = worker, engine
        self.use_tokenizer(engine.tokenizer, engine.vocabulary_size, sorted(engine.eos))

    def release_engine(self) -> None:
        """End the running calls and release the engine, which is freed if nothing else refers to it."""
        worker, self._worker, self._engine = self._worker, None, None
        if worker is not None:
            worker.close()

    def opened(self) -> tuple[Any, EngineWorker[Any, Any, Any]]:
        """Return the engine and its worker.

        Raises:
            ConfigurationError, GenerationError: the LLM is not loaded.
        """
        engine, worker = self._engine, self._worker
        if engine is None or worker is None:
            self.require_loaded()
            raise unloaded()
        return engine, worker

    def room_for(self, prompt: Sequence[int]) -> int:
        """Return the maximum number of tokens of the answer to a prompt.

        Raises:
            GenerationError: the prompt is too long (`context_length`), or the model cannot read it
                (`invalid_request`).
        """
        engine, _ = self.opened()
        if not prompt:
            raise GenerationError(
                "the prompt is empty, and the model's tokenizer adds no token that begins a text",
                kind="invalid_request",
                hint="write something into the prompt",
            )
        if len(prompt) >= engine.context_length:
            raise too_long(
                len(prompt), engine.context_length - 1, "context_length" if self.context_length else ""
            )
        if max(prompt) >= engine.vocabulary_size:
            raise GenerationError(
                f"the tokenizer gives the token {max(prompt)}, and the model knows {engine.vocabulary_size}",
                kind="invalid_request",
                hint="the tokenizer has tokens that the model was not trained with: use the model's own",
            )
        return int(engine.context_length) - len(prompt)

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: Annotated[int | None, Field(ge=1)] = None,
        temperature: Annotated[float | None, Field(ge=0)] = None,
        top_p: Annotated[float | None, Field(ge=0, le=1)] = None,
        top_k: Annotated[int | None, Field(ge=0)] = None,
        min_p: Annotated[float | None, Field(ge=0, le=1)] = None,
        stop: str | list[str] | None = None,
        seed: Annotated[int | None, Field(ge=0)] = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        repetition_penalty: Annotated[float | None, Field(gt=0)] = None,
        logprobs: bool | None = None,
        top_logprobs: Annotated[int | None, Field(ge=0)] = None,
        logit_bias: dict[int | str, float] | None = None,
    ) -> GenerateOutput:
        """Generate for one input. `None` means the default in the model's `generation_config`.

        If that has none either, the default below applies. A model whose `generation_config` does not sample
        always takes the most probable token, unless temperature, top_p, top_k or min_p is given.

        Args:
            input: a chat, a chat with a structured output, or a raw prompt.
            num_generations: number of generations; each is a sequence of a batch.
            max_new_tokens: maximum number of tokens to generate; by default, until the model stops or the
                context is full.
            temperature: sampling temperature; 0 always takes the most probable token; by default 1.
            top_p: sample from the most probable tokens with this total probability; by default all.
            top_k: sample from this number of most probable tokens, 0 for all; by default all.
            min_p: leave out tokens with less than this share of the highest probability; by default none.
            stop: a text, or several, that ends the generation and is left out of it.
            seed: seed of the first generation; each further one adds one. By default random.
            frequency_penalty: penalty for a token, for each time it was generated; by default 0.
            presence_penalty: penalty for every token that was generated; by default 0.
            repetition_penalty: penalty for tokens of the prompt and the answer; by default 1, which is none.
            logprobs: whether to return log-probabilities: for each position the generated token first, before
                any parameter applies.
            top_logprobs: number of candidates for each position, including the generated token; implies
                `logprobs`. By default only the generated token.
            logit_bias: values to add to the logits of tokens, by token id or text.

        Raises:
            GenerationError: the prompt is too long for the context (`context_length`), the chat template
                or the tokenizer rejects it (`invalid_request`), the engine failed (`server`), or the answer
                violates its form (`truncated`, `schema`). `outputs` has the other finished generations.
            UnsupportedError: the structured output cannot be enforced.
        """
        engine, worker = self.opened()
        content, _ = split_input(input)
        guide = self.guide_of(input)
        prompt = self.prompt_ids(content)
        room = self.room_for(prompt)
        defaults: SamplingDefaults = engine.defaults
        sampling = defaults.sampling(
            {
                "temperature": temperature,
                "top_p": top_p,
                "top_k": top_k,
                "min_p": min_p,
                "frequency_penalty": frequency_penalty,
                "presence_penalty": presence_penalty,
                "repetition_penalty": repetition_penalty,
                "logit_bias": logit_bias,
            },
            engine.tokenizer,
            engine.vocabulary_size,
        )
        limit = min(max_new_tokens or defaults.max_new_tokens or room, room)
        wants_logprobs = top_logprobs is not None if logprobs is None else logprobs
        candidates = (top_logprobs or 0) if wants_logprobs else None
        stops = StopTexts(stop)
        compiler = None if guide is None else self.guides
        on_piece = self.claim_stream() if num_generations == 1 else None
        calls = [
            _generated(
                worker,
                Generation(prompt, limit, sampling, stops, guide, compiler, candidates, seed, number),
                on_piece,
            )
            for number in range(num_generations)
        ]
        if len(calls) == 1:
            return await calls[0]
        return merged(await asyncio.gather(*calls, return_exceptions=True))


async def _generated(
    worker: EngineWorker[Any, Any, Any], generation: Generation, on_piece: OnPiece | None
) -> GenerateOutput:
    output: GenerateOutput = await worker.run(generation, len(generation.prompt), on_piece)
    if generation.guide is not None:
        generation.guide.check(output["generations"][0] or "", output["finish_reasons"][0])
    return output
