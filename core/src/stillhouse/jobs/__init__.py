"""Bulk runs: rows are read, generated for and written; only those in flight are in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse._lazy import lazy_names

if TYPE_CHECKING:
    from stillhouse.jobs.runs.bulk import BulkRun as BulkRun
    from stillhouse.jobs.runs.bulk import open_bulk_run as open_bulk_run
    from stillhouse.jobs.runs.command import Command as Command
    from stillhouse.jobs.runs.online import RunStatistics as RunStatistics

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "runs.bulk": ["BulkRun", "open_bulk_run"],
        "runs.command": ["Command"],
        "runs.online": ["RunStatistics"],
    },
)
