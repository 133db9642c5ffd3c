"""`Prices`: the cost of a model's tokens, from the prices that genai-prices maintains.

The price is found by the address of the API, or by the registered name of the backend, and the model's name.
The cost of a run is computed from the token counts that it stores, so that better prices give better figures
later. The tokens that a provider bills come first, and a cost that it reports comes before any other.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.store.columns import Tokens

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = [
    "PROVIDER", "Prices", "Rates", "Spent", "cost_text", "find_prices", "no_prices", "offer_of", "price_of",
    "spent",
]  # fmt: skip

# The prices of a call for text. If a model has another price that a call for text may incur, its cost is
# not known.
_UNITS = {"input": "input_mtok", "cached": "cache_read_mtok", "written": "cache_write_mtok",
          "output": "output_mtok", "written_1h": "cache_write_1h_mtok"}  # fmt: skip
_OTHERS = ("requests_kcount", "input_mchars", "output_reasoning_mtok", "output_citation_mtok")


PROVIDER = "the provider"
"""The source of prices where the provider itself says what a row cost."""


@dataclass(frozen=True)
class Rates:
    """The cost of a token, in USD.

    Attributes:
        start: these are the rates of a request with more input tokens than that.
        input: of the input, where it is neither read from the provider's cache nor written to it.
        cached: of the input that was read from the cache.
        written: of the input that was written to it.
        output: of the output, reasoning included.
        written_1h: of the input that was written to the cache for an hour; 0 where that costs as `written`.
    """

    start: int
    input: float
    cached: float
    written: float
    output: float
    written_1h: float = 0.0

    @property
    def most(self) -> float:
        """The cost of an input token, whatever the cache does."""
        return max(self.input, self.cached, self.written, self.written_1h)


class Spent(NamedTuple):
    """The cost of a run in USD, as far as it is known.

    Attributes:
        total: of every row.
        cached: of it, for what was read from the provider's cache, where the prices say it.
        written: of it, for what was written to it, likewise.
        source: where the prices are from.
    """

    total: float
    cached: float
    written: float
    source: str


@dataclass(frozen=True)
class Prices:
    """The prices of one model.

    Attributes:
        source: the library that they are from, with its version.
        rates: the rates of requests, those of small ones first.
        batch_rates: likewise of what is generated in offline batches.
    """

    source: str
    rates: tuple[Rates, ...]
    batch_rates: tuple[Rates, ...]

    def cost(self, tokens: Tokens, seconds: float | None) -> float:
        """Return the cost of a row in USD, as if it had been one request. Unknown counts cost nothing.

        Where the provider itself says the cost, it is that.

        Args:
            tokens: its tokens.
            seconds: how long the call took: 0 where there was none, which costs nothing, and `None`
                for a batch.
        """
        if seconds == 0:
            return 0.0
        if tokens.cost is not None:
            return tokens.cost
        rates, *others = self.batch_rates if seconds is None else self.rates
        total = (tokens.input if tokens.billed_input is None else tokens.billed_input) or 0
        output = (tokens.output if tokens.billed_output is None else tokens.billed_output) or 0
        for other in others:
            if total > other.start:
                rates = other
        read, kept = tokens.cached or 0, tokens.written or 0
        if tokens.billed_input is not None:  # whatever a cache held of the rest is not billed
            read = min(read, total)
            kept = min(kept, total - read)
        cached, written = _cache_costs(rates, read, kept, tokens.written_1h or 0)
        plain = max(0, total - read - kept)
        return plain * rates.input + cached + written + output * rates.output

    def max_cost(
        self, input_tokens: int, output_tokens: int, largest: int | None = None, *, batch: bool = False
    ) -> float:
        """Return an upper bound on the cost of tokens in USD, whatever the provider's cache does.

        Args:
            input_tokens: tokens of the input.
            output_tokens: tokens of the output.
            largest: the input tokens of the largest row among them; all of them if `None`.
            batch: whether they are generated in an offline batch.
        """
        largest = input_tokens if largest is None else largest
        rates = self.batch_rates if batch else self.rates
        able = [rate for rate in rates if rate.start == 0 or rate.start < largest]
        most = max(rate.most for rate in able), max(rate.output for rate in able)
        return input_tokens * most[0] + output_tokens * most[1]

    def max_cache_cost(self, input_tokens: int, *, batch: bool = False) -> float:
        """Return what of `max_cost` is for the writing of a cache: more than plain input costs."""
        rates = self.batch_rates if batch else self.rates
        able = [rate for rate in rates if rate.start == 0 or rate.start < input_tokens]
        plain = max(max(rate.input, rate.cached) for rate in able)
        return input_tokens * (max(rate.most for rate in able) - plain)

    def spent(self, connection: sqlite3.Connection) -> Spent:
        """Return the cost of every row of a run's database."""
        starts = sorted({rates.start for rates in (*self.rates, *self.batch_rates)})
        billed = "coalesce(billed_input_tokens, input_tokens, 0)"
        read = "min(ifnull(cached_tokens, 0), ifnull(billed_input_tokens, cached_tokens))"
        kept = f"min(ifnull(written_tokens, 0), ifnull(billed_input_tokens - {read}, written_tokens))"
        tier = " + ".join(f"({billed} > {start})" for start in starts[1:]) or "0"
        sums = connection.execute(
            f"SELECT seconds IS NULL, {tier}, "  # noqa: S608
            f"total(max(0, {billed} - ifnull({read}, 0) - ifnull({kept}, 0))), "
            f"total({read}), total({kept}), total(min(written_1h_tokens, {kept})), "
            "total(ifnull(billed_output_tokens, output_tokens)) "
            "FROM rows WHERE seconds IS NOT 0 AND cost IS NULL GROUP BY 1, 2"
        )
        cost, cached, written = _said(connection).total, 0.0, 0.0
        for batch, number, plain, read, kept, kept_1h, output in sums:
            able = self.batch_rates if batch else self.rates
            rates = [rates for rates in able if rates.start <= starts[number]][-1]
            reading, writing = _cache_costs(rates, read, kept, kept_1h)
            cost += plain * rates.input + reading + writing + output * rates.output
            cached, written = cached + reading, written + writing
        return Spent(cost, cached, written, self.source)


def spent(connection: sqlite3.Connection, prices: Prices | None) -> Spent | None:
    """Return the cost of every row of a run's database; `None` where nobody knows it.

    Without prices it is known if the provider said it of every row that took tokens.
    """
    if prices is not None:
        return prices.spent(connection)
    said = _said(connection)
    unsaid = connection.execute(
        "SELECT 1 FROM rows WHERE seconds IS NOT 0 AND cost IS NULL "
        "AND (input_tokens IS NOT NULL OR output_tokens IS NOT NULL)"
    )
    return said if said.source and unsaid.fetchone() is None else None


def _said(connection: sqlite3.Connection) -> Spent:
    """Return what the provider itself said that rows cost; the source is empty if it said it of none."""
    ((total, count),) = connection.execute(
        "SELECT total(cost), count(cost) FROM rows WHERE seconds IS NOT 0"
    ).fetchall()
    return Spent(total, 0.0, 0.0, PROVIDER if count else "")


def _cache_costs(rates: Rates, cached: float, written: float, written_1h: float) -> tuple[float, float]:
    """Return the cost of what was read from the cache, and of what was written to it."""
    for_an_hour = min(written, written_1h) if rates.written_1h else 0
    return cached * rates.cached, (written - for_an_hour) * rates.written + for_an_hour * rates.written_1h


def cost_text(cost: float) -> str:
    """Format an amount of USD: in cents, or with more digits below a dollar."""
    return f"${cost:,.2f}" if cost >= 1 or cost == 0 else f"${cost:.6f}".rstrip("0").ljust(5, "0")


def offer_of(llm: LLM) -> dict[str, Any]:
    """Return what the prices of an LLM are found by, as JSON types without secrets."""
    from stillhouse._settings.serialization import described

    return {
        "backend": described(llm)["llm"],
        "model": llm.model_name,
        "api_url": getattr(llm, "api_url", None),
    }


def no_prices() -> str:
    """Say why there are no prices, and what helps."""
    if find_spec("genai_prices"):
        return "genai-prices has no price of this model"
    return f"genai-prices has the prices; run {install_command('stillhouse[cost]')}"


def find_prices(offer: dict[str, Any], *, required: bool = False) -> Prices | None:
    """Find the prices of a model, without using the network.

    Args:
        offer: what `offer_of` returns.
        required: whether to raise if there are none.

    Raises:
        ConfigurationError: `required`, and there are none.
    """
    try:
        import genai_prices
    except ImportError:
        if not required:
            return None
        raise ConfigurationError(
            "a ceiling on the cost needs prices: genai-prices is not installed",
            hint=install_command("stillhouse[cost]"),
        ) from None
    source = f"genai-prices {genai_prices.__version__}"
    url = offer["api_url"]
    where: dict[str, Any] = {"provider_id": offer["backend"]} if url is None else {"provider_api_url": url}

    def rates(**context: str) -> tuple[Rates, ...]:
        try:
            found = genai_prices.calc_price(
                genai_prices.Usage(), offer["model"], price_context=context, **where
            )
        except LookupError:
            return ()
        return _rates(found.model_price)

    standard, batch = rates(), rates(processing="batch")
    if standard and batch:
        return Prices(source, standard, batch)
    if not required:
        return None
    at = f"the backend {offer['backend']}" if url is None else url
    raise ConfigurationError(
        f"{source} has no price of the model {offer['model']} at {at}, so no ceiling on its cost can be held",
        hint="give --max-tokens-total instead, or install a newer genai-prices",
    )


def price_of(prices: Prices) -> tuple[float, float] | None:
    """Return the prices of a million tokens of input and of output; `None` if they depend on the request."""
    if len(prices.rates) != 1:
        return None
    rates = prices.rates[0]
    return float(f"{rates.input * 1e6:.10g}"), float(f"{rates.output * 1e6:.10g}")


def _rates(price: Any) -> tuple[Rates, ...]:
    """Return the rates of a price of the library, or none if they do not cover all that text may cost."""
    if any(getattr(price, name, None) is not None for name in _OTHERS):
        return ()
    units = {name: getattr(price, unit, None) for name, unit in _UNITS.items()}
    if units["input"] is None or units["output"] is None:
        return ()
    # A kind of input without a price of its own costs what plain input does.
    instead = {"written_1h": units["input"] if units["written"] is None else units["written"]}
    units = {
        name: instead.get(name, units["input"]) if value is None else value for name, value in units.items()
    }
    starts = {tier.start for value in units.values() for tier in getattr(value, "tiers", ())}
    return tuple(
        Rates(start, **{name: float(_at(value, start)) / 1e6 for name, value in units.items()})
        for start in [0, *sorted(starts - {0})]
    )


def _at(value: Any, start: int) -> Any:
    """Return a price, or that of the tier of a request just above `start`."""
    if not hasattr(value, "tiers"):
        return value
    return next(
        (tier.price for tier in sorted(value.tiers, key=lambda tier: -tier.start) if tier.start <= start),
        value.base,
    )
