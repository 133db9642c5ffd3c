"""How much memory there is, and how much sequences need.

On a CPU, MLX does not look whether the system gave it the memory that it asked for: the process would end
without a word. So it is reckoned beforehand, roughly and on the safe side.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Memory", "Needs", "available", "size_text"]

GIB = 2**30

_CGROUPS = Path("/sys/fs/cgroup")

# What is left to everything else in the process.
_RESERVE = 32 * 2**20

# For how many seconds it counts how much is left, where it is so many times what is needed.
_SECONDS = 1.0
_PLENTY = 16

# How often the scores of an attention layer are there at once: as they are, masked, and as probabilities.
# The same goes for what lies between other layers, and for logits.
_COPIES = 3

# Caches grow by so many tokens.
_GROWTH = 256


def available() -> int | None:
    """Return how many more bytes this process may have; `None` if the system does not say.

    A container is limited by its control group, and a batch system limits by `ulimit -v`.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        info = dict(_pairs(Path("/proc/meminfo")))
    except (OSError, ValueError, IndexError):
        return None
    left = [(info.get("MemAvailable:", 0) + info.get("SwapFree:", 0)) * 1024, *_left_in_groups()]
    resource: Any = importlib.import_module("resource")
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        left.append(soft - pages * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(left))


class Memory:
    """The memory that is left. It may be used by one thread."""

    def __init__(self) -> None:
        self._left: int | None = 0
        self._until = 0.0  # when what was seen counts no more

    def require(self, need: int, free: int, what: str) -> None:
        """Refuse what there is not memory enough for.

        Args:
            need: how many bytes it needs.
            free: how many bytes MLX keeps that nobody uses.
            what: it.

        Raises:
            MemoryError: there is too little.
        """
        if need <= free:
            return
        # To ask the system takes a millisecond, so where there is plenty it is asked now and then.
        if time.monotonic() > self._until or (self._left is not None and need > self._left // _PLENTY):
            self._left, self._until = available(), time.monotonic() + _SECONDS
        if self._left is not None and need + _RESERVE > self._left + free:
            raise MemoryError(
                f"{what} need about {size_text(need)} of memory, "
                f"but only {size_text(self._left + free)} are left"
            )


def size_text(count: int) -> str:
    """Return a number of bytes for messages."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"


def _pairs(path: Path) -> Iterator[tuple[str, int]]:
    """The lines of a file that are a name and a number, and perhaps a unit."""
    for line in path.read_text(encoding="ascii").splitlines():
        name, number, *_ = [*line.split(), "", ""]
        if number.isdecimal():
            yield name, int(number)


def _left_in_groups() -> Iterator[int]:
    """What is left in the control groups of this process; pages of files count as free."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, most, used, prefix = _CGROUPS, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            root, most, used, prefix = (
                _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
            )  # fmt: skip
        else:
            continue
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):
            try:
                limit = int((folder / most).read_text(encoding="ascii"))
                usage = int((folder / used).read_text(encoding="ascii"))
                pages = dict(_pairs(folder / "memory.stat"))
                files = (pages.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
                yield limit - usage + sum(files)
            except (OSError, ValueError):
                pass  # there is no such group, or no limit
            if folder == root:
                break


@dataclass(frozen=True)
class Needs:
    """What sequences need.

    Attributes:
        layers: of each part of a cache, how many bytes it takes for a token, and for how many tokens at
            most.
        heads: how many heads attend.
        width: how many numbers a layer has between its two halves.
        step: how many tokens of a prompt are read at once.
    """

    layers: Sequence[tuple[int, int]]
    heads: int
    width: int
    step: int

    @classmethod
    def of(cls, cache: Sequence[Any], config: Any, step: int) -> Needs:
        """Return what sequences need.

        Args:
            cache: of a sequence, with some tokens in it.
            config: of the model.
            step: how many tokens of a prompt are read at once.
        """
        parts = [part for part in (config, config.get("text_config")) if isinstance(part, dict)]

        def greatest(*names: str) -> int:
            found = [part.get(name) for part in parts for name in names]
            return max((value for value in found if isinstance(value, int)), default=0)

        heads = greatest("num_attention_heads", "n_head")
        return cls(tuple(_layers(cache)), heads, greatest("intermediate_size", "hidden_size"), step)

    def of_sequences(self, count: int, tokens: int) -> int:
        """Return what is kept of sequences.

        Args:
            count: how many there are.
            tokens: of the longest; the others are padded.
        """
        tokens = -(-tokens // _GROWTH) * _GROWTH
        return count * sum(each * min(tokens, most) for each, most in self.layers)

    def of_reading(self, count: int, tokens: int) -> int:
        """Return what is needed to read prompts, besides what is kept.

        Args:
            count: how many there are.
            tokens: of the longest.
        """
        return 4 * _COPIES * count * min(self.step, tokens) * (self.heads * tokens + self.width)


def _layers(cache: Sequence[Any]) -> Iterator[tuple[int, int]]:
    for part in cache:
        if hasattr(part, "caches"):
            yield from _layers(part.caches)
            continue
        keys = getattr(part, "keys", None)
        keys = keys[0] if isinstance(keys, (list, tuple)) else keys  # one that is quantized
        if keys is not None and part.nbytes:
            most = getattr(part, "max_size", None) or 2**62
            yield part.nbytes // keys.shape[2], most
