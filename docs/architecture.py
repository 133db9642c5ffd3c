"""The pictures of the page on the architecture, from `.importlinter` and from docstrings.

Nothing is imported: modules are read as text. A floor, a stop or a docstring that does not exist is an
error, and so ends the build.
"""

from __future__ import annotations

import ast
import configparser
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tables import code, table

__all__ = ["PATHS", "Entry", "Stop", "filled", "first_sentence", "floors", "resolve", "stops"]

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "core/src"
CORE = "stillhouse"

PATHS = {
    "row": (
        ("the command", "stillhouse.cli.generate.command:generate"),
        ("the run", "stillhouse.jobs:BulkRun"),
        ("rows in", "stillhouse.jobs.formats:open_reader"),
        ("row by row", "stillhouse.jobs.runs.online:run"),
        ("the contract", "stillhouse.llm:LLM.iter_finished"),
        ("calls in flight", "stillhouse._execution.window:Window"),
        ("one input", "stillhouse.async_llm:AsyncLLM.agenerate"),
        ("one request", "stillhouse.http.transport.session:Transport"),
        ("the result", "stillhouse.jobs.store.store:SqliteStore"),
        ("in order again", "stillhouse.jobs.runs.assembly:assemble"),
        ("rows out", "stillhouse.protocols:RowWriter"),
    ),
    "name": (
        ("entry points", "stillhouse.registry.candidates:scan"),
        ("one of them", "stillhouse.registry:Candidate"),
        ("what is known", "stillhouse.registry:PluginInfo"),
        ("the name", "stillhouse.registry:Registry.get_llm"),
        ("the import", "stillhouse.registry.loading:load_llm"),
        ("the check", "stillhouse.registry.validation:validate_llm"),
        ("the outcome", "stillhouse.registry.loading:Loaded"),
        ("the class", "stillhouse:LLM"),
    ),
}
"""The stops of each path: what happens there, and `module:name`. The module may be the one that defines
the name or one that only imports it, such as the face of a package; the picture shows the former."""

WORDS = {
    "floors": "The floors of the core; an import goes down",
    "row": "The path of one row, from the command to the output",
    "name": "The path of one name, from the entry points to the class",
}

PICTURE = re.compile(r"<!-- picture: (\w+) -->")


@dataclass(frozen=True)
class Entry:
    """A package or a module on a floor, with the floors inside of it, if it has any of its own."""

    name: str
    sentence: str
    modules: int
    floors: list[list[Entry]]


@dataclass(frozen=True)
class Stop:
    """A stop of a path; `anchor` is where its name is defined."""

    label: str
    anchor: str
    sentence: str


def filled(text: str) -> str:
    """The page, a picture and a table in place of each comment `<!-- picture: NAME -->`."""

    def picture(found: re.Match[str]) -> str:
        name = found[1]
        if name == "floors":
            drawn = floors()
            return _shown(name, lambda width: _draw_floors(drawn, width), _floors_table(drawn))
        if name not in PATHS:
            raise LookupError(f"there is no picture {name!r}, only {', '.join(WORDS)}")
        path = stops(PATHS[name])
        return _shown(name, lambda width: _draw_path(name, path, width), _path_table(path))

    return PICTURE.sub(picture, text)


def floors(file: Path = ROOT / ".importlinter", container: str = CORE) -> list[list[Entry]]:
    """The floors of a package as import-linter holds them, the highest first."""
    settings = configparser.ConfigParser()
    settings.read_string(file.read_text(encoding="utf-8"))
    layers = {
        name: section["layers"].split("\n")
        for section in settings.values()
        if section.get("type") == "layers"
        for name in section["containers"].split()
    }

    def of(package: str) -> list[list[Entry]]:
        return [
            [entry(f"{package}.{name.strip(' ()')}") for name in re.split(r"[|:]", line)]
            for line in layers.get(package, [])
            if line.strip()
        ]

    def entry(module: str) -> Entry:
        return Entry(module.rpartition(".")[2], module_sentence(module), modules_of(module), of(module))

    found = of(container)
    if not found:
        raise LookupError(f"{file.name} has no floors of {container}")
    return found


def stops(path: tuple[tuple[str, str], ...]) -> list[Stop]:
    """The stops of a path, with what their docstrings say."""
    return [Stop(label, *resolve(anchor)) for label, anchor in path]


def resolve(anchor: str) -> tuple[str, str]:
    """Where the name of an anchor is defined, as `module:name`, and the first sentence about it."""
    module, _, name = anchor.partition(":")
    path = path_of(module)
    body = ast.parse(path.read_text(encoding="utf-8")).body if path is not None else []
    first, _, rest = name.partition(".")
    for statement in _statements(body):
        if isinstance(statement, ast.ImportFrom) and statement.module != module:
            for alias in statement.names:
                if first == (alias.asname or alias.name):
                    return resolve(f"{statement.module}:{alias.name}{'.' * bool(rest)}{rest}")
    found: list[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef] = []
    for part in name.split("."):
        found = [
            node
            for node in _statements(body)
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == part
        ]
        body = found[-1].body if found else []
    if not found:
        raise LookupError(f"{anchor} does not exist: correct PATHS in docs/{Path(__file__).name}")
    return anchor, first_sentence(ast.get_docstring(found[-1]), anchor)  # those before are overloads


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements, with those under an `if`, such as `if TYPE_CHECKING`."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            yield from _statements(statement.body)


def path_of(module: str) -> Path | None:
    """The file of a module or of a package, or `None`."""
    path = SOURCES.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def modules_of(module: str) -> int:
    """How many modules there are below, the package itself included; templates are none."""
    folder = SOURCES.joinpath(*module.split("."))
    found = [path.relative_to(folder) for path in folder.rglob("*.py")]
    return sum("templates" not in path.parts for path in found) or 1


def module_sentence(module: str) -> str:
    path = path_of(module)
    if path is None:
        raise LookupError(f"{module} is on a floor in .importlinter and does not exist")
    return first_sentence(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), module)


def first_sentence(docstring: str | None, of: str) -> str:
    """The first sentence of a docstring, on one line; what it says by the way after a colon stays."""
    paragraph = " ".join((docstring or "").split("\n\n")[0].split())
    if not paragraph:
        raise LookupError(f"{of} has no docstring, and the page on the architecture shows it")
    found = re.match(r".+?[.!?](?=\s|$)", paragraph)
    return found[0] if found else paragraph


# --- as tables, for those who do not see the pictures ---


def _floors_table(drawn: list[list[Entry]]) -> list[str]:
    rows: list[tuple[str, ...]] = []

    def add(drawn: list[list[Entry]], before: str) -> None:
        for number, floor in enumerate(reversed(drawn), 1):
            for entry in floor:
                own = [f"{before}{number}", code(entry.name), entry.sentence, str(entry.modules)]
                rows.append(tuple(own))
                add(entry.floors, f"{before}{number}.")

    add(drawn, "")
    return table(("floor", "name", "what it is", "modules"), rows)


def _path_table(path: list[Stop]) -> list[str]:
    rows = [(str(n), stop.label, code(stop.anchor), stop.sentence) for n, stop in enumerate(path, 1)]
    return table(("", "stop", "where", "what it is"), rows)


def _shown(name: str, draw: Callable[[int], str], rows: list[str]) -> str:
    """Both drawings, of which a screen shows the one that it has room for, and a table."""
    wide, narrow = draw(WIDE), draw(NARROW)
    folded = "\n".join(rows).rstrip().replace("\n", "\n    ")
    return (
        f'<figure class="picture">\n{wide}\n{narrow}\n</figure>\n\n'
        f'??? note "{WORDS[name]}: as a table"\n\n    {folded}\n'
    )


# --- as pictures ---

# In pixels, as wide as the column of text is on a screen and on a phone: nothing is scaled there.
WIDE, NARROW = 688, 358
SIZE, LINE = 12.5, 16
# Where sentences begin if there is room for them beside the names.
COLUMN = 154
MONO = 0.61
THIN, BROAD = "iljtfrI.,:;'|!()[]- ", "mwMW—…"


class _Drawing:
    """An SVG that grows downwards."""

    def __init__(self, width: int, name: str, description: str) -> None:
        self.width = width
        self.y = 0.0
        self._parts: list[str] = []
        self._name, self._description = name, description

    def add(self, element: str) -> None:
        self._parts.append(element)

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        spans = text.split("`")
        inner = "".join(
            f'<tspan class="code">{html.escape(span)}</tspan>' if index % 2 else html.escape(span)
            for index, span in enumerate(spans)
        )
        named = f' class="{kind}"' if kind else ""
        if text:
            self.add(f'<text x="{x:g}" y="{y:g}"{named}>{inner}</text>')

    def lines(self, x: float, y: float, text: str, right: float, kind: str = "") -> float:
        """Write a text in as many lines as it needs up to `right`; where the next line begins."""
        for line in _wrapped(text, right - x, mono=kind == "name"):
            self.text(x, y, line, kind)
            y += LINE
        return y

    def behind(self, position: int, *elements: str) -> None:
        """Put elements behind those that were added from a position on."""
        self._parts[position:position] = elements

    @property
    def position(self) -> int:
        return len(self._parts)

    def svg(self) -> str:
        which = "wide" if self.width == WIDE else "narrow"
        return "".join(
            [
                f'<svg class="{which}" viewBox="0 0 {self.width} {self.y:g}" role="img"',
                f' aria-label="{html.escape(WORDS[self._name])}">',
                f"<desc>{html.escape(self._description)}</desc>",
                *self._parts,
                "</svg>",
            ]
        )


def _draw_floors(drawn: list[list[Entry]], width: int) -> str:
    order = "; ".join(" and ".join(entry.name for entry in floor) for floor in drawn)
    drawing = _Drawing(width, "floors", f"From the highest floor to the lowest: {order}.")
    drawing.y = 1
    for floor in drawn:
        _draw_floor(drawing, floor, 26, width - 27, "floor")
    end = drawing.y - 4
    drawing.add(f'<path class="way" d="M18 4V{end:g}m-4 -7l4 7l4 -7"/>')
    drawing.add(
        '<text class="note" transform="translate(11 6) rotate(-90)" text-anchor="end">'
        "an import goes down</text>"
    )
    return drawing.svg()


def _draw_floor(drawing: _Drawing, floor: list[Entry], x: float, width: float, kind: str) -> None:
    """A band, and in it a row for each package or module of the floor, with the floors inside of it."""
    top, position = drawing.y, drawing.position
    drawing.y += 4
    for entry in floor:
        _draw_entry(drawing, entry, x, width)
    drawing.y += 4
    place = f'x="{x:g}" y="{top:g}" width="{width:g}" height="{drawing.y - top:g}"'
    drawing.behind(position, f'<rect class="{kind}" {place} rx="4"/>')
    drawing.y += 3


def _draw_entry(drawing: _Drawing, entry: Entry, x: float, width: float) -> None:
    baseline = drawing.y + 14
    right = x + width - 10
    drawing.text(x + 10, baseline, entry.name, "name private" if entry.name.startswith("_") else "name")
    beside = drawing.width == WIDE
    count = f"{entry.modules} modules" if entry.modules > 1 and not beside else str(entry.modules)
    drawing.text(COLUMN - 12 if beside else right, baseline, count if entry.modules > 1 else "", "note end")
    place = (COLUMN, baseline) if beside else (x + 10, baseline + LINE)
    y = drawing.lines(*place, entry.sentence, right)
    drawing.y = y - 10
    if entry.floors:
        drawing.y += 4
        for floor in entry.floors:
            _draw_floor(drawing, floor, x + 10, width - 20, "inner")


def _draw_path(name: str, path: list[Stop], width: int) -> str:
    drawing = _Drawing(width, name, "; then ".join(f"{stop.label}, {stop.anchor}" for stop in path) + ".")
    dots = []
    for stop in path:
        baseline = drawing.y + 14
        dots.append(baseline - 4.5)
        drawing.text(26, baseline, stop.label, "label")
        column = COLUMN + 10 if width == WIDE else 26
        y = drawing.lines(column, baseline if width == WIDE else baseline + LINE, stop.anchor, width, "name")
        drawing.y = drawing.lines(column, y, stop.sentence, width) - 4
    way = f'<path class="way" d="M8 {dots[0]:g}V{dots[-1]:g}"/>'
    drawing.behind(0, way, *(f'<circle class="stop" cx="8" cy="{y:g}" r="5"/>' for y in dots))
    return drawing.svg()


def _wrapped(text: str, width: float, mono: bool) -> list[str]:
    """The lines of a text, code in backquotes whole on each; a name too long is broken at its dots."""
    pieces: list[tuple[str, bool, bool]] = []  # text, whether it is code, whether a space is before it
    for index, span in enumerate(text.split("`")):
        for found in re.finditer(r"(\s*)(\S+)|\s+$", span):
            if found[2] is None:
                pieces.append(("", False, True))
                continue
            parts = re.findall(r"[^.:]+[.:]?|[.:]", found[2]) if mono else [found[2]]
            pieces += [(part, bool(index % 2), bool(found[1]) and not n) for n, part in enumerate(parts)]
    lines: list[str] = []
    line, used, pending = "", 0.0, False
    for part, is_code, spaced in pieces:
        spaced = spaced or pending
        pending = part == ""
        if pending:
            continue
        size = _length(part, mono or is_code)
        if line and used + size > width and (spaced or mono):
            lines.append(line)
            line, used, spaced = "", 0.0, False
        if spaced and line:
            line, used = f"{line} ", used + _length(" ", False)
        line += code(part) if is_code else part
        used += size
    return [*lines, line]


def _length(text: str, mono: bool) -> float:
    """How wide a text is in pixels, rather too much than too little: the reader's font is not known."""
    if mono:
        return len(text) * SIZE * MONO
    return (
        sum(0.36 if c in THIN else 0.97 if c in BROAD else 0.7 if c.isupper() else 0.61 for c in text) * SIZE
    )
