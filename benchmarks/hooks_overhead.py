"""What hooks cost a row: the CPU time of `echo` through `iter_outputs`, with and without them.

    python benchmarks/hooks_overhead.py [--rows 20000] [--rounds 9] [--without-cache]

The baseline is a path in which hooks do not exist: the same window, driven in the same way, with the
same checks of every input and output, by a call that has no trace of hooks in it. All
variants take turns in every round, so that a change of the machine's speed meets them all. CPU
time is that of the whole process: the caller's thread and the LLM's loop.

The rows with the cache need `stillhouse-cache` installed; without it they are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from measure import machine

from stillhouse import Registry, hookimpl
from stillhouse._execution.call import Call
from stillhouse.errors import GenerationError
from stillhouse.outputs import check_output
from stillhouse.registry.policy import Policy

BASELINE = "hooks do not exist"


class NoOp:
    """A plugin that implements both hooks and does nothing in them."""

    @hookimpl
    def before_generate(self, llm: Any, input: Any) -> None:
        return None

    @hookimpl
    def after_generate(self, llm: Any, input: Any, output: Any) -> None:
        return None


class HooklessCall(Call):
    """A call as it would be written if there were no hooks."""

    def begin(self, index: int, input: Any) -> Any:  # as the window calls it
        if isinstance(input, GenerationError):
            return input
        try:
            self._check_input(input)
        except Exception as error:
            return error
        return None

    def end(self, index: int, input: Any, result: Any) -> Any:
        if not isinstance(result, Exception):
            try:
                check_output(result, self.num_generations, self._name)
            except GenerationError as error:
                return error
        return result


def without_hooks(llm: Any, inputs: list[Any]) -> Iterator[tuple[int, Any]]:
    """What `iter_outputs` does, with the call above."""
    call = HooklessCall(llm, 1, {}, llm.registry.hooks(), llm.check_input, llm._redactor)
    groups = llm._iter_finished(call, inputs, "raise", True)
    return ((index, result) for group in groups for index, result, _ in group)


def with_hooks(llm: Any, inputs: list[Any]) -> Iterator[tuple[int, Any]]:
    """The path that every caller takes."""
    return iter(llm.iter_outputs(inputs))


def chats(count: int, salt: object) -> list[Any]:
    return [
        [{"role": "user", "content": f"What is the answer to question number {number} of {salt}?"}]
        for number in range(count)
    ]


def microseconds(path: Callable[[Any, list[Any]], Iterator[Any]], llm: Any, inputs: list[Any]) -> float:
    """The CPU time per row of one run."""
    gc.collect()
    started = time.process_time()
    rows = sum(1 for _ in path(llm, inputs))
    spent = time.process_time() - started
    assert rows == len(inputs)
    return spent / rows * 1e6


def echo(*plugins: object) -> Any:
    """A loaded `echo` with a registry of its own, which has these hooks and no others."""
    registry = Registry(entry_points=[], policy=Policy())
    for number, plugin in enumerate(plugins):
        registry.register_hooks(f"hooks-{number}", plugin)
    llm = registry.create("echo")
    llm.load()
    return llm


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--without-cache", action="store_true", help="leave the rows with the cache out")
    options = parser.parse_args()

    plain, no_op = echo(), echo(NoOp())
    fixed = chats(options.rows, "all rounds")
    variants: dict[str, Callable[[int], float]] = {
        BASELINE: lambda _: microseconds(without_hooks, plain, fixed),
        "no hook installed": lambda _: microseconds(with_hooks, plain, fixed),
        "a hook that does nothing": lambda _: microseconds(with_hooks, no_op, fixed),
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if find_spec("stillhouse_cache") and not options.without_cache:
            from stillhouse_cache import CacheHooks

            os.environ["STILLHOUSE_CACHE_DIR"] = folder
            os.environ.pop("STILLHOUSE_CACHE_SIZE", None)
            hooks = CacheHooks()
            stack.callback(hooks.close)
            cached = echo(hooks)
            variants["stillhouse-cache, every row a miss"] = lambda number: microseconds(
                with_hooks, cached, chats(options.rows, number)
            )
            variants["stillhouse-cache, every row a hit"] = lambda number: microseconds(
                with_hooks, cached, chats(options.rows, number)
            )
        figures: dict[str, list[float]] = {name: [] for name in variants}
        for run in variants.values():
            run(-1)  # imports, tables, caches of the interpreter
        for number in range(options.rounds):
            # Who comes first changes; but a row can be a hit only after it was a miss.
            order = sorted(variants, key=lambda name: ("hit" in name, random.random()))
            for name in order:
                figures[name].append(variants[name](number))

    print(machine())
    print(f"{options.rows} rows a run, {options.rounds} rounds; CPU time a row in microseconds")
    print(f"{'':38}{'median':>9}{'lowest':>9}{'ratio':>8}")
    for name, values in figures.items():
        paired = [own / base for own, base in zip(values, figures[BASELINE], strict=True)]
        print(f"{name:38}{statistics.median(values):9.2f}{min(values):9.2f}{statistics.median(paired):8.3f}")
    print("ratio: the median over the rounds of the ratio to the baseline of the same round")


if __name__ == "__main__":
    main()
