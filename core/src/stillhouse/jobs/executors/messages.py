"""What the process of a run and its workers tell each other. All of it pickles.

What they say of limits is in `stillhouse._execution.leases`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stillhouse._execution.share import WHOLE, Share

__all__ = [
    "Begin",
    "Check",
    "Checked",
    "Died",
    "End",
    "Ended",
    "Inputs",
    "Log",
    "Quit",
    "Ready",
    "Refused",
    "Results",
    "Setup",
    "Stop",
]


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to a worker: what it needs to start.

    Attributes:
        llm: the pickled LLM, which is not loaded.
        share: the worker's share of the concurrency.
        levels: the loggers whose records the worker passes on, with their levels.
    """

    llm: bytes = field(repr=False)
    share: Share = WHOLE
    levels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Begin:
    """To a worker: generate for the inputs that follow.

    Attributes:
        num_generations: how many generations of each input.
        arguments: generation parameters, as they were given.
        has_arguments: whether inputs may have some of their own.
    """

    num_generations: int
    arguments: dict[str, Any]
    has_arguments: bool


@dataclass(frozen=True, slots=True)
class Inputs:
    """To a worker: inputs, each with its position among those of the run."""

    items: list[tuple[int, Any]]


@dataclass(frozen=True, slots=True)
class End:
    """To a worker: no further inputs follow since `Begin`."""


@dataclass(frozen=True, slots=True)
class Stop:
    """To a worker: end what is in flight, and send nothing more."""


@dataclass(frozen=True, slots=True)
class Check:
    """To a worker: check this input."""

    input: Any


@dataclass(frozen=True, slots=True)
class Quit:
    """To a worker: end, whatever is in flight."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it has loaded the LLM."""


@dataclass(frozen=True, slots=True)
class Refused:
    """From a worker or its handle: it cannot work for this run; for example, it cannot load the LLM."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Checked:
    """From a worker: why it refuses the input to check, or `None`."""

    error: Exception | None


@dataclass(frozen=True, slots=True)
class Results:
    """From a worker: positions, each with its output or its error, and the seconds that it took."""

    finished: list[tuple[int, Any, float]]


@dataclass(frozen=True, slots=True)
class Ended:
    """From a worker: nothing since `Begin` is left to do, or every input would meet an error.

    Attributes:
        error: that error, which ends the run; `None` if all is done.
    """

    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """From a worker: a record of a logger.

    Attributes:
        name: of the logger.
        level: of the record.
        text: what it says.
        place: the attribute `place` of the record, if it has one.
    """

    name: str
    level: int
    text: str
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Died:
    """The last message of a worker, from its handle: the worker is gone.

    Attributes:
        reason: how it ended, such as `killed by SIGKILL`.
    """

    reason: str
