"""`stillhouse join`: the outputs of all shards of a run become one, or the command says why not."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

import stillhouse
from stillhouse import Capability
from stillhouse._wording import number_of
from stillhouse.echo import EchoLLM

from .conftest import Result, read_rows, write_rows

ROWS = [{"id": number, "prompt": f"row {number}", "more": {"x": [None, 1.5, "é\0"]}} for number in range(11)]


class FormsLLM(EchoLLM):
    """Answers with its input, whatever form the answer shall have."""

    capabilities: ClassVar[frozenset[Capability]] = EchoLLM.capabilities | {"json_schema"}


class Shards:
    """Runs of shards, and the run of all rows."""

    def __init__(self, run: Callable[..., Result], folder: Path) -> None:
        self.run = run
        self.folder = folder
        self.source = write_rows(folder / "rows.jsonl", [*ROWS, "{broken", {"id": 12}])

    def __call__(self, count: int, *options: object, suffix: str = ".jsonl") -> list[Path]:
        """Make the outputs of all shards."""
        return [self.make(f"{number}/{count}", *options, suffix=suffix) for number in range(1, count + 1)]

    def make(self, shard: str | None, *options: object, suffix: str = ".jsonl", name: str = "") -> Path:
        output = self.folder / f"{name or (shard or 'whole').replace('/', '-of-')}{suffix}"
        more = [] if shard is None else ["--shard", shard]
        result = self.run("generate", self.source, "--llm", "forms", "-o", output, *more, *options)
        assert result.status in (0, 3), result.err
        return output

    def join(self, *shards: Path, output: str = "joined.jsonl") -> Result:
        return self.run("join", *shards, "-o", self.folder / output)


@pytest.fixture
def shards(run: Callable[..., Result], own_registry: stillhouse.Registry, tmp_path: Path) -> Shards:
    own_registry.register("forms", FormsLLM)
    return Shards(run, tmp_path)


@pytest.mark.parametrize("count", [1, 3, 14])
def test_they_give_the_output_of_the_whole_run(shards: Shards, count: int, tmp_path: Path) -> None:
    whole = shards.make(None)
    parts = shards(count)
    random.Random(count).shuffle(parts)
    result = shards.join(*parts)
    assert result.status == 0, result.err
    assert (
        result.err
        == f"{tmp_path / 'joined.jsonl'}: 13 rows of {number_of(count, 'shard')}, 2 of them failed\n"
    )
    assert (tmp_path / "joined.jsonl").read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "options",
    [
        ["--where", "id % 3"],
        ["--sample", "7"],
        ["--where", "id != 4", "--sample", "8", "-n", "2"],
        ["--dedupe"],
    ],
    ids=" ".join,
)
def test_so_do_those_of_a_choice(shards: Shards, options: list[str], tmp_path: Path) -> None:
    whole = shards.make(None, *options)
    assert shards.join(*shards(3, *options)).status == 0
    assert (tmp_path / "joined.jsonl").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("joined", [".jsonl", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("made", [".jsonl", ".csv", ".parquet"])
def test_they_may_be_joined_in_another_format(shards: Shards, made: str, joined: str, tmp_path: Path) -> None:
    whole = shards.make(None, suffix=joined)
    result = shards.join(*shards(4, suffix=made), output=f"joined{joined}")
    assert result.status == 0, result.err
    found = tmp_path / f"joined{joined}"
    if made in (joined, ".jsonl"):
        _check_equal(found, whole)
    if joined == ".jsonl":  # a format may have kept less of the input's columns, and the results are whole
        names = ["generations", "statistics", "finish_reasons", "model_name", "error"]
        results = [[[row[name] for name in names] for row in read_rows(path)] for path in (found, whole)]
        assert results[0] == results[1]


def _check_equal(one: Path, other: Path) -> None:
    if one.suffix == ".parquet":
        parquet: Any = pytest.importorskip("pyarrow.parquet")
        tables = parquet.read_table(one), parquet.read_table(other)
        assert tables[0].schema == tables[1].schema
        assert tables[0].equals(tables[1])
    else:
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(
    "options",
    [
        ["--text"],
        ["--output-prefix", "new_"],
        ["--expand", "--text", "--output-prefix", "x_"],
        ["--expand", "--schema", "{schema}"],
        ["--format", "openai-batch"],
        ["--row-params"],
    ],
    ids=" ".join,
)
def test_they_are_joined_as_they_were_written(
    shards: Shards, options: list[str], suffix: str, tmp_path: Path
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "string"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    answers = [{"a": number, "b": "é,\n"} for number in range(3)]
    rows = [{"id": number, "prompt": json.dumps(answers[number % 3])} for number in range(7)]
    write_rows(shards.source, [*rows, {"id": 8, "prompt": "no object", "late": "x"}])
    options = [str(tmp_path / "schema.json") if option == "{schema}" else option for option in options]
    whole = shards.make(None, *options, suffix=suffix)
    result = shards.join(*shards(3, *options, suffix=suffix), output=f"joined{suffix}")
    assert result.status == 0, result.err
    if options[0] != "--format":  # which has the time in each line
        _check_equal(tmp_path / f"joined{suffix}", whole)
    else:
        ids = [
            [row["custom_id"] for row in read_rows(path)] for path in (whole, tmp_path / f"joined{suffix}")
        ]
        assert ids[0] == ids[1] == [str(number) for number in range(1, 9)]


def test_shards_that_are_written_otherwise_are_refused(shards: Shards, tmp_path: Path) -> None:
    first, other = shards.make("1/2"), shards.make("2/2", "--text")
    refused(shards.join(first, other), tmp_path, "output.text: null, and true")
    formats = shards.make("1/3"), shards.make("2/3", suffix=".csv"), shards.make("3/3", "--format", "tsv")
    assert shards.join(*formats).status == 0  # in any formats


def test_a_column_of_several_types_is_text_once(shards: Shards, tmp_path: Path) -> None:
    """Where each shard alone has a type, and all together have none."""
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    rows = [{"prompt": "a", "odd": {"x": 1}}, {"prompt": "b", "odd": "text"}, {"prompt": "c", "odd": [1]}]
    write_rows(shards.source, rows * 2)
    whole = shards.make(None, suffix=".parquet")
    assert shards.join(*shards(3, suffix=".parquet"), output="joined.parquet").status == 0
    assert parquet.read_table(tmp_path / "joined.parquet").equals(parquet.read_table(whole))


def refused(result: Result, folder: Path, told: str) -> None:
    assert result.status == 1, result.err
    assert told in result.err, result.err
    assert "\n  try  " in result.err
    assert "Traceback" not in result.err
    assert not (folder / "joined.jsonl").exists()
    assert not list(folder.glob("*.partial"))


def test_one_that_is_missing_is_named(shards: Shards, tmp_path: Path) -> None:
    parts = shards(4)
    refused(shards.join(parts[0], parts[2], parts[3]), tmp_path, "1 shard is missing: 2/4")
    refused(shards.join(parts[0]), tmp_path, "3 shards are missing: 2/4, 3/4, 4/4")
    assert shards.join(*parts).status == 0


def test_one_that_is_given_twice_is_named(shards: Shards, tmp_path: Path) -> None:
    parts = shards(2)
    refused(shards.join(*parts, parts[0]), tmp_path, "are both shard 1/2")
    again = shards.make("1/2", name="again")
    refused(shards.join(again, *parts), tmp_path, "are both shard 1/2")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-n", "2"], "num_generations: 1, and 2"),
        (["--where", "id > 3"], 'where: null, and "id > 3"'),
        (["--system", "be brief"], 'system: null, and "be brief"'),
        (["--set", "failure_rate=1.0"], "llm.failure_rate: 0.0, and 1.0"),
    ],
)
def test_one_of_another_run_is_refused_with_the_difference(
    shards: Shards, tmp_path: Path, options: list[str], told: str
) -> None:
    first, other = shards.make("1/2"), shards.make("2/2", *options)
    refused(shards.join(first, other), tmp_path, told)


def test_one_of_another_input_or_count_is_refused(shards: Shards, tmp_path: Path) -> None:
    first, third = shards.make("1/2"), shards.make("2/3")
    refused(shards.join(first, third), tmp_path, "shard: 2, and 3")
    write_rows(shards.source, ROWS[:5])
    refused(shards.join(first, shards.make("2/2")), tmp_path, "input: they were made of different ones")


def test_one_that_is_not_complete_is_refused(shards: Shards, tmp_path: Path) -> None:
    first, second = shards.make("1/2"), shards.make("2/2", "--limit", 2)
    refused(shards.join(first, second), tmp_path, "2-of-2.jsonl cannot be joined: it has only its first rows")
    shards.make("2/2")
    second.unlink()
    refused(shards.join(first, second), tmp_path, "is not there")
    shards.make("2/2")
    assert shards.join(first, second).status == 0


def test_one_that_was_changed_is_refused(shards: Shards, tmp_path: Path) -> None:
    parts = shards(2)
    with parts[1].open("a") as stream:
        stream.write("{}\n")
    refused(shards.join(*parts), tmp_path, "was changed after its run wrote it")


def test_what_is_no_shard_is_refused(shards: Shards, tmp_path: Path) -> None:
    whole = shards.make(None)
    refused(shards.join(whole), tmp_path, "is the output of a run that is no shard")
    refused(shards.join(shards.source), tmp_path, "has no state beside it")
    refused(shards.join(tmp_path / "nothing.jsonl"), tmp_path, "has no state beside it")


def test_nothing_is_overwritten(shards: Shards, tmp_path: Path) -> None:
    parts = shards(2)
    (tmp_path / "mine.jsonl").write_text("mine\n")
    for output in ("mine.jsonl", "rows.jsonl", parts[0].name, f"{parts[0].name}.run.db"):
        before = (tmp_path / output).read_bytes()
        result = shards.join(*parts, output=output)
        assert result.status == 1, output
        assert (tmp_path / output).read_bytes() == before
    assert shards.join(*parts).status == 0
    assert "already exists" in shards.join(*parts).err
    assert shards.run("join", *parts, "-o", tmp_path / "missing" / "x.jsonl").status == 1
    assert shards.run("join", *parts).status == 2
    assert shards.run("join", "-o", tmp_path / "x.jsonl").status == 2


def test_shards_of_several_machines_may_have_one_name(shards: Shards, tmp_path: Path) -> None:
    whole = shards.make(None)
    parts = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        parts.append(shards.make(f"{number}/2", name=f"{number}/out"))
    shutil.copytree(tmp_path / "1", tmp_path / "copy")  # with other times
    assert shards.join(tmp_path / "copy" / "out.jsonl", parts[1]).status == 0
    assert (tmp_path / "joined.jsonl").read_bytes() == whole.read_bytes()


def test_a_damaged_state_is_refused(shards: Shards, tmp_path: Path) -> None:
    parts = shards(2)
    state = Path(f"{parts[0]}.run.db")
    content = bytearray(state.read_bytes())
    place = content.index(json.dumps(["row 0"]).encode())
    content[place + 2 : place + 5] = b"ROW"
    state.write_bytes(content)
    refused(shards.join(*parts), tmp_path, "is damaged")


def test_states_may_be_elsewhere(shards: Shards, tmp_path: Path) -> None:
    whole = shards.make(None)
    (tmp_path / "states").mkdir()
    states = [tmp_path / "states" / f"{number}.db" for number in (1, 2)]
    parts = [shards.make(f"{number}/3", "--state", states[number - 1]) for number in (1, 2)]
    parts.append(shards.make("3/3"))
    options = [text for state in reversed(states) for text in ("--state", state)]
    result = shards.run("join", *parts, *options, "-o", tmp_path / "joined.jsonl")
    assert result.status == 0, result.err
    assert (tmp_path / "joined.jsonl").read_bytes() == whole.read_bytes()
    # An output and a state that were moved, each to another place, belong together by what they hold.
    moved = shutil.move(parts[0], tmp_path / "states" / "moved.jsonl")
    result = shards.run("join", moved, *parts[1:], *options, "-o", tmp_path / "again.jsonl")
    assert result.status == 0, result.err


def test_states_that_do_not_go_with_the_shards(shards: Shards, tmp_path: Path) -> None:
    one, other = shards.make("1/2", "--state", tmp_path / "one.db"), shards.make("2/2")
    result = shards.join(one, other)
    assert (result.status, f"{one} has no state beside it" in result.err) == (1, True), result.err
    assert "give the state of its run with --state PATH" in result.err
    shards.make("1/3", "--state", tmp_path / "odd.db")
    result = shards.run("join", one, other, "--state", tmp_path / "odd.db", "-o", tmp_path / "x.jsonl")
    assert "none of those given wrote it" in result.err
    both = ["--state", tmp_path / "odd.db", "--state", tmp_path / "one.db"]
    result = shards.run("join", one, other, *both, "-o", tmp_path / "x.jsonl")
    assert f"{tmp_path / 'odd.db'} is the state of none of the shards" in result.err
    result = shards.run("join", one, other, "--state", tmp_path / "none.db", "-o", tmp_path / "x.jsonl")
    assert result.status == 1
    assert not (tmp_path / "x.jsonl").exists()
