"""`RayActor`: what Ray runs on a node: it passes messages between the process of the run and a `Worker`.

Ray gets this class by value: a node without this package, or with another version of Stillhouse, can still
answer what it has. So the module imports the standard library alone, and the rest where it is used.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import sys
import threading
from importlib import metadata
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any

__all__ = ["METHODS", "OVER", "SILENT", "RayActor"]

OVER = b""
"""What follows the last message of a worker."""

GIVE_SECONDS = 0.02
"""How far the messages of a busy worker are apart at least: a call costs Ray as much as several rows."""

METHODS = {"in": ("about", "begin", "take", "interrupt"), "out": ("give",)}
"""The methods of Ray's groups of threads. Each group has one thread, so that messages keep their order."""

SILENT = frozenset({"take", "interrupt"})
"""The methods whose end nobody waits for: Ray keeps no account of what they return."""


class RayActor:
    """An actor. The LLM reaches it by a call, so that it is in no record that Ray keeps of actors."""

    def __init__(self) -> None:
        self._outbox: SimpleQueue[bytes] = SimpleQueue()
        self._gave = 0.0
        self._worker: Any = None
        self._thread: threading.Thread | None = None

    def about(self, distributions: list[str]) -> dict[str, Any]:
        """Return what this worker is.

        Args:
            distributions: the packages whose versions are wanted.

        Returns:
            `python`, its version; `node`, the name of the machine; `process`; `versions` of those packages
            that are installed.
        """
        versions = {}
        for name in distributions:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return {
            "python": platform.python_version(),
            "executable": sys.executable,
            "node": socket.gethostname(),
            "process": os.getpid(),
            "versions": versions,
        }

    def begin(self, setup: bytes, environment: dict[str, str]) -> None:
        """Begin to work, in a thread of its own.

        Args:
            setup: a packed `Setup`.
            environment: variables for this process.
        """
        from stillhouse.jobs.executors import Worker, packed

        os.environ.update(environment)
        self._worker = Worker(lambda message: self._outbox.put(packed(message)))
        self._thread = threading.Thread(
            target=self._run, args=(setup,), name="stillhouse-worker", daemon=True
        )
        self._thread.start()

    def take(self, content: bytes) -> None:
        """Take a packed message."""
        from stillhouse.jobs.executors import unpacked

        try:
            message = unpacked(content)
        except MemoryError:
            os._exit(1)
        except Exception as error:  # such as an input of a class that this node does not have
            self._worker.fail(error)
        else:
            self._worker.take(message)

    def give(self) -> list[bytes]:
        """Wait for messages, and return all that are there; `OVER` is the last one."""
        found = [self._outbox.get()]
        sleep(max(0.0, self._gave + GIVE_SECONDS - monotonic()))
        try:
            while True:
                found.append(self._outbox.get_nowait())
        except Empty:
            self._gave = monotonic()
            return found

    def interrupt(self) -> None:
        """Cancel what is in flight."""
        thread = self._thread
        if thread is not None and thread.ident is not None and thread.is_alive():
            interrupt = ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), interrupt)

    def _run(self, setup: bytes) -> None:
        from stillhouse.jobs.executors import unpacked

        try:
            self._worker.run(unpacked(setup))
        except KeyboardInterrupt:
            pass
        except MemoryError:  # it is that of the process, not of one row
            os._exit(1)
        finally:
            self._outbox.put(OVER)
