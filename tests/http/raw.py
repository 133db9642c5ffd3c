"""A server of raw bytes: it reads a request, and sends whatever a test says, as slowly and as long as it says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["RawServer", "chunked", "raw_server"]

Answer = Callable[[socket.socket, bytes], None]


@dataclass
class RawServer:
    """The server. `heads` are the heads of the requests as they came in, `bodies` their bodies."""

    port: int
    heads: list[bytes]
    bodies: list[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def chunked(
    connection: socket.socket, *blocks: bytes, content_type: str = "application/json", end: bool = True
) -> None:
    """Send an answer of unknown length in blocks; without `end`, it stays open."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
    connection.sendall(head.encode())
    for block in blocks:
        connection.sendall(f"{len(block):x}\r\n".encode() + block + b"\r\n")
    if end:
        connection.sendall(b"0\r\n\r\n")


@contextlib.contextmanager
def raw_server(answer: Answer) -> Iterator[RawServer]:
    """Serve until the end of the block; `answer` gets the connection and the body of each request."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = RawServer(listening.getsockname()[1], [], [])
    connections: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            received = b""
            while True:
                while b"\r\n\r\n" not in received:
                    block = connection.recv(65536)
                    if not block:
                        return
                    received += block
                head, _, received = received.partition(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                while len(received) < length:
                    received += connection.recv(65536)
                server.heads.append(head)
                server.bodies.append(received[:length])
                received = received[length:]
                answer(connection, server.bodies[-1])

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connections.append(connection)
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        listening.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
