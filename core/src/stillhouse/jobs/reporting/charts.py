"""Charts as geometry in percent: the page draws the shapes, and places the labels as text.

So a chart fills any width, and its labels keep their size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stillhouse._wording import number_of

__all__ = ["Bar", "Chart", "Distribution", "Label", "histogram", "series"]

BINS = 40

_TIME_STEPS = [
    (0.1, "s"), (0.2, "s"), (0.5, "s"), (1, "s"), (2, "s"), (5, "s"), (10, "s"), (20, "s"), (30, "s"),
    (60, "min"), (120, "min"), (300, "min"), (600, "min"), (1200, "min"), (1800, "min"),
    (3600, "h"), (7200, "h"), (14400, "h"), (21600, "h"), (43200, "h"),
]  # fmt: skip
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Label(NamedTuple):
    """A text at a position along an axis, in percent."""

    position: float
    text: str


class Bar(NamedTuple):
    """A bar, in percent from the left and from the bottom, and its text; of a series, its width is drawn."""

    left: float
    width: float
    height: float
    title: str


@dataclass
class Chart:
    """One chart.

    Attributes:
        name: for references within the page.
        title: what it shows.
        note: a sentence about it; may be empty.
        bars: the shape of a distribution, or what there is to point at in a series; each with its value.
        line: the shape of a series, as the path of its upper edge.
        x_labels: along the horizontal axis.
        y_labels: along the vertical axis.
        marks: lines across it with a text.
        breaks: positions where another session began, each with a text.
        header: the header of its table of numbers.
        rows: the rows of that table.
    """

    name: str
    title: str
    note: str = ""
    bars: list[Bar] = field(default_factory=list)
    line: str = ""
    x_labels: list[Label] = field(default_factory=list)
    y_labels: list[Label] = field(default_factory=list)
    marks: list[Label] = field(default_factory=list)
    breaks: list[Label] = field(default_factory=list)
    header: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)


class Distribution:
    """How often each value of a quantity occurs; no value is negative.

    Args:
        counts: values, and how often each occurs.
    """

    def __init__(self, counts: dict[float, int]) -> None:
        self._values = sorted(counts.items())
        self.count = sum(counts.values())
        self.total = sum(value * count for value, count in self._values)
        self.largest = self._values[-1][0] if self._values else 0.0

    def values(self) -> list[tuple[float, int]]:
        """Return the values in ascending order, and how often each occurs."""
        return self._values

    def percentile(self, share: float) -> float:
        """Return the value that this share of the values does not exceed."""
        wanted, seen = share * self.count, 0
        for value, count in self._values:
            seen += count
            if seen >= wanted:
                return value
        return self.largest


def histogram(
    name: str, title: str, found: Distribution, text: Callable[[float], str], *, whole: bool = False
) -> Chart:
    """Draw the chart of a distribution, with its median and upper percentiles marked.

    Args:
        name: its name.
        title: its title.
        found: the distribution; not an empty one.
        text: formats a value with its unit.
        whole: whether the values are whole numbers.
    """
    values = found.values()
    low, high = values[0][0], found.largest or 1.0
    # A few very large values would leave no room for all others.
    most = found.percentile(0.99)
    top = 1.25 * most if 0 < 1.5 * most < high else high
    # If no value is small, the axis does not start at zero.
    base = 0.0 if low <= top / 2 or (whole and top <= BINS) else min(low, 0.98 * top)
    step = _nice((top - base) / BINS or top / BINS)
    if whole:
        step = max(1.0, math.ceil(step))
    base = math.floor(base / step) * step
    bins = max(1, math.ceil((top - base) / step + (1e-9 if not whole else 0.5)))
    end = base + bins * step
    # A whole number is in the middle of its bar.
    shift = 0.5 if whole else 0.0

    def place_of(value: float) -> float:
        return min(100.0, 100 * (value + shift - base) / (end - base))

    counts, beyond = [0] * bins, 0
    for value, count in values:
        place = int((value - base) / step)
        if place < bins:
            counts[place] += count
        else:
            beyond += count
    y_labels, y_top = _count_axis(max(counts))
    chart = Chart(name, title, y_labels=y_labels)
    for place, count in enumerate(counts):
        start = base + place * step
        last = start + step - 1 if whole else start + step
        span = text(start) if whole and last == start else f"{text(start)} to {text(last)}"
        if count:
            title_ = f"{span}: {number_of(count, 'row')}"
            chart.bars.append(Bar(100 * place / bins, 100 / bins, 100 * count / y_top, title_))
            chart.rows.append((span, f"{count:,}"))
    tick = _nice((end - base) / 4)
    tick = max(1.0, tick) if whole else tick
    first = math.ceil(base / tick) * tick
    chart.x_labels = [
        Label(place_of(first + number * tick), text(first + number * tick))
        for number in range(int((end - shift - first) / tick + 1e-6) + 1)
    ]
    for share, label in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99")):
        value = found.percentile(share)
        chart.marks.append(Label(place_of(value), f"{label} {text(value)}"))
        chart.rows.append((f"{label}, {share:.0%} of the rows at most", text(value)))
    chart.rows += [("mean", text(found.total / found.count)), ("largest", text(found.largest))]
    chart.header = ("range", "rows")
    if beyond:
        chart.note = (
            f"{number_of(beyond, 'row', 'lies/lie')} beyond {text(end)}, up to {text(found.largest)}."
        )
    return chart


def series(
    name: str, title: str, values: Sequence[float], edges: Sequence[float], breaks: Sequence[float], unit: str
) -> Chart:
    """Draw the chart of a quantity over time. Its table has the same values as the chart.

    Args:
        name: its name.
        title: its title.
        values: one for each span of time.
        edges: the seconds at which the spans begin, and at which the last one ends.
        breaks: the seconds at which another session began.
        unit: the unit of the values.
    """
    end = edges[-1]
    y_labels, y_top = _axis(max(values))
    chart = Chart(name, title, y_labels=y_labels, header=("time at work", unit))
    step, name_of = next(
        ((step, unit) for step, unit in _TIME_STEPS if end / step <= 5), (_nice(end / 5 / 86400) * 86400, "d")
    )
    path = []
    for value, left, right in zip(values, edges, edges[1:], strict=False):
        height = 100 * value / y_top
        path.append(f"{100 * left / end:.2f} {100 - height:.2f}L{100 * right / end:.2f} {100 - height:.2f}")
        span = f"{left / _SECONDS[name_of]:.4g} to {right / _SECONDS[name_of]:.4g} {name_of}"
        chart.bars.append(
            Bar(100 * left / end, 100 * (right - left) / end, height, f"{span}: {_number(value)} {unit}")
        )
        chart.rows.append((span, _number(value)))
    chart.line = "M" + "L".join(path)
    chart.breaks = [
        Label(100 * seconds / end, f"session {number} begins") for number, seconds in enumerate(breaks, 2)
    ]
    chart.x_labels = [
        Label(100 * number * step / end, f"{number * step / _SECONDS[name_of]:.3g} {name_of}")
        for number in range(int(end / step + 1e-6) + 1)
    ]
    return chart


def _axis(largest: float) -> tuple[list[Label], float]:
    step = _nice((largest or 1) / 4)
    count = max(1, math.ceil(largest / step - 1e-9))
    return [Label(100 * number / count, _number(number * step)) for number in range(count + 1)], count * step


def _count_axis(largest: int) -> tuple[list[Label], float]:
    if largest > 4:
        return _axis(largest)
    return [Label(100 * number / largest, str(number)) for number in range(largest + 1)], largest


def _number(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):,.4g} {letter}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _nice(value: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 5) if step * power >= value * (1 - 1e-9)), 10 * power)
