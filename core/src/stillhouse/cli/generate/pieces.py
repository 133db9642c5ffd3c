"""What `stillhouse generate --prompt` prints: the text in pieces, as it comes."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from stillhouse._execution.messages import printable
from stillhouse.cli.output import flush, is_read, print_line, print_note, print_piece

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from stillhouse.llm import LLM
    from stillhouse.typing import FormattedInput, GenerateOutput, StreamItem

__all__ = ["print_stream"]


def print_stream(llm: LLM, input: FormattedInput, arguments: dict[str, Any]) -> GenerateOutput | None:
    """Print the text of one generation as it comes, and return its output.

    Whatever ends it, what was printed ends with a newline. When nobody reads it any more, the request is
    ended, and there is no output.

    Args:
        llm: the LLM, loaded.
        input: the input.
        arguments: the generation parameters.
    """
    stream: Generator[StreamItem, None, None] = llm.stream(input, **arguments)  # type: ignore[assignment]
    has_begun = False
    with _warnings_after():
        try:
            with contextlib.closing(stream) as items:
                for item in items:
                    if not isinstance(item, str):
                        return item
                    print_piece(item)
                    has_begun = True
                    if not is_read():
                        break
        finally:
            if has_begun:
                print_line()
                flush()
    return None


class _Kept(logging.Handler):
    """Keeps the messages of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def _warnings_after() -> Iterator[None]:
    """Print warnings after the block: Python would print them at once, in the middle of the line."""
    logger = logging.getLogger("stillhouse")
    if logger.hasHandlers():  # somebody else prints them
        yield
        return
    kept = _Kept()
    logger.addHandler(kept)
    try:
        yield
    finally:
        logger.removeHandler(kept)
        for message in kept.messages:
            print_note(printable(message, kept="\n"))
