"""What a run costs, against the library that the prices are from."""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import FormattedInput, GenerateOutput
from stillhouse.errors import ConfigurationError
from stillhouse.http import HTTPLLM
from stillhouse.jobs.spending.prices import Prices, Rates, cost_text, find_prices, offer_of, spent
from stillhouse.jobs.store.columns import Tokens, tokens_of
from stillhouse.jobs.store.database import connect

genai_prices = pytest.importorskip("genai_prices")

OPENAI = {"backend": "openai", "model": "gpt-5-mini", "api_url": "https://api.openai.com/v1"}
CLAUDE = {"backend": "anthropic", "model": "claude-sonnet-4-5", "api_url": None}
GEMINI = {"backend": "google", "model": "gemini-2.5-pro", "api_url": None}
GROQ = {"backend": "groq", "model": "llama-3.3-70b-versatile", "api_url": "https://api.groq.com/openai/v1"}


def some_tokens(dice: random.Random) -> Tokens:
    cached, written, rest = (dice.choice([0, dice.randint(0, 200_000)]) for _ in range(3))
    for_an_hour = dice.choice([None, 0, written, dice.randint(0, written)])
    return Tokens(cached + written + rest, dice.randint(0, 10_000), cached, written, for_an_hour)


def cost_by_the_library(offer: dict[str, str | None], tokens: Tokens, seconds: float | None) -> float:
    if seconds == 0:
        return 0.0
    usage = genai_prices.Usage(
        input_tokens=tokens.input, output_tokens=tokens.output,
        cache_read_tokens=tokens.cached, cache_write_tokens=tokens.written,
        **({"cache_write_1h_tokens": tokens.written_1h} if tokens.written_1h else {}),
    )  # fmt: skip
    url = offer["api_url"]
    where = {"provider_api_url": url} if url else {"provider_id": offer["backend"]}
    context = {"processing": "batch"} if seconds is None else None
    return float(genai_prices.calc_price(usage, offer["model"], price_context=context, **where).total_price)


@pytest.mark.parametrize("offer", [OPENAI, CLAUDE, GEMINI, GROQ], ids=lambda offer: offer["model"])
def test_costs_are_those_of_the_library(offer: dict[str, str | None], tmp_path: Path) -> None:
    prices = find_prices(offer)
    assert prices is not None
    assert prices.source == f"genai-prices {genai_prices.__version__}"
    dice, total = random.Random(3), 0.0
    with contextlib.closing(connect(tmp_path / "run.db")) as connection:
        for row in range(200):
            tokens = some_tokens(dice)
            if offer in (OPENAI, GROQ):  # nothing is written to a cache there
                tokens = tokens._replace(written=0, written_1h=None)
            seconds = dice.choice([0.0, 1.0, None])
            cost = cost_by_the_library(offer, tokens, seconds)
            assert prices.cost(tokens, seconds) == pytest.approx(cost)
            most = prices.max_cost(tokens.input or 0, tokens.output or 0, batch=seconds is None)
            assert most >= cost * (1 - 1e-9)
            total += cost
            connection.execute(
                "INSERT INTO rows VALUES (?, 0, 1, NULL, 1, '{}', 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                (row, seconds, *tokens),
            )
            found = prices.spent(connection)
            assert found.total == pytest.approx(total)
            assert 0 <= found.cached + found.written <= found.total * (1 + 1e-9)


def test_reading_the_cache_and_writing_it_are_told_apart(tmp_path: Path) -> None:
    prices = find_prices({**CLAUDE, "model": "claude-haiku-4-5"})
    assert prices is not None
    (rates,) = prices.rates
    assert rates.cached < rates.input < rates.written < rates.written_1h
    with contextlib.closing(connect(tmp_path / "run.db")) as connection:
        for row, tokens in enumerate(
            [(1000, 0, 600, 400, 100), (500, 10, None, 500, None), (7, 7, None, None, None)]
        ):
            connection.execute(
                "INSERT INTO rows VALUES (?, 0, 1, NULL, 1, '{}', 0, 1, ?, ?, ?, ?, ?, NULL, NULL, NULL, 0)",
                (row, *tokens),
            )
        found = prices.spent(connection)
    assert found.cached == pytest.approx(600 * rates.cached)
    assert found.written == pytest.approx(800 * rates.written + 100 * rates.written_1h)
    assert found.total == pytest.approx(found.cached + found.written + 7 * rates.input + 17 * rates.output)
    assert found.source == prices.source
    assert prices.max_cache_cost(1000) == pytest.approx(1000 * (rates.written_1h - rates.input))


def test_what_the_provider_says_is_the_cost(tmp_path: Path) -> None:
    prices = find_prices(OPENAI)
    assert prices is not None
    assert prices.cost(Tokens(1000, 1000, None, None, cost=0.25), 1.0) == 0.25
    assert prices.cost(Tokens(1000, 1000, None, None, cost=0.0), None) == 0.0
    assert prices.cost(Tokens(1000, 1000, None, None, cost=0.25), 0) == 0.0  # a cache's
    insert = (
        "INSERT INTO rows VALUES (?, 0, 1, NULL, 1, '{}', 0, ?, ?, 10, NULL, NULL, NULL, ?, NULL, NULL, 0)"
    )
    with contextlib.closing(connect(tmp_path / "run.db")) as connection:
        assert spent(connection, None) is None
        connection.execute(insert, (0, 1.0, 10, 0.25))
        connection.execute(insert, (1, 0, 10, 0.5))
        connection.execute(
            "INSERT INTO rows VALUES (2, 0, 2, 'timeout', 0, '{}', 0, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0)"
        )
        assert spent(connection, None) == (0.25, 0.0, 0.0, "the provider")
        assert prices.spent(connection).total == pytest.approx(0.25)
        connection.execute(insert, (3, 1.0, 10, None))  # of another route, which says nothing
        assert spent(connection, None) is None
        assert prices.spent(connection).total == pytest.approx(0.25 + prices.cost(Tokens(10, 10, 0, 0), 1.0))


def test_what_the_provider_bills_counts_before_what_the_model_read(tmp_path: Path) -> None:
    prices = find_prices({"backend": "cohere", "model": "command-a", "api_url": "https://api.cohere.com"})
    assert prices is not None
    output: Any = {"generations": ["a"], "statistics": {"input_tokens": [1500], "output_tokens": [10]}}
    plain = tokens_of(output)
    output["statistics"] |= {"billed_input_tokens": [500], "billed_output_tokens": [0]}
    billed = tokens_of(output)
    assert (billed.input, billed.output, billed.billed_input, billed.billed_output) == (1500, 10, 500, 0)
    assert prices.cost(billed, 1.0) == pytest.approx(prices.max_cost(500, 0))
    assert prices.cost(plain, 1.0) == pytest.approx(prices.max_cost(1500, 10))
    insert = f"INSERT INTO rows VALUES (?, 0, 1, NULL, 1, '{{}}', 0, 1{', ?' * len(Tokens._fields)}, 0)"
    with contextlib.closing(connect(tmp_path / "run.db")) as connection:
        for row, tokens in enumerate((plain, billed)):
            connection.execute(insert, (row, *tokens))
        assert prices.spent(connection).total == pytest.approx(
            prices.cost(plain, 1.0) + prices.cost(billed, 1.0)
        )


def test_sums_of_a_run_are_those_of_its_rows_whatever_is_known_of_them(tmp_path: Path) -> None:
    rates = Rates(0, 1.0, 0.25, 1.5, 4.0, 2.0), Rates(100, 2.0, 0.5, 3.0, 8.0, 4.0)
    prices = Prices("made up", rates, rates)
    rows = [
        Tokens(*counts)
        for counts in itertools.product(
            (None, 50, 150),
            (None, 7),
            (None, 30, 80),
            (None, 40),
            (None, 10),
            (None, 0.5),
            (None, 0, 60),
            (None, 3),
        )
    ]
    insert = f"INSERT INTO rows VALUES (?, 0, 1, NULL, 1, '{{}}', 0, 1{', ?' * len(Tokens._fields)}, 0)"
    with contextlib.closing(connect(tmp_path / "run.db")) as connection:
        connection.executemany(insert, [(row, *tokens) for row, tokens in enumerate(rows)])
        total = prices.spent(connection).total
    assert total == pytest.approx(sum(prices.cost(tokens, 1.0) for tokens in rows))


def test_cache_of_what_is_not_billed_costs_nothing() -> None:
    prices = Prices("made up", (Rates(0, 1.0, 1.0, 1.0, 4.0),), ())
    assert prices.cost(Tokens(1500, 0, 1200, 200, billed_input=500), 1.0) == 500
    assert prices.cost(Tokens(1500, 0, 1200, 200, billed_input=0), 1.0) == 0
    assert prices.cost(Tokens(1500, 0, 1200, 200), 1.0) == 1500


@pytest.mark.parametrize(
    ("costs", "cost"),
    [([0.1, None], 0.1), ([0.1, 0.2], 0.3), ([0], 0.0), ([1], 1.0), ([True], None), (["0.1"], None), ([-1], None),
     ([float("nan")], None), ([float("inf")], None), ([10**400], None), ([1e10], None), (0.1, None), ([], None)],
)  # fmt: skip
def test_odd_cost_is_none(costs: Any, cost: float | None) -> None:
    output: Any = {"generations": ["a"], "statistics": {"input_tokens": [5], "cost": costs}}
    found = tokens_of(output)
    assert found.input == 5
    assert found.cost == pytest.approx(cost)


def test_a_batch_is_cheaper() -> None:
    prices = find_prices(OPENAI)
    assert prices is not None
    tokens = Tokens(1000, 1000, 0, 0)
    assert prices.cost(tokens, None) < prices.cost(tokens, 1.0)


class ServerLLM(HTTPLLM):
    default_base_url = "https://api.openai.com"
    base_url_variable = "TEST_BASE_URL"
    base_path = "v1"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        raise NotImplementedError


def test_a_price_is_found_by_the_address_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = stillhouse.Registry(entry_points=())
    registry.register("server", ServerLLM)
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    monkeypatch.delenv("TEST_BASE_URL", raising=False)
    llm = ServerLLM(model="gpt-5-mini")
    assert offer_of(llm) == {
        "backend": "server", "model": "gpt-5-mini", "api_url": "https://api.openai.com/v1"
    }  # fmt: skip
    assert find_prices(offer_of(llm)) is not None
    # The environment says where it really goes; what authorises is not told.
    monkeypatch.setenv("TEST_BASE_URL", "https://me:secret@models.example.com/v1?key=secret")
    assert offer_of(llm)["api_url"] == "https://models.example.com/v1"
    assert find_prices(offer_of(llm)) is None


def test_the_model_of_another_server_has_no_price() -> None:
    own_server = {**OPENAI, "api_url": "http://localhost:8000/v1"}
    assert find_prices(own_server) is None
    with pytest.raises(ConfigurationError, match=r"no price of the model gpt-5-mini at http://localhost"):
        find_prices(own_server, required=True)
    assert find_prices(offer_of(stillhouse.create("echo"))) is None


def test_missing_genai_prices_means_no_costs_and_max_cost_names_the_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert find_prices(OPENAI) is None
    with pytest.raises(ConfigurationError) as refused:
        find_prices(OPENAI, required=True)
    assert "stillhouse[cost]" in refused.value.hint


def test_finding_prices_does_not_use_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect_to(*_: object) -> None:
        raise AssertionError("something was asked for over the network")

    monkeypatch.setattr("socket.socket.connect", connect_to)
    monkeypatch.setattr("socket.getaddrinfo", connect_to)
    assert find_prices(OPENAI) is not None


def test_known_token_counts_are_read_from_an_output() -> None:
    known = stillhouse.prepare_output(["a", "b"], [7], [1, 2])
    known["statistics"] |= {"cached_tokens": [3, None], "cache_creation_tokens": [None, None]}
    assert tokens_of(known) == Tokens(7, 3, 3, None)
    assert tokens_of(None) == Tokens(None, None, None, None)
    assert tokens_of(known, None, known) == Tokens(14, 6, 6, None)
    known["statistics"]["cache_creation_1h_tokens"] = [2]
    assert tokens_of(known).written_1h == 2


@pytest.mark.parametrize(
    ("cost", "text"),
    [(0, "$0.00"), (1234.5, "$1,234.50"), (0.5, "$0.50"), (0.0000012, "$0.000001"), (0.012, "$0.012")],
)
def test_cost_text_is_readable(cost: float, text: str) -> None:
    assert cost_text(cost) == text
