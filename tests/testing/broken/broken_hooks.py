"""Plugins of hooks, readers and writers that each break one rule, and which rule each breaks."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from good_hooks import Array, Good, Lines, Reads, Writes, instances
from pydantic import BaseModel, Field

from stillhouse import ConfigurationError, Row, hookimpl, prepare_output

T = TypeVar("T", bound=type[Any])

BREAKS: dict[type[Any], str] = {}


def breaks(rule: str) -> Callable[[T], T]:
    def note(cls: T) -> T:
        BREAKS[cls] = rule
        return cls

    return note


# Hooks


@breaks("G00")
class NotMarked:
    def after_generate(self, output: Any) -> None: ...


@breaks("G00")
class Surplus:
    @hookimpl
    def after_generate(self, outputs: Any) -> None: ...


@breaks("G00")
class NoModel(Good):
    @hookimpl
    def settings_model(self) -> Any:
        return dict


@breaks("G01")
class WantsARow(Good):
    @hookimpl
    def after_generate(self, row: Any) -> None:
        self.rows.append(row.index)


@breaks("G01")
class WantsAnInput(Good):
    @hookimpl
    def after_generate(self, input: Any, row: Any) -> None:
        if row is not None:
            self.rows.append(len(input))


@breaks("G01")
class WantsAnOutput(Good):
    @hookimpl
    def after_generate(self, output: Any, row: Any) -> None:
        if row is not None and row.error is None:
            self.rows.append(output["generations"])


@breaks("G01")
class EndsBadly(Good):
    @hookimpl
    def run_finished(self, summary: Any) -> None:
        self.runs -= summary.cost


@breaks("G02")
class OfOneThread(Good):
    def __init__(self) -> None:
        super().__init__()
        self.connection = sqlite3.connect(":memory:")

    @hookimpl
    def run_started(self, run: Any) -> None:
        self.connection.execute("SELECT 1")


@breaks("G03")
class ChangesTheInput(Good):
    @hookimpl
    def before_generate(self, input: Any, num_generations: int) -> Any:
        if isinstance(input, list):
            input[0]["content"] = str(input[0]["content"]).strip() + "!"


@breaks("G03")
class ChangesTheOutput(Good):
    @hookimpl
    def after_generate(self, output: Any) -> None:
        if output:
            output["statistics"]["cached"] = [1]


@breaks("G03")
class ChangesTheLLM(Good):
    @hookimpl
    def before_generate(self, llm: Any) -> Any:
        llm.generation_kwargs = {**llm.generation_kwargs, "max_new_tokens": 500}


@breaks("G03")
class ChangesTheError(Good):
    @hookimpl
    def after_generate(self, error: Any) -> None:
        if error:
            error.kind = "timeout"


@breaks("G04")
class AnswersOnce(Good):
    @hookimpl
    def before_generate(self, input: Any, num_generations: int) -> Any:
        return prepare_output(["always the same"])


@breaks("G05")
class Prints(Good):
    @hookimpl
    def run_finished(self, summary: Any) -> None:
        print(summary.done, "rows")


@breaks("G06")
class SetsAVariable(Good):
    @hookimpl
    def run_started(self, run: Any) -> None:
        os.environ["GOOD_RUNS"] = os.environ.get("GOOD_RUNS", "") + "x"


class Needing(BaseModel):
    many: int = Field(description="How many.")


class Silent(BaseModel):
    many: int = 3


@breaks("G07")
class NeedsASetting(Good):
    settings: ClassVar[dict[str, Any]] = {"many": 1}

    @hookimpl
    def settings_model(self) -> type[BaseModel]:
        return Needing


@breaks("G07")
class DescribesNothing(Good):
    @hookimpl
    def settings_model(self) -> type[BaseModel]:
        return Silent


@breaks("G90")
class NotDeclared(Good): ...


@breaks("G91")
class BadName(Good): ...


@breaks("G92")
class NoRange(Good): ...


@breaks("G93")
class NoSummary(Good): ...


# Readers


class Broken(Reads):
    """A plugin whose reader is made of the class itself."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.reader = type(cls.__name__, (vars(cls).get("Lines", Lines),), {})


@breaks("I00")
class YieldsDicts(Broken):
    class Lines(Lines):
        def row(self, index: int, line: bytes) -> Any:
            return {"prompt": line.decode()}


@breaks("I00")
class LosesTheLast(Broken):
    class Lines(Lines):
        def rows(self) -> Iterator[Row]:
            yield from list(super().rows())[:-1]


@breaks("I01")
class OpensAll(Broken):
    @hookimpl
    def open_reader(self, source: str) -> Any:
        path = Path(source.removeprefix("lines:"))
        return self.open(path) if source.startswith("lines:") else Lines(Path(os.devnull))


@breaks("I02")
class ReadsOnce(Broken):
    class Lines(Lines):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.once = super().rows()

        def __iter__(self) -> Iterator[Row]:
            return self.once


@breaks("I02")
class SharesItsRows(Broken):
    class Lines(Lines):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.kept = list(super().rows())

        def __iter__(self) -> Iterator[Row]:
            return iter(self.kept)


@breaks("I03")
class CountsFromOne(Broken):
    class Lines(Lines):
        def row(self, index: int, line: bytes) -> Row:
            found = super().row(index, line)
            return Row(index + 1, found.line, found.columns, found.error, found.digest)


@breaks("I03")
class HasNoLines(Broken):
    class Lines(Lines):
        def row(self, index: int, line: bytes) -> Row:
            found = super().row(index, line)
            return Row(index, 0, found.columns, found.error, found.digest)


@breaks("I04")
class NoDigest(Broken):
    class Lines(Lines):
        def row(self, index: int, line: bytes) -> Row:
            found = super().row(index, line)
            return Row(index, found.line, found.columns, found.error)


@breaks("I04")
class DigestOfThePlace(Broken):
    class Lines(Lines):
        def row(self, index: int, line: bytes) -> Row:
            found = super().row(index, line)
            return Row(index, found.line, found.columns, found.error, found.digest // 2 + index)


@breaks("I05")
class SameDigest(Broken):
    class Lines(Lines):
        def digest(self) -> str:
            return "lines"


@breaks("I05")
class DigestOfTheMoment(Broken):
    class Lines(Lines):
        def digest(self) -> str:
            return os.urandom(8).hex()


@breaks("I06")
class StopsAtABadRow(Broken):
    class Lines(Lines):
        def row(self, index: int, line: bytes) -> Row:
            line.decode()
            return super().row(index, line)


@breaks("I06")
class SkipsBadRows(Broken):
    class Lines(Lines):
        def rows(self) -> Iterator[Row]:
            good = [row for row in super().rows() if row.error is None]
            for index, row in enumerate(good):
                yield Row(index, row.line, row.columns, digest=row.digest)


@breaks("I07")
class LetsErrorsOut(Broken):
    def open(self, path: Path) -> Any:
        return Lines(path)


@breaks("I07")
class HasEverything(Broken):
    def open(self, path: Path) -> Any:
        return Lines(path if path.exists() else Path(os.devnull))


@breaks("I08")
class ClosesOnce(Broken):
    class Lines(Lines):
        def close(self) -> None:
            del self.content


@breaks("I09")
class HidesItsFile(Broken):
    class Lines(Lines):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            del self.places


@breaks("I09")
class LeavesAnIndex(Broken):
    class Lines(Lines):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            path.with_suffix(".index").write_text("3")


@breaks("I10")
class CountsWrongly(Broken):
    class Lines(Lines):
        num_rows = 1


@breaks("I10")
class IsNeverDone(Broken):
    class Lines(Lines):
        share_read = 2.0  # type: ignore[assignment]


@breaks("I11")
class Announces(Broken):
    class Lines(Lines):
        def rows(self) -> Iterator[Row]:
            print("reading")
            return super().rows()


# Writers


class BrokenWriter(Writes):
    """A plugin whose writer is made of the class itself."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.writer = type(cls.__name__, (vars(cls).get("Array", Array),), {})


@breaks("O00")
class LosesTypes(BrokenWriter):
    class Array(Array):
        def write(self, record: dict[str, Any]) -> None:
            super().write({name: value if name == "id" else str(value) for name, value in record.items()})


@breaks("O00")
class SortsRows(BrokenWriter):
    class Array(Array):
        def finish(self) -> None:
            self.records.sort(key=lambda record: -record["id"])
            super().finish()


@breaks("O01")
class TakesAll(BrokenWriter):
    @hookimpl
    def output_path(self, target: str) -> Path:
        return Path(target.removeprefix("array:"))


@breaks("O02")
class HasNoPath:
    @hookimpl
    def open_writer(self, target: str) -> Any:
        return Array(Path(target.removeprefix("array:"))) if target.startswith("array:") else None


@breaks("O02")
class MakesItsFolder(BrokenWriter):
    @hookimpl
    def output_path(self, target: str) -> Path | None:
        if not target.startswith("array:"):
            return None
        path = Path(target.removeprefix("array:"))
        path.with_name("made").mkdir(exist_ok=True)
        return path


@breaks("O03")
class WritesInPlace(BrokenWriter):
    class Array(Array):
        def begin(self) -> None:
            self.aside = self.path
            super().begin()

        def finish(self) -> None:
            self.path.write_text(json.dumps(self.records))


@breaks("O04")
class LeavesItsDraft(BrokenWriter):
    class Array(Array):
        def abandon(self) -> None:
            pass


@breaks("O04")
class RemovesTheOutput(BrokenWriter):
    class Array(Array):
        def abandon(self) -> None:
            super().abandon()
            self.path.unlink(missing_ok=True)


@breaks("O05")
class ReplacesFolders(BrokenWriter):
    class Array(Array):
        def check(self) -> None:
            if self.path.is_dir():
                shutil.rmtree(self.path)


@breaks("O06")
class MakesTheFolder(BrokenWriter):
    class Array(Array):
        def begin(self) -> None:
            self.path.parent.mkdir(exist_ok=True)
            super().begin()


@breaks("O06")
class RaisesForTheFolder(BrokenWriter):
    class Array(Array):
        def begin(self) -> None:
            self.aside.write_text("")


@breaks("O07")
class MindsALeftover(BrokenWriter):
    class Array(Array):
        def begin(self) -> None:
            if self.aside.exists():
                raise ConfigurationError(f"somebody else writes {self.path}")
            super().begin()


@breaks("O08")
class NeedsARow(BrokenWriter):
    class Array(Array):
        def finish(self) -> None:
            names = self.records[0].keys()
            self.records = [{name: record.get(name) for name in {*names, *record}} for record in self.records]
            super().finish()


@breaks("O08")
class HasTheFirstColumns(BrokenWriter):
    class Array(Array):
        def finish(self) -> None:
            names = self.records[0].keys() if self.records else ()
            self.records = [{name: record[name] for name in names} for record in self.records]
            super().finish()


@breaks("O09")
class TakesTheRowApart(BrokenWriter):
    class Array(Array):
        def write(self, record: dict[str, Any]) -> None:
            super().write(dict(record))
            record.clear()


@breaks("O10")
class Reports(BrokenWriter):
    class Array(Array):
        def finish(self) -> None:
            print("written")
            super().finish()


__getattr__ = instances(globals())
