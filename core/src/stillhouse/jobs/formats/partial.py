"""Outputs that are not whole yet: written in a folder that Stillhouse creates, and moved at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import IO

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.compression import Compression, compressed
from stillhouse.jobs.formats.targets import MARKER, beside, cannot_be_written, check_target, followed

__all__ = ["PartialFile", "PartialFolder"]

_SIGNATURE = "Stillhouse made this folder"


class PartialFolder:
    """A folder `PATH.partial`, in which something is written that will be at `PATH`.

    A marker in the folder says that Stillhouse made it. One that a killed process left is removed; anything
    else of that name is left alone, and refused. The folder is created, never opened through a link.

    Args:
        target: where the result will be.

    Attributes:
        path: the folder.

    Raises:
        ConfigurationError: something else has that name, or the folder cannot be created.
    """

    def __init__(self, target: Path) -> None:
        self.path = self.path_of(target)
        is_created = False
        try:
            if self.is_present(target):
                self.remove()
            elif os.path.lexists(self.path):
                raise ConfigurationError(
                    f"{self.path} exists, and Stillhouse did not make it; writing {target} needs that name",
                    hint="move it away, or give another output",
                )
            self.path.mkdir()
            is_created = True
            text = f"{_SIGNATURE} to write {target.name}, and removes it afterwards with all that is in it.\n"
            # The name may have bytes that are no UTF-8.
            (self.path / MARKER).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            if is_created:
                with contextlib.suppress(OSError):
                    (self.path / MARKER).unlink(missing_ok=True)  # the disk was full in the middle of it
                    self.path.rmdir()
            raise cannot_be_written(target, error) from None

    @staticmethod
    def path_of(target: Path) -> Path:
        """Return the folder in which a target is written."""
        return beside(target, ".partial")

    @classmethod
    def is_present(cls, target: Path) -> bool:
        """Whether a target has such a folder, made by Stillhouse: it has the marker, or is empty."""
        path = cls.path_of(target)
        if path.is_symlink() or not path.is_dir():
            return False
        marker = path / MARKER
        if marker.is_symlink() or not marker.is_file():
            return not any(path.iterdir())
        signature = _SIGNATURE.encode()
        with marker.open("rb") as stream:
            head = stream.read(len(signature))
        # A process may have ended while it wrote the marker, before anything else.
        return head == signature or (signature.startswith(head) and len(list(path.iterdir())) == 1)

    def remove(self) -> None:
        """Remove the folder and everything in it."""
        # The marker goes last: if the process ends in between, the rest still counts as Stillhouse's.
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARKER:
                path.unlink()
        (self.path / MARKER).unlink(missing_ok=True)
        self.path.rmdir()


class PartialFile:
    """A file that is written in a `PartialFolder`, and moved to its path when it is whole.

    Args:
        path: its final path. A link is followed: the file that it leads to is written.
        compression: how what is written to `stream` is compressed; `None` for as it is.

    Attributes:
        stream: the stream to write to.
        folder: the folder that the file is written in, which is removed in the end.

    Raises:
        ConfigurationError: it cannot be written, or is no file; or the library to compress it is missing.
    """

    def __init__(self, path: Path, compression: Compression | None = None) -> None:
        path = followed(path)
        check_target(path)
        self._path = path
        if path.is_dir():
            raise cannot_be_written(path, IsADirectoryError(0, "it is a folder"))
        self._folder = PartialFolder(path)
        self._partial = self._folder.path / path.name
        try:
            self._raw = self._partial.open("xb", buffering=1 << 16)
        except OSError as error:
            self._folder.remove()
            raise cannot_be_written(path, error) from None
        self.stream: IO[bytes] = self._raw
        if compression is not None:
            try:
                self.stream = compressed(self._raw, compression, str(path))
            except BaseException:
                self.abandon()
                raise
        self.folder = self._folder.path

    def finish(self) -> None:
        """Move the file to its path, in one step; an earlier one is replaced."""
        self.stream.flush()
        if self.stream is not self._raw:
            self.stream.close()  # it writes the end of the archive
            self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        try:
            self._partial.replace(self._path)
        except PermissionError as error:  # on Windows, also while another program has it open
            raise ConfigurationError(
                f"{self._path} cannot be replaced: {error.strerror}",
                hint="close the program that has it open, or check the permissions, and make the same "
                "command again",
            ) from None
        self._folder.remove()

    def abandon(self) -> None:
        """Remove the file; an earlier one stays."""
        for stream in (self.stream, self._raw):
            with contextlib.suppress(OSError):  # on a full disk, the buffer cannot be written
                stream.close()
        if PartialFolder.is_present(self._path):
            self._folder.remove()
