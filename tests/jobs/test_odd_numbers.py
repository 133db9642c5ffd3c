"""Numbers that are none, and numbers of other libraries: every format takes them, and no row is lost."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sqlite3
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse import GenerationError, prepare_output
from stillhouse.cli.generate.run import generate_file, print_rows
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.formats.writers import to_json
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.selection.choosing import Choice

from ..support import squeezed
from .odd_answers import ANSWERS, OddLLM, registered  # noqa: F401

JSON = ("logprobs", "statistics")


def strict(text: str | bytes) -> Any:
    """Read JSON as the standard has it, with two readers."""

    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is no JSON")

    orjson.loads(text)
    return json.loads(text, parse_constant=refuse)


def command(folder: Path, name: str, count: int, **options: Any) -> Command:
    source = folder / "rows.jsonl"
    source.write_text("".join(f'{{"prompt": "{place}"}}\n' for place in range(count)))
    return Command(str(source), name if name == "-" else str(folder / name), RowFormatter(), **options)


def rows_of(folder: Path, answers: list[Any]) -> dict[str, list[Any]]:
    """Generate for as many rows as there are answers, and return the rows of each format."""
    ANSWERS[:] = answers
    count, found = len(answers), {}
    found["jsonl"] = _written(folder, "out.jsonl", count)
    with contextlib.closing(sqlite3.connect(folder / "out.jsonl.run.db")) as connection:
        texts = [text for (text,) in connection.execute("SELECT result FROM rows ORDER BY row")]
    found["store"] = [strict(text) for text in texts]
    for name, limits in (("halves.jsonl", [count // 2, None]), ("out.parquet", [None])):
        for limit in limits:
            found[name] = _written(folder, name, count, choice=Choice(limit=limit))
    sys.stdout = stream = io.TextIOWrapper(io.BytesIO())
    try:
        print_rows(OddLLM(), command(folder, "-", count))
    finally:
        sys.stdout = sys.__stdout__
    found["stream"] = [strict(line) for line in stream.buffer.getvalue().splitlines()]
    return found


def _written(folder: Path, name: str, count: int, **options: Any) -> list[Any]:
    assert generate_file(OddLLM(), command(folder, name, count, **options)) in (0, 3)
    if name.endswith(".parquet"):
        # A column that no type of Parquet's fits is JSON text.
        return [
            {
                key: strict(value) if key in JSON and isinstance(value, str) else value
                for key, value in row.items()
            }
            for row in pq.read_table(folder / name).to_pylist()
        ]
    return [strict(line) for line in (folder / name).read_bytes().splitlines()]


NUMBERS = st.one_of(
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308]),
    st.integers(-(10**20), 10**20),
    st.sampled_from([10**300, 2**53 + 1, True]),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.sampled_from([np.int64(-5), np.uint64(2**63), np.float16("nan"), np.bool_(True)]),
    st.lists(st.floats(), max_size=3).map(np.array),
    st.sampled_from([Decimal("NaN"), Decimal("-Infinity"), Decimal("0.1"), Fraction(1, 3), 1j, "NaN", None]),
)
NAMES = st.sampled_from(["token", "own", "", "prompt", "é"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=3
)
VALUES = st.recursive(
    NUMBERS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            NAMES | NUMBERS.filter(_hashable := lambda item: not isinstance(item, np.ndarray)),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
OUTPUTS = st.fixed_dictionaries(
    {
        "generations": st.just(["text"]),
        "statistics": st.dictionaries(
            st.sampled_from(["seconds", "input_tokens", "own"]), st.lists(NUMBERS, max_size=2), max_size=2
        ),
    },
    optional={
        "logprobs": st.lists(
            st.lists(
                st.lists(st.fixed_dictionaries({"token": st.just("x"), "logprob": NUMBERS}), max_size=2),
                max_size=2,
            ),
            min_size=1,
            max_size=1,
        ),
        "own": st.lists(VALUES, min_size=1, max_size=1),
        "states": VALUES,
    },
)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(answers=st.lists(OUTPUTS, min_size=1, max_size=6))
def test_every_format_takes_every_number(
    tmp_path_factory: pytest.TempPathFactory, answers: list[Any]
) -> None:
    found = rows_of(tmp_path_factory.mktemp("run"), answers)
    for name, rows in found.items():
        assert [row["error"] for row in rows] == [None] * len(answers), name
        assert [row["generations"] for row in rows] == [["text"]] * len(answers), name
    plain = [{key: value for key, value in row.items() if key != "prompt"} for row in found["jsonl"]]
    assert repr(plain) == repr(found["store"])
    assert found["jsonl"] == found["halves.jsonl"] == found["stream"]
    for answer, *rows in zip(answers, *found.values(), strict=True):
        for row in rows:
            _check(answer, row)


def _check(answer: Any, row: Any) -> None:
    """A log probability is kept, or null; what is no number is counted."""
    given = [item["logprob"] for position in answer.get("logprobs", [[]])[0] for item in position]
    written = [item["logprob"] for position in (row.get("logprobs") or [[]])[0] for item in position]
    assert len(given) == len(written)
    missing = 0
    for before, after in zip(given, written, strict=True):
        try:
            number = math.nan if isinstance(before, (str, bool)) else float(before)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        missing += math.isnan(number) or number == math.inf
        assert after == (number if math.isfinite(number) else None)
    counted = (row["statistics"].get("not_finite") or [0])[0]
    assert counted >= missing
    assert counted or not missing


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "null"),
        ([math.inf, {"a": -math.inf}], '[null,{"a":null}]'),
        (np.array([[1.5, math.nan]]), "[[1.5,null]]"),
        (np.float32(0.5), "0.5"),
        (np.float32("nan"), "null"),
        ({math.nan: 1, 2: 3, None: 4, True: 5, (1,): 6, b"x": 7, np.int64(8): 9},
         '{"nan":1,"2":3,"null":4,"true":5,"(1,)":6,"eA==":7,"8":9}'),
        (Decimal("NaN"), '"NaN"'),
        ({"a": math.nan, "b": Decimal("0.1"), "c": b"x"}, '{"a":null,"b":"0.1","c":"eA=="}'),
        ([10**5000, math.nan], f'["{10**5000:#x}",null]'),
        ({10**5000: 1}, f'{{"{10**5000:#x}":1}}'),
    ],
    ids=lambda value: str(type(value)),
)  # fmt: skip
def test_json_is_what_any_reader_takes(value: Any, text: str) -> None:
    assert to_json(value) == text
    strict(to_json(value).encode())


class Silent:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Endless:
    def tolist(self) -> Any:
        return self

    def __str__(self) -> str:
        return "endless"


class Selfish:
    def tolist(self) -> Any:
        return [self]


def test_an_object_of_any_kind_costs_no_other_row_anything(tmp_path: Path) -> None:
    objects = [Silent(), Endless(), Selfish(), GenerationError("no", outputs=["x", {"generations": 5}])]  # type: ignore[list-item]
    answers = [{**prepare_output(["text"]), "own": [item, math.nan]} for item in objects[:3]]
    found = rows_of(tmp_path, [*answers, objects[3], prepare_output(["last"])])
    for name, rows in found.items():
        first, second, third, fourth, last = rows
        assert [first["generations"], second["generations"], last["generations"]] == [
            ["text"],
            ["text"],
            ["last"],
        ]
        assert "cannot be stored" in third["error"]["message"], name
        assert fourth["error"]["message"] == "no"
    assert [row["own"] for row in found["jsonl"][:2]] == [["<Silent>", None], ["endless", None]]


def test_the_table_and_the_rows_say_what_is_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logprobs = [[[{"token": "a", "logprob": value} for value in (-0.1, -math.inf, math.nan)]]]
    ANSWERS[:] = [{**prepare_output(["a"]), "logprobs": logprobs}, prepare_output(["b"])]
    for target in ("out.jsonl", "-"):
        asked = command(tmp_path, target, 2)
        assert (print_rows if target == "-" else generate_file)(OddLLM(), asked) == 0
        captured = capsys.readouterr()
        assert "rows with NaN 1, null in the output\n" in squeezed(captured.err)
    row = strict(captured.out.splitlines()[0])
    assert [item["logprob"] for item in row["logprobs"][0][0]] == [-0.1, None, None]
    assert row["statistics"] == {"not_finite": [1]}
