"""Print what users and plugin authors can see of the core, one fact a line, to be compared between versions.

    python tools/surface.py > now.txt
    python tools/surface.py --against before.txt

The facts are every name in the `__all__` of every module, every command with its options and arguments, the
keys of `list --json`, and the exit statuses that the commands document. With `--against`, the facts that are
new and gone are printed; a name that is still importable from its old path is not gone. Exit status 1:
something is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import click

import stillhouse


def main() -> int:
    parser = argparse.ArgumentParser(description="Print or compare what can be seen of the core.")
    parser.add_argument("--against", metavar="FILE", help="facts that an earlier version printed")
    given = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)
    found = sorted({*names(), *commands(), *listing()})
    if given.against is None:
        print("\n".join(found))
        return 0
    before = Path(given.against).read_text(encoding="utf-8").splitlines()
    gone = [fact for fact in before if fact not in found and not is_importable(fact)]
    for fact in found:
        if fact not in before:
            print(f"+ {fact}")
    for fact in gone:
        print(f"- {fact}")
    return 1 if gone else 0


def names() -> Iterator[str]:
    """Every public name of every module that can be imported here."""
    for info in pkgutil.walk_packages(stillhouse.__path__, "stillhouse."):
        try:
            module = importlib.import_module(info.name)
        except ImportError as error:  # an extra that is not installed
            print(f"{info.name} is left out: {error}", file=sys.stderr)
            continue
        yield from (f"name {info.name}.{name}" for name in getattr(module, "__all__", ()))
    yield from (f"name stillhouse.{name}" for name in stillhouse.__all__)


def is_importable(fact: str) -> bool:
    """Whether a fact is a name that its old path still gives."""
    kind, _, path = fact.partition(" ")
    module, _, name = path.rpartition(".")
    try:
        return kind == "name" and hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


def commands() -> Iterator[str]:
    """Every command, its options with what they take, and the exit statuses in its help."""
    from stillhouse.cli.app import app

    context = click.Context(app)
    for name in app.list_commands(context):
        command = app.get_command(context, name)
        assert command is not None
        yield f"command {name}"
        for parameter in command.params:
            flags = " ".join(sorted([*parameter.opts, *parameter.secondary_opts]))
            takes = getattr(parameter, "metavar", None) or parameter.type.name
            yield f"option {name} {flags} {takes} required={parameter.required} default={shown(parameter)}"
        text = re.sub(r"\s+", " ", command.help or "")
        yield from (f"exit {name} {status}" for status in re.findall(r"Exit status: .*", text))


def shown(parameter: click.Parameter) -> str:
    default = parameter.default
    return str(default) if isinstance(default, str | int | float | bool) else "-"


def listing() -> Iterator[str]:
    """The keys of `stillhouse list --json`, with their types."""

    from stillhouse.cli.app import app

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        app(["list", "--json"], prog_name="stillhouse")
    for path, value in walked(json.loads(out.getvalue()), "list"):
        yield f"json {path}: {value}"


def walked(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walked(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from walked(item, f"{path}[]")
    else:
        yield path, type(value).__name__


if __name__ == "__main__":
    sys.exit(main())
