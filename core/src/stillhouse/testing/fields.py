"""What the type of a field says: whether it holds a secret, whether it takes plain values."""

from __future__ import annotations

import inspect
import typing
from typing import Any

from pydantic import SecretBytes, SecretStr
from pydantic.fields import FieldInfo

__all__ = ["SECRET", "holds_secret", "is_plain", "is_secret", "secret_for"]

SECRET = "sk-a1b2c3d4e5"  # noqa: S105
"""Given to every field that takes a secret, and searched for everywhere; so short that pydantic quotes it."""


def secret_for(field: FieldInfo) -> SecretStr | SecretBytes:
    """Return `SECRET` as the type that the field takes."""
    is_bytes = _mentions(field.annotation, (SecretBytes,))
    return SecretBytes(SECRET.encode()) if is_bytes else SecretStr(SECRET)


def holds_secret(field: FieldInfo) -> bool:
    """Return whether there is a secret anywhere in the type of the field."""
    return _mentions(field.annotation, (SecretStr, SecretBytes))


def is_secret(field: FieldInfo) -> bool:
    """Return whether the field itself is a secret, and not a dict or a list with one."""
    return holds_secret(field) and not _mentions(field.annotation, (dict, list, tuple))


def _mentions(annotation: Any, classes: tuple[type, ...]) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, classes):
        return True
    if typing.get_origin(annotation) in classes:
        return True
    return any(_mentions(argument, classes) for argument in typing.get_args(annotation))


def is_plain(field: FieldInfo) -> bool:
    """Return whether the field takes numbers, texts, truth values and `None`, and nothing else."""
    kinds = _kinds(field.annotation)
    return bool(kinds) and kinds <= {int, float, str, bool, type(None)}


def _kinds(annotation: Any) -> set[Any]:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        return _kinds(arguments[0])
    if arguments and typing.get_origin(annotation) is not typing.Literal:
        if (
            inspect.isclass(typing.get_origin(annotation))
            and typing.get_origin(annotation).__module__ != "types"
        ):
            return {typing.get_origin(annotation)}  # a list, a dict, …
        return set().union(*(_kinds(argument) for argument in arguments))
    return {annotation} if inspect.isclass(annotation) else {object}
