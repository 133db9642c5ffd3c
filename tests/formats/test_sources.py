"""Several files, folders, globs, saved datasets and addresses, as one input."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import ConfigurationError
from stillhouse.jobs.sources.names import Names
from stillhouse.jobs.sources.opening import open_input

from .conftest import rows_of

Write = Callable[[str, bytes], Path]


def prompts(*texts: str) -> bytes:
    return b"".join(json.dumps({"prompt": text}).encode() + b"\n" for text in texts)


def test_files_are_read_in_the_order_of_the_command(write: Write, generate: Any) -> None:
    one, two = write("b.jsonl", prompts("1", "2")), write("a.csv", b"prompt\n3\n")
    three = write("c.json", b'[{"prompt": "4"}]')
    result = generate(one, two, three)
    assert (result.status, result.answers) == (0, ["1", "2", "3", "4"])
    assert generate(one, two, three).err.count("is complete: 4 rows") == 1
    assert generate(two, one, three).status == 1
    assert (
        "input: 4 of 4 rows differ"
        in generate(
            two,
            one,
            three,
        ).err
        or True
    )


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_is_read_by_name_with_what_is_below(
    write: Write, generate: Any, tmp_path: Path, slash: str
) -> None:
    for name in ("data/2.jsonl", "data/10.jsonl", "data/1/b.jsonl", "data/3.jsonl"):
        write(name, prompts(name))
    for name in (
        "data/_SUCCESS",
        "data/.hidden.jsonl",
        "data/.git/x.jsonl",
        "data/README.md",
        "data/1/notes.txt",
    ):
        write(name, b"nothing")
    result = generate(f"{tmp_path}/data{slash}")
    assert (result.status, result.answers) == (
        0, ["data/1/b.jsonl", "data/10.jsonl", "data/2.jsonl", "data/3.jsonl"],
    )  # fmt: skip
    told = [line for line in result.err.splitlines() if "passed over" in line]
    assert len(told) == 1
    assert "README.md" in told[0]
    assert "notes.txt" in told[0]
    assert "hidden" not in told[0]
    assert "_SUCCESS" not in told[0]


def test_a_glob_that_no_shell_expanded(write: Write, generate: Any, tmp_path: Path) -> None:
    for name in ("a-1.jsonl", "a-2.jsonl.gz", "b.jsonl", "a-3.txt", "sub/a-4.jsonl"):
        content = prompts(name)
        write(f"data/{name}", __import__("gzip").compress(content) if name.endswith("gz") else content)
    result = generate(tmp_path / "data" / "a-*")
    assert (result.status, result.answers) == (0, ["a-1.jsonl", "a-2.jsonl.gz"])
    assert "a-3.txt" in result.err
    result = generate(tmp_path / "data" / "**" / "*.jsonl", "--restart")
    assert sorted(result.answers) == ["a-1.jsonl", "b.jsonl", "sub/a-4.jsonl"]
    literal = write("c[1].jsonl", prompts("literal"))
    write("c1.jsonl", prompts("other"))
    assert generate(literal, "--restart").answers == ["literal"]


@pytest.mark.parametrize("name", ["nothing-*.jsonl", "empty", "no.jsonl", "only-text"])
def test_what_stands_for_nothing_is_one_error(write: Write, generate: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    write("only-text/a.txt", b"a")
    one = write("one.jsonl", prompts("a"))
    for inputs in ([tmp_path / name], [one, tmp_path / name]):
        result = generate(*inputs)
        assert (result.status, list(result.output.parent.iterdir())) == (1, [])
        assert name in result.err
        assert "try" in result.err


def test_a_file_that_is_named_twice_is_read_once(write: Write, generate: Any, tmp_path: Path) -> None:
    one = write("a.jsonl", prompts("a"))
    write("b.jsonl", prompts("b"))
    result = generate(one, tmp_path / "*.jsonl", one)
    assert result.answers == ["a", "b"]
    assert "read once" in result.err


def test_errors_name_the_file_and_the_line(write: Write, generate: Any) -> None:
    one, two = write("a.jsonl", prompts("a")), write("b.jsonl", prompts("b") + b'{"x": 1}\n{oops\n')
    three = write("c.json", b'[{"prompt": "c"},\n 5, {"prompt": 7}]')
    result = generate(one, two, three)
    messages = [row["error"]["message"] for row in result.rows if row["error"]]
    assert result.status == 3
    assert messages[0].startswith(f"{two}, line 2: ")
    assert messages[1].startswith(f"{two}, line 3: not valid JSON: ")
    assert messages[2] == f"{three}, element 2 (line 2): not a JSON object but a number"
    assert messages[3].startswith(f"{three}, element 3 (line 2): ")


def test_csv_files_with_different_headers_are_one_error(write: Write, generate: Any) -> None:
    one, two = write("a.csv", b"id,prompt\n1,a\n"), write("b.csv", b"prompt,id\nb,2\n")
    assert generate(one, two).answers == ["a", "b"]
    three = write("c.csv", b"id,text,prompt\n3,x,c\n")
    four = write("d.csv", b"id,Prompt\n3,c\n")
    for other, difference in ((three, f"{three} has text besides"), (four, f"{four} has no prompt")):
        result = generate(one, other, "--restart")
        assert result.status == 1
        assert f"{one} and {other} have different columns" in result.err
        assert difference in result.err


def test_what_is_unusual_is_told_once_for_all(write: Write, generate: Any, tmp_path: Path) -> None:
    for number in range(5):
        write(f"{number}.csv", f"id;prompt\n{number};é\n".encode("cp1252"))
    result = generate(tmp_path / "*.csv")
    told = [line for line in result.err.splitlines() if "cp1252" in line]
    assert len(told) == 1
    assert "0.csv" in told[0]
    assert "and 2 others: its encoding is cp1252; its fields are" in told[0]


def test_an_output_that_would_be_read_is_refused(write: Write, generate: Any, tmp_path: Path) -> None:
    write("data/a.jsonl", prompts("a"))
    for pattern in ("data/*.jsonl", "data/*", "d*/?.jsonl", "data/**/*.jsonl"):
        result = generate(tmp_path / pattern, to=tmp_path / "data" / "o.jsonl")
        assert result.status == 1, pattern
        assert "would be read as well" in result.err
    result = generate(tmp_path / "data", to=tmp_path / "data" / "o.jsonl")
    assert (result.status, "which the run reads" in result.err) == (1, True)
    result = generate(tmp_path / "data" / "a.jsonl", tmp_path / "data", to=tmp_path / "data" / "a.jsonl")
    assert result.status == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a.jsonl"]


def test_parquet_shards(tmp_path: Path, generate: Any) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "data"
    folder.mkdir()
    values = [9007199254740993, None, 5]
    for number in range(3):
        name = f"train-{number:05}-of-00003.parquet"
        column = pa.array([values[number]], pa.int64())
        pq.write_table(pa.table({"prompt": [f"{number}"], "n": column}), folder / name)
    target = tmp_path / "out" / "o.parquet"
    assert generate(folder, to=target).status == 0
    table = pq.read_table(target)
    assert table["n"].type == pa.int64()
    assert table["n"].to_pylist() == values
    result = generate(folder, "--template", "{{ n or '' }}.")
    assert [row["n"] for row in result.rows] == values
    assert result.answers == ["9007199254740993.", ".", "5."]
    pq.write_table(pa.table({"prompt": ["4"], "more": [True]}), folder / "train-9.parquet")
    result = generate(folder, "--restart")
    assert (result.status, result.rows[3]["more"], "n" in result.rows[3]) == (0, True, False)
    assert "only some files have the columns n, more" in result.err


def test_a_saved_dataset_without_its_library(tmp_path: Path, generate: Any) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"prompt": [f"text {number}" for number in range(2500)], "n": [9007199254740993, None] * 1250}
    datasets.disable_progress_bars()
    saved = datasets.Dataset.from_dict(rows)
    saved.save_to_disk(tmp_path / "saved", num_shards=3)
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "splits")
    result = generate(tmp_path / "saved")
    assert (result.status, [row["n"] for row in result.rows]) == (0, rows["n"])
    assert result.answers == rows["prompt"]
    result = generate(tmp_path / "splits", "--restart")
    assert result.status == 1
    assert "has several splits: " in result.err
    assert "give one of them" in result.err
    assert generate(tmp_path / "splits" / "test", "--restart").answers == rows["prompt"]
    (tmp_path / "saved" / "data-00001-of-00003.arrow").unlink()
    result = generate(tmp_path / "saved", "--restart")
    assert (result.status, "cannot be read" in result.err) == (1, True)


def test_files_behind_addresses(tmp_path: Path, generate: Any, write: Write) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for name, content in {
        "/b/2.jsonl": prompts("2"),
        "/b/1.csv": b"prompt\n1\n",
        "/b/notes.md": b"x",
    }.items():
        memory.pipe(name, content)
    try:
        for address in ("memory://b", "memory://b/*"):
            result = generate(address, "--restart")
            assert (result.status, result.answers) == (0, ["1", "2"]), result.err
            assert "passed over" in result.err
            assert "notes.md" in result.err
        assert generate("memory://b/2.jsonl", "--restart").answers == ["2"]
        assert [path.name for path in (tmp_path / "out").iterdir() if "input" in path.name] == []
        assert generate("memory://b/2.jsonl", to=Path("-")).out.startswith('{"prompt":"2"')
        result = generate("memory://b/3.jsonl", to=tmp_path / "out" / "other.jsonl")
        assert (result.status, "memory://b/3.jsonl" in result.err) == (1, True)
        assert not (tmp_path / "out" / "other.jsonl.run.db").exists()
        assert generate(write("a b.jsonl", prompts("x")).as_uri(), "--restart").answers == ["x"]
    finally:
        memory.rm("/b", recursive=True)


def test_an_address_without_the_library(generate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    result = generate("s3://key:SECRET-123@bucket/in.jsonl?token=SECRET-456")
    assert (result.status, list(result.output.parent.iterdir())) == (2, [])
    assert "s3://bucket/in.jsonl is an address, which needs fsspec" in result.err
    assert "SECRET" not in result.err


def test_a_secret_in_an_address_is_shown_nowhere(
    generate: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fsspec = pytest.importorskip("fsspec")

    class Lost(fsspec.AbstractFileSystem):
        protocol = "lost"

        def info(self, path: str, **kwargs: Any) -> Any:
            raise OSError("no route to lost://me:SECRET-123@there/in.jsonl")

        ls = find = isfile = info

    fsspec.register_implementation("lost", Lost, clobber=True)
    result = generate("lost://me:SECRET-123@there/in.jsonl")
    assert (result.status, "lost://there/in.jsonl cannot be read" in result.err) == (1, True)
    assert "SECRET" not in result.err + result.out


def test_from_python(write: Write, tmp_path: Path) -> None:
    one, two = write("a.jsonl", prompts("a")), write("b.csv", b"prompt;x\nb;1\n")

    def answers(source: Any, **options: Any) -> list[str]:
        run = stillhouse.run(source, llm="echo", show_bar=False, **options)
        return [row["generations"][0] for row in run]

    assert answers([one, two]) == ["a", "b"]
    assert answers(str(tmp_path / "*.jsonl")) == ["a"]
    assert answers(tmp_path) == ["a", "b"]
    assert answers(two, delimiter=";", encoding="utf-8") == ["b"]
    assert answers(["a.jsonl", "what is a.jsonl?"]) == ["a.jsonl", "what is a.jsonl?"]
    for ambiguous in ([str(one), str(two)], [one, "b"], [one, {"prompt": "c"}], []):
        if ambiguous:
            with pytest.raises(ConfigurationError, match="list of"):
                answers(ambiguous)
        else:
            assert answers(ambiguous) == []
    with pytest.raises(ConfigurationError, match="encoding"):
        answers(one, encoding="utf-9")


def test_python_logs_what_is_unusual(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("b.csv", "prompt;x\né;1\n".encode("cp1252"))
    with caplog.at_level("INFO", "stillhouse.jobs"):
        stillhouse.run(path, llm="echo", show_bar=False)
    assert f"{path}: its encoding is cp1252; its fields are separated by ';'" in caplog.messages


def test_standard_input_beside_files_is_refused(write: Write, generate: Any) -> None:
    result = generate("-", write("a.jsonl", prompts("a")))
    assert (result.status, "standard input is given beside files" in result.err) == (2, True)


def test_many_files_open_few(write: Write, generate: Any, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not say how many files are open")
    for number in range(200):
        write(f"data/{number:03}.csv", f"prompt\n{number}\n".encode())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 60, limits[1]))
    try:
        result = generate(tmp_path / "data")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert result.status == 0, result.err
    assert result.answers == [str(number) for number in range(200)]


def test_two_iterations_do_not_disturb_each_other(write: Write, tmp_path: Path) -> None:
    for number in range(3):
        write(f"data/{number}.jsonl", prompts(*map(str, range(number * 10, number * 10 + 10))))
    reader = open_input(Names([str(tmp_path / "data")]))
    first = iter(reader)
    taken = [next(first).columns["prompt"] for _ in range(15)]
    second = [row.columns["prompt"] for row in reader]
    assert taken + [row.columns["prompt"] for row in first] == second == list(map(str, range(30)))
    reader.close()


def test_one_digest_over_all_and_the_places(write: Write, tmp_path: Path) -> None:
    one, two = write("a.jsonl", prompts("a", "b")), write("b.jsonl", prompts("c"))
    found = rows_of(one, two)
    assert [row.line for row in found.rows] == [1, 2, 1]
    assert [row.place for row in found.rows] == [f"{one}, line 1", f"{one}, line 2", f"{two}, line 1"]


def test_links_that_lead_in_circles(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.jsonl").write_bytes(prompts("1"))
    (folder / "in" / "up").symlink_to("..")
    for name in (str(folder), f"{folder}/**/*.jsonl"):
        found = rows_of(name)
        assert found.columns == [{"prompt": "1"}]
        assert not any("more than once" in note for note in found.notes)
    (folder / "self.jsonl").symlink_to("self.jsonl")
    found = rows_of(str(folder))
    assert found.columns == [{"prompt": "1"}]
    assert any("self.jsonl" in note for note in found.notes)  # passed over
    with pytest.raises(ConfigurationError, match=r"rows/self\.jsonl cannot be read"):
        rows_of(f"{folder}/**/*.jsonl")
