"""A digest of a class's own code, for classes that no installed version stands for.

A class in a notebook or a script is edited and run again under the same name. What its former
code answered is not what its present code would answer.
"""

from __future__ import annotations

import hashlib
from types import CodeType, FunctionType
from typing import Any

__all__ = ["code_digest"]

_CONSTANTS = (str, int, float, complex, bool, bytes, tuple, frozenset, type(None))


def code_digest(cls: type) -> str:
    """A digest of the functions and constants in a class's body, and of what they use by name.

    That is their bytecode, their defaults, and the constants and functions of their own module
    or of an enclosing function that they name. It changes with the version of Python too.
    """
    hash_ = hashlib.sha256()
    for name, value in sorted(vars(cls).items()):
        if name.startswith(("__", "_abc_", "model_")):
            continue
        for part in _unwrapped(value):
            hash_.update(repr((name, _described(part, set()))).encode("utf-8", "backslashreplace"))
    return hash_.hexdigest()


def _unwrapped(value: Any) -> list[Any]:
    """The functions inside a property, a class method or a wrapper; a constant as it is."""
    if isinstance(value, property):
        return [item for item in (value.fget, value.fset) if item is not None]
    if isinstance(value, (classmethod, staticmethod)):
        return _unwrapped(value.__func__)
    if hasattr(value, "func") and not isinstance(value, type):  # a cached property
        return _unwrapped(value.func)
    return [value]


def _described(value: Any, seen: set[int]) -> Any:
    """A value whose `repr` is the same in every process, and differs where the meaning does."""
    if isinstance(value, frozenset):
        return ("frozenset", sorted(repr(_described(item, seen)) for item in value))
    if isinstance(value, tuple):
        return tuple(_described(item, seen) for item in value)
    if isinstance(value, _CONSTANTS):
        return value
    if isinstance(value, CodeType):
        consts = tuple(_described(item, seen) for item in value.co_consts)
        return ("code", value.co_code, value.co_names, consts)
    if isinstance(value, FunctionType):
        return _function(value, seen)
    return type(value).__qualname__


def _function(function: FunctionType, seen: set[int]) -> Any:
    if id(function) in seen:
        return function.__qualname__
    seen.add(id(function))
    cells = [_cell(cell) for cell in function.__closure__ or ()]
    named = [function.__globals__.get(name) for name in _names(function.__code__)]
    used = [
        item
        for item in [*cells, *named]
        if isinstance(item, _CONSTANTS)
        or (isinstance(item, FunctionType) and item.__module__ == function.__module__)
    ]
    return (
        _described(function.__code__, seen),
        _described(function.__defaults__, seen),
        sorted(
            (name, repr(_described(item, seen))) for name, item in (function.__kwdefaults__ or {}).items()
        ),
        [_described(item, seen) for item in used],
    )


def _names(code: CodeType) -> list[str]:
    inner = [name for item in code.co_consts if isinstance(item, CodeType) for name in _names(item)]
    return [*code.co_names, *inner]


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
