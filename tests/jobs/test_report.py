"""The report of a run: its figures, against counting by hand, and the page as a browser shows it."""

from __future__ import annotations

import contextlib
import json
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stillhouse.jobs.reporting.charts import Distribution, histogram, series
from stillhouse.jobs.reporting.report import write_report
from stillhouse.jobs.reporting.timeline import Timeline
from stillhouse.jobs.store.columns import Tokens
from stillhouse.jobs.store.database import connect, read, store_path
from stillhouse.jobs.store.seals import sealed

START = 1_700_000_000.0
HOSTILE = "</style><script>alert('x')</script> & \"quoted\" " + "a" * 300


class Run:
    """A run's database, filled by hand."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.rows = 0
        self.connection = connect(store_path(output))
        command = {
            "llm": {"llm": "openai", "model": "gpt-5-mini", "structured_output": {"schema": "x" * 400}},
            "model_name": "gpt-5-mini", "parameters": {"temperature": 0.2, "max_new_tokens": 512},
            "num_generations": 1, "template": "{{ <b>question</b> }}", "system": None, "raw": False, "input": "d",
        }  # fmt: skip
        offer = {"backend": "openai", "model": "gpt-5-mini", "api_url": "https://api.openai.com/v1"}
        for key, value in {"command": command, "offer": offer}.items():
            self.note(key, value)

    def note(self, key: str, value: object) -> None:
        self.connection.execute("INSERT INTO info VALUES (?, ?, ?)", sealed("info", key, json.dumps(value)))

    def session(self, started: float, ended: float | None, outcome: str | None) -> None:
        ((number,),) = self.connection.execute("SELECT count(*) FROM sessions")
        self.connection.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            sealed("sessions", number, started, ended, outcome, 7, "h", "1", "{}"),
        )

    def add(
        self, finished: float, seconds: float | None, tokens: tuple[int | None, int | None],
        error: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        kind, message = error or (None, None)
        result = {"error": {"kind": kind, "message": message} if error else None, "generations": ["x"]}
        counts = (*tokens, *[None] * (len(Tokens._fields) - 2))
        record = (self.rows, 0, 2 if error else 1, kind, 1, json.dumps(result), finished, seconds, *counts)
        self.connection.execute(f"INSERT INTO rows VALUES (?{', ?' * 16})", sealed("rows", *record))
        self.rows += 1

    def report(self, working: bool = False) -> Path:
        page = self.output.with_name("report.html")
        with contextlib.closing(read(store_path(self.output))) as connection:
            write_report(connection, str(self.output), working, page)
        return page


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "out.jsonl")
    yield run
    run.connection.close()


def fill(run: Run, rows: int, seed: int = 1) -> None:
    """Two sessions a day apart, with failures of several kinds."""
    dice = random.Random(seed)
    run.connection.execute("BEGIN")
    for session in range(2):
        start = now = START + session * 86400
        for _ in range(rows // 2):
            now += dice.expovariate(rows / 2 / 600)
            seconds = min(dice.lognormvariate(0.6, 0.5), now - start)
            failed = dice.random() < 0.03
            kind = dice.choice(["timeout", "rate_limit", "schema"])
            tokens = (int(dice.lognormvariate(5, 0.6)), int(min(512, dice.lognormvariate(5, 0.6))))
            run.add(now, seconds, (None, None) if failed else tokens, (kind, HOSTILE) if failed else None)
        run.session(start, now, "complete" if session else "interrupted")
    run.note("complete", {})
    run.connection.execute("COMMIT")


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text += " " + data.strip()


def test_report_page_is_self_contained_and_escapes_content(made: Run) -> None:
    fill(made, 400)
    page = Page(made.report())
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1
    assert names.count("style") == 1
    addresses = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "data")
    ]
    assert addresses == ["data:,"]
    assert "url(" not in made.report().read_text(encoding="utf-8")
    assert HOSTILE[:60] in page.text
    assert "{{ <b>question</b> }}" in page.text
    # Every chart has its numbers in a table, and says what it is.
    figures = [attributes for tag, attributes in page.tags if tag == "figure"]
    assert [attributes["id"] for attributes in figures] == [
        "rows", "finished", "failed", "tokens", "flight", "latency", "input", "output",
    ]  # fmt: skip
    assert names.count("table") == len(figures) + 4  # three kinds of failures, and the sessions
    images = [attributes for tag, attributes in page.tags if attributes.get("role") == "img"]
    assert all(attributes["aria-label"] for attributes in images)
    assert [names.count(tag) for tag in ("html", "head", "h1", "main")] == [1, 1, 1, 1]


def test_report_figures_match_the_recorded_rows(made: Run) -> None:
    made.session(START, START + 100, "complete")
    made.note("complete", {})
    for number in range(100):
        failed = number % 25 == 3
        made.add(
            START + number + 1, 0.5 if number else 0.0, (None, None) if failed else (10, 20),
            ("timeout", f"gone {number}") if failed else None,
        )  # fmt: skip
    text = Page(made.report()).text
    for fact in (
        "100",
        "1.0 rows/s",
        "4.0% of the rows",
        "960",
        "1,920",
        "19 tokens/s",
        "1 min 40 s",
        "complete",
    ):
        assert f" {fact} " in text, fact
    assert re.search(r"timeout\s+4\b", text)
    assert re.search(r"4\s+4, 29, 54, 79\s+gone 3\b", text)
    assert "complete, 4 rows failed" in text
    assert "--retry timeout" in text
    assert "p50 500 ms" in text


def test_timeline_shows_mean_calls_in_flight_per_interval() -> None:
    timeline = Timeline([(START, START + 10), (START + 1000, START + 1010)])
    assert timeline.edges[-1] == 20
    calls = [(START + 10, 10.0), (START + 4, 2.0), (START + 1005, 50.0), (START + 1010, 2.5)]
    timeline.add((finished, seconds, 1, 6, False) for finished, seconds in calls)
    flights = timeline.in_flight()

    def between(start: float, end: float) -> float:
        spans = zip(flights, timeline.edges, timeline.edges[1:], strict=False)
        return sum(value * (b - a) for value, a, b in spans if start - 1e-9 <= a and b <= end + 1e-9)

    # A call began no earlier than its session, whatever it says.
    assert (between(0, 2), between(2, 4), between(4, 10)) == pytest.approx((2, 4, 6))
    assert (between(10, 15), between(15, 17.4), between(17.6, 20)) == pytest.approx((5, 0, 2.4))
    assert sum(timeline.rows) == 4
    assert sum(timeline.output_tokens) == 24


def test_a_session_that_was_killed_ends_with_its_last_row(made: Run) -> None:
    made.session(START, None, None)
    made.add(START + 30, 1.0, (1, 1))
    made.session(START + 500, START + 510, "interrupted")
    made.add(START + 505, 1.0, (1, 1))
    text = Page(made.report()).text
    assert " 40 s " in text
    assert "killed" in text


@pytest.mark.parametrize(
    ("sessions", "working", "state"),
    [
        ([], False, "not started"),
        ([None], True, "working"),
        ([None], False, "killed"),
        (["stopped"], False, "stopped"),
    ],
)
def test_a_run_without_a_row_has_a_report(made: Run, sessions: list[Any], working: bool, state: str) -> None:
    for outcome in sessions:
        made.session(START, START + 1 if outcome else None, outcome)
    text = Page(made.report(working)).text
    assert "No row is finished yet" in text
    assert state in text


def test_a_run_that_only_failed_has_a_report(made: Run) -> None:
    made.session(START, START + 5, "stopped")
    made.add(START + 1, 0.0, (None, None), ("invalid_input", "line 1: it is not JSON"))
    made.add(START + 2, None, (None, None), ("server", "no answer"))
    text = Page(made.report()).text
    assert "100.0% of the rows" in text
    assert "line 1: it is not JSON" in text


@pytest.mark.parametrize(
    "values",
    [[0], [5], [1, 2, 3], [990, 1000, 1010], [4, 4, 4], [1000] * 9, [1] * 999 + [10**6], list(range(500))],
)
def test_a_histogram_shows_every_value_once(values: list[int]) -> None:
    counts: dict[float, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    found = Distribution(counts)
    chart = histogram("x", "X", found, lambda value: f"{value:,.0f}", whole=True)
    shown = sum(int(text.replace(",", "")) for span, text in chart.rows[: len(chart.bars)])
    beyond = re.match(r"([\d,]+) row", chart.note)
    assert shown + (int(beyond[1].replace(",", "")) if beyond else 0) == len(values)
    ranked = sorted(values)
    assert found.percentile(0.5) == ranked[(len(values) + 1) // 2 - 1]
    assert all(0 <= mark.position <= 100 for mark in chart.marks)
    assert all(0 <= label.position <= 100.01 for label in chart.x_labels)
    texts = [label.text for label in chart.x_labels]
    assert len(texts) == len(set(texts)) >= 2
    assert max(bar.height for bar in chart.bars) <= 100
    assert max(bar.left + bar.width for bar in chart.bars) <= 100.01


@pytest.mark.parametrize("seconds", [0.05, 3, 59, 4000, 90_000, 2_000_000])
def test_a_time_axis_has_few_labels_of_one_unit(seconds: float) -> None:
    edges = [seconds * part / 10 for part in range(11)]
    chart = series("x", "X", [1.0] * 10, edges, [], "rows/s")
    assert 1 <= len(chart.x_labels) <= 7
    assert len({label.text.split()[1] for label in chart.x_labels}) == 1
    assert len(chart.rows) == 10


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(name: str, rows: int) -> int:
        run = Run(tmp_path / name)
        fill(run, rows)
        tracemalloc.start()
        run.report()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        run.connection.close()
        return most

    peak("first", 1000)  # what is imported and compiled counts once
    small = peak("small", 1000)
    assert peak("large", 30_000) < 1.5 * small + 1_000_000


def test_report_command_writes_a_page(made: Run, tmp_path: Path) -> None:
    fill(made, 50)

    def stillhouse(*arguments: object) -> subprocess.CompletedProcess[str]:
        code = "from stillhouse.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    made_page = stillhouse("report", made.output)
    assert made_page.returncode == 0, made_page.stderr
    page = Path(f"{made.output}.report.html")
    assert made_page.stdout.strip() == str(page)
    assert "<h1>out.jsonl</h1>" in page.read_text(encoding="utf-8")
    # A slip of the pen must not cost the output.
    made.output.write_text("kept")
    slip = stillhouse("report", made.output, "-o", made.output)
    assert slip.returncode == 2
    assert "no name of a page" in slip.stderr
    assert made.output.read_text() == "kept"
    missing = stillhouse("report", tmp_path / "other.jsonl")
    assert missing.returncode == 1
    assert "there is no run of this output" in missing.stderr
    nowhere = stillhouse("report", made.output, "-o", tmp_path / "no" / "page.html")
    assert nowhere.returncode == 1
    assert "cannot be written" in nowhere.stderr


# In a browser


OVERLAPS = """() => {
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.data.trim() || node.parentElement.closest(".hidden, svg, details:not([open]) > :not(summary)")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects())
      if (box.width && box.height) texts.push([node.data.trim(), box]);
  }
  const found = [];
  for (let i = 0; i < texts.length; i++)
    for (let j = i + 1; j < texts.length; j++) {
      const [a, b] = [texts[i][1], texts[j][1]];
      const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (width > 1 && height > 4) found.push([texts[i][0], texts[j][0]]);
    }
  return [texts.length, found];
}"""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(made: Run, browser: Any, width: int, height: int, scheme: str) -> None:
    fill(made, 3000)
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    troubles: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = made.report().as_uri()
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.locator("figure.chart svg")
    assert figures.count() == 8
    for number in range(7):
        box = figures.nth(number).bounding_box()
        assert box["width"] > 200
        assert box["height"] > 80
    for shape in (".line", ".bar"):
        heights = page.locator(shape).evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().height)"
        )
        assert max(heights) > 80
    count, overlaps = page.evaluate(OVERLAPS)
    assert count > 80
    assert overlaps == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")
    # The numbers open, with the keyboard too, and fit.
    page.locator("figure.chart summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("figure.chart table").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert asked == [address]
    assert troubles == []
    page.close()


@pytest.mark.browser
def test_a_report_without_rows_in_a_browser(made: Run, browser: Any) -> None:
    made.session(START, None, None)
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(made.report(working=True).as_uri())
    assert page.get_by_text("No row is finished yet.").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
