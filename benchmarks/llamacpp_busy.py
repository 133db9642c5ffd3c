"""Tokens per second of the backend `llamacpp` while other programs use the machine, and while none does.

Three sides answer the same prompts, each in a process of its own with the model loaded once: the backend as
it is; the engine as it comes, whose threads wait for each other by spinning (`GOMP_SPINCOUNT=300000`); and a
single thread. They take turns, first without and then with busy loops, which the script starts and ends
itself, and which side begins changes with every round. Whatever else runs on the machine meets all of them.

    python benchmarks/llamacpp_busy.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from measure import machine, median

SIDES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "backend": ({}, {}),
    "spinning": ({"GOMP_SPINCOUNT": "300000"}, {}),
    "one thread": ({}, {"n_threads": 1}),
}

# What each reading answers before it looks at the clock again, per slot.
TOKENS = 8

IDLE_BUDGET, BUSY_BUDGET = 0.9, 0.8
"""The least that the backend may reach: idle, of the spinning engine; busy, of a single thread."""


class Side:
    """A process with the model loaded, which measures when it is told to."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        env, fields = SIDES[name]
        ours = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
        own = {key: value for key, value in os.environ.items() if key not in ours}
        fields = {**fields, "model": options.model, "parallel": options.slots, "n_ctx": 512}
        command = [sys.executable, __file__, "--worker", json.dumps(fields)]
        self._process = subprocess.Popen(
            command, env={**own, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def measure(self, seconds: float) -> float:
        """Tokens per second, over at least so many seconds."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a side ended early; its error is above")
        return float(line)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def work(fields: dict[str, Any]) -> None:
    """What a side's process does."""
    from stillhouse_llamacpp import LlamaCppLLM

    logging.disable()  # that the machine is busy is what is measured
    llm = LlamaCppLLM(**fields)
    chats = [[{"role": "user", "content": f"Tell me a story about {n} cats."}] for n in range(llm.parallel)]
    with llm:
        print(answered(llm, chats, 0.0), flush=True)  # it is ready
        for line in sys.stdin:
            print(answered(llm, chats, float(line)), flush=True)


def answered(llm: Any, chats: list[Any], seconds: float) -> float:
    tokens, begun = 0, time.perf_counter()
    while True:
        llm.generate_outputs(chats, max_new_tokens=TOKENS, temperature=0, extra_body={"ignore_eos": True})
        tokens += TOKENS * len(chats)
        took = time.perf_counter() - begun
        if took >= seconds:
            return tokens / took


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """As many busy loops as `count` beside the measurement."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default=None, help="a GGUF file; the default model without it")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--busy", type=int, default=1, help="how many busy loops")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="the least length of a reading")
    parser.add_argument(
        "--spins", type=int, nargs="*", default=[], help="values of GOMP_SPINCOUNT to compare with as well"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(json.loads(options.worker))
        return
    SIDES.update({f"spin {count}": ({"GOMP_SPINCOUNT": str(count)}, {}) for count in options.spins})
    print(f"{machine()}; {options.slots} slots, {options.rounds} rounds, medians")
    sides = {}
    readings: dict[tuple[str, int], list[float]] = {}
    try:
        for name in SIDES:
            sides[name] = Side(name, options)
        for number in range(options.rounds):
            for loops in (0, options.busy):
                with busy(loops):
                    for name in list(sides)[:: -1 if number % 2 else 1]:
                        readings.setdefault((name, loops), []).append(sides[name].measure(options.seconds))
    finally:
        for side in sides.values():
            side.close()
    report(readings, options.busy)


def report(readings: dict[tuple[str, int], list[float]], loops: int) -> None:
    speed = {key: median(values) for key, values in readings.items()}
    for name in SIDES:
        idle, under_load = speed[name, 0], speed[name, loops]
        print(f"{name:12} idle {idle:7.1f} tokens/s   busy {under_load:7.1f} tokens/s")
    kept, gained = (
        median([mine / other for mine, other in zip(readings["backend", n], readings[name, n], strict=True)])
        for name, n in (("spinning", 0), ("one thread", loops))
    )
    print(f"the backend idle, of the spinning engine: {kept:.2f}; busy, of one thread: {gained:.2f}")
    if kept < IDLE_BUDGET or gained < BUSY_BUDGET:
        sys.exit(f"a budget is missed: at least {IDLE_BUDGET} idle and {BUSY_BUDGET} busy")


if __name__ == "__main__":
    main()
