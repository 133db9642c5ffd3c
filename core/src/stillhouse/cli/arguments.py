"""Where a command finds the arguments that it was given, to print a command that can be copied."""

from __future__ import annotations

__all__ = ["ARGUMENTS"]

ARGUMENTS = "stillhouse.arguments"
"""The key of the arguments of the command line in the `meta` of a context of click."""
