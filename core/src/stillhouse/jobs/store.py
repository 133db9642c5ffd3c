"""Where a run's finished rows go. This is the runner's one seam: it knows no file and no format."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import IO, Any, Protocol

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.jobs.rows import Row
from stillhouse.typing import GenerateOutput

__all__ = ["JsonlStore", "RunStore", "record_of"]


class RunStore(Protocol):
    """Takes every row once, with what became of it.

    Attributes:
        ordered: whether rows must come in the order of the input. A store that can put them in
            order itself takes them as they are finished.
    """

    ordered: bool

    def put(self, row: Row, result: GenerateOutput | GenerationError) -> None:
        """Take a row in."""

    def finish(self) -> None:
        """Every row was put: make the output final."""

    def abandon(self) -> str:
        """The run ended early: keep what there is, and say where."""


def record_of(row: Row, result: GenerateOutput | GenerationError, model_name: str) -> dict[str, Any]:
    """A row of the output: the input's columns, then what was generated, or the error."""
    record = dict(row.columns)
    if isinstance(result, GenerationError):
        record.update(
            generations=None,
            statistics=None,
            finish_reasons=None,
            model_name=model_name,
            error={"kind": result.kind, "message": result.message},
        )
        return record
    record.update(
        generations=result["generations"],
        statistics=result.get("statistics") or {},
        finish_reasons=result.get("finish_reasons"),
        model_name=model_name,
        error=None,
    )
    for key, value in result.items():
        if key not in ("generations", "statistics", "finish_reasons"):
            record[key] = value
    return record


class JsonlStore:
    """Writes rows to a JSONL file as they come, and gives it its name when it is whole.

    Until then the rows are in `OUTPUT.partial`, so that nobody reads half a file for a whole one.

    Args:
        path: the output, or `-` for standard output.
        model_name: the model's name, for every row.
        replace: whether an output that is there already may be replaced.

    Raises:
        ConfigurationError: it cannot be written, is there already, or is of another format.
    """

    ordered = True

    def __init__(self, path: str, model_name: str, replace: bool = False) -> None:
        self._model_name = model_name
        self._path = Path(path)
        self._stream: IO[bytes]
        self.rows = 0
        if path == "-":
            self._partial = None
            self._stream = sys.stdout.buffer
            return
        if self._path.suffix.lower() != ".jsonl":
            raise ConfigurationError(f"{path} is in a format that is not known", hint="give a .jsonl file")
        if self._path.exists() and not replace:
            raise ConfigurationError(
                f"{path} is there already", hint="give another output, or replace it with --restart"
            )
        self._partial = self._path.with_name(f"{self._path.name}.partial")
        try:
            self._stream = self._partial.open("wb", buffering=1 << 16)
        except OSError as error:
            raise ConfigurationError(
                f"{self._partial} cannot be written: {error.strerror}",
                hint="check the folder and its permissions",
            ) from None

    def put(self, row: Row, result: GenerateOutput | GenerationError) -> None:
        record = record_of(row, result, self._model_name)
        try:
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:  # half a surrogate pair, which only an escape can carry
            line = json.dumps(record, separators=(",", ":")).encode()
        self._stream.write(line + b"\n")
        self.rows += 1

    def finish(self) -> None:
        self._stream.flush()
        if self._partial is not None:
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._partial.replace(self._path)

    def abandon(self) -> str:
        if self._partial is None:
            return "standard output"
        with contextlib.suppress(OSError):  # the disk is full; what was flushed stays
            self._stream.close()
        return str(self._partial)
