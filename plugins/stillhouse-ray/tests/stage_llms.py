"""LLMs that the actors of the tests import."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, SecretStr

import stillhouse
from stillhouse import AsyncLLM, GenerationError, prepare_output
from stillhouse.inputs import split_input
from stillhouse.typing import Capability

MAX_CHARACTERS = 1000

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


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
        if self.folder:
            with (Path(self.folder) / "asked").open("a", encoding="utf-8") as file:
                file.write(f"{text}\n")
        if len(text) > MAX_CHARACTERS:
            raise GenerationError("the prompt is longer than the context", kind="context_length")
        if text == "fields":
            text = " ".join(sorted(input[-1]))
        if text == "die":
            os._exit(1)
        if text == "kill once":
            with contextlib.suppress(FileExistsError):
                (Path(self.folder) / "killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        if text == "refuse":
            raise GenerationError("the key was refused", kind="authentication", hint="set OBEYING_API_KEY")
        if text.startswith("sleep "):
            await asyncio.sleep(float(text.removeprefix("sleep ")))
        return prepare_output(
            [f"{text}!"] * num_generations, input_tokens=[1], output_tokens=[1] * num_generations
        )


class ReadingLLM(AsyncLLM):
    """Answers with the prompt, whatever JSON schema the answer must match, and a digest of each image."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "images", "json_schema"})

    @property
    def model_name(self) -> str:
        return "reading"

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        """Generate."""
        chat, _ = split_input(input)
        content = chat[-1]["content"]
        if not isinstance(content, str):
            content = " ".join(
                part["text"] if part["type"] == "text" else digest_of(part["image_url"]["url"])
                for part in content
            )
        if content == "fail":
            raise GenerationError("it failed", kind="server")
        return prepare_output([content])


def digest_of(url: str) -> str:
    """Represents an image."""
    return hashlib.sha256(url.encode()).hexdigest()[:8]
