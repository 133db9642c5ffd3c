"""What a command reads from files for its prompts: a template, a system message, the form of the answers."""

from __future__ import annotations

import codecs
from os import PathLike
from pathlib import Path
from typing import Any

from stillhouse._settings.serialization import parse_document
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.prompts.short_schemas import is_short_schema, short_schema
from stillhouse.structured.answers import value_problem
from stillhouse.structured.schema import subschemas
from stillhouse.structured.shape import normalize_structured_output
from stillhouse.typing import StructuredOutput

__all__ = ["form_of", "names_a_file", "read_text"]

MAX_BYTES = 10_000_000
"""How long such a file may be."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: str | PathLike[str], option: str) -> str:
    """Return the text of a file, without the end of its last line, which is the editor's.

    Args:
        path: the file.
        option: names it in messages.

    Raises:
        ConfigurationError: it cannot be read, is not a text, or is empty.
    """
    text = _decoded(_bytes_of(path, option), path, option).replace("\r\n", "\n")
    text = text.removesuffix("\n")
    if not text:
        raise ConfigurationError(f"{option}: {path} is empty", hint="give a file with a text")
    return text


def names_a_file(text: str) -> str | None:
    """Return the file that a text names, where it is the name of one and not a text to send."""
    name = text.removeprefix("@")
    if not name or any(letter.isspace() for letter in text) or len(text) > 1000:
        return None
    try:
        is_file = Path(name).is_file()
    except (OSError, ValueError):
        is_file = False
    return name if is_file else None


def form_of(schema: Any) -> StructuredOutput:
    """Return the form of the answers.

    Args:
        schema: a file with a JSON schema, as JSON or YAML, or the fields in a line; from Python also the
            schema, or a pydantic class.

    Raises:
        ConfigurationError: the file cannot be read, or the schema is none; the message says where.
    """
    name = "schema"
    if is_short_schema(schema):
        schema = short_schema(schema)
    elif isinstance(schema, (str, PathLike)):
        name = f"--schema {schema}"
        raw = _bytes_of(schema, "--schema")
        suffix = Path(schema).suffix.lower()
        try:
            document = parse_document(
                _decoded(raw, schema, "--schema"), "yaml" if suffix in (".yaml", ".yml") else "json"
            )
        except ValueError as error:
            raise ConfigurationError(f"{name} {error}", hint="correct the file") from None
        _check_document(document, name)
        schema = document
    form = normalize_structured_output({"format": "json", "schema": schema})
    assert form is not None
    try:
        value_problem(form["schema"])
        _check_references(form["schema"])
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error.message}", hint=error.hint) from None
    return form


def _check_document(document: Any, name: str) -> None:
    """Refuse what is no JSON schema, although a checker of schemas lets it pass."""
    if not isinstance(document, dict):
        raise ConfigurationError(
            f"{name}: it holds no JSON schema, which is an object",
            hint='write {"type": "object", "properties": …}',
        )
    inner = document.get("schema", document.get("json_schema"))
    if isinstance(inner, dict) and not {"properties", "$ref", "anyOf", "items", "enum"} & {*document}:
        raise ConfigurationError(
            f"{name}: the schema lies in the file as a part of something else",
            hint="give a file with the schema alone",
        )


def _check_references(schema: dict[str, Any]) -> None:
    """Refuse a reference that leads nowhere, which only an answer would show."""
    for place, part in subschemas(schema):
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/") and not _leads(schema, reference):
            raise ConfigurationError(
                f"the JSON schema is not valid at {place}: {reference!r} leads nowhere",
                hint="correct the schema",
            )


def _leads(schema: Any, reference: str) -> bool:
    for step in reference.removeprefix("#/").split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and key.isdecimal() and int(key) < len(schema):
            schema = schema[int(key)]
        elif isinstance(schema, dict) and key in schema:
            schema = schema[key]
        else:
            return "%" in key  # written as in an address, which the checker of answers reads
    return True


def _bytes_of(path: str | PathLike[str], option: str) -> bytes:
    if not str(path):
        raise ConfigurationError(f"{option} is empty", hint="give the path of a file")
    try:
        with Path(path).open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ConfigurationError(f"{option}: {path} is a folder", hint="give the path of a file") from None
    except OSError as error:
        raise ConfigurationError(
            f"{option}: {path} cannot be read: {error.strerror}", hint="check the path"
        ) from None
    except ValueError:
        raise ConfigurationError(
            f"{option}: {str(path)!r} is not a path", hint="leave out the NUL character"
        ) from None
    if len(raw) > MAX_BYTES:
        raise ConfigurationError(f"{option}: {path} has more than {MAX_BYTES:,} bytes", hint="check the path")
    return raw


def _decoded(raw: bytes, path: str | PathLike[str], option: str) -> str:
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{option}: {path} is not a text file in UTF-8", hint="check the path"
        ) from None
