"""Percentiles of how long rows took, in memory that does not grow with the rows."""

from __future__ import annotations

import math
import random

import pytest

from stillhouse.jobs.reporting.tables import summary_lines
from stillhouse.jobs.runs.latencies import Latencies
from stillhouse.jobs.runs.reasons import Reasons
from stillhouse.jobs.runs.statistics import RunStatistics


def test_percentiles_are_right_to_two_percent() -> None:
    chance = random.Random(4)
    values = sorted(chance.lognormvariate(0, 2) for _ in range(5001))
    found = Latencies()
    for value in values:
        found.add(value)
    for share in (0.0, 0.5, 0.95, 1.0):
        assert found.percentile(share) == pytest.approx(values[round(5000 * share)], rel=0.03)
    both = Latencies()
    both.add_all(found)
    both.add_all(found)
    assert both.percentile(0.5) == found.percentile(0.5)


def test_what_was_not_generated_here_has_no_latency() -> None:
    found = Latencies()
    for value in (None, 0.0, -1.0, math.inf, math.nan):
        found.add(value)
    assert found.percentile(0.5) is None


def test_memory_does_not_grow_with_the_rows() -> None:
    found = Latencies()
    for number in range(1, 200_000):
        found.add(number / 1000)
    assert len(found._counts) < 1000


def test_the_numbers_of_the_closing_table_are_below_each_other() -> None:
    statistics = RunStatistics()
    for number in range(1200):
        statistics.add({"generations": ["x"]}, 0.21 if number < 1000 else 1.9)
    lines = dict(summary_lines(statistics, Reasons()))
    assert lines["rows"] == "  1,200"
    assert lines["input tokens"] == "unknown"
    assert lines["latency per row, p50"].split() == ["0.21", "s"] or lines["latency per row, p50"].endswith(
        " ms"
    )
    assert lines["latency per row, p95"].lstrip().startswith("1.9")
    ends = {len(text) - len(text.lstrip()) + len(text.split()[0].split(".")[0]) for text in lines.values()}
    assert ends == {7}
