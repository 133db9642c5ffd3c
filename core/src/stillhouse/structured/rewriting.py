"""`SchemaRewriter`: rewrites a JSON schema for a provider, or rejects it and names the keyword."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple
from urllib.parse import unquote

from stillhouse.errors import UnsupportedError
from stillhouse.structured.schema import are_texts, check_schema, has_right_type, is_too_deep

__all__ = ["SchemaRewriter"]

_REFERENCE = re.compile(r"#/(\$defs|definitions)/([^/]+)")

_ODD_IN_NAME = re.compile(r"[^\w.-]")
"""What a reference has to escape, and providers read in different ways."""


_MAX_SHOWN = 40


class _Link(NamedTuple):
    """A reference from one definition, or from the root, to another."""

    target: str
    reference: str
    path: str


class SchemaRewriter:
    """Rewrites a JSON schema for a provider: to an equivalent or narrower one, or not at all.

    A provider enforces a part of JSON Schema, and ignores the rest without an error. A subclass lists the
    keywords that are enforced, and overrides `keyword` for those that are enforced only in some uses. This
    class resolves references, unwraps an `allOf` of one schema, and turns a `oneOf` whose branches exclude
    each other into an `anyOf`.

    Args:
        schema: the JSON schema; it is not changed.
        llm: the name of the LLM, for the message.
    """

    keywords: ClassVar[frozenset[str]]
    """The keywords that the provider enforces, and those that `keyword` rewrites to others."""

    formats: ClassVar[frozenset[str]] = frozenset()
    """The values of `format` that the provider enforces."""

    alone: ClassVar[tuple[str, ...]] = ()
    """The keywords next to which the provider enforces no other keyword except `type`."""

    def __init__(self, schema: dict[str, Any], llm: str) -> None:
        self._root = schema
        self._llm = llm
        self._names: dict[tuple[str, str], str] = {}  # of definitions, by where they stand
        self._waiting: deque[tuple[str, str, Any]] = deque()  # those to be written
        self._links: dict[str, list[_Link]] = {"": []}  # from each definition, and from the root
        self._here = ""  # the definition that is being written

    def run(self) -> dict[str, Any]:
        """Return the rewritten schema.

        Raises:
            UnsupportedError: the schema cannot be rewritten; the message names the keyword and its place.
        """
        try:
            if is_too_deep(self._root):
                raise RecursionError
            check_schema(self._root, self.keywords, self._llm)
            made = self.schema(self._root, "#")
            definitions: dict[str, Any] = {}
            while self._waiting:  # not where they are referred to: a chain of them may be long
                self._here, reference, target = self._waiting.popleft()
                definitions[self._here] = self.definition(reference, target)
        except RecursionError:
            raise UnsupportedError(
                f"{self._llm} cannot honour the JSON schema: it is nested too deeply",
                hint="move parts of it into $defs",
            ) from None
        self._check_recursion()
        return {**made, "$defs": definitions} if definitions else made

    def refusal(self, keyword: str, path: str, why: str, hint: str) -> UnsupportedError:
        """Return the error for a keyword that the provider does not enforce."""
        return UnsupportedError(
            f"{self._llm} cannot honour the keyword {keyword!r} at {path} of the JSON schema: {why}",
            hint=hint,
        )

    def schema(self, schema: Any, path: str) -> dict[str, Any]:
        """Rewrite a schema within the schema.

        Args:
            schema: the inner schema; `True` and `False` are rejected.
            path: its place, such as `#/properties/name`.
        """
        if not isinstance(schema, dict):
            raise UnsupportedError(
                f"{self._llm} cannot honour the JSON schema at {path}: {_shown(schema)} is no object",
                hint="write a schema with a type",
            )
        asked = schema.keys() & self.keywords
        for key in asked:
            if not has_right_type(key, schema[key]):
                raise self.refusal(
                    key, path, f"its value is {_shown(schema[key])}", "write it as JSON Schema 2020-12 has it"
                )
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
        """Rewrite one keyword of a schema. A subclass overrides it, and calls this method for most keywords.

        Args:
            key: the keyword.
            schema: the schema that has the keyword.
            made: the new schema so far, to which the keyword is added.
            path: the place of the schema.
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
            if not isinstance(value, dict):
                raise self.refusal(key, path, f"{_shown(value)} is no object", "write a schema with a type")
            made[key] = self.schema(value, here)
        elif key == "format" and value not in self.formats:
            hint = "use a pattern" if "pattern" in self.keywords else "check it yourself"
            raise self.refusal(key, path, f"{value!r} cannot be enforced", hint)
        else:
            made[key] = value

    def finish(self, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        """Check a rewritten schema. This method rejects keywords next to those in `alone`."""
        for key in self.alone:
            beside = sorted(made.keys() & self.keywords - {key, "type"})
            if key in made and beside:
                raise self.refusal(beside[0], path, f"{key} stands beside it", "write it in one place")

    def definition(self, reference: str, schema: Any) -> dict[str, Any]:
        """Rewrite a definition; it is rewritten once, however many references it has."""
        return self.schema(schema, reference)

    def is_bound(self) -> bool:
        """Return whether a reference at this place counts towards a recursion.

        A recursion that contains a reference that does not count is allowed.
        """
        return True

    def recursion(self, reference: str, path: str) -> None:
        """Reject a recursive reference, or allow it."""
        raise self.refusal("$ref", path, "it leads back to itself", "spell out as many levels as you need")

    def resolved(self, schema: Any) -> Any:
        """Return the definition that a schema refers to (`None` if missing), or the schema itself."""
        if not isinstance(schema, dict) or "$ref" not in schema:
            return schema
        place = _place_of(schema["$ref"])
        group = None if place is None else self._root.get(place[0])
        return group.get(place[1]) if isinstance(group, dict) and place else None

    def _reference(self, reference: str, path: str) -> str:
        """Return the reference to the rewritten definition."""
        place = _place_of(reference)
        if place is None:
            raise self.refusal(
                "$ref", path, f"{_shown(reference)} is no definition of the schema", "use #/$defs/NAME"
            )
        name = self._names.get(place)
        if name is None:
            target = self.resolved({"$ref": reference})
            if target is None:
                raise self.refusal("$ref", path, f"{_shown(reference)} is not there", "add it to $defs")
            name = self._new_name(place[1])
            self._names[place] = name
            self._links[name] = []
            self._waiting.append((name, reference, target))
        if self.is_bound():
            self._links[self._here].append(_Link(name, reference, path))
        return f"#/$defs/{name}"

    def _new_name(self, name: str) -> str:
        """Return a name of its own for a definition, without anything that a reference has to escape."""
        new = _ODD_IN_NAME.sub("_", name)
        while new in self._links:
            new = f"{new}_{len(self._links)}"
        return new

    def _check_recursion(self) -> None:
        """Let `recursion` look at each reference that closes a circle, without recursion of our own."""
        is_open = dict.fromkeys(self._links, False)
        seen: set[str] = set()
        for start in self._links:
            if start in seen:
                continue
            seen.add(start)
            is_open[start] = True
            trail = [(start, iter(self._links[start]))]
            while trail:
                name, links = trail[-1]
                link = next(links, None)
                if link is None:
                    is_open[name] = False
                    trail.pop()
                elif is_open[link.target]:
                    self.recursion(link.reference, link.path)
                elif link.target not in seen:
                    seen.add(link.target)
                    is_open[link.target] = True
                    trail.append((link.target, iter(self._links[link.target])))


def _place_of(reference: Any) -> tuple[str, str] | None:
    """Return the group of definitions and the name that a reference leads to."""
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    return (match[1], unquote(match[2]).replace("~1", "/").replace("~0", "~")) if match else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]} …"


def _are_disjoint(branches: list[Any]) -> bool:
    """Return whether no value fits two branches, by types, by constants, or by a property that differs."""
    if not all(isinstance(branch, dict) for branch in branches):
        return False
    types = [branch.get("type") for branch in branches]
    if all(isinstance(item, str) for item in types) and len(set(types)) == len(types):
        return not {"integer", "number"} <= set(types)
    texts = [found for branch in branches if (found := _texts(branch)) is not None]
    if len(texts) == len(branches):
        return _do_not_meet(texts)
    marks = [dict(_marks(branch)) for branch in branches]
    shared = set.intersection(*(set(mark) for mark in marks)) if marks else set()
    return any(_do_not_meet([mark[name] for mark in marks]) for name in shared)


def _do_not_meet(sets: Sequence[frozenset[str]]) -> bool:
    return len(frozenset().union(*sets)) == sum(map(len, sets))


def _texts(schema: dict[str, Any]) -> frozenset[str] | None:
    """Return the texts that alone fit a schema; `None` if other values may fit."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return frozenset(values) if isinstance(values, list) and are_texts(values) else None


def _marks(branch: dict[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the properties that an object must have with certain texts only, and these texts."""
    properties, required = branch.get("properties"), branch.get("required", [])
    if branch.get("type") != "object" or not isinstance(properties, dict) or not are_texts(required):
        return
    for name in required:
        item = properties.get(name)
        texts = _texts(item) if isinstance(item, dict) else None
        if texts is not None:
            yield name, texts
