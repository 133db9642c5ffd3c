"""`look`: what the first rows of an input say of the prompt, before anything is sent.

A name that no column has is refused then, and a person reads what was taken for the prompt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from stillhouse._wording import number_of
from stillhouse.errors import GenerationError, near_matches
from stillhouse.inputs import split_input
from stillhouse.jobs.formats.columns import given_names
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.prompts.chats import ends_with_answer, is_chat
from stillhouse.jobs.prompts.shapes import SHAPES
from stillhouse.jobs.prompts.unused import listed, parameter_columns, shown_name
from stillhouse.jobs.prompts.words import PromptError
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.custom_ids import check_custom_ids
from stillhouse.jobs.runs.inputs import input_of
from stillhouse.jobs.selection.choosing import ChosenRows
from stillhouse.llm import LLM
from stillhouse.protocols import Row, RowReader

if TYPE_CHECKING:
    from stillhouse.jobs.prompts.templates import PromptTemplate

__all__ = ["Look", "check_columns", "look", "look_at_run", "preview"]

MAX_ROWS = 100
"""How many rows are looked at."""

MAX_TOO_MUCH = 3
"""How many rows, if none else was filled, show that a template takes too much."""

MAX_CHARACTERS = 10_000_000
"""After how many characters in their texts no further row is."""


@dataclass
class Look:
    """What the first rows say.

    Attributes:
        rows: these rows.
        rest: the others, where the input can be read only once.
        prompts: the columns that made the prompts, each combination once.
        columns: the names of all columns.
        parameters: the columns that parameters of rows are taken from; `None` if they are not.
        images: the column with the images.
        is_template: whether a template made the prompts.
        is_batch: whether the rows are lines of an OpenAI batch file.
        answered: how many chats end with the assistant's answer.
        notes: what a person may want to know besides.
        none: what is said where there is no row.
    """

    rows: list[Row] = field(default_factory=list)
    rest: Iterator[Row] = field(default_factory=lambda: iter(()))
    prompts: list[tuple[str, ...]] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    parameters: list[str] | None = None
    images: str | None = None
    is_template: bool = False
    is_batch: bool = False
    answered: int = 0
    notes: list[str] = field(default_factory=list)
    none: str = "the input has no row"

    @property
    def all_rows(self) -> Iterator[Row]:
        """All rows of the input; once."""
        return chain(self.rows, self.rest)

    @property
    def unused(self) -> list[str]:
        """The columns that are in no prompt, and that nothing else is taken from."""
        used = {name for names in self.prompts for name in names} | {*(self.parameters or ()), self.images}
        return [name for name in self.columns if name not in used]

    def lines(self) -> list[str]:
        """Return what was found, a line each; none where no row could be read."""
        if not self.rows:
            return [self.none]
        if not self.columns:
            return []
        taken = [f"prompt: {self._taken()}"]
        if self.parameters is not None:
            taken.append(f"parameters: {listed(self.parameters) or 'none'}")
        if self.images is not None:
            taken.append(f"images: {shown_name(self.images)}")
        lines = ["; ".join([*taken, f"unused: {listed(self.unused) or 'none'}"])]
        if self.answered:
            lines.append(
                f"chats that end with the assistant's answer, which is sent: {self.answered:,} of the first "
                f"{number_of(len(self.rows), 'row')}; --drop-last-assistant leaves it out"
            )
        return [*lines, *self.notes]

    def _taken(self) -> str:
        if self.is_template:
            used = {name for names in self.prompts for name in names}
            return (
                f"the template with {listed(name for name in self.columns if name in used)}"
                if used
                else "the template"
            )
        if self.is_batch:
            return "the requests of an OpenAI batch file, with the parameters of their bodies"
        # Instructions with an input and without one are one kind.
        whole = [names for names in self.prompts if not any({*names} < {*others} for others in self.prompts)]
        return " or ".join(" and ".join(map(shown_name, names)) for names in whole) or "none so far"


def look(llm: LLM, rows: Iterable[Row], formatter: RowFormatter, *, few: bool = False) -> Look:
    """Look at the first rows.

    Args:
        llm: the LLM; its parameters are known.
        rows: those that belong to the run, iterated over once.
        formatter: makes the prompts of the run.
        few: read no further once a row has a prompt: whoever writes the rows may be slow.

    Raises:
        PromptError: a column that the command names is in none of these rows, or none of them has a prompt.
    """
    found = Look(rest=iter(rows), is_template=formatter.template is not None)
    if isinstance(rows, ChosenRows):
        found.none = "no row of the input is one that the command chooses"
    size = made = too_much = 0
    while len(found.rows) < MAX_ROWS and size < MAX_CHARACTERS:
        row = next(found.rest, None)
        if row is None:
            break
        found.rows.append(row)
        if row.error is not None:
            continue
        size += sum(len(value) for value in row.columns.values() if isinstance(value, (str, bytes)))
        if not found.columns:
            formatter.recognise(row)
        found.columns.update(dict.fromkeys(map(str, row.columns)))
        names = formatter.used(row.columns)
        if names and names not in found.prompts:
            found.prompts.append(names)
        input = formatter.prompt(row)
        if not isinstance(input, GenerationError):
            made += 1
            if formatter.is_batch:
                formatter(row)  # so that what is not done as it says is known
            found.answered += not isinstance(input, str) and ends_with_answer(split_input(input)[0])
            if few:
                break
        elif formatter.template is not None and formatter.template.exceeded:
            too_much += 1
            if too_much == MAX_TOO_MUCH and not made:
                break
    if found.columns:
        if formatter.parameters is not None:
            found.parameters = formatter.parameters.names_in(found.columns)
        if formatter.images is not None:
            found.images = formatter.images.column
        if formatter.is_batch and formatter.requests is not None:
            found.is_batch, found.parameters = True, None
            found.notes += formatter.requests.take_notes()
        _check(found, formatter)
        if not made and formatter.template is not None:
            _check_template(found, formatter.template, too_much)
        _note(found, llm, formatter)
    return found


def _check(found: Look, formatter: RowFormatter) -> None:
    """Refuse a name that none of the rows has.

    Raises:
        PromptError: there is one, or no column that a prompt can be made of.
    """
    missing = formatter.missing(found.columns)
    of_template = found.is_template and bool(missing)
    if found.images is not None and found.images not in found.columns:
        missing.append(found.images)
    if missing:
        name, rows = shown_name(missing[0]), len(found.rows)
        hint = near_matches(missing[0], found.columns)
        if of_template and not hint.startswith("did you"):
            hint += f"; write {{{{ {missing[0]} | default('') }}}} for one that may be missing"
        what = f"the template names {name}, and " if of_template else ""
        none = "the first row has no" if rows == 1 else f"none of the first {rows:,} rows has the"
        raise PromptError(f"{what}{none} column {name}", hint=hint)
    if (
        not found.is_template
        and formatter.column is None
        and not formatter.is_batch
        and not any(name in found.columns for name in SHAPES)
    ):
        raise PromptError(
            f"the input has no column {', '.join(SHAPES[:-1])} or {SHAPES[-1]}; its columns are: "
            f"{listed(found.columns)}",
            hint=_way(found),
        )


def _check_template(found: Look, template: PromptTemplate, too_much: int) -> None:
    """Refuse a template that fills no row, where the reason is not in the rows.

    Raises:
        PromptError: it is so.
    """
    readable = [row.columns for row in found.rows if row.error is None]
    if too_much and too_much in (len(readable), MAX_TOO_MUCH):
        raise PromptError(f"{template.exceeded}, for each of the first rows", hint="simplify the template")
    unknown = template.unknown(readable)
    if unknown is not None:
        where, name, known = unknown
        raise PromptError(
            f"the template reads {name} of {where}, which no {where} has", hint=near_matches(name, known)
        )


def _way(found: Look) -> str:
    """Return how a column can be named that may be the prompt."""
    for row in found.rows:
        for name, value in row.columns.items():
            if is_chat(value):
                return f"give --messages-column {name}"
    usual = [
        name for name in ("question", "query", "text", "input", "problem", "content") if name in found.columns
    ]
    return (
        f"give --prompt-column {usual[0] if usual else 'NAME'}, --messages-column NAME for chats, "
        "or --template TEXT"
    )


def _note(found: Look, llm: LLM, formatter: RowFormatter) -> None:
    """Note what a person may not have meant."""
    template = formatter.template
    if template is not None and not (template.needed or template.optional or template.takes_all):
        found.notes.append("the template names no column: every row has the same prompt")
    asked = parameter_columns(found.unused, type(llm).generation_parameters().parameters)
    if len(asked) == 1:
        found.notes.append(
            f"the column {asked[0]} has the name of a parameter, and is not used without --row-params"
        )
    elif asked:
        found.notes.append(
            f"the columns {listed(asked)} have the names of parameters, and are not used without --row-params"
        )


def look_at_run(llm: LLM, rows: RowReader, command: Command) -> Look:
    """Look at the rows of a run that can be read again, before anything is sent.

    Args:
        llm: as `look`.
        rows: those that belong to the run.
        command: what the run is asked to do.

    Raises:
        PromptError: as `look`.
        ConfigurationError: lines of an OpenAI batch file have no id, or the same one; or the input has a
            column that the output adds.
    """
    # A part of them may be a single row, and have no prompt.
    found = look(llm, rows.of_all_shards() if isinstance(rows, ChosenRows) else rows, command.formatter)
    if command.formatter.is_batch:
        check_custom_ids(rows)
    check_columns(command, rows, found)
    return found


def check_columns(command: Command, rows: RowReader, found: Look) -> None:
    """Refuse an input that has columns of the names of those that the output adds."""
    command.writing.columns().check([*given_names(rows), *found.columns])


@contextlib.contextmanager
def preview(llm: LLM, command: Command) -> Iterator[tuple[Look, Iterator[Row]]]:
    """Open the input of a command, for a look at its rows; nothing is sent, loaded or written.

    Raises:
        PromptError: as `look`.
        ConfigurationError, OSError: the input cannot be read, or has a column that the output adds.
    """
    with input_of(llm, command) as reader:
        few = command.source == "-"
        if not few:  # standard input cannot be read twice
            command.choice.check(reader)
        rows = command.choice.rows(reader)
        found = look(llm, rows, command.formatter, few=few)
        check_columns(command, rows, found)
        yield found, found.all_rows
