"""`Reading`: how an input is read, as far as it is said and not found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stillhouse.jobs.formats.delimiters import check_delimiter
from stillhouse.jobs.formats.encodings import check_encoding

__all__ = ["Reading"]


@dataclass(frozen=True)
class Reading:
    """How an input is read; what is `None` is found.

    Attributes:
        delimiter: what separates the fields of CSV and TSV.
        encoding: that of text.
    """

    delimiter: str | None = None
    encoding: str | None = None

    @classmethod
    def of(cls, delimiter: str | None, encoding: str | None) -> Reading:
        """Check what a person says.

        Raises:
            ConfigurationError: one of them is none.
        """
        return cls(
            None if delimiter is None else check_delimiter(delimiter),
            None if encoding is None else check_encoding(encoding),
        )

    def said(self) -> dict[str, Any]:
        """Return what was said, for the comparison with another command."""
        return {name: value for name, value in vars(self).items() if value is not None}
