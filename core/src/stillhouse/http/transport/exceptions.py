"""The failures that are not an error's status: the exceptions of an attempt, and answers that are no JSON."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping

import aiohttp
from yarl import URL

from stillhouse._execution.bugs import BUG_HINT, backend_name, place_of
from stillhouse.errors import GenerationError, described
from stillhouse.http.transport.bodies import clean
from stillhouse.http.transport.failures import request_id_of
from stillhouse.http.transport.proxies import Proxy
from stillhouse.offline.failures import Failure

__all__ = ["failure_of_exception", "not_json", "timed_out", "too_large"]

_STREAM = "text/event-stream"
_MAX_LOOKED_AT = 2**20
"""How large an answer that is no JSON may be for its end to be looked for."""

_PROXY_HINT = "check the environment variable {}, or add the server's host to NO_PROXY"


def failure_of_exception(error: Exception, url: URL, proxy: Proxy | None = None) -> Failure:
    """Return the failure that an exception of an attempt at this address is.

    What every further request would meet stops the run: a host that does not exist or cannot be reached, a
    certificate that does not verify, an address that is none, a proxy that refuses.

    Args:
        error: of aiohttp, an `OSError`, or the `ValueError` of a host that no name server can be asked for.
        url: the address.
        proxy: the proxy of the attempt.
    """
    if proxy is not None and (failure := _of_proxy(error, proxy)) is not None:
        return failure
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)):
        return _of_encryption(error, url)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return _unreachable(f"{url.host}:{url.port} cannot be reached: no connection in time")
    if isinstance(error, (aiohttp.ServerTimeoutError, TimeoutError)):
        return Failure(
            "timeout", f"{url.host} did not answer in time", retried=True, congestion=True, unclear=True
        )
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError)):
        place = clean(f"{url.scheme}://{url.host}{url.path}", 200)
        return Failure(
            "invalid_request", f"{place} is not a usable address", hint="check base_url", stops_run=True
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return _unreachable(f"{url.host}:{url.port} cannot be reached: {_reason(error)}")
    if "content-encoding" in str(error).lower():  # it would come so again, and be paid again
        return Failure(
            "server",
            f"the answer of {url.host} cannot be unpacked: {_text(error)}",
            hint="check base_url, and whether a gateway in between compresses answers",
            unclear=True,
        )
    return Failure(
        "connection", f"the connection to {url.host} broke: {_text(error)}", retried=True, unclear=True
    )


def _unreachable(message: str, hint: str = "check base_url, and whether the server runs") -> Failure:
    return Failure(
        "connection",
        message,
        hint=f"{hint}; then make the same call again",
        retried=True,
        stops_run=True,  # after it was retried for as long as a request is retried
    )


def _of_encryption(
    error: aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError, url: URL
) -> Failure:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        said = clean(str(error.certificate_error))
        return Failure(
            "connection",
            f"the certificate of {url.host} does not verify: {said}",
            hint="check base_url, or make the certificate's authority known to this machine",
            stops_run=True,
        )
    return _unreachable(
        f"no encrypted connection to {url.host}:{url.port}: {_reason(error)}",
        hint="check base_url: a server without encryption has an address with http://",
    )


def _of_proxy(error: Exception, proxy: Proxy) -> Failure | None:
    """Return the failure of the way to the proxy or of its tunnel, or `None` if it is the server's."""
    name = f"the proxy {proxy.place}, which {proxy.variable} names,"
    hint = _PROXY_HINT.format(proxy.variable)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _of_tunnel(error, proxy)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return _unreachable(f"no connection through {name} in time", hint)
    is_its_own = isinstance(error, aiohttp.ClientProxyConnectionError) or (
        isinstance(error, aiohttp.ClientConnectorDNSError) and error.host == proxy.url.raw_host
    )
    if is_its_own and isinstance(error, aiohttp.ClientConnectorError):
        return _unreachable(f"{name} cannot be reached: {_reason(error)}", hint)
    return None


def _of_tunnel(error: aiohttp.ClientHttpProxyError, proxy: Proxy) -> Failure:
    """Return the failure that a proxy's answer to CONNECT is. Its text would show headers: it is not used."""
    name = f"the proxy {proxy.place}, which {proxy.variable} names,"
    said = clean(f"status {error.status} {error.message}", 200).strip()
    if error.status == 407:
        return Failure(
            "authentication",
            f"{name} requires a login: {said}",
            hint=f"write it in {proxy.variable}: http://USER:PASSWORD@{proxy.place}",
            stops_run=True,
        )
    message = f"{name} does not connect to the server: {said}"
    if error.status >= 500 or error.status in (408, 425, 429):
        return _unreachable(message, _PROXY_HINT.format(proxy.variable))
    return Failure("connection", message, hint=_PROXY_HINT.format(proxy.variable), stops_run=True)


def _reason(error: aiohttp.ClientConnectorError) -> str:
    reason = error.os_error
    if isinstance(reason, socket.gaierror):
        return f"its host name cannot be resolved ({clean(str(reason.strerror), 200)})"
    return clean(str(reason.strerror or reason), 200)


def _text(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):  # its text has the address, and its repr the key
        return clean(f"{type(error).__name__} {error.message}", 200)
    return clean(str(error), 200) or type(error).__name__


def too_large(limit_bytes: int, headers: Mapping[str, str]) -> Failure:
    """Return the failure that an answer of more than so many bytes is."""
    return Failure(
        "server",
        f"the answer has more than {limit_bytes / 2**20:.4g} MiB",
        hint="check base_url, or ask for fewer tokens",
        unclear=True,
        request_id=request_id_of(headers),
    )


def timed_out(url: URL, seconds: float, *, has_begun: bool) -> Failure:
    """Return the failure that an attempt is which took too long.

    Args:
        url: the address.
        seconds: how long it may take.
        has_begun: whether an answer had begun to come in.
    """
    if has_begun:
        return Failure(
            "timeout",
            f"the answer of {url.host} was not whole after {seconds:g} s",
            hint="raise timeout, or ask for fewer tokens",
            retried=True,
            unclear=True,
        )
    return Failure(
        "timeout",
        f"{url.host} did not answer in time: within {seconds:g} s",
        hint="raise timeout, or ask for fewer tokens",
        retried=True,
        congestion=True,
        unclear=True,
    )


def not_json(
    url: URL, headers: Mapping[str, str], raw: bytes, *, is_first: bool = True, is_asked: bool = False
) -> Failure:
    """Return the failure that an answer with a status of success is whose body is not JSON.

    One that was cut off is retried. A whole answer of another form is not: it would come again, and be paid
    again.

    Args:
        url: the address.
        headers: the answer's headers.
        raw: its body.
        is_first: whether no answer of this address has been read yet. A page stops the run then; later,
            in the middle of a run, it fails its row.
        is_asked: whether a stream of events was asked for.
    """
    identity = request_id_of(headers)
    start = raw[:512].lstrip()
    form = clean(headers.get("content-type", "").partition(";")[0], 100)
    if not start and not raw[512 : 2**20].strip():
        return _broken("the answer is empty", identity)
    if start[:1] == b"<":
        return Failure(
            "invalid_request",
            f"{url.host} answered with a page instead of JSON",
            hint="check base_url: it is the address of the API, not of the website",
            stops_run=is_first,
            request_id=identity,
        )
    if form.lower() == _STREAM or start.startswith((b"data:", b"event:", b": ")):
        if is_asked:
            return Failure(
                "server",
                f"the answer is a stream of events that cannot be read{_beginning(start)}",
                hint="check base_url, and the server's version",
                unclear=True,
                request_id=identity,
            )
        message = f"the answer is {_STREAM}, a stream of events, not JSON{_beginning(start)}"
        hint = "do not ask for a stream: remove stream from extra_body, or turn it off in the gateway"
    elif start[:1] in (b"{", b"["):
        if _is_cut(raw):
            return _broken("the answer is not valid JSON: it ends in the middle", identity)
        message = f"the answer is not valid JSON{_beginning(start)}"
        hint = "check base_url, and the server's version"
    else:
        message = f"the answer is {form or 'of an unknown form'}, not JSON{_beginning(start)}"
        hint = "check base_url: the server must answer with JSON"
    return Failure("server", message, hint=hint, unclear=True, request_id=identity)


def broken_hook(name: str, error: Exception, hook: object) -> GenerationError:
    """Return the error for an exception in the backend's own code.

    Args:
        name: that of the method.
        error: what it raised.
        hook: the method, bound to the backend.
    """
    llm = getattr(hook, "__self__", hook)
    place = place_of(error, type(llm))
    return GenerationError(
        f"the backend {backend_name(llm)}: {name} failed: {described(error)}{f' ({place})' if place else ''}",
        hint=BUG_HINT,
        place=place,
    )


def without_parts(url: URL, headers: Mapping[str, str], raw: bytes, *, is_first: bool = True) -> Failure:
    """Return the failure that an answer is in which there is no byte, no line or no event, as was asked for.

    One that is empty, or has only comments, is retried. A whole answer of another form is not.
    """
    start = raw[:512].lstrip()
    if start[:1] == b"<":
        return not_json(url, headers, raw, is_first=is_first)
    if start[:1] in (b"", b":"):
        return _broken("the answer is empty", request_id_of(headers))
    form = clean(headers.get("content-type", "").partition(";")[0], 100).lower()
    return Failure(
        "server",
        f"the answer is {form or 'of an unknown form'}, not a stream of events{_beginning(start)}",
        hint="check base_url, and whether this model can stream",
        unclear=True,
        request_id=request_id_of(headers),
    )


def _is_cut(raw: bytes) -> bool:
    """Check whether JSON that cannot be read ends too early, rather than going on after its end."""
    if raw.rstrip(b" \t\r\n\0")[-1:] in (b"}", b"]"):
        return False
    if len(raw) <= _MAX_LOOKED_AT:
        try:
            json.JSONDecoder().raw_decode(raw.decode("utf-8", "replace").lstrip("\ufeff \t\r\n"))
        except (ValueError, RecursionError):
            return True
        return False
    return True


def _beginning(start: bytes) -> str:
    shown = clean(start[:40].decode("utf-8", "replace"))
    return f"; it begins {shown!r}" if shown else ""


def _broken(message: str, identity: str) -> Failure:
    return Failure("server", message, retried=True, congestion=True, unclear=True, request_id=identity)
