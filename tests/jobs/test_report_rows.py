"""What a report shows of the rows themselves: samples, failures, groups, its JSON, and two runs compared.

Over 300 lines: a test for each thing that a person looks for in a report, and what they share to make runs.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import json
import random
import re
import shutil
import sqlite3
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import jsonschema
import pytest
from pydantic import SecretStr

import stillhouse
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.launch.given import assignment
from stillhouse.jobs.reporting.charts import Distribution
from stillhouse.jobs.reporting.chats import answers_in, cut, inert, turns_of
from stillhouse.jobs.reporting.comparison import comparison_as_json
from stillhouse.jobs.reporting.comparison_page import compare_runs
from stillhouse.jobs.reporting.report import _over_time, report_as_json, report_run, write_report
from stillhouse.jobs.reporting.timeline import ROUNDS_PER_SPAN, Spans, Timeline
from stillhouse.jobs.runs.provenance import provenance_of
from stillhouse.jobs.runs.reach import REACH
from stillhouse.jobs.sources.names import Names
from stillhouse.jobs.store.columns import Tokens
from stillhouse.jobs.store.database import connect, read, store_path
from stillhouse.jobs.store.places import spool_path
from stillhouse.jobs.store.seals import sealed

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8"))
START = 1_700_000_000.0
MAX_BYTES = 2_000_000
"""What docs/bulk-runs.md promises of every page."""

HOSTILE = (
    "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    "</style></pre></dd>\u2028\u202eevil\u202c\u2066\x00\x1b[31m{{ 7*7 }}${7*7}&amp;'\""
)


class NoisyLLM(stillhouse.AsyncLLM):
    """Answers with the prompt, and fails for some prompts with messages that differ in numbers."""

    api_key: SecretStr | None = None
    suffix: str = ""
    fails: ClassVar[bool] = True

    @property
    def model_name(self) -> str:
        return "noisy-1"

    async def agenerate(
        self, input: Any, num_generations: int = 1, max_new_tokens: int | None = None
    ) -> stillhouse.GenerateOutput:
        text = input[-1]["content"]
        if self.fails and "fail" in text:
            number = len(text)
            raise stillhouse.GenerationError(f'request {number} to "/v{number}" timed out', kind="timeout")
        words = text.split(" ")
        is_cut = max_new_tokens is not None and len(words) > max_new_tokens
        answer = " ".join(words[:max_new_tokens]) + self.suffix
        return stillhouse.prepare_output(
            [answer] * num_generations, input_tokens=[len(words)], output_tokens=[len(answer.split(" "))],
            finish_reasons=["length" if is_cut else "stop"] * num_generations,
        )  # fmt: skip


Make = Callable[..., stillhouse.Run]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Run rows of dicts, from a file unless said otherwise."""
    monkeypatch.chdir(tmp_path)

    def run(
        rows: list[dict[str, Any]], name: str = "out.jsonl", source: str = "in.jsonl", **options: Any
    ) -> stillhouse.Run:
        Path(source).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        llm = options.pop("llm", None) or NoisyLLM()
        return stillhouse.run(source, llm=llm, output=name, show_bar=False, max_failures=0, **options)

    return run


def as_json(name: str = "out.jsonl", **options: Any) -> dict[str, Any]:
    found = report_as_json(name, stillhouse.Registry(entry_points=()).hooks(), **options)
    jsonschema.validate(found, SCHEMA)
    return found


def page_of(name: str = "out.jsonl", **options: Any) -> str:
    path = report_run(name, stillhouse.Registry(entry_points=()).hooks(), **options)
    return path.read_text(encoding="utf-8")


def some_rows(count: int, seed: int = 1) -> list[dict[str, Any]]:
    dice = random.Random(seed)
    return [
        {
            "id": 2**60 + number,
            "topic": dice.choice(["rivers", "seas", "hills"]),
            "prompt": f"{'fail' if number % 10 == 3 else 'tell'} me {number}" + " more" * (number % 17),
        }
        for number in range(count)
    ]


# Rows


def test_report_shows_rows_with_their_prompts_and_answers(make: Make) -> None:
    make(some_rows(120), max_new_tokens=12)
    found = as_json()
    samples = {sample["row"]: sample for sample in found["samples"]}
    by_reason = Counter(why for sample in found["samples"] for why in sample["why"])
    assert set(by_reason) == {"random", "failed", "cut off", "longest", "shortest", "slowest"}
    assert by_reason["random"] == 12
    assert found["samples_note"] is None
    for number, row in enumerate(some_rows(120), 1):
        if number not in samples:
            continue
        sample = samples[number]
        assert sample["place"] == f"line {number}"
        assert sample["prompt"] == [{"role": "user", "text": row["prompt"]}]
        assert sample["columns"] == {"id": str(row["id"]), "topic": row["topic"]}
        if "fail" in row["prompt"]:
            assert sample["error"]["kind"] == "timeout"
            assert not sample["answers"]
        else:
            assert [answer["text"] for answer in sample["answers"]] == [
                " ".join(row["prompt"].split(" ")[:12])
            ]
    text = html.unescape(page_of())
    assert all(sample["prompt"][0]["text"] in text for sample in found["samples"])


def test_samples_are_the_same_ones_each_time(make: Make) -> None:
    make(some_rows(300))
    first, again = as_json()["samples"], as_json()["samples"]
    assert first == again
    rows = [sample["row"] for sample in first if "random" in sample["why"]]
    assert rows == sorted(rows)
    assert max(rows) - min(rows) > 150  # they are not the first ones


def test_longest_and_slowest_rows_are_those_of_all_rows(make: Make) -> None:
    make([{"prompt": "a" + " a" * ((number * 7) % 101)} for number in range(101)])
    samples = as_json()["samples"]
    longest = {sample["row"] for sample in samples if "longest" in sample["why"]}
    shortest = {sample["row"] for sample in samples if "shortest" in sample["why"]}
    ranked = sorted(range(101), key=lambda number: (number * 7) % 101)
    assert longest == {number + 1 for number in ranked[-4:]}
    assert shortest == {number + 1 for number in ranked[:4]}
    with contextlib.closing(sqlite3.connect("out.jsonl.run.db")) as connection:
        slowest = {
            row for (row,) in connection.execute("SELECT row + 1 FROM rows ORDER BY seconds DESC LIMIT 4")
        }
    assert {sample["row"] for sample in samples if "slowest" in sample["why"]} == slowest


def test_few_rows_are_all_shown_and_have_no_charts(make: Make) -> None:
    make(some_rows(20))
    assert len(as_json()["samples"]) == 20
    page = page_of()
    assert "<figure" not in page
    assert page.count('<details class="sample"') == 20
    make(some_rows(21), name="more.jsonl")
    assert "<figure" in page_of("more.jsonl")


@pytest.mark.parametrize("count", [0, 1])
def test_a_run_of_hardly_any_row_has_a_report(make: Make, count: int) -> None:
    make([{"prompt": "hello"}] * count)
    found = as_json()
    assert (found["rows"], len(found["samples"])) == (count, count)
    page = page_of()
    assert ("No row is finished yet" in page) == (count == 0)
    assert "complete" in page


def test_columns_of_a_row_are_bounded_and_exact(make: Make) -> None:
    rows = [
        {"prompt": f"q{number}", "id": 2**60 + number, **{f"c{n}": n for n in range(300)}}
        for number in range(5)
    ]
    make(rows, num_generations=2)
    samples = as_json()["samples"]
    assert [sample["columns"]["id"] for sample in samples] == [str(2**60 + number) for number in range(5)]
    assert [len(sample["columns"]) for sample in samples] == [12] * 5
    assert [sample["more_columns"] for sample in samples] == [289] * 5
    page = page_of()
    assert all(str(2**60 + number) in page for number in range(5))
    assert "and 289 more columns" in page


def test_settings_with_large_numbers_are_exact(make: Make) -> None:
    class SeededLLM(NoisyLLM):
        async def agenerate(  # type: ignore[override]
            self, input: Any, num_generations: int = 1, seed: int | None = None
        ) -> stillhouse.GenerateOutput:
            return stillhouse.prepare_output(["x"])

    make([{"prompt": "a"}], llm=SeededLLM(), seed=2**63 - 1)
    assert "9223372036854775807" in page_of()
    assert as_json()["settings"]["parameters"]["seed"] == 2**63 - 1


def test_an_input_that_is_gone_leaves_the_answers(make: Make) -> None:
    make(some_rows(30))
    Path("in.jsonl").unlink()
    Path("out.jsonl").unlink()
    found = as_json()
    assert (
        "in.jsonl is not a file that can be read here, and out.jsonl does not exist" in found["samples_note"]
    )
    assert all(sample["prompt"] is None for sample in found["samples"])
    assert any(sample["answers"] for sample in found["samples"])
    assert "Without prompts: the input " in page_of()


def test_an_input_that_moved_with_its_output_is_found(make: Make) -> None:
    make(some_rows(5))
    Path("elsewhere").mkdir()
    for file in [path for path in Path().iterdir() if path.is_file()]:
        shutil.move(file, "elsewhere")
    assert as_json("elsewhere/out.jsonl")["samples_note"] is None


def test_rows_that_were_changed_since_are_not_shown_as_asked(make: Make) -> None:
    rows = some_rows(15)
    make(rows)
    rows[4]["prompt"] = "something else"
    Path("in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    found = as_json()
    assert [sample["row"] for sample in found["samples"] if sample["prompt"] is None] == [5]
    assert found["samples_note"].startswith("the input was changed since the run: 1 of 15 rows")
    assert "something else" not in page_of()


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_prompts_of_rows_from_memory_are_those_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": number, "topic": f"t{number % 2}", "word": f"w{number}"} for number in range(9)]
    stillhouse.run(
        rows, llm=NoisyLLM(), output=name, template="Say {{ word }}", where="id > 3", show_bar=False
    )
    found = as_json(name, by="topic")
    assert found["samples_note"] is None
    assert {sample["row"]: sample["prompt"][-1]["text"] for sample in found["samples"]} == {
        number + 1: f"Say w{number}" for number in range(4, 9)
    }
    assert [sample["columns"].keys() - {"id", "topic"} for sample in found["samples"]] == [set()] * 5
    assert {sample["place"] for sample in found["samples"]} == {None}
    assert {group["value"]: group["rows"] for group in found["by"]["groups"]} == {"t0": 3, "t1": 2}
    Path(name).unlink()
    found = as_json(name)
    assert found["samples_note"] == (
        f"the state does not name a file as the input, and {name} does not exist"
    )
    assert found["samples"][0]["answers"]


def test_prompts_of_rows_from_memory_are_shown_while_the_run_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    stillhouse.run(rows, llm=NoisyLLM(), output="out.jsonl", show_bar=False)
    Path("out.jsonl").unlink()
    saved = PartialFolder.path_of(spool_path(Path("out.jsonl")))  # as a working run has it
    saved.mkdir()
    (saved / "rows.jsonl").write_text('{"prompt":"a"}\n{"prompt":"b"}\n')
    assert [sample["prompt"][0]["text"] for sample in as_json()["samples"]] == ["a", "b"]


def test_names_of_an_input_are_kept_so_that_they_can_be_found_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").touch()
    names = ["rows.jsonl", "*.jsonl", "datasets:org/name", "https://me:word@host/rows.jsonl?sig=secret"]
    assert provenance_of(NoisyLLM(), [], Names(names)).input == [
        str(tmp_path / "rows.jsonl"), str(tmp_path / "*.jsonl"), "datasets:org/name", "https://host/rows.jsonl",
    ]  # fmt: skip


def test_prompts_are_those_of_templates_and_system_messages(make: Make) -> None:
    make(
        [{"name": "Peru", "tongue": "Spanish"}],
        template="What is {{ name }}?", system="Be brief.",
    )  # fmt: skip
    (sample,) = as_json()["samples"]
    assert sample["prompt"] == [
        {"role": "system", "text": "Be brief."}, {"role": "user", "text": "What is Peru?"},
    ]  # fmt: skip
    assert sample["columns"] == {"tongue": "Spanish"}


def test_prompts_of_a_batch_file_are_shown(make: Make) -> None:
    line = {
        "custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "noisy-1", "messages": [{"role": "user", "content": "hello"}]},
    }  # fmt: skip
    make([line])
    assert as_json()["samples"][0]["prompt"] == [{"role": "user", "text": "hello"}]


def test_finish_reasons_say_how_many_answers_were_cut(make: Make) -> None:
    rows = [{"prompt": "w" + " w" * (20 if number < 28 else 2)} for number in range(65)]
    make(rows, max_new_tokens=8)
    found = as_json()
    assert found["answers"]["cut"] == 28
    assert found["finish_reasons"] == {"length": 28, "stop": 37}
    page = page_of()
    assert "28 answers (43%) were cut at max_new_tokens=8." in page
    assert "65 rows have the same content" not in page
    assert "63 rows have the same content as an earlier row" in page


# Failures


def test_failures_are_grouped_by_message_and_can_be_copied(make: Make) -> None:
    rows = some_rows(200)
    make(rows)
    failed = [number for number, row in enumerate(rows, 1) if "fail" in row["prompt"]]
    (failure,) = as_json()["failures"]
    assert failure["rows"] == len(failed) == 20
    assert failure["examples"] == failed[:5]
    page = page_of()
    assert "complete, 20 rows failed" in page
    assert re.search(
        r'<td data-label="rows">20</td><td data-label="which">4, 14, 24, 34, 44 and 15 more</td>', page
    )
    # The call of a program cannot be copied into a shell.
    assert "the same command with <code>--retry timeout</code>" in page
    assert "stillhouse.run(&#39;in.jsonl&#39;, llm=&lt;NoisyLLM noisy-1&gt;" in page


def test_failures_have_the_times_of_the_first_and_the_last(make: Make) -> None:
    make(some_rows(30))
    with contextlib.closing(read(store_path(Path("out.jsonl")))) as connection:
        times = [
            finished for (finished,) in connection.execute("SELECT finished FROM rows WHERE kind IS NOT NULL")
        ]
    assert len(times) > 1
    (found,) = as_json()["failures"]
    first, last = (datetime.fromisoformat(found[name]).timestamp() for name in ("first_seen", "last_seen"))
    assert (first, last) == (int(min(times)), int(max(times)))
    text = page_of()
    assert "first and last seen" in text
    assert f'<time datetime="{found["first_seen"]}">' in text


def test_progress_curve_ends_with_the_rows_of_the_run() -> None:
    spans = Spans(1.0, [0.0, 1.0, 2.0, 3.0], [3, 0, 2], [0, 0, 0], [0, 0, 0], [0.0, 0.0, 0.0])
    facts: Any = SimpleNamespace(spans=spans, starts=[0.0], latency=Distribution({}))
    chart = next(chart for chart in _over_time(facts) if chart.name == "finished")
    assert [value for _, value in chart.rows] == ["3", "3", "5"]


def test_report_of_a_working_run_says_how_far_it_is(make: Make) -> None:
    make(some_rows(30))
    assert "<progress" not in page_of()
    with contextlib.closing(connect(store_path(Path("out.jsonl")))) as connection:
        connection.execute("DELETE FROM info WHERE key = 'complete'")
        connection.execute(
            "INSERT OR REPLACE INTO info VALUES (?, ?, ?)", sealed("info", REACH, "[120, true]")
        )
    found = as_json()
    assert (found["total"], found["total_is_estimated"], found["seconds_left"]) == (120, True, None)
    with contextlib.closing(read(store_path(Path("out.jsonl")))) as connection:
        write_report(connection, "out.jsonl", True, Path("working.html"))
    text = Path("working.html").read_text()
    bar = '<progress max="100" value="25.0" aria-label="Rows finished"></progress>'
    assert f"{bar} 30 of ~120 rows (25%), " in text
    assert re.search("rows/(s|min)(, about .* left)?</p>", text)
    assert "The run was working when this page was written." in text


def test_failures_over_time_are_drawn(make: Make) -> None:
    make(some_rows(200))
    found = as_json()
    assert sum(found["over_time"]["failed"]) == 20
    assert sum(found["over_time"]["rows"]) == 200


def test_no_failure_is_said(make: Make) -> None:
    make([{"prompt": "a"}])
    assert re.search(r'Failed rows</h2>\s*<div class="card">\s*<p class="none">None.</p>', page_of())


# Charts


def test_spans_are_longer_than_rows_take_so_that_they_do_not_alias() -> None:
    timeline = Timeline([(START, START + 10)])
    waves = [(START + 0.2 * (wave + 1), 0.2, 1, 1, False) for wave in range(50) for _ in range(64)]
    timeline.add(waves)
    shown = timeline.shown()
    assert shown.width >= ROUNDS_PER_SPAN * 0.2 * 0.99
    rates = shown.per_second(shown.rows)
    assert min(rates) > 0.7 * 320
    assert max(rates) < 1.3 * 320
    assert sum(shown.rows) == 3200
    assert shown.in_flight == pytest.approx([64] * len(shown.in_flight), rel=0.01)


@pytest.mark.parametrize("seconds", [0.0005, 3, 59, 4000, 90_000])
@pytest.mark.parametrize("rows", [1, 30, 5000])
def test_spans_have_every_row_whatever_their_width(seconds: float, rows: int) -> None:
    timeline = Timeline([(START, START + seconds)])
    dice = random.Random(2)
    timeline.add(
        (START + dice.random() * seconds, dice.random() * seconds, 3, 5, dice.random() < 0.2)
        for _ in range(rows)
    )
    shown = timeline.shown()
    assert sum(shown.rows) == rows
    assert sum(shown.failed) == sum(timeline.failed)
    assert sum(shown.output_tokens) == 5 * rows
    assert shown.edges[-1] == timeline.edges[-1]
    assert shown.edges == sorted(shown.edges)
    assert 1 <= len(shown.rows) <= 60
    assert len(shown.edges) == len(shown.rows) + 1


def test_a_chart_draws_what_its_table_says(tmp_path: Path) -> None:
    run = Filled(tmp_path / "out.jsonl")
    for number in range(2000):
        run.add(None if number % 9 == 0 else "x" * (number % 50), "timeout" if number % 9 == 0 else None)
    run.report()
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for name in ("rows", "failed", "tokens", "flight"):
        figure = page[page.index(f'<figure class="chart" id="{name}"') :].partition("</figure>")[0]
        points = re.findall(r'class="hit point"[^>]*><title>(.*?)</title>', figure)
        table = re.findall(r'<th scope="row">(.*?)</th><td class="number">(.*?)</td>', figure)
        assert 5 <= len(points) == len(table)
        for (span, value), point in zip(table, points, strict=True):
            assert point.startswith(f"{span}: {value} ")
        # The line has two ends for each of them, at the height that the value has.
        line = re.search(r'class="line" d="M(.*?)"', figure)
        assert line is not None
        heights = [100 - float(end.split()[1]) for end in line[1].split("L")]
        assert heights[::2] == heights[1::2]
        values = [float(value.replace(",", "").replace(" k", "e3")) for _, value in table]
        scale = max(heights) / max(values)
        assert heights[::2] == pytest.approx([value * scale for value in values], abs=1)
        assert re.search(r"\((mean of each|per) [\d.]+ s\)</figcaption>", figure)


# The head, the command, the environment


def test_the_head_says_when_with_the_offset_and_what(make: Make) -> None:
    make(some_rows(30))
    page = page_of()
    times = re.findall(r'<time datetime="(\S+)">(\S+ \S+ [+-]\d\d:\d\d)</time>', page)
    assert len(times) == 2
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", iso) for iso, _ in times)
    assert "<bdi>noisy-1</bdi>" in page
    (session,) = as_json()["sessions"]
    assert session["environment"]["python"].split()[1] == ".".join(map(str, sys.version_info[:3]))
    assert session["environment"]["packages"]["stillhouse"]
    assert session["environment"]["cpus"] >= 1
    assert session["environment"]["system"] in page


def test_a_command_in_a_state_has_no_secret(make: Make) -> None:
    make([{"prompt": "a"}], llm=NoisyLLM(api_key="sk-secret-1234567890"))
    for path in Path().glob("out.jsonl*"):
        if path.is_file():
            assert b"sk-secret" not in path.read_bytes()
    assert "sk-secret" not in page_of()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("latency=0.5", "latency=0.5"),
        ("api_key=sk-1234567890", "api_key=**********"),
        ("base_url=https://me:pass@host/v1", "base_url=https://**********@host/v1"),
        ('extra_headers={"Authorization": "Bearer abcdef"}', 'extra_headers={"Authorization": "**********"}'),
        ('x={"api_key": "sk-1"}', 'x={"api_key": "**********"}'),
        ("a flag", "a flag"),
    ],
)
def test_an_assignment_masks_what_its_name_says_is_secret(given: str, shown: str) -> None:
    assert assignment(given) == shown


def test_a_state_without_provenance_opens(make: Make) -> None:
    make(some_rows(30))
    with contextlib.closing(sqlite3.connect("out.jsonl.run.db")) as connection, connection:
        connection.execute("DELETE FROM info WHERE key LIKE 'session %'")
    found = as_json()
    assert found["command"] is None
    assert found["sessions"][0]["environment"] is None
    assert found["samples_note"] is None
    assert all(sample["prompt"] for sample in found["samples"])  # those of the output
    assert "No row is finished yet" not in page_of()


def test_a_retry_says_how_many_rows_it_cured(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(40)
    make(rows)
    monkeypatch.setattr(NoisyLLM, "fails", False)
    make(rows, retry="timeout")
    first, second = as_json()["sessions"]
    assert (first["retried"], second["retried"], second["done"]) == (0, 4, 4)
    assert "4: 4 done now" in page_of()


# Hostile content, size and memory


def test_whatever_is_in_a_run_stays_text(make: Make) -> None:
    rows = [{"prompt": f"{HOSTILE} {number}", HOSTILE: HOSTILE} for number in range(25)]
    rows[3]["prompt"] = f"fail {HOSTILE}"
    make(rows)
    page = page_of(by=HOSTILE)
    assert page.count("<script") == 1
    assert "<img" not in page
    assert not set(page) & set("\x00\x1b\u2028\u202e\u2066")
    assert "[U+202E]evil" in page
    assert "{{ 7*7 }}" in html.unescape(page)
    # The one script is the page's own, and the policy names it.
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page or f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert len(page.encode()) < MAX_BYTES


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb\rc\u2028d\u2029e\tf", "a\nb\nc\nd\ne\tf"),
        ("\x00\x1b[1m\x9b", "[U+0000][U+001B][1m[U+009B]"),
        ("\u202eabc\u2066", "[U+202E]abc[U+2066]"),
        ("\ud800\uffff", "[U+D800][U+FFFF]"),
        ("family \U0001f468\u200d\U0001f469, caf\u00e9\u00a0\u3000", "family \U0001f468\u200d\U0001f469, caf\u00e9\u00a0\u3000"),
    ],
)  # fmt: skip
def test_a_text_becomes_inert(text: str, shown: str) -> None:
    assert inert(text) == shown


def test_a_long_text_is_cut_with_a_note() -> None:
    assert cut("a" * 100, 100) == "a" * 100
    assert cut("a" * 101, 100) == "a" * 100 + "… (1 more characters)"
    long = cut("b" * 20_000_000, 100)
    assert long == "b" * 100 + "… (19,999,900 more characters)"
    image = "data:image/png;base64," + "A" * 5000
    assert cut(image, 500) == "data:image/png;base64," + "A" * 24 + "…"


def test_chats_and_answers_share_their_room() -> None:
    chat: Any = [{"role": "user", "content": f"{number} " + "x" * 500} for number in range(40)]
    turns = turns_of(chat, 2400)
    assert len(turns) == 11
    assert turns[4].text == "30 messages are left out here"
    assert turns[-1].text.startswith("39 ")
    assert sum(len(turn.text) for turn in turns) < 4000
    answers = answers_in({"generations": ["y" * 9000] * 50, "reasoning": ["z" * 9000] * 50}, 2400)
    assert 1 <= len(answers) <= 8
    assert sum(len(answer.text) + sum(len(turn.text) for turn in answer.more) for answer in answers) < 6000
    assert answers_in({"generations": None}, 100) == []


class Filled:
    """A state filled by hand, so that it may have very many rows."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.connection = connect(store_path(output))
        self.connection.execute("BEGIN")
        self.rows = 0

    def add(self, text: str | None, kind: str | None = None, message: str = "") -> None:
        error = None if kind is None else {"kind": kind, "message": message}
        columns = {
            "generations": None if text is None else [text], "statistics": {}, "finish_reasons": None,
            "model_name": "m", "error": error,
        }  # fmt: skip
        tokens = (None if text is None else 10, None if text is None else len(text))
        record = (
            self.rows, self.rows, 2 if kind else 1, kind, 1, json.dumps(columns), START + self.rows / 100, 0.5,
            *tokens, *[None] * (len(Tokens._fields) - 2),
        )  # fmt: skip
        self.connection.execute(f"INSERT INTO rows VALUES (?{', ?' * 16})", sealed("rows", *record))
        self.rows += 1

    def report(self) -> tuple[int, int]:
        """Write the report; return its size and the memory that this took at most."""
        record = sealed("sessions", 1, START, START + self.rows / 100, "complete", 7, "h", "1", "{}")
        self.connection.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", record)
        self.connection.execute("COMMIT")
        page = self.output.with_name("page.html")
        with contextlib.closing(read(store_path(self.output))) as connection:
            tracemalloc.start()
            write_report(connection, str(self.output), False, page)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        self.connection.close()
        return page.stat().st_size, most


@pytest.mark.parametrize(
    ("answers", "failures"),
    [(4_000, 2_000), pytest.param(200_000, 50_000, marks=pytest.mark.soak)],
    ids=["some", "very many"],
)
def test_a_report_of_many_large_answers_is_small(tmp_path: Path, answers: int, failures: int) -> None:
    run = Filled(tmp_path / "out.jsonl")
    for number in range(answers):
        run.add(f"{number} " + "word " * 1000)
    for number in range(failures):
        run.add(None, "rate_limit", f"429 Too Many Requests (request {number})")
    size, memory = run.report()
    assert size < MAX_BYTES / 2
    assert memory < 40_000_000
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f'<td data-label="rows">{failures:,}</td>' in page
    assert page.count("429 Too Many Requests") < 40


def test_a_report_of_a_row_of_20_million_characters_is_small(tmp_path: Path) -> None:
    run = Filled(tmp_path / "out.jsonl")
    for _ in range(30):
        run.add("short")
    run.add("x" * 20_000_000)
    size, _ = run.report()
    assert size < 200_000
    assert "more characters" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_largest_page_is_below_what_is_promised(make: Make) -> None:
    # Each letter is five in HTML, and each text is as long as one may be.
    def text(number: int) -> str:
        return f"{number}" + '"' * (3000 + number)

    rows: list[dict[str, Any]] = [
        {
            "messages": [{"role": "user", "content": text(number)}] * 12,
            **{f"{'&' * 200}{column}": '"' * 500 for column in range(300)},
            "topic": f"{'&' * 500}{number}",
        }
        for number in range(120)
    ]
    for number in range(0, 120, 3):
        # Messages that differ in their letters, so that each is a reason of its own.
        rows[number]["messages"] = [{"role": "user", "content": "fail " + '"' * number}]
    make(rows, num_generations=8, system='"' * 5000, template=None)
    assert 500_000 < len(page_of(by="topic").encode()) < MAX_BYTES
    make(rows, name="two.jsonl", num_generations=8, llm=NoisyLLM(suffix='"'))
    page = compare_runs("out.jsonl", "two.jsonl", stillhouse.Registry(entry_points=()).hooks())
    assert 300_000 < page.stat().st_size < MAX_BYTES


# Groups


def test_groups_are_counted_as_by_hand(make: Make) -> None:
    rows = some_rows(150)
    make(rows)
    found = as_json(by="topic")["by"]
    assert (found["column"], found["other"], found["unmatched_rows"]) == ("topic", None, 0)
    expected = Counter(row["topic"] for row in rows)
    failed = Counter(row["topic"] for row in rows if "fail" in row["prompt"])
    tokens = Counter[str]()
    for row in rows:
        if "fail" not in row["prompt"]:
            tokens[row["topic"]] += len(row["prompt"].split(" "))
    assert {group["value"]: group["rows"] for group in found["groups"]} == expected
    assert {group["value"]: group["failed"] for group in found["groups"]} == failed
    assert {group["value"]: group["input_tokens"] for group in found["groups"]} == tokens
    assert [group["rows"] for group in found["groups"]] == sorted(expected.values(), reverse=True)
    assert all(group["p50_seconds"] <= group["p95_seconds"] for group in found["groups"])
    page = page_of(by="topic")
    assert "By <bdi>topic</bdi>" in page
    assert all(f"<bdi>{topic}</bdi>" in page for topic in expected)


def test_groups_are_bounded_and_the_rest_is_counted(make: Make) -> None:
    make([{"prompt": "a", "id": number, "most": "x" if number % 2 else number} for number in range(600)])
    found = as_json(by="id")["by"]
    assert len(found["groups"]) == 50
    assert sum(group["rows"] for group in found["groups"]) + found["other"]["rows"] == 600
    assert found["other"]["values"] == 550
    assert as_json(by="most")["by"]["groups"][0] | {"p50_seconds": 0, "p95_seconds": 0} == {
        "value": "x", "rows": 300, "failed": 0, "p50_seconds": 0, "p95_seconds": 0, "input_tokens": 300,
        "output_tokens": 300, "cost": None,
    }  # fmt: skip


def test_groups_of_odd_values_have_names(make: Make) -> None:
    values: list[dict[str, Any]] = [
        {"k": None}, {}, {"k": ""}, {"k": 1}, {"k": True}, {"k": [1, "a"]}, {"k": 2**60}, {"k": "1"},
    ]  # fmt: skip
    make([{"prompt": "a", **value} for value in values])
    groups = as_json(by="k")["by"]["groups"]
    assert {group["value"]: group["rows"] for group in groups} == {
        "(null)": 1, "(no such column)": 1, "(empty)": 1, "1": 2, "true": 1, '[1,"a"]': 1, str(2**60): 1,
    }  # fmt: skip


def test_groups_of_a_column_that_does_not_exist_are_refused(make: Make) -> None:
    make(some_rows(3))
    with pytest.raises(stillhouse.ConfigurationError, match="the input has no column 'topik'") as caught:
        as_json(by="topik")
    assert "topic" in caught.value.hint
    Path("in.jsonl").unlink()
    Path("out.jsonl").unlink()
    with pytest.raises(stillhouse.ConfigurationError, match="not a file that can be read here"):
        as_json(by="topic")


def test_groups_leave_out_rows_that_were_changed(make: Make) -> None:
    rows = some_rows(30)
    make(rows)
    rows[7]["topic"] = "volcanoes"
    Path("in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    found = as_json(by="topic")["by"]
    assert found["unmatched_rows"] == 1
    assert "volcanoes" not in {group["value"] for group in found["groups"]}


# Two runs


def compared(one: str, two: str) -> dict[str, Any]:
    found = comparison_as_json(one, two, stillhouse.Registry(entry_points=()).hooks())
    jsonschema.validate(found, SCHEMA)
    return found


def test_two_runs_are_compared_as_by_hand(make: Make) -> None:
    rows = [{"prompt": f"say {number}" + " x" * (number % 6)} for number in range(60)]
    rows[5] = rows[6] = {"prompt": "say it"}
    make(rows, "one.jsonl")
    changed = [*rows[:50], *({"prompt": f"other {number}"} for number in range(7))]
    random.Random(3).shuffle(changed)
    make(changed, "two.jsonl", "other.jsonl", max_new_tokens=5)
    found = compared("one.jsonl", "two.jsonl")
    different = sum(len(row["prompt"].split(" ")) > 5 for row in rows[:50])
    assert found["rows"] == {
        "matched": 50, "same": 50 - different, "different": different, "failed_in_second": 0,
        "failed_in_first": 0, "failed_in_both": 0, "only_in_first": 10, "only_in_second": 7,
    }  # fmt: skip
    assert [difference["name"] for difference in found["settings"]] == ["parameters.max_new_tokens"]
    assert len(found["pairs"]) == min(10, different)
    for pair in found["pairs"]:
        prompt = pair["first"]["prompt"][0]["text"]
        assert rows[pair["first"]["row"] - 1]["prompt"] == prompt
        assert changed[pair["second"]["row"] - 1]["prompt"] == prompt
        assert pair["first"]["answers"][0]["text"] == prompt
        assert pair["second"]["answers"][0]["text"] == " ".join(prompt.split(" ")[:5])
    page = compare_runs("one.jsonl", "two.jsonl", stillhouse.Registry(entry_points=()).hooks())
    assert page.name == "one.jsonl.against.two.jsonl.report.html"
    text = page.read_text(encoding="utf-8")
    assert "Rows of the same content: 50" in text
    assert "In the first run alone: 10; in the second alone: 7." in text


def test_rows_that_failed_in_one_of_two_runs_are_told(make: Make) -> None:
    rows = [{"prompt": f"{'fail' if number < 4 else 'say'} {number}"} for number in range(10)]
    make(rows, "one.jsonl")
    make(rows, "two.jsonl", llm=stillhouse.create("echo"))
    make(rows, "same.jsonl")
    found = compared("one.jsonl", "two.jsonl")["rows"]
    assert (found["failed_in_first"], found["failed_in_second"], found["same"]) == (4, 0, 6)
    found = compared("two.jsonl", "one.jsonl")["rows"]
    assert (found["failed_in_first"], found["failed_in_second"]) == (0, 4)
    found = compared("one.jsonl", "same.jsonl")["rows"]
    assert (found["failed_in_both"], found["same"]) == (4, 6)


def test_two_runs_without_a_common_row_are_compared(make: Make) -> None:
    make([{"prompt": "a"}], "one.jsonl")
    Path("folder").mkdir()
    make([{"prompt": "b"}], "folder/one.jsonl", "folder/in.jsonl")
    found = compared("one.jsonl", "folder/one.jsonl")
    assert found["rows"]["matched"] == 0
    assert found["names"] == ["one.jsonl", "folder/one.jsonl"]
    page = compare_runs("one.jsonl", "folder/one.jsonl", stillhouse.Registry(entry_points=()).hooks())
    assert "No row of the one run has the content of a row of the other." in page.read_text(encoding="utf-8")


# A run that ended early


def test_a_report_of_a_run_that_was_stopped_has_its_rows(make: Make) -> None:
    rows = some_rows(40)
    make(rows, limit=15)
    first = as_json()
    assert (first["rows"], first["state"]) == (15, "complete")
    make(rows)
    page = page_of()
    again = page_of()
    assert len(page) == pytest.approx(len(again), abs=200)
    found = as_json()
    assert found["rows"] == len(Path("out.jsonl").read_text(encoding="utf-8").splitlines()) == 40
    assert sum(session["done"] + session["failed"] for session in found["sessions"]) == 40
    assert found["seconds_per_row"]["count"] == 40


def test_the_report_of_a_run_in_python_is_that_of_the_command(make: Make) -> None:
    run = make(some_rows(5))
    page = run.report()
    assert page.name == "out.jsonl.report.html"
    assert '<details class="sample"' in page.read_text(encoding="utf-8")
