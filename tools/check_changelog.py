"""Check the changelog fragments: their names, and that a change of a package comes with one.

    python tools/check_changelog.py [BASE]

BASE is the branch or commit that the change starts from, such as `origin/main`. Committed and
uncommitted changes since then count. Without BASE, only the fragments themselves are checked.
Exit status 1: something is wrong, 2: BASE is unknown.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = "changelog.d"

# What a user installs.
PACKAGES = re.compile(r"(core|plugins/[^/]+)/(src/.+|pyproject\.toml)")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the changelog fragments.")
    parser.add_argument(
        "base", nargs="?", metavar="BASE", help="where the change starts, such as origin/main"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    problems = misnamed(given.root)
    if given.base is not None:
        try:
            problems += missing(given.root, given.base)
        except subprocess.CalledProcessError as error:
            print(f"git does not know {given.base}: {error.stderr.strip()}", file=sys.stderr)
            return 2
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def types(root: Path) -> list[str]:
    """The types of fragments, as `pyproject.toml` lists them."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return [entry["directory"] for entry in settings["tool"]["towncrier"]["type"]]


def misnamed(root: Path) -> list[str]:
    """The problems of the fragments themselves."""
    name = re.compile(rf"\+[a-z0-9]+(-[a-z0-9]+)*\.({'|'.join(types(root))})\.md")
    problems = []
    for path in sorted((root / FOLDER).iterdir()):
        if path.name == "README.md":
            continue
        where = f"{FOLDER}/{path.name}"
        if not name.fullmatch(path.name):
            problems.append(
                f"{where}: name it +NAME.TYPE.md, with a TYPE of {', '.join(types(root))} "
                "and a NAME of small letters, digits and hyphens"
            )
        elif not path.read_text(encoding="utf-8").strip():
            problems.append(f"{where} is empty: say what changed")
    return problems


def missing(root: Path, base: str) -> list[str]:
    """The problem of a change without a fragment, if it is one.

    Raises:
        subprocess.CalledProcessError: git does not know `base`.
    """
    start = git(root, "merge-base", base, "HEAD").strip()
    changed = git(root, "diff", "--name-only", "--no-renames", start, "--").splitlines()
    changed += git(root, "ls-files", "--others", "--exclude-standard").splitlines()
    packages = sorted(path for path in changed if PACKAGES.fullmatch(path))
    # A release removes the fragments and writes the changelog instead.
    told = "CHANGELOG.md" in changed or any(
        path.startswith(f"{FOLDER}/+") and (root / path).is_file() for path in changed
    )
    if not packages or told:
        return []
    more = f" and {len(packages) - 1} more" if len(packages) > 1 else ""
    return [
        f"{packages[0]}{more} changed since {base}, and no fragment says so: add {FOLDER}/+NAME.TYPE.md "
        f"(see {FOLDER}/README.md), of the type misc if nobody can notice the change"
    ]


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout


if __name__ == "__main__":
    sys.exit(main())
