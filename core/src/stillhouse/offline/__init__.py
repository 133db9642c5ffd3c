"""Offline batches: the contract, what a provider must be able to do, the ledger and the engine.

Nothing here imports `stillhouse.http`: a backend without HTTP can have offline batches too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse._lazy import lazy_names

if TYPE_CHECKING:
    from stillhouse.offline.chunks import Chunk as Chunk
    from stillhouse.offline.chunks import ChunkState as ChunkState
    from stillhouse.offline.chunks import new_name as new_name
    from stillhouse.offline.contract import OfflineBatchMixin as OfflineBatchMixin
    from stillhouse.offline.engine import OfflineBatch as OfflineBatch
    from stillhouse.offline.failures import Failure as Failure
    from stillhouse.offline.ledger import BatchLedger as BatchLedger
    from stillhouse.offline.ledger import default_path as default_path
    from stillhouse.offline.protocol import OfflineBatchCalls as OfflineBatchCalls
    from stillhouse.offline.protocol import OfflineResults as OfflineResults
    from stillhouse.offline.provider import BatchLimits as BatchLimits
    from stillhouse.offline.provider import Framing as Framing
    from stillhouse.offline.provider import InputsOf as InputsOf
    from stillhouse.offline.provider import Job as Job
    from stillhouse.offline.provider import JobResult as JobResult
    from stillhouse.offline.provider import Provider as Provider
    from stillhouse.offline.provider import UndecidedError as UndecidedError
    from stillhouse.offline.provider import clean_words as clean_words
    from stillhouse.offline.provider import path_segment as path_segment
    from stillhouse.offline.results import Results as Results
    from stillhouse.offline.row_sets import Rows as Rows

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "contract": ["OfflineBatchMixin"],
        "failures": ["Failure"],
        "protocol": ["OfflineBatchCalls", "OfflineResults"],
        "engine": ["OfflineBatch"],
        "provider": [
            "BatchLimits",
            "Framing",
            "InputsOf",
            "Job",
            "JobResult",
            "Provider",
            "UndecidedError",
            "clean_words",
            "path_segment",
        ],
        "results": ["Results"],
        "chunks": ["Chunk", "ChunkState", "new_name"],
        "ledger": ["BatchLedger", "default_path"],
        "row_sets": ["Rows"],
    },
)
