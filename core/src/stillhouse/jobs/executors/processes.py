"""`processes`: workers that are processes on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from queue import SimpleQueue
from typing import Any

from stillhouse._execution.loop_thread import WAIT_SECONDS
from stillhouse.errors import described
from stillhouse.jobs.executors.messages import Died, Setup
from stillhouse.jobs.executors.wire import packed, read_message, write_packed
from stillhouse.jobs.executors.worker_process import OUT_OF_MEMORY
from stillhouse.jobs.executors.workers import Deliver, WorkerHandle

__all__ = ["ProcessWorker"]

END_SECONDS = 60.0
"""How long a worker may take to unload its LLM."""

INTERRUPT_SECONDS = 5.0
"""How long it may take to cancel what it does."""

# The user's script is not run again, and the working folder is not searched for modules, unless this process
# does that too.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from stillhouse.jobs.executors.worker_process import main; main()"
)


class ProcessWorker(WorkerHandle):
    """A worker process.

    It is in a group of its own: an interrupt at the terminal reaches the process of the run alone, which lets
    what is in flight end. The worker ends with that process, whatever it dies of.

    Args:
        setup: what it needs to begin.
        deliver: takes what it says.
    """

    def __init__(self, setup: Setup, deliver: Deliver) -> None:
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109 - a text among texts
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, *flags, "-P", "-c", _PROGRAM, json.dumps(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.name = f"process {self._process.pid}"
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._outbox.put(packed(setup))
        self._deliver = deliver
        self._threads = [
            threading.Thread(target=target, name=f"stillhouse-{self.name}", daemon=True)
            for target in (self._write_all, self._read_all)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, message: Any) -> None:
        self._outbox.put(packed(message))

    def close(self, *, at_once: bool) -> None:
        self._outbox.put(None)
        try:
            self._process.wait(INTERRUPT_SECONDS if at_once else END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(WAIT_SECONDS)

    def _write_all(self) -> None:
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(OSError), stream:  # if it is dead, its reader says so
            while (content := self._outbox.get()) is not None:
                write_packed(stream, content)

    def _read_all(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        unread = ""
        with stream:
            try:
                while True:
                    self._deliver(read_message(stream))
            except (EOFError, OSError):
                pass
            except Exception as error:  # nothing that follows can be read
                unread = f"what it said cannot be read: {described(error)}"
                self._process.kill()
        reason = _reason(self._process.wait())
        self._deliver(Died(unread or reason))


def _reason(status: int) -> str:
    """Say how a process ended."""
    if status == OUT_OF_MEMORY:
        return "it ran out of memory"
    if status >= 0:
        return f"it ended with status {status}"
    try:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (
            ", as the system does when memory runs out" if name == "SIGKILL" else ""
        )
    except ValueError:
        return f"killed by signal {-status}"
