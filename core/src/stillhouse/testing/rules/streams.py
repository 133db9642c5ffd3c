"""`StreamRules`: streams of inputs, coroutines, and inputs that fail."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import ERROR_KINDS, GenerationError
from stillhouse.testing.base import Conformance
from stillhouse.testing.rule import Broken, expect, rule, said, unseen

__all__ = ["StreamRules"]

# How far `iter_outputs` may run ahead of the caller, as a multiple of max_concurrency.
_AHEAD = 20


class StreamRules(Conformance):
    """Inputs are read as they are needed, and each has its result, in a script or a coroutine."""

    @rule(after="C02")
    def test_c46_a_stream_is_read_as_it_is_needed(self) -> None:
        """`iter_outputs` pulls inputs lazily, and stays a bounded number of inputs ahead.

        Why: a run of a million rows must not hold a million rows.

        Fix: do not override `iter_outputs`, or pull with `itertools.islice`, never with `list`.
        """
        llm = self.shared()
        bound = llm.preferred_batch_size * 2
        if isinstance(llm, AsyncLLM):
            llm.max_concurrency = 2
            bound = 2 * _AHEAD
        pulled = 0

        def source() -> Iterator[Any]:
            nonlocal pulled
            for index in itertools.count():
                pulled += 1
                if pulled > bound:
                    return
                yield self.inputs(4)[index % 4]

        stream = llm.iter_outputs(source(), **self.given())
        expect(pulled == 0, "inputs were pulled before the first result was asked for")
        for _ in range(3):
            next(stream)
        getattr(stream, "close", lambda: None)()
        expect(pulled <= bound, f"for three results more than {bound} inputs were pulled")

    @rule(after="C02")
    def test_c47_results_have_the_index_of_their_input(self) -> None:
        """`iter_outputs` yields each index once, with the output of that input; with `ordered=True` in
        order.

        Why: it is the only link between a row and its answer.

        Fix: do not override `iter_outputs` or `_iter_outputs`.
        """
        llm = self.shared()
        inputs = self.inputs(6)
        tokens = [output["statistics"].get("input_tokens") for output in self.ask(llm, inputs)]
        compared = len({repr(item) for item in tokens}) > 1
        for ordered in (True, False):
            results = list(llm.iter_outputs(inputs, ordered=ordered, **self.given()))
            indices = [index for index, _ in results]
            expect(
                sorted(indices) == list(range(6)),
                f"ordered={ordered}: for 6 inputs the indices are {indices}",
            )
            expect(not ordered or indices == sorted(indices), f"ordered=True yielded {indices}")
            for index, output in results:
                assert not isinstance(output, GenerationError)
                own = output["statistics"].get("input_tokens")
                expect(own == tokens[index], f"index {index} has input_tokens {own}, not {tokens[index]}")
        if not compared:
            unseen("no input_tokens tell which answer is whose")

    @rule
    def test_c48_a_failed_input_is_yielded_in_its_place(self) -> None:
        """With `on_error="yield"` a refused or unreadable input is an error at its position, and the
        others are generated.

        Why: one bad row must not end a run of a million.

        Fix: do not override `iter_outputs`; refuse inputs in `check_input`, each by itself.
        """
        llm = self.shared()
        unreadable = GenerationError("this row could not be read", kind="invalid_input", attempts=0)
        first, last = self.inputs(2)
        inputs: list[Any] = [first, 5, unreadable, last]
        results = dict(llm.iter_outputs(inputs, on_error="yield", **self.given()))
        failed = [isinstance(results.get(index), GenerationError) for index in range(4)]
        expect(failed == [False, True, True, False], f"of [good, bad, unreadable, good], failed: {failed}")
        expect(results[2] is unreadable, "an input that is an error is not its own result")
        self._check(results[1])

    @rule(concurrent=True, after="C05")
    def test_c49_coroutines_get_the_same(self) -> None:
        """`agenerate_outputs` and `aiter_outputs` give the same outputs as `generate_outputs`.

        Why: a server written with coroutines must not get other answers than a script.

        Fix: do not override them; write `agenerate` alone.
        """
        llm = self.shared()
        assert isinstance(llm, AsyncLLM)
        inputs = self.inputs()
        expected = [_shape(output) for output in self.ask(llm, inputs, num_generations=2)]

        async def main() -> tuple[list[Any], list[Any]]:
            given = self.given()
            outputs = await llm.agenerate_outputs(inputs, 2, **given)
            stream = [result async for result in llm.aiter_outputs(inputs, 2, **given)]
            return [_shape(output) for output in outputs], [_shape(output) for _, output in stream]

        for name, seen in zip(("agenerate_outputs", "aiter_outputs"), asyncio.run(main()), strict=True):
            expect(seen == expected, f"{name} gives {seen} where generate_outputs gives {expected}")

    @rule
    def test_c50_a_failure_is_an_error_of_a_kind(self) -> None:
        """An input that fails raises `GenerationError` with one of the known kinds, and a hint.

        Why: failures are counted and retried by kind.

        Fix: raise `GenerationError(message, kind=…, hint=…)`; catch what the engine raises. Give the
        kit `make_failing()` so that it sees one.
        """
        failing = self.make_failing()
        if failing is None:
            unseen("make_failing() gives no input that fails")
        llm, input = failing
        llm.use_registry(self.registry)
        with llm:
            try:
                llm.generate_outputs([input], **self.given())
            except GenerationError as error:
                self._check(error)
            else:
                raise Broken("the input that make_failing() gives did not fail")
            ((index, result),) = llm.iter_outputs([input], on_error="yield", **self.given())
            expect(index == 0, f"the failed input 0 was yielded as {index}")
            self._check(result)

    @rule(after="C02", since="0.2")
    def test_c53_the_pieces_of_a_stream_are_its_text(self) -> None:
        """`stream` yields pieces of the text, and last the output that `generate_outputs` gives; `astream`
        does the same for a coroutine.

        Why: the pieces that a user has seen must be the answer that is kept.

        Fix: do not override them; give `on_piece` the text as the output has it, from its beginning.
        """
        llm = self.shared()
        (input,) = self.inputs(1)
        expected = _shape(self.ask(llm, [input])[0])
        self._check_stream("stream", list(llm.stream(input, **self.given())), expected)
        if isinstance(llm, AsyncLLM):
            streaming = llm.astream(input, **self.given())

            async def main() -> list[Any]:
                return [item async for item in streaming]

            self._check_stream("astream", asyncio.run(main()), expected)

    def _check_stream(self, name: str, items: list[Any], expected: tuple[int, Any]) -> None:
        *pieces, output = items or [None]
        expect(isinstance(output, dict), f"{name} ended with {str(output)[:200]!r}, not with an output")
        for piece in pieces:
            expect(isinstance(piece, str), f"{name} yielded a {type(piece).__name__} before its end")
        text, joined = output["generations"][0], "".join(pieces)
        same = text is None or joined == text
        expect(same, f"the pieces of {name} are {joined[:200]!r}, and its output has {str(text)[:200]!r}")
        shape = _shape(output)
        expect(shape == expected, f"{name} ends with {shape} where generate_outputs gives {expected}")

    def _check(self, error: Any) -> None:
        expect(isinstance(error, GenerationError), f"the failure is a {type(error).__name__}")
        expect(error.kind in ERROR_KINDS, f"the kind {error.kind!r} is not one of {', '.join(ERROR_KINDS)}")
        if error.kind == "unknown":
            raise Broken(f"the kind is unknown: {said(error)}") from error
        expect(bool(error.message.strip()), "the error has no message")
        expect(isinstance(error.attempts, int) and error.attempts >= 0, f"attempts is {error.attempts!r}")


def _shape(output: Any) -> tuple[int, Any]:
    return len(output["generations"]), output["statistics"].get("input_tokens")
