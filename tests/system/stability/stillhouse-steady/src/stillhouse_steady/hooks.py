"""Every hook. They act on what is marked as theirs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import stillhouse
from stillhouse import LLM, FormattedInput, GenerateOutput, GenerationError
from stillhouse.jobs.formats import RowReader, RowWriter
from stillhouse.jobs.rows import Row, digest_of

observed: list[str] = []


@stillhouse.hookimpl
def before_generate(input: FormattedInput, num_generations: int) -> GenerateOutput | None:
    if "ask the hook" not in str(input):
        return None
    return stillhouse.prepare_output(["from the hook"] * num_generations)


@stillhouse.hookimpl
def after_generate(
    llm: LLM,
    input: FormattedInput,
    num_generations: int,
    arguments: Mapping[str, Any],
    output: GenerateOutput | None,
    error: GenerationError | None,
    from_hook: bool,
) -> None:
    assert (output is None) != (error is None)
    observed.append(
        f"{llm.model_name} {num_generations} {sorted(arguments)} {error and error.kind} {from_hook}"
    )


class Lines:
    """The lines of a text file are prompts."""

    schema = None
    share_read: float | None = None

    def __init__(self, path: str) -> None:
        self._lines = Path(path).read_text(encoding="utf-8").splitlines()

    def __iter__(self) -> Iterator[Row]:
        for index, line in enumerate(self._lines):
            yield Row(index, index + 1, {"prompt": line}, digest=digest_of(line.encode()))

    def digest(self) -> str:
        return str([digest_of(line.encode()) for line in self._lines])

    def close(self) -> None:
        pass


class Plain:
    """The generations, a line each."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, list[str]()

    def write(self, record: dict[str, Any]) -> None:
        self._lines += [str(text) for text in record["generations"] or ["-"]]

    def finish(self) -> None:
        self._path.write_text("\n".join(self._lines), encoding="utf-8")

    def abandon(self) -> None:
        pass


@stillhouse.hookimpl
def open_reader(source: str) -> RowReader | None:
    return Lines(source.removeprefix("steady:")) if source.startswith("steady:") else None


@stillhouse.hookimpl
def open_writer(target: str) -> RowWriter | None:
    return Plain(Path(target.removeprefix("steady:"))) if target.startswith("steady:") else None


@stillhouse.hookimpl
def output_path(target: str) -> Path | None:
    return Path(target.removeprefix("steady:")) if target.startswith("steady:") else None
