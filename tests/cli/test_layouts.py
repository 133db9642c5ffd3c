"""Files as public datasets and other programs lay them out, rebuilt small: each through the whole command."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from .conftest import Result

Run = Callable[..., Result]
Rows = list[dict[str, Any]]


def generated(run: Run, folder: Path, *arguments: object, output: str = "out.jsonl") -> tuple[Rows, Result]:
    """Run the command with `echo`, which must go well, and return the rows of the output."""
    target = folder / output
    result = run("generate", *arguments, "--llm", "echo", "-o", target)
    assert result.status == 0, result.err
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()], result


def texts(rows: Rows) -> list[Any]:
    return [row["generations"][0] for row in rows]


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_alpaca(run: Run, tmp_path: Path) -> None:
    """A JSON array of instructions, some of which have an input, with the answer that a model shall learn."""
    rows = [
        {"instruction": "Translate to French", "input": "The house is red", "output": "La maison est rouge"},
        {"instruction": "Name a river", "input": "", "output": "The Rhine"},
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows, indent=2))
    found, result = generated(run, tmp_path, tmp_path / "alpaca.json")
    first, second = texts(found)
    assert "Translate to French" in first
    assert "The house is red" in first
    assert "Name a river" in second
    assert "La maison" not in first
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    assert "instruction" in result.err
    assert "output" in result.err  # it is unused, and the run says so


def test_sharegpt(run: Run, tmp_path: Path) -> None:
    """Conversations with `from` and `value`, as they are published for fine-tuning."""
    talk = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Hi"},
        {"from": "human", "value": "What is a tide?"},
    ]
    (tmp_path / "talk.json").write_text(json.dumps([{"id": "a_0", "conversations": talk}]))
    found, _ = generated(run, tmp_path, tmp_path / "talk.json")
    assert texts(found) == ["What is a tide?"]
    assert found[0]["conversations"] == talk


def test_chats_for_fine_tuning(run: Run, tmp_path: Path) -> None:
    """Chats that end with the answer that a model shall learn: the run says so, once."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Question {number}"},
                {"role": "assistant", "content": "Answer"},
            ]
        }
        for number in range(3)
    ]
    (tmp_path / "tuning.jsonl").write_text(lines(*rows))
    _, result = generated(run, tmp_path, tmp_path / "tuning.jsonl")
    assert result.err.count("assistant") >= 1
    found, _ = generated(
        run, tmp_path, tmp_path / "tuning.jsonl", "--drop-last-assistant", output="dropped.jsonl"
    )
    assert texts(found) == ["Question 0", "Question 1", "Question 2"]
    assert found[0]["messages"] == rows[0]["messages"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig", "utf-16"])
def test_an_export_of_a_spreadsheet(run: Run, tmp_path: Path, encoding: str) -> None:
    """Semicolons, CRLF, and the encoding of the machine that it was written on."""
    text = 'id;prompt;note\r\n0042;"Qu\'est-ce qu\'un été; dit-il?";\r\n0043;Größe?;"zwei\r\nZeilen"\r\n'
    (tmp_path / "export.csv").write_bytes(text.encode(encoding))
    found, _ = generated(run, tmp_path, tmp_path / "export.csv")
    assert texts(found) == ["Qu'est-ce qu'un été; dit-il?", "Größe?"]
    assert [row["id"] for row in found] == ["0042", "0043"]
    assert [row["note"] for row in found] == [None, "zwei\r\nZeilen"]


def test_parquet_of_pandas(run: Run, tmp_path: Path) -> None:
    """A frame with its index, nullable integers and times."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "prompt": ["a", "b", "c"],
            "number": pd.array([9007199254740993, None, 5], dtype="Int64"),
            "at": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
        },
        index=[7, 8, 9],
    )
    frame.to_parquet(tmp_path / "frame.parquet")
    found, _ = generated(run, tmp_path, tmp_path / "frame.parquet")
    assert texts(found) == ["a", "b", "c"]
    assert [row["number"] for row in found] == [9007199254740993, None, 5]
    run("generate", tmp_path / "frame.parquet", "--llm", "echo", "-o", tmp_path / "out.parquet")
    written = pa.parquet.read_table(tmp_path / "out.parquet")
    assert written.column("number").to_pylist() == [9007199254740993, None, 5]
    assert written.schema.field("number").type == pa.int64()


def test_shards_of_parquet_in_a_folder(run: Run, tmp_path: Path) -> None:
    """What `datasets` puts on the Hub: numbered shards beside a card."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in (1, 0):
        table = pa.table({"prompt": [f"{number}-{row}" for row in range(2)]})
        pa.parquet.write_table(table, folder / f"train-0000{number}-of-00002.parquet")
    (folder / "README.md").write_text("# A dataset\n")
    found, result = generated(run, tmp_path, folder)
    assert texts(found) == ["0-0", "0-1", "1-0", "1-1"]
    assert "README.md" in result.err or "passed over" in result.err
    again, _ = generated(run, tmp_path, f"{folder}/*.parquet", output="again.jsonl")
    assert texts(again) == texts(found)


def test_a_batch_file_of_openai(run: Run, tmp_path: Path) -> None:
    """Requests for the batch API: each has its own parameters, and an id that its result has too."""
    requests = [
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "gpt-5-mini",
                "messages": [{"role": "user", "content": "one two three four"}],
                "max_tokens": number,
            },
        }
        for number in (1, 2, 3)
    ]
    (tmp_path / "batch.jsonl").write_text(lines(*requests))
    found, _ = generated(run, tmp_path, tmp_path / "batch.jsonl")
    assert texts(found) == ["one", "one two", "one two three"]
    assert [row["custom_id"] for row in found] == ["request-1", "request-2", "request-3"]
    results, _ = generated(
        run, tmp_path, tmp_path / "batch.jsonl", "--format", "openai-batch", output="results.jsonl"
    )
    assert [result["custom_id"] for result in results] == ["request-1", "request-2", "request-3"]
    body = results[1]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == "one two"
    assert body["choices"][0]["finish_reason"] == "length"
    assert results[1]["error"] is None


def test_nested_arrays_of_json(run: Run, tmp_path: Path) -> None:
    """Questions with lists and objects in them, with a template, compressed."""
    rows = [
        {
            "question": "Which is a fruit?",
            "choices": {"text": ["oak", "apple"], "label": ["A", "B"]},
            "meta": {"source": None, "tags": [["x", 1], []]},
        },
        {
            "question": "Which is a tree?",
            "choices": {"text": ["oak", "ant"], "label": ["A", "B"]},
            "meta": {},
        },
    ]
    with gzip.open(tmp_path / "quiz.json.gz", "wt", encoding="utf-8") as stream:
        json.dump(rows, stream)
    template = "{{ question }} {% for text in choices.text %}[{{ text }}]{% endfor %}"
    found, _ = generated(run, tmp_path, tmp_path / "quiz.json.gz", "--template", template)
    assert texts(found) == ["Which is a fruit? [oak][apple]", "Which is a tree? [oak][ant]"]
    assert [row["meta"] for row in found] == [{"source": None, "tags": [["x", 1], []]}, {}]


def test_a_second_pass_by_a_judge(run: Run, tmp_path: Path) -> None:
    """An output is the input of another run, whose columns have names of their own."""
    (tmp_path / "in.jsonl").write_text(lines({"prompt": "Say A"}, {"prompt": "Say B"}))
    generated(run, tmp_path, tmp_path / "in.jsonl", output="first.jsonl")
    target = tmp_path / "judged.jsonl"
    template = "Is {{ generations[0] }} right?"
    refused = run("generate", tmp_path / "first.jsonl", "--template", template, "--llm", "echo", "-o", target)
    assert refused.status == 2 or refused.status == 1
    assert "--output-prefix" in refused.err
    assert not target.exists()
    found, _ = generated(
        run, tmp_path, tmp_path / "first.jsonl", "--template", template, "--output-prefix", "judge_",
        output="judged.jsonl",
    )  # fmt: skip
    assert [row["judge_generations"] for row in found] == [["Is Say A right?"], ["Is Say B right?"]]
    assert [row["generations"] for row in found] == [["Say A"], ["Say B"]]


def test_csv_with_quoted_json(run: Run, tmp_path: Path) -> None:
    """Chats in the cells of a table, and a table of the answers."""
    chat = [{"role": "user", "content": 'Say "hi",\nplease'}]
    sheet = io.StringIO()
    writer = csv.writer(sheet)
    writer.writerows([["id", "messages"], ["1", json.dumps(chat)], ["2", json.dumps(chat, indent=1)]])
    (tmp_path / "chats.csv").write_text(sheet.getvalue(), newline="")
    found, _ = generated(run, tmp_path, tmp_path / "chats.csv")
    assert texts(found) == ['Say "hi",\nplease'] * 2
    result = run("generate", tmp_path / "chats.csv", "--llm", "echo", "--text", "-o", tmp_path / "out.csv")
    assert result.status == 0, result.err
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert [row["generations"] for row in table] == ['Say "hi",\nplease'] * 2
    assert [json.loads(row["messages"]) for row in table] == [chat, chat]
