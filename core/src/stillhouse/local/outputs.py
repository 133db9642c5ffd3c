"""Seeds, merged outputs and errors of engines on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from stillhouse.errors import GenerationError
from stillhouse.outputs import merge_responses
from stillhouse.typing import GenerateOutput

__all__ = ["engine_failed", "merged", "seed_of", "too_long", "unloaded"]

# What a seed is counted up to: engines keep it in 32 bits, and llama.cpp reads the last one as random.
_SEEDS = 2**32 - 1


def seed_of(seed: int, generation: int) -> int:
    """Return the seed of a generation of an input: `seed`, `seed + 1`, and so on."""
    return (seed + generation) % _SEEDS


def merged(results: Sequence[GenerateOutput | BaseException]) -> GenerateOutput:
    """Merge the outputs of single generations into one output.

    Args:
        results: for each generation, its output with one generation, or the exception that ended it.

    Raises:
        GenerationError: the first error, with the generations that were finished in `outputs`. Any other
            exception is raised as it is.
    """
    outputs = [result for result in results if not isinstance(result, BaseException)]
    for result in results:
        if isinstance(result, GenerationError) and outputs:
            result.outputs = list(merge_responses(outputs, len(outputs)))
        if isinstance(result, BaseException):
            raise result
    return merge_responses(outputs, len(outputs))[0]


def too_long(tokens: int | str, limit: int | str, field: str = "") -> GenerationError:
    """Return the error for a prompt that is too long for the context.

    Args:
        tokens: number of tokens of the prompt.
        limit: number of tokens that fit into the context, including the first token of the answer.
        field: the field of the LLM that makes the context larger, if there is one.
    """
    return GenerationError(
        f"the prompt has {tokens} tokens, and the context has room for {limit}",
        kind="context_length",
        hint=f"shorten the prompt{f', or raise {field}' if field else ''}",
    )


def unloaded() -> GenerationError:
    """Return the error for a call whose LLM was unloaded."""
    return GenerationError(
        "the LLM was unloaded while it was generating",
        kind="connection",
        hint="unload it when its results have been taken",
    )


def engine_failed(error: object, hint: str = "") -> GenerationError:
    """Return the error for a call whose engine failed, in the engine's words.

    Args:
        error: the exception or the message of the engine.
        hint: what to do next; by default, advice for a lack of memory.
    """
    words = str(error).strip()
    if isinstance(error, BaseException):
        words = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return GenerationError(
        f"the engine failed: {words[:_MAX_WORDS]}",
        kind="server",
        hint=hint or "retry the row; if memory is short, set fewer sequences at a time or a shorter context",
    )


_MAX_WORDS = 500
