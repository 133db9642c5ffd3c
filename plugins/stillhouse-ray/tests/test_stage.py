"""`GenerateStage`: called with batches of each format, and as a stage of a job of Ray Data."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import gc
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from stillhouse import ConfigurationError, GenerationError, UnknownLLMError
from stillhouse_ray import GenerateStage

sys.path.append(str(Path(__file__).parent))
from stage_llms import MAX_CHARACTERS, PNG, ObeyingLLM, ReadingLLM, digest_of

np = pytest.importorskip("numpy", reason="numpy is missing: pip install 'stillhouse-ray[data]'")
pd = pytest.importorskip("pandas", reason="pandas is missing: pip install 'stillhouse-ray[data]'")
pa = pytest.importorskip("pyarrow", reason="pyarrow is missing: pip install 'stillhouse-ray[data]'")

HERE = Path(__file__).parent
FORMATS = ("numpy", "pandas", "pyarrow")
ADDED = ["generations", "statistics", "finish_reasons", "model_name", "error"]


def array(values: list[Any]) -> Any:
    column = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        column[place] = value
    return column


def batch(format: str, **columns: list[Any]) -> Any:
    """A batch in one of the formats, as Ray Data makes it from a table."""
    if format == "pyarrow":
        return pa.table(columns)
    if format == "pandas":
        return pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype)
    return {name: array(values) for name, values in columns.items()}


def listed(found: Any) -> dict[str, list[Any]]:
    """The columns of a batch as lists, with `None` for what is missing."""
    if isinstance(found, pa.Table):
        columns: dict[str, list[Any]] = found.to_pydict()
        return columns
    if isinstance(found, pd.DataFrame):
        return {name: [None if value is pd.NA else value for value in found[name]] for name in found.columns}
    return {
        name: column.to_pylist() if isinstance(column, pa.Array) else [*column]
        for name, column in found.items()
    }


@pytest.mark.parametrize("format", FORMATS)
def test_a_batch_is_returned_in_its_format_with_the_added_columns(format: str) -> None:
    given = batch(format, id=[7, 5, 6], question=["a b", "c", "d"])
    stage = GenerateStage("echo", prompt_column="question", num_generations=2)
    returned = stage(given)
    assert type(returned) is type(given)
    found = listed(returned)
    assert [*found] == ["id", "question", *ADDED]
    assert found["id"] == [7, 5, 6]
    assert found["generations"] == [["a b"] * 2, ["c"] * 2, ["d"] * 2]
    assert found["model_name"] == ["echo"] * 3
    assert found["error"] == [None] * 3
    assert found["statistics"][0]["output_tokens"] == [2, 2]
    assert [*listed(given)] == ["id", "question"], "the batch itself was changed"


@pytest.mark.parametrize("format", FORMATS)
def test_failed_rows_have_their_errors(format: str) -> None:
    prompts = ["a", None, "x" * (MAX_CHARACTERS + 1), "b"]
    found = listed(GenerateStage(ObeyingLLM(), prompt_column="q")(batch(format, q=prompts)))
    assert found["generations"] == [["a!"], None, None, ["b!"]]
    assert found["error"] == [
        None,
        {"kind": "invalid_input", "message": "row 2 of the batch: its q is null"},
        {"kind": "context_length", "message": "the prompt is longer than the context"},
        None,
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_chats_are_lists_of_messages(format: str) -> None:
    chat = [
        {"role": "user", "content": "a", "mood": None},
        {"role": "assistant", "content": "b", "mood": "good"},
        {"role": "user", "content": "fields", "mood": None},
    ]
    given = batch(format, messages=[chat, None])
    if format == "numpy":  # Ray Data gives arrays where Arrow has lists
        given["messages"][0] = array(chat)
    found = listed(GenerateStage(ObeyingLLM())(given))
    # A message does not get the fields that only others have.
    assert found["generations"] == [["content role!"], None]
    assert found["error"][1]["message"] == "row 2 of the batch: its messages is null"


@pytest.mark.parametrize("format", FORMATS)
def test_a_template_reads_the_values_of_other_types(format: str) -> None:
    columns: dict[str, list[Any]] = {
        "count": [3, 4],
        "share": [0.5, None],
        "day": [datetime.date(2024, 1, 2)] * 2,
        "tags": [["x", "y"], []],
    }
    stage = GenerateStage("echo", template="{{ count }} {{ share }} {{ day }} {{ tags | join('+') }}")
    found = listed(stage(batch(format, **columns)))
    assert found["generations"] == [["3 0.5 2024-01-02 x+y"], None]
    assert "its share is null" in found["error"][1]["message"]


def test_values_of_numpy_are_read_as_those_of_python() -> None:
    columns = {
        "number": np.array([1, 2]),
        "share": np.array([0.5, float("nan")]),
        "moment": np.array(["2024-01-02T03:04:05", "NaT"], dtype="datetime64[ns]"),
        "flag": np.array([True, False]),
        "text": np.array(["a", "b"]),
        "grid": np.array([[1, 2], [3, 4]]),
    }
    stage = GenerateStage(
        "echo",
        template="{{ number }} {{ share | default('-') }} {{ moment | default('-') }} {{ flag }} {{ text }} {{ grid }}",
    )
    assert listed(stage(columns))["generations"] == [
        ["1 0.5 2024-01-02 03:04:05 true a [1, 2]"],
        ["2 - - false b [3, 4]"],
    ]


def test_a_frame_keeps_its_index_and_its_types() -> None:
    frame = pd.DataFrame({"prompt": ["a", None, float("nan")], "score": [1.5, 2.5, 3.5]}, index=[4, 4, 9])
    found = GenerateStage("echo")(frame)
    assert [*found.index] == [4, 4, 9]
    assert found["score"].dtype == frame["score"].dtype
    assert [*found["error"].isna()] == [True, False, False]


@pytest.mark.parametrize("format", FORMATS)
def test_the_types_are_the_same_without_any_failure_and_without_any_row(format: str) -> None:
    stage = GenerateStage(ObeyingLLM(), prompt_column="q")
    schemas = []
    for prompts in (["a", None], ["a"], [None], []):
        column: Any = prompts if format == "numpy" else pa.array(prompts, pa.string())
        found = stage(batch(format, q=column))
        if format == "pyarrow":
            table = found
        elif format == "pandas":
            table = pa.Table.from_pandas(found, preserve_index=False)
        else:
            table = pa.table({name: found[name] for name in ADDED})
        assert table.num_rows == len(prompts)
        schemas.append(table.select(ADDED).schema.remove_metadata())
    assert schemas[1:] == schemas[:-1]
    assert not any(pa.types.is_null(type) for type in schemas[0].types)


SCHEMA = {"properties": {"name": {"type": "string"}, "share": {"type": "number"}, "tags": {"type": "array"}}}


@pytest.mark.parametrize("format", FORMATS)
def test_the_fields_of_a_schema_are_columns(format: str) -> None:
    stage = GenerateStage(ReadingLLM(), prompt_column="q", schema=SCHEMA, expand=True, output_prefix="a_")
    answers = ['{"name": "A", "share": 1, "tags": ["x", 2], "other": 3}', '{"name": "B"}', "none", None]
    found = listed(stage(batch(format, q=answers, name=["mine"] * 4)))
    assert [*found][:2] == ["q", "name"]
    assert [*found][2:] == [f"a_{name}" for name in (*ADDED, "name", "share", "tags")]
    assert found["name"] == ["mine"] * 4
    assert found["a_generations"][:3] == [[answer] for answer in answers[:3]]
    assert found["a_name"] == ["A", "B", None, None]
    assert found["a_share"] == [1.0, None, None, None]
    assert found["a_tags"] == ['["x", 2]', None, None, None]
    # A later batch without any of them has the same columns.
    assert [*listed(stage(batch(format, q=["none"], name=["mine"])))] == [*found]


def test_fields_are_columns_only_by_a_schema() -> None:
    for schema in (None, {"type": "object"}):
        with pytest.raises(ConfigurationError, match="expand=True requires a JSON schema with properties"):
            GenerateStage(ReadingLLM(), expand=True, schema=schema)


@pytest.mark.parametrize("format", FORMATS)
def test_images_are_read_from_allowed_folders(format: str, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    for path in (allowed / "a.png", tmp_path / "b.png"):
        path.write_bytes(PNG)
    given = batch(format, q=["first", "second", "third"], image=["a.png", "../b.png", "c.png"])
    stage = GenerateStage(ReadingLLM(), prompt_column="q", image_column="image", images_from=allowed)
    found = listed(stage(given))
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert found["generations"] == [[f"{digest_of(url)} first"], None, None]
    assert [error and error["kind"] for error in found["error"]] == [None, "invalid_input", "invalid_input"]
    bytes_of = batch(format, q=["first"], image=[PNG])
    assert listed(stage(bytes_of))["generations"] == found["generations"][:1]


def test_an_empty_batch_of_arrays_gets_the_columns() -> None:
    assert [*GenerateStage("echo")({"prompt": array([])})] == ["prompt", *ADDED]


@pytest.mark.parametrize("format", FORMATS)
def test_a_column_that_is_missing_is_named(format: str) -> None:
    stage = GenerateStage("echo", prompt_column="question")
    with pytest.raises(ConfigurationError, match="no column question") as raised:
        stage(batch(format, questions=["a"]))
    assert "questions" in raised.value.hint


@pytest.mark.parametrize("format", FORMATS)
def test_a_prompt_of_another_type_fails_its_row_with_the_name_of_the_column(format: str) -> None:
    found = listed(GenerateStage("echo", prompt_column="q")(batch(format, q=[3, 4])))
    assert [error["message"] for error in found["error"]] == [
        f"row {number} of the batch: the column q is a number, not a text" for number in (1, 2)
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_a_column_of_the_batch_is_not_replaced(format: str) -> None:
    given = batch(format, prompt=["a"], error=["mine"])
    with pytest.raises(ConfigurationError, match="has a column error"):
        GenerateStage("echo")(given)
    found = listed(GenerateStage("echo", output_prefix="new_", text=True)(given))
    assert found["error"] == ["mine"]
    assert found["new_generations"] == ["a"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 2], "a batch of the type list"),
        ("text", "a batch of the type str"),
        ({"prompt": ["a"], "id": [1, 2]}, "the column id of the batch has 2 values, the first one 1"),
        ({"prompt": "abc"}, "the column prompt of the batch is of the type str"),
        ({"prompt": ["a"], "id": 3}, "the column id of the batch is of the type int"),
        ({3: ["a"]}, "a column whose name is 3"),
        (pa.table([["a"], ["b"]], names=["prompt", "prompt"]), "2 columns with the name prompt"),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        GenerateStage("echo")(given)
    assert raised.value.hint


def test_an_error_that_every_row_would_meet_is_raised() -> None:
    with pytest.raises(GenerationError) as raised:
        GenerateStage(ObeyingLLM())({"prompt": ["a", "refuse"]})
    assert raised.value.kind == "authentication"
    assert raised.value.hint == "set OBEYING_API_KEY"


def test_a_stage_that_cannot_begin_raises_in_its_constructor() -> None:
    with pytest.raises(ConfigurationError, match="no such model"):
        GenerateStage(ObeyingLLM(fails_loading=True))
    with pytest.raises(UnknownLLMError):
        GenerateStage("no-such-backend")
    with pytest.raises(ConfigurationError, match="temprature"):
        GenerateStage(ObeyingLLM(), temprature=0.5)
    with pytest.raises(ConfigurationError, match="runs in actors"):
        GenerateStage("echo", executor="ray:auto")


def test_the_llm_is_loaded_once_and_unloaded_with_the_stage(tmp_path: Path) -> None:
    llm = ObeyingLLM(folder=str(tmp_path))
    stage = GenerateStage(pickle.loads(pickle.dumps(llm)))
    for _ in range(3):
        stage({"prompt": ["a"]})
    assert [path.name for path in tmp_path.glob("*loaded-*")] == [f"loaded-{os.getpid()}"]
    del stage
    gc.collect()
    assert {path.name: path.read_text() for path in tmp_path.glob("*loaded-*")} == {
        f"loaded-{os.getpid()}": "once\n",
        f"unloaded-{os.getpid()}": "once\n",
    }


def test_the_stage_works_inside_an_event_loop() -> None:
    async def main() -> Any:
        return GenerateStage("echo")({"prompt": ["a"]})

    assert listed(asyncio.run(main()))["generations"] == [["a"]]


def test_no_secret_is_shown() -> None:
    secret = "sk-a-secret"
    llm = ObeyingLLM(api_key=SecretStr(secret))
    stage = GenerateStage(llm)
    assert repr(stage) == "<GenerateStage ObeyingLLM obeying>"
    # What Ray Data shows of arguments.
    assert secret not in repr({"llm": llm}) + str(llm)


def test_the_plugin_imports_no_stage() -> None:
    code = "import stillhouse_ray, sys; assert not {'stillhouse_ray.stage', 'ray'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# A job of Ray Data.


JOBS = ("odd_rows", "killed_actor", "orders", "typed_columns", "expanded", "refused_key")

Inside = Callable[..., subprocess.CompletedProcess[str]]


@contextlib.contextmanager
def job_of(inside: Inside, *names: str) -> Iterator[Path]:
    """The folder with the results of functions of `stage_job.py`, which ran in a network of its own."""
    pytest.importorskip("ray.data", reason="Ray Data is missing: pip install 'stillhouse-ray[data]'")
    # Sockets need short paths.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as name:
        ended = inside(
            HERE / "stage_job.py",
            name,
            *names,
            HOME=name,
            RAY_AUTH_MODE="disabled",
            RAY_enable_export_api_write="1",  # writes the arguments of stages
        )
        (Path(name) / "output.txt").write_text(ended.stdout + ended.stderr, encoding="utf-8")
        yield Path(name)


@pytest.fixture(scope="module")
def job(inside: Inside) -> Iterator[Path]:
    with job_of(inside, *JOBS) as folder:
        yield folder


def result(job: Path, name: str) -> Any:
    path = job / f"{name}.json"
    if not path.exists():
        pytest.fail(
            f"the job ended before {name}:\n{(job / 'output.txt').read_text(errors='replace')[-4000:]}"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_job_keeps_failures_by_row(job: Path) -> None:
    rows = result(job, "odd_rows")
    assert [row["id"] for row in rows] == [*range(200)]
    failed = {row["id"]: row["error"] for row in rows if row["error"]}
    assert {number: error["kind"] for number, error in failed.items()} == {
        100: "context_length",
        180: "server",
    }
    assert "died" in failed[180]["message"]
    assert all(row["generations"] == [f"{row['question']}!"] for row in rows if not row["error"])
    asked = Counter((job / "asking/asked").read_text(encoding="utf-8").split())
    # The deaths are those of one batch.
    assert {asked[row["question"]] for row in rows if row["id"] not in range(175, 200)} == {1}


@pytest.mark.soak
def test_a_job_survives_several_rows_that_end_their_process(inside: Inside) -> None:
    with job_of(inside, "dying_rows") as folder:
        rows = result(folder, "dying_rows")
    assert [row["id"] for row in rows] == [*range(100)]
    assert [row["id"] for row in rows if row["error"]] == [20, 50, 80]
    assert {row["error"]["kind"] for row in rows if row["error"]} == {"server"}
    assert all(row["generations"] == ["q!"] for row in rows if not row["error"])


def test_a_job_whose_actor_is_killed_loses_no_row(job: Path) -> None:
    rows = result(job, "killed_actor")
    assert (job / "killing/killed").exists()
    assert [row["id"] for row in rows] == [*range(200)]
    assert [row["generations"] for row in rows] == [[f"{row['question']}!"] for row in rows]
    asked = Counter((job / "killing/asked").read_text(encoding="utf-8").splitlines())
    assert all(count <= 2 for count in asked.values())  # those that the actor had may be generated again


def test_no_row_is_lost_and_the_order_is_kept_where_it_is_promised(job: Path) -> None:
    check_orders(result(job, "orders"), 3)
    files = {path.name: path.read_text() for path in (job / "loads").glob("*loaded-*")}
    assert set(files.values()) == {"once\n"}
    assert len([name for name in files if name.startswith("loaded-")]) == 2  # one for each actor


@pytest.mark.soak
def test_no_row_is_lost_with_any_number_of_actors(inside: Inside) -> None:
    with job_of(inside, "other_orders") as folder:
        check_orders(result(folder, "other_orders"), 5)


def check_orders(found: dict[str, Any], count: int) -> None:
    assert len(found) == count
    for name, rows in found.items():
        order = [row["id"] for row in rows]
        assert (order if name.startswith("True") else sorted(order)) == [*range(10)], name
        assert all(row["generations"] == [f"{row['question']}!"] for row in rows), name


@pytest.mark.parametrize("format", ["numpy", "pandas"])
def test_each_block_and_file_of_a_job_has_the_same_types(job: Path, format: str) -> None:
    found = result(job, "typed_columns")[format]
    (types,) = {json.dumps(types) for types in found["blocks"]}
    assert json.loads(types)["error"] == "struct<kind: string, message: string>"
    assert len(found["blocks"]) == len(found["files"]) == 4
    # Parquet has another name for the items of a list.
    assert {json.dumps(types).replace("<element: ", "<item: ") for types in found["files"]} == {types}
    assert found["schema"] == json.loads(types)
    kinds = ["context_length" if number in (7, *range(15, 20)) else None for number in range(20)]
    assert found["errors"] == kinds
    assert found["rows"] == 20


def test_the_fields_of_a_schema_are_columns_of_each_block(job: Path) -> None:
    found = result(job, "expanded")
    (types,) = {json.dumps(types) for types in found["blocks"]}
    assert [*json.loads(types)] == ["id", "question", *ADDED, "name", "age", "more"]
    assert {name: json.loads(types)[name] for name in ("name", "age", "more")} == {
        "name": "string",
        "age": "int64",
        "more": "string",
    }
    values = [("A", 3, '[1, "x"]')] * 2 + [("B", None, None)] * 2 + [(None, None, None)] * 4
    assert found["rows"] == [
        {"id": number, "name": name, "age": age, "more": more}
        for number, (name, age, more) in enumerate(values)
    ]


def test_a_job_ends_with_an_error_that_every_row_would_meet(job: Path) -> None:
    said = result(job, "refused_key")
    assert "the key was refused" in said
    assert "set OBEYING_API_KEY" in said


def test_a_job_writes_no_secret_anywhere(job: Path) -> None:
    result(job, "odd_rows")
    written = [path for path in job.rglob("*") if path.is_file() and not path.is_symlink()]
    texts = {path: path.read_bytes() for path in written}
    assert not [path for path, text in texts.items() if b"sk-a-secret-of-the-stage" in text]
    assert any(b"fn_constructor_kwargs" in text for text in texts.values()), "Ray wrote no arguments"
