"""An answer that LiteLLM streams: its pieces as they come, and its chunks as one answer."""

from __future__ import annotations

import contextlib
from typing import Any

from stillhouse import GenerationError
from stillhouse.typing import OnPiece
from stillhouse_openai.streams import answer_of_events, piece_of_event

__all__ = ["BrokenStreamError", "read_stream"]


class BrokenStreamError(Exception):
    """A stream failed after a piece of it was given, so that it must not be repeated; the cause says how."""


async def read_stream(stream: Any, on_piece: OnPiece) -> dict[str, Any]:
    """Read a stream to its end, and return the answer that would have come in one piece, as JSON types.

    Args:
        stream: what `acompletion` returns for a stream. It is closed.
        on_piece: takes each piece of the text.

    Raises:
        BrokenStreamError: it failed after a piece was given; what fails before that is raised as it is.
    """
    chunks: list[dict[str, Any]] = []
    has_given = False
    try:
        async for chunk in stream:
            chunks.append(chunk.model_dump(warnings=False))
            with contextlib.suppress(AttributeError, LookupError, TypeError):
                piece = piece_of_event(chunks[-1])
                if isinstance(piece, str) and piece:
                    has_given = True
                    on_piece(piece)
        # LiteLLM itself adds a finish reason where the provider sent none.
        if getattr(stream, "received_finish_reason", "") is None:
            raise GenerationError("the stream ended before its answer did", kind="connection")
        return _joined(chunks)
    except Exception as error:
        if "before a finish_reason" in str(error):  # LiteLLM's words
            error = GenerationError("the stream ended before its answer did", kind="connection")
        if has_given:
            raise BrokenStreamError from error
        raise error
    finally:
        if (close := getattr(stream, "aclose", None)) is not None:
            with contextlib.suppress(Exception):  # of the connection, which is broken then
                await close()


def _joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the chunks, with what LiteLLM adds to them: blocks of thoughts, and the provider's own fields."""
    answer = answer_of_events(chunks, ended=True)
    usage = answer.get("usage") or {}
    details = usage.get("completion_tokens_details") or {}
    if details.get("reasoning_tokens") == 0:  # LiteLLM writes it where the provider says nothing
        answer["usage"] = {**usage, "completion_tokens_details": None}
    fields: dict[str, Any] = {}
    blocks: list[dict[str, Any]] = []
    for chunk in chunks:
        for choice in chunk.get("choices") or ():
            fields |= choice.get("provider_specific_fields") or {}
            for block in (choice.get("delta") or {}).get("thinking_blocks") or ():
                _add_block(blocks, block)
    for choice in answer.get("choices") or ():
        choice["provider_specific_fields"] = fields or None
        if blocks:
            choice["message"]["thinking_blocks"] = blocks
    return answer


def _add_block(blocks: list[dict[str, Any]], block: dict[str, Any]) -> None:
    """Add a piece of a block of thoughts; a signature ends one."""
    last = blocks[-1] if blocks else {}
    if block.get("type") != "thinking" or last.get("type") != "thinking" or last.get("signature"):
        blocks.append(dict(block))
        return
    last["thinking"] = (last.get("thinking") or "") + (block.get("thinking") or "")
    if block.get("signature"):
        last["signature"] = block["signature"]
