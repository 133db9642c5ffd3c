"""The executor that is built in keeps every rule on executors."""

from __future__ import annotations

from typing import Any

from stillhouse import hookimpl
from stillhouse.jobs.executors.processes import ProcessWorker
from stillhouse.jobs.executors.workers import Workers
from stillhouse.testing import ExecutorConformance


class Plugin:
    """Gives the executor `processes` another name: that one belongs to Stillhouse."""

    @hookimpl
    def make_executor(self, name: str, llm: Any, workers: int | None) -> Any:
        return Workers(llm, workers or 1, ProcessWorker) if name == "own-processes" else None


class TestProcesses(ExecutorConformance):
    executor = "own-processes"

    def make(self) -> object:
        return Plugin()
