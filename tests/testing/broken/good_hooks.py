"""A plugin of hooks, a reader and a writer that keep every rule."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from stillhouse import ConfigurationError, Row, hookimpl, prepare_output
from stillhouse.jobs.formats import digest_of, invalid_row


def instances(names: dict[str, Any]) -> Callable[[str], Any]:
    """The `__getattr__` of a module whose entry points name `CLASS_plugin`: an instance of the class."""

    def getattr_(name: str) -> Any:
        if not name.endswith("_plugin"):
            raise AttributeError(name)
        return names[name.removesuffix("_plugin")]()

    return getattr_


class Settings(BaseModel):
    many: int = Field(default=3, description="How many.")


class Good:
    """Answers what it has seen before, and counts."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: set[tuple[str, int]] = set()
        self.rows: list[Any] = []
        self.runs = 0

    @hookimpl
    def settings_model(self) -> type[BaseModel]:
        return Settings

    @hookimpl
    def configure(self, settings: Any) -> None:
        self.many = settings.many

    @hookimpl
    def before_generate(self, input: Any, num_generations: int) -> Any:
        with self.lock:
            known = (str(input), num_generations) in self.seen
            self.seen.add((str(input), num_generations))
        return prepare_output(["seen before"] * num_generations) if known else None

    @hookimpl
    def after_generate(self, input: Any, output: Any, error: Any, row: Any) -> None:
        with self.lock:
            self.rows.append((row and row.index, error and error.kind))

    @hookimpl
    def run_started(self, run: Any) -> None:
        with self.lock:
            self.runs += 1

    @hookimpl
    def run_finished(self, summary: Any) -> None:
        with self.lock:
            self.runs -= 1


class Lines:
    """The lines of a text file; one that is not UTF-8 is broken."""

    schema: Any = None

    def __init__(self, path: Path) -> None:
        self.places = [path]
        self.content = path.read_bytes()

    @property
    def share_read(self) -> float | None:
        return None

    def rows(self) -> Iterator[Row]:
        for index, line in enumerate(self.content.splitlines()):
            yield self.row(index, line)

    def row(self, index: int, line: bytes) -> Row:
        try:
            return Row(index, index + 1, {"prompt": line.decode()}, digest=digest_of(line))
        except UnicodeDecodeError:
            error = invalid_row(index + 1, "not UTF-8")
            return Row(index, index + 1, error=error, digest=digest_of(line))

    def __iter__(self) -> Iterator[Row]:
        return self.rows()

    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def close(self) -> None:
        pass


class Reads:
    """Opens `lines:PATH`."""

    reader: type[Lines] = Lines

    @hookimpl
    def open_reader(self, source: str) -> Any:
        return self.open(Path(source.removeprefix("lines:"))) if source.startswith("lines:") else None

    def open(self, path: Path) -> Any:
        try:
            return self.reader(path)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


class Array:
    """A JSON array, written beside its place."""

    def __init__(self, path: Path) -> None:
        self.path, self.aside = path, path.with_name(f"{path.name}.aside")
        self.records: list[Any] = []
        self.check()
        self.begin()

    def check(self) -> None:
        if self.path.is_dir():
            raise ConfigurationError(f"{self.path} is a folder")

    def begin(self) -> None:
        try:
            self.aside.write_text("")
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror}") from None

    def write(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def finish(self) -> None:
        self.aside.write_text(json.dumps(self.records))
        self.aside.replace(self.path)

    def abandon(self) -> None:
        self.aside.unlink(missing_ok=True)


class Writes:
    """Opens `array:PATH`."""

    writer: type[Array] = Array

    @hookimpl
    def open_writer(self, target: str) -> Any:
        return self.writer(Path(target.removeprefix("array:"))) if target.startswith("array:") else None

    @hookimpl
    def output_path(self, target: str) -> Path | None:
        return Path(target.removeprefix("array:")) if target.startswith("array:") else None


__getattr__ = instances(globals())
