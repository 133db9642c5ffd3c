"""The progress of a run: what it says, that it fits, and how often a log gets a line."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import stillhouse
from stillhouse.jobs.reporting import showing
from stillhouse.jobs.reporting.lines import PlainLines
from stillhouse.jobs.reporting.notebook import NotebookBar
from stillhouse.jobs.reporting.pace import Pace
from stillhouse.jobs.reporting.progress import Extent, Progress, Tracker
from stillhouse.jobs.reporting.units import about, rows_rate, stopwatch
from stillhouse.jobs.runs.statistics import RunStatistics
from stillhouse.jobs.spending.budget import Budget, Ceiling
from stillhouse.jobs.spending.prices import Prices

from ..cli.terminals import on_pty, plain

WHOLE = Progress(
    rows=706, failed=31, in_flight=50, share=0.235, input_tokens=1400, output_tokens=2800, cost=1.5,
    seconds=62.4, finished=706, total=3004, is_estimated=True, running=8, rows_per_second=11.3,
    tokens_per_second=45.2, seconds_left=203.0, budget_left="2,000 tokens",
)  # fmt: skip


def line(progress: Progress, width: int, bar: str = "━─") -> str:
    return "".join(part.text for part in progress.parts(width, bar))


def test_the_line_is_what_it_is_at_each_width() -> None:
    assert [line(WHOLE, width) for width in (20, 40, 79, 119)] == [
        " 23%    706/~3,000",
        " 23%    706/~3,000  31 failed  ETA 3:23",
        "━━────────   23%    706/~3,000  31 failed  1:02  ETA 3:23  11.3 rows/s",
        "━━━━────────────────   23%    706/~3,000  31 failed  1:02  ETA 3:23  11.3 rows/s  8 running, 42 waiting",
    ]
    assert line(replace(WHOLE, running=None, budget_left=None), 79, "#-") == (
        "##--------   23%    706/~3,000  31 failed  1:02  ETA 3:23  11.3 rows/s"
    )


def test_the_line_of_a_log_has_everything() -> None:
    assert str(WHOLE) == (
        "706 of ~3,000 rows (23%), 31 failed, 11.3 rows/s, 45 tokens/s, 8 running, 42 waiting, 4,200 tokens, "
        "$1.50, 2,000 tokens left, 1:02 elapsed, ETA 3:23"
    )
    one = Progress(1, 1, 0, None, 1, None, None, 1.0, finished=1, rows_per_second=0.02)
    assert str(one) == "1 row, 1 failed, 1.2 rows/min, 0 in flight, 1 token, 0:01 elapsed"
    assert line(one, 79) == "1 row  1 failed  0:01  1.2 rows/min  0 in flight  1 token"
    assert str(replace(one, total=1)).startswith("1 of 1 rows, ")


def test_every_width_is_kept() -> None:
    large = replace(WHOLE, finished=999_999_999, total=1_000_000_000, is_estimated=False, cost=12345.678)
    for progress in (WHOLE, large, replace(WHOLE, share=None, total=None, seconds_left=None)):
        for width in range(34, 240):
            assert len(line(progress, width)) <= width


def test_the_parts_of_the_line_stay_where_they_are_when_the_end_can_be_estimated() -> None:
    names = [re.findall("rows/s|running|failed|─", line(progress, 99)) for progress in (
        WHOLE, replace(WHOLE, seconds_left=None))]  # fmt: skip
    assert names[0] == names[1]


class Clock(RunStatistics):
    """What a run did, at a time that the test says."""

    now = 0.0

    @property
    def seconds(self) -> float:
        return self.now


def tracker(clock: Clock, total: int | None = None, slots: int | None = None, read: Any = None) -> Tracker:
    return Tracker(clock, Extent(read or (lambda: None), lambda: total, 64, slots))


def test_no_end_is_estimated_before_the_speed_means_something() -> None:
    clock = Clock()
    tracked = tracker(clock, total=3000)
    clock.now, clock.done, clock.pulled = 0.2, 1, 65
    assert tracked.now().seconds_left is None
    clock.now, clock.done = 1.9, 500
    assert tracked.now().seconds_left is None
    clock.now, clock.done = 2.0, 1000
    assert tracked.now().seconds_left == pytest.approx(4.0)
    slow = Clock()
    tracked = tracker(slow, total=3000)
    slow.now, slow.done, slow.pulled = 60.0, 19, 83
    assert tracked.now().seconds_left is None
    slow.done = 20
    assert tracked.now().seconds_left is not None


def test_the_speed_is_that_of_the_last_half_minute() -> None:
    pace = Pace()
    for second in range(1, 101):
        pace.add(float(second), 10 * second, 0)
    for second in range(101, 141):
        pace.add(float(second), 1000 + second - 100, 5 * (second - 100))
    assert pace.rows_per_second == 1.0
    assert pace.tokens_per_second == 5.0
    for number in range(10_000):
        pace.add(140 + number / 1000, 1040, 0)
    assert len(pace._samples) < 400


def test_running_and_waiting_are_told_apart_where_the_engine_has_slots() -> None:
    clock = Clock()
    clock.pulled = 50
    assert "8 running, 42 waiting" in str(tracker(clock, slots=8).now())
    assert "50 in flight" in str(tracker(clock).now())
    assert "50 in flight" in str(tracker(clock, slots=64).now())
    clock.done = 45
    assert "5 running, " in str(tracker(clock, slots=8).now())


def test_the_total_is_estimated_from_what_was_read_and_never_goes_back() -> None:
    clock, read = Clock(), [0.1]
    tracked = tracker(clock, read=lambda: read[0])
    clock.pulled, clock.done = 300, 200
    progress = tracked.now()
    assert (progress.total, progress.is_estimated, round(progress.share or 0, 3)) == (3000, True, 0.067)
    clock.pulled, clock.done, read[0] = 3000, 3000, 1.0
    assert (tracked.now().total, tracked.now().is_estimated) == (3000, False)
    read[0] = 0.5  # the output is written: the input is read once more
    assert (tracked.now().share, tracked.now().total) == (1.0, 3000)


def test_of_a_resumed_run_all_rows_count_and_the_speed_is_that_of_this_session() -> None:
    clock = Clock(skipped=500, pulled=600)
    tracked = tracker(clock, total=1000)
    clock.now, clock.done = 10.0, 100
    progress = tracked.now()
    assert (progress.finished, progress.rows, progress.seconds_left) == (600, 100, 40.0)
    assert str(progress).startswith("600 of 1,000 rows, 0 failed, 10.0 rows/s")


def test_a_budget_and_a_cost_are_in_the_line() -> None:
    clock = Clock(done=40, input_tokens=900, output_tokens=400, pulled=50)
    clock.prices, clock.cost, clock.now = Prices("test", (), ()), 1.5, 4.0
    clock.budget = Budget(Ceiling(stillhouse.create("echo"), {"max_new_tokens": 1}, 2000, None))
    assert "1,300 tokens, $1.50, 2,000 tokens left, 0:04 elapsed" in str(tracker(clock).now())


def test_numbers_are_as_people_read_them() -> None:
    assert [stopwatch(seconds) for seconds in (0.4, 8, 61, 3723, -1)] == [
        "0:00", "0:08", "1:01", "1:02:03", "0:00",
    ]  # fmt: skip
    assert [rows_rate(rate) for rate in (1234.5, 12.34, 0.5, 0.005, 0.0)] == [
        "1,234 rows/s", "12.3 rows/s", "30.0 rows/min", "18.0 rows/h", "0.0 rows/s",
    ]  # fmt: skip
    assert [about(number) for number in (7, 42, 2987, 123456)] == ["~7", "~42", "~3,000", "~120,000"]


# In a log


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("seconds", [60, 3600, 365 * 24 * 3600])
def test_the_lines_of_any_run_are_few(share: bool, seconds: int) -> None:
    stream = io.StringIO()
    lines = PlainLines(stream)
    step = max(0.5, seconds / 20_000)
    for number in range(1, int(seconds / step) + 1):
        now = number * step
        lines(replace(WHOLE, seconds=now, share=now / seconds if share else None))
    printed = stream.getvalue().splitlines()
    assert 3 <= len(printed) < 50
    assert not re.search("[\r\x1b]", stream.getvalue())


class Told(io.StringIO):
    """A stream on which a test waits for the first line."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        self.told.set()
        return written


def test_a_log_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "PLAIN_SECONDS", 0.001)
    clock, stream = Clock(done=40, pulled=50), Told()
    clock.now = 6.0
    with showing.show_progress(stream, tracker(clock)):
        assert stream.told.wait(30)
    assert stream.getvalue().splitlines()[0].startswith("40 rows, 0 failed, ")


def test_a_stream_that_is_closed_ends_the_display_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "PLAIN_SECONDS", 0.001)
    tried = threading.Event()

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            tried.set()
            raise ValueError("I/O operation on closed file")

    clock = Clock(done=40)
    clock.now = 6.0
    with showing.show_progress(Closed(), tracker(clock)):
        assert tried.wait(30)


LOGGED = """
import sys
from stillhouse.jobs.reporting import lines, showing
lines.FIRST_SECONDS, showing.PLAIN_SECONDS = 0.02, 0.01
from stillhouse.cli import main
main()
"""


@pytest.mark.parametrize(
    "environment", [{}, {"TERM": "dumb"}, {"CI": "1", "NO_COLOR": "1"}, {"COLUMNS": "20"}], ids=str
)
def test_5000_rows_into_a_log_leave_few_whole_lines(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a b"}\n' * 5000)
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        status = subprocess.run(
            [sys.executable, "-c", LOGGED, "generate", "rows.jsonl", "--llm", "echo", "-o", "out.jsonl"],
            cwd=tmp_path, stderr=stderr, env={**os.environ, **environment},
        ).returncode  # fmt: skip
    printed = log.read_bytes()
    assert status == 0
    assert not re.search(rb"[\r\x1b]", printed)
    assert b" of " in printed
    assert len(printed.splitlines()) < 50


# On a terminal

SCRIPTED = """
import sys, threading
from stillhouse.jobs.reporting import lines, showing
from stillhouse.jobs.reporting.progress import Extent, Tracker
from stillhouse.jobs.runs.statistics import RunStatistics
lines.FIRST_SECONDS, showing.LIVE_SECONDS, showing.PLAIN_SECONDS = 0.01, 0.01, 0.01
class Clock(RunStatistics):
    seconds = 62.0
asked = []
seen = threading.Event()
class Counting(Tracker):
    def now(self):
        asked.append(0)
        if len(asked) > 5:
            seen.set()
        return super().now()
clock = Clock(done=706, failed={"server": 31}, pulled=800, input_tokens=1400, output_tokens=2800)
tracker = Counting(clock, Extent(lambda: 0.25, lambda: 3000, 64, 8))
with showing.show_progress(sys.stderr, tracker) as note:
    seen.wait()
    note("a note")
"""


@pytest.mark.parametrize(
    ("columns", "term", "expected"),
    [
        (80, "xterm", "━━────────   23%    737/3,000  31 failed  1:02  ETA 3:10  11.9 rows/s"),
        (120, "xterm", "━━━━────────────────   23%    737/3,000  31 failed  1:02  ETA 3:10  11.9 rows/s"
         "  45 tokens/s  8 running, 55 waiting"),
        (20, "xterm", " 23%    737/3,000"),
    ],
)  # fmt: skip
def test_the_live_line_never_wraps(tmp_path: Path, columns: int, term: str, expected: str) -> None:
    status, got = on_pty(["-c", SCRIPTED], tmp_path, columns, TERM=term)
    lines = plain(got).splitlines()
    assert status == 0, got
    assert any(line.startswith(expected) for line in lines), got
    assert "a note" in lines
    assert all(len(line) < columns for line in lines)


def test_the_live_line_has_no_colour_where_none_is_wanted(tmp_path: Path) -> None:
    _, coloured = on_pty(["-c", SCRIPTED], tmp_path, 80)
    assert re.search("\x1b\\[[0-9;]*m", coloured)
    _, got = on_pty(["-c", SCRIPTED], tmp_path, 80, NO_COLOR="1")
    assert "737/3,000" in got
    assert not re.search("\x1b\\[[0-9;]*m", got)


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    status, got = on_pty(["-c", SCRIPTED], tmp_path, 80, TERM="dumb")
    assert status == 0
    assert "\x1b" not in got
    assert got.startswith("737 of 3,000 rows (23%), 31 failed")


# In a notebook


class Page:
    """What IPython's display shows, one page after the other."""

    def __init__(self) -> None:
        self.pages: list[str] = []
        self.displays = 0

    def display(self, page: str, display_id: bool) -> Page:
        assert display_id
        self.displays += 1
        self.pages.append(page)
        return self

    def update(self, page: str) -> None:
        self.pages.append(page)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Page:
    page = Page()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(
        sys.modules, "IPython.display", SimpleNamespace(HTML=lambda text: text, display=page.display)
    )
    return page


def test_a_notebook_has_one_bar_with_the_last_counts_also_after_an_interrupt(
    notebook: Page, tmp_path: Path
) -> None:
    class InterruptingLLM(stillhouse.LLM):
        @property
        def model_name(self) -> str:
            return "m"

        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            signal.raise_signal(signal.SIGINT)
            return [stillhouse.prepare_output(["a"]) for _ in inputs]

    rows = [{"prompt": "<b>"}] * 40
    with pytest.raises(KeyboardInterrupt):
        stillhouse.run(rows, llm=InterruptingLLM(), output=tmp_path / "out.jsonl")
    assert notebook.displays == 1
    assert " 32 of " in notebook.pages[-1]
    assert not [thread for thread in threading.enumerate() if "progress" in thread.name]
    stillhouse.run(rows, llm="echo", output=tmp_path / "other.jsonl")
    assert notebook.displays == 2
    assert "40 of 40 rows (100%), 0 failed" in notebook.pages[-1]


def test_the_bar_of_a_notebook_is_as_long_as_the_share(notebook: Page) -> None:
    bar = NotebookBar()
    bar(WHOLE)
    assert notebook.pages[0].startswith('<progress max="1" style')
    assert notebook.pages[1].startswith('<progress max="1" value="0.2350"')


def test_a_run_of_two_worker_processes_has_one_line_from_the_parent_alone(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n' * 40)
    status, got = on_pty(
        [
            "generate",
            "in.jsonl",
            "--llm",
            "echo",
            "--executor",
            "processes",
            "--workers",
            2,
            "-o",
            "out.jsonl",
        ],
        tmp_path,
        80,
    )
    assert status == 0, got
    assert got.count("\x1b[?25l") == 1  # the cursor is hidden once, by one display
    _, _, rest = got.partition("\x1b[?25l")
    line, _, after = rest.partition("\x1b[?25h")
    assert "arning" not in got
    assert "\n" not in line.strip()
    assert re.search("^rows +40$", plain(after), re.M), got
