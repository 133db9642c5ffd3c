"""What a worker must have in common with the process of the run, and what it gets from there."""

from __future__ import annotations

import io
import os
import pickle
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from pydantic import BaseModel

from stillhouse import LLM, ConfigurationError

__all__ = ["difference", "environment_of", "llms_in", "versions_for"]

_GROUPS = ("stillhouse.llms", "stillhouse.hooks")


def versions_for(llm: bytes) -> dict[str, str]:
    """Return what must be the same on every node: Stillhouse, and the plugins that an LLM is made of.

    Args:
        llm: the LLM, pickled.
    """
    reader = _Reader(io.BytesIO(llm))
    reader.load()
    found = {"stillhouse": metadata.version("stillhouse")}
    for group in _GROUPS:
        for point in metadata.entry_points(group=group):
            if point.dist is not None and point.module.partition(".")[0] in reader.packages:
                found[point.dist.name] = point.dist.version
    return found


class _Reader(pickle.Unpickler):
    """Notes the packages that the classes of a pickle come from, their bases included."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.packages: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)  # made by this process
        for cls in getattr(found, "__mro__", (found,)):
            self.packages.add((getattr(cls, "__module__", None) or module).partition(".")[0])
        return found


def difference(versions: Mapping[str, str], about: Mapping[str, Any]) -> ConfigurationError | None:
    """Return why a worker cannot work for this process, or `None` if it can.

    Args:
        versions: what it must have.
        about: what it says that it is; see `RayActor.about`.
    """
    where = f"on the node {about['node']}"
    here, there = platform.python_version(), str(about["python"])
    if here.split(".")[:2] != there.split(".")[:2]:
        return ConfigurationError(
            f"a worker {where} runs Python {there}, and this command runs Python {here}",
            hint=f"start Ray on that node with Python {'.'.join(here.split('.')[:2])}, "
            f"or run this command with Python {'.'.join(there.split('.')[:2])}",
        )
    for name, version in versions.items():
        installed = about["versions"].get(name)
        if installed != version:
            has = f"{name} is not installed" if installed is None else f"{name} is version {installed}"
            return ConfigurationError(
                f"{where} {has}, and this command uses version {version}",
                hint=f"install {name}=={version} there, for {about['executable']}",
            )
    return None


def llms_in(value: Any) -> Iterator[LLM]:
    """Yield an LLM, and the LLMs in its fields."""
    if isinstance(value, LLM):
        yield value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from llms_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from llms_in(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from llms_in(item)


def environment_of(llm: LLM, names: list[str]) -> dict[str, str]:
    """Return the variables of this process that workers get: those of the backend, and some by name."""
    found = {}
    for member in llms_in(llm):
        key: str | None = getattr(member, "api_key_variable", None)
        address: str | None = getattr(member, "base_url_variable", None)
        configured = getattr(member, "configured_api_key", None)
        if key and configured is not None and getattr(member, "api_key", None) is None:
            value = configured()  # it may come from the keyring of this machine
            if value:
                found[key] = value
        if address and address in os.environ:
            found[address] = os.environ[address]
    found.update({name: os.environ[name] for name in names if name in os.environ})
    return found
