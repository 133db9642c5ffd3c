"""`--row-params`: columns of a row that are parameters of its generation."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, PrivateAttr

import stillhouse
from stillhouse import LLM, AsyncLLM, ConfigurationError, FormattedInput, GenerateOutput, GenerationError
from stillhouse.cli.generate.command import generate
from stillhouse.inputs import split_input
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.prompts import parameters
from stillhouse.jobs.prompts.parameters import RowParameters
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import Capability

from .conftest import read_jsonl

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
FORM = {"format": "json", "schema": {"type": "object", "properties": {"a": {"default": None}}}}


class RecordingLLM(AsyncLLM):
    """Writes down what it is called with, by the text of the chat."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "num_generations", "tools", "json_schema", "seed", "raw_prompt"}
    )
    _calls: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)
    _checks: int = PrivateAttr(default=0)

    @property
    def model_name(self) -> str:
        return "recording"

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self._checks += 1
        return super().check_arguments(arguments)

    async def agenerate(  # type: ignore[override]
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: Annotated[int | None, Field(ge=1)] = None,
        temperature: Annotated[float | None, Field(ge=0)] = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        logprobs: bool | None = None,
        tools: list[dict[str, Any]] | None = None,
    ) -> GenerateOutput:
        given = {**locals()}
        content, form = split_input(input)
        text = content if isinstance(content, str) else str(content[-1]["content"])
        named = ("max_new_tokens", "temperature", "stop", "seed", "logprobs", "tools")
        self._calls[text] = {name: given[name] for name in named if given[name] is not None}
        if form is not None:
            self._calls[text]["structured_output"] = form
        if "fail" in text and seed != 99:
            raise GenerationError("it failed", kind="server")
        return stillhouse.prepare_output(
            [text] * num_generations, input_tokens=[5], output_tokens=[2] * num_generations
        )


class RecordingSyncLLM(LLM):
    _calls: list[tuple[int, Any]] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return "recording"

    def generate(  # type: ignore[override]
        self, inputs: list[FormattedInput], num_generations: int = 1, temperature: float | None = None
    ) -> list[GenerateOutput]:
        self._calls.append((len(inputs), temperature))
        return [stillhouse.prepare_output([f"{temperature}"] * num_generations) for _ in inputs]


class SortedSyncLLM(RecordingSyncLLM):
    def batch_key(self, input: FormattedInput) -> int:
        return len(str(input))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = stillhouse.Registry(entry_points=())
    registry.register("recording", RecordingLLM)
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)


def run(rows: Any, llm: Any = None, **options: Any) -> tuple[Any, Any]:
    llm = llm or RecordingLLM()
    return llm, stillhouse.run(rows, llm=llm, row_params=True, show_bar=False, **options)


def test_columns_of_these_names_are_parameters_of_their_row() -> None:
    rows = [
        {"prompt": "a", "temperature": 0.1, "tools": [TOOL], "stop": ["x"]},
        {"prompt": "b", "temperature": None, "seed": 7, "top_p": 0.3},
        {"prompt": "c", "structured_output": FORM, "max_new_tokens": 9},
    ]
    llm, done = run(rows, temperature=0.9)
    assert llm._calls == {
        "a": {"temperature": 0.1, "tools": [TOOL], "stop": ["x"]},
        "b": {"temperature": 0.9, "seed": 7},
        "c": {"temperature": 0.9, "structured_output": FORM, "max_new_tokens": 9},
    }
    assert [row.get("temperature", "") for row in done] == [0.1, None, ""]
    assert all({*before} <= {*row} for before, row in zip(rows, done, strict=True))


def test_without_the_option_no_column_is_a_parameter() -> None:
    llm = RecordingLLM()
    stillhouse.run([{"prompt": "a", "temperature": 0.1, "tools": [TOOL]}], llm=llm, show_bar=False)
    assert llm._calls == {"a": {}}


def test_cells_of_a_csv_are_read_by_the_declared_types(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    tools = json.dumps([TOOL]).replace('"', '""')
    form = json.dumps(FORM).replace('"', '""')
    source.write_text(
        "prompt,temperature,stop,seed,logprobs,tools,structured_output,max_new_tokens\n"
        f'a,0.5,5,3,true,"{tools}",,\n'
        f'b,1,"[""x"",""y""]",,,,"{form}",12\n'
        "c,,,,,,,\n"
    )
    llm, _ = run(source, temperature=0.9, output_prefix="new_")  # for logprobs is a column of outputs too
    assert llm._calls == {
        "a": {"temperature": 0.5, "stop": "5", "seed": 3, "logprobs": True, "tools": [TOOL]},
        "b": {"temperature": 1.0, "stop": ["x", "y"], "structured_output": FORM, "max_new_tokens": 12},
        "c": {"temperature": 0.9},
    }


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"temperature": "hot"}, ["line 2", "temperature", "number"]),
        ({"temperature": -1}, ["line 2", "temperature", "must be 0 or more"]),
        ({"max_new_tokens": 0}, ["line 2", "max_new_tokens"]),
        ({"max_new_tokens": 1.5}, ["line 2", "max_new_tokens"]),
        ({"max_new_tokens": True}, ["line 2", "max_new_tokens", "true"]),
        ({"temperature": "nan"}, ["line 2", "temperature"]),
        ({"temperature": "inf"}, ["line 2", "temperature"]),
        ({"stop": {"a": 1}}, ["line 2", "stop"]),
        ({"tools": "[{"}, ["line 2", "tools"]),
        ({"tools": ["weather"]}, ["line 2", "tools"]),
        ({"tools": {"name": "weather"}}, ["line 2", "tools"]),
        ({"structured_output": {"shema": {}}}, ["line 2", "structured_output", "shema"]),
        ({"structured_output": "{"}, ["line 2", "structured_output", "JSON"]),
        ({"structured_output": 5}, ["line 2", "structured_output"]),
    ],
)
def test_a_wrong_value_fails_its_row_with_line_column_and_reason(columns: Any, words: list[str]) -> None:
    llm, done = run([{"prompt": "a"}, {"prompt": "b", **columns}, {"prompt": "c"}])
    assert sorted(llm._calls) == ["a", "c"]
    assert done.counts == (3, 2, {"invalid_input": 1})
    message = [*done][1]["error"]["message"]
    for word in words:
        assert word in message, message


def test_tools_are_never_left_out_without_a_word() -> None:
    done = stillhouse.run(
        [{"prompt": "a", "tools": [TOOL]}, {"prompt": "b", "tools": None}, {"prompt": "c", "tools": []}],
        llm="echo", row_params=True, show_bar=False,
    )  # fmt: skip
    errors = [row["error"] for row in done]
    assert errors[1] is None
    assert "EchoLLM takes no tools" in errors[0]["message"]


def test_a_form_that_the_llm_does_not_have_fails_its_row() -> None:
    rows = [{"prompt": "a", "structured_output": FORM}, {"prompt": "b"}]
    done = stillhouse.run(rows, llm="echo", row_params=True, show_bar=False)
    assert [row["error"] and "json_schema" in row["error"]["message"] for row in done] == [True, None]


def test_fields_that_other_rows_of_a_table_have_are_none_of_a_tool(tmp_path: Path) -> None:
    """A typed column gives every tool the fields of all; in JSON, null is what the file says."""
    pytest.importorskip("pyarrow")
    import pyarrow as pa

    one = {
        "type": "function",
        "function": {"name": "a", "parameters": {"properties": {"x": {"type": "string"}}}},
    }
    other = {"type": "function", "function": {"name": "b", "strict": True}}
    table = pa.Table.from_pylist([{"prompt": "a", "tools": [one]}, {"prompt": "b", "tools": [other]}])
    llm, _ = run(table, output=tmp_path / "typed.jsonl")
    assert [llm._calls[name]["tools"] for name in "ab"] == [[one], [other]]
    nulls = {
        "type": "function",
        "function": {"name": "a", "parameters": {"properties": {"x": {"default": None}}}},
    }
    llm, _ = run([{"prompt": "a", "tools": [nulls]}], output=tmp_path / "plain.jsonl")
    assert llm._calls["a"]["tools"] == [nulls]


def test_each_different_set_of_values_is_checked_once() -> None:
    rows = [{"prompt": str(number), "temperature": number % 4 / 10, "tools": [TOOL]} for number in range(400)]
    llm, _ = run(rows)
    assert llm._checks == 1 + 4


def test_a_synchronous_backend_is_called_for_rows_of_equal_parameters_together() -> None:
    rows = [{"prompt": f"text {number}", "temperature": number % 2} for number in range(64)]
    llm, done = run(rows, RecordingSyncLLM())
    assert llm._calls == [(16, 0.0), (16, 1.0)] * 2
    assert [row["generations"] for row in done] == [[f"{number % 2}.0"] for number in range(64)]


def test_a_batch_on_this_machine_takes_parameters_of_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "x" * (number % 7), "temperature": number % 2} for number in range(1, 50)]
    llm, done = run([*rows, {"prompt": "y", "temperature": "hot"}], SortedSyncLLM(), batch=True)
    assert done.counts.failed == {"invalid_input": 1}
    assert llm._calls == [(24, 0.0), (7, 1.0), (18, 1.0)]  # of 32 rows with the one that failed, and 18
    assert [row["generations"] for row in done][:-1] == [[f"{row['temperature']}.0"] for row in rows]


def test_a_seed_of_a_row_goes_on_where_its_earlier_generations_ended(tmp_path: Path) -> None:
    """A row with a part of its generations is asked for the missing ones: not with the seed of the first."""

    class Partly(RecordingLLM):
        _seeds: list[Any] = PrivateAttr(default_factory=list)

        async def agenerate(self, input: Any, num_generations: int = 1, seed: int | None = None) -> Any:  # type: ignore[override]
            self._seeds.append((num_generations, seed))
            if len(self._seeds) == 1:
                raise GenerationError(
                    "broke off", kind="server", outputs=[stillhouse.prepare_output(["one"])]
                )
            return stillhouse.prepare_output([f"seed {seed}"] * num_generations)

    llm = Partly()
    for options in ({}, {"retry": "server"}):
        run(
            [{"prompt": "a", "seed": 50}],
            llm,
            output=tmp_path / "out.jsonl",
            num_generations=3,
            seed=4,
            **options,
        )
    assert llm._seeds == [(3, 50), (2, 51)]


# The option, and what else there is in a run


def test_the_option_belongs_to_the_command_of_the_run(tmp_path: Path) -> None:
    rows, output = [{"prompt": "a", "temperature": 0.5}], tmp_path / "out.jsonl"
    llm, _ = run(rows, output=output)
    with pytest.raises(ConfigurationError, match="row_params: it was true, and is null now"):
        stillhouse.run(rows, llm=llm, output=output)
    _, done = run(rows, llm, output=output)
    assert done.counts.rows == 1


def test_a_run_without_the_option_is_stored_as_it_was_before_there_was_one(tmp_path: Path) -> None:
    from stillhouse.jobs.store.database import reading, store_path
    from stillhouse.jobs.store.seals import facts_of

    output = tmp_path / "out.jsonl"
    stillhouse.run([{"prompt": "a"}], llm="echo", output=output)
    with reading(store_path(output)) as connection:
        assert "row_params" not in facts_of(connection)["command"]


def test_a_prompt_of_the_command_line_is_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        generate.main(["--prompt", "hi", "--llm", "echo", "--row-params"])
    assert exited.value.code == 2
    assert "--row-params" in capsys.readouterr().err


def test_a_ceiling_reserves_by_the_rows_own_bound(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "max_new_tokens": 10}, {"prompt": "b", "max_new_tokens": 5000}, {"prompt": "c"}]
    llm = RecordingLLM()
    with pytest.raises(ConfigurationError, match="the next row, on line 2, may take up to 5,"):
        run(rows, llm, output=tmp_path / "out.jsonl", max_tokens_total=1000, max_new_tokens=20)
    assert [*llm._calls] == ["a"]
    run(rows, llm, output=tmp_path / "out.jsonl", max_tokens_total=10_000, max_new_tokens=20)
    assert [*llm._calls] == ["a", "b", "c"]


def test_a_row_without_a_bound_stops_a_run_with_a_ceiling(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "max_new_tokens": 10}, {"prompt": "b"}]
    llm = RecordingLLM()
    with pytest.raises(ConfigurationError, match="the row on line 2 has no max_new_tokens"):
        run(rows, llm, output=tmp_path / "out.jsonl", max_tokens_total=1000)
    assert [*llm._calls] == ["a"]


def test_an_estimate_reckons_with_the_rows_own_parameters() -> None:
    rows = [{"prompt": "a", "max_new_tokens": 10}, {"prompt": "b", "max_new_tokens": 30}]
    found = stillhouse.estimate(rows, llm=RecordingLLM(), row_params=True)
    assert found.max_output == 40
    small = stillhouse.estimate([{"prompt": "a"}], llm=RecordingLLM(), row_params=True, max_new_tokens=5)
    large = stillhouse.estimate(
        [{"prompt": "a", "tools": [TOOL], "structured_output": FORM}],
        llm=RecordingLLM(), row_params=True, max_new_tokens=5,
    )  # fmt: skip
    assert small.max_input is not None
    assert large.max_input is not None
    assert large.max_input > small.max_input + len(json.dumps(TOOL)) + len(json.dumps(FORM))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("times", [5, pytest.param(20, marks=pytest.mark.soak)])
def test_a_run_that_is_killed_equals_an_undisturbed_one(
    start: Any, start_and_kill: Any, tmp_path: Path, times: int
) -> None:
    source, output, undisturbed = (tmp_path / name for name in ("in.jsonl", "killed.jsonl", "calm.jsonl"))
    chance = random.Random(17)
    rows: list[dict[str, Any]] = [{"prompt": f"row {number}"} for number in range(1500)]
    for row in rows:
        if chance.random() < 0.8:
            row["seed"] = chance.choice([None, 1, 5, 70, "9", 2000])
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--row-params", "--param", "seed=30")
    start_and_kill(source, "-o", output, *options, times=times, rows=len(rows))
    assert start(source, "-o", undisturbed, *options).wait() == 0
    assert output.read_bytes() == undisturbed.read_bytes()
    assert [row["generations"] for row in read_jsonl(output)] == [
        [f"{row['prompt']}!{int(row.get('seed') or 30)}"] for row in rows
    ]


# Any columns


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from(["", "null", "0.5", "[", '["x"]', "{}", '{"format": "regex", "schema": "a"}']),
    st.lists(st.one_of(st.text(max_size=3), st.integers(0, 3), st.just(TOOL)), max_size=3),
    st.dictionaries(st.sampled_from(["format", "schema", "a"]), st.text(max_size=3), max_size=3),
    st.binary(max_size=4), st.just(FORM),
)  # fmt: skip
NAMES = st.sampled_from(
    [
        "temperature",
        "max_new_tokens",
        "stop",
        "seed",
        "logprobs",
        "tools",
        "structured_output",
        "top_p",
        "note",
    ]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=8))
def test_any_columns_give_checked_parameters_or_one_clear_error(rows: list[dict[str, Any]]) -> None:
    formatter = RowFormatter(parameters=RowParameters(RecordingLLM))
    keys: dict[Any, Any] = {}
    for number, columns in enumerate(rows, 1):
        before = repr(columns)
        item = formatter(Row(number - 1, number, {"prompt": "x", **columns}))
        assert repr(columns) == before
        alone = RowFormatter(parameters=RowParameters(RecordingLLM))(
            Row(0, number, {"prompt": "x", **columns})
        )
        if isinstance(item, GenerationError):
            assert isinstance(alone, GenerationError)
            assert (item.kind, item.message) == ("invalid_input", alone.message)
            assert item.message.startswith(f"line {number}: ")
            assert any(name in item.message for name in columns)
        elif isinstance(item, InputWithArguments):
            # What was remembered of other rows changes nothing.
            assert isinstance(alone, InputWithArguments)
            assert (item.arguments, item.key, item.input) == (alone.arguments, alone.key, alone.input)
            assert RecordingLLM().check_arguments(dict(item.arguments)) == item.arguments
            assert {*item.arguments} <= {*columns} - {"note", "top_p", "structured_output"}
            assert keys.setdefault(item.key, item.arguments) == item.arguments
        else:
            assert not any(
                value not in (None, "", "null") for name, value in columns.items()
                if name not in ("note", "top_p", "structured_output")
            )  # fmt: skip


def test_equal_values_of_other_types_are_others() -> None:
    made = RowParameters(RecordingLLM)
    chat: Any = [{"role": "user", "content": "x"}]
    for value in (1, 1.0, "1"):
        item = made.of_row(Row(0, 1, {"max_new_tokens": value}), chat)
        assert isinstance(item, InputWithArguments)
        assert item.arguments == {"max_new_tokens": 1}
    with pytest.raises(ValueError, match="max_new_tokens is true"):
        made.of_row(Row(0, 1, {"max_new_tokens": True}), chat)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "MAX_REMEMBERED", 10)
    made = RowParameters(RecordingLLM)
    for seed in range(1000):
        item = made.of_row(Row(0, 1, {"seed": seed}), [{"role": "user", "content": "x"}])
        assert isinstance(item, InputWithArguments)
        assert item.arguments == {"seed": seed}
    assert len(made._known) <= 10


@pytest.mark.parametrize("make", [lambda: RecordingLLM(), lambda: SortedSyncLLM()])
def test_rows_of_any_parameters_are_each_generated_with_their_own(make: Callable[[], Any]) -> None:
    chance = random.Random(3)
    rows = [
        {
            "prompt": f"{'x' * chance.randrange(9)}{number}",
            "temperature": chance.choice([None, 0, 1, 2, "0.5"]),
        }
        for number in range(300)
    ]
    llm, done = run(rows, make(), batch=make().orders_batches, temperature=0.25)
    for before, row in zip(rows, done, strict=True):
        wanted = 0.25 if before["temperature"] is None else float(before["temperature"])
        assert row["prompt"] == before["prompt"]
        if isinstance(llm, RecordingLLM):
            assert llm._calls[before["prompt"]] == {"temperature": wanted}
        else:
            assert row["generations"] == [str(wanted)]
