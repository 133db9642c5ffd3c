"""Arrow types that are known before there are values: of the results, and of what a JSON schema describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["resolved", "result_types", "type_of_schema"]

# Deeper, the types are found in the values.
_MAX_DEPTH = 16

_NO_SCHEMA: dict[str, Any] = {}


def result_types(*, text: bool = False) -> dict[str, pa.DataType]:
    """Return the types of the columns that every output has, for rows without any values as well.

    Args:
        text: whether the generations are one text instead of a list.
    """
    import pyarrow as pa

    counts = pa.list_(pa.int64())
    return {
        "generations": pa.string() if text else pa.list_(pa.string()),
        "statistics": pa.struct([("input_tokens", counts), ("output_tokens", counts)]),
        "finish_reasons": pa.list_(pa.string()),
        "model_name": pa.string(),
        "error": pa.struct([("kind", pa.string()), ("message", pa.string())]),
    }


def type_of_schema(schema: Any, root: Mapping[str, Any], depth: int = 0) -> pa.DataType | None:
    """Return the type of the values that a JSON schema describes; `None` if their values have to tell.

    Args:
        schema: the schema.
        root: the schema that it is a part of, in which its references are looked up.
        depth: how deep it lies in another one.
    """
    import pyarrow as pa

    schema = resolved(schema, root)
    if depth > _MAX_DEPTH:
        return None
    kinds = _kinds(schema)
    if kinds == {"array"}:
        item = type_of_schema(schema.get("items"), root, depth + 1)
        return None if item is None else pa.list_(item)
    if kinds == {"object"}:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            return None
        fields = {name: type_of_schema(item, root, depth + 1) for name, item in properties.items()}
        return pa.struct([(name, pa.null() if type is None else type) for name, type in fields.items()])
    scalars = {
        frozenset({"string"}): pa.string(),
        frozenset({"boolean"}): pa.bool_(),
        frozenset({"integer"}): pa.int64(),
        frozenset({"number"}): pa.float64(),
        frozenset({"integer", "number"}): pa.float64(),
    }
    return scalars.get(frozenset(kinds))


def resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow the references of a JSON schema within the whole, and the one branch beside null."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(schema, Mapping):
            return _NO_SCHEMA
        reference = schema.get("$ref")
        if isinstance(reference, str):
            schema = _looked_up(reference, root)
            continue
        branches = [
            branch
            for keyword in ("anyOf", "oneOf", "allOf")
            for branch in schema.get(keyword) or ()
            if not (isinstance(branch, Mapping) and branch.get("type") == "null")
        ]
        if len(branches) != 1 or "properties" in schema:
            return schema
        (schema,) = branches
    return _NO_SCHEMA


def _looked_up(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    if reference.startswith("#"):
        for name in reference[1:].split("/")[1:]:
            if not isinstance(found, Mapping):
                return None
            found = found.get(name.replace("~1", "/").replace("~0", "~"))
        return found
    return None


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """Return the JSON types, without null, that the values of a schema may have; none if it does not say."""
    given = schema.get("type")
    if given is not None:
        kinds = given if isinstance(given, list) else [given]
        return {kind for kind in kinds if isinstance(kind, str)} - {"null"}
    values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema.get("const")]
    return {_kind_of(value) for value in values if value is not None}


def _kind_of(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "other")
