"""What `stillhouse view` finds in a run: filters against a search by brute force, and how much is read."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.echo import EchoLLM
from stillhouse.errors import StillhouseError
from stillhouse.jobs.formats.marks import Mark
from stillhouse.jobs.formats.opening import open_file
from stillhouse.jobs.formats.rows import digest_of
from stillhouse.jobs.runs.provenance import provenance_of
from stillhouse.jobs.sources.names import Names
from stillhouse.jobs.store.database import StoreError, connect, store_path
from stillhouse.jobs.viewing.index import MAX_MARKS, MarkIndex
from stillhouse.jobs.viewing.inputs import SourceRows
from stillhouse.jobs.viewing.search import Filter, search
from stillhouse.jobs.viewing.survey import BLOCK_ROWS, Survey
from stillhouse.jobs.viewing.viewer import PAGE_ROWS, Viewer
from stillhouse.protocols import Row
from stillhouse.registry import default_registry

from .viewed import echo_run, fill, note, viewed, viewer_of, write_jsonl

TEXTS = st.sampled_from(
    ["", "a", "Apple", "apple pie", "STRASSE", "straße", 'say "no"', "back\\slash", "two\nlines", "ﬁn", "é", "\u2028"]
)  # fmt: skip
NEEDLES = st.sampled_from(["", "APPLE", "ss", 'y "n', "k\\s", "o\nl", "fi", "É", "\u2028", "nowhere", "\n"])
KINDS = [None, None, "timeout", "rate_limit"]
REASONS = [None, "stop", "length"]


@st.composite
def runs(draw: st.DrawFn) -> list[dict[str, Any]]:
    count = draw(st.integers(0, 12))
    return [
        {
            "prompt": draw(TEXTS), "id": draw(st.sampled_from([1, 2**60, 2**60 + 1, "1", None, 0.5])),
            "answers": draw(st.lists(st.one_of(st.none(), TEXTS), max_size=2)),
            "reasons": draw(st.lists(st.sampled_from(REASONS), max_size=2)),
            "kind": draw(st.sampled_from(KINDS)), "queued": draw(st.booleans()),
            "is_there": draw(st.booleans()),
        }
        for _ in range(count)
    ]  # fmt: skip


FILTERS = st.builds(
    Filter,
    state=st.sampled_from(["", "", "done", "failed", "queued"]),
    kind=st.sampled_from(["", "", "timeout", "unseen"]),
    finish=st.sampled_from(["", "", "length"]),
    text=NEEDLES,
    scope=st.sampled_from(["both", "answer", "prompt"]),
    column=st.sampled_from(["", "", "id", "prompt", "missing"]),
    value=st.sampled_from([str(2**60), str(2**60 + 1), "1", "null", "0.5", "a"]),
)


def matches(row: dict[str, Any], wanted: Filter) -> bool:
    """Decide by brute force."""
    state = "done" if row["kind"] is None else "queued" if row["queued"] else "failed"
    needle = wanted.text.casefold()
    answers = [answer for answer in row["answers"] if answer is not None]
    if row["kind"]:
        answers.append(f"it failed: {row['kind']}")
    in_answer = any(needle in answer.casefold() for answer in answers)
    # An empty prompt is none that is sent.
    in_prompt = needle in row["prompt"].casefold()
    found = {"both": in_answer or in_prompt, "answer": in_answer, "prompt": in_prompt}[wanted.scope]
    values = {"id": row["id"], "prompt": row["prompt"]}
    value = values.get(wanted.column)
    text = value if isinstance(value, str) else json.dumps(value)
    return (
        wanted.state in ("", state)
        and wanted.kind in ("", row["kind"])
        and (not wanted.finish or wanted.finish in row["reasons"])
        and (not wanted.text or found)
        and (not wanted.column or (wanted.column in values and text == wanted.value))
    )


def write_run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    source = write_jsonl(folder / "in.jsonl", [{"prompt": row["prompt"], "id": row["id"]} for row in rows])
    results = []
    for index, row in enumerate(rows):
        error = row["kind"] and {"kind": row["kind"], "message": f"it failed: {row['kind']}"}
        result = {"generations": row["answers"], "finish_reasons": row["reasons"], "error": error}
        if error and row["queued"]:
            result["state"] = 0
        if row["is_there"]:
            results.append((index, result))
    fill(folder / "out.jsonl", results)
    note(folder / "out.jsonl", "session 1", {"input": [str(source)]})
    return folder / "out.jsonl"


def all_found(viewer: Viewer, wanted: Filter, limit: int) -> list[int]:
    found: list[int] = []
    after: int | None = -1
    while after is not None:
        answer = viewer.list(wanted, after, limit)
        assert len(answer["rows"]) <= limit
        assert answer["next"] is None or answer["next"] >= after
        found += [row["row"] - 1 for row in answer["rows"]]
        after = answer["next"]
    return found


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(rows=runs(), filters=st.lists(FILTERS, min_size=1, max_size=6), limit=st.sampled_from([1, 2, 50]))
def test_filters_find_what_a_search_by_brute_force_finds(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], filters: list[Filter], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with viewed(write_run(folder, rows)) as viewer:
        for wanted in filters:
            expected = [index for index, row in enumerate(rows) if row["is_there"] and matches(row, wanted)]
            assert all_found(viewer, wanted, limit) == expected, wanted
    shutil.rmtree(folder)


def test_search_that_is_cut_into_slices_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"prompt": f"prompt {index}", "id": index % 7, "answers": [f"answer {index}"], "reasons": ["stop"],
         "kind": "timeout" if index % 5 == 0 else None, "queued": False, "is_there": index % 3 > 0}
        for index in range(2500)
    ]  # fmt: skip
    output = write_run(tmp_path, rows)
    filters = [
        Filter(text="answer 21", scope="answer"), Filter(text="prompt 21", scope="prompt"), Filter(text="2 ", column="id", value="3"),
        Filter(column="id", value="3", state="failed"), Filter(text="99"),
    ]  # fmt: skip
    with viewed(output) as viewer:
        whole = [all_found(viewer, wanted, 50) for wanted in filters]
        # Every row ends a slice: the time is over at once.
        monkeypatch.setattr("stillhouse.jobs.viewing.viewer.SLICE_SECONDS", 0.0)
        monkeypatch.setattr("stillhouse.jobs.viewing.search.MIN_SCAN_SECONDS", 0.02)
        sliced = [all_found(viewer, wanted, 50) for wanted in filters[:1]]
    for wanted, found in zip(filters, whole, strict=True):
        assert found == [i for i, row in enumerate(rows) if row["is_there"] and matches(row, wanted)]
    assert sliced == whole[:1]


@pytest.mark.parametrize(
    ("text", "needle"), [("straße", "SS"), ("ﬁn", "FIN"), ("É", "é"), ('say "no"', 'Y "N'), ("a\\b", "\\B"), ("a\nb", "A\n")]
)  # fmt: skip
@pytest.mark.parametrize("scope", ["answer", "prompt"])
def test_capitals_and_escapes_of_a_text_do_not_matter(
    tmp_path: Path, text: str, needle: str, scope: str
) -> None:
    row = {
        "prompt": text,
        "id": 1,
        "answers": [text],
        "reasons": [],
        "kind": None,
        "queued": False,
        "is_there": True,
    }
    with viewed(write_run(tmp_path, [row])) as viewer:
        assert all_found(viewer, Filter(text=needle, scope=scope), 50) == [0]
        assert all_found(viewer, Filter(text=f"{needle}x", scope=scope), 50) == []


def test_search_whose_input_is_read_slowly_skips_and_repeats_no_row(tmp_path: Path) -> None:
    results = [
        (row, {"generations": ["needle" if row % 3 == 0 else "x"], "error": None}) for row in range(40)
    ]
    fill(tmp_path / "out.jsonl", results)
    asked: list[int] = []

    def scan(
        wanted: Sequence[int], is_match: Callable[[int, Row | None], bool], _: float
    ) -> tuple[int, list[int]]:
        """Look at one row at a time, and at none every second time."""
        asked.append(wanted[0])
        if len(asked) % 2:
            return 0, []
        row = Row(wanted[0], 1, {"prompt": "needle" if wanted[0] % 5 == 0 else "y"})
        return 1, [wanted[0]] if is_match(wanted[0], row) else []

    with contextlib.closing(connect(store_path(tmp_path / "out.jsonl"))) as connection:
        for limit in (1, 3, 100):
            found: list[int] = []
            after: int | None = -1
            while after is not None:
                page = search(
                    connection,
                    Filter(text="needle"),
                    after,
                    limit,
                    60.0,
                    scan,
                    lambda row: str(row.columns["prompt"]),
                )
                found += page.rows
                after = page.position
            assert found == [row for row in range(40) if row % 3 == 0 or row % 5 == 0]


# How much is read


@pytest.fixture(scope="module")
def long_input(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "in.jsonl"
    path.write_bytes(b"".join(b'{"prompt": "row %d"}\n' % number for number in range(100_000)))
    return path


def test_row_is_found_at_random_with_few_rows_decoded(long_input: Path) -> None:
    rows = SourceRows(lambda: open_file(str(long_input)), lambda row: row.columns["prompt"])
    try:
        rows.index.wait()
        assert rows.index.rows == 100_000
        for first in (90_000, 10, 50_000):
            before = rows.read
            found, is_read = rows.get(range(first, first + 50), 60)
            assert (is_read, found[first + 49]) == (True, f"row {first + 49}")
            assert rows.read - before == 50
        before = rows.read
        assert rows.get(range(50_000, 50_050), 60)[1]
        assert rows.read == before  # cached
        assert rows.get([100_000, 100_001], 60) == ({}, True)
    finally:
        rows.close()


def test_index_is_bounded_whatever_the_number_of_rows(long_input: Path) -> None:
    index = MarkIndex(lambda: open_file(str(long_input)))
    index.start()
    index.wait()
    assert len(index._marks) <= MAX_MARKS
    gaps = [later.row - mark.row for mark, later in zip(index._marks, index._marks[1:], strict=False)]
    assert max(gaps) <= 2 * 100_000 / MAX_MARKS + 1
    assert index.before(0) == Mark(0, 1, 0)


def test_pages_read_no_more_rows_of_a_long_run_than_of_a_short_one(tmp_path: Path, long_input: Path) -> None:
    results = [
        (row, {"generations": ["x"], "finish_reasons": ["stop"], "error": None}) for row in range(3000)
    ]
    fill(tmp_path / "out.jsonl", results)
    note(tmp_path / "out.jsonl", "session 1", {"input": [str(long_input)]})
    steps = []
    with viewed(tmp_path / "out.jsonl") as viewer:
        viewer._input.rows.index.wait()  # type: ignore[union-attr]
        for after in (-1, 1000, 2900):
            counted = Counted(viewer)
            answer = viewer.list(Filter(), after)
            assert len(answer["rows"]) == PAGE_ROWS
            assert next(row["input"]["prompt"][0]["text"] for row in answer["rows"]) == f"row {after + 1}"
            steps.append(counted.rows)
    assert steps == [PAGE_ROWS] * 3


class Counted:
    """How many rows of the input a viewer has decoded since this was made."""

    def __init__(self, viewer: Viewer) -> None:
        self._source = viewer._input.rows
        self._before = self._source.read  # type: ignore[union-attr]

    @property
    def rows(self) -> int:
        return int(self._source.read) - int(self._before)  # type: ignore[union-attr]


def test_survey_counts_full_blocks_once(tmp_path: Path) -> None:
    connection = connect(tmp_path / "state.db")
    statement = f"INSERT INTO rows VALUES (?, 0, 1, NULL, 1, '{{}}', 1.0{', NULL' * 9}, 0)"
    connection.executemany(statement, ((row,) for row in range(3 * BLOCK_ROWS + 5)))
    counted: list[tuple[int, int]] = []

    class Watched(Survey):
        def _count(self, connection: sqlite3.Connection, start: int, end: int) -> int:
            counted.append((start, end))
            return super()._count(connection, start, end)

    survey = Watched()
    survey.update(connection, 1, 60)
    assert (survey.rows, survey.is_whole, len(counted)) == (3 * BLOCK_ROWS + 5, True, 4)
    survey.update(connection, 1, 60)
    assert len(counted) == 4  # nothing has changed
    connection.execute(statement, (3 * BLOCK_ROWS + 5,))
    survey.update(connection, 2, 60)
    assert (survey.rows, len(counted)) == (3 * BLOCK_ROWS + 6, 5)
    # In bounded time: a block at least, and the others the next time.
    short = Watched()
    short.update(connection, 1, 0)
    assert (short.rows, short.is_whole) == (BLOCK_ROWS, False)
    while not short.is_whole:
        short.update(connection, 1, 0)
    assert short.rows == 3 * BLOCK_ROWS + 6
    assert short.place_of(connection, BLOCK_ROWS + 7) == BLOCK_ROWS + 7
    connection.close()


# Where the prompts come from


def prompts(viewer: Viewer) -> list[str | None]:
    while (answer := viewer.list(Filter()))["reading"]:
        pass
    return [row["input"] and row["input"]["prompt"][0]["text"] for row in answer["rows"]]


ROWS = [{"id": number, "prompt": f"prompt {number}"} for number in range(20)]


def test_prompts_come_from_the_input_that_the_state_names(tmp_path: Path) -> None:
    output = echo_run(tmp_path, ROWS, template="Say {{ id }}", system="Be brief")
    note(output, "session 1", {"input": [str(tmp_path / "in.jsonl")]})
    output.unlink()
    with viewed(output) as viewer:
        assert prompts(viewer) == ["Be brief"] * 20
        answer = viewer.list(Filter())
        assert [message["text"] for message in answer["rows"][3]["input"]["prompt"]] == ["Be brief", "Say 3"]
        assert (answer["notice"], viewer.run()["notice"]) == ("", "")


def test_login_in_the_name_of_an_input_is_not_in_the_state() -> None:
    names = Names(["tables://me:hunter22@host/questions", "in.jsonl"])
    assert "hunter22" not in str(provenance_of(EchoLLM(), [], names))


def test_prompts_of_a_moved_run_are_found_beside_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    output = echo_run(tmp_path / "old", ROWS)
    note(output, "session 1", {"input": [str(tmp_path / "old/in.jsonl")]})
    output.unlink()
    (tmp_path / "old").rename(tmp_path / "new")
    with viewed(tmp_path / "new/out.jsonl") as viewer:
        assert prompts(viewer)[3] == "prompt 3"


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_prompts_of_a_complete_run_come_from_its_output(tmp_path: Path, name: str) -> None:
    import stillhouse

    source = write_jsonl(tmp_path / "in.jsonl", ROWS)
    stillhouse.run(source, llm="echo", output=tmp_path / name, where="id > 4")
    source.unlink()
    with viewed(tmp_path / name) as viewer:
        assert prompts(viewer) == [row["prompt"] for row in ROWS[5:]]
        answer = viewer.list(Filter())
        assert [column["name"] for column in answer["rows"][0]["input"]["columns"]] == ["id", "prompt"]
        assert all_found(viewer, Filter(column="prompt", value="prompt 7"), 50) == [7]
        assert all_found(viewer, Filter(text="PROMPT 1", scope="prompt"), 2) == list(range(10, 20))


def test_run_without_input_and_output_says_why_there_are_no_prompts(tmp_path: Path) -> None:
    output = echo_run(tmp_path, ROWS)
    (tmp_path / "in.jsonl").unlink()
    output.unlink()
    with viewed(output) as viewer:
        answer = viewer.list(Filter())
        assert [row["input"] for row in answer["rows"]] == [None] * 20
        assert [row["answers"][0]["text"] for row in answer["rows"]][2] == "prompt 2"
        assert "Prompts and columns cannot be shown" in answer["notice"]
        assert "out.jsonl does not exist" in answer["notice"]
        assert all_found(viewer, Filter(text="prompt 2"), 50) == [2]  # the answers can be searched
        assert all_found(viewer, Filter(text="prompt 2", scope="prompt"), 50) == []


def test_output_that_somebody_changed_is_not_taken_for_the_input(tmp_path: Path) -> None:
    output = echo_run(tmp_path, ROWS)
    (tmp_path / "in.jsonl").unlink()
    with output.open("a") as stream:
        stream.write("{}\n")
    with viewed(output) as viewer:
        assert "has changed since the run wrote it" in viewer.list(Filter())["notice"]


def test_row_of_the_input_that_changed_is_marked(tmp_path: Path) -> None:
    output = echo_run(tmp_path, ROWS)
    note(output, "session 1", {"input": [str(tmp_path / "in.jsonl")]})
    write_jsonl(tmp_path / "in.jsonl", [*ROWS[:3], {"id": 3, "prompt": "another"}, *ROWS[4:]])
    with viewed(output) as viewer:
        prompts(viewer)
        changed = [row["row"] for row in viewer.list(Filter())["rows"] if row["input"]["changed"]]
        assert changed == [4]


def test_input_that_cannot_be_read_is_said_and_the_answers_are_shown(tmp_path: Path) -> None:
    output = echo_run(tmp_path, ROWS)
    source = tmp_path / "in.parquet"
    source.write_bytes(b"PAR1 and no more")
    note(output, "session 1", {"input": [str(source)]})
    with viewed(output) as viewer:
        answer = viewer.list(Filter())
        assert "cannot be read as a Parquet file" in viewer.list(Filter())["notice"]
        assert len(answer["rows"]) == 20


def test_row_that_is_not_finished_has_its_prompt(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ROWS)
    digest = digest_of(source.read_bytes().splitlines()[4])
    fill(tmp_path / "out.jsonl", [(4, {"generations": ["x"], "error": None, "digest": digest})])
    note(tmp_path / "out.jsonl", "session 1", {"input": [str(source)]})
    with viewed(tmp_path / "out.jsonl") as viewer:
        while (row := viewer.row(7))["reading"]:
            pass
        assert (row["state"], row["input"]["prompt"][0]["text"]) == ("missing", "prompt 7")
        assert (row["earlier"], row["later"]) == (5, None)
        assert viewer.row(4)["input"]["changed"] is False


# States of all kinds


def test_run_of_no_rows(tmp_path: Path) -> None:
    fill(tmp_path / "out.jsonl", [])
    with viewed(tmp_path / "out.jsonl") as viewer:
        assert viewer.list(Filter())["rows"] == []
        assert viewer.list(Filter(text="a", state="failed"))["next"] is None
        facts = viewer.run()
        assert (facts["rows"], facts["state"], facts["counted"]) == (0, "not started", True)


def test_row_of_300_columns(tmp_path: Path) -> None:
    row = {"prompt": "p"} | {f"column {number}": "x" * 5000 for number in range(300)}
    with viewed(echo_run(tmp_path, [row])) as viewer:
        prompts(viewer)
        assert len(viewer.run()["columns"]) == 301
        answer = viewer.list(Filter())
        assert len(json.dumps(answer)) < 150_000
        assert answer["rows"][0]["input"]["columns"][7]["length"] == 5000


def test_damaged_row_is_marked_and_the_others_are_shown(tmp_path: Path) -> None:
    output = echo_run(tmp_path, ROWS)
    with contextlib.closing(sqlite3.connect(store_path(output))) as connection:
        connection.execute("UPDATE rows SET result = replace(result, 'prompt', 'forged') WHERE row = 2")
        connection.commit()
    with viewed(output) as viewer:
        states = [row["state"] for row in viewer.list(Filter())["rows"]]
        assert states == ["done", "done", "damaged", *["done"] * 17]
        assert viewer.list(Filter())["rows"][2]["answers"] == []


@pytest.mark.parametrize("problem", ["none", "text", "newer", "other"])
def test_what_is_no_run_is_one_clear_error(tmp_path: Path, problem: str) -> None:
    output = tmp_path / "out.jsonl"
    state = store_path(output)
    if problem == "text":
        state.write_text("no database")
    elif problem == "newer":
        fill(output, [])
        with contextlib.closing(sqlite3.connect(state)) as connection:
            connection.execute("PRAGMA user_version = 99")
    elif problem == "other":
        with contextlib.closing(sqlite3.connect(state)) as connection:
            connection.execute("CREATE TABLE t (x)")
    expected = {
        "none": "there is no run of this output", "text": "damaged", "newer": "newer version of stillhouse",
        "other": "a database of something else",
    }  # fmt: skip
    with pytest.raises(StoreError, match=expected[problem]) as caught:
        viewer_of(output)
    assert caught.value.hint


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Path]:
    """The state of a process that was killed: its last rows are in the log that SQLite keeps next to it."""
    (tmp_path / "alive").mkdir()
    output = tmp_path / "alive/out.jsonl"
    fill(output, [(0, {"generations": ["first"], "error": None})])
    writer = connect(store_path(output))
    writer.execute("UPDATE rows SET made = made")
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(f"{store_path(output)}{suffix}", tmp_path)
    writer.close()
    return tmp_path / "out.jsonl"


def test_log_of_a_killed_process_is_read_and_not_touched(killed: Path) -> None:
    files = {path: path.read_bytes() for path in killed.parent.iterdir() if path.is_file()}
    assert len(files) == 3
    with viewed(killed) as viewer:
        assert viewer.list(Filter())["rows"][0]["answers"][0]["text"] == "first"
    assert {path: path.read_bytes() for path in killed.parent.iterdir() if path.is_file()} == files


def test_log_without_its_index_is_refused_and_not_touched(killed: Path) -> None:
    Path(f"{store_path(killed)}-shm").unlink()
    with pytest.raises(StoreError, match="only a writer can read"):
        viewer_of(killed)
    assert not Path(f"{store_path(killed)}-shm").exists()


def test_state_is_not_held_open_between_questions(tmp_path: Path) -> None:
    import stillhouse

    output = echo_run(tmp_path, ROWS, limit=5)
    with viewed(output) as viewer:
        assert viewer.progress()["rows"] == 5
        stillhouse.run(tmp_path / "in.jsonl", llm="echo", output=output)  # refused if it were open
        assert viewer.progress()["rows"] == 20
        assert len(viewer.list(Filter())["rows"]) == 20


def test_state_can_be_named_instead_of_the_output(tmp_path: Path) -> None:
    output = echo_run(tmp_path, ROWS)
    for target, state in ((str(store_path(output)), None), ("elsewhere", store_path(output))):
        viewer = Viewer(target, default_registry().hooks(), state)
        assert len(viewer.list(Filter())["rows"]) == 20
        viewer.close()


def test_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    output = echo_run(tmp_path, ROWS)
    store_path(output).chmod(0)
    with pytest.raises(StillhouseError):
        viewer_of(output)
