"""The engine's thread, from its beginning to its very end.

MLX keeps things for each thread, and frees them in the thread when that ends; for this it needs the
interpreter. If that is ending itself by then, the whole process is aborted. So whoever ends the thread waits
until nothing of it is left, and no thread outlives the beginning of the interpreter's end.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import weakref
from pathlib import Path

from stillhouse.local import EngineWorker, Generation
from stillhouse.typing import GenerateOutput
from stillhouse_mlx.engine import Engine, Settings
from stillhouse_mlx.library import Library
from stillhouse_mlx.serving import serve

__all__ = ["Runner"]

# Where Linux lists the threads of a process.
_TASKS = Path("/proc/self/task")

# Seconds within which a thread that has nothing more to do is gone. Longer than that, what is seen is
# another thread with the same number.
_GONE = 5.0


class Runner(EngineWorker[Engine, Generation, GenerateOutput]):
    """A model in a thread of its own.

    Args:
        library: the library.
        settings: fields of the LLM.

    Raises:
        ConfigurationError: as for `Engine`.
    """

    def __init__(self, library: Library, settings: Settings) -> None:
        self._process = os.getpid()
        self._opened: list[Engine] = []
        mine: list[threading.Thread] = []

        def open() -> Engine:
            mine.append(threading.current_thread())
            _threads.add(mine[0])
            engine = Engine(library, settings)
            self._opened.append(engine)
            return engine

        try:
            super().__init__(open, serve, "stillhouse-mlx")
        except BaseException:
            for thread in mine:
                _wait_for_end(thread)
            raise
        self._thread = mine[0]
        _running.add(self)

    def take_engine(self) -> Engine:
        """Return the loaded model, once. Its methods are the thread's."""
        return self._opened.pop()

    def close(self) -> None:
        """End the calls under way and the thread."""
        if self._process != os.getpid():  # the thread is in the other process
            return
        super().close()
        _wait_for_end(self._thread)
        _running.discard(self)


def _wait_for_end(thread: threading.Thread, seconds: float | None = None) -> None:
    """Wait until a thread has ended for the operating system, too.

    Before Python 3.13, a thread can be joined while it still has things to free.

    Args:
        thread: the thread. In a process that was forked since, it has ended.
        seconds: how long to wait for the thread itself.
    """
    thread.join(seconds)
    until = time.monotonic() + _GONE
    while sys.version_info < (3, 13) and _is_left(thread) and time.monotonic() < until:
        time.sleep(0.001)  # the system has no event for that
    _threads.discard(thread)


def _is_left(thread: threading.Thread) -> bool:
    if _TASKS.is_dir():
        return (_TASKS / str(thread.native_id)).exists()
    try:
        signal.pthread_kill(thread.ident or 0, 0)
    except OSError:
        return False
    return True


_running: weakref.WeakSet[Runner] = weakref.WeakSet()
_threads: set[threading.Thread] = set()


@atexit.register
def _close_all() -> None:
    for runner in list(_running):
        runner.close()
    for thread in list(_threads):  # of runners that were forgotten unclosed, and end by themselves
        _wait_for_end(thread, _GONE)
