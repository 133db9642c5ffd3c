"""A preview of inputs: as lines for a person, and as records for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.inputs import split_input
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.formats.writers import to_json
from stillhouse.jobs.reporting.chats import text_of_part, without_data
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput

__all__ = ["preview_lines", "preview_record"]


def preview_record(row: Row, input: FormattedInput | InputWithArguments | GenerationError) -> dict[str, Any]:
    """Return what is sent for a row: `input`, its `structured_output` and `parameters` if any; or `error`."""
    record: dict[str, Any] = {"row": row.index + 1, "line": row.line}
    if isinstance(input, GenerationError):
        record["error"] = {"kind": input.kind, "message": input.message}
        return record
    own = None
    if isinstance(input, InputWithArguments):
        own, input = input.arguments, input.input
    record["input"], form = split_input(input)
    if form is not None:
        record["structured_output"] = form
    if own is not None:
        record["parameters"] = dict(own)
    plain: dict[str, Any] = json.loads(to_json(record))
    return plain


def preview_lines(row: Row, input: FormattedInput | InputWithArguments | GenerationError) -> Iterator[str]:
    """Return the same as lines, and a blank one at the end. The bytes of images are cut short."""
    record = preview_record(row, input)
    yield (
        f"row {record['row']}"
        if row.typed and row.line == record["row"]
        else f"row {record['row']}, {row.place}"
    )
    if "error" in record:
        yield f"  {record['error']['kind']}: {record['error']['message']}"
    elif isinstance(record["input"], str):
        yield from _part("raw prompt", record["input"])
    else:
        for message in record["input"]:
            more = {key: value for key, value in message.items() if key not in ("role", "content")}
            yield from _part(str(message["role"]), message.get("content"))
            for key, value in more.items():
                yield from _part(f"  {key}", value)
    if "structured_output" in record:
        yield from _part("structured output", record["structured_output"])
    for name, value in record.get("parameters", {}).items():
        yield from _part(name, value)
    yield ""


def _part(name: str, value: Any) -> Iterator[str]:
    parts = value if isinstance(value, list) and all(isinstance(part, dict) for part in value) else [value]
    text = "\n".join(text_of_part(part) for part in parts)
    first, *lines = without_data(text).split("\n")
    yield f"  {name}: {first}"
    for line in lines:
        yield f"  {' ' * len(name)}  {line}"
