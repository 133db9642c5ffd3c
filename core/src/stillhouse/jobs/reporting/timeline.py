"""`Timeline`: the rows of a run over the time during which processes worked on it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from stillhouse.jobs.reporting.charts import Distribution

__all__ = ["Spans", "Timeline"]

# The number of spans that the time of a run is divided into while its rows are counted.
MAX_SPANS = 240

# The number of spans that are shown, and about how many rows one has at least: with fewer, a chart shows
# nothing but noise.
SHOWN_SPANS = 60
MIN_SPANS = 12
ROWS_PER_SPAN = 8

# Rows that are submitted together end together. Spans as short as a row takes would show that, and not how
# fast the run is; with several times that, it does not matter where a span ends.
ROUNDS_PER_SPAN = 4
WIDTHS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600]

# Latencies are kept to 0.1 percent.
RESOLUTION = 1000


class Spans(NamedTuple):
    """What a timeline shows, span by span.

    Attributes:
        width: the seconds of a span; the last one also has the remainder.
        edges: where the spans begin, and where the last one ends, in seconds.
        rows: how many rows were finished in each.
        failed: of them, those that failed.
        output_tokens: how many tokens were generated.
        in_flight: how many rows were in flight, on average.
    """

    width: float
    edges: list[float]
    rows: list[int]
    failed: list[int]
    output_tokens: list[int]
    in_flight: list[float]

    def per_second(self, counts: Sequence[float]) -> list[float]:
        """Turn counts in the spans into rates."""
        return [n / (b - a) for n, (a, b) in zip(counts, pairwise(self.edges), strict=True)]


class Timeline:
    """The time during which processes worked on a run, without the pauses between the sessions.

    Args:
        spans: when each session began and ended, in seconds since 1970.

    Attributes:
        starts: when each began, on this timeline.
        width: the seconds of each span; the last one also has the remainder.
        edges: where the spans begin, and where the last one ends.
        rows: how many rows were finished in each span.
        failed: of them, those that failed.
        output_tokens: how many tokens were generated.
    """

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        self._begun = [start for start, _ in spans]
        self._lengths = [max(0.0, end - start) for start, end in spans]
        self.starts = [sum(self._lengths[:number]) for number in range(len(spans))]
        end = max(sum(self._lengths), 1e-3)
        self.width = next((width for width in WIDTHS if end / width <= MAX_SPANS), end / MAX_SPANS)
        count = max(1, int(end / self.width))
        self.edges = [number * self.width for number in range(count)] + [end]
        self.rows = [0] * count
        self.failed = [0] * count
        self.output_tokens = [0] * count
        # Calls by the span that they began and ended in, and the sums of these moments.
        self._began, self._began_sum = [0] * (count + 2), [0.0] * (count + 2)
        self._ended, self._ended_sum = [0] * (count + 2), [0.0] * (count + 2)
        self.latency: dict[float, int] = defaultdict(int)
        self.inputs: dict[float, int] = defaultdict(int)
        self.outputs: dict[float, int] = defaultdict(int)

    def add(self, rows: Iterable[tuple[float, float | None, int | None, int | None, bool]]) -> None:
        """Count rows: when each ended, after how many seconds, its input and output tokens, if it failed.

        There may be millions of rows, so the loop calls no functions of its own.
        """
        latency, inputs, outputs = self.latency, self.inputs, self.outputs
        began, began_sum, ended, ended_sum = self._began, self._began_sum, self._ended, self._ended_sum
        counts, tokens, width, last = self.rows, self.output_tokens, self.width, len(self.rows) - 1
        failures = self.failed
        log, floor, since, until, start, length = math.log, math.floor, 1.0, 0.0, 0.0, 0.0
        for finished, seconds, input_tokens, output_tokens, has_failed in rows:
            if not since <= finished < until:
                session = max(0, bisect_right(self._begun, finished) - 1)
                since, start, length = self._begun[session], self.starts[session], self._lengths[session]
                until = since + length
            end = start + min(max(0.0, finished - since), length)
            place = int(end / width)
            span = place if place < last else last
            counts[span] += 1
            if has_failed:
                failures[span] += 1
            if input_tokens is not None:
                inputs[input_tokens] += 1
            if output_tokens is not None:
                outputs[output_tokens] += 1
                tokens[span] += output_tokens
            if seconds:
                latency[floor(log(seconds) * RESOLUTION)] += 1
                ended[place] += 1
                ended_sum[place] += end
                begin = end - seconds
                if begin < start:
                    begin = start
                place = int(begin / width)
                began[place] += 1
                began_sum[place] += begin

    def distributions(self) -> tuple[Distribution, Distribution, Distribution]:
        """Return the distributions of seconds, to 0.1 percent, input tokens and output tokens."""
        latency = {math.exp((key + 0.5) / RESOLUTION): count for key, count in self.latency.items()}
        return Distribution(latency), Distribution(self.inputs), Distribution(self.outputs)

    def shown(self) -> Spans:
        """Return what is shown of it, in spans that are long enough to show no pattern of their own."""
        latency = self.distributions()[0]
        end, count = self.edges[-1], len(self.rows)
        rows = sum(self.rows)
        limit = min(SHOWN_SPANS, max(MIN_SPANS, rows // ROWS_PER_SPAN))
        least = max(end / limit, min(ROUNDS_PER_SPAN * latency.percentile(0.9), end / MIN_SPANS))
        size = min(count, max(1, math.ceil(least / self.width - 1e-9)))
        even = (round(width / self.width) for width in WIDTHS if width >= least)
        size = next((number for number in even if size <= number <= 2 * size), size)
        # A remainder that is much shorter than a span would be one that nothing can be read of.
        starts = list(range(0, count - size // 2, size))
        bounds = list(pairwise([*starts, count]))
        edges = [self.edges[start] for start in starts] + [end]

        def merged(values: Sequence[float]) -> list[float]:
            return [sum(values[start:stop]) for start, stop in bounds]

        lengths = [b - a for a, b in pairwise(self.edges)]
        busy = merged([value * length for value, length in zip(self.in_flight(), lengths, strict=True)])
        return Spans(
            size * self.width if len(starts) > 1 else end,
            edges,
            [int(number) for number in merged(self.rows)],
            [int(number) for number in merged(self.failed)],
            [int(number) for number in merged(self.output_tokens)],
            [value / (b - a) for value, (a, b) in zip(busy, pairwise(edges), strict=True)],
        )

    def in_flight(self) -> list[float]:
        """Return how many rows were in flight in each span, on average."""
        sums, level, last = [0.0] * len(self.rows), 0, len(self.rows) - 1
        for place in range(len(self._began)):
            ends = (place + 1) * self.width
            sums[min(place, last)] += (
                level * self.width
                + (self._began[place] * ends - self._began_sum[place])
                - (self._ended[place] * ends - self._ended_sum[place])
            )
            level += self._began[place] - self._ended[place]
        return self.per_second(sums)

    def per_second(self, counts: Sequence[float]) -> list[float]:
        """Turn counts in the spans into rates."""
        return [max(0.0, n / (b - a)) for n, (a, b) in zip(counts, pairwise(self.edges), strict=True)]
