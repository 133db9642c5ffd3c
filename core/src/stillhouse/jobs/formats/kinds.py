"""`kind_of`: what a file is, from its name and its first bytes, which are believed where they differ."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.content import HEAD_BYTES, Content
from stillhouse.jobs.prompts.shapes import CHATS

__all__ = ["SUFFIXES", "Kind", "is_data", "kind_of"]

Kind = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow"]

SUFFIXES: dict[str, Kind] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
"""The suffixes of files with rows, each also with .gz or .zst after it."""

_COMPRESSED = (".gz", ".zst", ".zstd")

_NAMES = {
    "jsonl": "JSONL", "json": "a JSON array", "csv": "CSV", "tsv": "TSV", "parquet": "Parquet",
    "arrow": "Arrow",
}  # fmt: skip

_TABLES: tuple[tuple[bytes, Kind], ...] = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"))

_OTHERS = (
    (b"PK\x05\x06", "an empty zip archive", "give a file with rows"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "save it as CSV"),
    (b"\x1f\x8b", "compressed twice", "decompress it once"),
    (b"\x28\xb5\x2f\xfd", "compressed twice", "decompress it once"),
    (b"BZh", "compressed with bzip2", "decompress it, or compress it with gzip"),
    (b"\xfd7zXZ\x00", "compressed with xz", "decompress it, or compress it with gzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"\x04\x22\x4d\x18", "compressed with LZ4", "decompress it, or compress it with gzip"),
    (b"SQLite format 3\x00", "an SQLite database", "export the rows as CSV"),
    (b"%PDF-", "a PDF document", "give a file with rows"),
    (b"Obj\x01", "an Avro file", "write the rows as Parquet"),
    (b"ORC", "an ORC file", "write the rows as Parquet"),
    (b"\x93NUMPY", "a NumPy array", "write the rows as Parquet"),
    (b"\x89HDF", "an HDF5 file", "write the rows as Parquet"),
    (b"\x89PNG", "a PNG image", "give a file with rows"),
    (b"\xff\xd8\xff", "a JPEG image", "give a file with rows"),
    (
        b"version https://git-lfs.github.com/",
        "the pointer of Git LFS, not the file",
        "fetch it: git lfs pull",
    ),
)
_ZIPPED = (
    (b"xl/", "an Excel workbook", "save it as CSV"),
    (b"word/", "a Word document", "give a file with rows"),
    (b"ppt/", "a PowerPoint presentation", "give a file with rows"),
    (b"opendocument.spreadsheet", "an OpenDocument spreadsheet", "save it as CSV"),
    (b"opendocument", "an OpenDocument file", "give a file with rows"),
    (b"", "a zip archive", "unpack it"),
)
"""What a zip archive is, by what is in its first bytes."""

_LINES = 100
"""How many of the first lines show what a text is."""

# An object with a list of objects in it, and before that texts, numbers and the like at most.
_LIST_WITHIN = re.compile(
    rb'\{\s*(?:"[^"\\]*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[\w.+-]+)\s*,\s*)*"([A-Za-z_]\w*)"\s*:\s*\[\s*\{'
)
_HTML = re.compile(rb"\s*<(?:!doctype|html|head|\?xml)", re.IGNORECASE)


def is_data(path: str) -> bool:
    """Whether a file has rows, by its name."""
    name = Path(path).name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).suffix in SUFFIXES


def kind_of(content: Content) -> Kind | None:
    """Return what a file is; it says so where its name promises something else.

    Returns:
        `None` if its name is not known, and its content is not one that shows what it is.

    Raises:
        ConfigurationError: it is nothing that has rows, or not what its name says.
    """
    first = content.first
    named: Kind | None = "jsonl" if content.path == "-" else SUFFIXES.get(content.suffix)
    for magic, kind in _TABLES:
        if first.startswith(magic):
            return _said(content, named, kind)
    for magic, what, remedy in _OTHERS:
        if first.startswith(magic):
            raise _other(content, what, remedy)
    if first.startswith(b"PK\x03\x04"):
        raise _other(content, *next((what, remedy) for mark, what, remedy in _ZIPPED if mark in first))
    if first[257:262] == b"ustar":
        raise _other(content, "a tar archive", "unpack it")
    if first and not first.strip(b"\0"):
        raise _other(content, "filled with zero bytes", "copy, download or write it again")
    if _HTML.match(content.head):
        raise _other(content, "a page of HTML or XML", "check where it came from: it may be a login page")
    if named in ("parquet", "arrow") or named is None:
        return named
    if not content.head.strip():
        return "jsonl" if named == "json" else named
    return _said(content, named, _text_kind(content, named))


def _text_kind(content: Content, named: Kind) -> Kind:
    """Return what a text is: JSONL, a JSON array, or what it is named."""
    head = content.head.lstrip()
    first = head[:1]
    if first == b"[" and (named in ("jsonl", "json") or head[1:].lstrip()[:1] == b"{"):
        return "jsonl" if _are_lines(head) else "json"
    if named in ("csv", "tsv"):
        return "jsonl" if first == b"{" and _is_json(head.partition(b"\n")[0], dict) else named
    lines = [line for line in head.split(b"\n")[:_LINES] if line.strip()]
    if first == b"{":
        _check_objects(content, named, lines)
        return "jsonl"
    if named == "json" or (
        len(lines) > 1 and not any(line.lstrip()[:1] in b"{[" or _is_json(line) for line in lines)
    ):
        raise ConfigurationError(
            f"{content.name} holds no JSON objects: it begins {_beginning(lines[0])}",
            hint="give it the suffix of what it is, such as .csv",
        )
    return named


def _are_lines(head: bytes) -> bool:
    """Whether what begins with a bracket is a file of lists, one on each line: no rows, each told alone."""
    line, _, rest = head.partition(b"\n")
    return bool(rest.strip()) and _is_json(line, list)


def _check_objects(content: Content, named: Kind, lines: list[bytes]) -> None:
    """Refuse objects of several lines each, for of JSONL each has one, and an object around the rows."""
    is_whole = len(content.head) < HEAD_BYTES
    within = _LIST_WITHIN.match(content.head.lstrip())
    name = "" if within is None else within[1].decode()
    if _is_json(lines[0], dict):
        if named != "json" or len(lines) > 1 or not is_whole or name in ("", *CHATS):
            return
        if len(json.loads(lines[0])) > 1:
            return
        raise ConfigurationError(
            f"{content.name} is one JSON object, and its rows are within it, in `{name}`",
            hint=f"write an object on each line: jq -c '.{name}[]' FILE",
        )
    if len(lines) == 1 and not is_whole:  # a long line
        return
    if named == "json" or (lines[0].strip() == b"{" and not any(_is_json(line, dict) for line in lines)):
        others = f", or jq -c '.{name}[]' FILE for those in `{name}`" if name else ""
        raise ConfigurationError(
            f"{content.name} is neither an array of JSON objects nor JSONL: its first line, "
            f"{_beginning(lines[0])}, is no object",
            hint=f"write an object on each line: jq -c . FILE{others}",
        )
    if problem := _packed(content.head, lines):
        raise ConfigurationError(
            f"{content.name} is not JSONL: {problem}", hint="write an object on each line: jq -c . FILE"
        )


def _packed(head: bytes, lines: list[bytes]) -> str:
    """Return how the first object is not alone on one line; nothing if it is, or if that is not clear."""
    text = head.decode("utf-8", "replace").lstrip()
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict):
        return ""
    if "\n" in text[:end].strip():
        return "an object takes several lines"
    rest = text[end:].partition("\n")[0].strip()
    is_alone = any(_is_json(line, dict) for line in lines)
    return "several objects are on one line" if rest[:1] in ("{", "[") and not is_alone else ""


def _is_json(line: bytes, wanted: type = object) -> bool:
    try:
        return isinstance(json.loads(line), wanted)
    except (ValueError, RecursionError):
        return False


def _beginning(line: bytes) -> str:
    return repr(line[:40].decode("utf-8", "replace").strip())


def _said(content: Content, named: Kind | None, kind: Kind) -> Kind:
    if named not in (None, kind) and {named, kind} != {"csv", "tsv"}:
        content.found.append(f"it is {_NAMES[kind]}")
    return kind


def _other(content: Content, what: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{content.name} is {what}", hint=remedy)
