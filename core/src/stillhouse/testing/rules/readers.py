"""`ReaderRules`: a source gives the same rows at every reading, and one that is broken says so.

Over 300 lines: half of them are the rules themselves, which are the docstrings of their tests.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.jobs.store.places import places_of
from stillhouse.protocols import Row, RowReader
from stillhouse.testing.hook_kit import HookKit
from stillhouse.testing.printed import printed
from stillhouse.testing.rule import Broken, expect, rule, said, unseen

__all__ = ["OTHERS", "ReaderRules", "contents"]

OTHERS = ("answers.jsonl", "answers.parquet", "folder/answers.csv", "-", "no-such-scheme:answers", "answers")
"""Sources and targets that belong to Stillhouse, or to nobody."""

_BITS = 63


class ReaderRules(HookKit):
    """The rows of a source. An author gives `make` and `make_source`."""

    rows: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"prompt": "Name a river."},
        {"prompt": "Name a river in Peru, and say where it ends."},
        {"prompt": "Name a river: é 川 🙂"},
    )
    """Three different rows or more for `make_source`; set it where the source has columns of its own."""

    def make_source(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
        """Make a source that has these rows, and return what a user gives as INPUT.

        Args:
            folder: an empty folder for its files.
            rows: the columns of each row.
        """
        raise NotImplementedError(f"{type(self).__name__} has no make_source(folder, rows)")

    def make_bad_row(self, folder: Path) -> str | None:
        """Make a source with a row that cannot be read among others that can, and return it; `None` if the
        format has no such rows."""
        return None

    # For the rules

    def source(self, rows: Sequence[Mapping[str, Any]] | None = None, name: str = "a") -> str:
        """Return a source with these rows, or with the rows of the class, in a folder of its own."""
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return self.make_source(folder, copy.deepcopy(self.rows if rows is None else rows))

    @contextlib.contextmanager
    def opened(self, source: str) -> Iterator[RowReader]:
        """Open a source, until the block ends."""
        reader = self.call("open_reader", source=source)
        if reader is None:
            raise Broken(f"open_reader returned None for its own source {source!r}")
        with contextlib.closing(reader):
            yield reader

    def all_rows(self, source: str) -> list[Row]:
        """Read a source once."""
        with self.opened(source) as reader:
            return list(reader)

    @rule(since="0.2")
    def test_i00_it_reads(self) -> None:
        """It opens its source and yields one `stillhouse.Row` for each row, with the columns of that row.
        While this rule is broken, no other is tested.

        Why: a row that is read wrongly is still paid for, and its answer is wrong.

        Fix: yield `Row(index, line, columns, digest=…)`, with `columns` a new dict for each row.
        """
        self.needs("open_reader")
        found = self.all_rows(self.source())
        strange = [row for row in found if not isinstance(row, Row)]
        expect(
            not strange, f"it yielded a {type(strange[0]).__name__ if strange else ''}, not a stillhouse.Row"
        )
        failed = [row.error for row in found if row.error is not None]
        expect(not failed, f"a row that can be read has the error {failed and said(failed[0])!r}")
        columns = [dict(row.columns) for row in found]
        expect(columns == [dict(row) for row in self.rows], f"the columns are {columns}")

    @rule(since="0.2")
    def test_i01_other_sources_are_left_alone(self) -> None:
        """For a source that is not its own, `open_reader` returns `None`.

        Why: the first plugin that opens a source wins, also over the formats of Stillhouse.

        Fix: look at the scheme (`NAME:…`) or the suffix before anything else.
        """
        for source in OTHERS:
            expect(self.call("open_reader", source=source) is None, f"it opened {source!r}")

    @rule(since="0.2")
    def test_i02_every_reading_begins_anew(self) -> None:
        """Each iteration yields every row from the first on, also after an iteration that was left in the
        middle or whose rows were changed.

        Why: a run reads its input several times: for its digest, to generate, to write the output.

        Fix: go back to the beginning in `__iter__`, and keep no state between iterations.
        """
        with self.opened(self.source()) as reader:
            first = list(reader)
            kept = copy.deepcopy([row.columns for row in first])
            for row in first:
                row.columns.clear()
            for _ in reader:
                break
            again = list(reader)
            reader.digest()
            last = list(reader)
        for found, when in ((again, "after one that was left in the middle"), (last, "after digest()")):
            expect(len(found) == len(kept), f"a reading {when} has {len(found)} rows, the first {len(kept)}")
            expect(
                [row.columns for row in found] == kept, f"a reading {when} has other columns than the first"
            )
            expect(
                [(row.index, row.line, row.digest) for row in found]
                == [(row.index, row.line, row.digest) for row in first],
                f"a reading {when} has other indexes, lines or digests than the first",
            )

    @rule(since="0.2")
    def test_i03_rows_are_numbered(self) -> None:
        """The index counts the rows from 0; the line where a row begins counts from 1, and never decreases.

        Why: results are joined to rows by the index, and people look for a row by its line.

        Fix: count in `__iter__`; where there are no lines, the line is the index plus one.
        """
        found = self.all_rows(self.source())
        indexes, lines = [row.index for row in found], [row.line for row in found]
        expect(indexes == list(range(len(found))), f"the indexes are {indexes}")
        expect(all(type(line) is int and line >= 1 for line in lines), f"the lines are {lines}")
        expect(lines == sorted(lines), f"the lines are {lines}")

    @rule(since="0.2")
    def test_i04_a_rows_digest_changes_with_the_row(self) -> None:
        """`Row.digest` is a 64-bit integer, the same at every reading, and different for different rows.

        Why: a resumed run uses it to check that a finished row is unchanged.

        Fix: `digest=digest_of(content)` from `stillhouse.jobs.formats`, from the whole content of the row;
        not `hash()`, which differs in every process.
        """
        found = [row.digest for row in self.all_rows(self.source())]
        expect(
            all(type(digest) is int and -(1 << _BITS) <= digest < 1 << _BITS for digest in found),
            f"the digests are {found}",
        )
        expect(len(set(found)) == len(found), f"different rows have the same digest: {found}")
        swapped = [self.rows[1], self.rows[0], *self.rows[2:]]
        others = [row.digest for row in self.all_rows(self.source(swapped, "b"))]
        expect(others == [found[1], found[0], *found[2:]], "the digest of a row changes with its place")

    @rule(since="0.2")
    def test_i05_the_digest_changes_with_the_content(self) -> None:
        """`digest()` is a text, the same for the same content, and different if any row differs.

        Why: a run that is resumed with a changed input would join answers to the wrong rows.

        Fix: compute it from the bytes of every file, or from an identifier of this version of the source.
        """
        with self.opened(self.source()) as reader:
            first, again = reader.digest(), reader.digest()
        expect(isinstance(first, str) and first, f"digest() returned {first!r}")
        with self.opened(self.source()) as reader:
            anew = reader.digest()
        expect(first == again == anew, "digest() differs between two readings of the same content")
        for other in (self.rows[:-1], [*self.rows[:-1], self.rows[0]]):
            with self.opened(self.source(other)) as reader:
                changed = reader.digest()
            expect(changed != first, "digest() is the same although the last row is another, or gone")

    @rule(after="I03", since="0.2")
    def test_i06_a_bad_row_is_one_row(self) -> None:
        """A row that cannot be read is yielded in its place, without columns and with an error of the kind
        `invalid_input`; the others are read.

        Why: one bad row in a million must not affect the others.

        Fix: catch the exceptions of the parser, and yield `Row(index, line, error=invalid_row(line,
        problem))`; `invalid_row` is in `stillhouse.jobs.formats`.
        """
        folder = self._folder / "bad"
        folder.mkdir()
        source = self.make_bad_row(folder)
        if source is None:
            unseen("make_bad_row gives no source with a bad row")
        found = self.all_rows(source)
        bad = [row for row in found if row.error is not None]
        expect(bad, f"none of the {len(found)} rows has an error")
        expect(len(bad) < len(found), "every row has an error")
        expect(not any(row.columns for row in bad), "a row with an error has columns")
        kinds = {row.error.kind if isinstance(row.error, GenerationError) else row.error for row in bad}
        expect(kinds == {"invalid_input"}, f"the error of a bad row is {', '.join(map(str, kinds))}")
        indexes = [row.index for row in found]
        expect(indexes == list(range(len(found))), f"the indexes are {indexes}")

    @rule(since="0.2")
    def test_i07_a_source_that_cannot_be_read_is_a_configuration_error(self) -> None:
        """A source that does not exist is a `ConfigurationError`, raised when it is opened.

        Why: any other exception is treated as a bug of the plugin, which is skipped: the user reads that the
        format is unknown.

        Fix: catch `OSError` and what your library raises in `open_reader`, and raise a `ConfigurationError`
        that says what is wrong and, as its `hint`, what to do.
        """
        source = self.source()
        folder = self._folder / "a"
        if not any(folder.iterdir()):
            unseen("the source has no files")
        shutil.rmtree(folder)
        try:
            reader = self.call("open_reader", source=source)
        except ConfigurationError as error:
            expect(error.message, "its message is empty")
            return
        except Exception as error:
            raise Broken(f"open_reader raised {type(error).__name__}: {error}") from error
        expect(reader is not None, "open_reader returned None, as for a source of somebody else")
        reader.close()
        raise Broken("open_reader opened a source that is not there")

    @rule(since="0.2")
    def test_i08_closing_twice_is_harmless(self) -> None:
        """`close()` may be called twice, and during an iteration.

        Why: an interrupted run closes its readers, in whatever state they are.

        Fix: let `close` do nothing if it was called before.
        """
        with self.opened(self.source()) as reader:
            for _ in reader:
                break
            reader.close()

    @rule(since="0.2")
    def test_i09_what_it_reads_is_known_and_left_as_it_is(self) -> None:
        """The files that it reads are named by `places`, or by the source itself, and are not changed.

        Why: a run refuses an output that would replace its input, and must know the files of that input.

        Fix: give the reader an attribute `places`, the paths of its files and folders on this machine.
        """
        source = self.source()
        folder = self._folder / "a"
        before = contents(folder)
        with self.opened(source) as reader:
            list(reader)
            reader.digest()
            places = [place.resolve() for place in places_of(reader, source)]
        expect(contents(folder) == before, "reading changed, removed or left files")
        if not before:
            unseen("the source has no files")
        root = folder.resolve()
        known = [place for place in places if place.exists() and (place == root or root in place.parents)]
        files = [(root / name) for name in before]
        unknown = [file.name for file in files if not any(place in (file, *file.parents) for place in known)]
        expect(
            not unknown, f"nothing names {', '.join(unknown)}; places is {[str(place) for place in places]}"
        )

    @rule(since="0.2")
    def test_i10_what_it_says_of_its_rows_is_true(self) -> None:
        """`share_read` is `None` or between 0 and 1, and never decreases; `num_rows` and `schema`, if there
        are any, are those of the rows.

        Why: the progress display, the estimate and the types of the output come from them.

        Fix: return `None` for what you do not know.
        """
        with self.opened(self.source()) as reader:
            shares = [reader.share_read, *(reader.share_read for _ in reader), reader.share_read]
            known = [share for share in shares if share is not None]
            expect(all(0 <= share <= 1 for share in known), f"share_read is {shares}")
            expect(known == sorted(known), f"share_read is {shares}")
            number = getattr(reader, "num_rows", None)
            expect(
                number in (None, len(self.rows)),
                f"num_rows is {number!r}, and there are {len(self.rows)} rows",
            )
            names = None if reader.schema is None else set(reader.schema.names)
            wanted = {name for row in self.rows for name in row}
            expect(names is None or names == wanted, f"the schema has the columns {names}, the rows {wanted}")

    @rule(since="0.2")
    def test_i11_nothing_is_printed(self) -> None:
        """Nothing is written to standard output.

        Why: with `-o -` the rows are written there, and any other line corrupts them.

        Fix: log with `logging.getLogger(…)`.
        """
        source = self.source()
        with printed() as lines:
            self.all_rows(source)
        expect(not lines, f"it printed {''.join(lines)[:200]!r}")


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every file below a folder, by its path in it; of a folder that is empty too."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }
