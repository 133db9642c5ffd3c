"""One start of the engine: its processes, and what they need to be told.

The engine spawns its processes itself. What differs from its own way is done where Python spawns, for the
thread of this start alone: the user's script is not run again in them (`child`), an interrupt at the
keyboard is none of their business, what they print comes here, and their environment is theirs.
"""

from __future__ import annotations

import json
import multiprocessing.resource_tracker
import multiprocessing.spawn
import multiprocessing.util
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from stillhouse import ConfigurationError
from stillhouse_vllm import child
from stillhouse_vllm.environment import TELEMETRY, changed_environment, wants_logs
from stillhouse_vllm.library import Library
from stillhouse_vllm.logs import Output

__all__ = ["Launch"]

# How long to wait for what a process that has ended had still to say.
_LAST_WORDS_SECONDS = 5.0

# Its processes are spawned whatever it would choose: this process has threads, and a fork of it might wait
# for ever for a lock that one of them held.
_SPAWN = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}

# One at a time: what is changed for it is the process's.
_starting = threading.Lock()


class Launch:
    """An engine that is started, runs, or has ended.

    Args:
        library: the engine's library.
        arguments: those of its `AsyncEngineArgs`.
        environment: variables of its processes, `None` for one that they must not have.
        verbose: whether what they print goes to standard error.
    """

    def __init__(
        self,
        library: Library,
        arguments: Mapping[str, Any],
        environment: Mapping[str, str | None],
        verbose: bool,
    ) -> None:
        self._library = library
        self._arguments = dict(arguments)
        self._environment = dict(environment)
        self._verbose = verbose or wants_logs()
        self._pids: list[int] = []
        self._is_cancelled = False
        self._output: Output | None = None
        self._reason: str | None = None

    def start(self) -> Any:
        """Start the engine, which takes as long as loading the model; return its `AsyncLLM`.

        It blocks. An interrupt, or anything else that ends it, ends the engine's processes.
        """
        # In a thread, since the library waits in code that swallows an interrupt.
        outcome: Future[Any] = Future()
        thread = threading.Thread(
            target=self._start, args=(outcome,), name="stillhouse-vllm-start", daemon=True
        )
        thread.start()
        try:
            return outcome.result()
        except BaseException:
            self.cancel()
            raise
        finally:
            thread.join(_LAST_WORDS_SECONDS)

    def _start(self, outcome: Future[Any]) -> None:
        try:
            outcome.set_result(self._started())
        except BaseException as error:
            outcome.set_exception(error)

    def _started(self) -> Any:
        with _starting:
            config = self._configure()
            self._output = Output(self._verbose)
            try:
                with self._spawning():
                    return self._library.start(config)
            except BaseException as error:
                self.cancel()
                _release(error)
                raise
            finally:
                self._output.hand_over()

    def cancel(self) -> None:
        """End the processes at once; a start that is under way fails. From any thread."""
        self._is_cancelled = True
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def reason(self) -> str:
        """Why the engine ended, in its own words; empty if it did not say."""
        if self._reason is None:
            self.close()
            self._reason = self._output.reason() if self._output is not None else ""
        return self._reason

    def close(self) -> None:
        """Wait until everything that the processes printed is read; they have been told to end."""
        if self._output is not None:
            self._output.wait(_LAST_WORDS_SECONDS)

    def _configure(self) -> Any:
        """The engine's configuration; what it set in the environment is for its processes."""
        with changed_environment({**self._library.environment, **self._environment}) as others:
            config = self._library.configure(self._arguments)
        if not any(name in os.environ for name in TELEMETRY):
            others["VLLM_NO_USAGE_STATS"] = "1"
        if not self._verbose:
            others["VLLM_CONFIGURE_LOGGING"] = "0"
        elif "VLLM_LOGGING_STREAM" not in os.environ:
            others["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"
        self._environment = {**others, **self._environment}
        return config

    @contextmanager
    def _spawning(self) -> Iterator[None]:
        """Be asked when this thread spawns a process."""
        thread = threading.get_ident()
        spawn, util = multiprocessing.spawn, multiprocessing.util
        describe, start = spawn.get_preparation_data, util.spawnv_passfds

        def described(name: str) -> dict[str, Any]:
            data: dict[str, Any] = describe(name)
            return self._described(data) if threading.get_ident() == thread else data

        def started(path: Any, args: Sequence[Any], descriptors: Sequence[int]) -> int:
            if threading.get_ident() != thread:
                return int(start(path, args, descriptors))
            with until_first, self._for_the_child():
                pid = int(start(path, args, [*descriptors, self._descriptor]))
            self._pids.append(pid)
            if self._is_cancelled:
                self.cancel()
            return pid

        # Its process, too, would be started in the middle of it.
        multiprocessing.resource_tracker.ensure_running()
        until_first = ExitStack()
        spawn.get_preparation_data, util.spawnv_passfds = described, started  # type: ignore[assignment]
        try:
            with until_first:
                until_first.enter_context(changed_environment(_SPAWN))
                yield
        finally:
            spawn.get_preparation_data, util.spawnv_passfds = describe, start

    @property
    def _descriptor(self) -> int:
        assert self._output is not None
        return self._output.descriptor

    def _described(self, data: dict[str, Any]) -> dict[str, Any]:
        if self._is_cancelled:
            raise ConfigurationError("the start of the engine was cancelled", hint="load the LLM again")
        data.pop("init_main_from_name", None)
        told = json.dumps({"parent": os.getpid(), "output": self._descriptor})
        return {
            **data,
            "init_main_from_path": str(Path(child.__file__).resolve()),
            "sys_argv": ["stillhouse-vllm", child.MARK + told],
        }

    @contextmanager
    def _for_the_child(self) -> Iterator[None]:
        """What a process inherits from the thread that starts it: the environment, and blocked signals."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with changed_environment(self._environment):
                yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _release(error: BaseException) -> None:
    """Close what the library keeps open of an engine that did not start: its sockets' context.

    Nothing but the frames of the exception knows it by then.
    """
    trace = error.__traceback__
    while trace is not None:
        client = trace.tb_frame.f_locals.get("self")
        context = getattr(getattr(client, "resources", None), "ctx", None)
        if context is not None:
            context.destroy(linger=0)
        trace = trace.tb_next
