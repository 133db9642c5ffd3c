"""LLMs that workers can import."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

import stillhouse
from stillhouse import AsyncLLM, GenerationError, prepare_output
from stillhouse.http import HTTPLLM
from stillhouse.typing import Capability


def text_of(input: Any) -> str:
    text: str = input if isinstance(input, str) else input[-1]["content"]
    return text


class Counted(HTTPLLM):
    """Asks the counting server."""

    api_key_required: ClassVar[bool] = False

    async def agenerate(
        self, input: Any, num_generations: int = 1, max_new_tokens: int | None = None, seed: int | None = None
    ) -> Any:
        """Generate.

        Args:
            input: the input.
            num_generations: how many.
            max_new_tokens: not sent.
            seed: the seed.
        """
        body = {"prompt": text_of(input), "n": num_generations, "seed": seed}
        answer = await self.post("generate", body)
        if answer.get("error"):
            made = [prepare_output(answer["texts"])] if answer["texts"] else []
            raise GenerationError(answer["error"], kind="server", outputs=made)
        return prepare_output(answer["texts"], input_tokens=[3], output_tokens=[2] * num_generations)


class Plain(stillhouse.LLM):
    """Takes lists. It does what a prompt says, in the process that generates."""

    preferred_batch_size: ClassVar[int] = 4

    @property
    def model_name(self) -> str:
        return "plain"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[Any]:
        """Generate."""
        return [self.answer(text_of(input), num_generations) for input in inputs]

    def answer(self, text: str, num_generations: int) -> Any:
        obey(text)
        return prepare_output(
            [f"{text}!"] * num_generations, input_tokens=[1], output_tokens=[1] * num_generations
        )


class Fragile(AsyncLLM):
    """Does what a prompt says, in the process that generates; says where that was."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "num_generations"})

    says_process: bool = Field(default=False, description="Whether an answer is the process.")
    dies_loading: bool = Field(default=False, description="Whether loading ends the process.")
    fails_loading: bool = Field(default=False, description="Whether loading fails.")
    callback: Any = Field(default=None, description="Whatever is to be sent to the workers.")
    notes: Path | None = Field(default=None, description="A file that has a line for each prompt.")
    pause: float = Field(default=0, description="Seconds that each prompt takes.")
    room: int = Field(default=0, description="Bytes of memory that a worker may take once it is loaded.")

    @property
    def model_name(self) -> str:
        return "fragile"

    def load(self) -> None:
        super().load()
        if self.dies_loading:
            os._exit(7)
        if self.fails_loading:
            raise stillhouse.ConfigurationError("there is no such model", hint="give another one")
        if self.room:
            import resource

            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + self.room
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        """Generate."""
        text = text_of(input)
        if self.notes is not None:
            with self.notes.open("a") as lines:
                lines.write(f"{os.getpid()} {text}\n")
        if self.pause:
            await asyncio.sleep(self.pause)
        obey(text)
        answer = str(os.getpid()) if self.says_process else f"{text}!"
        return prepare_output(
            [answer] * num_generations, input_tokens=[1], output_tokens=[1] * num_generations
        )


class Starved(Fragile):
    """Has too little memory where no row is generated."""

    def iter_finished(self, *arguments: Any, **options: Any) -> Any:
        for group in super().iter_finished(*arguments, **options):
            if any("starve" in str(result) for _, result, *_ in group):
                raise MemoryError
            yield group


def take_memory() -> str:
    """What an input is made of that a worker has too little memory for."""
    raise MemoryError


class Large:
    """Pickles, and a worker has too little memory for it."""

    def __reduce__(self) -> Any:
        return take_memory, ()


class Locked(Fragile):
    """Has what does not pickle."""

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        object.__setattr__(self, "callback", threading.Lock())


class Unruly(Fragile):
    """Does to its process what no backend should do, and answers."""

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
        """Generate."""
        text = text_of(input)
        answer = misbehave(text)
        return prepare_output([f"{text}!" if answer is None else answer])

    def unload(self) -> None:
        super().unload()
        raise ZeroDivisionError("no way to unload")


class Forking(Fragile):
    """Forks when it is loaded, as engines do, and is killed."""

    says: str = Field(default="", description="The file that the number of the other process is written to.")

    def load(self) -> None:
        super().load()
        child = os.fork()
        if child == 0:
            while True:
                signal.pause()
        Path(self.says).write_text(str(child))
        os.kill(os.getpid(), signal.SIGKILL)


def misbehave(text: str) -> str | None:
    word = text.split()[0]
    if word == "fork":  # a helper process that has the pipes of this one, which is killed
        if os.fork() == 0:
            while True:
                signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "garbage":
        for number in pipes():
            os.write(number, b"Segmentation fault\n" * 3)
    elif word == "half":
        for number in pipes():
            os.write(number, b"SH\x00\x01" + (4 << 30).to_bytes(8, "big") + b"\x80\x05 and no more")
        os._exit(0)
    elif word == "closed":
        os.closerange(3, 1000)
    elif word == "malign":
        raise Malign
    elif word == "exit":
        raise SystemExit(4)
    elif word == "format":
        logging.getLogger("stillhouse.llm.fragile").warning("%d files", "no number")
    elif word == "place":
        logging.getLogger("stillhouse.llm.fragile").warning("at a place", extra={"place": threading.Lock()})
    elif word == "read":
        return f"read {sys.stdin.read()!r}"
    elif word == "folder":
        os.chdir("/")
    elif word == "signals":
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # this is not the main thread
                signal.signal(number, signal.SIG_IGN)
    elif word == "thread":
        threading.Thread(target=threading.Event().wait).start()
    elif word == "large":
        return "x" * (16 << 20)
    elif word == "surrogate":
        return "\ud83d"
    return None


def pipes() -> list[int]:
    """The pipes that can be written, besides the standard streams."""
    found = []
    for place in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            number = int(place.name)
            status, flags = os.fstat(number), fcntl.fcntl(number, fcntl.F_GETFL)
            if number > 2 and stat.S_ISFIFO(status.st_mode) and flags & os.O_ACCMODE == os.O_WRONLY:
                found.append(number)
    return found


class Malign(GenerationError):
    """Ends the process that reads it."""

    def __init__(self) -> None:
        super().__init__("malign", kind="server")

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def obey(text: str) -> None:
    if "die" in text:
        os._exit(1)
    if "kill" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hog" in text:
        taken = []
        while True:
            taken.append(bytearray(2**24))
    if "refuse" in text:
        raise GenerationError("the key was refused", kind="authentication", stops_run=True)
    if "fail" in text:
        raise GenerationError("it failed", kind="server")
    if "bug" in text:
        raise ZeroDivisionError("division by zero")
    if "odd" in text:
        raise Unpicklable(text)
    if "log" in text:
        logging.getLogger("stillhouse.llm.fragile").warning("noticed in a worker: %s", text)
    if "print" in text:
        print("printed in a worker")


class Unpicklable(GenerationError):
    """Needs two arguments to be read back."""

    def __init__(self, text: str, *, more: Any = None) -> None:
        super().__init__(f"odd: {text}", kind="timeout")
        self.lock = threading.Lock()
