"""`progress_of`: the progress of a run that another process works on, as that process shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.jobs.reporting.progress import Progress

if TYPE_CHECKING:
    from stillhouse.jobs.runs.pace import RunPace
    from stillhouse.jobs.runs.summary import Summary

__all__ = ["progress_of"]


class _Watched(Progress):
    """The progress of a run of another process: the state does not have what is in flight there."""

    def _texts(self) -> dict[str, str]:
        return {**super()._texts(), "flight": ""}


def progress_of(summary: Summary, pace: RunPace) -> Progress:
    """Return the progress of a run, read from its state. It counts the whole run."""
    total = pace.total
    return _Watched(
        rows=summary.rows,
        failed=summary.failures,
        in_flight=0,
        share=summary.rows / total if total else None,
        input_tokens=summary.input_tokens,
        output_tokens=summary.output_tokens,
        cost=summary.cost,
        seconds=pace.seconds,
        finished=summary.rows,
        total=total,
        is_estimated=pace.total_is_estimated,
        rows_per_second=pace.rows_per_second or 0.0,
        seconds_left=pace.seconds_left,
    )
