"""LLMs that workers find by PYTHONPATH alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from stillhouse import AsyncLLM, GenerationError, prepare_output
from stillhouse.typing import Capability


class Fragile(AsyncLLM):
    """Does what a prompt says, in the process that generates."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "num_generations"})

    notes: Path | None = Field(default=None, description="A file that has a line for each prompt.")
    gate: Path | None = Field(default=None, description="A file without which no prompt with 'wait' ends.")
    gpus: int = Field(default=0, description="How many CUDA devices a worker asks for.")
    callback: Any = Field(default=None, description="Whatever is to be sent to the workers.")

    @property
    def model_name(self) -> str:
        return "fragile"

    def num_cuda_devices(self) -> int:
        """As backends declare them that run an engine."""
        return self.gpus

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        """Generate."""
        import asyncio

        text = input if isinstance(input, str) else input[-1]["content"]
        if self.notes is not None:
            with self.notes.open("a") as lines:
                lines.write(f"{os.getpid()} {text}\n")
        if "die" in text:
            os._exit(1)
        if "kill" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "fail" in text:
            raise GenerationError("it failed", kind="server")
        if "long" in text:
            raise GenerationError("the prompt is too long", kind="context_length")
        while "wait" in text and self.gate is not None and not self.gate.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        said = {
            "device?": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "key?": os.environ.get("OTHER_KEY", ""),
        }
        answer = said.get(text, f"{text}!")
        return prepare_output(
            [answer] * num_generations, input_tokens=[1], output_tokens=[1] * num_generations
        )


class Priced(AsyncLLM):
    """Has the name and the address of a model with a price, and uses 30 tokens in and 100 out for each row."""

    model: str = "gpt-5-mini"
    api_url: str = "https://api.openai.com/v1"
    notes: Path = Field(description="A file that has a line for each prompt.")

    @property
    def model_name(self) -> str:
        return self.model

    async def agenerate(self, input: Any, num_generations: int = 1, max_new_tokens: int | None = None) -> Any:
        """Generate."""
        with self.notes.open("a") as lines:
            lines.write(f"{os.getpid()} {input[-1]['content']}\n")
        return prepare_output(["x"], [30], [100])
