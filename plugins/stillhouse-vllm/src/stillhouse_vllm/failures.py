"""What the engine says went wrong, as errors of a kind."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from stillhouse import ConfigurationError, GenerationError
from stillhouse.local import engine_failed, too_long
from stillhouse_vllm.library import words_of

__all__ = ["died", "failure", "gave_up", "not_started"]

_TOO_LONG = re.compile(
    r"prompt \(length (?P<tokens>\d+)\).* maximum model length of (?P<limit>\d+)", re.DOTALL
)

_MEMORY = re.compile(
    r"out of memory|Available memory|memory for (?:the )?kv|KV cache|free memory", re.IGNORECASE
)

_CODE = re.compile(r"exit code: (-?\d+)")

_LESS_MEMORY = "lower max_model_len or max_num_seqs, or change gpu_memory_utilization or kv_cache_memory"


def failure(error: BaseException) -> GenerationError:
    """The error of a request that the engine refused, or failed over, while it lives on."""
    if long := _TOO_LONG.search(str(error)):
        return too_long(long["tokens"], int(long["limit"]) - 1, "max_model_len")
    names = {cls.__name__ for cls in type(error).__mro__}
    cause = error.__cause__ if "EngineGenerateError" in names and error.__cause__ else error
    if names & {"VLLMClientError", "ValueError", "TypeError"}:
        return GenerationError(
            f"the engine refused the request: {words_of(error)}",
            kind="invalid_request",
            hint="correct the messages or the generation parameters",
        )
    return engine_failed(words_of(cause))


def died(reason: str, codes: Sequence[int]) -> GenerationError:
    """The error of a request that was under way when the engine's process died."""
    return GenerationError(
        f"the engine died: {_why(reason, codes)}",
        kind="server",
        hint=f"retry the row: the engine is restarted. If memory was short, {_LESS_MEMORY}",
    )


def gave_up(deaths: int, reason: str, codes: Sequence[int]) -> GenerationError:
    """The error of a request to an engine that has died too often."""
    return GenerationError(
        f"the engine died {deaths + 1} times in a row without an answer: {_why(reason, codes)}",
        kind="server",
        hint=f"set verbose to True to see the engine's log. If memory is short, {_LESS_MEMORY}",
        stops_run=True,
    )


def not_started(error: BaseException, reason: str) -> ConfigurationError:
    """The error of an engine that did not start.

    Args:
        error: what was raised in this process.
        reason: what the engine's process said; empty if there was none.
    """
    words = reason or words_of(error)
    hint = "set verbose to True to see the engine's log"
    if _MEMORY.search(words):
        hint = _LESS_MEMORY
    elif "trust_remote_code" in words:
        hint = "set trust_remote_code to True if you trust the model's authors"
    return ConfigurationError(f"vLLM could not load the model: {words}", hint=hint)


def _why(reason: str, codes: Sequence[int]) -> str:
    if reason:
        return reason + "".join(_of_code(int(code)) for code in _CODE.findall(reason))
    for code in codes:
        if code < 0:
            return f"its process was ended by {_signal(code)}"
    return f"its process ended with code {codes[0]}" if codes else "it did not say why"


def _of_code(code: int) -> str:
    return f": ended by {_signal(code)}" if code < 0 else ""


def _signal(code: int) -> str:
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return name + (", as the system does when memory is short" if name == "SIGKILL" else "")
