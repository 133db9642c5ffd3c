"""A server that answers from a script, for the tests of several plugins."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Asked", "Script", "scripted"]


@dataclass
class Asked:
    """A request that came: its body as JSON, or as text where it is none."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Script:
    """What the server sends: the replies in their order, the last one again and again."""

    url: str
    replies: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)

    def reply(self, body: Any, status: int = 200, headers: dict[str, str] | None = None, **more: str) -> None:
        """Add a reply; `retry_after="1"` is a header, too."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): text for name, text in more.items()}
        self.replies.append((status, {**(headers or {}), **named}, data))


@contextmanager
def scripted() -> Iterator[Script]:
    """A server for as long as it is needed."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"] or 0))
            headers = {name.lower(): text for name, text in self.headers.items()}
            body = json.loads(raw) if raw[:1] == b"{" else raw.decode()
            found.requests.append(Asked(self.path, headers, body))
            replies = found.replies
            status, sent, data = replies.pop(0) if len(replies) > 1 else replies[0]
            self.send_response(status)
            for name, text in {"content-type": "application/json", **sent}.items():
                self.send_header(name, text)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Script(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()
