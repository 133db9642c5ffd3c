"""Ceilings: what is in flight may be spent, so it is reserved."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import PrivateAttr

from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.runs.online import RunStatistics, run
from stillhouse.jobs.spending.budget import Budget, BudgetError, Ceiling
from stillhouse.jobs.spending.prices import Prices, Rates
from stillhouse.jobs.store.columns import tokens_of

from .test_runner import MemoryStore

MOST = 400


class ScriptedLLM(AsyncLLM):
    """Spends what the row's text decides, never more than it is allowed, and counts it truly."""

    seed: int = 0

    _spent: int = PrivateAttr(default=0)
    _calls: int = PrivateAttr(default=0)
    _now: int = PrivateAttr(default=0)
    _peak: int = PrivateAttr(default=0)

    @property
    def model_name(self) -> str:
        return "scripted"

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, max_new_tokens: int | None = None
    ) -> GenerateOutput:
        assert isinstance(input, list)
        assert max_new_tokens is not None
        text = str(input[0]["content"])
        dice = random.Random(f"{self.seed} {text}")
        taken = [
            dice.choice([max_new_tokens, dice.randint(0, max_new_tokens)]) for _ in range(num_generations)
        ]
        read = dice.randint(1, len(text))
        self._calls += 1
        self._now += 1
        self._peak = max(self._peak, self._now)
        for _ in range(dice.randint(0, 5)):
            await asyncio.sleep(0)
        self._now -= 1
        fate = dice.random()
        if fate < 0.1:
            raise GenerationError("refused", kind="rate_limit")
        self._spent += read + sum(taken)
        output = prepare_output([text] * num_generations, [read], taken)
        if fate < 0.2:  # it was generated, and nobody said so
            raise GenerationError("gone", kind="timeout")
        if fate < 0.3:
            raise GenerationError("no JSON", kind="schema", outputs=[output])
        if fate < 0.4:
            return prepare_output([text] * num_generations)
        return output


def rows(count: int, dice: random.Random) -> Iterator[Row]:
    for index in range(count):
        yield Row(index, index + 1, {"prompt": "x" * dice.randint(1, 120)})


def ceiling_of(llm: AsyncLLM, max_tokens: int) -> Ceiling:
    return Ceiling(llm, {"max_new_tokens": MOST}, max_tokens, None)


@pytest.mark.parametrize(
    "seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(12, 200))]
)
def test_a_ceiling_holds_with_64_in_flight(seed: int) -> None:
    dice = random.Random(seed)
    ceiling, n = dice.randint(2000, 300_000), dice.randint(1, 3)
    llm = ScriptedLLM(seed=seed, max_concurrency=64)
    statistics = RunStatistics(budget=Budget(ceiling_of(llm, ceiling)))
    store = MemoryStore(ordered=False)
    with llm, pytest.raises(BudgetError) as stopped:
        run(
            llm, rows(5000, dice), RowFormatter(), store, num_generations=n,
            arguments={"max_new_tokens": MOST}, statistics=statistics,
        )  # fmt: skip
    assert statistics.budget is not None
    assert llm._spent <= statistics.budget.spent_tokens <= ceiling
    # What one row can spend; a budget of fewer than two has one at a time.
    largest = n * (MOST + 120 + 200)
    assert llm._peak > 1 or ceiling < 2 * largest
    # It stopped at the first row that did not fit, and every one before it was put.
    assert sorted(index for index, _ in store.rows) == list(range(llm._calls))
    assert f"on line {llm._calls + 1}," in str(stopped.value)
    assert store.uncommitted == 0
    # What was left would not have done for one more.
    assert ceiling - statistics.budget.spent_tokens < largest


def test_run_within_its_budget_is_not_stopped_and_repeats_no_row() -> None:
    llm = ScriptedLLM(max_concurrency=64)
    # Room for a few reservations at once only: it goes on in many rounds.
    statistics = RunStatistics(budget=Budget(ceiling_of(llm, 150_000)))
    with llm:
        run(
            llm, rows(300, random.Random(1)), RowFormatter(), MemoryStore(False),
            arguments={"max_new_tokens": MOST}, statistics=statistics,
        )  # fmt: skip
    assert (llm._calls, statistics.rows) == (300, 300)
    assert statistics.failed["timeout"] > 0


def test_a_row_larger_than_the_budget_stops_the_run_and_says_so() -> None:
    llm = ScriptedLLM(max_concurrency=64)
    store = MemoryStore(False)
    lines = [Row(0, 1, {"prompt": "a"}), Row(1, 2, {"prompt": "b" * 5000}), Row(2, 3, {"prompt": "c"})]
    statistics = RunStatistics(budget=Budget(ceiling_of(llm, 2000)))
    with llm, pytest.raises(BudgetError, match=r"on line 2, may take up to 5,\d\d\d tokens"):
        run(llm, lines, RowFormatter(), store, arguments={"max_new_tokens": MOST}, statistics=statistics)
    assert [index for index, _ in store.rows] == [0]


def test_a_row_with_an_image_has_no_bound() -> None:
    llm = ScriptedLLM()
    statistics = RunStatistics(budget=Budget(ceiling_of(llm, 2000)))
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    row = Row(0, 1, {"messages": [{"role": "user", "content": [image]}]})
    with llm, pytest.raises(BudgetError, match="more than text"):
        run(
            llm, [row], RowFormatter(), MemoryStore(False), arguments={"max_new_tokens": 1},
            statistics=statistics,
        )  # fmt: skip


def test_a_ceiling_wants_a_bound_on_the_output() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Ceiling(ScriptedLLM(), {}, 1000, None)
    assert "max_new_tokens" in refused.value.hint
    Ceiling(ScriptedLLM(generation_kwargs={"max_new_tokens": 3}), {}, 1000, None)


class FormedLLM(ScriptedLLM):
    structured_output: dict[str, Any] | None = None


def test_budget_reserves_tokens_for_retries_of_invalid_answers() -> None:
    def bound(retries: int | None) -> int:
        form = {"format": "json", "schema": {"type": "object"}, "max_retries": retries}
        found = Ceiling(FormedLLM(structured_output=form), {"max_new_tokens": MOST}, 1, None)
        bound = found.bounds([{"role": "user", "content": "a"}], 2)
        assert bound is not None
        return bound.output

    assert (bound(0), bound(None), bound(3)) == (2 * MOST, 4 * MOST, 8 * MOST)


@pytest.mark.parametrize(
    ("result", "seconds", "spent"),
    [
        (prepare_output(["a"], [7], [2]), 0.1, 9),
        (prepare_output(["a"], [7], [2]), 0.0, 0),  # a hook answered
        (prepare_output(["a"], None, [2]), 0.1, "input"),
        (GenerationError("e", kind="invalid_request", attempts=0), 0.1, 0),
        (GenerationError("e", kind="context_length"), 0.1, 0),
        (GenerationError("e", kind="timeout"), 0.1, "all"),
        (GenerationError("e", kind="timeout", outputs=[prepare_output(["a"], [7], [2])]), 0.1, "all"),
        (GenerationError("e", kind="schema", outputs=[prepare_output([], [7], [2])]), 0.1, 9),
    ],
)
def test_budget_charges_what_a_result_used(result: Any, seconds: float, spent: int | str) -> None:
    kept: list[dict[str, int]] = []
    ceiling = ceiling_of(ScriptedLLM(), 10_000)
    budget = Budget(ceiling, keep=kept.append)
    input: FormattedInput = [{"role": "user", "content": "a"}]
    bound = ceiling.bounds(input, 1)
    assert bound is not None
    assert budget.reserve(0, input, 1)
    assert budget.spent_tokens == 0
    budget.charge(0, result, seconds)
    budget.commit()
    expected: Any = {"input": bound.input + 2, "all": bound.tokens}.get(str(spent), spent)
    assert budget.spent_tokens == expected
    # The next process knows what nobody reported; what was is in the run's database.
    outputs = result.outputs if isinstance(result, GenerationError) else [result]
    reported = 0 if seconds == 0 else sum(filter(None, tokens_of(*outputs)[:2]))
    assert Budget(ceiling, None, kept[-1] if kept else None).spent_tokens == expected - reported


def test_budget_counts_calls_in_flight_at_an_abrupt_end_as_spent() -> None:
    kept: list[dict[str, int]] = []
    budget = Budget(ceiling_of(ScriptedLLM(), 10_000), keep=kept.append)
    budget.reserve(0, "a", 1)
    budget.abandon()
    assert kept[-1]["output"] == MOST


def test_a_ceiling_on_the_cost_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    prices = Prices("test", (Rates(0, 1e-3, 1e-4, 2e-3, 5e-3), Rates(150, 3e-3, 1e-4, 2e-3, 9e-3)), ())
    monkeypatch.setattr("stillhouse.jobs.spending.budget.find_prices", lambda *_, **__: prices)
    monkeypatch.setattr("stillhouse.jobs.spending.budget.offer_of", lambda _: {})
    llm = ScriptedLLM(max_concurrency=64)
    ceiling = Ceiling(llm, {"max_new_tokens": MOST}, None, 50.0)
    statistics = RunStatistics(budget=Budget(ceiling), prices=prices)
    with llm, pytest.raises(BudgetError, match=r"\$[\d.]+ of \$50.00 are spent"):
        run(
            llm, rows(5000, random.Random(2)), RowFormatter(), MemoryStore(False),
            arguments={"max_new_tokens": MOST}, statistics=statistics,
        )  # fmt: skip
    assert statistics.budget is not None
    assert 40 < statistics.budget.spent_cost <= 50
    assert 0 < statistics.cost < statistics.budget.spent_cost
