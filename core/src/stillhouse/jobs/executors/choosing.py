"""`executing_of`: what generates for a run, as its command says: the LLM itself, or an executor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError, near_matches
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.loading import loaded
from stillhouse.jobs.runs.provenance import usable_cpus
from stillhouse.llm import LLM
from stillhouse.protocols import Executor

__all__ = ["PROCESSES", "Executing", "executing_of"]

PROCESSES = "processes"
"""The executor that is built in."""

_RAY = "ray"

Executing = Callable[[], AbstractContextManager[Executor]]
"""Loads an LLM, or starts workers; gives what generates."""


def executing_of(llm: LLM, command: Command) -> Executing:
    """Return what gives the executor of a run. Nothing is loaded or started yet.

    Args:
        llm: the LLM.
        command: says whether there is an executor, and how many workers.

    Raises:
        ConfigurationError: there is no such executor, or the LLM cannot be sent to workers.
    """
    if command.executor is None:
        return partial(_here, llm)
    name, colon, given = command.executor.partition(":")
    address = given if colon else None
    if colon and not given:
        raise ConfigurationError(
            f"{command.executor!r} names no address after the colon", hint=f"write {name}:ADDRESS, or {name}"
        )
    executor = llm.registry.hooks().make_executor(name, address, llm, command.workers)
    if executor is None:
        _check_name(name, llm.registry.hooks().failures("make_executor"))
        executor = _built_in(name, address, llm, command.workers)
    return lambda: executor


@contextlib.contextmanager
def _here(llm: LLM) -> Iterator[Executor]:
    with loaded(llm):
        yield llm


def _check_name(name: str, failures: Mapping[str, str]) -> None:
    """Refuse the name of an executor that is not built in.

    Args:
        name: the name, which no plugin took.
        failures: the plugins that failed when they were asked for it.
    """
    if name == PROCESSES:
        return
    for plugin, problem in failures.items():
        raise ConfigurationError(
            f"there is no executor {name!r}; the plugin {plugin}, which may provide it, failed: {problem}",
            hint="report it to the plugin's authors",
        )
    if name == _RAY:
        raise ConfigurationError(
            "the executor ray comes with a plugin that is not installed",
            hint=f"run {install_command('stillhouse-ray')}",
        )
    raise ConfigurationError(f"there is no executor {name!r}", hint=near_matches(name, [PROCESSES, _RAY]))


def _built_in(
    name: str, address: str | None, llm: LLM, workers: int | None
) -> AbstractContextManager[Executor]:
    if address is not None:
        raise ConfigurationError(
            f"the executor {name} is on this machine, and has no address", hint=f"give --executor {name}"
        )
    # Most runs have no workers.
    from stillhouse.jobs.executors.processes import ProcessWorker
    from stillhouse.jobs.executors.workers import Workers

    return Workers(llm, workers or usable_cpus() or 1, ProcessWorker)
