"""The LLM `mlx`."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any

from pydantic import Field, PrivateAttr

from stillhouse.local import TokenLLM, find_model, model_name_of
from stillhouse_mlx.library import Library, load_library
from stillhouse_mlx.models import GIB, Device, Dtype, Settings

__all__ = ["MlxLLM"]


class MlxLLM(TokenLLM):
    """A model in this process, on MLX with mlx-lm: on the GPU of a Mac, or on a CPU.

    Up to `batch_size` sequences are generated together; each generation of an input is one. New ones join
    when others end. A loaded LLM cannot be used in a forked process.
    """

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
        description="Maximum number of sequences generated at once; by default 32 on a GPU and 4 on a CPU.",
    )
    prompt_cache: int = Field(
        default=4,
        ge=0,
        description="Maximum number of shared prompt beginnings to keep, so they are processed only once; "
        "0 for none.",
    )
    prefill_step: int | None = Field(
        default=None,
        ge=1,
        description="Prompt tokens processed in one step, for which a cancellation waits; by "
        "default 2048 on a GPU and 256 on a CPU.",
    )
    device: Device = Field(default="auto", description="Where to compute: gpu, cpu, or MLX's own choice.")
    dtype: Dtype = Field(
        default="auto", description="The type of weights that are not quantized; by default as in the files."
    )
    memory_limit: float | None = Field(
        default=None,
        gt=0,
        description="GiB that MLX may use before it waits for memory to be freed. It applies to the whole "
        "process until the LLM is unloaded.",
    )
    cache_limit: float | None = Field(
        default=None,
        ge=0,
        description="GiB of freed memory that MLX keeps for itself. It applies to the whole process until "
        "the LLM is unloaded.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Whether code that comes with the model may run."
    )

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
        from stillhouse_mlx.runner import Runner

        super().load()
        assert self._logger is not None
        settings = Settings(
            path=find_model(self.model, revision=self.revision),
            adapter_path=self.adapter_path,
            batch_size=self.batch_size,
            context_length=self.context_length,
            prompt_cache=self.prompt_cache,
            prefill_step=self.prefill_step,
            device=self.device,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
        )
        library = load_library()
        self._set_limits(library)
        runner = Runner(library, settings)
        engine = runner.take_engine()
        if not engine.batches:
            self._logger.warning(
                "mlx-lm computes different results for this model in a batch: generating one sequence at a "
                "time"
            )
        self.use_engine(runner, engine)

    def _set_limits(self, library: Library) -> None:
        for value, change in (
            (self.memory_limit, library.mx.set_memory_limit),
            (self.cache_limit, library.mx.set_cache_limit),
        ):
            if value is not None:
                before = change(int(value * GIB))
                self._restore.append(functools.partial(change, before))

    @property
    def engine_slots(self) -> int | None:
        """How many sequences grow at once; `None` before the model is loaded."""
        return None if self._engine is None else self._engine.slots

    def unload(self) -> None:
        """End the calls under way, and give the memory back."""
        engine = self._engine
        self.release_engine()
        super().unload()
        if engine is not None:
            mx = engine.mx
            del engine
            gc.collect()  # modules and tokenizers refer to each other
            mx.clear_cache()
        while self._restore:
            self._restore.pop()()
