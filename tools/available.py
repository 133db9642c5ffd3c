"""Bring the table of what could be installed up to date with the plugins of this repository.

    python tools/available.py --check      say what is not current, and exit with 1 if anything is
    python tools/available.py --rewrite    write it

The table is `core/src/stillhouse/registry/available.toml`. The tables of the plugins in this repository are
made from their `pyproject.toml`: a plugin that is alone in its package has the package's description, one of
several the first sentence of its docstring, as `stillhouse list` shows them. A table of any other package
stays as it is: its author writes it by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = "core/src/stillhouse/registry/available.toml"

# The group of entry points, and the table of its plugins.
GROUPS = {"stillhouse.llms": "llms", "stillhouse.hooks": "hooks"}

HEAD = """\
# What could be installed: the name of each plugin and one line about it, in a table for each package.
# `stillhouse list --available` shows it, and the error about a name that is not installed says which package
# to install. Nothing is imported or preferred because it is here, and nothing reads it before somebody asks.
#
# The tables of the plugins in this repository are made: python tools/available.py --rewrite
# To have a package of yours listed, add a table for it, [llms.PACKAGE] or [hooks.PACKAGE], as on PyPI, with
# NAME = "what it is" for each of its entry points. It stays as you write it.
"""

Tables = dict[str, dict[str, dict[str, str]]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Bring the table of what could be installed up to date.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="say what is not current")
    what.add_argument("--rewrite", action="store_true", help="write the table")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    path = given.root / TABLE
    was = path.read_text(encoding="utf-8") if path.exists() else ""
    now = written(merged(tomllib.loads(was), made(given.root)))
    if given.rewrite:
        path.write_text(now, encoding="utf-8")
    elif now != was:
        print(f"{TABLE} is not current: python tools/available.py --rewrite", file=sys.stderr)
        for line in sorted({*now.splitlines()} - {*was.splitlines()}):
            print(f"  lacks  {line}", file=sys.stderr)
        for line in sorted({*was.splitlines()} - {*now.splitlines()}):
            print(f"  has    {line}", file=sys.stderr)
        return 1
    return 0


def made(root: Path) -> Tables:
    """The tables of the plugins in this repository, from their metadata and their sources."""
    # Not at the top: the tool is run from a checkout, whose core need not be installed.
    sys.path.insert(0, str(ROOT / "core" / "src"))
    from stillhouse.registry.summaries import own_summary

    tables: Tables = {group: {} for group in GROUPS.values()}
    for file in sorted(root.glob("plugins/*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        sys.path.insert(0, str(file.parent / "src"))
        points = project.get("entry-points", {})
        count = sum(len(points.get(group, {})) for group in GROUPS)
        for group, table in GROUPS.items():
            for name, value in sorted(points.get(group, {}).items()):
                own = own_summary(value) if count > 1 else ""
                tables[table].setdefault(project["name"], {})[name] = own or project["description"]
    return tables


def merged(was: dict[str, Any], ours: Tables) -> Tables:
    """The tables of other packages as they were, and those of this repository as they are now."""
    names = {distribution for table in ours.values() for distribution in table}
    return {
        group: {
            **{name: plugins for name, plugins in was.get(group, {}).items() if name not in names},
            **ours[group],
        }
        for group in GROUPS.values()
    }


def written(tables: Tables) -> str:
    """The tables as TOML, sorted."""
    lines = [HEAD.rstrip()]
    for group, packages in tables.items():
        for distribution, plugins in sorted(packages.items()):
            lines += ["", f"[{group}.{distribution}]"]
            lines += [
                f"{name} = {json.dumps(text, ensure_ascii=False)}" for name, text in sorted(plugins.items())
            ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
