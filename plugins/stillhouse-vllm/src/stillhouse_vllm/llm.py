"""The LLM `vllm`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from stillhouse import ConfigurationError, FormattedInput, GenerateOutput, GenerationError, RuntimeParameter
from stillhouse.inputs import split_input
from stillhouse.local import (
    CudaDevicePlacementMixin,
    Guide,
    LocalLLM,
    find_model,
    merged,
    model_name_of,
    unloaded,
)
from stillhouse.typing import Capability
from stillhouse_vllm.answers import read_answer
from stillhouse_vllm.engine import Engine, Settings
from stillhouse_vllm.library import library
from stillhouse_vllm.logs import loud, quiet
from stillhouse_vllm.lora import chosen_adapter, rank_for
from stillhouse_vllm.options import check_engine_args, engine_arguments, engine_environment
from stillhouse_vllm.parameters import candidates_of, guide_problem, sampling_params

__all__ = ["VLLM"]


class VLLM(LocalLLM, CudaDevicePlacementMixin):
    """A model on this machine, on vLLM, with continuous batching.

    The engine runs in its own processes. If it dies, the inputs in flight fail, and it is restarted for the
    next ones.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "raw_prompt", "num_generations", "logprobs", "json_schema", "regex", "choice", "seed"}
    )

    model: str = Field(
        min_length=1,
        description="A folder with config.json and weights, or owner/name on the Hugging Face Hub.",
    )
    revision: str | None = Field(default=None, description="The revision of a model on the Hub.")
    tokenizer: str | None = Field(
        default=None, description="The folder or the name of a tokenizer instead of the model's."
    )
    dtype: str = Field(
        default="auto", description="The type to compute with: auto, bfloat16, float16 or float32."
    )
    quantization: str | None = Field(
        default=None, description="How weights are quantized, if the model does not say so."
    )
    max_model_len: int | None = Field(
        default=None,
        ge=1,
        description="The context in tokens, prompt and answer together; by default the model's.",
    )
    gpu_memory_utilization: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="The engine's share of a device's memory; by default vLLM's, about nine tenths.",
    )
    kv_cache_memory: float | None = Field(
        default=None,
        gt=0,
        description="Memory of the KV cache on each device, or of the CPU, in GiB, instead of "
        "gpu_memory_utilization; on a CPU at most 4 by default.",
    )
    tensor_parallel_size: int = Field(
        default=1, ge=1, description="Number of devices that each layer is split over."
    )
    pipeline_parallel_size: int = Field(
        default=1,
        ge=1,
        description="Number of devices, or groups of devices, that the layers are distributed over.",
    )
    max_num_seqs: int | None = Field(
        default=None, ge=1, description="Maximum number of sequences in a batch; by default vLLM's choice."
    )
    enforce_eager: bool | None = Field(
        default=None,
        description="Whether the model runs uncompiled, which starts faster; by default only on a CPU.",
    )
    enable_prefix_caching: bool | None = Field(
        default=None,
        description="Whether shared beginnings of prompts are computed only once, and cached tokens are "
        "reported in the statistics; by default vLLM's choice, and not reported.",
    )
    lora: str | dict[str, str] | None = Field(
        default=None, description="The folder of a LoRA adapter, or the folders of several by name."
    )
    lora_name: str | None = Field(default=None, description="Which of several adapters to use.")
    trust_remote_code: bool = Field(
        default=False, description="Whether code that comes with the model may run."
    )
    seed: int | None = Field(default=None, ge=0, description="The engine's seed, for calls without one.")
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of vLLM's engine, by their names in Python."
    )
    verbose: RuntimeParameter[bool] = Field(
        default=False, description="Whether the engine logs to standard error."
    )
    max_concurrency: RuntimeParameter[int] = Field(
        default=256, ge=1, description="Maximum number of inputs in flight; they fill the batch."
    )

    _engine: Engine | None = PrivateAttr(default=None)
    _quieted: bool | None = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        """The name of the model's folder or repository."""
        return model_name_of(self.model)

    def uses_cuda(self) -> bool:
        """Whether vLLM finds a CUDA device here, and was built for one."""
        return bool(library().platform.is_cuda())

    def num_cuda_devices(self) -> int:
        """The product of the sizes of parallelism, unless `cuda_devices` is empty."""
        return 0 if self.cuda_devices == [] else self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def engine_slots(self) -> int | None:
        """How many sequences grow at once; `None` where that is left to the engine."""
        return self.max_num_seqs

    def load(self) -> None:
        """Start the engine, which takes from half a minute on; a model on the Hub is downloaded first.

        Raises:
            ConfigurationError: vLLM is not installed, there is no such model, or the engine cannot load
                it; the message has the engine's own words.
            UnsupportedError: the engine cannot honour `structured_output`.
        """
        check_engine_args(self.engine_args)
        adapter = chosen_adapter(self.lora, self.lora_name)
        model = self.model if "://" in self.model else str(find_model(self.model, revision=self.revision))
        self._quieted = bool(self.verbose)
        quiet(self._quieted)
        found = library()
        if self.cuda_devices not in ("auto", None) and not self.uses_cuda():
            raise ConfigurationError(
                f"cuda_devices is {self.cuda_devices}, but vLLM finds no CUDA device here",
                hint='leave cuda_devices at "auto" to compute on the CPU, or install the build for CUDA',
            )
        self._desired_num_gpus = self.tensor_parallel_size * self.pipeline_parallel_size
        super().load()
        arguments = engine_arguments(self, model, is_cpu=bool(found.platform.is_cpu()))
        lora = None
        if adapter is not None:
            arguments = {"max_lora_rank": rank_for(adapter), **arguments, "enable_lora": True}
            lora = found.lora(adapter.name, adapter.number, adapter.path)
        engine = Engine(found, Settings(arguments, engine_environment(self), bool(self.verbose), lora))
        self._engine = engine
        try:
            self.run_on_loop(engine.warm_up())
        except GenerationError as error:
            raise ConfigurationError(
                f"the engine loaded the model, but cannot generate: {error.message}", hint=error.hint
            ) from error
        self.use_tokenizer(engine.tokenizer)
        if self._logger is not None and (self.max_concurrency or 1) < (self.max_num_seqs or 1):
            self._logger.warning(
                "max_concurrency is %s: a batch of %s is never full", self.max_concurrency, self.max_num_seqs
            )

    def unload(self) -> None:
        """End the calls under way and the engine's processes."""
        engine, self._engine = self._engine, None
        try:
            if engine is not None:
                self.run_on_loop(engine.stop())
                engine.close()
                self.run_on_loop(engine.release())
        finally:
            quieted, self._quieted = self._quieted, None
            if quieted is not None:
                loud(quieted)
            super().unload()

    def require_guide(self, guide: Guide) -> None:
        """Refuse a form that the engine would not honour, before anything is sent to it."""
        if self._engine is not None and (problem := guide_problem(guide.grammar)):
            raise guide.refusal(problem)

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: Annotated[int | None, Field(ge=1)] = None,
        temperature: Annotated[float | None, Field(ge=0)] = None,
        top_p: Annotated[float | None, Field(gt=0, le=1)] = None,
        top_k: Annotated[int | None, Field(ge=0)] = None,
        min_p: Annotated[float | None, Field(ge=0, le=1)] = None,
        stop: str | list[str] | None = None,
        seed: Annotated[int | None, Field(ge=0)] = None,
        frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None,
        presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None,
        repetition_penalty: Annotated[float | None, Field(gt=0)] = None,
        logprobs: bool | None = None,
        top_logprobs: Annotated[int | None, Field(ge=0)] = None,
        logit_bias: dict[int | str, float] | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        """Generate for one input. `None` leaves a parameter to the model's `generation_config.json`.

        Args:
            input: a chat, a chat with a structured output, or a raw prompt.
            num_generations: number of generations; the prompt is processed once.
            max_new_tokens: maximum number of tokens to generate; by default, generation stops when the
                model stops or the context is full.
            temperature: sampling temperature; 0 always takes the most likely token; by default the model's
                own, else 1.
            top_p: sample from the most likely tokens with this total probability; by default the model's
                own, else 1.
            top_k: sample from this many most likely tokens, 0 for all; by default the model's own, else 0.
            min_p: sample from tokens with at least this fraction of the most likely token's probability; by
                default the model's own, else 0.
            stop: texts that end the generation, wherever they occur; they are removed from it.
            seed: seed of the first generation; each further generation adds one. Random by default.
            frequency_penalty: penalty for a token, for each time it was generated; by default 0.
            presence_penalty: penalty for a token that was generated at all; by default 0.
            repetition_penalty: penalty for tokens in the prompt and the answer; 1 means none; by
                default the model's own, else 1.
            logprobs: whether to return log probabilities, before sampling parameters apply; the generated
                token is first at each position.
            top_logprobs: number of candidates to return for each position, including the generated token;
                implies `logprobs`. By default only the generated token.
            logit_bias: values to add to the logits of tokens, by token id or text.
            extra_body: further fields of vLLM's `SamplingParams`, such as `min_tokens`, `bad_words`,
                `stop_token_ids` or `ignore_eos`.

        Raises:
            GenerationError: the prompt is too long for the context (`context_length`), the engine refused
                the request (`invalid_request`) or died (`server`), or the answer does not match
                the structured output (`truncated`, `schema`). `outputs` has the other generations.
            UnsupportedError: the engine cannot honour the structured output.
        """
        engine = self._loaded_engine()
        candidates = candidates_of(engine, logprobs, top_logprobs)
        guide = self.guide_of(input)
        given = {
            "num_generations": num_generations,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "stop": stop,
            "seed": seed,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "repetition_penalty": repetition_penalty,
            "logprobs": candidates,
            "logit_bias": logit_bias,
        }
        on_piece = self.claim_stream() if num_generations == 1 else None
        requests = sampling_params(engine, given, guide, extra_body, streams=on_piece is not None)
        tokens = self.prompt_ids(split_input(input)[0])
        if not tokens:
            raise GenerationError(
                "the prompt has no tokens", kind="invalid_request", hint="remove inputs without text"
            )
        counts_cached = bool(self.enable_prefix_caching)

        async def ask(params: Any) -> GenerateOutput:
            answer = await engine.generate(tokens, params, on_piece)
            return read_answer(answer, guide, candidates, counts_cached)

        if len(requests) == 1:
            return await ask(requests[0])
        return merged(await asyncio.gather(*map(ask, requests), return_exceptions=True))

    def _loaded_engine(self) -> Engine:
        if self._engine is None:
            self.require_loaded()
            raise unloaded()
        return self._engine
