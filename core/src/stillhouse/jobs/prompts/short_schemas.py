"""JSON schemas that are written in a line: `name, age int, bio: one sentence`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError, near_matches

__all__ = ["is_short_schema", "short_schema"]

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_MAX_SHOWN = 60
_HINT = "write fields such as 'name, age int, bio: one sentence'"


def is_short_schema(schema: Any) -> bool:
    """Check whether a schema is such a line: a file of this name wins, and a single word is a file's name."""
    if not isinstance(schema, str):
        return False
    is_file_name = Path(schema).suffix.lower() in (".json", ".yaml", ".yml")
    return not is_file_name and re.search(r"[\s,:]", schema) is not None and not _is_file(schema)


def _is_file(name: str) -> bool:
    try:
        Path(name).stat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:  # a text may be longer than a name can be
        return isinstance(error, PermissionError)
    return True


def short_schema(text: str) -> dict[str, Any]:
    """Return the JSON schema of an object with these fields, all of them required.

    Args:
        text: the fields, separated by commas, or by line ends if there are any. Each is a name, a type (`str`
            if there is none) and, after a colon, a description.

    Raises:
        ConfigurationError: a field cannot be read; the message names it.
    """
    properties: dict[str, Any] = {}
    separator = "\n" if "\n" in text.strip() else ","
    for part in text.strip().split(separator):
        words, colon, description = part.partition(":")
        name, *types = words.split() or [""]
        if not part.strip() and separator == "\n":
            continue
        shown = repr(part.strip()[:_MAX_SHOWN])
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"--schema: {shown} does not begin with the name of a field", hint=_HINT)
        if name in properties:
            raise ConfigurationError(f"--schema has the field {name!r} twice", hint="remove one of them")
        if len(types) > 1:
            raise ConfigurationError(
                f"--schema: {shown} has more than a name and a type",
                hint=f"separate fields by commas: {_HINT}",
            )
        kind = types[0] if types else "str"
        if kind not in _TYPES:
            raise ConfigurationError(
                f"--schema: {shown} has the unknown type {kind[:_MAX_SHOWN]!r}",
                hint=near_matches(kind, _TYPES),
            )
        properties[name] = {"type": _TYPES[kind]}
        if colon and description.strip():
            properties[name]["description"] = description.strip()
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
