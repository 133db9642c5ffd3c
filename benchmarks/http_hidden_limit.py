"""A provider with a limit that it tells nobody of: how much of it is used, and how much is refused.

The provider admits so many requests a second and answers the others with 429 and nothing else. The
client knows no quota. Budget, once it has settled: at least 90 % of the limit, under 1 % refused.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import urllib.request
from collections.abc import Iterator

from http_clients import chats
from measure import machine
from stub import served

import stillhouse


def counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/counts") as response:  # it is our own
        found: dict[str, int] = json.load(response)
    return found


def until(deadline: float) -> Iterator[list[dict[str, str]]]:
    return itertools.takewhile(lambda _: time.monotonic() < deadline, chats(10**9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", type=float, nargs="*", default=[20, 100, 400], help="a second")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--settle", type=float, default=20, help="seconds that are not counted")
    parser.add_argument("--seconds", type=float, default=60, help="seconds that are counted")
    arguments = parser.parse_args()
    print(machine())
    print(f"answers take {arguments.latency:.1f} s; {arguments.settle:.0f} s to settle, then "
          f"{arguments.seconds:.0f} s counted")  # fmt: skip
    for limit in arguments.limits:
        with (
            served(arguments.latency, limit) as url,
            stillhouse.create("openai:m", base_url=f"{url}/v1", api_key="key", max_concurrency=512) as llm,
        ):
            settled: dict[str, int] = {}
            started = time.monotonic()
            for _ in llm.iter_outputs(until(started + arguments.settle + arguments.seconds), ordered=False):
                if not settled and time.monotonic() - started > arguments.settle:
                    settled, began = counts(url), time.monotonic()
            ended = counts(url)
            seconds = time.monotonic() - began
        answered = ended["answered"] - settled["answered"]
        refused = ended["refused"] - settled["refused"]
        print(f"  {limit:6.0f}/s: {answered / seconds / limit:6.1%} of the limit, "
              f"{refused / (answered + refused):6.2%} refused (budget 90 %, 1 %)")  # fmt: skip


if __name__ == "__main__":
    main()
