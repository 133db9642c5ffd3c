"""A server that answers by a script, on this machine, with every fault that a real one shows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

__all__ = ["Reply", "Request", "ScriptedServer"]

HUGE = 256 * 2**20
"""Bytes of a body that no client shall read to its end."""

_CHUNK = b" " * 2**20
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Request:
    """What arrived, and when: seconds since the epoch."""

    path: str
    headers: dict[str, str]
    body: Any
    at: float


@dataclass(frozen=True)
class Reply:
    """What to answer.

    Attributes:
        status: the status.
        body: the body; JSON types, bytes as they are, or `None` for the ordinary answer.
        headers: headers besides the ordinary ones.
        fault: `drop` closes the connection without a word, `truncate` in the middle of the body,
            `stall` answers nothing, `huge` sends a body that has no end in sight.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Literal["", "drop", "truncate", "stall", "huge"] = ""


class ScriptedServer:
    """Answers with the replies of the script, from the front, then with `always`, else as `respond` says.

    Attributes:
        requests: what arrived.
        in_flight: how many requests are being answered; `most` is the most there ever were.
        hung_up: set when a client closed the connection of an answer that stalled.
        sent: bytes sent of huge bodies.
    """

    def __init__(self, respond: Callable[[str, Any], Any]) -> None:
        self.respond = respond
        self._server = _Server(("127.0.0.1", 0), _handler(self))
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
        """Forget what was, and let go of what stalls."""
        self.released.set()
        self.released = threading.Event()
        self.script: list[Reply] = []
        self.always: Reply | None = None
        self.meeting: threading.Barrier | None = None
        self.requests: list[Request] = []
        self.in_flight = self.most = self.sent = 0
        self.hung_up = threading.Event()

    def close(self) -> None:
        """Stop."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def begin(self, request: Request) -> Reply:
        """Take a request in, and tell what to answer."""
        with self._lock:
            self.requests.append(request)
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            return self.script.pop(0) if self.script else self.always or Reply()

    def end(self) -> None:
        """A request has been answered."""
        with self._lock:
            self.in_flight -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here, and is not printed."""


def _ordinary(scripted: ScriptedServer, reply: Reply, path: str, body: Any) -> Reply:
    """The reply with what the author's `respond` answers, or with what that raised."""
    try:
        return replace(reply, body=scripted.respond(path, body))
    except Exception as error:
        message = f"respond() of the test raised {type(error).__name__}: {error}"
        return Reply(400, {"error": {"message": message}})


def _read(raw: bytes) -> Any:
    """A body as JSON types, as bytes where it is no JSON, or `None` where there is none."""
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw


def _handler(scripted: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            body = _read(raw)
            headers = {name.lower(): text for name, text in self.headers.items()}
            reply = scripted.begin(Request(self.path, headers, body, time.time()))
            try:
                if scripted.meeting is not None:
                    scripted.meeting.wait()
                self._answer(reply, body)
            except (OSError, threading.BrokenBarrierError):
                self.close_connection = True
            finally:
                scripted.end()

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815

        def _answer(self, reply: Reply, body: Any) -> None:
            if reply.fault == "drop":
                self.close_connection = True
            elif reply.fault == "stall":
                self._stall()
            elif reply.fault == "huge":
                self._send(reply, b"", HUGE)
            else:
                if reply.body is None:
                    reply = _ordinary(scripted, reply, self.path, body)
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
                while scripted.sent < HUGE:
                    self.wfile.write(_CHUNK)
                    scripted.sent += len(_CHUNK)

        def _stall(self) -> None:
            """Answer nothing until the client hangs up."""
            self.close_connection = True
            self.connection.settimeout(_LOOK_SECONDS)
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

    return Handler
