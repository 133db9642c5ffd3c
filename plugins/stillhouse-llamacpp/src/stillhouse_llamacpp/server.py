"""One server of the engine: the only module that touches `xllamacpp`."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import secrets
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.local import unloaded
from stillhouse_llamacpp.failures import failure
from stillhouse_llamacpp.gguf import read_header
from stillhouse_llamacpp.threads import brief_waits, usable_cores

__all__ = ["Route", "Server", "Settings"]

Route = Literal["chat", "completion"]

# Requests that the engine answers over HTTP alone: rendering a chat, hidden states.
_HTTP_THREADS = 2

_SILENT, _VERBOSE = -1, 3


@dataclass(frozen=True)
class Settings:
    """How to start a server.

    Attributes:
        path: the GGUF file.
        slots: how many requests are served at once.
        n_ctx: tokens of context of each slot.
        n_batch: tokens of prompts that are read in one step.
        n_threads: threads to compute with, `None` for as many as there are cores for this process.
        n_gpu_layers: layers on the GPU, -1 for all.
        chat_template: a Jinja2 template instead of the model's own.
        flash_attention: whether attention is computed in fused kernels, `None` for the engine's choice.
        verbose: whether the engine logs to standard error.
        hidden_states: whether it gives the hidden states of inputs.
    """

    path: Path
    slots: int = 1
    n_ctx: int = 2048
    n_batch: int = 512
    n_threads: int | None = None
    n_gpu_layers: int = -1
    chat_template: str | None = None
    flash_attention: bool | None = None
    verbose: bool = False
    hidden_states: bool = False


class Server:
    """A running server. Its calls block, from any thread; `close()` frees the model.

    Constructing it holds the GIL for as long as the model takes to load.

    Attributes:
        has_chat_template: whether the model comes with a chat template.

    Raises:
        ConfigurationError: the file is no model that the engine can load.
    """

    def __init__(self, settings: Settings) -> None:
        header = read_header(settings.path)
        self.has_chat_template = header.has_chat_template
        # The engine listens on a port of this machine, which cannot be switched off: with a key
        # that nobody else has, it answers nobody else.
        self._key = secrets.token_urlsafe(32)
        self._pid = os.getpid()
        try:
            self._engine: Any = _start(settings, self._key)
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(
                f"the engine could not load {settings.path}, "
                f"whose architecture is {header.architecture or 'unknown'}",
                hint="set verbose to True to see why. A new architecture needs a new engine (stillhouse "
                "install --upgrade xllamacpp); a lack of memory, a smaller n_ctx or fewer slots"
                + ("; a mistake in chat_template, a correction" if settings.chat_template else ""),
            ) from error
        address = urlsplit(self._engine.listening_address)
        self._address = (address.hostname or "127.0.0.1", address.port or 80)
        _running.add(self)
        # A server that is dropped before its loop has begun never ends; this call waits for the loop.
        self._engine.handle_completions({"prompt": "Hi", "max_tokens": 1})

    def generate(
        self,
        route: Route,
        body: dict[str, Any],
        cancelled: Callable[[], bool],
        on_answer: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """Return the engine's answer to a request, piece by piece if the body asks for a stream.

        `cancelled` is asked at every piece, and ends the request in the engine when it is true. `on_answer`
        gets each piece when it comes, and must not raise.

        Raises:
            GenerationError: the engine refused it or failed, or it was cancelled.
        """
        engine = self.running()
        handle = engine.handle_chat_completions if route == "chat" else engine.handle_completions
        pieces: list[str] = []

        def receive(piece: str) -> bool:  # the engine swallows what is raised in here
            pieces.append(piece)
            if on_answer is not None:
                with contextlib.suppress(ValueError):  # it is read again, and reported, at the end
                    on_answer(json.loads(piece))
            return cancelled()

        try:
            handle(json.dumps(body), receive)
        except (RuntimeError, TypeError, ValueError) as error:
            raise failure(error) from error
        if cancelled():
            raise unloaded()
        answers = [json.loads(piece) for piece in pieces]
        for answer in answers:
            if "error" in answer:
                raise failure(answer["error"])
        if not answers:
            raise GenerationError("the engine returned no answer", kind="server", hint="retry the request")
        return answers

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the engine's answer to a request that it takes over HTTP alone.

        Raises:
            GenerationError: as `generate`.
        """
        self.running()
        try:
            content = json.dumps(body)
        except (TypeError, ValueError) as error:
            raise failure(error) from error
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(*self._address)
        try:
            connection.request("POST", path, content, headers)
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise GenerationError(
                f"the engine did not answer: {type(error).__name__}: {error}",
                kind="connection",
                hint="allow local connections on this machine",
            ) from error
        finally:
            connection.close()
        if isinstance(answer, dict) and "error" in answer:
            raise failure(answer["error"])
        return answer

    def close(self) -> None:
        """Stop the engine and free the model, once the calls under way have ended."""
        if self._pid == os.getpid():
            self._engine = None

    def running(self) -> Any:
        """The engine's own server.

        Raises:
            ConfigurationError: it runs in the process that this one was forked from.
            GenerationError: it was closed.
        """
        if self._pid != os.getpid():
            raise ConfigurationError(
                "the model was loaded before this process was forked, and its threads are in the parent "
                "process",
                hint="load the LLM after forking, or start processes with the method spawn",
            )
        engine = self._engine
        if engine is None:
            raise unloaded()
        return engine


def _start(settings: Settings, key: str) -> Any:
    with brief_waits():
        import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(settings.path)
    params.n_parallel = settings.slots
    params.n_ctx = settings.n_ctx * settings.slots
    params.n_batch = settings.n_batch
    params.n_ubatch = min(settings.n_batch, 512)
    params.n_gpu_layers = settings.n_gpu_layers
    params.fit_params = False  # else n_ctx may silently become smaller
    params.kv_unified = False  # else an answer depends on what the other slots do
    params.cache_ram_mib = 0  # else finished prompts pile up in memory, to 8 GiB
    params.prefill_assistant = False  # else an assistant's last message is continued, not answered
    n_threads = settings.n_threads or usable_cores()
    if n_threads is not None:
        params.cpuparams.n_threads = n_threads
        params.cpuparams_batch.n_threads = n_threads
    if settings.chat_template is not None:
        params.chat_template = settings.chat_template
    if settings.flash_attention is not None:
        types = xllamacpp.llama_flash_attn_type
        params.flash_attn_type = (
            types.LLAMA_FLASH_ATTN_TYPE_ENABLED
            if settings.flash_attention
            else types.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
    if settings.hidden_states:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_NONE
        params.embd_normalize = -1
        params.n_batch = params.n_ubatch = params.n_ctx  # an input is read in one step
    params.verbosity = _VERBOSE if settings.verbose else _SILENT
    params.api_keys = [key]
    params.n_threads_http = _HTTP_THREADS
    params.endpoint_slots = False
    params.ui = False
    return xllamacpp.Server(params)


_running: weakref.WeakSet[Server] = weakref.WeakSet()


def _abandon() -> None:
    """Let a forked child end although the threads of the servers that it inherits are in its parent.

    Destroying a server waits for its threads for ever, and so does a global object of the engine
    when the C library's exit handlers run. So the servers are never released in the child, and where
    the C library can, the child leaves before those handlers, once Python itself has ended.
    """
    servers = [server for server in _running if server._engine is not None]
    for server in servers:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(server._engine))
    if servers and sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "on_exit"):
            library.on_exit(ctypes.cast(library._exit, ctypes.c_void_p), None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon)
