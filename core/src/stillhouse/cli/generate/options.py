"""`Options`: what the command line of `stillhouse generate` says, and which options exclude each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.errors import ConfigurationError

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = ["Options", "check_llm", "check_options"]


@dataclass(frozen=True)
class Options:
    """The argument and the options, named as the command declares them."""

    input: str | None
    llm: str | None
    output: str | None
    prompt: str | None
    template: str | None
    system: str | None
    raw: bool
    num_generations: int
    param: tuple[str, ...]
    fields: tuple[str, ...]
    config: Path | None
    max_concurrency: int | None
    limit: int | None
    restart: bool
    retry: str | None
    batch: bool
    wait: float | None
    finish_online: bool
    max_tokens_total: int | None
    max_cost: float | None
    estimate: bool

    @property
    def has_ceiling(self) -> bool:
        return self.max_tokens_total is not None or self.max_cost is not None

    def is_offline(self, llm: LLM) -> bool:
        """Whether the run submits offline batches."""
        return self._wants_batch(llm) and not llm.orders_batches

    def is_in_order(self, llm: LLM) -> bool:
        """Whether the engine takes all rows at once, in an order of its own."""
        return self._wants_batch(llm) and llm.orders_batches

    def _wants_batch(self, llm: LLM) -> bool:
        return llm.use_offline_batch_generation or self.batch


# Each with its message and what to do. The first one that applies is reported.
_CONFLICTS: list[tuple[Callable[[Options], bool], str, str]] = [
    (
        lambda o: (o.input is None) == (o.prompt is None),
        "there is nothing to do",
        "give either INPUT or --prompt TEXT",
    ),
    (
        lambda o: (
            o.prompt is not None
            and bool(o.output or o.template is not None or o.limit or o.has_ceiling or o.estimate)
        ),
        "--prompt prints what it generates",
        "leave out -o, --template, --limit, --estimate, --max-tokens-total and --max-cost",
    ),
    (
        lambda o: o.estimate and o.input == "-",
        "what is read from standard input is gone afterwards",
        "give --estimate a file",
    ),
    (
        lambda o: o.output == "-" and bool(o.restart or o.retry or o.batch or o.finish_online),
        "what was printed is not kept",
        "give -o OUTPUT.jsonl for a run that can be gone on with",
    ),
    (
        lambda o: o.prompt is None and o.output is None and not o.estimate,
        "no output is named",
        "give -o OUTPUT.jsonl, or -o - to print",
    ),
    (
        lambda o: o.llm is None and o.config is None,
        "no LLM is named",
        "give --llm NAME; stillhouse list shows them",
    ),
    (
        lambda o: o.batch and o.finish_online,
        "--finish-online ends the batches",
        "leave out --batch",
    ),
]

# The same for options that depend on the LLM, which is created and not loaded; {name} is how it was named.
_CONFLICTS_WITH_LLM: list[tuple[Callable[[Options, LLM], bool], str, str]] = [
    (
        lambda o, llm: llm.orders_batches and (o.wait is not None or o.finish_online),
        "{name} generates on this machine: it has no batch to wait for, and none to finish online",
        "leave out --wait and --finish-online; --batch takes all rows at once, and writes when they are done",
    ),
    (
        lambda o, llm: o.wait is not None and not (o.is_offline(llm) or o.finish_online),
        "there is no batch to wait for",
        "give --batch as well",
    ),
    (
        lambda o, llm: o.is_offline(llm) and "offline_batch" not in llm.capabilities,
        "{name} has no offline batches",
        "leave out --batch",
    ),
    (
        lambda o, llm: o.has_ceiling and o.is_offline(llm) and not o.finish_online,
        "what a batch takes is told when it is done, so no ceiling on it can be held",
        "leave out --max-tokens-total and --max-cost; --estimate says what it takes at most",
    ),
]


def check_options(options: Options) -> None:
    """Reject options that exclude each other.

    Raises:
        ConfigurationError: there are such options.
    """
    for applies, message, hint in _CONFLICTS:
        if applies(options):
            raise ConfigurationError(message, hint=hint)


def check_llm(options: Options, llm: LLM) -> None:
    """Reject options that do not go with the LLM.

    Raises:
        ConfigurationError: there are such options.
    """
    for applies, message, hint in _CONFLICTS_WITH_LLM:
        if applies(options, llm):
            raise ConfigurationError(message.format(name=options.llm or options.config), hint=hint)
