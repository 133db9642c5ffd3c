"""Ceilings, estimates and costs of a run, as the command line shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.jobs.spending import prices

ROWS = [{"prompt": f"the words of row {number}"} for number in range(60)]


class PricedLLM(AsyncLLM):
    """Says that it is a model that has a price, and takes 30 tokens in and 100 out for each row."""

    calls: ClassVar[int] = 0

    model: str = "gpt-5-mini"
    api_url: str = "https://api.openai.com/v1"
    broken: bool = False

    _loaded: bool = PrivateAttr(default=False)

    def load(self) -> None:
        super().load()
        assert not self.broken, "it was loaded"

    @property
    def model_name(self) -> str:
        return self.model

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, max_new_tokens: int | None = None
    ) -> GenerateOutput:
        type(self).calls += 1
        if "row 7" in str(input):
            error = prepare_output(["{"], [30], [100])
            raise GenerationError("no JSON", kind="schema", outputs=[error])
        return prepare_output(["x"] * num_generations, [30], [100])


@pytest.fixture
def generate(run: Any, rows_file: Any, tmp_path: Path, own_registry: stillhouse.Registry) -> Any:
    own_registry.register("priced", PricedLLM)
    PricedLLM.calls = 0
    rows_file(ROWS)

    def call(*options: object, llm: str = "priced") -> Any:
        return run(
            "generate", tmp_path / "rows.jsonl", "--llm", llm, "-o", tmp_path / "out.jsonl",
            "--param", "max_new_tokens=200", *options,
        )  # fmt: skip

    return call


def facts(text: str) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in text.splitlines() if "  " in line.strip())
    return {label.strip(): value.strip() for label, value in pairs}


def test_run_stops_at_its_token_ceiling_and_resumes_with_a_higher_one(
    generate: Any, run: Any, read: Any, tmp_path: Path
) -> None:
    stopped = generate("--max-tokens-total", 500, llm="echo")
    assert stopped.status == 1
    assert "the budget is used up" in stopped.err
    assert "the next row, on line" in stopped.err
    assert "--max-tokens-total" in stopped.err
    state = json.loads(run("status", tmp_path / "out.jsonl", "--json").out)
    assert 0 < state["rows"] < 60
    assert state["input_tokens"] + state["output_tokens"] <= 500
    assert state["sessions"][-1]["outcome"] == "stopped"
    # What earlier processes spent counts.
    again = generate("--max-tokens-total", 500, llm="echo")
    assert again.status == 1
    finished = generate("--max-tokens-total", 100_000, llm="echo")
    assert finished.status == 0, finished.err
    spent = sum(2 * len(row["prompt"].split()) for row in ROWS)
    assert facts(finished.err)["budget left"] == f"{100_000 - spent:,} tokens"
    assert [row["generations"][0] for row in read(tmp_path / "out.jsonl")] == [row["prompt"] for row in ROWS]


def test_cost_is_reported_and_max_cost_is_enforced(generate: Any, run: Any, tmp_path: Path) -> None:
    prices = pytest.importorskip("genai_prices")
    one = float(
        prices.calc_price(
            prices.Usage(input_tokens=30, output_tokens=100), "gpt-5-mini", provider_id="openai"
        ).total_price
    )
    most = 20 * one
    stopped = generate("--max-cost", most)
    assert stopped.status == 1
    assert f"of ${most:.6f}".rstrip("0") in stopped.err
    assert 0 < PricedLLM.calls <= 20
    state = json.loads(run("status", tmp_path / "out.jsonl", "--json").out)
    assert state["cost"] == pytest.approx(PricedLLM.calls * one)
    assert state["prices"] == f"genai-prices {prices.__version__}"
    done = generate()
    assert done.status == 3  # the row that was paid for and failed
    assert f"(prices of genai-prices {prices.__version__})" in facts(done.err)["cost"]
    whole = float(facts(done.err)["cost"].split()[0].removeprefix("$"))
    assert whole == pytest.approx(60 * one, rel=1e-3)
    assert (
        f"prices of genai-prices {prices.__version__}"
        in facts(run("status", tmp_path / "out.jsonl").out)["cost"]
    )


class CachedLLM(PricedLLM):
    """Has a price for what is read from its cache and written to it; some rows it prices itself."""

    model: str = "claude-haiku-4-5"
    api_url: str = "https://api.anthropic.com"
    says_costs: bool = False

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, max_new_tokens: int | None = None
    ) -> GenerateOutput:
        output = prepare_output(["x"], [1000], [10])
        output["statistics"] |= {"cached_tokens": [600], "cache_creation_tokens": [300]}
        if self.says_costs:
            output["statistics"]["cost"] = [0.0005]
        return output


def test_cache_reads_and_writes_are_shown_with_their_cost(
    generate: Any, run: Any, tmp_path: Path, own_registry: stillhouse.Registry
) -> None:
    prices = pytest.importorskip("genai_prices")
    own_registry.register("cached", CachedLLM)
    done = facts(generate(llm="cached").err)
    assert done["input read from a cache"] == "36,000"
    assert done["input written to a cache"] == "18,000"
    usage = prices.Usage(input_tokens=1000, cache_read_tokens=600, cache_write_tokens=300, output_tokens=10)
    one = prices.calc_price(usage, "claude-haiku-4-5", provider_id="anthropic")
    state = json.loads(run("status", tmp_path / "out.jsonl", "--json").out)
    assert state["cost"] == pytest.approx(60 * float(one.total_price))
    assert (state["cached_tokens"], state["written_tokens"]) == (36_000, 18_000)
    shown = facts(run("status", tmp_path / "out.jsonl").out)
    rates = one.model_price
    for label, tokens, price, cost in (
        ("read from", "36,000", rates.cache_read_mtok, state["cached_cost"]),
        ("written to", "18,000", rates.cache_write_mtok, state["written_cost"]),
    ):
        assert cost == pytest.approx(int(tokens.replace(",", "")) * float(price) / 1e6)
        assert shown[f"input {label} a cache"].startswith(f"{tokens} (${cost:.4f}"[:-1])
    page = tmp_path / "page.html"
    assert run("report", tmp_path / "out.jsonl", "-o", page).status == 0
    assert "Written to a cache" in page.read_text(encoding="utf-8")


def test_estimate_says_what_is_for_cache_writes(
    generate: Any, run: Any, tmp_path: Path, own_registry: stillhouse.Registry
) -> None:
    pytest.importorskip("genai_prices")
    own_registry.register("cached", CachedLLM)
    shown = facts(generate("--estimate", llm="cached").out)
    assert shown["of it for cache writes"].endswith("if all input is written")
    assert "of it for cache writes" not in facts(generate("--estimate", llm="priced").out)


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "no-such-model"])
def test_cost_that_the_provider_says_is_the_cost(
    model: str, generate: Any, run: Any, tmp_path: Path, own_registry: stillhouse.Registry
) -> None:
    pytest.importorskip("genai_prices")
    own_registry.register("cached", CachedLLM)
    done = facts(generate("--set", "says_costs=true", llm=f"cached:{model}").err)
    assert done["cost"].startswith("$0.03 (prices of ")
    state = json.loads(run("status", tmp_path / "out.jsonl", "--json").out)
    assert state["cost"] == pytest.approx(60 * 0.0005)
    assert state["prices"] == ("the provider" if model == "no-such-model" else state["prices"])
    if model != "no-such-model":
        again = generate("--set", "says_costs=true", "--restart", "--max-cost", 0.02, llm=f"cached:{model}")
        assert again.status == 1
        state = json.loads(run("status", tmp_path / "out.jsonl", "--json").out)
        assert 0.01 < state["cost"] <= 0.02, "the ceiling holds by what the provider says"


@pytest.mark.parametrize(
    ("options", "llm", "message"),
    [
        (["--max-cost", 1], "echo", "no price of the model echo"),
        (["--max-tokens-total", 100, "--param", "max_new_tokens=null"], "echo", "max_new_tokens"),
        (["--max-tokens-total", 0], "echo", "'0' is not a whole number of 1 or more"),
    ],
)
def test_a_ceiling_that_cannot_be_held_is_refused(
    run: Any, rows_file: Any, tmp_path: Path, options: list[Any], llm: str, message: str
) -> None:
    if "--max-cost" in options:
        pytest.importorskip("genai_prices")
    source = rows_file(ROWS)
    most = [] if "--param" in options else ["--param", "max_new_tokens=5"]
    result = run("generate", source, "--llm", llm, "-o", tmp_path / "out.jsonl", *most, *options)
    assert result.status == 2
    assert message in result.err
    assert list(tmp_path.iterdir()) == [source]


def test_an_estimate_reads_and_does_nothing_else(
    generate: Any, run: Any, rows_file: Any, tmp_path: Path
) -> None:
    source = rows_file([*ROWS, {"no": "prompt"}, "{"])
    result = run(
        "generate", source, "--llm", "priced", "--set", "broken=true", "--param", "max_new_tokens=200", "-n", 3,
        "-o", tmp_path / "out.jsonl", "--estimate",
    )  # fmt: skip
    assert result.status == 0, result.err
    found = facts(result.out)
    assert (found["rows"], found["rows that cannot be used"]) == ("62", "2")
    assert found["output tokens, at most"] == f"{60 * 3 * 200:,}"
    assert "a token for 4.0 bytes" in found["input tokens, about"]
    assert PricedLLM.calls == 0
    assert list(tmp_path.iterdir()) == [source]


def test_estimate_of_a_resumed_run_covers_the_remaining_rows(generate: Any, tmp_path: Path) -> None:
    generate("--limit", 20)
    before = sorted(path.name for path in tmp_path.iterdir())
    found = facts(generate("--estimate").out)
    assert (found["finished before"], found["rows"]) == ("20", "40")
    assert found["output tokens, at most"] == f"{40 * 200:,}"
    assert "as the finished rows had" in found["input tokens, about"]
    again = facts(generate("--estimate", "--retry", "schema").out)
    assert (again["finished before"], again["rows"]) == ("19", "41")
    other = generate("--estimate", "-n", 2)
    assert other.status == 1
    assert "num_generations: it was 1, and is 2 now" in other.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_estimate_without_a_bound_says_what_bounds_it(run: Any, rows_file: Any) -> None:
    found = facts(run("generate", rows_file(ROWS), "--llm", "echo", "--estimate").out)
    assert found["output tokens, at most"] == "no bound; give --param max_new_tokens=N"


@pytest.mark.parametrize(
    ("has_prices", "reason"),
    [
        (True, "genai-prices has no price of this model"),
        (False, 'genai-prices has the prices; run stillhouse install "stillhouse[cost]"'),
    ],
)
def test_an_estimate_without_prices_says_why(
    run: Any, rows_file: Any, monkeypatch: pytest.MonkeyPatch, has_prices: bool, reason: str
) -> None:
    monkeypatch.setattr(prices, "find_spec", lambda _: object() if has_prices else None)
    found = facts(run("generate", rows_file(ROWS), "--llm", "echo", "--estimate").out)
    assert found["cost, at most"] == f"unknown: {reason}"
