"""The command `stillhouse`. Each command has a file of its own and imports what it needs when it runs."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, and end the process with its status."""
    # Before anything that takes time: an interrupt ends the command properly from its first moment on.
    from stillhouse.cli.signals import INTERRUPTED, handle_for_good

    interrupts, status = handle_for_good(), INTERRUPTED
    from stillhouse.cli.app import app
    from stillhouse.cli.standard import own_standard_output

    own_standard_output()
    try:
        try:
            interrupts.is_working = True
            app()
        except SystemExit as exited:
            interrupts.is_working = False
            status = exited.code if isinstance(exited.code, int) else 0
        except KeyboardInterrupt:
            interrupts.is_working = False
    except KeyboardInterrupt:  # one more, in the middle of that
        interrupts.is_working = False
    sys.exit(INTERRUPTED if interrupts.count else status)
