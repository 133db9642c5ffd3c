"""What runs first in each process of the engine, instead of the user's script.

Python runs the main script again in every process that it spawns, so that objects of its classes can be
read there. The engine needs none of them, and a script without `if __name__ == "__main__"` would start
another engine; so this file takes its place. It is run by its path, and imports nothing but the standard
library, since what it does must be done before anything heavy is imported.
"""

import json
import multiprocessing.resource_tracker
import os
import select
import signal
import sys
import threading
import time
from typing import Any

MARK = "stillhouse-vllm:"
"""What the argument begins with that tells a process of the engine what to do."""

_POLL_SECONDS = 0.5


def begin() -> None:
    """Do what the argument says, and end with the parent, whatever it dies of."""
    settings = {"parent": os.getppid()}
    if sys.argv[-1:] and sys.argv[-1].startswith(MARK):
        settings = json.loads(sys.argv.pop().removeprefix(MARK))
    output = settings.get("output")
    if output is not None:
        # Also what libraries in C print. Standard output is the rows of `stillhouse generate`.
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        _track_alone()
    threading.Thread(target=_end_with, args=(settings["parent"],), name="parent-watch", daemon=True).start()


def _track_alone() -> None:
    """Let what looks after this engine's shared memory be its own, and not that of the user's process.

    It releases what a killed engine leaves as soon as that is dead, not when the user's process ends; and
    what it says of that is printed here, not on the user's terminal.
    """
    tracker: Any = multiprocessing.resource_tracker._resource_tracker
    descriptor, tracker._fd = tracker._fd, None
    if descriptor is not None:
        os.close(descriptor)
    # Python unblocks SIGINT when it starts a tracker. An interrupt at the terminal is for the user's process,
    # which lets what is in hand end; an engine that took it too would fail those rows.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _end_with(parent: int) -> None:
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(1)
    except (AttributeError, OSError):  # not Linux, or an old one
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(1)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
    os._exit(1)


if __name__ == "__mp_main__":
    begin()
