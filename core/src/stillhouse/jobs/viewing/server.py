"""`ViewServer`: serves the page of a run to a browser on this machine, and to nobody else.

It is bound to the loopback address. An address without the token, another method than GET, and a `Host` that
is not this machine are refused: a page of another site that a browser shows can send requests here, but not
know the token, and cannot give this machine a name of its own. What is served is the page, its two files, and
answers about the run; no address is ever a path of a file.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import json
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from importlib import resources
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError, StillhouseError
from stillhouse.jobs.viewing.inputs import Pending
from stillhouse.jobs.viewing.questions import QUESTIONS
from stillhouse.jobs.viewing.viewer import Viewer

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["ViewServer", "check_installed"]

MAX_QUESTIONS = 4
"""How many questions are answered at a time."""

MAX_QUERY_CHARACTERS = 8000

MAX_SHOWN_CHARACTERS = 1_000_000
"""A longer text is saved as a file by the browser, instead of shown."""

_FILES = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}

_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TEXT_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"

_logger = logging.getLogger("stillhouse.jobs")


def check_installed() -> None:
    """Refuse to serve without the library that does it.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import aiohttp.web  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            "stillhouse view needs aiohttp, which is not installed", hint=install_command("stillhouse[view]")
        ) from None


class ViewServer:
    """A server for the page of a run; a context manager that stops it.

    Args:
        viewer: answers about the run.
        port: the port; 0 for a free one.

    Attributes:
        address: the address of the page, with the token.

    Raises:
        ConfigurationError: the library for it is not installed, or the port cannot be used.
    """

    def __init__(self, viewer: Viewer, port: int = 0) -> None:
        check_installed()
        self._viewer = viewer
        self._token = secrets.token_urlsafe(24)
        self._codes: set[str] = set()
        self._socket = _bound(port)
        host, number = self._socket.getsockname()[:2]
        self._origin = f"http://{f'[{host}]' if ':' in host else host}:{number}"
        self.address = f"{self._origin}/{self._token}/"
        self._loop = asyncio.new_event_loop()
        self._slots: asyncio.Semaphore | None = None
        self._ready = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._serve, name="stillhouse-view", daemon=True)

    def address_to_open(self) -> str:
        """Return an address that leads to the page once: other users can read the arguments of a browser."""
        code = secrets.token_urlsafe(24)
        self._codes.add(code)
        return f"{self._origin}/open/{code}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stopping = self._stopping
        if stopping is not None:
            self._loop.call_soon_threadsafe(stopping.set)
        self._thread.join()

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._work())
        finally:
            self._ready.set()

    async def _work(self) -> None:
        from aiohttp import web

        self._slots, self._stopping = asyncio.Semaphore(MAX_QUESTIONS), asyncio.Event()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        self._ready.set()
        try:
            await self._stopping.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if not _is_local(request.headers.getall("Host", [])):
            return _refusal(403, "This address is for a browser on this machine.")
        if request.method not in ("GET", "HEAD"):
            return _refusal(405, "Only GET is answered.", {"Allow": "GET, HEAD"})
        first, _, rest = request.path.removeprefix("/").partition("/")
        if first == "open":
            return self._opened(rest)
        if not hmac.compare_digest(first.encode(), self._token.encode()):
            return _refusal(404, "There is nothing at this address. stillhouse view prints the right one.")
        if rest in _FILES:
            name, kind = _FILES[rest]
            body = resources.files("stillhouse.jobs.viewing").joinpath(name).read_bytes()
            return _response(200, body, kind, _PAGE_POLICY)
        question = QUESTIONS.get(rest)
        if question is None or len(request.query_string) > MAX_QUERY_CHARACTERS:
            return _refusal(404, "There is nothing at this address.")
        return await self._answered(question, request.query)

    def _opened(self, code: str) -> web.Response:
        """Lead a browser to the page, once for each code."""
        if code not in self._codes:
            return _refusal(404, "This address was used already. stillhouse view prints another one.")
        self._codes.discard(code)
        return _refusal(303, "", {"Location": self.address})

    async def _answered(
        self, question: Callable[[Viewer, Mapping[str, str]], Any], query: Mapping[str, str]
    ) -> web.Response:
        assert self._slots is not None
        try:
            async with self._slots:
                answer = await asyncio.to_thread(question, self._viewer, query)
        except Pending:
            return _json(503, {"error": "The input is being read; try again in a moment."})
        except ValueError as error:
            return _json(400, {"error": str(error)})
        except StillhouseError as error:
            return _json(500, {"error": str(error)})
        except Exception as error:
            _logger.warning("a question of the page could not be answered", exc_info=True)
            return _json(500, {"error": f"{type(error).__name__}: {error}"})
        if answer is None:
            return _refusal(404, "The row does not have such a text.")
        if isinstance(answer, str):
            # A browser takes minutes to lay out a text of many megabytes.
            kept = {"Content-Disposition": 'attachment; filename="text.txt"'}
            headers = kept if len(answer) > MAX_SHOWN_CHARACTERS else None
            body = answer.encode("utf-8", "backslashreplace")
            return _response(200, body, "text/plain", _TEXT_POLICY, headers)
        return _json(200, answer)


def _bound(port: int) -> socket.socket:
    """Return a socket at the loopback address; that of IPv6 where there is no other."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            found = socket.socket(family)
        except OSError:
            continue
        try:
            if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, port))
            found.listen(128)
        except OSError as error:
            found.close()
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            if error.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"the port {port} is in use", hint="give another --port, or leave it out for a free one"
                ) from None
            raise ConfigurationError(
                f"the port {port} cannot be used: {error.strerror}",
                hint="give another --port, or leave it out for a free one",
            ) from None
        found.setblocking(False)
        return found
    raise ConfigurationError("this machine has no loopback address", hint="check its network settings")


def _is_local(hosts: list[str]) -> bool:
    """Whether a request names this machine; the port may be that of a tunnel."""
    if len(hosts) != 1:
        return False
    name, colon, port = hosts[0].rpartition(":")
    if not colon or port.endswith("]"):
        name, port = hosts[0], "0"
    return name.lower() in _HOSTS and port.isdecimal()


def _response(
    status: int, body: bytes, kind: str, policy: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    from aiohttp import web

    sent = {**_HEADERS, "Content-Security-Policy": policy, **(headers or {})}
    return web.Response(status=status, body=body, content_type=kind, charset="utf-8", headers=sent)


def _refusal(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return _response(status, text.encode(), "text/plain", _TEXT_POLICY, headers)


def _json(status: int, value: Any) -> web.Response:
    return _response(status, json.dumps(value).encode(), "application/json", _TEXT_POLICY)
