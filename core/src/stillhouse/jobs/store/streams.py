"""`check_streams`: the standard streams of a run, compared with the files that it reads and writes."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.store.places import written_places

__all__ = ["check_streams"]

_STREAMS = ("standard input", "standard output", "standard error")


def check_streams(source: str, reads: Sequence[Path], output: Path | None, state: Path | None = None) -> None:
    """Refuse standard streams that a shell redirected to a file that the run reads or replaces.

    Args:
        source: the input; `-` is standard input.
        reads: the files that are read.
        output: where the output will be; `None` for standard output.
        state: the run's state, if it is not beside the output.

    Raises:
        ConfigurationError: one of them was.
    """
    streams = {name: _regular_file(number) for number, name in enumerate(_STREAMS)}
    read = {str(place): _status(place) for place in reads}
    written = {str(place): _status(place) for place in written_places(output, state)} if output else {}
    if source == "-":
        read["standard input"] = streams["standard input"]
        _check_apart({"standard input": streams["standard input"]}, written)
    outputs = {name: streams[name] for name in _STREAMS[1:]}
    _check_apart(outputs, {**read, **written})


def _check_apart(
    streams: Mapping[str, os.stat_result | None], places: Mapping[str, os.stat_result | None]
) -> None:
    for name, stream in streams.items():
        for place, status in places.items():
            if stream is not None and status is not None and os.path.samestat(stream, status):
                raise ConfigurationError(
                    f"{place} is {name} as well",
                    hint="redirect it to another file, or give another output",
                )


def _regular_file(descriptor: int) -> os.stat_result | None:
    """Return the status of an open file; `None` if it is closed, or no file."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _status(path: Path) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return path.stat()
    return None
