"""How a dataset is named on the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from stillhouse import ConfigurationError
from stillhouse.errors import near_matches

__all__ = ["Address", "is_address"]

SCHEME = "datasets:"
OPTIONS = ("config", "revision", "split", "streaming")


def is_address(text: str) -> bool:
    """Whether a source or target is a dataset."""
    return text.startswith(SCHEME)


@dataclass(frozen=True)
class Address:
    """A dataset: `datasets:PLACE?OPTION=VALUE&…`.

    Attributes:
        text: as it was written.
        place: a folder, or a name on the Hub.
        options: `config`, `revision`, `split` and `streaming`, as far as they were given.
    """

    text: str
    place: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            ConfigurationError: it is not well formed.
        """
        place, _, query = text.removeprefix(SCHEME).partition("?")
        if not place:
            raise ConfigurationError(
                f"{text} does not name a dataset", hint="give datasets:FOLDER or datasets:NAME"
            )
        options = dict(parse_qsl(query, keep_blank_values=True))
        for name, value in options.items():
            if name not in OPTIONS:
                raise ConfigurationError(
                    f"{text}: there is no option {name}", hint=near_matches(name, list(OPTIONS))
                )
            if not value or (name == "streaming" and value not in ("true", "false")):
                raise ConfigurationError(
                    f"{text}: {name} cannot be {value!r}",
                    hint="give true or false" if name == "streaming" else f"give {name}=VALUE",
                )
        return cls(text, place, options)

    @property
    def folder(self) -> Path:
        """The place as the folder to write to. A link is followed: it stays one.

        Raises:
            ConfigurationError: there are options, of which a target has none.
        """
        if self.options:
            raise ConfigurationError(f"{self.text}: a target has no options", hint="give datasets:FOLDER")
        return Path(os.path.realpath(self.path)) if self.path.is_symlink() else self.path

    @property
    def path(self) -> Path:
        """The place as a path on this machine."""
        return Path(os.path.expanduser(self.place))  # noqa: PTH111 -- pathlib raises for an unknown user
