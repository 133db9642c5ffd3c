"""`processes`: workers that are processes on this machine."""

from __future__ import annotations

import contextlib
import errno
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
from stillhouse.jobs.executors.worker_process import OUT_OF_MEMORY, UNLOAD_SECONDS
from stillhouse.jobs.executors.workers import Deliver, WorkerHandle

__all__ = ["ProcessWorker"]

INTERRUPT_SECONDS = 5.0
"""How long a worker may take to cancel what it does."""

LAST_SECONDS = 10.0
"""How long its end and the end of what it says may lie apart."""

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
        self._lock = threading.Lock()
        self._gone = threading.Event()
        self._unread = ""
        self._threads = [
            threading.Thread(target=target, name=f"stillhouse-{self.name}", daemon=True)
            for target in (self._write_all, self._read_all, self._watch)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:  # the system has no room for a thread
            self._process.kill()
            raise BlockingIOError(errno.EAGAIN, str(error)) from error

    def send(self, message: Any) -> None:
        self._outbox.put(packed(message))

    def close(self, *, at_once: bool) -> None:
        self._outbox.put(None)
        if not self._gone.wait(INTERRUPT_SECONDS if at_once else UNLOAD_SECONDS):
            self._process.kill()
            self._gone.wait(INTERRUPT_SECONDS)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(WAIT_SECONDS)

    def _write_all(self) -> None:
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(OSError), stream:  # if it is dead, its watcher says so
            while (content := self._outbox.get()) is not None:
                write_packed(stream, content)

    def _read_all(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream:
            try:
                while self._say(read_message(stream)):
                    pass
            except (EOFError, OSError):
                pass
            except Exception as error:  # nothing that follows can be read
                self._unread = f"its message cannot be read: {described(error)}"
                self._process.kill()
            if not self._gone.wait(LAST_SECONDS):  # it has closed its end, and lives
                self._process.kill()

    def _say(self, message: Any) -> bool:
        """Deliver a message, unless the worker is taken for dead."""
        with self._lock:
            if self._deliver is _nobody:
                return False
            self._deliver(message)
            return True

    def _watch(self) -> None:
        """Say when the process is gone. Its end of the pipe says less: what it forked has that too."""
        if _died(self._process.pid):
            # Else they keep what it had, such as the memory of a GPU, from the worker that replaces it.
            with contextlib.suppress(OSError, AttributeError):
                os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        self._gone.set()
        self._threads[1].join(LAST_SECONDS)  # what it said last
        with self._lock:
            deliver, self._deliver = self._deliver, _nobody
            deliver(Died(self._unread or _reason(status)))


def _nobody(message: Any) -> None:
    """Take no message: the last one was delivered."""


def _died(process: int) -> bool:
    """Wait until a process is gone, and return whether it did not end by itself.

    It keeps its number, so that no other process can have that of its group.
    """
    if not hasattr(os, "waitid"):
        return False
    try:
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:  # somebody has waited for it
        return False
    return ended is not None and (ended.si_code != os.CLD_EXITED or ended.si_status != 0)


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
