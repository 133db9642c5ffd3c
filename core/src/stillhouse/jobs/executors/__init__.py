"""Executors: where the generating of a run is done, if it is not done in the process of the run.

A plugin whose executor has workers brings a `WorkerHandle`, and runs a `Worker` where it starts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse._lazy import lazy_names

if TYPE_CHECKING:
    from stillhouse.jobs.executors.messages import Died as Died
    from stillhouse.jobs.executors.messages import Ended as Ended
    from stillhouse.jobs.executors.messages import Refused as Refused
    from stillhouse.jobs.executors.messages import Setup as Setup
    from stillhouse.jobs.executors.wire import packed as packed
    from stillhouse.jobs.executors.wire import unpacked as unpacked
    from stillhouse.jobs.executors.worker import Worker as Worker
    from stillhouse.jobs.executors.workers import Deliver as Deliver
    from stillhouse.jobs.executors.workers import Launch as Launch
    from stillhouse.jobs.executors.workers import WorkerHandle as WorkerHandle
    from stillhouse.jobs.executors.workers import Workers as Workers
    from stillhouse.jobs.runs.provenance import usable_cpus as usable_cpus

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "messages": ["Died", "Ended", "Refused", "Setup"],
        "wire": ["packed", "unpacked"],
        "worker": ["Worker"],
        "workers": ["Deliver", "Launch", "WorkerHandle", "Workers"],
        "stillhouse.jobs.runs.provenance": ["usable_cpus"],
    },
)
