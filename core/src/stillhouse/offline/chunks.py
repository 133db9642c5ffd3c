"""`Chunk`: the rows that go into one job, and its state."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Literal

from stillhouse.offline.row_sets import Rows

__all__ = ["Chunk", "ChunkState", "new_name"]

ChunkState = Literal[
    "planned", "intent", "uploaded", "created", "finished", "expired", "failed", "cancelled", "collected"
]
"""The state of a chunk.

`planned`: its rows are to be sent again, and nothing was sent. `intent`: its file is being made and
uploaded; no job was requested. `uploaded`: the job is being requested, so that there may be one whose
id is not known. `created`: the job's id is known, and the job is running. `finished`, `expired`,
`failed`, `cancelled`: the provider has ended it. `collected`: the caller has stored its results.
"""

ENDED: tuple[ChunkState, ...] = ("finished", "expired", "failed", "cancelled")


def new_name() -> str:
    """Return a name for a chunk that no other chunk has."""
    return f"sh-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """The rows of one job of the provider.

    Attributes:
        name: the id that is sent to the provider; no other chunk anywhere has it.
        number: its position among the chunks of its run.
        round: how often its rows were sent before.
        state: its state.
        provider: the name of the backend's class.
        path: the path of the API that its requests are for.
        rows: the ids of its rows.
        requests: how many requests it has; several for a row if the API makes one generation each.
        digest: SHA-256 of its requests.
        own_forms: whether a row has a structured output of its own, which its answer is validated against.
        job: the provider's id of the job, or an empty string.
        input_file: the provider's id of the uploaded file, or whatever else the backend recorded
            before it requested the job, to find it again.
        result_files: where the provider has the results.
        provider_state: the provider's own word for the state.
        counts: how many requests are `completed`, `failed`, …, as the provider says.
        message: why the job failed as a whole, or an empty string.
        created_at, updated_at, sent_at: seconds since the epoch; `sent_at` of requesting the job.
    """

    name: str
    number: int
    round: int
    state: ChunkState
    provider: str
    path: str
    rows: Rows
    requests: int = 0
    digest: str = ""
    own_forms: bool = False
    job: str = ""
    input_file: str = ""
    result_files: tuple[str, ...] = ()
    provider_state: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    message: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0
    sent_at: float = 0.0

    @property
    def is_ended(self) -> bool:
        """Whether the provider has ended the job, and its results are not collected yet."""
        return self.state in ENDED
