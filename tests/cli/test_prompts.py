"""What of a row is sent, from the command line: columns by their shape, by name, through templates and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, prepare_output

from .conftest import Result, write_rows

ASKED: list[Any] = []


class SeenLLM(AsyncLLM):
    """Keeps the inputs that it is given."""

    capabilities = frozenset({"chat", "raw_prompt", "json_schema"})

    @property
    def model_name(self) -> str:
        return "seen"

    def load(self) -> None:
        ASKED.append("loaded")
        super().load()

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, temperature: float = 1
    ) -> GenerateOutput:  # type: ignore[override]
        ASKED.append(input)
        return prepare_output(["{}"] * num_generations)


@pytest.fixture(autouse=True)
def _seen(own_registry: stillhouse.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_registry.register("seen", SeenLLM)
    monkeypatch.chdir(tmp_path)
    ASKED.clear()


@pytest.fixture
def generate(run: Callable[..., Result]) -> Callable[..., Result]:
    """Run over some rows, one after the other."""

    def call(rows: list[Any], *options: object, output: str = "out.jsonl") -> Result:
        write_rows(Path("rows.jsonl"), rows)
        return run("generate", "rows.jsonl", "--llm", "seen", "--max-concurrency", 1, "-o", output, *options)

    return call


def sent() -> list[Any]:
    return [item for item in ASKED if item != "loaded"]


def errors(read: Any) -> list[str]:
    return [row["error"]["message"] for row in read(Path("out.jsonl")) if row["error"]]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# The shape of the columns

ALPACA = {"instruction": "Translate to French", "input": "The house is red", "output": "…", "id": 1}
SHAREGPT = [
    {"from": "system", "value": "Be brief"},
    {"from": "human", "value": "Hi"},
    {"from": "gpt", "value": "Hello"},
    {"from": "human", "value": "How are you?"},
]
CHAT = [
    {"role": "system", "content": "Be brief"},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "How are you?"},
]


@pytest.mark.parametrize(
    ("row", "chat", "said"),
    [
        (ALPACA, user("Translate to French\n\nThe house is red"), "instruction and input; unused: output, id"),
        ({**ALPACA, "input": ""}, user("Translate to French"), "instruction; unused: input, output, id"),
        ({**ALPACA, "input": " <noinput> "}, user("Translate to French"), "instruction; unused: input, output, id"),
        ({**ALPACA, "input": None}, user("Translate to French"), "instruction; unused: input, output, id"),
        ({"conversations": SHAREGPT, "id": 1}, CHAT, "conversations; unused: id"),
        ({"conversations": CHAT}, CHAT, "conversations; unused: none"),
        ({"conversations": json.dumps(SHAREGPT)}, CHAT, "conversations; unused: none"),
        ({"messages": SHAREGPT, "prompt": "x"}, CHAT, "messages; unused: prompt"),
        ({"messages": CHAT, "conversations": SHAREGPT}, CHAT, "messages; unused: conversations"),
        ({"messages": None, "prompt": "x"}, user("x"), "prompt; unused: messages"),
        ({"prompt": "x", "instruction": "y", "input": "z"}, user("x"), "prompt; unused: instruction, input"),
        (
            {"conversations": [{"role": "human", "content": "Hi"}, {"role": "gpt", "content": "a"}, *user("b")]},
            [*user("Hi"), {"role": "assistant", "content": "a"}, *user("b")],
            "conversations; unused: none",
        ),
    ],
)  # fmt: skip
def test_columns_are_taken_by_their_shape_and_it_is_said(
    generate: Any, row: dict[str, Any], chat: list[Any], said: str
) -> None:
    result = generate([row])
    assert (result.status, sent()) == (0, [chat])
    assert result.err.splitlines()[0] == f"prompt: {said}"


def test_several_shapes_are_named_and_an_instruction_with_and_without_input_is_one(generate: Any) -> None:
    rows = [{"instruction": "a"}, {"instruction": "b", "input": "c"}, {"prompt": "d"}]
    assert generate(rows).err.startswith("prompt: instruction and input or prompt; unused: none\n")
    assert sent() == [user("a"), user("b\n\nc"), user("d")]


def test_calls_of_tools_in_sharegpt_have_ids_that_their_results_name(generate: Any) -> None:
    call = {"name": "weather", "arguments": {"city": "Lima"}}
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": json.dumps(call)},
        {"from": "observation", "value": "sunny"},
    ]
    generate([{"conversations": turns}])
    (chat,) = sent()
    (made,) = chat[1]["tool_calls"]
    assert made["function"] == {"name": "weather", "arguments": '{"city": "Lima"}'}
    assert chat[1]["content"] is None
    assert chat[2] == {"role": "tool", "tool_call_id": made["id"], "content": "sunny"}


# Options about columns


def test_a_column_that_is_named_wins(generate: Any) -> None:
    row = {"messages": CHAT, "prompt": "p", "my question": "q", "chat": SHAREGPT}
    assert generate([row], "--prompt-column", "my question").status == 0
    result = generate([row], "--messages-column", "chat", output="other.jsonl")
    assert sent() == [user("q"), CHAT]
    assert result.err.startswith("prompt: chat; unused: messages, prompt, my question\n")


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (["--prompt-column", "promt"], "none of the first 2 rows has the column promt", "did you mean 'prompt'?"),
        (["--messages-column", "mesages"], "has the column mesages", "did you mean 'messages'?"),
        (["--template", "{{ txet }}"], "the template names txet, and none", "did you mean 'text'?"),
        (["--template", "{{ row.txet }}"], "the template names txet", "did you mean 'text'?"),
        (["--template", '{{ row["txet"] }}'], "the template names txet", "did you mean 'text'?"),
        (["--template", "{% if q9z %}a{% endif %}"], "the template names q9z", "{{ q9z | default('') }}"),
        (["--template", "{{ person.nmae }}"], "the template reads nmae of person, which no person has", "'name'"),
        (["--template", "{{ 'x' * 10**10 }}"], "makes more than 10,000,000 characters", "simplify"),
        (["--template", "{{ text.ljust(10**9) }}"], "makes more than 10,000,000 characters", "simplify"),
        (
            ["--template", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"],
            "takes more than 100,000 steps", "simplify",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["file", "stdout", "estimate", "preview"])
def test_what_the_first_rows_do_not_have_ends_the_command_before_anything_runs(
    run: Any, rows_file: Any, tmp_path: Path, options: list[str], message: str, hint: str, way: str
) -> None:
    row = {"text": "a", "prompt": "p", "messages": CHAT, "person": {"name": "Ada"}}
    ways = {
        "file": ["-o", "out.jsonl"],
        "stdout": ["-o", "-"],
        "estimate": ["--estimate"],
        "preview": ["--preview", "1"],
    }
    result = run("generate", rows_file([row] * 2), "--llm", "seen", *options, *ways[way])
    assert (result.status, result.out) == (2, "")
    error, way_out = result.err.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert way_out.startswith("  try  ")
    assert hint in way_out
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert ASKED == []


def test_a_refused_name_leaves_an_earlier_run_as_it_is_also_with_restart(generate: Any) -> None:
    generate([{"prompt": "a"}])
    before = Path("out.jsonl").read_bytes(), Path("out.jsonl.run.db").exists()
    assert generate([{"prompt": "a"}], "--prompt-column", "p", "--restart").status == 2
    assert (Path("out.jsonl").read_bytes(), Path("out.jsonl.run.db").exists()) == before


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"question": "a", "id": 1}, "give --prompt-column question,"),
        ({"a": 1, "dialogue": SHAREGPT}, "give --messages-column dialogue"),
        ({"a": "b"}, "give --prompt-column NAME, --messages-column NAME for chats, or --template TEXT"),
    ],
)
def test_an_input_without_any_column_for_a_prompt_is_one_error(
    generate: Any, row: dict[str, Any], hint: str
) -> None:
    result = generate([row] * 3)
    assert result.status == 2
    assert f"its columns are: {', '.join(row)}\n  try  {hint}" in result.err
    assert ASKED == []


def test_a_column_that_only_some_rows_have_is_their_matter(generate: Any, read: Any) -> None:
    rows = [*({"id": number} for number in range(5)), {"prompt": "a"}]
    assert generate(rows).status == 3
    assert sent() == [user("a")]
    assert len(errors(read)) == 5


def test_rows_that_cannot_be_read_say_nothing_about_names(generate: Any, read: Any) -> None:
    assert generate(["{broken", "[]"], "--template", "{{ text }}").status == 3
    assert len(errors(read)) == 2


def test_names_that_may_be_missing(generate: Any) -> None:
    template = "{{ a | default('none') }}{% if b is defined %}{{ b }}{% endif %}{{ c.d | d('-') }}"
    assert generate([{"c": {}}, {"a": 1, "b": 2, "c": {"d": 3}}], "--template", template).status == 0
    assert sent() == [user("none-"), user("123")]


def test_names_that_a_template_sets_itself_are_no_columns(generate: Any) -> None:
    template = (
        "{% set n = namespace(x='') %}{% macro m(v) %}{{ v }}!{% endmacro %}{% for i in xs %}"
        "{% set n.x = n.x ~ i %}{{ loop.index }}{% endfor %}{{ n.x }}{{ m(xs | length) }}"
    )
    assert generate([{"xs": ["a", "b"]}], "--template", template).status == 0
    assert sent() == [user("12ab2!")]


# What is said


@pytest.mark.parametrize("way", ["file", "stdout"])
def test_columns_like_parameters_are_named(run: Any, rows_file: Any, way: str) -> None:
    rows = rows_file([{"prompt": "a", "tools": [], "temperature": 0.5, "id": 1}])
    result = run("generate", rows, "--llm", "seen", "-o", "out.jsonl" if way == "file" else "-")
    assert result.err.startswith(
        "prompt: prompt; unused: tools, temperature, id\n"
        "the columns tools, temperature have the names of parameters, and are not used without --row-params\n"
    )


def test_many_columns_and_odd_names_are_one_line(generate: Any) -> None:
    row = {"prompt": "a", "two\nlines\x1b[31m": 1, "x" * 500: 2, " ": 3, **{f"c{n}": n for n in range(30)}}
    first, second, *_ = generate([row]).err.splitlines()
    assert first.startswith("prompt: prompt; unused: two\ufffdlines\ufffd[31m, " + "x" * 60 + "…, ' ', c0, ")
    assert first.endswith(" and 21 more")
    assert second.startswith("rows ")


def test_a_template_names_the_columns_that_it_reads(generate: Any) -> None:
    result = generate([{"a": 1, "b": 2, "c": 3}], "--template", '{{ c }} {{ row["a"] }}')
    assert result.err.startswith("prompt: the template with a, c; unused: b\n")


def test_a_template_without_columns_is_noted(generate: Any) -> None:
    result = generate([{"prompt": "a"}], "--template", "Tell a joke")
    assert "the template names no column: every row has the same prompt\n" in result.err
    assert (result.status, sent()) == (0, [user("Tell a joke")])


def test_a_run_that_is_complete_says_nothing_of_it(generate: Any) -> None:
    generate([{"prompt": "a"}])
    assert generate([{"prompt": "a"}]).err == "out.jsonl is complete: 1 row\n"


def test_from_python_it_goes_to_a_logger(capfd: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "stillhouse.jobs"):
        stillhouse.run([{"prompt": "a", "seed": 1}], llm="seen")
    assert [record.message for record in caplog.records] == [
        "prompt: prompt; unused: seed",
        "the column seed has the name of a parameter, and is not used without row_params=True",
    ]
    assert capfd.readouterr() == ("", "")
    with pytest.raises(stillhouse.ConfigurationError, match="has no column promt") as raised:
        stillhouse.run([{"prompt": "a"}], llm="seen", prompt_column="promt")
    assert raised.value.hint == "did you mean 'prompt'?"


# Rows


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([{"role": "user", "content": 5}], "the content of message 1 of the row is a number"),
        ([*user("a"), {"role": "user", "content": [1, 2]}], "part 1 of message 2 of the row is a number"),
        ([{"role": "user", "content": ["a"]}], "part 1 of message 1 of the row is a text"),
        ([{"role": "user", "content": {"text": "a"}}], "the content of message 1 of the row is an object"),
        ([{"role": "user", "content": []}], "message 1 of the row has no content"),
        ([{"role": "user", "content": None}], "message 1 of the row has no content"),
        ([{"role": "user"}], "message 1 of the row has no content"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "the text of part 1 of message 1"),
        ([{"role": "user", "content": [{"type": "text"}]}], "the text of part 1 of message 1 of the row is null"),
        ([{"role": "user", "content": [{"type": 5}]}], "the type of part 1 of message 1"),
        ([{"content": "a"}], "message 1 of the row is not an object with a role"),
        ([{"role": 5, "content": "a"}], "message 1 of the row is not an object with a role"),
        (["a"], "message 1 of the row is a text"),
        ([None], "message 1 of the row is null"),
        ([], "the column messages is empty"),
        ({"role": "user", "content": "a"}, "the column messages is an object"),
        (5, "the column messages is a number"),
        ("[NaN]", "the column messages is a text that is not valid JSON"),
        ("[" * 100_000, "the column messages is a text that is not valid JSON"),
        ([{**user("a")[0], "name": 5}], "the name of message 1 of the row is a number"),
        ([{"role": "assistant", "tool_calls": 5}], "the tool_calls of message 1 of the row"),
        ([{"from": "human", "value": None}], "message 1 of the row has no value"),
        ([{"from": "human", "value": [1]}], "the value of message 1 of the row is a list"),
        ([{"from": "narrator", "value": "a"}], "message 1 of the row is from 'narrator', which is not one of human"),
        ([{"from": 5, "value": "a"}], "message 1 of the row is from 5"),
        ([{"from": "function_call", "value": "a"}], "message 1 of the row is a call without the JSON"),
    ],
)  # fmt: skip
def test_what_is_no_chat_fails_its_row_before_any_backend_sees_it(
    generate: Any, read: Any, messages: Any, problem: str
) -> None:
    assert generate([{"prompt": "a"}, {"messages": messages}]).status == 3
    (row,) = [row for row in read(Path("out.jsonl")) if row["error"]]
    assert row["error"]["kind"] == "invalid_input"
    assert row["error"]["message"].startswith(f"line 2: {problem}")
    assert sent() == [user("a")]


@pytest.mark.parametrize("name", ["prompt", "messages", "conversations", "instruction"])
def test_a_null_prompt_is_named(generate: Any, read: Any, name: str) -> None:
    assert generate([{"prompt": "a", "id": 1}, {name: None, "id": 2}]).status == 3
    assert errors(read) == [f"line 2: its {name} is null"]


@pytest.mark.parametrize("option", ["--prompt-column", "--messages-column"])
def test_a_named_column_that_is_null_or_missing_or_another_thing_is_its_rows_matter(
    generate: Any, read: Any, option: str
) -> None:
    rows = [{"x": None}, {"y": 1}, {"x": 5}, {"x": "a" if option == "--prompt-column" else CHAT}]
    assert generate(rows, option, "x").status == 3
    assert errors(read)[:2] == ["line 1: its x is null", "line 2: the row has no x"]
    assert errors(read)[2].startswith("line 3: the column x is a number, not a ")
    assert len(sent()) == 1


def test_a_chat_in_a_column_of_texts_says_how_it_is_taken(generate: Any, read: Any) -> None:
    generate([{"prompt": CHAT}])
    assert errors(read) == [
        "line 1: the column prompt is a list, not a text; --messages-column prompt takes it as a chat"
    ]


def test_nulls_of_the_file_are_sent_and_those_of_typed_columns_are_not(run: Any, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")

    part = {
        "type": "tool_use",
        "id": "1",
        "name": "n",
        "input": {"unit": None, "x": 1, "deep": [{"y": None}]},
    }
    chat = [
        *user("a"),
        {"role": "assistant", "content": [part], "name": None, "tool_calls": None},
        *user("b"),
    ]
    expected = [*user("a"), {"role": "assistant", "content": [part]}, *user("b")]
    write_rows(tmp_path / "rows.jsonl", [{"messages": chat}])
    pa.parquet.write_table(pa.table({"messages": [json.dumps(chat)]}), tmp_path / "text.parquet")
    for source in ("rows.jsonl", "text.parquet"):
        assert run("generate", source, "--llm", "seen", "-o", f"{source}.out.jsonl").status == 0
    stillhouse.run([{"messages": chat}], llm="seen")
    assert sent() == [expected] * 3
    # In a struct, every object has the fields of all.
    typed = pa.table(
        {"messages": [[*user("a"), {"role": "assistant", "content": "b", "name": "n"}, *user("c")]]}
    )
    pa.parquet.write_table(typed, tmp_path / "typed.parquet")
    assert run("generate", "typed.parquet", "--llm", "seen", "-o", "typed.out.jsonl").status == 0
    assert sent()[3] == [*user("a"), {"role": "assistant", "content": "b", "name": "n"}, *user("c")]


# Data for training


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_chats_that_end_with_the_answer_are_counted_and_can_be_cut(
    generate: Any, read: Any, column: str
) -> None:
    answered = {column: [*SHAREGPT, {"from": "gpt", "value": "Fine"}]}
    rows = [answered, {column: SHAREGPT}, answered, {column: [{"from": "gpt", "value": "alone"}]}]
    result = generate(rows)
    line = (
        "chats that end with the assistant's answer, which is sent: 3 of the first 4 rows; "
        "--drop-last-assistant leaves it out\n"
    )
    assert result.err.count(line) == 1
    assert [len(chat) for chat in sent()] == [5, 4, 5, 1]
    ASKED.clear()
    result = generate(rows, "--drop-last-assistant", output="cut.jsonl")
    assert "assistant's answer" not in result.err.replace("but the assistant's", "")
    assert sent() == [CHAT] * 3
    (failed,) = [row for row in read(Path("cut.jsonl")) if row["error"]]
    assert failed["error"]["message"] == "line 4: the chat has no message but the assistant's"


# Files


def test_a_template_and_a_system_message_from_files(generate: Any) -> None:
    Path("t.j2").write_bytes(b"\xef\xbb\xbf{{ a }}\r\nand {{ b }}\r\n")
    Path("s.txt").write_text("Be brief\n", encoding="utf-16")
    result = generate([{"a": "x", "b": "y"}], "--template-file", "t.j2", "--system-file", "s.txt")
    assert result.status == 0, result.err
    assert sent() == [[{"role": "system", "content": "Be brief"}, *user("x\nand y")]]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (["--template", "@t.j2"], "'@t.j2' is the name of a file", "--template-file t.j2"),
        (["--template", "@missing.j2"], "'@missing.j2' is the name of a file", "--template-file missing.j2"),
        (["--template", "t.j2"], "'t.j2' is the name of a file", "--template-file t.j2"),
        (["--system", "@t.j2"], "'@t.j2' is the name of a file", "--system-file t.j2"),
        (["--template-file", "none.j2"], "--template-file: none.j2 cannot be read: No such file", "path"),
        (["--template-file", "."], "--template-file: . is a folder", "path"),
        (["--template-file", "empty"], "--template-file: empty is empty", "a text"),
        (["--template", ""], "--template is empty", "{{ NAME }}"),
        (["--system-file", "binary"], "--system-file: binary is not a text file", "path"),
        (["--template", "{% include 'x.j2' %}"], "the template reads another one in line 1", "into this template"),
        (["--template", "{{ self }}"], "self, in line 1", 'row["self"]'),
        (["--template", "{{ my col }}"], "the template is not valid: expected token", 'row["its name"]'),
        (["--template", "{{ a | nope }}"], "No filter named 'nope'", "correct"),
        (["--template", "{{" + "(" * 3000], "nested too deeply", "simplify"),
    ],
)  # fmt: skip
def test_a_wrong_file_or_template_is_refused_before_anything_is_loaded(
    generate: Any, tmp_path: Path, options: list[str], message: str, hint: str
) -> None:
    Path("t.j2").write_text("{{ prompt }}")
    Path("empty").write_text("\n")
    Path("binary").write_bytes(b"\xff\xff\x00")
    before = sorted(path.name for path in tmp_path.iterdir())
    result = generate([{"prompt": "a"}], *options)
    assert result.status == 2
    error, way_out = result.err.splitlines()
    assert message in error
    assert hint in way_out
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "rows.jsonl"])
    assert ASKED == []


def test_a_file_of_a_template_is_no_output(run: Any, rows_file: Any) -> None:
    Path("t.jsonl").write_text("{{ prompt }}")
    result = run(
        "generate",
        rows_file([{"prompt": "a"}]),
        "--llm",
        "seen",
        "--template-file",
        "t.jsonl",
        "-o",
        "t.jsonl",
    )
    assert result.status == 1
    assert Path("t.jsonl").read_text() == "{{ prompt }}"


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}


@pytest.mark.parametrize("name", ["s.json", "s.yaml", "s.schema"])
def test_a_schema_is_sent_with_every_input(generate: Any, name: str) -> None:
    text = "type: object\nproperties:\n  age: {type: integer}\n" if name == "s.yaml" else json.dumps(SCHEMA)
    Path(name).write_text(text)
    assert generate([{"prompt": "a"}, {"messages": CHAT}], "--schema", name).status == 0
    form = {"format": "json", "schema": SCHEMA}
    assert sent() == [(user("a"), form), (CHAT, form)]


def fields_schema(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("name, age int", fields_schema(name={"type": "string"}, age={"type": "integer"})),
        ("name:", fields_schema(name={"type": "string"})),
        (
            "score float: from 0 to 1, ok bool ,note_1 str:a: b",
            fields_schema(
                score={"type": "number", "description": "from 0 to 1"},
                ok={"type": "boolean"},
                note_1={"type": "string", "description": "a: b"},
            ),
        ),
        (
            "name: first, then last\n\nage int\n",
            fields_schema(
                name={"type": "string", "description": "first, then last"}, age={"type": "integer"}
            ),
        ),
    ],
)
def test_a_schema_may_be_its_fields_in_a_line(generate: Any, text: str, schema: Any) -> None:
    assert generate([{"prompt": "a"}], "--schema", text).status == 0
    assert sent() == [(user("a"), {"format": "json", "schema": schema})]


def test_a_file_wins_over_fields_in_a_line(generate: Any) -> None:
    Path("name, age int").write_text(json.dumps(SCHEMA))
    assert generate([{"prompt": "a"}], "--schema", "name, age int").status == 0
    assert sent() == [(user("a"), {"format": "json", "schema": SCHEMA})]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("name, age integr", "--schema: 'age integr' has the unknown type 'integr'", "did you mean 'int'?"),
        ("name, 1st int", "--schema: '1st int' does not begin with the name of a field", "'name, age int"),
        ("name,,age", "--schema: '' does not begin with the name of a field", "'name, age int"),
        (
            "name age int",
            "--schema: 'name age int' has more than a name and a type",
            "separate fields by commas",
        ),
        ("name, name int", "--schema has the field 'name' twice", "remove one"),
        ('{"type": "object"}', "does not begin with the name of a field", "'name, age int"),
        (" ", "--schema: '' does not begin with the name of a field", "'name, age int"),
        ("x" * 5000 + ", age", "does not begin with the name of a field", "'name, age int"),
        ("name", "--schema: name cannot be read", "check the path"),
        ("my fields.json", "--schema: my fields.json cannot be read", "check the path"),
    ],
)
def test_a_wrong_field_of_a_schema_is_named(generate: Any, text: str, message: str, hint: str) -> None:
    result = generate([{"prompt": "a"}], "--schema", text)
    assert result.status == 2
    first, second = result.err.splitlines()
    assert message in first
    assert hint in second
    assert len(first) < 200
    assert ASKED == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "--schema s.json is not valid JSON: Expecting property name enclosed in double quotes: line 1"),
        ("[]", "it holds no JSON schema"),
        ("true", "it holds no JSON schema"),
        ('{"type": "objekt"}', "the JSON schema is not valid at #/type"),
        ('{"properties": {"a": {"type": 5}}}', "the JSON schema is not valid at #/properties/a/type"),
        ('{"properties": {"a": {"$ref": "#/$defs/b"}}}', "not valid at #/properties/a: '#/$defs/b' leads nowhere"),
        ('{"properties": {"a": {"pattern": "("}}}', "not valid at #/properties/a/pattern: '(' is not a 'regex'"),
        ('{"name": "x", "schema": {"type": "object"}}', "the schema lies in the file as a part of something else"),
        ('{"type": "json_schema", "json_schema": {"schema": {}}}', "a part of something else"),
        ('{"minimum": NaN}', "is not valid JSON: nan"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)  # fmt: skip
def test_a_wrong_schema_is_one_error_with_its_place(generate: Any, text: str, message: str) -> None:
    Path("s.json").write_text(text)
    result = generate([{"prompt": "a"}], "--schema", "s.json")
    assert result.status == 2
    assert message in result.err.splitlines()[0]
    assert len(result.err.splitlines()) == 2
    assert ASKED == []


@pytest.mark.parametrize(
    ("option", "name", "before", "after", "difference"),
    [
        ("--template-file", "f.txt", "Q: {{ prompt }}", "A: {{ prompt }}", 'template: it was "Q: {{ prompt }}"'),
        ("--system-file", "f.txt", "Be brief", "Be long", 'system: it was "Be brief", and is "Be long" now'),
        (
            "--schema", "f.json", '{"properties": {"a": {"type": "string"}}}', '{"properties": {"a": {"type": "number"}}}',
            'schema.properties.a.type: it was "string", and is "number" now',
        ),
        (
            "--template-file", "f.txt", "long " * 100 + "{{ prompt }} one", "long " * 100 + "{{ prompt }} two",
            'long {{ prompt }} one", and is …',
        ),
    ],
)  # fmt: skip
def test_a_file_with_another_content_is_another_command(
    generate: Any, option: str, name: str, before: str, after: str, difference: str
) -> None:
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    Path(name).write_text(before)
    assert generate(rows, option, name, "--limit", 1).status == 0
    Path(name).write_text(after)
    result = generate(rows, option, name)
    assert result.status == 1
    assert difference in result.err
    Path(name).rename("moved.json")
    Path("moved.json").write_text(before)
    assert generate(rows, option, "moved.json").status == 0
    assert len(sent()) == 2


def test_a_run_is_resumed_only_with_the_same_columns(generate: Any) -> None:
    rows = [{"prompt": "a", "b": "c"}] * 2
    assert generate(rows, "--limit", 1).status == 0
    result = generate(rows, "--prompt-column", "b")
    assert 'prompt_column: it was null, and is "b" now' in result.err
    assert generate(rows).status == 0


# Preview


def test_a_preview_shows_what_is_sent_and_does_nothing(run: Any, rows_file: Any, tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 500}}
    rows = rows_file([
        {"prompt": "two\nlines"}, {"messages": None}, "{broken",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, image]}]}, {"prompt": "last"},
    ])  # fmt: skip
    Path("s.json").write_text(json.dumps(SCHEMA))
    options = ["generate", rows, "--llm", "seen", "--system", "Be brief", "--schema", "s.json", "--preview"]
    result = run(*options, 4)
    assert result.status == 0
    assert result.err == "prompt: prompt or messages; unused: none\n"
    blocks = result.out.split("\n\n")
    form = '  structured output: {"format":"json","schema":' + json.dumps(SCHEMA, separators=(",", ":")) + "}"
    assert blocks[0] == f"row 1, line 1\n  system: Be brief\n  user: two\n        lines\n{form}"
    assert blocks[1] == "row 2, line 2\n  invalid_input: line 2: its messages is null"
    assert blocks[2].startswith("row 3, line 3\n  invalid_input: line 3: not valid JSON")
    assert "  user: see\n" in blocks[3]
    assert "data:image/png;base64," + "A" * 24 + "…" in blocks[3]
    assert "last" not in result.out
    result = run(*options, 4, "--json")
    records = [json.loads(line) for line in result.out.splitlines()]
    assert records[0] == {
        "row": 1, "line": 1, "input": [{"role": "system", "content": "Be brief"}, *user("two\nlines")],
        "structured_output": {"format": "json", "schema": SCHEMA},
    }  # fmt: skip
    assert records[1]["error"] == {"kind": "invalid_input", "message": "line 2: its messages is null"}
    assert records[3]["input"][1]["content"][1] == image
    assert ASKED == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "s.json"]


def test_a_preview_is_what_a_run_sends(run: Any, rows_file: Any) -> None:
    rows = rows_file([ALPACA, {"conversations": SHAREGPT}, {"prompt": "x"}])
    records = run("generate", rows, "--llm", "seen", "--preview", 9, "--json").out.splitlines()
    run("generate", rows, "--llm", "seen", "-o", "out.jsonl", "--max-concurrency", 1)
    assert [json.loads(line)["input"] for line in records] == sent()


def test_a_preview_of_raw_prompts_and_of_standard_input(start: Any, run: Any, rows_file: Any) -> None:
    result = run("generate", rows_file([{"prompt": "a"}]), "--llm", "seen", "--raw", "--preview", 1)
    assert result.out == "row 1, line 1\n  raw prompt: a\n\n"
    process = start("generate", "-", "--llm", "echo", "--preview", "1", stdin=-1)
    out, err = process.communicate('{"prompt": "a"}\n{"prompt": "b"}\n', timeout=60)
    assert (process.returncode, out) == (0, "row 1, line 1\n  user: a\n\n"), err


# Standard input


def test_standard_input_is_looked_at_and_read_once(start: Any, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"prompt": f"text {number}", "id": number}) + "\n" for number in range(500))
    for output in ("-", "out.jsonl"):
        process = start("generate", "-", "--llm", "echo", "-o", output, stdin=-1)
        out, err = process.communicate(rows, timeout=60)
        assert process.returncode == 0, err
        assert err.startswith("prompt: prompt; unused: id\n")
        lines = (out if output == "-" else (tmp_path / output).read_text()).splitlines()
        assert [json.loads(line)["id"] for line in lines] == list(range(500))


# Tables


def test_a_row_of_a_table_is_called_a_row(run: Any, read: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pa.table({"prompt": ["a", None]}), "rows.parquet")
    assert run("generate", "rows.parquet", "--llm", "seen", "-o", "out.jsonl").status == 3
    assert errors(read) == ["row 2: its prompt is null"]
    assert run("generate", "rows.parquet", "--llm", "seen", "--preview", 2).out == (
        "row 1\n  user: a\n\nrow 2\n  invalid_input: row 2: its prompt is null\n\n"
    )


# Schemas


class ChoosyLLM(SeenLLM):
    """Refuses a schema with a pattern."""

    def check_input(self, input: Any) -> None:
        if isinstance(input, tuple) and "pattern" in str(input[1]):
            raise stillhouse.UnsupportedError("choosy cannot honour the keyword 'pattern'", hint="remove it")
        super().check_input(input)


def test_a_schema_that_the_backend_refuses_ends_the_run_before_the_first_row(
    run: Any, rows_file: Any, own_registry: stillhouse.Registry
) -> None:
    own_registry.register("choosy", ChoosyLLM)
    Path("s.json").write_text('{"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}')
    for output in ("out.jsonl", "-"):
        result = run(
            "generate", rows_file([{"prompt": "a"}]), "--llm", "choosy", "--schema", "s.json", "-o", output
        )
        assert result.status == 1
        assert "the schema of this run is refused: choosy cannot honour the keyword 'pattern'" in result.err
        assert "remove it; give another --schema, or leave it out" in result.err
        assert sent() == []


def test_a_schema_for_one_prompt_and_from_python(run: Any) -> None:
    from pydantic import BaseModel

    class Answer(BaseModel):
        age: int

    Path("s.json").write_text(json.dumps(SCHEMA))
    assert run("generate", "--llm", "seen", "--prompt", "a", "--schema", "s.json").status == 0
    for schema in (Path("s.json"), "s.json", SCHEMA, Answer):
        stillhouse.run([{"prompt": "a"}], llm="seen", schema=schema)
    forms = [input[1]["schema"] for input in sent()]
    assert forms[:4] == [SCHEMA] * 4
    assert forms[4]["required"] == ["age"]
    for schema, message in (
        (5, "a JSON schema is a dict"),
        ("none.json", "schema: none.json cannot be read"),
    ):
        with pytest.raises(stillhouse.ConfigurationError, match=message):
            stillhouse.run([{"prompt": "a"}], llm="seen", schema=schema)
