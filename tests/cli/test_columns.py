"""The columns of an output: their names, what they hold, and that no column of the input is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import stillhouse
from stillhouse import GenerateOutput, GenerationError, StandardInput, prepare_output
from stillhouse.llm import LLM

MINE = {
    "prompt": "a", "generations": ["old"], "error": "mine", "statistics": {"k": 1}, "model_name": "prev",
    "finish_reasons": ["x"],
}  # fmt: skip
ADDED = ["generations", "statistics", "finish_reasons", "model_name", "error"]


class Answering(LLM):
    """Answers with what its rows say, and counts the rows."""

    asked: int = 0
    structured_output: Any = None

    @property
    def model_name(self) -> str:
        return "answering"

    def generate(
        self, inputs: list[StandardInput], num_generations: int = 1
    ) -> list[GenerateOutput | GenerationError]:
        outputs = []
        for input in inputs:
            type(self).asked_ever += 1  # type: ignore[attr-defined]
            answer = json.loads(str(input[-1]["content"]))
            outputs.append(
                prepare_output(
                    [answer["text"]] * num_generations, finish_reasons=["stop"] * num_generations,
                    **{name: [value] * num_generations for name, value in answer.get("more", {}).items()},
                )
            )  # fmt: skip
        return outputs


@pytest.fixture
def answering(own_registry: stillhouse.Registry) -> type[Answering]:
    Answering.asked_ever = 0  # type: ignore[attr-defined]
    own_registry.register("answering", Answering)
    return Answering


def answer(text: str, **more: Any) -> str:
    return json.dumps({"text": text, "more": more})


@pytest.fixture
def generate(run: Any, tmp_path: Path) -> Any:
    """Run `stillhouse generate SOURCE --llm LLM -o OUTPUT` with further options."""

    def call(source: object, *options: object, output: object = "out.jsonl", llm: str = "echo") -> Any:
        target = output if output == "-" else tmp_path / str(output)
        return run("generate", source, "--llm", llm, "-o", target, *options)

    return call


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.tsv", "out.parquet", "-"])
def test_columns_that_the_output_adds_are_refused_before_anything_is_sent(
    generate: Any, rows_file: Any, tmp_path: Path, answering: Any, output: str
) -> None:
    source = rows_file([{"prompt": answer("a")}, MINE])
    before = {*tmp_path.iterdir()}
    refused = generate(source, output=output, llm="answering")
    # Standard input may be read once, and so the first row alone is known there; a file is known.
    assert refused.status == 1, refused
    assert all(name in refused.err for name in ADDED)
    assert "--output-prefix" in refused.err
    assert answering.asked_ever == 0
    assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", [*ADDED, "reasoning", "tool_calls", "logprobs"])
def test_each_name_of_the_output_is_refused_with_the_name(generate: Any, rows_file: Any, name: str) -> None:
    refused = generate(rows_file([{"prompt": "a", name: None}]))
    assert (refused.status, f"has a column {name}," in refused.err) == (1, True), refused.err


def test_a_column_of_a_header_is_named_once(generate: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("prompt,error\na,mine\n")
    result = generate(source, output="out.csv")
    assert result.status == 1
    assert "error: the input has a column error, and the output adds a column of that name" in result.err


def test_a_column_without_a_name_is_one_like_others(generate: Any, rows_file: Any, tmp_path: Path) -> None:
    source = rows_file([{"prompt": "a", "": "unnamed", "last": "b"}])
    for name in ("out.csv", "out.parquet"):
        result = generate(source, output=name)
        assert result.status == 0, result.err
        assert "different columns" not in result.err
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert list(row)[:3] == ["prompt", "", "last"]
    assert row[""] == "unnamed"
    assert (tmp_path / "out.csv").read_text().splitlines()[0].startswith('prompt,"",last,')


def test_a_prefix_keeps_the_columns_of_the_input(
    generate: Any, rows_file: Any, read: Any, tmp_path: Path
) -> None:
    source = rows_file([MINE])
    assert generate(source, "--output-prefix", "new_").status == 0
    (row,) = read(tmp_path / "out.jsonl")
    assert {name: row[name] for name in MINE} == MINE
    assert (row["new_generations"], row["new_model_name"], row["new_error"]) == (["a"], "echo", None)
    assert [*row] == [*MINE, *(f"new_{name}" for name in ADDED)]
    again = generate(tmp_path / "out.jsonl", "--output-prefix", "new_", output="second.jsonl")
    assert (again.status, "has columns new_generations" in again.err) == (1, True)
    assert "--output-prefix PREFIX, such as second_" in again.err


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_column_that_only_a_later_row_has_is_kept(
    caplog: pytest.LogCaptureFixture, generate: Any, rows_file: Any, tmp_path: Path, output: str
) -> None:
    """It cannot be refused without reading everything first; the row is generated like any other."""
    rows = [{"prompt": f"row {number}"} for number in range(150)]
    rows[140] = {"prompt": "last", "error": "mine", "input_error": 5}
    done = generate(rows_file(rows), output=output)
    assert done.status == 0, done.err
    assert "two columns have the name error in 1 row" in caplog.text
    assert "--output-prefix" in caplog.text
    written = list(stillhouse.run(tmp_path / output, llm="echo", output_prefix="x_"))  # any reader of ours
    assert written[140]["input_input_error"] == "mine"
    assert written[140]["input_error"] in (5, "5")
    assert written[140]["error"] in (None, "")
    assert written[140]["generations"] in (["last"], '["last"]')
    assert len(written) == 150


def test_what_an_answer_alone_brings_gets_another_name(
    caplog: pytest.LogCaptureFixture, generate: Any, rows_file: Any, read: Any, tmp_path: Path, answering: Any
) -> None:
    rows = [{"prompt": answer("a", source=["b"]), "source": "mine"}, {"prompt": answer("c", source=["d"])}]
    generate(rows_file(rows), llm="answering")
    first, second = read(tmp_path / "out.jsonl")
    assert (first["source"], first["generated_source"]) == ("mine", [["b"]])
    assert second["source"] == [["d"]]
    assert (
        "two columns have the name source in 1 row: one of them is written as generated_source" in caplog.text
    )


def test_the_text_is_written_instead_of_a_list(
    generate: Any, rows_file: Any, read: Any, tmp_path: Path
) -> None:
    source = rows_file([{"prompt": "a"}, {"id": 2}])
    assert generate(source, "--text").status == 3
    assert [row["generations"] for row in read(tmp_path / "out.jsonl")] == ["a", None]
    assert generate(source, "--text", output="out.parquet").status == 3
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("generations").type == pa.string()
    assert table["generations"].to_pylist() == ["a", None]
    printed = generate(source, "--text", output="-")
    assert [json.loads(line)["generations"] for line in printed.out.splitlines()] == ["a", None]


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "size": {"type": "number"},
        "age": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
        "more": {"type": "object", "properties": {"x": {"type": "integer"}}},
        "seen": {"type": "boolean"},
    },
    "$defs": {"tag": {"type": "string"}},
}


def test_fields_of_answers_are_columns_with_the_types_of_the_schema(
    caplog: pytest.LogCaptureFixture, generate: Any, rows_file: Any, read: Any, tmp_path: Path, answering: Any
) -> None:
    answers = [
        '{"city": "Rome", "size": 3, "age": null, "more": {"y": null, "x": 1}}',
        "{}",
        "no JSON",
        "[1]",
    ]
    source = rows_file([{"id": place, "prompt": answer(text)} for place, text in enumerate(answers)])
    form = json.dumps({"format": "json", "schema": SCHEMA})
    options = ["--expand", "--set", f"structured_output={form}"]
    done = generate(source, *options, llm="answering")
    assert done.status == 0, done.err
    assert "2 answers are no JSON object: the text is in the column generations alone" in caplog.text
    rows = read(tmp_path / "out.jsonl")
    assert [row["city"] for row in rows] == ["Rome", None, None, None]
    assert rows[0]["more"] == {"y": None, "x": 1}  # nulls of an answer survive
    assert [row["generations"] for row in rows] == [[text] for text in answers]
    assert generate(source, *options, output="out.parquet", llm="answering").status == 0
    schema = pq.read_schema(tmp_path / "out.parquet")
    types = {name: schema.field(name).type for name in SCHEMA["properties"]}  # type: ignore[union-attr]
    assert types["city"] == pa.string()
    assert types["size"] == pa.float64()
    assert types["age"] == pa.int64()
    assert types["tags"] == pa.list_(pa.string())
    assert types["seen"] == pa.bool_()
    assert pq.read_table(tmp_path / "out.parquet")["more"].to_pylist()[0] == {"y": None, "x": 1}


def test_fields_without_a_schema_have_the_types_of_their_values(
    generate: Any, rows_file: Any, tmp_path: Path, answering: Any
) -> None:
    answers = ['```json\n{"a": 1, "b": "x"}\n```', '{"a": 2.5, "c": [true]}']
    source = rows_file([{"prompt": answer(text)} for text in answers])
    done = generate(source, "--expand", output="out.parquet", llm="answering")
    assert done.status == 0, done.err
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["a"].to_pylist() == [1.0, 2.5]
    assert table["b"].to_pylist() == ["x", None]
    assert table["c"].to_pylist() == [None, [True]]
    assert table.column_names == ["prompt", *ADDED, "a", "b", "c"]


def test_an_answer_outside_the_schema_loses_nothing(
    caplog: pytest.LogCaptureFixture, generate: Any, rows_file: Any, tmp_path: Path, answering: Any
) -> None:
    answers = ['{"size": "large", "extra": 9007199254740993}', '{"size": 2, "age": 5.5}']
    source = rows_file([{"prompt": answer(text)} for text in answers])
    form = json.dumps({"format": "json", "schema": SCHEMA})
    generate(source, "--expand", "--set", f"structured_output={form}", output="out.parquet", llm="answering")
    assert "the column size has no type that fits all its values" in caplog.text
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["size"].to_pylist() == ['"large"', "2"]
    assert table["extra"].to_pylist() == [9007199254740993, None]
    assert table["age"].to_pylist() == [None, 5.5]


def test_a_field_that_the_input_has_is_refused_where_the_schema_names_it(
    generate: Any, rows_file: Any, read: Any, tmp_path: Path, answering: Any
) -> None:
    source = rows_file([{"prompt": answer('{"city": "Rome"}'), "city": "mine"}])
    form = json.dumps({"format": "json", "schema": SCHEMA})
    refused = generate(source, "--expand", "--set", f"structured_output={form}", llm="answering")
    assert (refused.status, "the input has a column city" in refused.err) == (1, True)
    assert answering.asked_ever == 0
    done = generate(
        source, "--expand", "--set", f"structured_output={form}", "--output-prefix", "p_", llm="answering"
    )
    assert done.status == 0, done.err
    (row,) = read(tmp_path / "out.jsonl")
    assert (row["city"], row["p_city"]) == ("mine", "Rome")


def test_a_field_has_no_name_of_another_column(
    caplog: pytest.LogCaptureFixture, generate: Any, rows_file: Any, read: Any, tmp_path: Path, answering: Any
) -> None:
    text = '{"error": "e", "city": "Rome", "reasoning": "r"}'
    done = generate(
        rows_file([{"prompt": answer(text, reasoning="why"), "city": "mine"}]), "--expand", llm="answering"
    )
    assert done.status == 0, done.err
    (row,) = read(tmp_path / "out.jsonl")
    assert (row["error"], row["generated_error"]) == (None, "e")
    assert (row["city"], row["generated_city"]) == ("mine", "Rome")
    assert (row["reasoning"], row["generated_reasoning"]) == ("r", ["why"])
    assert "written as generated_city" in caplog.text


def test_a_row_of_very_many_different_columns_is_bounded(
    caplog: pytest.LogCaptureFixture, generate: Any, rows_file: Any, tmp_path: Path
) -> None:
    rows = [{"prompt": "a", **{f"k{row}-{key}": key for key in range(3000)}} for row in range(3)]
    for output in ("out.parquet", "out.csv"):
        done = generate(rows_file(rows), output=output)
        assert done.status == 0, done.err
        assert "different columns: the others are in the column more_columns, as JSON text" in caplog.text
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_columns < 2500
    for row, wanted in zip(table.to_pylist(), rows, strict=True):
        found = {name: value for name, value in row.items() if name in wanted and value is not None}
        assert {**found, **json.loads(row["more_columns"])} == wanted


def test_an_answer_that_is_nested_too_deep_for_parquet_is_json_text(
    generate: Any, rows_file: Any, tmp_path: Path, answering: Any
) -> None:
    """Everything is paid for by then: nothing that a model answers may end the run."""
    deep: Any = "deep"
    for _ in range(40):
        deep = [{"x": deep}]
    calls = [{"id": "c", "arguments": {"x": {"y": [[[[1]]]]}}}]
    source = rows_file(
        [{"prompt": answer("a", tool_calls=calls)}, {"prompt": answer(json.dumps({"deep": deep}))}]
    )
    done = generate(source, "--expand", output="out.parquet", llm="answering")
    assert done.status == 0, done.err
    table = pq.read_table(tmp_path / "out.parquet")
    assert json.loads(table["deep"].to_pylist()[1]) == deep
    assert table["tool_calls"].to_pylist()[0] == [calls]


def test_a_second_pass_over_an_output(generate: Any, rows_file: Any, read: Any, tmp_path: Path) -> None:
    """A judge, another model beside the first, and the failed rows alone, in each format."""
    source = rows_file([{"id": 1, "prompt": "a"}, {"id": 2, "prompt": "b"}, {"id": 3}])
    for name in ("first.jsonl", "first.csv", "first.parquet"):
        assert generate(source, "--text", output=name).status == 3
        template = "Grade: {{ generations }}"
        judged = generate(
            tmp_path / name,
            "--template",
            template,
            "--output-prefix",
            "judge_",
            "--text",
            output=f"judged-{name}",
        )
        assert judged.status == 3, judged.err  # the row without an answer has nothing to judge
        other = generate(tmp_path / name, "--output-prefix", "other_", output=f"other-{name}")
        assert other.status == 3, other.err
    rows = read(tmp_path / "judged-first.jsonl")
    assert [row["judge_generations"] for row in rows] == ["Grade: a", "Grade: b", None]
    assert [{name: row[name] for name in ("id", "generations")} for row in rows[:2]] == [
        {"id": 1, "generations": "a"}, {"id": 2, "generations": "b"},
    ]  # fmt: skip
    (failed,) = [row for row in read(tmp_path / "other-first.jsonl") if row["other_error"]]
    assert failed["error"]["kind"] == failed["other_error"]["kind"] == "invalid_input"
    again = generate(
        tmp_path / "first.jsonl", "--where", "error", "--template", "{{ id }}", "--output-prefix", "again_",
        output="again.jsonl",
    )  # fmt: skip
    assert again.status == 0, again.err
    assert [(row["id"], row["again_generations"]) for row in read(tmp_path / "again.jsonl")] == [(3, ["3"])]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--text", "-n", "2"], "more than one text"),
        (["--expand", "-n", "2"], "more than one text"),
        (["--format", "jsonk"], "there is no format 'jsonk' of outputs"),
        (["--format", "openai-batch", "--text"], "leave out --output-prefix, --text and --expand"),
        (["--format", "openai-batch", "--output-prefix", "a"], "leave out --output-prefix"),
    ],
)
def test_wrong_options_end_before_anything_is_loaded(
    generate: Any, tmp_path: Path, options: list[str], said: str
) -> None:
    refused = generate(tmp_path / "none.jsonl", *options)
    assert (refused.status, said in refused.err) == (2, True), refused.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["--format", "csv"], ["--state", "x.db"]])
def test_standard_output_is_jsonl_without_a_state(generate: Any, tmp_path: Path, options: list[str]) -> None:
    assert generate(tmp_path / "none.jsonl", *options, output="-").status == 2
