"""`--where`, `--sample`, `--shard` and `--limit`: which rows of an input belong to a run."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import hookimpl
from stillhouse._wording import number_of

from .conftest import NeverLLM, Result, read_rows, write_rows

Generate = Callable[..., Result]


@pytest.fixture
def source(rows_file: Callable[[list[Any]], Path]) -> Path:
    """Thirty rows with an id; every fifth has no score."""
    rows = [{"id": number, "prompt": f"row {number}"} for number in range(30)]
    return rows_file([row if row["id"] % 5 == 0 else {**row, "score": row["id"] % 4} for row in rows])


@pytest.fixture
def generate(run: Callable[..., Result], source: Path, tmp_path: Path) -> Generate:
    def call(name: str, *options: object, of: Path | None = None, llm: str = "echo") -> Result:
        return run("generate", of or source, "--llm", llm, "-o", tmp_path / name, *options)

    return call


def ids(path: Path) -> list[int]:
    return [row["id"] for row in read_rows(path)]


# Wrong values


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        *[("--shard", value, f"--shard {value} is no shard") for value in
          ("0/3", "4/3", "x", "1", "1/", "/3", "1/0", "-1/3", "1.0/3", " 1/3", "1/3/5", "", "1/" + "9" * 5000)],
        *[("--sample", value, "--sample") for value in ("0", "-1", "x", "1.5", "")],
        *[("--where", value, "--where is empty") for value in ("", " ")],
        *[("--where", value, f"--where {value} is no condition") for value in
          ("(", "score >", "a b", "{{ a }}", "a | nofilter", "{% if a %}", "1 = 1", "(" * 3000)],
    ],
)  # fmt: skip
def test_a_wrong_value_is_a_usage_error_and_nothing_is_loaded(
    generate: Generate,
    own_registry: stillhouse.Registry,
    tmp_path: Path,
    option: str,
    value: str,
    told: str,
) -> None:
    own_registry.register("never", NeverLLM)
    result = generate("out.jsonl", option, value, llm="never")
    assert result.status == 2
    assert told in result.err
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) <= 2  # what is wrong, and what to do
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_a_name_that_is_no_column_is_refused_with_the_near_one(
    run: Callable[..., Result], own_registry: stillhouse.Registry, source: Path, tmp_path: Path, output: str
) -> None:
    own_registry.register("never", NeverLLM)
    target = "-" if output == "-" else tmp_path / output
    command = ["generate", source, "--llm", "never", "-o", target, "--where", "scroe > 1"]
    for more in ([], ["--estimate"]):
        result = run(*command, *more)
        assert result.status == 2
        assert "--where names scroe" in result.err
        assert "did you mean 'score'?" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("name", "value"), [("where", 5), ("shard", (1, 3)), ("sample", 0), ("sample", 1.5), ("where", "(")]
)
def test_python_refuses_them_too(source: Path, name: str, value: Any) -> None:
    with pytest.raises(stillhouse.ConfigurationError, match=name):
        stillhouse.run(source, llm="echo", **{name: value})


# --where


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("score == 3", lambda row: row.get("score") == 3),
        ("not score", lambda row: not row.get("score")),
        ("score is none", lambda row: "score" not in row),
        ("score is not none and score > 1", lambda row: row.get("score", 0) > 1),
        ("id in [3, 4, 99] or prompt == 'row 7'", lambda row: row["id"] in (3, 4, 7)),
        ("prompt.endswith('1') and id < 20", lambda row: row["id"] in (1, 11)),
        ("(id | string | length) == 1", lambda row: row["id"] < 10),
        ("row['id'] == 8 or row['score'] == 3", lambda row: row["id"] == 8 or row.get("score") == 3),
        ("score is defined and id < 9", lambda row: "score" in row and row["id"] < 9),
        ("'%}' in prompt or '}}' in prompt or id == 2", lambda row: row["id"] == 2),
        ("(id if id > 20 else 0) > 25", lambda row: row["id"] > 25),
        ("true", lambda _: True),
        ("false", lambda _: False),
    ],
)
def test_only_the_rows_that_match_are_in_the_output(
    generate: Generate, source: Path, tmp_path: Path, expression: str, wanted: Callable[[Any], bool]
) -> None:
    result = generate("out.jsonl", "--where", expression)
    assert result.status == 0, result.err
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == [row["id"] for row in read_rows(source) if wanted(row)]
    assert [row["generations"] for row in rows] == [[f"row {row['id']}"] for row in rows]
    assert generate("out.jsonl", "--where", expression).err.endswith(
        f"is complete: {number_of(len(rows), 'row')}\n"
    )


def test_the_failed_rows_of_an_output_are_chosen_by_their_error(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    """A second pass over an output: its columns may be anything, also null."""
    rows = [
        {"prompt": "a", "error": None},
        {"prompt": "b", "error": {"kind": "timeout", "message": "late"}},
        {"prompt": "c", "error": {"kind": "server", "message": "no"}},
        {"prompt": "d"},
    ]
    source = write_rows(tmp_path / "first.jsonl", rows)
    for number, (where, wanted) in enumerate(
        {"error": "bc", "error and error.kind == 'timeout'": "b"}.items()
    ):
        printed = run(
            "generate", source, "--llm", "echo", "-o", "-", "--where", where, "--output-prefix", "new_"
        )
        assert [json.loads(line)["prompt"] for line in printed.out.splitlines()] == list(wanted), number


def test_a_row_for_which_it_cannot_be_said_fails_with_its_line(
    generate: Generate, rows_file: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    of = rows_file(
        [{"prompt": "a", "n": 2}, "", {"prompt": "b", "n": "x"}, "{broken", {"prompt": "c", "n": 1}]
    )
    result = generate("out.jsonl", "--where", "n > 1", of=of)
    assert result.status == 3
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row.get("prompt") for row in rows] == ["a", "b", None]
    assert [row["error"] and row["error"]["kind"] for row in rows] == [None, "invalid_input", "invalid_input"]
    assert rows[1]["error"]["message"].startswith("line 3: ")
    assert rows[1]["n"] == "x"
    assert rows[2]["error"]["message"].startswith("line 4: not valid JSON")


def test_a_text_of_csv_is_made_a_number_first(generate: Generate, tmp_path: Path) -> None:
    of = tmp_path / "rows.csv"
    of.write_text("prompt,score\na,3\nb,12\nc,5\n")
    assert generate("out.jsonl", "--where", "score | int > 4", of=of).status == 0
    assert [row["prompt"] for row in read_rows(tmp_path / "out.jsonl")] == ["b", "c"]


@pytest.mark.parametrize(
    "expression",
    [
        "prompt.__class__.__mro__",
        "''.__class__.__base__.__subclasses__()",
        "'x' * 10 ** 12",
        "[].append(prompt)",
        "range(10 ** 9) | list",
    ],
)
def test_it_can_neither_reach_out_nor_take_all_memory(
    generate: Generate, tmp_path: Path, expression: str
) -> None:
    result = generate("out.jsonl", "--where", expression)
    assert result.status in (0, 3)  # an attribute that is out of reach is nothing
    for row in read_rows(tmp_path / "out.jsonl"):
        assert row["error"]["kind"] == "invalid_input"


def test_a_column_that_a_row_of_standard_input_lacks_is_null(start: Any, source: Path) -> None:
    """As it is in a file, although standard input cannot be looked through before."""
    with source.open("rb") as stdin:
        process = start("generate", "-", "--llm", "echo", "-o", "-", "--where", "score is none", stdin=stdin)
        printed, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert [json.loads(line)["id"] for line in printed.splitlines()] == [0, 5, 10, 15, 20, 25]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("score > 3", "a text and a number cannot be compared with >; NAME | int makes a text a number"),
        ("[1] < score", "a list and a text cannot be compared with <; NAME | string makes any value a text"),
        ("[1] < 5", "a list and a number cannot be compared with <"),
    ],
)
def test_values_that_cannot_be_compared_are_told_with_what_to_write(
    generate: Generate, tmp_path: Path, expression: str, told: str
) -> None:
    of = tmp_path / "rows.csv"
    of.write_text("prompt,score\na,3\nb,12\n")
    result = generate("out.jsonl", "--where", expression, of=of)
    assert result.status == 3
    messages = [row["error"]["message"] for row in read_rows(tmp_path / "out.jsonl")]
    assert [message.endswith(f"cannot be evaluated for this row: {told}") for message in messages] == [
        True,
        True,
    ], messages


@pytest.mark.parametrize("more", [[], ["--estimate"], ["--preview", 3]])
def test_a_choice_of_no_row_is_told(generate: Generate, tmp_path: Path, more: list[Any]) -> None:
    """As of a number that is compared with the texts of a CSV file."""
    of = tmp_path / "rows.csv"
    of.write_text("prompt,score\na,3\n")
    result = generate("out.jsonl", "--where", "score == 3", *more, of=of)
    assert result.status == 0
    assert "no row of the input is one that the command chooses\n" in result.err
    of.write_text("prompt,score\n")
    assert "the input has no row\n" in generate("other.jsonl", *more, of=of).err


# --sample


def test_a_sample_is_the_same_each_time_and_in_the_order_of_the_input(
    generate: Generate, tmp_path: Path
) -> None:
    chosen = []
    for size in (1, 7, 12, 30, 1000):
        assert generate(f"{size}.jsonl", "--sample", size).status == 0
        assert generate(f"{size}.again.jsonl", "--sample", size).status == 0
        found = ids(tmp_path / f"{size}.jsonl")
        assert found == ids(tmp_path / f"{size}.again.jsonl") == sorted(found)
        assert len({*found}) == min(size, 30)
        chosen.append({*found})
    assert all(one <= other for one, other in pairwise(chosen))
    assert ids(tmp_path / "7.jsonl") != list(range(7))


def test_a_sample_is_spread_over_the_input() -> None:
    spread = _sampled([{"prompt": str(number)} for number in range(10_000)], 1000)
    counts = [sum(int(row) // 1000 == part for row in spread) for part in range(10)]
    assert all(60 < count < 140 for count in counts), counts  # 100 each, give or take 4 standard deviations


def _sampled(rows: list[dict[str, str]], size: int) -> list[str]:
    from stillhouse.jobs.selection.choosing import Choice
    from stillhouse.protocols import Row

    class Reader:
        schema = share_read = None

        def __iter__(self) -> Any:
            return (Row(index, index + 1, columns) for index, columns in enumerate(rows))

        def digest(self) -> str:
            return ""

        def close(self) -> None: ...

    return [row.columns["prompt"] for row in Choice(sample=size).rows(Reader())]


# --shard, and all together


def test_shards_have_every_row_once_and_are_of_one_size(generate: Generate, tmp_path: Path) -> None:
    for count in (1, 2, 7, 30, 31):
        shards = []
        for number in range(1, count + 1):
            assert generate(f"{count}.{number}.jsonl", "--shard", f"{number}/{count}").status == 0
            shards.append(ids(tmp_path / f"{count}.{number}.jsonl"))
        assert sorted(chain(*shards)) == list(range(30))
        assert {len(shard) for shard in shards} <= {math.floor(30 / count), math.ceil(30 / count)}
        assert all(shard == sorted(shard) for shard in shards)


def test_they_are_applied_in_one_order(generate: Generate, tmp_path: Path) -> None:
    options = ["--where", "id > 4", "--sample", 20, "--shard", "2/3", "--limit", 4]
    for given in (options, [part for pair in reversed(list(zip(options[::2], options[1::2], strict=True)))
                            for part in pair]):  # fmt: skip
        assert generate("all.jsonl", *given).status == 0
    generate("where.jsonl", "--where", "id > 4")
    generate("sample.jsonl", "--where", "id > 4", "--sample", 20)
    generate("shard.jsonl", "--where", "id > 4", "--sample", 20, "--shard", "2/3")
    assert ids(tmp_path / "where.jsonl") == list(range(5, 30))
    sample = ids(tmp_path / "sample.jsonl")
    assert len(sample) == 20
    assert {*sample} < {*range(5, 30)}
    assert ids(tmp_path / "shard.jsonl") == sample[1::3]
    assert ids(tmp_path / "all.jsonl") == sample[1::3][:4]


CHOICES = [
    ["--where", "id != 3"],
    ["--sample", "9"],
    ["--shard", "2/3"],
    ["--where", "id % 2", "--shard", "1/2"],
    ["--where", "id != 3", "--sample", "20", "--shard", "2/2"],
]


@pytest.mark.parametrize("choice", CHOICES, ids=" ".join)
def test_a_limit_may_grow_and_the_counts_stay_true(
    generate: Generate, tmp_path: Path, choice: list[str]
) -> None:
    generate("calm.jsonl", *choice)
    calm = read_rows(tmp_path / "calm.jsonl")
    for limit in (2, 3, 2, 5):
        result = generate("out.jsonl", *choice, "--limit", limit)
        assert result.status == 0, result.err
        assert read_rows(tmp_path / "out.jsonl") == calm[:limit]
        again = generate("out.jsonl", *choice, "--limit", limit)
        assert again.err.endswith(f"is complete: {number_of(limit, 'row')}\n"), again.err
    result = generate("out.jsonl", *choice)
    assert "resuming: 5 rows finished" in result.err
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "calm.jsonl").read_bytes()
    assert generate("out.jsonl", *choice).err.endswith(f"is complete: {number_of(len(calm), 'row')}\n")


@pytest.mark.parametrize("choice", CHOICES, ids=" ".join)
def test_an_estimate_counts_the_rows_of_the_run(
    run: Callable[..., Result], source: Path, generate: Generate, tmp_path: Path, choice: list[str]
) -> None:
    generate("calm.jsonl", *choice)
    count = len(read_rows(tmp_path / "calm.jsonl"))
    command = ["generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl", *choice]
    assert f"rows                      {count}\n" in run(*command, "--estimate").out
    assert run(*command, "--limit", 2).status == 0
    begun = run(*command, "--estimate").out
    assert "finished before           2\n" in begun
    assert f"rows                      {count - 2}\n" in begun


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ([], ["--where", "id > 3"], 'where: it was null, and is "id > 3" now'),
        (["--where", "id > 3"], ["--where", "id > 4"], 'where: it was "id > 3", and is "id > 4" now'),
        (["--sample", "3"], ["--sample", "4"], "sample: it was 3, and is 4 now"),
        (["--sample", "3"], [], "sample: it was 3, and is null now"),
        (["--shard", "1/3"], ["--shard", "2/3"], 'shard: it was "1/3", and is "2/3" now'),
        (["--shard", "1/3"], ["--shard", "1/4"], 'shard: it was "1/3", and is "1/4" now'),
        (["--dedupe"], [], "dedupe: it was true, and is null now"),
        ([], ["--dedupe"], "dedupe: it was null, and is true now"),
    ],
)
def test_another_choice_is_another_command(
    generate: Generate, tmp_path: Path, before: list[str], now: list[str], told: str
) -> None:
    assert generate("out.jsonl", *before).status == 0
    content = (tmp_path / "out.jsonl").read_bytes()
    result = generate("out.jsonl", *now)
    assert result.status == 1
    assert told in result.err
    assert (tmp_path / "out.jsonl").read_bytes() == content
    assert generate("out.jsonl", *now, "--restart").status == 0


def test_a_run_without_them_is_stored_as_before(generate: Generate, tmp_path: Path) -> None:
    """A state that was written without these options goes on."""
    generate("out.jsonl", "--limit", 3)
    command = stillhouse.run(tmp_path / "rows.jsonl", llm="echo", output=tmp_path / "out.jsonl")
    assert command.counts.rows == 30


# What they are asked with elsewhere


@pytest.mark.parametrize(
    "choice",
    [["--where", "id > 3"], ["--shard", "2/4"], ["--sample", "5"], ["--shard", "1/3", "--limit", "2"]],
)
def test_rows_are_printed_as_they_are_written(
    run: Callable[..., Result], generate: Generate, source: Path, tmp_path: Path, choice: list[str]
) -> None:
    generate("out.jsonl", *choice)
    printed = run("generate", source, "--llm", "echo", "-o", "-", *choice)
    assert printed.out == (tmp_path / "out.jsonl").read_text()


def test_standard_input_is_chosen_from(start: Any, generate: Generate, source: Path, tmp_path: Path) -> None:
    choice = ["--where", "id > 3", "--shard", "1/2"]
    generate("out.jsonl", *choice)
    wanted = (tmp_path / "out.jsonl").read_text()
    for output in ("-", tmp_path / "kept.jsonl"):
        with source.open("rb") as stdin:
            process = start("generate", "-", "--llm", "echo", "-o", output, *choice, stdin=stdin)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert wanted == (out if output == "-" else (tmp_path / "kept.jsonl").read_text())


class Watcher:
    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.lines: list[tuple[int, int]] = []

    @hookimpl
    def run_started(self, run: Any) -> None:
        self.runs.append(run)

    @hookimpl
    def after_generate(self, row: Any) -> None:
        self.lines.append((row.index, row.line))


def test_hooks_are_told_how_many_rows_there_are_and_which(
    generate: Generate, own_registry: stillhouse.Registry, tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    of = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"id": range(10), "prompt": [str(number) for number in range(10)]}), of)
    watcher = Watcher()
    own_registry.register_hooks("watcher", watcher)
    for number, (options, count) in enumerate(
        [
            ([], 10), (["--limit", 3], 3), (["--shard", "2/4"], 3), (["--shard", "4/4"], 2), (["--sample", 4], 4),
            (["--sample", 40], 10), (["--sample", 5, "--shard", "2/2"], 2), (["--where", "id > 1"], None),
            (["--shard", "2/4", "--limit", 2], 2),
        ]
    ):  # fmt: skip
        assert generate(f"{number}.jsonl", *options, of=of).status == 0
        assert watcher.runs[-1].rows == count, options
        assert len(read_rows(tmp_path / f"{number}.jsonl")) == (8 if count is None else count)
    assert sorted(watcher.lines[-2:]) == [(1, 2), (5, 6)]


def test_progress_reaches_the_end(source: Path) -> None:
    for choice in ({"where": "id > 3"}, {"shard": "3/4"}, {"sample": 5}, {"shard": "1/2", "limit": 4}):
        seen: list[Any] = []
        run = stillhouse.run(source, llm="echo", on_progress=seen.append, **choice)  # type: ignore[arg-type]
        assert (seen[-1].rows, round(seen[-1].share, 1)) == (len(run), 1.0), choice


def test_typed_columns_are_chosen_from(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"prompt": ["a", "b", "c"], "score": pa.array([1, None, 3], pa.int8())})
    run = stillhouse.run(table, llm="echo", where="score", output=tmp_path / "out.parquet")
    assert [row["prompt"] for row in run] == ["a", "c"]
    import pyarrow.parquet

    assert pyarrow.parquet.read_schema(tmp_path / "out.parquet").field("score").type == pa.int8()


def test_shards_of_random_inputs_partition_them(tmp_path: Path) -> None:
    chance = random.Random(7)
    for round in range(12):
        rows = [{"id": number, "prompt": "x"} for number in range(chance.randrange(0, 40))]
        count = chance.randrange(1, 9)
        choice: dict[str, Any] = {}
        if chance.random() < 0.5:
            choice["where"] = f"id % {chance.randrange(2, 5)} != 0"
        if chance.random() < 0.5:
            choice["sample"] = chance.randrange(1, 30)
        source = write_rows(tmp_path / f"{round}.jsonl", rows)
        whole = [row["id"] for row in stillhouse.run(source, llm="echo", **choice)]
        parts = [
            [row["id"] for row in stillhouse.run(source, llm="echo", shard=f"{number}/{count}", **choice)]
            for number in range(1, count + 1)
        ]
        assert parts == [whole[number::count] for number in range(count)]
