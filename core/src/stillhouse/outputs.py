"""Building, merging and checking outputs.

Over 300 lines: this module alone decides what an output may hold, for every backend, online and offline.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, Protocol, cast

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.typing import ChatItem, GenerateOutput, Logprob

__all__ = ["check_output", "compute_tokens", "count_of", "merge_responses", "prepare_output"]

MAX_COUNT = 2**53
"""A larger count is unknown: numbers in JSON are exact up to here."""

MAX_DEPTH = 64
"""Maximum nesting of a value that a backend adds to an output; table formats accept no deeper one."""

NOT_FINITE = "not_finite"
"""The statistic that counts the numbers of an output that are NaN or infinite. A log probability of minus
infinity does not count: it is that of an impossible token."""

# A text has tokens, so a zero next to a text means that the count is unknown.
_USED = frozenset({"input_tokens", "output_tokens"})

_CHECKED = frozenset({"generations", "statistics"})

_SCALARS = frozenset({str, int, bool, bytes, type(None)})

_REPORT = "report it to the authors of the backend"


class Tokenizer(Protocol):
    """An object that converts a text to a sequence of tokens."""

    def encode(self, text: str) -> Sequence[Any]: ...


def count_of(value: object) -> int | None:
    """Return a reported count, such as a number of tokens, as an integer; `None` if it is not a count.

    A count is a whole number from 0 to 2**53. A float without a fraction and a text of digits are converted.
    Anything else is not a count: a negative number, NaN, a Boolean, a list.
    """
    if type(value) is int:
        return value if 0 <= value <= MAX_COUNT else None
    if isinstance(value, str):
        # A longer text is above the maximum, and `int` is slow for very long texts.
        value = int(value) if value.isascii() and value.isdecimal() and len(value) <= 16 else None
    elif isinstance(value, float):
        value = int(value) if value.is_integer() else None
    elif not isinstance(value, bool):
        try:  # whole numbers of other libraries, such as NumPy's
            value = operator.index(value)  # type: ignore[arg-type]
        except Exception:
            return None
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


def prepare_output(
    generations: Sequence[str | None],
    input_tokens: Sequence[int | None] | None = None,
    output_tokens: Sequence[int | None] | None = None,
    logprobs: Sequence[list[list[Logprob]] | None] | None = None,
    **per_generation: Sequence[Any] | None,
) -> GenerateOutput:
    """Build an output from its parts.

    Args:
        generations: the texts, `None` where there is none.
        input_tokens: tokens of the input: one entry per generation, or one for the request.
            `None` or an empty list means unknown and is left out, as is what `count_of` says is
            unknown; a zero is kept.
        output_tokens: tokens of the generations, likewise.
        logprobs: per generation, per position, the candidates. Left out when `None` or empty.
        per_generation: further lists with one entry per generation, such as `finish_reasons`;
            left out when `None`.
    """
    statistics: dict[str, list[Any]] = {}
    if input_tokens and (counts := _counts(input_tokens)):
        statistics["input_tokens"] = counts
    if output_tokens and (counts := _counts(output_tokens)):
        statistics["output_tokens"] = counts
    output: dict[str, Any] = {"generations": list(generations), "statistics": statistics}
    if logprobs:
        output["logprobs"] = list(logprobs)
    for key, entries in per_generation.items():
        if entries is not None:
            output[key] = list(entries)
    return cast(GenerateOutput, output)


def _counts(given: Any) -> list[int | None] | None:
    """Return the counts of a list, or `None` if none of them is known. One number is a list of one."""
    if isinstance(given, (list, tuple)):
        counts = list(map(count_of, given))
    else:
        counts = [count_of(given)]
    return None if counts.count(None) == len(counts) else counts


def merge_responses(responses: Sequence[GenerateOutput], n: int = 1) -> list[GenerateOutput]:
    """Merge consecutive groups of `n` responses into one output each.

    Entry *i* of every list of the merged output belongs to generation *i*. Missing entries are `None`: for a
    key that only some responses have, and for a statistic that has one entry for a whole request. So the sum
    of a statistic is unchanged.

    Args:
        responses: the responses, in order. The last group may be shorter; `[]` gives `[]`.
        n: the number of responses that make one output, at least 1.
    """
    if n < 1:
        raise ConfigurationError(f"n is {n}, but a group has at least one response")
    if n == 1:
        return list(responses)
    return [_merge(responses[start : start + n]) for start in range(0, len(responses), n)]


def _merge(group: Sequence[GenerateOutput]) -> GenerateOutput:
    lengths = [len(response["generations"]) for response in group]
    merged: dict[str, Any] = {
        "generations": [text for response in group for text in response["generations"]],
        "statistics": _concatenate([response.get("statistics") or {} for response in group], lengths),
    }
    extras = [
        {key: value for key, value in response.items() if key not in ("generations", "statistics")}
        for response in group
    ]
    merged.update(_concatenate(extras, lengths))
    return cast(GenerateOutput, merged)


def _concatenate(parts: Sequence[dict[str, Any]], lengths: Sequence[int]) -> dict[str, list[Any]]:
    """Concatenate the lists of all parts under each key, each padded to its part's length."""
    keys = dict.fromkeys(key for part in parts for key in part)
    joined: dict[str, list[Any]] = {}
    for key in keys:
        entries = joined[key] = []
        for part, length in zip(parts, lengths, strict=True):
            own = part.get(key)
            if isinstance(own, (list, tuple)):
                entries.extend(own)
                entries.extend([None] * (length - len(own)))
            else:  # one value for all generations, or nothing
                entries.extend([own] * length)
    return joined


def merge_results(results: Sequence[Any], llm: str = "the backend") -> Any:
    """Merge the results of several calls for one input into one output.

    If a result is an error or not a valid output, return the first error; its `outputs` has the finished
    outputs.
    """
    outputs: list[Any] = []
    first: BaseException | None = None
    for item in results:
        if not isinstance(item, BaseException):
            try:
                outputs.append(check_output(item, None, llm))
                continue
            except GenerationError as error:
                item = error
        first = first or item
        if isinstance(item, GenerationError):  # it may hold generations, or the usage that was paid for
            outputs.extend(output for output in item.outputs if output is not None)
    if first is None:
        return merge_responses(outputs, len(outputs))[0]
    if isinstance(first, GenerationError):
        first.outputs = list(merge_responses(outputs, len(outputs))) if outputs else []
    return first


def compute_tokens(text_or_messages: str | Iterable[ChatItem], tokenizer: Tokenizer) -> int:
    """Count the tokens of a text, or of the contents of a chat; a chat template is not counted.

    If a content is a list of parts, its text parts count.
    """
    if isinstance(text_or_messages, str):
        return len(tokenizer.encode(text_or_messages))
    total = 0
    for message in text_or_messages:
        content = message.get("content")
        if isinstance(content, str):
            total += len(tokenizer.encode(content))
        else:
            total += sum(len(tokenizer.encode(part["text"])) for part in content or () if "text" in part)
    return total


def check_output(output: Any, num_generations: int | None, llm: str) -> GenerateOutput:
    """Check the output of a backend: the number of generations, and the type of every value.

    If a value other than a generation has a wrong type, it is left out of a copy; the output itself is not
    changed. A count is left out if `count_of` rejects it, or if it is zero although there is a text.

    Args:
        output: the value that the backend returned.
        num_generations: the requested number of generations; `None` for any number.
        llm: the backend's name, for messages.

    Returns:
        The output, or the copy.

    Raises:
        GenerationError: the value is not an output, or has a wrong number or type of generations.
    """
    generations = output.get("generations") if type(output) is dict else None
    if type(generations) is not list:
        output = _repaired(output, llm)
        generations = output["generations"]
    if len(generations) != num_generations and num_generations is not None:
        raise GenerationError(
            f"{llm} returned {len(generations)} generations where {num_generations} were asked for",
            hint=_REPORT,
        )
    for text in generations:
        if type(text) is not str and text is not None and not isinstance(text, str):
            _no_text(output, text, llm)
    # This is called for every row: a good output must cost nothing beyond a few comparisons.
    statistics = output.get("statistics")
    if type(statistics) is not dict:
        return _mended(output)
    for name, counts in statistics.items():
        if type(counts) is not list:
            return _mended(output)
        for count in counts:
            if type(count) is int and 0 < count <= 2**53:
                continue
            if name in _USED or type(count) is not int or count != 0:
                return _mended(output)
    for key in output:
        if key in _CHECKED:
            continue
        entries = output[key]
        if type(entries) is not list:
            return _mended(output)
        for entry in entries:
            if type(entry) is not str and entry is not None:
                return _mended(output)
    return cast(GenerateOutput, output)


def _repaired(output: Any, llm: str) -> dict[str, Any]:
    """Convert an output that is not a dict with a list of generations; raise if that is impossible."""
    try:
        known = {key: output[key] for key in output.keys()}  # noqa: SIM118
        if isinstance(known["generations"], (list, tuple)):
            return known | {"generations": list(known["generations"])}
    except Exception:  # whatever it is, it is no output
        known = {}
    what, hint = type(output).__name__, _REPORT
    if isinstance(output, (list, tuple)) and all(item is None or isinstance(item, str) for item in output):
        what, hint = "a list of texts", "return prepare_output([…]) with these texts; stillhouse has it"
    elif isinstance(output, str):
        hint = "return prepare_output([text]); stillhouse has it"
    raise GenerationError(f"{llm} returned {what} instead of an output with a list of generations", hint=hint)


def _no_text(output: dict[str, Any], text: Any, llm: str) -> NoReturn:
    """Raise an error for a generation that is not a text, with the reported usage."""
    statistics = _statistics(output.get("statistics"), True)
    raise GenerationError(
        f"{llm} returned a generation of type {type(text).__name__} instead of a text",
        outputs=[{"generations": [], "statistics": statistics}],
        hint=_REPORT,
    )


def _mended(output: dict[str, Any]) -> GenerateOutput:
    """Return a copy of an output that has only the values with the contract's types."""
    generations = output["generations"]
    mended: dict[str, Any] = {
        "generations": generations,
        "statistics": _statistics(output.get("statistics"), any(generations)),
    }
    odd: list[float] = []
    count = _not_finite(_own_numbers(output.get("statistics")))
    for key, value in output.items():
        if key in mended or not isinstance(key, str):
            continue
        entries_of = _KNOWN.get(key)
        if key == "logprobs" or entries_of is not None:
            if isinstance(value, (list, tuple)) and len(value) == len(generations):
                mended[key] = [entries_of(entry) if entries_of else _logprobs(entry, odd) for entry in value]
        elif not _is_too_deep(value):
            mended[key] = value
            count += _not_finite(value)
    count += len(odd)
    # An output that was checked before already has this count.
    if count and count > sum(count_of(told) or 0 for told in mended["statistics"].get(NOT_FINITE, ())):
        mended["statistics"][NOT_FINITE] = [count]
    return cast(GenerateOutput, mended)


def _statistics(given: Any, has_text: bool) -> dict[str, list[Any]]:
    """Return the valid statistics: counts of tokens, and the backend's own numbers and texts."""
    known: dict[str, list[Any]] = {}
    for name, entries in given.items() if isinstance(given, dict) else ():
        entries = list(entries) if isinstance(entries, (list, tuple)) else [entries]
        if not isinstance(name, str):
            continue
        if name.endswith("_tokens"):
            entries = [count_of(entry) for entry in entries]
            if has_text and name in _USED and not any(entries):
                continue
        else:
            entries = [entry if _is_plain(entry) else None for entry in entries]
        if any(entry is not None for entry in entries):
            known[name] = entries
    return known


def _own_numbers(statistics: Any) -> list[float]:
    """Return the numbers among the statistics that are not counts of tokens."""
    given = statistics if isinstance(statistics, dict) else {}
    own = (entries for name, entries in given.items() if not str(name).endswith("_tokens"))
    listed = (entries if isinstance(entries, (list, tuple)) else [entries] for entries in own)
    return [entry for entries in listed for entry in entries if isinstance(entry, float)]


def _is_plain(value: Any) -> bool:
    """Whether a value is a text, a Boolean, a finite float or an integer of 64 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _logprobs(positions: Any, odd: list[float]) -> list[list[Logprob]] | None:
    """Return the candidates of every position whose token is a text.

    Args:
        positions: the value that the backend returned.
        odd: receives the log probabilities that are not numbers.
    """
    if not isinstance(positions, (list, tuple)):
        return None
    read: list[list[Logprob]] = []
    for candidates in positions:
        if not isinstance(candidates, (list, tuple)):
            return None
        kept: list[Logprob] = []
        for item in candidates:
            # Nearly all are valid, and a row has hundreds.
            if type(item) is dict and type(item.get("token")) is str:
                value = item.get("logprob")
                if type(value) is float and value < math.inf:
                    kept.append(cast(Logprob, item))
                    continue
            if isinstance(item, dict) and isinstance(item.get("token"), str):
                # A candidate without a number keeps its place, with NaN as its log probability.
                value = _number(item.get("logprob"))
                kept.append(cast(Logprob, {**item, "logprob": value}))
                if math.isnan(value):
                    odd.append(value)
        read.append(kept)
    return read


def _number(value: Any) -> float:
    """Convert a number of any library to a float, minus infinity included; NaN if it is not a number."""
    try:
        number = math.nan if isinstance(value, (str, bytes, bool, type(None))) else float(value)
    except Exception:  # not a number
        return math.nan
    return number if number < math.inf else math.nan


def _not_finite(value: Any, *, of_array: bool = False) -> int:
    """Count the NaNs and infinities in a value that is not too deep; an array contains no other array."""
    todo: list[tuple[Any, ...]] = [(value,)]
    count = 0
    while todo:
        for item in todo.pop():
            kind = type(item)
            if kind in _SCALARS:
                continue
            if isinstance(item, float):
                count += not math.isfinite(item)
            elif isinstance(item, dict):
                todo.append(tuple(item.values()))
            elif isinstance(item, (list, tuple)):
                todo.append(tuple(item))
            elif not of_array:
                with contextlib.suppress(Exception):  # an array of another library, or a number of it
                    plain = item.tolist()
                    if isinstance(plain, (float, list)) and not _is_too_deep(plain):
                        count += _not_finite(plain, of_array=True)
    return count


def _calls(calls: Any) -> list[dict[str, Any]] | None:
    if not isinstance(calls, (list, tuple)):
        return None
    return [call for call in calls if isinstance(call, dict) and not _is_too_deep(call)] or None


def _is_too_deep(value: Any) -> bool:
    """Whether a value is nested too deeply to be stored, as one that contains itself is."""
    todo = [(value, 0)]
    while todo:
        holder, depth = todo.pop()
        if depth > MAX_DEPTH:
            return True
        if isinstance(holder, dict):
            holder = holder.values()
        elif not isinstance(holder, (list, tuple)):
            continue
        todo.extend((item, depth + 1) for item in holder if isinstance(item, (dict, list, tuple)))
    return False


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


_KNOWN: dict[str, Callable[[Any], Any]] = {
    "finish_reasons": _text,
    "reasoning": _text,
    "tool_calls": _calls,
}
"""The keys other than `logprobs` whose entries have a type in the contract, and how an entry is read."""
