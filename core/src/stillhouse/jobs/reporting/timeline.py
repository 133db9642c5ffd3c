"""`Timeline`: the rows of a run over the time during which processes worked on it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from stillhouse.jobs.reporting.charts import Distribution

__all__ = ["Timeline"]

# The number of spans that the time of a run is divided into, and about how many rows a span has at least:
# with fewer, a chart shows nothing but noise.
MAX_SPANS = 150
MIN_SPANS = 24
ROWS_PER_SPAN = 8
WIDTHS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600]

# Latencies are kept to 0.1 percent.
RESOLUTION = 1000


class Timeline:
    """The time during which processes worked on a run, without the pauses between the sessions.

    Args:
        spans: when each session began and ended, in seconds since 1970.
        rows: about how many rows the run has.

    Attributes:
        starts: when each began, on this timeline.
        width: the seconds of each span; the last one also has the remainder.
        edges: where the spans begin, and where the last one ends.
    """

    def __init__(self, spans: Sequence[tuple[float, float]], rows: int) -> None:
        self._begun = [start for start, _ in spans]
        self._lengths = [max(0.0, end - start) for start, end in spans]
        self.starts = [sum(self._lengths[:number]) for number in range(len(spans))]
        end = max(sum(self._lengths), 1e-3)
        limit = min(MAX_SPANS, max(MIN_SPANS, rows // ROWS_PER_SPAN))
        self.width = next((width for width in WIDTHS if end / width <= limit), end / limit)
        count = max(1, int(end / self.width))
        self.edges = [number * self.width for number in range(count)] + [end]
        self.rows = [0] * count
        self.output_tokens = [0] * count
        # Calls by the span that they began and ended in, and the sums of these moments.
        self._began, self._began_sum = [0] * (count + 2), [0.0] * (count + 2)
        self._ended, self._ended_sum = [0] * (count + 2), [0.0] * (count + 2)
        self.latency: dict[float, int] = defaultdict(int)
        self.inputs: dict[float, int] = defaultdict(int)
        self.outputs: dict[float, int] = defaultdict(int)

    def add(self, rows: Iterable[tuple[float, float | None, int | None, int | None]]) -> None:
        """Count rows: when each was finished, after how many seconds, its input and output tokens.

        There may be millions of rows, so the loop calls no functions of its own.
        """
        latency, inputs, outputs = self.latency, self.inputs, self.outputs
        began, began_sum, ended, ended_sum = self._began, self._began_sum, self._ended, self._ended_sum
        counts, tokens, width, last = self.rows, self.output_tokens, self.width, len(self.rows) - 1
        log, floor, since, until, start, length = math.log, math.floor, 1.0, 0.0, 0.0, 0.0
        for finished, seconds, input_tokens, output_tokens in rows:
            if not since <= finished < until:
                session = max(0, bisect_right(self._begun, finished) - 1)
                since, start, length = self._begun[session], self.starts[session], self._lengths[session]
                until = since + length
            end = start + min(max(0.0, finished - since), length)
            place = int(end / width)
            span = place if place < last else last
            counts[span] += 1
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
