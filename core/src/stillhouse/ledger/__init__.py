"""What is known of the jobs of offline batches, in a file that outlives the process."""

from __future__ import annotations

from stillhouse.ledger.chunks import Chunk, ChunkState, new_name
from stillhouse.ledger.ledger import BatchLedger, default_path
from stillhouse.ledger.rows import Rows

__all__ = ["BatchLedger", "Chunk", "ChunkState", "Rows", "default_path", "new_name"]
