"""Tokens per second of a whole run on an engine of this machine, against the engine driven by hand.

Both sides answer the same chats, of 5 to 600 tokens, greedily, with the same model, which is loaded once.
By hand means what one would write for the job with the engine's own interface and the same batching, and
nothing more: no file, no store, no failures by row. The run has all that. The two take turns, each with other
prompts of the same lengths, since engines keep what they have read; which of them begins changes. For the
same prompts, which come first, their texts must be the same. Budget: at least 0.95 of the engine by hand.

    python benchmarks/local_engines.py transformers --model FOLDER
    python benchmarks/local_engines.py llamacpp --set parallel=8
    python benchmarks/local_engines.py transformers --model FOLDER --memory 10000

With `--memory`, one run of so many short prompts shows whether the memory is flat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measure import machine

import stillhouse
from stillhouse import AsyncLLM
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.runs.bulk import open_bulk_run
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.online import RunStatistics

BUDGET = 0.95

SAME, MIN_SAME = 8, 0.75
"""So many prompts are answered by both sides; kernels that round by what is beside it may change a few."""

WORDS = "the river runs to the sea and the rain falls on hills and roads while cats sleep near warm bread"

Texts = list[str | None]


def prompts(count: int, longest: int, side: str = "a") -> list[Any]:
    """Different chats, the prompts of 5 to about `longest` tokens with their template, unsorted.

    Those of another side begin with another letter, and are of the same lengths.
    """
    words = WORDS.split()
    chats = []
    for number in range(count):
        length = 1 + (number * 7919) % max(1, longest - 45)
        text = " ".join(words[(number + step) % len(words)] for step in range(length))
        chats.append([{"role": "user", "content": f"{side}{number}: {text}"}])
    return chats


class Run:
    """A whole run, on an LLM that is loaded.

    Attributes:
        tokens: how many the last run generated.
    """

    def __init__(self, llm: AsyncLLM, folder: Path, tokens: int, batch: bool) -> None:
        self._llm, self._folder, self._limit, self._batch = llm, folder, tokens, batch
        self.tokens = 0

    def __call__(self, chats: list[Any]) -> Texts:
        source, output = self._folder / "in.jsonl", self._folder / "out.jsonl"
        source.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats), encoding="utf-8")
        command = Command(
            source=str(source), output=str(output), formatter=RowFormatter(), restart=True,
            in_order=self._batch, arguments={"temperature": 0, "max_new_tokens": self._limit},
        )  # fmt: skip
        with open_bulk_run(self._llm, command) as bulk:
            counts = RunStatistics()
            bulk.work(counts)
        if counts.failures:
            sys.exit(f"rows failed: {counts.failed}")
        self.tokens = counts.output_tokens
        rows = map(json.loads, output.read_text(encoding="utf-8").splitlines())
        return [row["generations"][0] for row in rows]


# By hand. Each takes the LLM that the run takes, for the model in it, and the most tokens of an answer.


def transformers_by_hand(llm: Any, limit: int) -> Callable[[list[Any]], Texts]:
    """`generate` in batches of prompts that are sorted by length."""
    import torch

    engine = llm._engine
    model, tokenizer, size = engine._model, engine.tokenizer, engine.batch_size

    def generate(chats: list[Any]) -> Texts:
        ids = [
            tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            for chat in chats
        ]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        texts: Texts = [None] * len(ids)
        for start in range(0, len(order), size):
            some = order[start : start + size]
            longest = len(ids[some[-1]])
            tokens = torch.tensor([[0] * (longest - len(ids[index])) + ids[index] for index in some])
            mask = torch.tensor([[0] * (longest - len(ids[index])) + [1] * len(ids[index]) for index in some])
            made = model.generate(
                input_ids=tokens.to(model.device), attention_mask=mask.to(model.device),
                max_new_tokens=limit, do_sample=False,
            )  # fmt: skip
            for index, row in zip(some, made[:, longest:].tolist(), strict=True):
                texts[index] = tokenizer.decode(row, skip_special_tokens=True) or None
        return texts

    return generate


def mlx_by_hand(llm: Any, limit: int) -> Callable[[list[Any]], Texts]:
    """mlx-lm's `batch_generate`, with as many sequences at a time, and as many tokens of a prompt."""
    from mlx_lm.generate import batch_generate

    engine = llm._engine
    model, tokenizer, size = engine._model, engine.tokenizer, engine.slots

    def generate(chats: list[Any]) -> Texts:
        ids = [tokenizer.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        texts: Texts = [None] * len(ids)
        with engine.mx.stream(engine.stream):
            made = batch_generate(
                model, tokenizer, prompts=[ids[index] for index in order], max_tokens=limit,
                completion_batch_size=size, prefill_batch_size=min(8, size), prefill_step_size=engine.step,
            )  # fmt: skip
        for index, text in zip(order, made.texts, strict=True):
            texts[index] = text or None
        return texts

    return generate


def vllm_by_hand(llm: Any, limit: int) -> Callable[[list[Any]], Texts]:
    """All requests at once into the engine's own queue."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine, tokenizer = llm._engine._core, llm._engine.tokenizer

    async def generate_all(chats: list[Any]) -> Texts:
        parameters = SamplingParams(temperature=0, max_tokens=limit, output_kind=RequestOutputKind.FINAL_ONLY)

        async def one(number: int, chat: Any) -> str | None:
            ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            request = f"{time.monotonic()}-{number}"
            async for output in engine.generate({"prompt_token_ids": ids}, parameters, request):
                final = output
            return final.outputs[0].text or None

        return await asyncio.gather(*(one(number, chat) for number, chat in enumerate(chats)))

    return lambda chats: llm.run_on_loop(generate_all(chats))


def llamacpp_by_hand(llm: Any, limit: int) -> Callable[[list[Any]], Texts]:
    """A thread per slot, each with one request after another, to the server that the backend started."""
    server, slots = llm._engine._server.running(), llm.parallel

    def answer(chat: Any) -> str | None:
        body = {"messages": chat, "max_tokens": limit, "temperature": 0}
        answers: list[str] = []
        server.handle_chat_completions(json.dumps(body), answers.append)
        return json.loads(answers[0])["choices"][0]["message"]["content"] or None

    def generate(chats: list[Any]) -> Texts:
        with ThreadPoolExecutor(slots) as pool:
            return list(pool.map(answer, chats))

    return generate


BY_HAND = {
    "llamacpp": llamacpp_by_hand,
    "mlx": mlx_by_hand,
    "transformers": transformers_by_hand,
    "vllm": vllm_by_hand,
}


def measure(llm: AsyncLLM, options: argparse.Namespace, folder: Path) -> float:
    """Print the figures; the ratio of the run to the engine by hand."""
    run = Run(llm, folder, options.tokens, options.batch)
    sides: dict[str, Callable[[list[Any]], Texts]] = {
        "by hand": BY_HAND[options.engine](llm, options.tokens),
        "run": run,
    }
    # What is compiled or allocated at first use; and the answers must be the same.
    first = prompts(SAME, options.longest, "c")
    texts = [side(first) for side in sides.values()]
    same = sum(one == other for one, other in zip(*texts, strict=True)) / len(first)
    chats = {name: prompts(options.prompts, options.longest, name[0]) for name in sides}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    ratios, tokens = [], 0
    for number in range(options.rounds):
        walls = {}
        for name in list(sides) if number % 2 else list(sides)[::-1]:
            begun = time.perf_counter()
            sides[name](chats[name][number :: options.rounds])
            walls[name] = time.perf_counter() - begun
        tokens += run.tokens
        for name, wall in walls.items():
            speeds[name].append(run.tokens / wall)
        ratios.append(walls["by hand"] / walls["run"])
        took = ", ".join(f"{name} {walls[name]:.1f} s" for name in sides)
        print(f"  round {number + 1}: {took}", flush=True)
    hand, whole = (statistics.median(speeds[name]) for name in sides)
    ratio = statistics.median(ratios)
    print(
        f"{options.engine}: {options.prompts} prompts, {tokens} tokens  by hand {hand:.1f} tokens/s  "
        f"run {whole:.1f} tokens/s  ratio {ratio:.3f} (rounds {', '.join(f'{one:.2f}' for one in ratios)})  "
        f"same texts {same:.0%}",
        flush=True,
    )
    if same < MIN_SAME:
        sys.exit("the two sides gave different answers: nothing can be compared")
    return ratio


def memory(llm: AsyncLLM, options: argparse.Namespace, folder: Path) -> None:
    """Print the resident memory of this process after a tenth of the prompts, and after all."""
    import psutil

    process = psutil.Process()
    run = Run(llm, folder, 4, options.batch)
    chats = prompts(options.memory, 60)
    run(chats[: options.memory // 10])
    first = process.memory_info().rss
    run(chats)
    last = process.memory_info().rss
    print(
        f"{options.engine}: resident after {options.memory // 10:,} prompts {first / 2**20:,.0f} MiB, after "
        f"{options.memory:,} more {last / 2**20:,.0f} MiB: {last / first:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("engine", choices=sorted(BY_HAND))
    parser.add_argument("--model", default=None, help="what the backend takes as its model")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON", help="a field of the LLM")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--longest", type=int, default=600, help="tokens of the longest prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each answer, at most")
    parser.add_argument("--rounds", type=int, default=4, help="each with its share of the prompts")
    parser.add_argument("--batch", action="store_true", help="take all rows at once, as with --batch")
    parser.add_argument("--memory", type=int, default=0, metavar="PROMPTS")
    options = parser.parse_args()
    fields = {name: json.loads(value) for name, _, value in (item.partition("=") for item in options.set)}
    if options.model is not None:
        fields["model"] = options.model
    print(machine(), flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        stillhouse.create(options.engine, **fields) as llm,
    ):
        assert isinstance(llm, AsyncLLM)
        if options.memory:
            memory(llm, options, Path(folder))
        elif measure(llm, options, Path(folder)) < BUDGET:
            sys.exit(f"the budget is missed: a ratio of at least {BUDGET}")


if __name__ == "__main__":
    main()
