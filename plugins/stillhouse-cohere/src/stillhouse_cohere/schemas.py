"""JSON schemas as the API holds the model to them; see https://docs.cohere.com/docs/structured-outputs."""

from __future__ import annotations

import re
from typing import Any

from stillhouse import UnsupportedError
from stillhouse.structured import check_schema

__all__ = ["FORMATS", "KEYWORDS", "narrowed"]

KEYWORDS = frozenset(
    {
        "$ref", "additionalProperties", "anyOf", "const", "enum", "format", "items", "pattern", "properties",
        "required", "type",
    }
)  # fmt: skip
"""The keywords that the API keeps to, some of them in part."""

FORMATS = ("date", "date-time", "time", "uuid")

_DEFINITIONS = ("$defs", "definitions")
_DESCRIPTIONS = ("title", "description")
_OWN = {
    "array": {"items"},
    "object": {"additionalProperties", "properties", "required"},
    "string": {"format", "pattern"},
}
"""The keywords that say something of values of one type only."""

_PYTHON: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int, float),
    "null": (type(None),),
    "number": (int, float),
    "string": (str,),
}

_ESCAPED = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]", re.DOTALL)
"""What stands for itself in a pattern: an escaped character, and a class of characters."""

_UNKNOWN_IN_PATTERN = re.compile(r"[\^$]|\(\?<?[=!]|\(\?P=")
_UNKNOWN_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\[1-9AbBzZ]")


def narrowed(schema: dict[str, Any], llm: str) -> dict[str, Any]:
    """A schema as the API takes it: every object in it has a property that is required.

    It is as narrow as the one given or narrower, so that every answer also validates against that.

    Raises:
        UnsupportedError: the API would not hold an answer to it; it says what, and where.
    """
    check_schema(schema, KEYWORDS, llm)
    return _Narrowing(schema, llm).run()


class _Narrowing:
    def __init__(self, root: dict[str, Any], llm: str) -> None:
        self._root = root
        self._llm = llm

    def _refusal(self, keyword: str, path: str, why: str, hint: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self._llm} cannot honour the keyword {keyword!r} at {path} of the JSON schema: {why}",
            hint=hint,
        )

    def run(self) -> dict[str, Any]:
        root, seen = self._root, set()
        while "$ref" in root:  # as pydantic writes a model that contains itself; the root must be an object
            if root["$ref"] in seen:
                raise self._refusal("$ref", "#", "it leads to itself", "correct the reference")
            seen.add(root["$ref"])
            root = self._resolved(root["$ref"], "#")
        if root.get("type", "object" if "properties" in root else None) not in ("object", ["object"]):
            raise self._refusal(
                "type", "#", "the answer must be an object", "put the schema into a property of an object"
            )
        narrow = self._schema(root, "#")
        definitions = {
            name: self._schema(item, f"#/{key}/{name}")
            for key in _DEFINITIONS
            for name, item in (self._root.get(key) or {}).items()
        }
        return {**narrow, "$defs": definitions} if definitions else narrow

    def _resolved(self, reference: Any, path: str) -> dict[str, Any]:
        """What a reference leads to: a definition, or the root."""
        head, _, name = str(reference).rpartition("/")
        name = name.replace("~1", "/").replace("~0", "~")
        if reference == "#":
            return self._root
        found = (self._root.get(head[2:]) or {}).get(name) if head[2:] in _DEFINITIONS else None
        if not isinstance(found, dict):
            raise self._refusal("$ref", path, f"{reference!r} is no definition of the schema", "use $defs")
        return found

    def _schema(self, given: Any, path: str) -> dict[str, Any]:
        if not isinstance(given, dict) or not given.keys() & KEYWORDS:
            raise self._refusal("type", path, "it is missing, and any value would do", "name a type")
        described = {key: given[key] for key in _DESCRIPTIONS if key in given}
        if "$ref" in given:
            if given.keys() & KEYWORDS != {"$ref"}:
                raise self._refusal("$ref", path, "others stand beside it", "move them to its definition")
            self._resolved(given["$ref"], path)
            return {"$ref": given["$ref"].replace("#/definitions/", "#/$defs/"), **described}
        types = given.get("type", ["object"] if "properties" in given else [])
        types = [types] if isinstance(types, str) else list(types)
        if len(types) > 1:
            return {"anyOf": [self._schema(_of_type(given, item), path) for item in types], **described}
        if not types and not given.keys() & {"anyOf", "const", "enum"}:
            raise self._refusal("type", path, "it is missing, and any value would do", "name a type")
        narrow: dict[str, Any] = {"type": types[0]} if types else {}
        for key, value in given.items():
            if key not in ("type", "additionalProperties", "required"):
                self._keyword(key, value, narrow, path)
        if "object" in types:
            self._object(given, narrow, path)
        return narrow

    def _keyword(self, key: str, value: Any, narrow: dict[str, Any], path: str) -> None:
        here = f"{path}/{key}"
        if key == "properties":
            narrow[key] = {name: self._schema(item, f"{here}/{name}") for name, item in value.items()}
        elif key == "anyOf":
            narrow[key] = [self._schema(item, f"{here}/{place}") for place, item in enumerate(value)]
        elif key == "items":
            if value is not True and value != {}:  # any items are the default
                narrow[key] = self._schema(value, here)
        elif key in ("const", "enum"):
            if any(isinstance(item, (dict, list)) for item in (value if key == "enum" else [value])):
                raise self._refusal(
                    key, path, "it has an object or a list", "describe it with properties or items"
                )
            narrow[key] = value
        elif key == "format":
            if value not in FORMATS:
                raise self._refusal(
                    key, path, f"{value!r} is none of {', '.join(FORMATS)}", "use a pattern instead"
                )
            narrow[key] = value
        elif key == "pattern":
            if _UNKNOWN_IN_PATTERN.search(_ESCAPED.sub("", value)) or _UNKNOWN_ESCAPE.search(value):
                raise self._refusal(
                    key, path, "it has ^, $, a lookaround, a word boundary or a reference back",
                    "write it without",
                )  # fmt: skip
            narrow[key] = value
        elif key in _DESCRIPTIONS:
            narrow[key] = value

    def _object(self, given: dict[str, Any], narrow: dict[str, Any], path: str) -> None:
        properties = narrow.get("properties")
        if not properties:
            raise self._refusal(
                "type", path, "an object needs a property that is required", "name the properties"
            )
        others = given.get("additionalProperties")
        if isinstance(others, dict) and others:
            kept_to = {"const", "enum", "format", "items", "pattern", "type"}
            if others.keys() & KEYWORDS - kept_to:
                raise self._refusal(
                    "additionalProperties", path, "it is more than a simple type", "name the properties"
                )
            narrow["additionalProperties"] = self._schema(others, f"{path}/additionalProperties")
        elif others is not None:
            narrow["additionalProperties"] = others is not False
        for name in given.get("required", ()):
            if name not in properties:
                raise self._refusal(
                    "required", path, f"{name!r} is not among the properties", "add the property"
                )
        # What refers to a definition may contain itself, and must be allowed to end.
        simple = [name for name, item in properties.items() if "$ref" not in item]
        narrow["required"] = list(given.get("required", ())) or simple or list(properties)


def _of_type(given: dict[str, Any], name: str) -> dict[str, Any]:
    """What a schema says of values of one of its types."""
    others = {key for kind, keys in _OWN.items() if kind != name for key in keys}
    kept = {
        key: value
        for key, value in given.items()
        if key not in others and key not in (*_DESCRIPTIONS, *_DEFINITIONS)
    }
    kept["type"] = name
    if "enum" in kept:
        kept["enum"] = [item for item in kept["enum"] if _is_of_type(item, name)]
    return kept


def _is_of_type(value: Any, name: str) -> bool:
    return type(value) in _PYTHON.get(name, ())
