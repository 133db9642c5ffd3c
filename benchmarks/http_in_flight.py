"""Memory and wall time of an API backend with 2,000 requests in flight that take 500 ms each.

At best that is 4,000 requests a second. The bare loop does the same requests with a worker for each
in flight. Each is a process of its own; its resident memory is read at its end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

from http_clients import bare, stillhouse_backend
from measure import alternate, machine, median
from stub import served

RUN = {
    "bare aiohttp and orjson": bare,
    "stillhouse openai": lambda *call: stillhouse_backend("openai", *call),
}


def measure(name: str, url: str, count: int, in_flight: int) -> list[float]:
    command = [sys.executable, __file__, "--child", name, url, str(count), str(in_flight)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    reading: list[float] = json.loads(result.stdout)
    return reading


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, url, count, in_flight = arguments.child
        started = time.perf_counter()
        assert RUN[name](url, int(count), int(in_flight)) == int(count)
        seconds = time.perf_counter() - started
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
        return
    print(machine())
    best = arguments.requests * arguments.latency / arguments.in_flight
    memory: dict[str, list[float]] = {name: [] for name in RUN}
    with served(arguments.latency) as url:

        def reading(name: str) -> float:
            seconds, mebibytes = measure(name, url, arguments.requests, arguments.in_flight)
            memory[name].append(mebibytes)
            return seconds

        readings = alternate(
            {name: lambda name=name: reading(name) for name in RUN},  # type: ignore[misc]
            arguments.rounds,
        )
    print(
        f"\n{arguments.requests:,} requests of {arguments.latency:.1f} s, {arguments.in_flight:,} in flight"
    )
    print(f"at best {best:.1f} s (medians: seconds, requests/s, resident MiB)")
    for name in RUN:
        seconds = median(readings[name])
        rate, resident = arguments.requests / seconds, median(memory[name][1:])
        print(f"  {name:<24} {seconds:7.2f} {rate:9,.0f} {resident:8.0f}")


if __name__ == "__main__":
    main()
