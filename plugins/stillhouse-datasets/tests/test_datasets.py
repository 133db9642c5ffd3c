"""Datasets as source and target of `stillhouse generate`: saved ones, and folders of data files."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

import stillhouse
from stillhouse import ConfigurationError
from stillhouse_datasets import open_reader, open_writer, output_path

datasets.disable_progress_bars()


def saved(folder: Path, **columns: Any) -> Path:
    datasets.Dataset.from_dict(columns or {"prompt": ["one", "two"], "x": [1, 2]}).save_to_disk(str(folder))
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of data files with two splits."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    (folder / "test.jsonl").write_text('{"prompt": "three"}\n')
    return folder


def prompts(source: str) -> list[Any]:
    reader: Any = open_reader(source)
    return [row.columns["prompt"] for row in reader]


def test_a_second_pass_over_a_dataset_keeps_the_columns_of_the_first(run: Any, tmp_path: Path) -> None:
    """Those that the second one adds have their types, although every one of them is null."""
    source, first, second = saved(tmp_path / "in"), tmp_path / "first", tmp_path / "second"
    assert run("generate", f"datasets:{source}", "--llm", "echo", "-o", f"datasets:{first}").status == 0
    command = ["generate", f"datasets:{first}", "--llm", "echo", "-o", f"datasets:{second}"]
    refused = run(*command)
    assert (refused.status, "has columns generations, statistics" in refused.err) == (1, True), refused.err
    done = run(*command, "--output-prefix", "judge_", "--text", "--template", "{{ generations[0] }}")
    assert done.status == 0, done.err
    one, other = datasets.load_from_disk(str(first)), datasets.load_from_disk(str(second))
    assert other.column_names == [*one.column_names, *(f"judge_{name}" for name in one.column_names[2:])]
    assert {name: other.features[name] for name in one.features} == one.features
    assert other["judge_generations"][:] == ["one", "two"]
    assert other["judge_error"][:] == [None, None]
    assert {*other.features["judge_error"]} == {"kind", "message"}
    assert run(
        "generate", f"datasets:{first}", "--llm", "echo", "-o", f"datasets:{second}", "--format", "csv"
    ).status


def test_generate_from_one_dataset_to_another_keeps_the_features(run: Any, tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "prompt": datasets.Value("large_string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "small": datasets.Value("int8"),
            "tags": datasets.List(datasets.Value("string")),
        }
    )
    rows = {"prompt": ["one", "two"], "label": [1, 0], "small": [3, None], "tags": [["a"], []]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "in"))
    target = f"datasets:{tmp_path / 'out'}"
    result = run("generate", f"datasets:{tmp_path / 'in'}", "--llm", "echo", "-o", target)
    assert result.status == 0, result.err
    assert "Saving" not in result.err
    written = datasets.load_from_disk(str(tmp_path / "out"))
    assert {name: written.features[name] for name in features} == features
    assert written["generations"][:] == [["one"], ["two"]]
    assert written["label"][:] == [1, 0]
    assert written["statistics"][0] == {"input_tokens": [1], "output_tokens": [1]}
    assert written["error"][:] == [None, None]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith("lock")) == [
        "in", "out", "out.run.db",
    ]  # fmt: skip
    assert "2" in run("status", target).out
    again = run("generate", f"datasets:{tmp_path / 'in'}", "--llm", "echo", "-o", target)
    assert "is complete: 2 rows" in again.err
    refused = run("generate", f"datasets:{saved(tmp_path / 'other')}", "--llm", "echo", "-o", target)
    assert (refused.status, "1 of 2 rows" in refused.err or "2 of 2 rows" in refused.err) == (1, True)
    anew = run("generate", f"datasets:{tmp_path / 'other'}", "--llm", "echo", "-o", target, "--restart")
    assert anew.status == 0, anew.err
    assert datasets.load_from_disk(str(tmp_path / "out"))["x"][:] == [1, 2]


@pytest.mark.parametrize("streaming", ["", "&streaming=true"])
def test_a_folder_of_data_files(run: Any, files: Path, tmp_path: Path, streaming: str) -> None:
    output = tmp_path / "out.jsonl"
    source = f"datasets:{files}?split=train{streaming}"
    result = run("generate", source, "--llm", "echo", "-o", output)
    assert result.status == 0, result.err
    assert [json.loads(line)["generations"] for line in output.read_text().splitlines()] == [["one"], ["two"]]
    first = open_reader(source)
    assert first is not None
    assert first.digest() == open_reader(source).digest()  # type: ignore[union-attr]
    (files / "train.jsonl").write_text('{"prompt": "one"}\n{"prompt": "another"}\n')
    assert prompts(source) == ["one", "another"]
    refused = run("generate", source, "--llm", "echo", "-o", output)
    assert refused.status == 1
    assert "1 of 2 rows differs; the first is row 2" in refused.err


def test_splits_of_a_saved_dataset(tmp_path: Path) -> None:
    parts = {name: datasets.Dataset.from_dict({"prompt": [name]}) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "in"))
    assert prompts(f"datasets:{tmp_path / 'in'}?split=test") == ["test"]
    with pytest.raises(ConfigurationError, match="no split is chosen; it has train, test") as caught:
        open_reader(f"datasets:{tmp_path / 'in'}")
    assert caught.value.hint == f"give datasets:{tmp_path / 'in'}?split=train"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("datasets:", "does not name a dataset"),
        ("datasets:{files}", "no split is chosen; it has train, test"),
        ("datasets:{files}?split=nope", "train.*test"),
        ("datasets:{files}?split=nope&streaming=true", "train.*test"),
        ("datasets:{files}?splt=train", "there is no option splt"),
        ("datasets:{files}?streaming=yes", "streaming cannot be 'yes'"),
        ("datasets:{files}?split=", "split cannot be ''"),
        ("datasets:./nowhere", "there is no folder nowhere"),
        ("datasets:{saved}?split=train", "has no splits"),
        ("datasets:{saved}?streaming=true", "was saved to disk, and has no streaming"),
        ("datasets:owner/name", "datasets:owner/name cannot be read"),
        ("datasets:{empty}", "cannot be read"),
        ("datasets:{broken}", "cannot be read"),
    ],
)
def test_unreadable_source_is_one_error(
    run: Any, files: Path, tmp_path: Path, source: str, told: str
) -> None:
    (tmp_path / "empty").mkdir()
    (saved(tmp_path / "broken") / "data-00000-of-00001.arrow").write_bytes(b"no arrow")
    places = {"files": files, "saved": saved(tmp_path / "saved")}
    source = source.format(**places, empty=tmp_path / "empty", broken=tmp_path / "broken")
    result = run("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl")
    assert result.status == 1
    with pytest.raises(ConfigurationError, match=told) as caught:
        open_reader(source)
    assert str(caught.value).split("\n")[0] in result.err
    assert result.err.count("error: ") == 1, result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.glob("out*"))


def test_a_target_that_cannot_be_written(run: Any, tmp_path: Path) -> None:
    source = f"datasets:{saved(tmp_path / 'in')}"
    (tmp_path / "file").write_text("")
    for target, told in {
        f"{tmp_path}/file/out": "cannot be written",
        f"{tmp_path}/out?split=train": "a target has no options",
    }.items():
        result = run("generate", source, "--llm", "echo", "-o", f"datasets:{target}")
        assert result.status == 1
        assert told in result.err
    with pytest.raises(ConfigurationError, match="it is a file"):
        open_writer(f"datasets:{tmp_path / 'file'}", None, None)


def test_a_file_that_is_broken_further_on_ends_the_run(run: Any, files: Path, tmp_path: Path) -> None:
    (files / "train.jsonl").write_text('{"prompt": "one"}\n' * 3000 + "broken\n")
    source = f"datasets:{files}?split=train&streaming=true"
    result = run("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl")
    assert result.status == 1
    assert f"{source} cannot be read: " in result.err
    assert not (tmp_path / "out.jsonl").exists()


def test_arrow_types_that_datasets_does_not_support_are_converted(run: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    source = tmp_path / "in.parquet"
    kinds = pa.array(["x", "y"], pa.dictionary(pa.int8(), pa.string()))
    pairs = pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"prompt": ["one", "two"], "kind": kinds, "pairs": pairs}), source)
    assert run("generate", source, "--llm", "echo", "-o", f"datasets:{tmp_path / 'out'}").status == 0
    written = datasets.load_from_disk(str(tmp_path / "out"))
    assert written["kind"][:] == ["x", "y"]
    assert written["pairs"][:] == ['[["k",1]]', None]


def test_abandoned_writer_keeps_the_earlier_dataset(tmp_path: Path) -> None:
    saved(tmp_path / "out")
    writer: Any = open_writer(f"datasets:{tmp_path / 'out'}", None, None)
    writer.write({"prompt": "later"})
    writer.abandon()
    assert datasets.load_from_disk(str(tmp_path / "out"))["prompt"][:] == ["one", "two"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_hooks_ignore_sources_and_targets_without_the_datasets_prefix(tmp_path: Path) -> None:
    assert open_reader("rows.jsonl") is None
    assert open_writer("rows.jsonl", None, None) is None
    assert output_path("rows.jsonl") is None
    assert output_path("datasets:./out/") == Path("out")


def test_importing_the_hooks_imports_no_library() -> None:
    code = "import sys, stillhouse_datasets as s; s.open_reader('a'); sys.exit(bool({'datasets', 'pyarrow'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


MEMORY = """
import sys
import pyarrow as pa
import pyarrow.parquet
from stillhouse_datasets import open_reader, open_writer

reader = open_reader(sys.argv[1])
writer = open_writer(sys.argv[2], reader.schema, None)
for row in reader:
    writer.write(row.columns)
writer.finish()
print(pa.default_memory_pool().max_memory())
"""


def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    texts = [f"{number}" * 2_000 for number in range(15_000)]
    source, target = f"datasets:{saved(tmp_path / 'in', prompt=texts)}", f"datasets:{tmp_path / 'out'}"
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, source, target], stdout=subprocess.PIPE, check=True
    )
    assert len(datasets.load_from_disk(str(tmp_path / "out"))) == len(texts)
    assert sum(map(len, texts)) > 120 << 20
    assert int(result.stdout) < 60 << 20


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("surplus", ["sub/thesis.txt", "notes.txt", "cache-1.arrow", "state.json.bak"])
@pytest.mark.parametrize("is_dataset", [True, False])
def test_a_folder_with_anything_else_in_it_is_not_replaced(
    run: Any, tmp_path: Path, surplus: str, is_dataset: bool
) -> None:
    folder = tmp_path / "precious"
    if is_dataset:
        saved(folder)
    file = folder / surplus
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("years of work")
    before = contents(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    result = run("generate", tmp_path / "in.jsonl", "--llm", "echo", "-o", f"datasets:{folder}", "--restart")
    assert result.status == 1
    assert f"{folder} cannot be replaced: {surplus.split('/')[0]}" in result.err
    assert {name: contents(tmp_path).get(name) for name in before} == before


@pytest.mark.parametrize("kind", ["empty", "nothing listed", "no JSON", "list"])
def test_a_folder_that_only_looks_like_a_dataset(run: Any, tmp_path: Path, kind: str) -> None:
    """An empty folder is replaced; one whose `state.json` is the user's is not."""
    folder = tmp_path / "out"
    folder.mkdir()
    if kind != "empty":
        text = {"nothing listed": '{"mine": 1}', "no JSON": "mine", "list": "[]"}[kind]
        (folder / "state.json").write_text(text)
        (folder / "dataset_info.json").write_text("{}")
    before = contents(folder)
    source = f"datasets:{saved(tmp_path / 'in')}"
    result = run("generate", source, "--llm", "echo", "-o", f"datasets:{folder}", "--restart")
    assert result.status == (0 if kind == "empty" else 1)
    if before:
        assert contents(folder) == before


@pytest.mark.parametrize("limit", [(), ("--limit", 1)])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("datasets:mine", "datasets:mine"),
        ("datasets:mine", "datasets:./mine/"),
        ("datasets:mine", "datasets:link"),
        ("datasets:link", "datasets:mine"),
        ("datasets:mine/../mine", "datasets:mine"),
        ("datasets:mine?split=train", "datasets:mine"),
        ("datasets:mine.partial", "datasets:mine"),
        ("datasets:mine/train?split=train", "datasets:mine"),
        ("datasets:files", "datasets:files"),
        ("datasets:files", "files/out.jsonl"),
        ("datasets:files?split=train", "datasets:files/out"),
        ("files/train.jsonl", "datasets:files"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_target_that_contains_the_source_is_refused(
    run: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str,
    limit: tuple[Any, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (files / "test.jsonl").unlink()
    if "split" in source and "mine" in source:
        datasets.DatasetDict({"train": datasets.Dataset.from_dict({"prompt": ["a"]})}).save_to_disk("mine")
        if "/train" in source:
            datasets.DatasetDict({"train": datasets.Dataset.from_dict({"prompt": ["a"]})}).save_to_disk(
                "mine/train"
            )
    else:
        saved(tmp_path / "mine")
    saved(tmp_path / "mine.partial")
    (tmp_path / "link").symlink_to("mine")
    before = contents(tmp_path)
    result = run("generate", source, "--llm", "echo", "-o", target, "--restart", *limit)
    assert result.status == 1
    assert contents(tmp_path) == before, result.err
    assert (tmp_path / "link").is_symlink()


def test_a_partial_folder_of_the_users_is_left_alone(run: Any, tmp_path: Path) -> None:
    partial = tmp_path / "mine.partial"
    partial.mkdir()
    (partial / "keep.txt").write_text("data")
    result = run(
        "generate", f"datasets:{saved(tmp_path / 'in')}", "--llm", "echo", "-o", f"datasets:{tmp_path}/mine"
    )
    assert result.status == 1
    assert f"{partial} exists, and Stillhouse did not make it" in result.err
    assert contents(partial) == {"keep.txt": b"data"}
    assert not list(tmp_path.glob("mine.run*db"))


def test_a_process_that_ended_while_it_replaced_a_dataset(tmp_path: Path) -> None:
    """Between moving the earlier dataset away and the new one in: the next writer puts it back."""
    target = saved(tmp_path / "out")
    writer: Any = open_writer(f"datasets:{target}", None, None)
    target.rename(tmp_path / "out.partial" / "earlier")
    writer._spool.close()
    open_writer(f"datasets:{target}", None, None).abandon()  # type: ignore[union-attr]
    assert datasets.load_from_disk(str(target))["prompt"][:] == ["one", "two"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_came_into_the_folder_during_the_run_is_not_removed(tmp_path: Path) -> None:
    target = saved(tmp_path / "out")
    writer: Any = open_writer(f"datasets:{target}", None, None)
    writer.write({"prompt": "later"})
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="notes"):
        writer.finish()
    writer.abandon()
    assert (target / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "out.partial").exists()


@pytest.fixture
def generated(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset that a run wrote, of which a row is not there yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    result = run("generate", "in.jsonl", "--llm", "echo", "-o", "datasets:out", "--limit", 1)
    assert result.status == 0, result.err
    return tmp_path / "out"


def notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def another_dataset(folder: Path) -> None:
    shutil.rmtree(folder)
    saved(folder)


@pytest.mark.parametrize("edit", [notes, another_dataset])
def test_dataset_that_was_changed_since_the_run_wrote_it_is_not_replaced(
    run: Any, generated: Path, edit: Any
) -> None:
    edit(generated)
    before = contents(generated)
    result = run("generate", "in.jsonl", "--llm", "echo", "-o", "datasets:out")
    assert (result.status, contents(generated)) == (1, before)
    generated.rename(generated.with_name("mine"))
    assert run("generate", "in.jsonl", "--llm", "echo", "-o", "datasets:out").status == 0
    assert len(datasets.load_from_disk(str(generated))) == 2


def test_dataset_that_the_run_wrote_is_replaced(run: Any, generated: Path) -> None:
    assert run("generate", "in.jsonl", "--llm", "echo", "-o", "datasets:out").status == 0
    assert len(datasets.load_from_disk(str(generated))) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_link_to_a_dataset_on_another_disk_stays_one(run: Any, generated: Path) -> None:
    disk = generated.with_name("disk")
    disk.mkdir()
    link = generated.with_name("link")
    link.symlink_to(disk / "answers")
    for limit in (("--limit", 1), ()):
        result = run("generate", "in.jsonl", "--llm", "echo", "-o", "datasets:link", *limit)
        assert result.status == 0, result.err
    assert link.readlink() == disk / "answers"
    assert len(datasets.load_from_disk(str(disk / "answers"))) == 2
    assert run("status", "datasets:link").status == 0


@pytest.mark.parametrize("target", ["missing/out", "file/out", "~nobody-here/out", "pipe", "."])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_refused_target_leaves_everything_as_it_was(run: Any, generated: Path, target: str) -> None:
    folder = generated.parent
    (folder / "file").write_text("mine")
    os.mkfifo(folder / "pipe")
    before = contents(folder), sorted(folder.rglob("*"))
    result = run("generate", "in.jsonl", "--llm", "echo", "-o", f"datasets:{target}", "--restart")
    assert result.status == 1
    assert "Traceback" not in result.err
    assert (contents(folder), sorted(folder.rglob("*"))) == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"splits": 1}'])
def test_saved_splits_that_cannot_be_read_are_one_error(run: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "dataset_dict.json").write_text(text)
    result = run("generate", f"datasets:{tmp_path / 'in'}", "--llm", "echo", "-o", tmp_path / "out.jsonl")
    assert (result.status, "cannot be read" in result.err) == (1, True), result.err
    assert "Traceback" not in result.err


def test_a_dataset_is_an_input_in_python_and_keeps_its_types(tmp_path: Path) -> None:
    columns = {"prompt": ["a", "b", "c"], "when": [datetime.datetime(2026, 1, day) for day in (1, 2, 3)]}
    dataset = datasets.Dataset.from_dict(columns).select([2, 0])
    first = stillhouse.run(dataset, llm="echo", output=tmp_path / "out.parquet")
    assert [row["generations"] for row in first] == [["c"], ["a"]]
    assert pa.types.is_timestamp(pa.parquet.read_schema(tmp_path / "out.parquet").field("when").type)
    again = stillhouse.run(dataset.to_iterable_dataset(), llm="echo", output=tmp_path / "out.parquet")
    assert list(again) == list(first)
