"""The command with backends of its own, run as a program: what its LLMs and hooks do is said in their names."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import stillhouse
from stillhouse import LLM, AsyncLLM, Capability, FormattedInput, GenerateOutput, prepare_output
from stillhouse.http import HTTPLLM, Request
from stillhouse.inputs import split_input


def _text(input: FormattedInput) -> str:
    content, _ = split_input(input)
    return content if isinstance(content, str) else str(content[-1]["content"])


class RemoteLLM(HTTPLLM):
    """Asks a server, whose answers are `{"texts": […]}`."""

    api_key_required: ClassVar[bool] = False
    api_key_variable: ClassVar[str | None] = "ODD_API_KEY"
    default_base_url: ClassVar[str | None] = "http://usual.example"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "raw_prompt"})
    model: str = "remote"

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        return Request("generate", {"prompt": _text(input), "n": num_generations})

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return prepare_output(answer["texts"], [1] * len(answer["texts"]))

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        """Ask the server."""
        return await self.complete(input, num_generations, {})


class SingleLLM(RemoteLLM):
    """Makes one generation a call."""

    _num_generations_param_supported: bool = False

    async def agenerate(self, input: FormattedInput) -> GenerateOutput:  # type: ignore[override]
        """Ask the server."""
        return await self.complete(input, 1, {})


class WaitingLLM(AsyncLLM):
    """Says on standard error what it does, and waits there: in `load`, or in each call."""

    where: str = "load"

    @property
    def model_name(self) -> str:
        return "waiting"

    def load(self) -> None:
        super().load()
        if self.where == "load":
            print("loading", file=sys.stderr, flush=True)
            time.sleep(60)

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        """Wait."""
        print("calling", file=sys.stderr, flush=True)
        await asyncio.sleep(60)
        raise AssertionError


class PiecesLLM(AsyncLLM):
    """Streams the pieces of its name, which bars separate; at `wait` it waits, at `fail` it fails, and a text
    with `none` is withdrawn."""

    model: str = "a|b"

    @property
    def model_name(self) -> str:
        return "pieces"

    async def agenerate_streamed(
        self, input: FormattedInput, on_piece: Callable[[str], None], **kwargs: Any
    ) -> GenerateOutput:
        given = []
        for piece in self.model.split("|"):
            if piece == "wait":
                await asyncio.sleep(60)
            if piece == "warn":
                logging.getLogger("stillhouse.llm.pieces").warning("it is slow")
                continue
            if piece == "fail":
                raise stillhouse.GenerationError("the stream broke", kind="connection")
            if piece != "none":
                on_piece(piece)
                given.append(piece)
        is_none = "none" in self.model
        return prepare_output(
            [None if is_none else "".join(given)],
            finish_reasons=["content_filter" if is_none else "stop"],
        )

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        """Give the whole."""
        return prepare_output([self.model.replace("|", "")] * num_generations)


class EndingLLM(LLM):
    """Ends the program where it is told to, and swallows nothing."""

    where: str = "generate"
    by: str = "SystemExit"

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._end("init")

    @property
    def model_name(self) -> str:
        return "ending"

    def _end(self, place: str) -> None:
        if place == self.where:
            raise {
                "SystemExit": SystemExit(0),
                "KeyboardInterrupt": KeyboardInterrupt(),
                "GeneratorExit": GeneratorExit(),
                "CancelledError": asyncio.CancelledError(),
            }[self.by]

    def load(self) -> None:
        super().load()
        self._end("load")

    def unload(self) -> None:
        self._end("unload")
        super().unload()

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1) -> list[GenerateOutput]:
        """Answer with the inputs."""
        self._end("generate")
        return [prepare_output([_text(input)] * num_generations) for input in inputs]


class PrintingLLM(LLM):
    """Prints wherever it can, in Python and below it."""

    @property
    def model_name(self) -> str:
        return "printing"

    def load(self) -> None:
        super().load()
        print("PRINTED in load")

    def unload(self) -> None:
        print("PRINTED in unload")
        super().unload()

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1) -> list[GenerateOutput]:
        """Answer with the inputs."""
        import subprocess

        print("PRINTED in generate")
        os.write(1, b"PRINTED by C\n")
        subprocess.run([sys.executable, "-c", "print('PRINTED by a program')"], check=True)
        sys.stdout.buffer.write(b"PRINTED as bytes\n")
        sys.stdout.flush()
        return [prepare_output([_text(input)] * num_generations) for input in inputs]


class SayingLLM(LLM):
    """Says its model's name in every way: as an answer, an error, a log record, a warning, a line."""

    model: str = "x"
    how: str = "answer"

    @property
    def model_name(self) -> str:
        return self.model

    def load(self) -> None:
        super().load()
        if self.how == "refusal":
            raise stillhouse.ConfigurationError(self.model, hint=self.model)
        if self.how == "bug":
            raise KeyError(self.model)

    def list_models(self) -> Any:
        return [{"name": self.model + "x"}, {"name": "y", "created": self.model}]

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1) -> list[GenerateOutput]:
        """Say it."""
        if self.how == "error":
            raise stillhouse.GenerationError(self.model, kind="server")
        if self.how == "stop":
            raise stillhouse.GenerationError(self.model, stops_run=True, hint=self.model)
        if self.how == "log":
            logging.getLogger("odd").warning("%s", self.model)
        if self.how == "warning":
            warnings.warn(self.model, stacklevel=1)
        if self.how == "print":
            print(self.model)
            print("x", self.model, file=sys.stderr)
        reasons = [self.model if self.how == "reason" else "stop"] * num_generations
        texts = [None if self.how == "reason" else self.model] * num_generations
        return [prepare_output(texts, finish_reasons=reasons) for _ in inputs]


def nursery(main: Callable[[], None]) -> None:
    """Run each line of standard input as a command, in a fork of this process, and print what came of it.

    So a command is a process of its own, with a terminal or with pipes, and starts in milliseconds.
    """
    import pty

    import rich.console
    import rich.file_proxy
    import rich.live
    import rich.spinner
    import rich.table

    import stillhouse.cli.app
    import stillhouse.cli.generate.run
    import stillhouse.jobs.launch.work
    import stillhouse.registry.validation

    assert stillhouse.cli.app
    assert rich.table
    for line in sys.stdin:
        order = json.loads(line)
        ours, its = pty.openpty() if order["terminal"] else os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            os.chdir(order["folder"])
            os.environ["COLUMNS"] = "200"
            sys.path[:0] = order["path"]
            for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), its, its)):
                os.dup2(descriptor, number)
            encoding = order["encoding"]
            sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
            sys.argv = ["stillhouse", *order["arguments"]]
            try:
                main()
            except SystemExit as exited:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(exited.code)  # type: ignore[arg-type]
        os.close(its)
        got = bytearray()
        with contextlib.suppress(OSError):  # the other end of a terminal is closed
            while block := os.read(ours, 1 << 16):
                got += block
        os.close(ours)
        _, status = os.waitpid(child, 0)
        answer = [os.waitstatus_to_exitcode(status), base64.b64encode(got).decode()]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    for cls in (RemoteLLM, SingleLLM, WaitingLLM, EndingLLM, PiecesLLM, PrintingLLM, SayingLLM):
        stillhouse.default_registry().register(cls.__name__.removesuffix("LLM").lower(), cls)
    from stillhouse.cli import main

    if sys.argv[1:] == ["--nursery"]:
        nursery(main)
    else:
        main()
