"""`SchemaRewriter`: a JSON schema as a provider takes it, or a refusal that names the keyword."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from stillhouse.errors import UnsupportedError
from stillhouse.structured.schema import check_schema

__all__ = ["SchemaRewriter"]


class SchemaRewriter:
    """Writes a JSON schema as a provider takes it: equal in meaning or narrower, or not at all.

    A provider keeps to a part of JSON Schema, and ignores the rest without an error. A subclass says which
    keywords it keeps to, and overrides `keyword` for those that it keeps to in a part of their uses. This
    class follows references, takes apart an `allOf` of one schema, and makes an `anyOf` of a `oneOf` whose
    branches exclude each other.

    Args:
        schema: the JSON schema; it is left alone.
        llm: the name of the LLM, for the message.
    """

    keywords: ClassVar[frozenset[str]]
    """The keywords that the provider keeps to, and those that `keyword` rewrites to others."""

    formats: ClassVar[frozenset[str]] = frozenset()
    """The values of `format` that it keeps to."""

    def __init__(self, schema: dict[str, Any], llm: str) -> None:
        self._root = schema
        self._llm = llm
        self._open: list[str] = []  # the references being followed
        self._definitions: dict[str, Any] = {}
        self._references: dict[str, str] = {}  # the definitions' names, and what they were referred to as

    def run(self) -> dict[str, Any]:
        """Return the schema as the provider takes it.

        Raises:
            UnsupportedError: there is none; it says which keyword, and where.
        """
        check_schema(self._root, self.keywords, self._llm)
        made = self.schema(self._root, "#")
        return {**made, "$defs": self._definitions} if self._definitions else made

    def refusal(self, keyword: str, path: str, why: str, hint: str) -> UnsupportedError:
        """Return the error of a keyword that the provider does not keep to."""
        return UnsupportedError(
            f"{self._llm} cannot honour the keyword {keyword!r} at {path} of the JSON schema: {why}",
            hint=hint,
        )

    def schema(self, schema: Any, path: str) -> dict[str, Any]:
        """Return a schema within the schema, rewritten.

        Args:
            schema: the schema; one that is `True` or `False` is refused.
            path: where it stands, such as `#/properties/name`.
        """
        if not isinstance(schema, dict):
            where, _, keyword = path.rpartition("/")
            raise self.refusal(keyword, where, f"{schema!r} is no object", "name a type")
        asked = schema.keys() & self.keywords
        described = {key: schema[key] for key in ("title", "description") if isinstance(schema.get(key), str)}
        if "$ref" in asked:
            if asked != {"$ref"}:
                raise self.refusal("$ref", path, "others stand beside it", "move them to its definition")
            return {"$ref": self._reference(schema["$ref"], path)}
        if "allOf" in asked:  # a list of one is how some libraries write a reference with a description
            if asked != {"allOf"} or len(schema["allOf"]) != 1:
                raise self.refusal("allOf", path, "more than one must hold", "merge them into one schema")
            inner = self.schema(schema["allOf"][0], f"{path}/allOf/0")
            return inner if "$ref" in inner else {**inner, **described}
        made = dict(described)
        for key in schema:  # in the given order, which is that of the properties in the answer
            if key in asked:
                self.keyword(key, schema, made, path)
        self.finish(schema, made, path)
        return made

    def keyword(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        """Write one keyword of a schema; a subclass overrides it, and calls this one for most keywords.

        Args:
            key: the keyword.
            schema: the schema that has it.
            made: the schema as it is written so far; it is to be changed.
            path: where the schema stands.
        """
        value, here = schema[key], f"{path}/{key}"
        if key in ("anyOf", "oneOf"):
            if key == "oneOf" and not _are_disjoint([self.resolved(branch) for branch in value]):
                raise self.refusal(key, path, "more than one branch may hold", "use anyOf")
            if "anyOf" in made:
                raise self.refusal(key, path, "anyOf stands beside it", "keep one of them")
            made["anyOf"] = [self.schema(item, f"{here}/{place}") for place, item in enumerate(value)]
        elif key == "prefixItems":
            made[key] = [self.schema(item, f"{here}/{place}") for place, item in enumerate(value)]
        elif key == "properties":
            made[key] = {name: self.schema(item, f"{here}/{name}") for name, item in value.items()}
        elif key == "items" or (key == "additionalProperties" and not isinstance(value, bool)):
            made[key] = self.schema(value, here)
        elif key == "format" and value not in self.formats:
            hint = "use a pattern" if "pattern" in self.keywords else "check it yourself"
            raise self.refusal(key, path, f"{value!r} is none that is kept to", hint)
        else:
            made[key] = value

    def finish(self, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        """Look at a schema, all keywords of which are written; this one takes it as it is."""

    def definition(self, reference: str, schema: Any) -> dict[str, Any]:
        """Return a definition, rewritten; it is written once, whatever refers to it."""
        return self.schema(schema, reference)

    def recursion(self, reference: str, path: str) -> None:
        """Refuse a reference that leads back to where it stands, or let it be."""
        raise self.refusal("$ref", path, "it leads back to itself", "spell out as many levels as you need")

    def resolved(self, schema: Any) -> Any:
        """Return the definition that a schema refers to, `None` if it is not there, or the schema itself."""
        if not isinstance(schema, dict) or "$ref" not in schema:
            return schema
        name = _definition_name(schema["$ref"])
        for group in ("$defs", "definitions"):
            if schema["$ref"] == f"#/{group}/{name}":
                return self._root.get(group, {}).get(name)
        return None

    def _reference(self, reference: Any, path: str) -> str:
        """Return the reference to the rewritten definition."""
        name = _definition_name(reference)
        if name is None:
            raise self.refusal("$ref", path, f"{reference!r} is no definition of the schema", "use $defs")
        if reference in self._open:
            self.recursion(reference, path)
            return f"#/$defs/{name}"
        if self._references.setdefault(name, reference) != reference:
            raise self.refusal("$ref", path, f"there are two definitions {name!r}", "rename one of them")
        if name not in self._definitions:
            target = self.resolved({"$ref": reference})
            if target is None:
                raise self.refusal("$ref", path, f"{reference!r} is not there", "add it to $defs")
            self._open.append(reference)
            self._definitions[name] = self.definition(reference, target)
            self._open.pop()
        return f"#/$defs/{name}"


def _definition_name(reference: Any) -> str | None:
    match = re.fullmatch(r"#/(?:\$defs|definitions)/([^/]+)", str(reference))
    return match[1] if match else None


def _are_disjoint(branches: list[Any]) -> bool:
    """Return whether no value fits two branches, by their types or by a property that differs."""
    if not all(isinstance(branch, dict) for branch in branches):
        return False
    types = [branch.get("type") for branch in branches]
    if all(isinstance(item, str) for item in types) and len(set(types)) == len(types):
        return not {"integer", "number"} <= set(types)
    marks = [dict(_marks(branch)) for branch in branches]
    shared = set.intersection(*(set(mark) for mark in marks)) if marks else set()
    return any(len({mark[name] for mark in marks}) == len(marks) for name in shared)


def _marks(branch: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the properties that an object must have with one value only, and that value."""
    if branch.get("type") != "object":
        return
    for name in branch.get("required", ()):
        item = branch.get("properties", {}).get(name)
        if isinstance(item, dict) and isinstance(item.get("const"), str):
            yield name, item["const"]
