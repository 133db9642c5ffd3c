"""LLMs that the actors of the tests import."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, SecretStr

import stillhouse
from stillhouse import AsyncLLM, GenerationError, prepare_output
from stillhouse.typing import Capability

MAX_CHARACTERS = 1000


class ObeyingLLM(AsyncLLM):
    """Does what a prompt says."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "num_generations"})

    folder: str = Field(default="", description="Where files show that it was loaded and unloaded.")
    api_key: SecretStr | None = Field(default=None, description="A secret.")
    fails_loading: bool = Field(default=False, description="Whether loading fails.")

    @property
    def model_name(self) -> str:
        return "obeying"

    def load(self) -> None:
        super().load()
        if self.fails_loading:
            raise stillhouse.ConfigurationError("there is no such model", hint="give another one")
        self._record("loaded")

    def unload(self) -> None:
        if self.is_loaded:
            self._record("unloaded")
        super().unload()

    def _record(self, what: str) -> None:
        if self.folder:
            with (Path(self.folder) / f"{what}-{os.getpid()}").open("a", encoding="utf-8") as file:
                file.write("once\n")

    async def agenerate(self, input: Any, num_generations: int = 1, temperature: float = 1.0) -> Any:
        """Generate.

        Args:
            input: the input.
            num_generations: how many.
            temperature: not used.
        """
        text = input[-1]["content"]
        if len(text) > MAX_CHARACTERS:
            raise GenerationError("the prompt is longer than the context", kind="context_length")
        if text == "fields":
            text = " ".join(sorted(input[-1]))
        if text == "die":
            os._exit(1)
        if text == "refuse":
            raise GenerationError("the key was refused", kind="authentication", hint="set OBEYING_API_KEY")
        if text.startswith("sleep "):
            await asyncio.sleep(float(text.removeprefix("sleep ")))
        return prepare_output(
            [f"{text}!"] * num_generations, input_tokens=[1], output_tokens=[1] * num_generations
        )
