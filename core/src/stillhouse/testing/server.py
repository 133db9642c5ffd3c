"""`ScriptedServer`: answers by a script, on this machine, with every fault that a real server shows."""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

__all__ = ["Reply", "Request", "ScriptedServer"]

HUGE_BYTES = 256 * 2**20
"""Size of a body that no client must read to its end."""

_CHUNK = b" " * 2**20
_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Request:
    """What arrived, and when: seconds since the epoch."""

    path: str
    headers: dict[str, str]
    body: Any
    at: float


@dataclass(frozen=True)
class Reply:
    """A response of a `ScriptedServer`.

    Attributes:
        status: the status.
        body: the body; JSON types, bytes as they are, or `None` for the ordinary answer.
        headers: headers in addition to the ordinary ones.
        fault: `drop` closes the connection without a response, `truncate` in the middle of the
            body, `stall` sends nothing, `huge` sends a body of `HUGE_BYTES`. Of a body in parts, they follow
            the last part.
        parts: a body that is sent in parts instead of `body`; an event among them is waited for.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Literal["", "drop", "truncate", "stall", "huge"] = ""
    parts: Sequence[bytes | threading.Event] | None = None


class ScriptedServer:
    """A server on this machine that answers by a script, then with `always`, else as `respond` says.

    It starts when it is made; `close` stops it. `origin` is its address, to use as `base_url`.

    Args:
        respond: returns the ordinary answer to a path, with its query, and a body, as JSON types or bytes; a
            `Reply` where it needs a status or headers of its own.

    Attributes:
        script: the replies to the next requests, each used once.
        always: the reply after those, or `None`.
        rewrite: changes what `respond` returned before it is sent.
        requests: what arrived, each with `path`, `headers`, `body` and the time `at`.
        in_flight: how many requests are being answered; `most` is its maximum.
        hung_up: set when a client closed the connection of an answer that stalled.
        sent: bytes sent of huge bodies.
        is_late: whether an event among the parts of a body was not set in time.
    """

    def __init__(self, respond: Callable[[str, Any], Any]) -> None:
        self.respond = respond
        self._server = _Server(self)
        self._lock = threading.Lock()
        self.released = threading.Event()
        self.reset()
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="conformance-server", daemon=True
        )
        self._thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def reset(self) -> None:
        """Forget all requests, and release the responses that stall."""
        self.released.set()
        self.released = threading.Event()
        self.script: list[Reply] = []
        self.always: Reply | None = None
        self.rewrite: Callable[[Any], Any] | None = None
        self.meeting: threading.Barrier | None = None
        self.requests: list[Request] = []
        self.in_flight = self.most = self.sent = 0
        self.is_late = False
        self.hung_up = threading.Event()

    def close(self) -> None:
        """Stop the server and its thread."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _begin(self, request: Request) -> Reply:
        """Record a request, and return the reply to it."""
        with self._lock:
            self.requests.append(request)
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            return self.script.pop(0) if self.script else self.always or Reply()

    def _end(self) -> None:
        """Count an answered request."""
        with self._lock:
            self.in_flight -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, scripted: ScriptedServer) -> None:
        self.scripted = scripted
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a client that hangs up is not an error here."""


def _ordinary(scripted: ScriptedServer, reply: Reply, path: str, body: Any) -> Reply:
    """Return the reply with what the author's `respond` returns, or with the error that it raises."""
    try:
        answer = scripted.respond(path, body)
        if isinstance(answer, Reply):
            return answer
        return replace(reply, body=scripted.rewrite(answer) if scripted.rewrite else answer)
    except Exception as error:
        (*_, place) = traceback.extract_tb(error.__traceback__)
        where = f"{Path(place.filename).name}:{place.lineno}"
        message = f"respond() of the test raised {type(error).__name__}: {error} ({where})"
        return Reply(400, {"error": {"message": message}})


def _read(raw: bytes) -> Any:
    """Return a body as JSON types, as bytes if it is not JSON, or `None` if it is empty."""
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the parts of a body arrive in parts

    def _serve(self) -> None:
        scripted = self.server.scripted
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        body = _read(raw)
        headers = {name.lower(): text for name, text in self.headers.items()}
        reply = scripted._begin(Request(self.path, headers, body, time.time()))
        try:
            if scripted.meeting is not None:
                scripted.meeting.wait()
            self._answer(reply, body)
        except (OSError, threading.BrokenBarrierError):
            self.close_connection = True
        finally:
            scripted._end()

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def _answer(self, reply: Reply, body: Any) -> None:
        if reply.body is None and reply.parts is None and reply.fault in ("", "truncate"):
            reply = _ordinary(self.server.scripted, reply, self.path, body)
        if reply.parts is not None:
            self._send_parts(reply, reply.parts)
        elif reply.fault == "drop":
            self.close_connection = True
        elif reply.fault == "stall":
            self._stall()
        elif reply.fault == "huge":
            self._send(reply, b"", HUGE_BYTES)
        else:
            content = reply.body
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            half = len(data) // 2
            self._send(reply, data[:half] if reply.fault == "truncate" else data, len(data))
            if reply.fault == "truncate":
                self.close_connection = True

    def _send(self, reply: Reply, data: bytes, length: int) -> None:
        self.send_response(reply.status)
        for name, text in {"content-type": "application/json", **reply.headers}.items():
            self.send_header(name, text)
        self.send_header("content-length", str(length))
        self.end_headers()
        self.wfile.write(data)
        if reply.fault == "huge":
            scripted = self.server.scripted
            while scripted.sent < HUGE_BYTES:
                self.wfile.write(_CHUNK)
                scripted.sent += len(_CHUNK)

    def _send_parts(self, reply: Reply, parts: Sequence[bytes | threading.Event]) -> None:
        scripted = self.server.scripted
        self.send_response(reply.status)
        for name, text in {"content-type": "application/octet-stream", **reply.headers}.items():
            self.send_header(name, text)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in parts:
            if isinstance(part, threading.Event):
                scripted.is_late = not part.wait(_PATIENCE_SECONDS) or scripted.is_late
            elif part:
                self._send_chunk(part)
        while reply.fault == "huge" and scripted.sent < HUGE_BYTES:
            self._send_chunk(_CHUNK)
            scripted.sent += len(_CHUNK)
        if reply.fault == "stall":
            self._stall()
        elif reply.fault:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _stall(self) -> None:
        """Send nothing until the client hangs up."""
        self.close_connection = True
        self.connection.settimeout(_POLL_SECONDS)
        scripted = self.server.scripted
        released = scripted.released
        while not released.is_set():
            try:
                if not self.connection.recv(1):
                    scripted.hung_up.set()
                    return
            except TimeoutError:
                continue

    def log_message(self, format: str, *args: Any) -> None:
        pass
