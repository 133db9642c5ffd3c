"""Files as the bodies of requests."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import IO

__all__ = ["BLOCK", "Upload", "form_upload"]

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
        """The body, once more for every attempt."""
        if self.head:
            yield self.head
        self.file.seek(0)
        while block := self.file.read(BLOCK):
            yield block
        if self.tail:
            yield self.tail


def form_upload(fields: Mapping[str, str], file_name: str, file: IO[bytes], size: int) -> Upload:
    """A form with fields and, under `file`, a file. The names and values are our own: nothing is escaped."""
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
