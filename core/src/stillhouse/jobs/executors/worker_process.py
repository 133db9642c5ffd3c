"""The main program of a worker that is a process: messages come and go by its standard streams."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import IO, Any

__all__ = ["OUT_OF_MEMORY", "UNLOAD_SECONDS", "main"]

END_SECONDS = 10.0
"""How long a worker may take to end once the process of the run is gone."""

UNLOAD_SECONDS = 60.0
"""How long it may take to unload its LLM, after `Quit`."""

LINGER_SECONDS = 5.0
"""How long threads of the backend that are left may keep it from ending."""

OUT_OF_MEMORY = 112
"""The status of a worker that had too little memory for anything but a row, which would fail alone."""


def main() -> None:
    """Work for the process that started this one, and end with it."""
    reads, writes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # Whatever prints here, a library in C too, prints to standard error, and reads nothing.
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - its descriptor is what is wanted
        os.dup2(nothing.fileno(), 0)
    from stillhouse.jobs.executors.wire import packed, read_message, write_packed
    from stillhouse.jobs.executors.worker import Worker

    lock = threading.Lock()

    def send(message: Any) -> None:
        content = packed(message)
        try:
            with lock:
                write_packed(writes, content)
        except OSError:
            raise KeyboardInterrupt from None  # nobody is there any more

    try:
        setup = read_message(reads)
    except EOFError:
        return
    worker = Worker(send)
    threading.Thread(target=_read_all, args=(reads, worker), name="stillhouse-messages", daemon=True).start()
    try:
        worker.run(setup)
    except KeyboardInterrupt:
        sys.exit(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    finally:
        _end_in(LINGER_SECONDS)


def _read_all(reads: IO[bytes], worker: Any) -> None:
    """Give the worker its messages; when there will be no more, end it."""
    from stillhouse.jobs.executors.messages import Quit
    from stillhouse.jobs.executors.wire import read_message

    message, seconds = None, UNLOAD_SECONDS
    while not isinstance(message, Quit):
        try:
            message = read_message(reads)
        except (EOFError, OSError):
            message, seconds = Quit(), END_SECONDS
        except MemoryError:  # the next message may find more, but this one is lost
            os._exit(OUT_OF_MEMORY)
        except Exception as error:  # what was sent cannot be read here, such as a class of the user's script
            worker.fail(error)
            message = Quit()
        worker.take(message)
    _end_in(seconds)
    if worker.is_generating:
        _interrupt()


def _end_in(seconds: float) -> None:
    """End this process after a while, whatever it does."""
    watch = threading.Timer(seconds, os._exit, (1,))
    watch.daemon = True
    watch.start()


def _interrupt() -> None:
    main_thread = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main_thread is not None:
        signal.pthread_kill(main_thread, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()
