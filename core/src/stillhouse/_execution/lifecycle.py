"""`Lifecycle` and the wrappers that make every backend's `load` and `unload` idempotent."""

from __future__ import annotations

import atexit
import contextlib
import functools
import inspect
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, PrivateAttr

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


# By id, for pydantic models define equality by value and so have no hash.
_loaded: dict[int, weakref.ref[Holder]] = {}


@atexit.register
def _unload_all() -> None:
    for reference in list(_loaded.values()):
        llm = reference()
        if llm is not None:
            with contextlib.suppress(Exception):
                llm.unload()


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
    """Call a backend's `load` or `unload`, which must have done its work when it returns."""
    refuse_awaitable(function(holder), holder, member, _PLAIN.format(member))  # type: ignore[func-returns-value]


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
            key = id(self)
            _loaded[key] = weakref.ref(self, lambda _: _loaded.pop(key, None))

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
                    _loaded.pop(id(self), None)

    return mark(unload)
