"""`Budget`: a ceiling on what a run may spend, that holds with requests in flight.

Before a row is started, an upper bound on what it can use is reserved; when it is finished, the usage that
the backend reports replaces the reservation. If a call reports no usage, its reservation counts as spent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.spending.bounds import Bound, Bounds
from stillhouse.jobs.spending.prices import cost_text, find_prices, offer_of
from stillhouse.jobs.store.columns import Tokens, tokens_of
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput, GenerateOutput

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = ["Budget", "BudgetError", "Ceiling"]

# With these errors, the server refused the request before it generated, and bills nothing.
_REFUSED = frozenset({"authentication", "context_length", "invalid_input", "invalid_request", "rate_limit"})

# With these errors, every answer arrived with its usage, and is not usable.
_ANSWERED = frozenset({"content_filter", "schema", "truncated"})


class BudgetError(ConfigurationError):
    """The next row does not fit under the ceiling."""


class Ceiling:
    """What a run may spend at most, checked before anything is loaded.

    Args:
        llm: the LLM; it need not be loaded.
        arguments: the generation parameters of the run.
        max_tokens: of input and output together; `None` means any number.
        max_cost: in USD; `None` means any amount.
        per_row: whether rows may say themselves how long a generation of theirs may be.

    Raises:
        ConfigurationError: nothing bounds the output, or the model's prices are not known.
    """

    def __init__(
        self,
        llm: LLM,
        arguments: dict[str, Any],
        max_tokens: int | None,
        max_cost: float | None,
        *,
        per_row: bool = False,
    ) -> None:
        self.max_tokens = max_tokens
        self.max_cost = max_cost
        self.bounds = Bounds(llm, arguments)
        if not self.bounds.can_be_set:  # first, or the hint of the next one leads nowhere
            raise ConfigurationError(
                f"no ceiling can be held with {type(llm).__name__}, which has no parameter max_new_tokens: "
                "nothing bounds what a row may use",
                hint="run it without a ceiling, a part of the rows at a time (--limit)",
            )
        self.prices = find_prices(offer_of(llm), required=True) if max_cost is not None else None
        if self.bounds.max_new_tokens is None and not per_row:
            raise ConfigurationError(
                "a ceiling can be held only if the length of a generation has a bound",
                hint="give --param max_new_tokens=N",
            )


@dataclass
class Amount:
    """Tokens, and the input tokens of the largest row among them, by which a price may differ."""

    input: int = 0
    output: int = 0
    largest: int = 0

    def add(self, bound: Bound) -> None:
        self.input += bound.input
        self.output += bound.output
        self.largest = max(self.largest, bound.input)

    def remove(self, bound: Bound) -> None:
        """Subtract what was added; the largest row stays."""
        self.input -= bound.input
        self.output -= bound.output


class Budget:
    """What a run has spent and what is reserved, under its ceiling.

    Args:
        ceiling: the ceiling.
        connection: the run's database, for what earlier processes spent.
        unreported: the last argument of `keep`.
        keep: stores the reservations of the calls that reported no usage, for the next process.
    """

    def __init__(
        self,
        ceiling: Ceiling,
        connection: sqlite3.Connection | None = None,
        unreported: dict[str, int] | None = None,
        keep: Callable[[dict[str, int]], None] = lambda _: None,
    ) -> None:
        self._ceiling = ceiling
        self._tokens = 0
        self._cost = 0.0
        if connection is not None:
            ((tokens,),) = connection.execute(
                "SELECT total(input_tokens) + total(output_tokens) FROM rows WHERE seconds IS NOT 0"
            )
            self._tokens = int(tokens)
            self._cost = ceiling.prices.spent(connection).total if ceiling.prices else 0.0
        self._unreported = Amount(**(unreported or {}))
        self._keep = keep
        self._kept = asdict(self._unreported)
        self._reserved = Amount()
        self._held: dict[int, Bound] = {}

    @property
    def spent_tokens(self) -> int:
        """Tokens spent, including earlier processes and calls that reported no usage."""
        return self._tokens + self._unreported.input + self._unreported.output

    @property
    def spent_cost(self) -> float:
        """Likewise in USD; 0 without a ceiling on the cost."""
        return self._cost + self._max_cost(self._unreported)

    def reserve(self, row: int, input: FormattedInput | InputWithArguments, num_generations: int) -> bool:
        """Reserve the upper bound of a row if it fits, and return whether it did."""
        bound = self._ceiling.bounds(input, num_generations)
        if bound is None:
            return False
        self._reserved.add(bound)
        if self._fits():
            self._held[row] = bound
            return True
        self._reserved.remove(bound)
        return False

    def _fits(self) -> bool:
        ceiling, reserved = self._ceiling, self._reserved
        if ceiling.max_tokens is not None:
            tokens = self.spent_tokens + reserved.input + reserved.output
            if tokens > ceiling.max_tokens:
                return False
        return ceiling.max_cost is None or self.spent_cost + self._max_cost(reserved) <= ceiling.max_cost

    def _max_cost(self, amount: Amount) -> float:
        prices = self._ceiling.prices
        return prices.max_cost(amount.input, amount.output, amount.largest) if prices else 0.0

    def charge(self, row: int, result: GenerateOutput | GenerationError, seconds: float) -> None:
        """Replace the reservation of a row by what it used.

        Args:
            row: the row; without a reservation, nothing changes.
            result: its output, or its error.
            seconds: how long the call took; 0 where there was none.
        """
        bound = self._held.pop(row, None)
        if bound is None:
            return
        self._reserved.remove(bound)
        if not self._held:
            self._reserved = Amount()
        if seconds == 0 or (isinstance(result, GenerationError) and result.attempts == 0):
            return
        outputs = result.outputs if isinstance(result, GenerationError) else [result]
        tokens = tokens_of(*outputs)
        self._tokens += (tokens.input or 0) + (tokens.output or 0)
        self._cost += self._ceiling.prices.cost(tokens, seconds) if self._ceiling.prices else 0.0
        unknown = _unknown(bound, result, tokens)
        if unknown.tokens:
            self._unreported.add(unknown)

    def commit(self) -> None:
        """Store what the next process needs."""
        now = asdict(self._unreported)
        if now != self._kept:
            self._keep(now)
            self._kept = now

    def abandon(self) -> None:
        """Count what is in flight as spent: its results will not be received."""
        for bound in self._held.values():
            self._unreported.add(bound)
        self._held.clear()
        self._reserved = Amount()
        self.commit()

    @property
    def left(self) -> str:
        """What is not spent, as text."""
        ceiling, parts = self._ceiling, []
        if ceiling.max_tokens is not None:
            free = ceiling.max_tokens - self.spent_tokens
            parts.append(f"{max(0, free):,} tokens")
        if ceiling.max_cost is not None:
            parts.append(cost_text(max(0.0, ceiling.max_cost - self.spent_cost)))
        return " and ".join(parts)

    def refusal(
        self, row: Row, input: FormattedInput | InputWithArguments, num_generations: int
    ) -> BudgetError:
        """Return the error of a row that cannot be started although nothing is in flight."""
        ceiling = self._ceiling
        bound = ceiling.bounds(input, num_generations)
        if bound is None and ceiling.bounds.longest(input) is None:
            return BudgetError(
                f"the row on line {row.line} has no max_new_tokens: its generations may have any length",
                hint="add --param max_new_tokens=N, which holds for such rows, and "
                "--restart; or run without a ceiling",
            )
        if bound is None:
            return BudgetError(
                f"the row on line {row.line} has more than text, and how many tokens that makes has no bound",
                hint="run without a ceiling, or take such rows out",
            )
        spent, needs, options = [], [], []
        if ceiling.max_tokens is not None:
            spent.append(f"{self.spent_tokens:,} of {ceiling.max_tokens:,} tokens")
            needs.append(f"{bound.tokens:,} tokens")
            options.append("--max-tokens-total")
        if ceiling.max_cost is not None:
            spent.append(f"{cost_text(self.spent_cost)} of {cost_text(ceiling.max_cost)}")
            needs.append(cost_text(self._max_cost(Amount(*bound, bound.input))))
            options.append("--max-cost")
        unreported = self._unreported.input + self._unreported.output
        of_that = f" ({unreported:,} tokens of it for calls that did not say what they took)"
        return BudgetError(
            f"the budget is used up: {' and '.join(spent)} are spent{of_that if unreported else ''}, and the "
            f"next row, on line {row.line}, may take up to {' and '.join(needs)}",
            hint=f"repeat the command with a higher {' or '.join(options)} to resume",
        )


def _unknown(bound: Bound, result: GenerateOutput | GenerationError, tokens: Tokens) -> Bound:
    """Return the upper bound of what a row used in addition to what was reported."""
    if isinstance(result, GenerationError):
        if result.kind in _REFUSED:
            return Bound(0, 0)
        if result.kind not in _ANSWERED:  # a part of its usage may have been reported
            return Bound(
                max(0, bound.input - (tokens.input or 0)),
                max(0, bound.output - (tokens.output or 0)),
            )
    return Bound(
        bound.input if tokens.input is None else 0,
        bound.output if tokens.output is None else 0,
    )
