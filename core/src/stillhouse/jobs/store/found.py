"""`state_of`: finds the state of a run that a user names."""

from __future__ import annotations

import contextlib
from pathlib import Path

from stillhouse.jobs.formats.targets import followed
from stillhouse.jobs.store.database import has_application_id, store_path

__all__ = ["state_of"]

_DATABASE = b"SQLite format 3\x00"


def state_of(place: Path, state: Path | None = None) -> Path:
    """Return the state of a run.

    Args:
        place: its output, or the state itself.
        state: where it is, if it is not beside the output.
    """
    if state is not None:
        return followed(state)
    beside_it = store_path(place)
    return place if not beside_it.exists() and _is_state(place) else beside_it


def _is_state(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as stream:
        return stream.read(len(_DATABASE)) == _DATABASE and has_application_id(path)
    return False
