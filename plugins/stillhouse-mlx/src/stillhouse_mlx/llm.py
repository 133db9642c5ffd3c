"""The LLM `mlx`."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from stillhouse import FormattedInput, GenerateOutput, GenerationError
from stillhouse.inputs import split_input
from stillhouse.local import (
    EngineWorker,
    LocalLLM,
    Sampling,
    StopTexts,
    bias_of,
    find_model,
    merged,
    model_name_of,
    too_long,
    uniforms,
    unloaded,
)
from stillhouse.typing import Capability
from stillhouse_mlx.library import Library, load_library
from stillhouse_mlx.models import GIB, Device, Dtype, Settings
from stillhouse_mlx.requests import Request

if TYPE_CHECKING:
    from stillhouse_mlx.engine import Engine

__all__ = ["MlxLLM"]


class MlxLLM(LocalLLM):
    """A model in this process, on MLX with mlx-lm: on the GPU of a Mac, or on a CPU.

    Up to `batch_size` sequences grow together; each generation of an input is one. New ones join when
    others end. A loaded LLM cannot be used in a forked process.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "raw_prompt", "num_generations", "logprobs", "json_schema", "regex", "choice", "seed"}
    )

    model: str = Field(
        min_length=1,
        description="A folder with config.json and safetensors, or owner/name on the Hugging Face Hub, "
        "such as mlx-community/Llama-3.2-3B-Instruct-4bit.",
    )
    revision: str | None = Field(
        default=None, description="The branch, tag or commit of a repository on the Hub."
    )
    adapter_path: str | None = Field(
        default=None, description="The folder of a LoRA adapter that mlx_lm.lora has written."
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="How many sequences grow at once; by default 32 on a GPU and 4 on a CPU.",
    )
    max_context: int | None = Field(
        default=None,
        ge=1,
        description="The longest sequence in tokens, prompt and answer together; by default the model's "
        "limit. Memory grows with what the sequences need, up to batch_size times max_context.",
    )
    prompt_cache: int = Field(
        default=4,
        ge=0,
        description="How many beginnings that prompts share are kept, to be read once; 0 for none.",
    )
    prefill_step: int = Field(
        default=2048,
        ge=1,
        description="How many tokens of a prompt are read in one step; a cancellation waits for a step.",
    )
    device: Device = Field(default="auto", description="Where to compute: gpu, cpu, or MLX's own choice.")
    dtype: Dtype = Field(
        default="auto", description="The type of weights that are not quantized; by default as in the files."
    )
    memory_limit: float | None = Field(
        default=None,
        gt=0,
        description="GiB that MLX may take before it waits for memory to be given back. It holds for the "
        "process until the LLM is unloaded.",
    )
    cache_limit: float | None = Field(
        default=None,
        ge=0,
        description="GiB of freed memory that MLX keeps for itself. It holds for the process until the LLM "
        "is unloaded.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Whether code that comes with the model may run."
    )

    _engine: Engine | None = PrivateAttr(default=None)
    _worker: EngineWorker[Engine, Request, GenerateOutput] | None = PrivateAttr(default=None)
    _restore: list[Callable[[], Any]] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        """The name of the model's folder, or of its repository."""
        return model_name_of(self.model)

    def load(self) -> None:
        """Load the model; a repository on the Hugging Face Hub is downloaded first if need be.

        Raises:
            ConfigurationError: there is no such model or device, or mlx-lm cannot read it.
            UnsupportedError: `structured_output` cannot be honoured.
        """
        from stillhouse_mlx.engine import Engine, serve

        super().load()
        assert self._logger is not None
        settings = Settings(
            path=find_model(self.model, revision=self.revision),
            adapter_path=self.adapter_path,
            batch_size=self.batch_size,
            max_context=self.max_context,
            prompt_cache=self.prompt_cache,
            prefill_step=self.prefill_step,
            device=self.device,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
        )
        library = load_library()
        self._set_limits(library)
        engines: list[Engine] = []

        def open() -> Engine:
            engines.append(Engine(library, settings))
            return engines[0]

        self._worker = EngineWorker(open, serve, "stillhouse-mlx")
        self._engine = engine = engines.pop()
        if not engine.batches:
            self._logger.warning(
                "mlx-lm computes something else for this model in a batch than alone: one sequence at a time"
            )
        self.use_tokenizer(engine.tokenizer, engine.vocabulary_size, sorted(engine.tokenizer.eos_token_ids))

    def _set_limits(self, library: Library) -> None:
        for value, change in (
            (self.memory_limit, library.mx.set_memory_limit),
            (self.cache_limit, library.mx.set_cache_limit),
        ):
            if value is not None:
                before = change(int(value * GIB))
                self._restore.append(functools.partial(change, before))

    def unload(self) -> None:
        """End the calls under way, and give the memory back."""
        worker, engine = self._worker, self._engine
        self._worker = self._engine = None
        if worker is not None:
            worker.close()
        super().unload()
        if engine is not None:
            mx = engine.mx
            del worker, engine
            gc.collect()  # modules and tokenizers refer to each other
            mx.clear_cache()
        while self._restore:
            self._restore.pop()()

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
        """Generate for one input.

        Without a temperature the model's most probable token is taken always, unless its
        generation_config.json says that tokens are sampled; then its settings are the defaults.

        Args:
            input: a chat, a chat with a structured output, or a raw prompt.
            num_generations: how many generations; each is a sequence of its own.
            max_new_tokens: how many tokens to generate at most; by default, until the model ends or
                the context is full.
            temperature: 0 takes the most probable token always.
            top_p: sample among the most probable tokens of this total probability; by default all.
            top_k: sample among this many most probable tokens, 0 for all; by default all.
            min_p: leave out tokens less probable than this share of the most probable one's; by
                default 0.
            stop: a text, or several, that ends the generation and is left out of it.
            seed: the seed of the first generation; the next one's is greater by one. By default random.
            frequency_penalty: lowers the odds of a token with every time that it was generated; by
                default 0.
            presence_penalty: lowers the odds of every token that was generated; by default 0.
            repetition_penalty: divides the odds of tokens that the prompt or the answer has; by default 1.
            logprobs: whether to give log-probabilities: for each position the generated token first,
                before any sampling parameter is applied.
            top_logprobs: how many candidates to give for each position, the generated token among them;
                it switches log-probabilities on. By default the generated token alone.
            logit_bias: added to the odds of tokens, by their number or text.

        Raises:
            GenerationError: the prompt is too long for the context (`context_length`), the chat template
                refuses the chat (`invalid_request`), the engine failed (`server`), or the answer lacks
                the form that was asked for (`truncated`, `schema`). `outputs` holds the other generations
                that were finished.
            UnsupportedError: the structured output cannot be honoured.
        """
        engine, worker = self._engine, self._worker
        if engine is None or worker is None:
            self.require_loaded()
            raise unloaded()
        prompt = self.prompt_ids(split_input(input)[0])
        room = _room(engine, prompt)
        given = {
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "repetition_penalty": repetition_penalty,
            "bias": bias_of(logit_bias, engine.tokenizer, engine.vocabulary_size) if logit_bias else None,
        }
        sampling = _sampling(given, engine.defaults)
        guide = self.guide_of(input)
        wants_logprobs = top_logprobs is not None if logprobs is None else logprobs
        stops = StopTexts(stop)

        async def one(generation: int) -> GenerateOutput:
            request = Request(
                prompt=prompt,
                max_new_tokens=min(max_new_tokens or room, room),
                sampling=sampling,
                chance=uniforms(seed, generation).random,
                stops=stops,
                matcher=None if guide is None else self.guides.matcher(guide),
                words=0 if guide is None else self.guides.words,
                candidates=(top_logprobs or 0) if wants_logprobs else None,
            )
            output = await worker.run(request, size=len(prompt))
            if guide is not None:
                guide.check(output["generations"][0] or "", output["finish_reasons"][0])
            return output

        calls = [one(generation) for generation in range(num_generations)]
        return merged(await asyncio.gather(*calls, return_exceptions=True))


def _room(engine: Engine, prompt: list[int]) -> int:
    """How many tokens an answer may have."""
    if not prompt:
        raise GenerationError(
            "the prompt is empty: the model's tokenizer makes no token of it",
            kind="invalid_request",
            hint="write something into the prompt",
        )
    if len(prompt) >= engine.context:
        raise too_long(len(prompt), engine.context - 1, "max_context")
    return engine.context - len(prompt)


def _sampling(given: dict[str, Any], defaults: dict[str, float]) -> Sampling:
    settings = {**defaults, **{name: value for name, value in given.items() if value is not None}}
    return Sampling(**{"temperature": 0.0, **settings})
