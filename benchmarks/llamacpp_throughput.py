"""Tokens per second of the backend `llamacpp` against the engine driven by hand.

Both sides answer the same prompts with the same parameters on the same server, the one that the
backend started: there is one copy of the model, one set of settings and one set of threads to share
the machine with. By hand means what one would write for the job and nothing more: a pool with as many
threads as slots, a request without streaming, and the answer read from its JSON. The two take turns,
and which of them begins changes with every round.

    python benchmarks/llamacpp_throughput.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from measure import machine

from stillhouse_llamacpp import LlamaCppLLM

BUDGET, BUDGET_SLOTS = 0.95, 8

THINGS = [
    "bees",
    "books",
    "bread",
    "cats",
    "clocks",
    "fire",
    "hills",
    "lamps",
    "music",
    "rain",
    "roads",
    "tea",
]


def prompts(count: int) -> list[list[dict[str, str]]]:
    """Different chats, so that no answer is a copy of another."""
    texts = [f"Write sentence {n} about {THINGS[n % len(THINGS)]}." for n in range(count)]
    return [[{"role": "user", "content": text}] for text in texts]


def by_backend(llm: LlamaCppLLM, chats: list[Any], tokens: int) -> list[str | None]:
    results = llm.iter_outputs(chats, max_new_tokens=tokens, temperature=0, extra_body={"ignore_eos": True})
    return [output["generations"][0] for _, output in results]  # type: ignore[index]


def by_hand(server: Any, pool: ThreadPoolExecutor, chats: list[Any], tokens: int) -> list[str | None]:
    def answer(chat: Any) -> str:
        body = {"messages": chat, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        answers: list[str] = []
        server.handle_chat_completions(json.dumps(body), answers.append)
        return str(json.loads(answers[0])["choices"][0]["message"]["content"])

    return list(pool.map(answer, chats))


def timed(function: Callable[[], list[str | None]]) -> tuple[float, float, list[str | None]]:
    wall, cpu = time.perf_counter(), time.process_time()
    texts = function()
    return time.perf_counter() - wall, time.process_time() - cpu, texts


def measure(slots: int, options: argparse.Namespace) -> float:
    """Print the figures for a number of slots; the ratio of the backend to the bare engine."""
    chats = prompts(options.prompts)
    llm = LlamaCppLLM(model=options.model, parallel=slots, n_ctx=512, n_threads=options.threads)
    speeds: dict[str, list[float]] = {"by hand": [], "backend": []}
    ratios: list[float] = []
    with llm, ThreadPoolExecutor(slots) as pool:
        assert llm._engine is not None
        server = llm._engine._server.running()
        sides = {
            "by hand": lambda: by_hand(server, pool, chats, options.tokens),
            "backend": lambda: by_backend(llm, chats, options.tokens),
        }
        expected = sides["by hand"]()  # fills the caches of both
        for round in range(options.rounds):
            walls = {}
            for name in list(sides) if round % 2 else list(sides)[::-1]:
                walls[name], cpu, texts = timed(sides[name])
                if texts != expected:
                    sys.exit(f"{name} gave other answers than the bare engine: nothing can be compared")
                speed = options.prompts * options.tokens / walls[name]
                speeds[name].append(speed)
                if options.verbose:
                    print(f"  round {round + 1}  {name}  {speed:.1f} tokens/s  {cpu:.2f} s of CPU")
            ratios.append(walls["by hand"] / walls["backend"])
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ratio = statistics.median(ratios)
    print(
        f"{slots} slots  by hand {medians['by hand']:7.1f} tokens/s  "
        f"backend {medians['backend']:7.1f} tokens/s  ratio {ratio:.3f}  "
        f"(rounds {', '.join(f'{value:.2f}' for value in ratios)})",
        flush=True,
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default=None, help="a GGUF file; the default model without it")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, BUDGET_SLOTS])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=None, help="threads to compute with")
    parser.add_argument("--verbose", action="store_true", help="print every round")
    options = parser.parse_args()
    print(
        f"{machine()}; {options.prompts} prompts of {options.tokens} tokens, {options.rounds} rounds, medians"
    )
    failed = False
    for slots in options.slots:
        ratio = measure(slots, options)
        failed |= slots == BUDGET_SLOTS and ratio < BUDGET
    if failed:
        sys.exit(f"the budget is missed: at {BUDGET_SLOTS} slots, a ratio of at least {BUDGET}")


if __name__ == "__main__":
    main()
