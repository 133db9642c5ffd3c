"""What the engine logs, and what its processes print."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterable

__all__ = ["Output", "loud", "quiet"]

_KEPT_LINES = 400

# `ValueError: …`, be it a line of a traceback or in a line of a log.
_EXCEPTION = re.compile(
    r"(?:^|\s)((?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit)|Exception): .+)$"
)

# What ends a process without an exception of Python: one of C++, the interpreter itself, a signal to one
# of several processes.
_WITHOUT_EXCEPTION = re.compile(
    r"(?:^\s*what\(\):\s+(.+)|^(Fatal Python error: .+)|(Worker proc \S+ died unexpectedly(?: \(.*?\))?))"
)

# The engine says these of its own processes, and what they died of stands further up.
_OF_ANOTHER = re.compile(
    r"Engine core initialization failed|initialization failed due to an exception in a background"
    r"|See (?:root cause|stack trace)|EngineDeadError|cancelled|Bad file descriptor"
)


class _Bridge(logging.Handler):
    """Hands on what the engine logs in this process: to our own logger, or to standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.loud = 0

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f" {record.exc_info[1]!r}"
        if self.loud:
            print(f"vllm: {message}", file=sys.stderr)  # noqa: T201
        logging.getLogger("stillhouse.vllm").debug("%s", message)


_bridge = _Bridge()
_lock = threading.Lock()
_users = 0
_before: tuple[list[logging.Handler], bool] = ([], True)


def quiet(verbose: bool) -> None:
    """Take what the engine logs in this process, until `loud` was called as often."""
    global _users, _before
    logger = logging.getLogger("vllm")
    with _lock:
        if not _users:
            _before = (list(logger.handlers), logger.propagate)
            logger.handlers[:], logger.propagate = [_bridge], False
        _users += 1
        _bridge.loud += verbose


def loud(verbose: bool) -> None:
    """Put the engine's logger back as it was."""
    global _users
    logger = logging.getLogger("vllm")
    with _lock:
        _users -= 1
        _bridge.loud -= verbose
        if not _users:
            logger.handlers[:], logger.propagate = _before


class Output:
    """What the processes of an engine print, of which the last lines are kept.

    Attributes:
        descriptor: where they write.

    Args:
        verbose: whether it goes to standard error, too.
    """

    def __init__(self, verbose: bool) -> None:
        read, self.descriptor = os.pipe()
        self._is_open = True
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._thread = threading.Thread(
            target=_read, args=(read, self._lines, verbose), name="stillhouse-vllm-output", daemon=True
        )
        self._thread.start()

    def hand_over(self) -> None:
        """Close it in this process: the reading ends when the last process of the engine has ended."""
        if self._is_open:
            self._is_open = False
            os.close(self.descriptor)

    def wait(self, seconds: float) -> None:
        """Wait until all is read, which is when the engine's processes have ended."""
        self._thread.join(seconds)

    def reason(self) -> str:
        """Why an engine ended, in its own words; empty if it did not say."""
        lines = list(self._lines)
        raised, mentioned = _exceptions(lines)
        own = [line for line in raised if not _OF_ANOTHER.search(line)]
        ends = filter(None, map(_WITHOUT_EXCEPTION.search, lines))
        without = [match[match.lastindex or 0] for match in ends]
        return (own or without or raised or mentioned or [""])[0]


def _exceptions(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """The exceptions that end a traceback, and those that a line only mentions, as a warning does."""
    raised: list[str] = []
    mentioned: list[str] = []
    is_traceback = False
    for line in lines:
        if "Traceback (most recent call last)" in line:
            is_traceback = True
        elif match := _EXCEPTION.search(line):
            (raised if is_traceback else mentioned).append(match[1])
            is_traceback = False
    return raised, mentioned


def _read(descriptor: int, lines: deque[str], verbose: bool) -> None:
    with open(descriptor, encoding="utf-8", errors="replace", newline=None) as stream:
        for line in stream:
            line = line.rstrip()
            if line:
                lines.append(line[-2000:])
                if verbose and sys.stderr is not None:
                    print(line, file=sys.stderr)  # noqa: T201
