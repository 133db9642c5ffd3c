"""Reading the body of a response, within a bound: JSON, bytes, lines, or server-sent events."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from stillhouse._lenient import loads
from stillhouse.errors import ConfigurationError
from stillhouse.http.transport.bodies import MAX_ERROR_BYTES

if TYPE_CHECKING:
    import aiohttp

__all__ = [
    "DONE",
    "EventReader",
    "LineReader",
    "ServerEvent",
    "StreamReader",
    "Wire",
    "events_in",
    "json_of_events",
    "json_of_lines",
    "lines_in",
    "looks_like_events",
    "parts_of",
    "read_at_most",
    "read_body",
]


class StreamReader(Protocol):
    """Reads a body in a framing of its own, for an API whose streams are neither lines nor events."""

    def add(self, chunk: bytes, /) -> Iterable[Any]:
        """Return the values, as JSON types, that a further piece of the body completes.

        Raises:
            ValueError: the body has another framing.
        """
        ...


Wire: TypeAlias = Literal["json", "bytes", "lines", "events"] | Callable[[], StreamReader]
"""How the body of an answer is read.

`json` gives its value; `bytes` gives it as it is; `lines` gives a list of its lines, as bytes without
their ends, and without empty ones; `events` gives a list of `ServerEvent`, of which the last is
`[DONE]` where the API ends its streams with that. A function that returns a `StreamReader` gives a list of
its values.
"""

_LINE_END = re.compile(rb"\r\n|\n|\r")

DONE = "[DONE]"
"""The data of the event that many APIs end a stream with."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event of a stream; see https://html.spec.whatwg.org/multipage/server-sent-events.html.

    Attributes:
        data: its data; several lines of it are joined with newlines.
        event: its type, an empty string if it has none.
        id: its id, an empty string if it has none.
    """

    data: str
    event: str = ""
    id: str = ""

    def json(self) -> Any:
        """Return the data as JSON types; `[DONE]`, which is none, as that text.

        Raises:
            ValueError: it is not JSON.
        """
        return DONE if self.data.strip() == DONE else loads(self.data)


async def read_at_most(
    response: aiohttp.ClientResponse,
    max_bytes: int,
    *,
    is_stream: bool = False,
    on_chunk: Callable[[bytes], None] | None = None,
) -> tuple[bytes, bool]:
    """Read a body of unknown size, and return it with whether it is whole.

    Nothing beyond the bound is kept, and the connection is closed there. A stream of events is read no
    further than its last event, since some servers leave the connection open. `on_chunk` gets what is within
    the bound as it comes.
    """
    chunks: list[bytes] = []
    size = 0
    end = b""
    async for chunk in response.content.iter_any():
        size += len(chunk)
        chunks.append(chunk)
        if size > max_bytes:
            response.close()
            return b"".join(chunks)[:max_bytes], False
        if on_chunk is not None:
            on_chunk(chunk)
        if is_stream:
            end = (end + chunk)[-64:]
            if _ends_stream(end):
                response.close()
                break
    return b"".join(chunks), True


async def read_body(
    response: aiohttp.ClientResponse,
    max_bytes: int,
    wire: Wire,
    on_chunk: Callable[[bytes], None] | None = None,
) -> tuple[bytes, bool]:
    """Read the body of a response of any status, and return it with whether it is whole.

    Of one with an error status, the beginning is read, and `on_chunk` gets nothing.
    """
    if response.status >= 300:
        return await read_at_most(response, MAX_ERROR_BYTES)
    form = response.headers.get("content-type", "")
    is_stream = wire == "events" or form.startswith("text/event-stream")
    return await read_at_most(response, max_bytes, is_stream=is_stream, on_chunk=on_chunk)


def _ends_stream(end: bytes) -> bool:
    """Check whether a stream ends with the event `[DONE]`."""
    line = end.rstrip(b"\r\n")
    if len(line) == len(end):
        return False
    line = line[max(line.rfind(b"\n"), line.rfind(b"\r")) + 1 :]
    return line.startswith(b"data:") and line[5:].strip() == DONE.encode()


def parts_of(raw: bytes, wire: Wire) -> Any:
    """Return the body of an answer as a wire other than JSON gives it.

    Raises:
        ConfigurationError: there is no such wire.
    """
    if callable(wire):
        with contextlib.suppress(ValueError):
            return list(wire().add(raw))
        return []
    if wire == "bytes":
        return raw
    if wire == "lines":
        return lines_in(raw)
    if wire == "events":
        return list(events_in(raw))
    raise ConfigurationError(f"there is no wire {wire!r}", hint="it is json, bytes, lines or events")


def lines_in(raw: bytes) -> list[bytes]:
    """Return the lines of a body, without their ends and without empty ones."""
    return [line for line in raw.splitlines() if line.strip()]


def looks_like_events(raw: bytes) -> bool:
    """Check whether a body is a stream of events, whatever its headers say."""
    start = raw[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith((b"data:", b"event:", b"id:", b"retry:", b":"))


class LineReader:
    """Takes a body in any pieces, and gives its lines without their ends."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._after_return = False

    def add(self, chunk: bytes) -> list[bytes]:
        """Return the lines that a further piece of the body ends."""
        if self._after_return and chunk:  # its newline may come in the next piece
            chunk, self._after_return = chunk.removeprefix(b"\n"), False
        if b"\n" not in chunk and b"\r" not in chunk:
            self._rest.append(chunk)
            return []
        self._after_return = chunk.endswith(b"\r")
        *lines, rest = _LINE_END.split(b"".join([*self._rest, chunk]))
        self._rest = [rest]
        return lines


class EventReader:
    """Takes a stream of events in any pieces, and gives its events as soon as each has its empty line."""

    def __init__(self) -> None:
        self._lines = LineReader()
        self._is_first = True
        self._data: list[str] = []
        self._name = self._id = ""

    def add(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Yield the events that a further piece of the body ends; comments and unknown fields are skipped."""
        for line in self._lines.add(chunk):
            text = line.decode("utf-8-sig" if self._is_first else "utf-8", "replace")
            self._is_first = False
            if text:
                self._field(text)
                continue
            if self._data:
                yield ServerEvent("\n".join(self._data), self._name, self._id)
            self._data, self._name = [], ""

    def _field(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id":
            self._id = value


def events_in(raw: bytes) -> Iterator[ServerEvent]:
    """Yield the events of a stream, to `[DONE]` if it is there; the last may lack its empty line."""
    for event in EventReader().add(raw + b"\n\n"):
        yield event
        if event.data.strip() == DONE:
            return


def json_of_events(raw: bytes) -> list[Any]:
    """Return the data of each event of a stream as JSON types; a last one that was cut off is left out.

    Raises:
        ValueError: another one is not JSON, or none is.
    """
    values: list[Any] = []
    cut: ValueError | None = None
    for event in events_in(raw):
        if cut is not None:
            raise cut
        try:
            values.append(event.json())
        except ValueError as error:
            cut = error
    if cut is not None and not values:
        raise cut
    return values


def json_of_lines(raw: bytes) -> list[Any]:
    """Return the objects of a stream that has one on each line; a last one that was cut off is left out.

    Raises:
        ValueError: it is no such stream, of at least two objects.
    """
    values: list[Any] = []
    lines = lines_in(raw)
    for place, line in enumerate(lines, 1):
        try:
            values.append(loads(line))
        except ValueError:
            if place < len(lines):
                raise
    if len(values) < 2 or not all(isinstance(value, dict) for value in values):
        raise ValueError("it does not have an object on each line")
    return values
