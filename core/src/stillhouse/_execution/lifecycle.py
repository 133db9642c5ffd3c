"""`Lifecycle` and the wrappers that make every backend's `load` and `unload` idempotent."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, PrivateAttr

from stillhouse._execution.exits import ended
from stillhouse.errors import ConfigurationError

if TYPE_CHECKING:
    from stillhouse.protocols import Backends

__all__ = ["Holder", "Lifecycle", "is_wrapped", "loading", "mark", "refuse_awaitable", "unloading"]

H = TypeVar("H", bound="Holder")
F = TypeVar("F", bound=Callable[..., Any])


_MARK = "keeps_the_contract"


class Lifecycle:
    """Whether an LLM is loaded, and the lock under which that changes.

    It belongs to one object in one process: a copy and a pickle get a new one, and an LLM that is
    loaded can be neither copied nor pickled, for it holds what cannot be shared.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.loaded = False
        self.changing: Literal["", "load", "unload"] = ""
        self.registry: Backends | None = None
        self.forgotten: weakref.finalize[..., Any] | None = None  # what is done if it is never unloaded

    def fresh(self) -> Lifecycle:
        """Return the lifecycle of a copy, which is not loaded."""
        if self.loaded:
            raise TypeError(
                "a loaded LLM can be neither pickled nor copied: it holds connections, threads or a "
                "model; call unload() first, and load() on the other side"
            )
        lifecycle = Lifecycle()
        lifecycle.registry = self.registry
        return lifecycle

    def __reduce__(self) -> tuple[type[Lifecycle], tuple[()]]:
        self.fresh()
        return Lifecycle, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Lifecycle:
        return self.fresh()


class Holder(BaseModel):
    """The base of LLMs and mixins that hold something between `load` and `unload`.

    With it, an LLM and its mixins may stand among the bases in either order.
    """

    _lifecycle: Lifecycle = PrivateAttr(default_factory=Lifecycle)

    def load(self) -> None:
        """Acquire nothing."""

    def unload(self) -> None:
        """Release nothing."""

    def _acquire(self) -> None:
        """Acquire what the contract itself needs, whatever a backend's `load` calls."""

    def _check_releasable(self) -> None:
        """Raise an error if it cannot be unloaded now, in this thread."""

    def _release(self) -> None:
        """Release what `_acquire` acquired."""


def is_wrapped(function: Callable[..., Any]) -> bool:
    """Whether a method is one that the contract's wrappers made."""
    return getattr(function, _MARK, False)


_PACKAGE = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120  -- this module is imported by all

_warned: dict[Any, Any] = {}
"""Python's registry of given warnings, so that each place is reported once."""


def _place() -> tuple[str, int]:
    """Return where the code outside of this package is that loads an LLM now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return ("sys", 1) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def _left_loaded(reference: weakref.ref[Holder], name: str, place: tuple[str, int], pid: int) -> None:
    """When an LLM that is loaded is collected, or the interpreter ends: say so, and unload what is there.

    Python calls it before whatever the LLM acquired is ended by itself.
    """
    if os.getpid() != pid:  # a fork, which has neither its threads nor its connections
        return
    llm = reference()
    if llm is not None:
        with contextlib.suppress(Exception):
            llm.unload()
    text = f"{name} was loaded here and not unloaded: call unload(), or use it as: with llm: …"
    warnings.warn_explicit(text, ResourceWarning, *place, registry=_warned)


def mark(function: F) -> F:
    """Mark a method that a wrapper made, so that a subclass leaves it as it is."""
    setattr(function, _MARK, True)
    return function


def refuse_awaitable(result: object, owner: object, member: str, hint: str) -> None:
    """Refuse what a member of a backend returned if it waits to be awaited, which nobody does.

    Raises:
        ConfigurationError: the member is a coroutine, and must not be.
    """
    if result is None or not inspect.isawaitable(result):
        return
    if inspect.iscoroutine(result):
        result.close()  # else Python warns, later and elsewhere, that it was never awaited
    name = f"{type(owner).__name__}.{member}"
    raise ConfigurationError(f"{name} must not be a coroutine: nobody awaits it", hint=hint)


_PLAIN = (
    "write it as def {}(self), and run what must be awaited with self.run_on_loop(coroutine) of an AsyncLLM"
)


def _change(function: Callable[[H], None], holder: H, member: str) -> None:
    """Call a backend's `load` or `unload`, which must have done its work when it returns.

    What it raises to end the program, such as `SystemExit`, is an error like any other.
    """
    try:
        result: object = function(holder)  # type: ignore[func-returns-value]
    except BaseException as error:
        raise ended(error, f"{type(holder).__name__}.{member}")  # noqa: B904  -- it is itself, or has a cause
    refuse_awaitable(result, holder, member, _PLAIN.format(member))


def loading(function: Callable[[H], None]) -> Callable[[H], None]:
    """Make a `load` idempotent and safe from several threads; a failed one leaves nothing behind.

    A call on a loaded LLM does nothing; the calls of `super().load()` inside the first one pass.
    """

    @functools.wraps(function)
    def load(self: H) -> None:
        lifecycle = self._lifecycle
        with lifecycle.lock:
            if lifecycle.changing == "load":
                _change(function, self, "load")
                return
            if lifecycle.loaded:
                return
            lifecycle.changing = "load"
            try:
                _change(function, self, "load")
                self._acquire()
            except BaseException:
                lifecycle.changing = ""
                lifecycle.loaded = True
                with contextlib.suppress(Exception):  # it may have got no further than halfway
                    self.unload()
                raise
            finally:
                lifecycle.changing = ""
            lifecycle.loaded = True
            lifecycle.forgotten = weakref.finalize(
                self, _left_loaded, weakref.ref(self), type(self).__name__, _place(), os.getpid()
            )

    return mark(load)


def unloading(function: Callable[[H], None]) -> Callable[[H], None]:
    """Make an `unload` idempotent; what the contract itself holds is released even if it raises."""

    @functools.wraps(function)
    def unload(self: H) -> None:
        lifecycle = self._lifecycle
        with lifecycle.lock:
            if lifecycle.changing == "unload":
                _change(function, self, "unload")
                return
            if not lifecycle.loaded:
                return
            self._check_releasable()
            lifecycle.changing = "unload"
            try:
                _change(function, self, "unload")
            finally:
                try:
                    self._release()
                finally:
                    lifecycle.changing = ""
                    lifecycle.loaded = False
                    if lifecycle.forgotten is not None:
                        lifecycle.forgotten.detach()
                        lifecycle.forgotten = None

    return mark(unload)
