"""`Upload`: a file as the body of a request, and responses that are saved to a file."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from stillhouse.errors import GenerationError
from stillhouse.http.transport.proxies import proxy_for
from stillhouse.offline.failures import Failure

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

__all__ = ["BLOCK", "Upload", "form_upload", "save_body", "save_from"]

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

BLOCK = 2**20
"""Bytes of a file that are read or written at once."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as the body of a request, read while it is sent.

    Attributes:
        file: what to send, from its beginning.
        size: its bytes.
        content_type: of the whole body.
        head: sent before the file, such as the fields of a form.
        tail: sent after it.
    """

    file: IO[bytes]
    size: int
    content_type: str = "application/json"
    head: bytes = b""
    tail: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that describe the body."""
        length = len(self.head) + self.size + len(self.tail)
        return {"content-type": self.content_type, "content-length": str(length)}

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the body from its beginning, for each attempt anew."""
        if self.head:
            yield self.head
        self.file.seek(0)
        while block := self.file.read(BLOCK):
            yield block
        if self.tail:
            yield self.tail


def form_upload(fields: Mapping[str, str], file_name: str, file: IO[bytes], size: int) -> Upload:
    """Return a form with fields and, under `file`, a file. Names and values must need no escaping."""
    boundary = secrets.token_hex(16)
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    tail = f"\r\n--{boundary}--\r\n"
    return Upload(file, size, f"multipart/form-data; boundary={boundary}", head.encode(), tail.encode())


async def save_body(response: aiohttp.ClientResponse, file: IO[bytes]) -> None:
    """Write the body to a file, over what an earlier attempt left there."""
    file.seek(0)
    file.truncate()
    async for block in response.content.iter_chunked(BLOCK):
        try:
            file.write(block)
        except OSError as error:
            raise GenerationError(
                f"the answer cannot be kept: {error.strerror or error}",
                hint="make room in the folder for temporary files, and run the same again",
                stops_run=True,
            ) from None


async def save_from(
    url: URL, file: IO[bytes], connector: aiohttp.BaseConnector | None, client_timeout: aiohttp.ClientTimeout
) -> Failure | None:
    """Save a response that the server redirects to, such as one in a store of files.

    Nothing of the session is sent there, so no credentials either; the address has its own.
    """
    import aiohttp  # it takes long to import, and `Upload` is imported where nothing is sent

    if url.scheme != "https" and url.host not in _LOCAL:
        return Failure("server", f"the file is at {url.host}, which is not encrypted")
    bare = aiohttp.ClientSession(
        connector=connector,
        connector_owner=False,
        timeout=client_timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    proxy = proxy_for(url)
    via, tunnel, login = proxy.arguments(encrypted=url.scheme == "https") if proxy else (None, None, {})
    sending = bare.get(url, allow_redirects=False, headers=login, proxy=via, proxy_headers=tunnel)
    async with bare, sending as response:
        if response.status >= 300:
            return Failure("server", f"{url.host} answered with status {response.status}", retried=True)
        await save_body(response, file)
    return None
