"""Messages name `stillhouse install` and not pip: a shell's pip may belong to another environment."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

ALLOWED = {
    # Into an environment of the reader's own, or with an option that `stillhouse install` does not have.
    "core/src/stillhouse/cli/install/running.py",
    "core/src/stillhouse/cli/new.py",
    "core/src/stillhouse/registry/candidates.py",
    "core/src/stillhouse/registry/problems.py",
    # What a library says.
    "plugins/stillhouse-litellm/src/stillhouse_litellm/failures.py",
}


def test_a_message_about_a_package_names_stillhouse_install() -> None:
    sources = [*(ROOT / "core/src").rglob("*.py"), *ROOT.glob("plugins/*/src/**/*.py")]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if re.search(r"pip\s+install", path.read_text(encoding="utf-8"))
    }
    assert len(sources) > 100
    assert found <= ALLOWED
    assert found == ALLOWED, "an entry of ALLOWED has no use any more"
