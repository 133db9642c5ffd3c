"""LLMs that workers find by PYTHONPATH alone."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from stillhouse import AsyncLLM, GenerationError, prepare_output
from stillhouse.typing import Capability

BLOCK = 64 * 2**20
"""How much memory a hog takes at a time."""


class Fragile(AsyncLLM):
    """Does what a prompt says, in the process that generates."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "num_generations"})

    notes: Path | None = Field(default=None, description="A file that has a line for each prompt.")
    gate: Path | None = Field(default=None, description="A file without which no prompt with 'wait' ends.")
    pause: float = Field(default=0, description="Seconds that each prompt takes.")
    holds_unload: bool = Field(default=False, description="Whether unloading waits for the gate.")
    gpus: int = Field(default=0, description="How many CUDA devices a worker asks for.")
    callback: Any = Field(default=None, description="Whatever is to be sent to the workers.")

    @property
    def model_name(self) -> str:
        return "fragile"

    def num_cuda_devices(self) -> int:
        """As backends declare them that run an engine."""
        return self.gpus

    def unload(self) -> None:
        if self.holds_unload and self.is_loaded and self.gate is not None:
            self._note("unload")
            while not self.gate.exists():
                time.sleep(0.05)
        super().unload()

    def _note(self, what: str) -> None:
        if self.notes is not None:
            with self.notes.open("a") as lines:
                lines.write(f"{os.getpid()} {what}\n")

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        """Generate."""
        text = input if isinstance(input, str) else input[-1]["content"]
        self._note(text)
        if self.pause:
            await asyncio.sleep(self.pause)
        if "die" in text:
            os._exit(1)
        if "kill" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hog" in text:
            taken = []
            while True:  # until it is killed
                taken.append(b"x" * BLOCK)
                await asyncio.sleep(0.01)
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
