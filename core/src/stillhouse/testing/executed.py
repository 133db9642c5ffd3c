"""`ExecutedLLM`: what the rules on executors let workers generate with. It does what a `Desk` says.

Workers import this module, wherever they run: it imports no pytest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, SecretStr

from stillhouse import hookimpl
from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.outputs import prepare_output
from stillhouse.typing import Capability, FormattedInput, GenerateOutput

__all__ = ["HOST", "MISSING", "ExecutedLLM"]

HOST = "127.0.0.1"

MISSING = "there is no model of this name for the kit"
"""What loading says where it is to fail."""

SECONDS = 10.0

Exposed = list[Literal["command line", "environment"]]

_lines: list[socket.socket] = []
"""The connections of this process that its end closes: so the desk knows that it has ended."""


class ExecutedLLM(AsyncLLM):
    """Asks a `Desk` on this machine what to do with each input, and tells it what has happened."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "num_generations"})

    port: int = Field(description="Where the desk listens.")
    home: int = Field(description="The process of the run.")
    api_key: RuntimeParameter[SecretStr] | None = Field(
        default=None, description="A secret, which is looked for."
    )
    fails_loading: bool = Field(default=False, description="Whether loading fails.")
    tells_hooks: bool = Field(default=False, description="Whether a worker tells that it calls hooks.")
    cargo: Any = Field(default=None, description="Whatever is to be sent to the workers.")

    _line: socket.socket | None = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        return "executed"

    def load(self) -> None:
        super().load()
        line = socket.create_connection((HOST, self.port), SECONDS)
        line.sendall(_packed(event="load", process=os.getpid(), exposed=self._exposed()))
        line.recv(1)  # the desk has noted that
        if os.getpid() == self.home:
            self._line = line
        else:
            _lines.append(line)
        if self.fails_loading:
            self._hang_up()
            raise ConfigurationError(MISSING, hint="give another one")
        register: Any = getattr(self.registry, "register_hooks", None)
        if self.tells_hooks and register is not None and os.getpid() != self.home:
            register("seen-in-a-worker", _Tells(self.port))

    def unload(self) -> None:
        self._hang_up()
        super().unload()

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        seed: int | None = None,
    ) -> GenerateOutput:
        """Do what the desk says.

        Args:
            input: the input.
            num_generations: how many generations.
            max_new_tokens: told to the desk.
            seed: told to the desk.
        """
        chat: Any = input
        text = str(chat[-1]["content"])
        arguments = {"max_new_tokens": max_new_tokens, "seed": seed}
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(_packed(event="call", process=os.getpid(), text=text, arguments=arguments))
            answer = await reader.readline()
            if not answer:
                raise GenerationError("the kit has gone", kind="connection", stops_run=True)
            error = self._obey(json.loads(answer)["action"])
            writer.write(_packed(event="done"))
            await reader.readline()  # it has noted that before the result is seen
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if error is not None:
            raise error
        return prepare_output(
            [f"{text}!"] * num_generations, input_tokens=[1], output_tokens=[1] * num_generations
        )

    def _obey(self, action: str) -> GenerationError | None:
        if action == "die":
            if os.getpid() != self.home:
                os._exit(3)
            return GenerationError("this would have ended a process", kind="server", attempts=2)
        if action == "fail":
            return GenerationError("this input fails", kind="timeout", attempts=3, hint="ask another")
        if action == "refuse":
            return GenerationError("the key was refused", kind="authentication", stops_run=True)
        return None

    def _exposed(self) -> Exposed:
        """Return where anybody on the machine of a worker sees its secret."""
        if self.api_key is None:
            return []
        secret = self.api_key.get_secret_value()
        found: Exposed = []
        if any(secret in argument for argument in sys.orig_argv) or secret in _of_process("cmdline"):
            found.append("command line")
        if any(secret in value for value in os.environ.values()) or secret in _of_process("environ"):
            found.append("environment")
        return found

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()


class _Tells:
    """Hooks that tell the desk that they are called: in a worker, which should call none."""

    def __init__(self, port: int) -> None:
        self._port = port

    @hookimpl
    def before_generate(self) -> None:
        self._tell()

    @hookimpl
    def after_generate(self) -> None:
        self._tell()

    def _tell(self) -> None:
        with socket.create_connection((HOST, self._port), SECONDS) as line:
            line.sendall(_packed(event="hook", process=os.getpid()))
            line.recv(1)


def _packed(**content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _of_process(name: str) -> str:
    """Return what the system shows of this process, where it has such files."""
    with contextlib.suppress(OSError):
        return Path("/proc/self", name).read_bytes().decode(errors="replace")
    return ""
