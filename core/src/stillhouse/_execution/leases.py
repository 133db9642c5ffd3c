"""Limits that the process of a run leases to its workers: the messages, and `Leases`, the side of a worker.

The messages pickle. They are few: one holds everything that happened in one turn of a worker's event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Closed", "Leases", "Opened", "Terms", "Used", "current_leases"]


@dataclass(slots=True)
class Opened:
    """From a worker: it has loaded an LLM with these limits.

    Attributes:
        number: counts the LLMs of the worker that have limits, from 0.
        max_concurrency: how many requests may be in flight, of all workers together.
        requests_per_minute: a known quota of all workers together, or `None`.
        tokens_per_minute: the same for tokens.
        part: the worker's part of `max_concurrency`.
    """

    number: int
    max_concurrency: int
    requests_per_minute: float | None
    tokens_per_minute: float | None
    part: int


@dataclass(slots=True)
class Used:
    """From a worker: what has happened to the requests of one LLM since its last message.

    Attributes:
        number: the one of `Opened`.
        turn: the one of the last `Terms` that the worker knew. What it says of permits counts for that turn.
        in_flight: how many requests are in flight, or were at the last overload.
        held: how many permits it holds, in the first message of a turn without slots.
        released: how many permits it returns.
        asked: the requests that wait for permission: a number that identifies each, and its tokens.
        cancelled: the numbers of those that wait no longer.
        accepted: how many requests were accepted.
        corrections: estimated and used tokens of requests.
        quotas: what responses said of quotas: the arguments of `update_quota`, by name.
        congestions: whether it was a refusal, the epoch of its permit, and the wait that was asked for.
    """

    number: int
    turn: int
    in_flight: int
    held: int | None = None
    released: int = 0
    asked: list[tuple[int, int]] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    accepted: int = 0
    corrections: list[tuple[int, int]] = field(default_factory=list)
    quotas: dict[str, tuple[float, float, float, bool]] = field(default_factory=dict)
    congestions: list[tuple[bool, int, float | None]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return self.held is None and not (
            self.released
            or self.asked
            or self.cancelled
            or self.accepted
            or self.corrections
            or self.quotas
            or self.congestions
        )


@dataclass(slots=True)
class Closed:
    """From a worker: an LLM is unloaded.

    Attributes:
        number: the one of `Opened`.
    """

    number: int


@dataclass(slots=True)
class Terms:
    """To a worker: permits, and on which terms further ones are to be had.

    Attributes:
        number: the one of `Opened`.
        turn: counts the changes of the terms. The permits are of the turn before, if this begins one.
        slots: how many requests the worker may have in flight without asking; 0: it asks for each.
        epoch: how many congestions there have been; of permits that the worker gives itself.
        granted: the numbers of requests that may be sent, each with the epoch of its permit.
    """

    number: int
    turn: int
    slots: int
    epoch: int
    granted: list[tuple[int, int]] = field(default_factory=list)


class Leases:
    """The limits of the LLMs of a worker, in the process of the run.

    Args:
        send: sends a message there, in any thread, without waiting; if nobody is there any more, the message
            is lost.
    """

    def __init__(self, send: Callable[[Any], None]) -> None:
        self.send = send
        self._takers: list[Callable[[Terms], None]] = []
        self._lock = threading.Lock()

    def open(
        self,
        take: Callable[[Terms], None],
        max_concurrency: int,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        part: int,
    ) -> int:
        """Say that an LLM has limits, as in `Opened`, and return its number.

        Args:
            take: takes what the process of the run says of them, in the thread that receives messages.
            max_concurrency: how many requests may be in flight.
            requests_per_minute: a quota.
            tokens_per_minute: a quota.
            part: the worker's part of `max_concurrency`.
        """
        with self._lock:
            number = len(self._takers)
            self._takers.append(take)
        self.send(Opened(number, max_concurrency, requests_per_minute, tokens_per_minute, part))
        return number

    def take(self, terms: Terms) -> None:
        """Give terms to those whom they concern."""
        self._takers[terms.number](terms)


current_leases: ContextVar[Leases | None] = ContextVar("current_leases", default=None)
"""Where an LLM that is loaded now has its limits; `None` where it has them itself, as without workers."""
