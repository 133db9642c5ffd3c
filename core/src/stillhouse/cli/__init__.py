"""The command `stillhouse`. Each command has a file of its own and imports what it needs when it runs."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    from stillhouse.cli.app import app

    app()
