"""Reading the body of a response, within a bound: JSON, bytes, lines, or server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stillhouse._lenient import loads
from stillhouse.errors import ConfigurationError

if TYPE_CHECKING:
    import aiohttp

__all__ = [
    "DONE",
    "ServerEvent",
    "Wire",
    "events_in",
    "json_of_events",
    "json_of_lines",
    "lines_in",
    "looks_like_events",
    "parts_of",
    "read_at_most",
]

Wire = Literal["json", "bytes", "lines", "events"]
"""How the body of an answer is read.

`json` gives its value; `bytes` gives it as it is; `lines` gives a list of its lines, as bytes without
their ends, and without empty ones; `events` gives a list of `ServerEvent`, of which the last is
`[DONE]` where the API ends its streams with that.
"""

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
    response: aiohttp.ClientResponse, max_bytes: int, *, is_stream: bool = False
) -> tuple[bytes, bool]:
    """Read a body of unknown size, and return it with whether it is whole.

    Nothing beyond the bound is kept, and the connection is closed there. A stream of events is read no
    further than its last event, since some servers leave the connection open.
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
        if is_stream:
            end = (end + chunk)[-64:]
            if _ends_stream(end):
                response.close()
                break
    return b"".join(chunks), True


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


def events_in(raw: bytes) -> Iterator[ServerEvent]:
    """Yield the events of a stream, to `[DONE]` if it is there; comments and unknown fields are skipped."""
    data: list[str] = []
    name = id = ""
    text = raw.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    for line in (*text.split("\n"), ""):  # the last event may lack its empty line
        if not line:
            if data:
                whole = "\n".join(data)
                yield ServerEvent(whole, name, id)
                if whole.strip() == DONE:
                    return
            data, name = [], ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id":
            id = value


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
