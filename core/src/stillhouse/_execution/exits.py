"""What code of others raises to end the program: of a plugin, it is an error like any other."""

from __future__ import annotations

import dis
import signal
from types import TracebackType

from stillhouse.errors import described

__all__ = ["ended", "is_from_signal"]

_RAISES = {dis.opmap["RAISE_VARARGS"], dis.opmap["RERAISE"]}


def ended(error: BaseException, what: str) -> BaseException:
    """Return what a call of others' code is to raise: an error, where it would have ended the program.

    Args:
        error: what the call raised.
        what: names the call, as `EchoLLM.load`.
    """
    if isinstance(error, Exception) or is_from_signal(error):
        return error
    wrapped = RuntimeError(f"{what} raised {described(error)}")
    wrapped.__cause__ = error
    return wrapped


def is_from_signal(error: BaseException) -> bool:
    """Return whether a signal's handler raised an exception, wherever the program was at that moment.

    `SystemExit`, `KeyboardInterrupt` and other exceptions that are no `Exception` may also be raised by the
    code itself. A handler in Python is among the frames. Python's own for SIGINT has no frame: its exception
    comes out of an instruction that raises none.
    """
    if isinstance(error, Exception):
        return False
    last: TracebackType | None = error.__traceback__
    codes = set()
    while last is not None:
        codes.add(last.tb_frame.f_code)
        if last.tb_next is None:
            break
        last = last.tb_next
    if codes & {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}:
        return True
    if not isinstance(error, KeyboardInterrupt) or last is None:
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] not in _RAISES
