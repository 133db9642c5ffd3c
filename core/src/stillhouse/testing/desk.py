"""`Desk`: where workers ask what to do with an input, and what they did is noted."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import IO, Any

from stillhouse.testing.executed import HOST

__all__ = ["THREADS", "Asked", "Desk"]

THREADS = "stillhouse-kit-"
"""How the names of the kit's own threads begin."""


@dataclass(eq=False)
class Asked:
    """An input that a worker generates for, or did.

    Attributes:
        text: of the input.
        arguments: the generation parameters.
        process: of the worker.
        action: what to do with it.
        line: leads to the worker.
        ended: whether it was finished, not given up; `None` while it is in flight.
    """

    text: str
    arguments: dict[str, Any]
    process: int
    action: str
    line: socket.socket = field(repr=False)
    ended: bool | None = None
    is_free: bool = field(default=False, repr=False)

    def answer(self) -> None:
        """Say what to do, once."""
        if not self.is_free:
            self.is_free = True
            with contextlib.suppress(OSError):  # it was given up
                self.line.sendall(json.dumps({"action": self.action}).encode() + b"\n")


class Desk:
    """A server on this machine that each `ExecutedLLM` asks.

    Attributes:
        port: where it listens.
        asked: the inputs, in the order in which workers began with them.
        actions: what to do with an input, by its text: `fail`, `refuse` or `die`; without one, answer.
        exposed: where secrets were seen by workers.
        hooks: how often a worker called hooks.
        loaded: how often an LLM was loaded.
        most: how many inputs were in flight at once.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holds: Callable[[str], bool] = _nothing
        self._lines: set[socket.socket] = set()
        self._loads: set[int] = set()
        self._is_open = True
        self.loaded = 0
        self.exposed: list[str] = []
        self.begin()
        self._server = socket.create_server((HOST, 0), backlog=512)
        self.port: int = self._server.getsockname()[1]
        self._start(self._accept)

    def begin(self, actions: dict[str, str] | None = None, held: Callable[[str], bool] | None = None) -> None:
        """Forget what was noted.

        Args:
            actions: what to do with inputs.
            held: says of a text whether its input waits until it is let go.
        """
        with self._changed:
            self.asked: list[Asked] = []
            self.actions = actions or {}
            self.hooks = 0
            self.most = 0
            self._holds = held or _nothing

    def wait(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Wait until something holds; return whether it does."""
        with self._changed:
            return bool(self._changed.wait_for(condition, seconds))

    def notify(self) -> None:
        """Let whoever waits look again."""
        with self._changed:
            self._changed.notify_all()

    @property
    def in_flight(self) -> list[Asked]:
        """The inputs that workers generate for."""
        return [asked for asked in tuple(self.asked) if asked.ended is None]

    @property
    def alive(self) -> int:
        """How many loaded LLMs there are, one for each process that had one."""
        return len(self._loads)

    @property
    def texts(self) -> list[str]:
        """The texts of all inputs that workers began with."""
        return [asked.text for asked in tuple(self.asked)]

    def let_go(self, some: Collection[Asked] | None = None) -> None:
        """Let inputs go that wait; by default all, and those that come."""
        with self._changed:
            if some is None:
                self._holds = _nothing
            for asked in self.asked if some is None else some:
                asked.answer()

    def close(self) -> None:
        """Close all connections."""
        with self._changed:
            self._is_open = False
            lines = tuple(self._lines)
        self.let_go()
        # A thread that waits in accept() is not woken by close() everywhere.
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self.port), 1).close()
        self._server.close()
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        threading.Thread(target=target, args=args, name=f"{THREADS}desk", daemon=True).start()

    def _accept(self) -> None:
        while self._is_open:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            self._start(self._serve, line)

    def _serve(self, line: socket.socket) -> None:
        with self._changed:
            self._lines.add(line)
        try:
            with line, line.makefile("rb") as stream, contextlib.suppress(OSError, ValueError, KeyError):
                told = json.loads(stream.readline())
                {"load": self._follow, "call": self._answer, "hook": self._note_hook}[told["event"]](
                    stream, line, told
                )
        finally:
            with self._changed:
                self._lines.discard(line)
                self._changed.notify_all()

    def _follow(self, stream: IO[bytes], line: socket.socket, told: dict[str, Any]) -> None:
        with self._changed:
            self.loaded += 1
            self.exposed += told["exposed"]
            self._loads.add(id(stream))
            self._changed.notify_all()
        try:
            line.sendall(b"\n")
            stream.readline()
        finally:
            with self._changed:
                self._loads.discard(id(stream))
                self._changed.notify_all()

    def _answer(self, stream: IO[bytes], line: socket.socket, told: dict[str, Any]) -> None:
        with self._changed:
            action = self.actions.get(told["text"], "answer")
            asked = Asked(told["text"], told["arguments"], told["process"], action, line)
            self.asked.append(asked)
            self.most = max(self.most, len(self.in_flight))
            if not self._holds(asked.text):
                asked.answer()
            self._changed.notify_all()
        ended = False
        try:
            ended = bool(stream.readline())
        finally:
            with self._changed:
                asked.ended = ended
                self._changed.notify_all()
        line.sendall(b"\n")

    def _note_hook(self, stream: IO[bytes], line: socket.socket, told: dict[str, Any]) -> None:
        with self._changed:
            self.hooks += 1


def _nothing(_: str) -> bool:
    return False
