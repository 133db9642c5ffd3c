"""`python -m stillhouse`: the command."""

from __future__ import annotations

from stillhouse.cli import main

if __name__ == "__main__":
    main()
