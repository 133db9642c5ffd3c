"""`OneWarning`: of all that OpenTelemetry's SDK logs about an export, the first problem is said, once."""

from __future__ import annotations

import logging
import re
import threading

__all__ = ["OneWarning", "cleaned", "logger"]

logger = logging.getLogger("stillhouse.otel")

_CREDENTIALS = re.compile(r"//[^/@\s]+@")

MAX_CHARACTERS = 300


def cleaned(text: str) -> str:
    """Return a text that a server may have had a hand in: on one line, bounded, without credentials."""
    line = "".join(character if character.isprintable() else " " for character in text[: 2 * MAX_CHARACTERS])
    return _CREDENTIALS.sub("//***@", line)[:MAX_CHARACTERS]


class OneWarning:
    """Says the first problem of an export, and that further ones are not reported.

    The SDK logs each failed export, which over a long run is hundreds of lines.
    """

    def __init__(self) -> None:
        self._has_said = False

    def open(self) -> None:
        """Begin to listen to what the SDK logs."""
        _listener.add(self)

    def close(self) -> None:
        """End to listen."""
        _listener.remove(self)

    def say(self, problem: str) -> None:
        """Report a problem, if none was reported."""
        if not self._has_said:
            self._has_said = True
            logger.warning(
                "telemetry is incomplete: %s; the run continues, and further problems of the export are not "
                "reported",
                cleaned(problem),
            )


class _Listener(logging.Handler):
    """Takes what is logged below `opentelemetry`, unless the program has configured that logger."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._warnings: list[OneWarning] = []

    def add(self, warning: OneWarning) -> None:
        theirs = logging.getLogger("opentelemetry")
        with _lock:
            self._warnings.append(warning)
            if not theirs.handlers and theirs.propagate and theirs.level == logging.NOTSET:
                theirs.addHandler(self)
                theirs.propagate = False

    def remove(self, warning: OneWarning) -> None:
        theirs = logging.getLogger("opentelemetry")
        with _lock:
            self._warnings.remove(warning)
            if not self._warnings and self in theirs.handlers:
                theirs.removeHandler(self)
                theirs.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        for warning in self._warnings[-1:]:
            warning.say(record.getMessage())


_lock = threading.Lock()
_listener = _Listener()
