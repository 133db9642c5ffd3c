"""`HostedLimits`: the limits of one LLM of a run, which its workers lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from stillhouse._execution.leases import Opened, Terms, Used
from stillhouse.http.transport.limits import Limits
from stillhouse.http.transport.permits import Permit

__all__ = ["HostedLimits"]

OPEN_SECONDS = 1.0
"""How long nothing must have restricted requests until workers need not ask again."""


@dataclass(slots=True, eq=False)
class _Tenant:
    """A worker.

    Attributes:
        opened: what it said when it loaded the LLM.
        send: sends it terms.
        turn: the one of its terms.
        has_slots: whether it need not ask.
        permits: how many it has; those in slots count whether it uses them or not.
        in_flight: how many it used when it last said so; until it does, all that it has.
        is_exact: whether it has used, or will use, all of `permits`.
        asked: the requests that wait for permission.
        granted: permits that it has not been sent.
    """

    opened: Opened
    send: Callable[[Terms], None]
    turn: int = 0
    has_slots: bool = False
    permits: int = 0
    in_flight: int = 0
    is_exact: bool = True
    asked: dict[int, asyncio.Future[Permit]] = field(default_factory=dict)
    granted: list[tuple[int, int]] = field(default_factory=list)


class HostedLimits:
    """The limits of one LLM, and the workers that lease permits. It is created and used on one event loop.

    While nothing but the concurrency restricts requests, each worker has slots for its part of it, and need
    not ask. A refusal, an overload, a pause or a quota with little left takes the slots from all workers at
    once; then the requests of all workers wait in one line.

    Args:
        opened: what the first worker said that has loaded the LLM.
    """

    def __init__(self, opened: Opened) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = Limits(opened.max_concurrency, opened.requests_per_minute, opened.tokens_per_minute)
        self._max_concurrency = opened.max_concurrency
        self._tenants: dict[int, _Tenant] = {}
        self._parts = 0  # of all workers together
        self._open_from = self._loop.time()
        self._is_due = False

    def join(self, worker: int, opened: Opened, send: Callable[[Terms], None]) -> None:
        """Let a worker lease permits.

        Args:
            worker: identifies it.
            opened: what it says.
            send: sends it terms. It does not wait.
        """
        self._tenants[worker] = _Tenant(opened, send)
        self._parts += opened.part
        self._set_terms()

    def leave(self, worker: int) -> None:
        """Take everything back that a worker had, which is dead or has unloaded the LLM."""
        tenant = self._tenants.pop(worker, None)
        if tenant is not None:
            self._parts -= tenant.opened.part
            self._forget(tenant)
            self._take_back(tenant, tenant.permits)
            self._set_terms()

    def take(self, worker: int, used: Used) -> None:
        """Take what a worker says."""
        tenant = self._tenants.get(worker)
        if tenant is None:
            return
        limits = self._limits
        tenant.in_flight = used.in_flight
        if used.accepted:
            limits.on_success(used.accepted)
        for estimated, actual in used.corrections:
            limits.correct_tokens(estimated, actual)
        if used.quotas or used.congestions:
            self._restrict(used)
        if used.turn == tenant.turn and not tenant.has_slots:
            self._lease(worker, tenant, used)
        self._set_terms()

    def _restrict(self, used: Used) -> None:
        limits = self._limits
        limits.unused = sum(
            max(0, tenant.permits - tenant.in_flight)
            for tenant in self._tenants.values()
            if not tenant.is_exact
        )
        for name, (left, whole, reset, is_tokens) in used.quotas.items():
            limits.update_quota(name, left, whole, reset, is_tokens=is_tokens)
        for is_refusal, epoch, retry_after in used.congestions:
            notify = limits.on_rate_limit if is_refusal else limits.on_overload
            notify(Permit(epoch), retry_after)

    def _lease(self, worker: int, tenant: _Tenant, used: Used) -> None:
        """Take back and grant single permits."""
        if used.held is not None:
            self._take_back(tenant, tenant.permits - used.held)
            tenant.is_exact = True
        self._take_back(tenant, used.released)
        for number, tokens in used.asked:
            future = tenant.asked[number] = self._limits.enqueue(tokens)
            future.add_done_callback(partial(self._grant, worker, number))
        for number in used.cancelled:
            if number in tenant.asked:  # else it is granted, and the worker will return it
                tenant.asked.pop(number).cancel()
        if used.cancelled:
            self._limits.admit()

    def _grant(self, worker: int, number: int, future: asyncio.Future[Permit]) -> None:
        if future.cancelled():
            return
        permit, tenant = future.result(), self._tenants.get(worker)
        if tenant is None or tenant.asked.pop(number, None) is None:
            self._limits.release(permit)
            return
        tenant.permits += 1
        tenant.granted.append((number, permit.epoch))
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._send_granted)

    def _send_granted(self) -> None:
        self._is_due = False
        for tenant in self._tenants.values():
            if tenant.granted:
                self._send_terms(tenant)

    def _take_back(self, tenant: _Tenant, count: int) -> None:
        tenant.permits -= count
        self._limits.in_flight -= count
        self._limits.admit()

    def _forget(self, tenant: _Tenant) -> None:
        """Drop the requests that wait."""
        for future in tenant.asked.values():
            future.cancel()
        tenant.asked.clear()
        self._limits.admit()

    def _set_terms(self) -> None:
        """Give workers slots while nothing restricts requests, and take the slots from them otherwise."""
        limits, now = self._limits, self._loop.time()
        if not limits.is_open or self._parts > self._max_concurrency:
            self._open_from = now + OPEN_SECONDS
            for tenant in self._tenants.values():
                if tenant.has_slots:
                    self._begin_turn(tenant, has_slots=False)
        elif now >= self._open_from:
            for tenant in self._tenants.values():
                further = tenant.opened.part - tenant.permits
                if (
                    not tenant.has_slots
                    and further >= 0
                    and limits.in_flight + further <= self._max_concurrency
                ):
                    self._forget(tenant)
                    limits.in_flight += further
                    tenant.permits += further
                    tenant.is_exact, tenant.in_flight = False, tenant.permits
                    self._begin_turn(tenant, has_slots=True)

    def _begin_turn(self, tenant: _Tenant, *, has_slots: bool) -> None:
        tenant.has_slots = has_slots
        tenant.turn += 1
        self._send_terms(tenant)

    def _send_terms(self, tenant: _Tenant) -> None:
        slots = tenant.opened.part if tenant.has_slots else 0
        granted, tenant.granted = tenant.granted, []
        tenant.send(Terms(tenant.opened.number, tenant.turn, slots, self._limits.epoch, granted))
