"""`estimate`: computes the remaining work of a run from its input; nothing is loaded, sent or written."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.opening import output_path
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.inputs import input_of
from stillhouse.jobs.runs.looking import Look, look_at_run
from stillhouse.jobs.selection.repeats import Repeats, find_repeats
from stillhouse.jobs.spending.bounds import Bounds, size_of_input
from stillhouse.jobs.spending.prices import Prices, cost_text, find_prices, no_prices, offer_of
from stillhouse.jobs.store.database import FAILED, QUEUED
from stillhouse.jobs.store.fingerprint import InputChanges, check_unchanged, command_of
from stillhouse.jobs.store.found import state_of
from stillhouse.jobs.store.salvage import intact, unknown_command
from stillhouse.jobs.store.seals import facts_of
from stillhouse.llm import LLM
from stillhouse.protocols import RowReader

__all__ = ["Estimate", "estimate"]

# The average of English; used until the backend has reported the tokens of finished rows.
BYTES_PER_TOKEN = 4.0

# The states of a finished row: without and with the tokens of its input, as the backend reported them.
FINISHED, COUNTED = -1, -2


@dataclass
class Estimate:
    """The remaining work of a run.

    Attributes:
        finished: number of finished rows.
        rows: number of remaining rows, including those that cannot be used.
        unusable: number of rows that cannot be used.
        repeated: number of rows with the same request as an earlier row, which are not paid for again.
        bytes: size of the remaining inputs.
        bytes_per_token: bytes per token, for the estimate of the input tokens.
        is_measured: whether this is the average of the finished rows.
        max_input: upper bound on the input tokens; `None` if there is none.
        max_output: upper bound on the output tokens; `None` if there is none.
        cost: upper bound on the cost in USD; `None` if it or the prices are unknown.
        cache_cost: the part of the cost for writing the provider's cache, above the price of plain input.
        prices: the prices, if they are known.
        advice: how to bound the output; empty if there is a bound, or nothing gives one.
        look: the findings about the prompt in the first rows.
    """

    finished: int = 0
    rows: int = 0
    unusable: int = 0
    repeated: int = 0
    bytes: int = 0
    bytes_per_token: float = BYTES_PER_TOKEN
    is_measured: bool = False
    max_input: int | None = 0
    max_output: int | None = 0
    cost: float | None = None
    cache_cost: float = 0.0
    prices: Prices | None = None
    advice: str = ""
    look: Look = field(default_factory=Look, repr=False)

    def lines(self) -> list[tuple[str, str]]:
        """Return the estimate as labels and values."""
        how = "as the finished rows had" if self.is_measured else "as English has"
        how = f"a token for {self.bytes_per_token:.1f} bytes, {how}"
        lines = [("rows", f"{self.rows:,}")]
        if self.finished:
            lines.insert(0, ("finished before", f"{self.finished:,}"))
        if self.repeated:
            lines.append(("equal to an earlier row", f"{self.repeated:,}, not paid again"))
        lines += [
            ("rows that cannot be used", f"{self.unusable:,}"),
            ("input tokens, about", f"{self.bytes / self.bytes_per_token:,.0f} ({how})"),
            ("input tokens, at most", self._text(self.max_input)),
            ("output tokens, at most", self._text(self.max_output)),
        ]
        if self.prices is None:
            lines.append(("cost, at most", f"unknown: {no_prices()}"))
        elif self.cost is None:
            lines.append(("cost, at most", self._text(None)))
        else:
            lines.append(("cost, at most", f"{cost_text(self.cost)} (prices of {self.prices.source})"))
            if self.cache_cost:
                lines.append(
                    ("of it for cache writes", f"{cost_text(self.cache_cost)}, if all input is written")
                )
        return lines

    def _text(self, count: int | None) -> str:
        return f"no bound{self.advice}" if count is None else f"{count:,}"


def estimate(llm: LLM, command: Command) -> Estimate:
    """Estimate the remaining work of a run, which may not have started.

    Raises:
        ConfigurationError: the input cannot be read, or lacks a column that the command names, or the run was
            started with another command.
        OSError: the input cannot be read.
    """
    prices = find_prices(offer_of(llm))
    bounds = Bounds(llm, command.arguments)
    found = Estimate(prices=prices, cost=0.0 if prices else None)
    if bounds.can_be_set and bounds.max_new_tokens is None:
        found.advice = "; give --param max_new_tokens=N"
    known_bytes = 0
    with input_of(llm, command) as reader:
        command.choice.check(reader)
        rows = command.choice.rows(reader)
        found.look = look_at_run(llm, rows, command)
        finished, tokens = _finished(llm, command, reader)
        repeats = find_repeats(rows, command.formatter) if command.choice.dedupe else Repeats()
        for row, is_repeated in repeats.marked(rows):
            made = finished[row.index] if row.index < len(finished) else 0
            input = command.formatter(row)
            if made < 0:
                found.finished += 1
                if made == COUNTED and not isinstance(input, GenerationError):
                    known_bytes += size_of_input(input)
                continue
            found.rows += 1
            if is_repeated:
                found.repeated += 1
                continue
            if isinstance(input, GenerationError):
                found.unusable += 1
                continue
            missing = command.num_generations - made
            found.bytes += size_of_input(input)
            bound = bounds(input, missing)
            if bound is None or found.max_input is None or found.max_output is None:
                found.max_input = found.max_output = found.cost = None
                continue
            found.max_input += bound.input
            found.max_output += bound.output
            if prices and found.cost is not None:
                found.cost += prices.max_cost(bound.input, bound.output, batch=command.offline)
                found.cache_cost += prices.max_cache_cost(bound.input, batch=command.offline)
    if tokens and known_bytes:
        found.bytes_per_token = known_bytes / tokens
        found.is_measured = True
    return found


def _finished(llm: LLM, command: Command, reader: RowReader) -> tuple[array[int], int]:
    """Return, for every row of the run, the number of its generations, or that it is finished.

    The second value is the number of input tokens of the finished rows that the backend reported.
    """
    finished: array[int] = array("h")
    path = state_of(output_path(command.output, llm.registry.hooks()), command.state)
    if command.restart or not path.exists():
        return finished, 0
    with intact(path) as (connection, _):
        before = facts_of(connection).get("command")
        (last,) = connection.execute("SELECT max(row) FROM rows").fetchone()
        if before is None:
            if last is not None:
                raise unknown_command(path)
            return finished, 0
        now = command_of(llm, command.arguments, command.num_generations, command.shaping, reader.digest())
        digests = connection.execute("SELECT row, digest FROM rows ORDER BY row")
        check_unchanged(before, now, InputChanges(reader, digests), extend=command.extend)
        finished.frombytes(bytes(finished.itemsize * (0 if last is None else last + 1)))
        total = 0
        for row, state, kind, made, tokens in connection.execute(
            "SELECT row, state, kind, made, input_tokens FROM rows"
        ):
            if state == QUEUED or (state == FAILED and kind in command.retry):
                finished[row] = made
            else:
                finished[row] = FINISHED if tokens is None else COUNTED
                total += tokens or 0
    return finished, total
