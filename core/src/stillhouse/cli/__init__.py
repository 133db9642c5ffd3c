"""The command `stillhouse`. Each command has a file of its own and imports what it needs when it runs."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, and end the process with its status."""
    # Before anything that takes time: an interrupt ends the command properly from its first moment on.
    from stillhouse.cli.signals import INTERRUPTED, handle_for_good, interrupts

    status, interrupted = INTERRUPTED, interrupts()
    try:
        try:
            handle_for_good()
            status = _status()
            interrupted.end()
        except KeyboardInterrupt:
            interrupted.end()
    except KeyboardInterrupt:  # one more, in the middle of that
        interrupted.end()
    sys.exit(INTERRUPTED if interrupted.count else status)


def _status() -> int:
    from stillhouse.cli.standard import own_standard_output

    own_standard_output()
    from stillhouse.cli.app import app

    try:
        app()
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else 0
    return 0
