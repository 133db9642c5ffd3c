"""`identity`: what an LLM adds to the digest of its outputs: its class, version and settings."""

from __future__ import annotations

import os
import weakref
from typing import Any

from stillhouse import LLM, shaping_fields
from stillhouse.errors import ConfigurationError
from stillhouse.protocols import Backends
from stillhouse_cache.code import code_digest
from stillhouse_cache.plain import plain

__all__ = ["identity"]

# The installed versions behind a class do not change while a process runs.
_versions: weakref.WeakKeyDictionary[type, list[tuple[str, str]]] = weakref.WeakKeyDictionary()


def identity(llm: LLM) -> dict[str, Any]:
    """Everything of an LLM that shapes its outputs, as JSON types.

    Raises:
        ConfigurationError: a field holds an object for which no stable digest can be computed.
    """
    return _identity(llm, llm.registry, shaping_fields(llm))


def _identity(llm: LLM, registry: Backends, fields: list[str]) -> dict[str, Any]:
    def inside(inner: LLM) -> dict[str, Any]:
        # The arguments of a call on the outer LLM say nothing of the inner one's.
        return _identity(inner, registry, [*shaping_fields(inner), "generation_kwargs"])

    cls = type(llm)
    return {
        "classes": [_class(item, registry) for item in _own_classes(cls)],
        "model_name": llm.model_name,
        "settings": {name: plain(getattr(llm, name), f"{cls.__name__}.{name}", inside) for name in fields},
        "files": {name: stamp for name in fields if (stamp := _stamp(name, getattr(llm, name)))},
    }


def _own_classes(cls: type) -> list[type]:
    """The class, and the bases of it that are not the contract itself."""
    contract = {"abc", "builtins", "pydantic", "stillhouse", "typing"}
    bases = [item for item in cls.__mro__[1:] if item.__module__.partition(".")[0] not in contract]
    return [cls, *bases]


def _class(cls: type, registry: Backends) -> list[Any]:
    versions = _versions.get(cls)
    if versions is None:
        versions = _versions[cls] = _installed_versions(cls, registry)
    # Without a version, the code itself must distinguish one state of it from another.
    state = versions or code_digest(cls)
    return [f"{cls.__module__}:{cls.__qualname__}", state]


def _installed_versions(cls: type, registry: Backends) -> list[tuple[str, str]]:
    """Name and version of the distributions with plugins whose package the class stands in."""
    top = cls.__module__.partition(".")[0]
    return sorted({
        (candidate.distribution, candidate.version)
        for candidate in (info.candidate for info in registry.plugins())
        if candidate.distribution and candidate.value.partition(":")[0].strip().partition(".")[0] == top
    })  # fmt: skip


def _stamp(name: str, value: Any) -> list[Any] | None:
    """Sizes and times of the file that a field names, which may be replaced under the same path.

    A folder counts for the field `model` alone, by the files that lie directly in it.
    """
    if not isinstance(value, (str, os.PathLike)) or not value:
        return None
    path = os.fspath(value)
    try:
        if os.path.isfile(path):  # noqa: PTH113  # `value` is seldom a path at all
            status = os.stat(path)  # noqa: PTH116
            return [status.st_size, status.st_mtime_ns]
        if name == "model" and os.path.isdir(path):  # noqa: PTH112
            with os.scandir(path) as entries:
                return sorted(
                    [entry.name, entry.stat().st_size, entry.stat().st_mtime_ns]
                    for entry in entries
                    if entry.is_file()
                )
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise ConfigurationError(
                f"{name} names {path}, which cannot be read: {error.strerror}", hint="check its permissions"
            ) from None
    return None
