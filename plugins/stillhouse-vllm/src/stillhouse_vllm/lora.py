"""Adapters: which there are, and with which one an LLM generates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stillhouse import ConfigurationError

__all__ = ["Adapter", "chosen_adapter", "rank_for"]

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

_NAME = "default"


@dataclass(frozen=True)
class Adapter:
    """An adapter on this machine.

    Attributes:
        name: its name.
        number: its number, from 1.
        path: its folder.
        rank: its rank.
    """

    name: str
    number: int
    path: str
    rank: int


def chosen_adapter(lora: str | Mapping[str, str] | None, name: str | None) -> Adapter | None:
    """The adapter to generate with; `None` for the model alone.

    Args:
        lora: a folder, or several by their names.
        name: which of several.

    Raises:
        ConfigurationError: there is no such adapter, or it is not said which.
    """
    adapters = {_NAME: lora} if isinstance(lora, str) else dict(lora or {})
    if name is None and len(adapters) > 1:
        raise ConfigurationError(
            f"lora has {len(adapters)} adapters, but lora_name is not set",
            hint=f"set lora_name to one of {', '.join(adapters)}",
        )
    if name is None:
        name = next(iter(adapters), None)
        if name is None:
            return None
    if name not in adapters:
        raise ConfigurationError(
            f"there is no adapter {name!r}",
            hint=f"lora has {', '.join(adapters)}" if adapters else "give the adapter's folder as lora",
        )
    path = Path(adapters[name]).expanduser()
    return Adapter(name, list(adapters).index(name) + 1, str(path.absolute()), _rank(path))


def rank_for(adapter: Adapter) -> int:
    """The rank to prepare the engine for: it knows only some."""
    return next((rank for rank in _RANKS if rank >= adapter.rank), adapter.rank)


def _rank(path: Path) -> int:
    try:
        found = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        return int(found["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is not an adapter: its adapter_config.json cannot be read ({type(error).__name__})",
            hint="give the folder that has adapter_config.json and adapter_model.safetensors in it",
        ) from None
