"""The public surface is what it was: a change of it is seen, and meant."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from .surface import MODULES, surface

LISTING = Path(__file__).with_name("public_surface.txt")
ROOT = Path(__file__).parents[2]


def test_the_public_surface_is_as_listed(rewriting: bool) -> None:
    lines = surface()
    if rewriting:
        LISTING.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    before = LISTING.read_text(encoding="utf-8").splitlines()
    change = "\n".join(difflib.unified_diff(before, lines, "listed", "found", lineterm="", n=0))
    assert not change, (
        f"{change}\nA plugin may rely on what was. If the change is meant: pytest {Path(__file__).name} --rewrite"
    )


def sources() -> Iterator[tuple[str, str]]:
    """What a stranger learns from: our plugins, the example, the templates and the pages."""
    for pattern in ("plugins/*/src/**/*.py", "examples/*/src/**/*.py"):
        for path in ROOT.glob(pattern):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in (ROOT / "core/src/stillhouse/scaffold/templates").rglob("*.py.jinja"):
        yield (
            path.relative_to(ROOT).as_posix(),
            path.read_text(encoding="utf-8").replace("{{ ", "").replace(" }}", ""),
        )
    for path in ROOT.glob("docs/*.md"):
        blocks = re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S)
        yield from ((path.relative_to(ROOT).as_posix(), block) for block in blocks if "import" in block)


def test_what_plugins_import_is_public() -> None:
    listed = {line.partition(" is ")[0].partition("(")[0].removeprefix("class ") for line in surface()}
    listed = {re.split(r"[:= ]", line)[0] for line in listed}
    private = set()
    looked_at = 0
    for path, text in sources():
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue  # an excerpt on a page
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "stillhouse":
                looked_at += 1
                private |= {
                    f"{path}: {node.module}.{alias.name}"
                    for alias in node.names
                    if f"{node.module}.{alias.name}" not in (listed | {*MODULES})
                }
    assert looked_at > 30
    assert sorted(private) == []
