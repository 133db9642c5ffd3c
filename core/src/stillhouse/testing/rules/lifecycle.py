"""`LifecycleRules`: loading, unloading, and what is left behind."""

from __future__ import annotations

import contextlib
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.llm import LLM
from stillhouse.testing.base import Conformance
from stillhouse.testing.printed import printed
from stillhouse.testing.rule import Broken, expect, rule, said

__all__ = ["LifecycleRules"]

_END_SECONDS = 5.0


class LifecycleRules(Conformance):
    """What `load` acquires, `unload` releases; nothing else is touched."""

    @rule
    def test_c25_making_one_acquires_nothing(self) -> None:
        """A new LLM is not loaded, holds no thread, and has opened no connection.

        Why: LLMs are made to be listed, saved and checked, where no server and no GPU is.

        Fix: move it from `__init__`, `model_post_init` and default factories to `load()`.
        """
        before = set(threading.enumerate())
        with _no_connections() as attempts:
            llm = self.make()
        expect(not attempts, "making it opened a connection")
        expect(not llm.is_loaded, "make() returned a loaded LLM, or it loads itself")
        started = [thread.name for thread in threading.enumerate() if thread not in before]
        expect(not started, f"making it started threads: {started}")

    @rule(after="C25")
    def test_c20_loading_and_unloading_twice_is_harmless(self) -> None:
        """`load()` on a loaded LLM, and `unload()` on one that is not, do nothing.

        Why: a runner, a context manager and a user in a notebook may each call them.

        Fix: define `load` and `unload` as methods of the class, so that the contract can wrap them.
        """
        llm = self.new()
        llm.unload()
        self._stack.callback(_unload, llm)
        llm.load()
        llm.load()
        expect(llm.is_loaded, "after load() twice it is not loaded")
        self.ask(llm, self.inputs(1))
        llm.unload()
        llm.unload()
        expect(not llm.is_loaded, "after unload() it is still loaded")

    @rule
    def test_c21_it_loads_again_after_unloading(self) -> None:
        """load → unload → load works, and generates again.

        Why: memory of a model is given back between two runs of one process.

        Fix: make in `load` all that `unload` closes; keep nothing closed in an attribute.
        """
        llm = self.loaded()
        self.ask(llm, self.inputs(1))
        llm.unload()
        llm.load()
        self.ask(llm, self.inputs(1))

    @rule
    def test_c22_a_with_statement_loads_and_unloads(self) -> None:
        """`with llm:` loads at its beginning and unloads at its end, also after an error.

        Why: it is how everybody uses an LLM in a script.

        Fix: do not override `__enter__` and `__exit__`, or call `super()`'s and return the LLM.
        """
        llm = self.new()
        self._stack.callback(_unload, llm)
        with contextlib.suppress(KeyError), llm as entered:
            expect(entered is llm, "`with llm as name` gives something other than the LLM")
            expect(llm.is_loaded, "inside the with statement it is not loaded")
            raise KeyError
        expect(not llm.is_loaded, "after the with statement it is still loaded")

    @rule(after="C25")
    def test_c23_what_is_not_loaded_says_so(self) -> None:
        """Generating with an LLM that is not loaded is a `ConfigurationError`, before anything happens.

        Why: an `AttributeError` of some `None` inside a backend helps nobody.

        Fix: do not override `require_loaded`; call `super().generate_outputs(…)` where you override that.
        """
        llm = self.new()
        calls: dict[str, Callable[[], Any]] = {
            "generate_outputs": lambda: self.ask(llm, self.inputs(1)),
            "iter_outputs": lambda: list(llm.iter_outputs(self.inputs(1), **self.given())),
        }
        self._stack.callback(_unload, llm)
        for name, call in calls.items():
            try:
                call()
            except ConfigurationError as error:
                expect("load" in str(error), f"the error of {name} says nothing of load(): {said(error)}")
            else:
                raise Broken(f"{name} generated without load()")

    @rule
    def test_c24_the_model_name_is_known_unloaded(self) -> None:
        """`model_name` is a text, on an LLM that is not loaded and on one that is; reading it opens no
        connection.

        Why: it is read for every listing, log line and row of a file.

        Fix: return a field, or a name derived from one.
        """
        llm = self.new()
        with _no_connections() as attempts:
            name = llm.model_name
        expect(isinstance(name, str) and name, f"model_name is {name!r}")
        expect(not attempts, "reading model_name opened a connection")
        loaded = self.shared()
        expect(isinstance(loaded.model_name, str), f"once loaded, model_name is {loaded.model_name!r}")
        logger = loaded._logger
        expected = f"stillhouse.llm.{loaded.model_name}"
        expect(
            logger is not None and logger.name == expected,
            f"after load() the logger is {logger.name if logger else None}, not {expected}",
        )

    @rule(after="C25")
    def test_c26_an_unloaded_one_pickles(self) -> None:
        """An LLM that is not loaded pickles, and comes back equal; also after it was loaded once.

        Why: a runner on many machines sends it to each of them.

        Fix: release in `unload()` what does not pickle, setting the attribute to `None`; define the
        class at the top of a module.
        """
        llm = self.new()
        copies = [pickle.loads(pickle.dumps(llm))]  # noqa: S301
        llm.load()
        try:
            self.ask(llm, self.inputs(1))
        finally:
            llm.unload()
        copies.append(pickle.loads(pickle.dumps(llm)))  # noqa: S301
        for copy in copies:
            expect(copy == llm, "what comes out of the pickle is not equal to what went in")
            expect(not copy.is_loaded, "what comes out of the pickle says that it is loaded")

    @rule(after="C02")
    def test_c27_unloading_leaves_no_thread_behind(self) -> None:
        """After `unload()` every thread that it started has ended.

        Why: what runs on holds memory and connections, and keeps processes from ending.

        Fix: stop your threads in `unload()` and join them; shut executors down with `wait=True`.
        """
        before = set(threading.enumerate())
        llm = self.loaded()
        self.ask(llm)
        llm.unload()
        left = [thread for thread in threading.enumerate() if thread not in before]
        for thread in left:
            thread.join(_END_SECONDS)
        names = sorted(thread.name for thread in left if thread.is_alive())
        expect(not names, f"still running after unload(): {names}")

    @rule
    def test_c28_nothing_global_is_changed(self) -> None:
        """Environment, event loops, logging, signals and the working folder are not changed.

        Why: a library that sets any of these changes what other code in the process does.

        Fix: pass settings to the client or the engine itself; never write to `os.environ`, never
        call `asyncio.set_event_loop`, `logging.basicConfig` or `nest_asyncio.apply`.
        """
        self.ask(self.loaded(), self.inputs(1))
        expect(not self.changed, f"changed while it was loaded or used: {', '.join(sorted(self.changed))}")

    @rule(after="C02", since="0.2")
    def test_c29_nothing_is_printed(self) -> None:
        """Loading, generating and unloading write nothing to standard output.

        Why: what is printed there ends up among the rows of `stillhouse generate -o -`.

        Fix: take out what prints; say it with `self._logger`; ask a library to be quiet, or to write to
        standard error.
        """
        llm = self.new()
        self._stack.callback(_unload, llm)
        with printed() as found:
            llm.load()
            self.ask(llm)
            with contextlib.suppress(GenerationError):
                self.ask(llm, self.inputs(1), num_generations=2)
            llm.unload()
        expect(not found, f"it printed {''.join(found)[:200]!r}")

    @rule(after="C25", since="0.2")
    def test_c52_loading_and_unloading_call_super(self) -> None:
        """`load()` calls `super().load()`, and `unload()` calls `super().unload()`.

        Why: the contract and every mixin acquire and release there: a GPU stays taken, say.

        Fix: call `super().load()` in `load`, and `super().unload()` at the end of `unload`.
        """
        llm = self.new()
        self._stack.callback(_unload, llm)
        with _calls_of("load") as loads, _calls_of("unload") as unloads:
            llm.load()
            expect(llm in loads, "load() does not call super().load()")
            llm.unload()
            expect(llm in unloads, "unload() does not call super().unload()")


def _unload(llm: Any) -> None:
    with contextlib.suppress(Exception):
        llm.unload()


class _Calls(list[Any]):
    def __contains__(self, llm: object) -> bool:
        return any(item is llm for item in self)


@contextlib.contextmanager
def _calls_of(name: str) -> Iterator[_Calls]:
    """Note which LLMs a method of the contract itself is called for."""
    calls, original = _Calls(), getattr(LLM, name)

    def noted(self: LLM) -> None:
        calls.append(self)
        original(self)

    setattr(LLM, name, noted)
    try:
        yield calls
    finally:
        setattr(LLM, name, original)


@contextlib.contextmanager
def _no_connections() -> Iterator[list[Any]]:
    """Refuse connections from here on, and count the attempts."""
    attempts: list[Any] = []

    def refuse(_: Any, address: Any) -> Any:
        attempts.append(address)
        raise OSError("the conformance kit allows no connection here")

    real = socket.socket.connect, socket.socket.connect_ex
    socket.socket.connect = socket.socket.connect_ex = refuse  # type: ignore[method-assign]
    try:
        yield attempts
    except OSError as error:
        if not attempts:
            raise
        raise Broken("it opened a connection") from error
    finally:
        socket.socket.connect, socket.socket.connect_ex = real  # type: ignore[method-assign]
