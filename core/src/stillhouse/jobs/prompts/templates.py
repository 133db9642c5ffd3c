"""`PromptTemplate`: a Jinja2 template over a row's columns, compiled once, with the names that it needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import meta, nodes

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.prompts.sandbox import ROW, Environment
from stillhouse.jobs.prompts.values import BoundError
from stillhouse.jobs.prompts.words import kind_of, not_compared

__all__ = ["Path", "PromptTemplate"]

Path = tuple[Any, ...]
"""A column, and the fields and positions that lead to a value in it: `("person", "name")`."""

# A name with one of these may be missing.
_DEFAULTS = {"default", "d"}
_TESTS = {"defined", "undefined"}

_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


class PromptTemplate:
    """A template.

    Args:
        source: its text.

    Attributes:
        needed: the columns that it names, but for those that may be missing.
        optional: the columns that may be missing, for it has a default, or tests with `is defined`.
        takes_all: whether it reads `row` as a whole, so that any column may be used.
        paths: the fields of columns that it reads.
        exceeded: why the latest row was too much for it; empty if it was not.

    Raises:
        ConfigurationError: it is not valid, or reads other files.
    """

    def __init__(self, source: str) -> None:
        self._environment = Environment()
        try:
            tree = self._environment.parse(source)
            _check(tree)
            found = _Names(tree)
            self._template = self._environment.from_string(_bounded(tree, self._environment))
        except jinja2.TemplateSyntaxError as error:
            raise ConfigurationError(
                f"the template is not valid: {error.message} (line {error.lineno})",
                hint=f'correct the template; a column whose name is no word is {ROW}["its name"]',
            ) from None
        except RecursionError:
            raise ConfigurationError(
                "the template is not valid: it is nested too deeply", hint="simplify the template"
            ) from None
        self.optional = found.optional
        self.needed = found.columns - found.optional
        self.takes_all = found.takes_all
        self.paths = found.paths
        self.exceeded = ""

    def __call__(self, columns: dict[str, Any]) -> str:
        """Return the prompt of a row.

        Raises:
            ValueError: it cannot be made.
        """
        self.exceeded = ""
        try:
            return self._environment.fill(self._template, columns)
        except BoundError as error:
            self.exceeded = problem = str(error)
        except jinja2.UndefinedError as error:
            problem = self._explained(str(error), columns)
        except Exception as error:  # whatever a template does with a row's values
            problem = not_compared(str(error)) or str(error) or type(error).__name__
        raise ValueError(f"the template cannot be filled: {problem}")

    def used(self, columns: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the columns of a row that the template reads."""
        if self.takes_all and ROW not in columns:
            return tuple(columns)
        return tuple(name for name in columns if name in self.needed or name in self.optional)

    def missing(self, columns: Iterable[str]) -> list[str]:
        """Return the columns that the template needs and that are not among these."""
        known = {*columns}
        return sorted(self.needed - known)

    def unknown(self, rows: Iterable[Mapping[str, Any]]) -> tuple[str, str, list[str]] | None:
        """Return a field that no object has in which the template looks for it.

        Args:
            rows: the columns of some rows.

        Returns:
            Where the objects are, the name of the field, and the fields that they have; or `None`.
        """
        values: list[Any] = [*rows]
        for path in self.paths:
            holders = values
            for position, key in enumerate(path):
                objects = [value for value in holders if isinstance(value, Mapping)]
                if position and objects and isinstance(key, str) and not any(key in item for item in objects):
                    known = {str(name) for item in objects for name in item}
                    if not hasattr(dict, key):
                        return ".".join(map(str, path[:position])), key, sorted(known)
                holders = [found for value in holders if (found := _inside(value, key)) is not None]
        return None

    def _explained(self, problem: str, columns: Mapping[str, Any]) -> str:
        """Return the message of a value that is not there, with the whole path to it."""
        tail = (
            problem.removeprefix("its ")
            if problem.endswith(" is null")
            else problem[problem.rfind("has no ") :]
        )
        return next((found for found in self._breaks(columns) if found.endswith(tail)), problem)

    def _breaks(self, columns: Mapping[str, Any]) -> Iterator[str]:
        """Say where the paths of the template end that lead to nothing in a row."""
        for path in self.paths:
            value: Any = columns
            for position, key in enumerate(path):
                whole = ".".join(map(str, path[:position]))
                try:
                    value = value[key]
                except (LookupError, TypeError):
                    if not position:
                        if key not in self.optional:
                            yield f"the row has no {key}"
                    elif not hasattr(value, str(key)):
                        yield f"its {whole} is {kind_of(value)}, which has no {key}"
                    break
                if value is None:
                    if position + 1 < len(path) or path[0] not in self.optional:
                        yield f"its {'.'.join(map(str, path[: position + 1]))} is null"
                    break


def _inside(value: Any, key: Any) -> Any:
    try:
        return value[key]
    except (LookupError, TypeError):
        return None


def _check(tree: nodes.Template) -> None:
    """Refuse what leads out of the row, and a name that the language itself has.

    Raises:
        ConfigurationError: there is such a thing.
    """
    for node in tree.find_all(_OTHER_FILES):
        raise ConfigurationError(
            f"the template reads another one in line {node.lineno}, and it may read nothing but the row",
            hint="write what the other one has into this template",
        )
    for name in tree.find_all(nodes.Name):
        if name.name == "self" and name.ctx == "load":
            raise ConfigurationError(
                f"self, in line {name.lineno} of the template, is a name of the language's own",
                hint=f'write {ROW}["self"] for a column of that name',
            )


class _Names:
    """What a template reads of a row.

    Attributes:
        columns: the columns that it names, also as `row["…"]`.
        optional: those that may be missing.
        takes_all: whether it reads the row as a whole.
        paths: the values in columns that it reads, without those that may be missing.
    """

    def __init__(self, tree: nodes.Template) -> None:
        free = meta.find_undeclared_variables(tree)
        # One that is set or counted in the template may be both.
        bound = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
        self.columns = free - {ROW}
        self.takes_all = False
        self.paths: list[Path] = []
        self._row_is_free = ROW in free
        self._bound = bound
        optional: set[Path] = set()
        for node in tree.find_all((nodes.Filter, nodes.Test)):
            if node.node is not None and node.name in (
                _DEFAULTS if isinstance(node, nodes.Filter) else _TESTS
            ):
                path = self._path(node.node)
                if path is not None:
                    optional.add(path)
        self.optional = {path[0] for path in optional if len(path) == 1}
        self._visit(tree, optional)

    def _visit(self, node: nodes.Node, optional: set[Path]) -> None:
        method = node.node if isinstance(node, nodes.Call) else None
        path = self._path(node)
        if path is None:
            for child in node.iter_child_nodes():
                if child is method and isinstance(child, (nodes.Getattr, nodes.Getitem)):
                    child = child.node
                    if isinstance(child, nodes.Name) and child.name == ROW and self._row_is_free:
                        self.takes_all = True  # such as row.items()
                        continue
                self._visit(child, optional)
        elif not path:
            self.takes_all = True
        else:
            if isinstance(path[0], str):
                self.columns.add(path[0])
            if path not in optional:
                self.paths.append(path)

    def _path(self, node: nodes.Node) -> Path | None:
        """Return the path of an expression, if it is one to a value of the row; empty for the row itself."""
        if isinstance(node, nodes.Name):
            if node.ctx != "load" or node.name in self._bound:
                return None
            if node.name == ROW and self._row_is_free:
                return ()
            return (node.name,) if node.name in self.columns else None
        if isinstance(node, nodes.Getattr):
            path, key = self._path(node.node), node.attr
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            path, key = self._path(node.node), node.arg.value
        else:
            return None
        return None if path is None or not isinstance(key, (str, int)) else (*path, key)


def _bounded(tree: nodes.Template, environment: Environment) -> nodes.Template:
    """Let a template count its steps, and `~` see how long its result becomes."""
    for loop in tree.find_all(nodes.For):
        step = nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None)
        loop.body.insert(0, nodes.ExprStmt(step).set_lineno(loop.lineno))
    _Concatenating().visit(tree)
    tree.set_environment(environment)
    return tree


class _Concatenating(jinja2.visitor.NodeTransformer):
    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        self.generic_visit(node)
        first, *others = node.nodes
        return nodes.Filter(first, "concatenated", others, [], None, None, lineno=node.lineno)
