"""`WriterRules`: an output appears when it is whole, and replaces nothing that its format did not make.

Over 300 lines: half of them are the rules themselves, which are the docstrings of their tests.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from stillhouse.errors import ConfigurationError
from stillhouse.protocols import RowWriter
from stillhouse.testing.hook_kit import HookKit
from stillhouse.testing.printed import printed
from stillhouse.testing.rule import Broken, expect, rule, unseen
from stillhouse.testing.rules.readers import OTHERS, contents

__all__ = ["WriterRules"]

_ROW: dict[str, Any] = {
    "id": 1,
    "prompt": "Name a river: é 川 🙂",
    "score": 0.5,
    "seen": True,
    "tags": ["a", "b"],
    "generations": ["The Ucayali.\nIt ends in the Amazon."],
    "statistics": {"input_tokens": [4], "output_tokens": [9]},
    "finish_reasons": ["stop"],
    "model_name": "m",
    "error": None,
}
_FAILED: dict[str, Any] = {
    **_ROW,
    "id": 2,
    "generations": None,
    "statistics": None,
    "finish_reasons": None,
    "error": {"kind": "server", "message": 'it is "down"'},
}
_MANY = 500


class WriterRules(HookKit):
    """The rows of a target. An author gives `make`, `make_target` and `read`."""

    rows: ClassVar[Sequence[Mapping[str, Any]]] = (_ROW, _FAILED, {**_ROW, "id": 3, "prompt": ""})
    """Two rows or more, as a run writes them; set it where the format cannot hold some of these values."""

    def make_target(self, folder: Path) -> str:
        """Return what a user gives as OUTPUT, for a new output in a folder, without making anything."""
        raise NotImplementedError(f"{type(self).__name__} has no make_target(folder)")

    def read(self, target: str) -> list[dict[str, Any]]:
        """Return the rows of a finished output, as the format's own users read them."""
        raise NotImplementedError(f"{type(self).__name__} has no read(target)")

    # For the rules

    def target(self, name: str = "a") -> str:
        """Return a target in a folder of its own, which is there."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return self.make_target(folder)

    def opened(self, target: str) -> RowWriter:
        """Open a target."""
        writer: RowWriter | None = self.call("open_writer", target=target, schema=None, columns=None)
        if writer is None:
            raise Broken(f"open_writer returned None for its own target {target!r}")
        return writer

    def path_of(self, target: str) -> Path:
        """Return the path of a target."""
        path = self.call("output_path", target=target)
        if path is None:
            raise Broken(f"output_path returned None for its own target {target!r}")
        return Path(path)

    def write(self, target: str, rows: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Write a whole output."""
        writer = self.opened(target)
        for row in self.rows if rows is None else rows:
            writer.write(copy.deepcopy(dict(row)))
        writer.finish()

    def on_disk(self, target: str) -> Path:
        """Return the path of a target; skip the rule if the output is on no disk of this machine."""
        path = self.path_of(target)
        if self._folder not in path.absolute().parents:
            unseen("the output is not in the folder")
        return path

    @rule(since="0.2")
    def test_o00_what_is_written_is_read_back(self) -> None:
        """Rows that are written and finished are read back: all of them, in their order, with their values.
        While this rule is broken, no other is tested.

        Why: every row is paid for.

        Fix: keep the types of JSON: texts, numbers, true and false, null, lists and objects; what the format
        has no type for is JSON text.
        """
        self.needs("open_writer")
        target = self.target()
        self.write(target)
        found = self.read(target)
        expect(len(found) == len(self.rows), f"{len(self.rows)} rows were written, and {len(found)} are read")
        for row, wanted in zip(found, self.rows, strict=True):
            for name, value in wanted.items():
                expect(_same(row.get(name), value), f"{name} was {value!r}, and is {row.get(name)!r}")

    @rule(since="0.2")
    def test_o01_other_targets_are_left_alone(self) -> None:
        """For a target that is not its own, `open_writer` and `output_path` return `None`.

        Why: the first plugin that opens a target wins, also over the formats of Stillhouse.

        Fix: look at the scheme (`NAME:…`) or the suffix before anything else.
        """
        for target in OTHERS:
            for hook, given in (
                ("open_writer", {"target": target, "schema": None, "columns": None}),
                ("output_path", {"target": target}),
            ):
                if hook in self.hooks:
                    expect(self.call(hook, **given) is None, f"{hook} took {target!r}")

    @rule(since="0.2")
    def test_o02_the_path_is_known_before_anything_is_opened(self) -> None:
        """`output_path` returns a path for its own target, the same every time, and creates nothing.

        Why: the state of the run is kept beside that path, and `stillhouse status` asks for it too.

        Fix: implement `output_path`; for a target that is on no disk, return a path that stands for it.
        """
        if "output_path" not in self.hooks:
            raise Broken("it does not implement output_path")
        target = self.target()
        before = contents(self._folder)
        expect(self.path_of(target) == self.path_of(target), "output_path differs between two calls")
        expect(contents(self._folder) == before, "output_path made or changed files")

    @rule(after="O02", since="0.2")
    def test_o03_nothing_is_seen_before_it_is_finished(self) -> None:
        """Until `finish`, there is nothing at the path, or the unchanged earlier output.

        Why: anybody who finds an output must be able to trust that it is complete.

        Fix: write into a `PartialFile` or a `PartialFolder` from `stillhouse.jobs.formats`, and move it at
        the end.
        """
        target = self.target()
        path = self.on_disk(target)
        with self._writing(target):
            expect(not path.exists(), f"{path.name} is there before finish()")
        self.write(target)
        before = contents(path.parent)
        with self._writing(target):
            now = {name: digest for name, digest in contents(path.parent).items() if name in before}
            expect(now == before, "the earlier output changed before finish()")
        self.write(target, self.rows[:1])
        expect(len(self.read(target)) == 1, "finish() did not replace the earlier output")

    @rule(after=("O02", "O03"), since="0.2")
    def test_o04_what_is_abandoned_leaves_nothing(self) -> None:
        """`abandon` removes what was written, and leaves an earlier output; also right after opening.

        Why: before it pays for anything, a run opens its output and abandons it, to check that it can be
        written.

        Fix: remove every file of this writer in `abandon`, and nothing else.
        """
        target = self.target()
        self.on_disk(target)
        for times in (0, len(self.rows)):
            before = contents(self._folder)
            writer = self.opened(target)
            for row in self.rows[:times]:
                writer.write(copy.deepcopy(dict(row)))
            writer.abandon()
            left = sorted(contents(self._folder).keys() - before.keys())
            expect(not left, f"abandon() left {', '.join(left)}")
        self.write(target)
        before = contents(self._folder)
        with self._writing(target):
            pass
        expect(contents(self._folder) == before, "abandon() changed or removed the earlier output")

    @rule(after="O02", since="0.2")
    def test_o05_what_the_format_did_not_make_is_not_replaced(self) -> None:
        """A target that is something else already, such as a folder, is a `ConfigurationError` when it is
        opened, and is not changed.

        Why: a mistyped OUTPUT must not destroy files.

        Fix: look at the path before anything is written; replace only files of this format's writer.
        """
        target = self.target()
        path = self.on_disk(target)
        (path / "theirs").mkdir(parents=True)
        (path / "theirs" / "thesis.txt").write_text("years of work", encoding="utf-8")
        before = contents(path)
        try:
            writer = self.opened(target)
        except ConfigurationError:
            pass
        except Exception as error:
            raise Broken(f"open_writer raised {type(error).__name__}: {error}") from error
        else:
            with contextlib.suppress(Exception):
                writer.finish()
            expect(
                path.is_dir() and contents(path) == before, "it replaced a folder that holds somebody's files"
            )
            raise Broken("open_writer took a target where a folder with somebody's files stands")
        expect(contents(path) == before, "it changed a folder that holds somebody's files")

    @rule(after="O02", since="0.2")
    def test_o06_a_target_that_cannot_be_written_is_a_configuration_error(self) -> None:
        """A target in a folder that does not exist is a `ConfigurationError` when it is opened; no folder is
        created.

        Why: the folder is a typing mistake, or a disk that is not mounted. Any other exception is treated as
        a bug of the plugin, which is skipped.

        Fix: catch `OSError` in `open_writer`, and raise `cannot_be_written(path, error)` from
        `stillhouse.jobs.formats`, as `PartialFile` and `PartialFolder` do.
        """
        target = self.target("gone")
        self.on_disk(target)
        folder = self._folder / "gone"
        folder.rmdir()
        try:
            writer = self.opened(target)
        except ConfigurationError:
            expect(not folder.exists(), "it made the folder")
            return
        except Exception as error:
            raise Broken(f"open_writer raised {type(error).__name__}: {error}") from error
        with contextlib.suppress(Exception):
            writer.abandon()
        raise Broken("open_writer took a target in a folder that is not there")

    @rule(after="O02", since="0.2")
    def test_o07_what_a_killed_run_left_is_no_obstacle(self) -> None:
        """After a writer that neither finished nor abandoned, the same target is written again.

        Why: the same command resumes a killed run.

        Fix: start over on top of the partial output of an earlier writer; `PartialFile` and `PartialFolder`
        do.
        """
        target = self.target()
        writer = self.opened(target)
        self._stack.callback(_quietly, writer.abandon)  # what it holds open ends with the test, not before
        writer.write(copy.deepcopy(dict(self.rows[0])))
        try:
            self.write(target)
        except Exception as error:
            raise Broken(f"the next writer raised {type(error).__name__}: {error}") from error
        found = self.read(target)
        expect(len(found) == len(self.rows), f"{len(self.rows)} rows were written, and {len(found)} are read")

    @rule(since="0.2")
    def test_o08_any_number_of_rows_is_written(self) -> None:
        """No rows, and many, are written in their order; a row may have columns that others lack.

        Why: an input may be empty, and a failed row has other columns than one with an answer.

        Fix: let `finish` write an output without rows, and take the columns of all rows.
        """
        target = self.target("none")
        self.write(target, [])
        found = self.read(target)
        expect(found == [], f"no rows were written, and {found} are read")
        rows: list[dict[str, Any]] = [{**self.rows[0], "id": number} for number in range(_MANY)]
        if "id" not in self.rows[0]:
            rows = [dict(self.rows[0]) for _ in range(_MANY)]
        rows[-1]["late"] = "text"
        target = self.target("many")
        self.write(target, rows)
        found = self.read(target)
        expect(len(found) == _MANY, f"{_MANY} rows were written, and {len(found)} are read")
        if "id" in self.rows[0]:
            expect([row["id"] for row in found] == list(range(_MANY)), "the rows are in another order")
        expect(found[-1].get("late") == "text", "a column that only the last row has is lost")

    @rule(since="0.2")
    def test_o09_the_rows_are_not_changed(self) -> None:
        """`write` does not change its row.

        Why: the run still needs the row, to count finish reasons.

        Fix: build a new dict for the format.
        """
        writer = self.opened(self.target())
        for row in self.rows:
            given = copy.deepcopy(dict(row))
            writer.write(given)
            expect(_same(given, dict(row)), f"write() changed the row to {given}")
        writer.abandon()

    @rule(since="0.2")
    def test_o10_nothing_is_printed(self) -> None:
        """Nothing is written to standard output.

        Why: it belongs to the program that the run is part of.

        Fix: log with `logging.getLogger(…)`.
        """
        target = self.target()
        with printed() as lines:
            self.write(target)
        expect(not lines, f"it printed {''.join(lines)[:200]!r}")

    @contextlib.contextmanager
    def _writing(self, target: str) -> Iterator[None]:
        """Write rows without finishing, and abandon them at the end of the block."""
        writer = self.opened(target)
        try:
            for row in self.rows:
                writer.write(copy.deepcopy(dict(row)))
            yield
        finally:
            writer.abandon()


def _quietly(function: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        function()


def _same(found: Any, wanted: Any) -> bool:
    """Whether a value was kept, its type included; an object may have more fields, which are null."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            _same(found.get(name), wanted.get(name)) for name in {*found, *wanted}
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_same, found, wanted))
    return type(found) is type(wanted) and found == wanted
