"""`HTTPWireRules`: what is sent for a parameter, and what is made of an answer that is not quite one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stillhouse.errors import GenerationError, StillhouseError
from stillhouse.llm import LLM
from stillhouse.testing.http_base import HTTPBase
from stillhouse.testing.rewriting import with_counts, with_error, without_text
from stillhouse.testing.rule import Broken, expect, rule, said, unseen
from stillhouse.testing.watch import watching

__all__ = ["HTTPWireRules"]

# Two values of each parameter that only has to be sent. `max_new_tokens` and `seed` have rules of their own.
_VALUES: dict[str, tuple[Any, Any]] = {
    "temperature": (0.25, 0.5),
    "top_p": (0.75, 0.5),
    "top_k": (11, 9),
    "min_p": (0.125, 0.25),
    "stop": (["###"], ["---"]),
    "frequency_penalty": (0.25, 0.5),
    "presence_penalty": (0.25, 0.5),
    "repetition_penalty": (1.25, 1.5),
    "logit_bias": ({"11": 1.0}, {"9": 1.0}),
    "extra_body": ({"conformance": 1}, {"conformance": 2}),
}
_ODD_COUNTS: list[Any] = ["12", "many", 1.5, -3, 2**70, None, True, [], {}]
_ODD_TEXTS: list[Any] = [5, True, ["x"], {"x": "y"}, None]
_MAX_COUNT = 2**53


class HTTPWireRules(HTTPBase):
    """A parameter reaches the server; nothing that the server says is more than its row's failure."""

    @rule(since="0.2")
    def test_h12_an_error_inside_an_answer_is_no_answer(self) -> None:
        """An answer with status 200 and an `error` in it is retried or fails, whatever else it contains.

        Why: gateways report an overloaded model so, and half an answer would be taken for a whole one.

        Fix: look for `error` before reading an answer, and raise `GenerationError`. `HTTPLLM.complete` looks
        for it; `post` does where `failure_in` is overridden, and `request` with `check=True`.
        """
        changed: list[Any] = []

        def add_error(answer: Any) -> Any:
            # Of a job that is polled, the answer that has the text.
            is_it = self.requests_per_input == 1 or self.texts[0] in str(answer)
            failed = with_error(answer, {"message": "the model is overloaded", "code": 503})
            if changed or not is_it or failed == answer:
                return answer
            changed.append(failed)
            return failed

        llm = self.asking()
        self.server.rewrite = add_error
        try:
            (output,) = self.ask(llm, self.inputs(1))
        except GenerationError as error:
            expect(error.kind != "unknown", f"the error has the kind unknown: {said(error)}")
            return
        if not changed:
            unseen("the API's answer has no top level that an error could be in")
        again = len(self.server.requests) > self.requests_per_input
        expect(again, f"the answer was taken as good: {str(output['generations'])[:200]}")

    @rule(since="0.2")
    def test_h29_every_parameter_is_sent(self) -> None:
        """Two values of a generation parameter send two different requests.

        Why: a parameter that is taken and not sent is worse than one that is refused.

        Fix: send every parameter of the signature, under the API's name for it, or leave it out of the
        signature.
        """
        llm = self.shared()
        names = self.cls.generation_parameters().parameters
        silent, seen = [], False
        for name in (name for name in _VALUES if name in names):
            first, second = _VALUES[name]
            try:
                sent = self._sent_for(llm, **{name: first}), self._sent_for(llm, **{name: second})
            except StillhouseError:
                continue  # not every API takes these values
            seen = True
            if sent[0] == sent[1]:
                silent.append(name)
        expect(not silent, f"it makes no difference to the request: {', '.join(silent)}")
        if not seen:
            unseen("there is no parameter that the kit knows two values of")

    @rule(since="0.2")
    def test_h30_odd_counts_end_no_run(self) -> None:
        """A count that is a text, a fraction, negative, huge or `null` is left out, or fails its own row.

        Why: it ends a run of a million rows, or makes its budget wrong.

        Fix: take whole numbers from 0 to 2**53 for counts and nothing else, also where the transport
        asks how many tokens an answer used.
        """
        llm = self.asking(max_concurrency=1, retry_timeout=0.0)
        found = False
        for odd in _ODD_COUNTS:
            changed: list[bool] = []

            def rewrite(answer: Any, odd: Any = odd, changed: list[bool] = changed) -> Any:
                other = with_counts(answer, odd)
                changed.append(other != answer)
                return other

            for output in self._run_with(llm, rewrite, f"a count is {odd!r}"):
                for name, entries in output["statistics"].items():
                    counts = entries if name.endswith("_tokens") and isinstance(entries, list) else ()
                    for entry in counts:
                        is_count = type(entry) is int and 0 <= entry <= _MAX_COUNT
                        seen = f"where the server counts {odd!r} tokens, {name} holds {str(entry)[:50]}"
                        expect(entry is None or is_count, seen)
            found = found or any(changed)
        if not found:
            unseen("nothing in the answers of respond() is named like a count")

    @rule(since="0.2")
    def test_h31_odd_texts_end_no_run(self) -> None:
        """A number, a list, an object or `null` instead of a text never becomes a text; it may fail its
        own row.

        Why: what is written beside a row must be what the model wrote.

        Fix: check that a text is one where it is read, and raise `GenerationError` where it is not.
        """
        llm = self.asking(max_concurrency=1, retry_timeout=0.0)
        found = False
        for odd in _ODD_TEXTS:
            changed: list[bool] = []

            def rewrite(answer: Any, odd: Any = odd, changed: list[bool] = changed) -> Any:
                other = without_text(answer, self.texts[0], odd)
                changed.append(other != answer)
                return other

            for output in self._run_with(llm, rewrite, f"the text is {odd!r}"):
                if not any(changed):
                    continue
                for text in output["generations"]:
                    expect(
                        text is None or (isinstance(text, str) and text in ("5", "x", "y")),
                        f"where the server has {odd!r} for the text, a generation is {text!r}",
                    )
            found = found or any(changed)
        if not found:
            unseen("respond() does not answer with the text of the request, in one piece")

    def _run_with(self, llm: LLM, rewrite: Callable[[Any], Any], what: str) -> list[Any]:
        """Ask in a run where every answer is changed, and return what the backend made of it."""
        self.server.rewrite = rewrite
        with watching(llm) as watch:
            try:
                results = list(llm.iter_outputs(self.inputs(1), on_error="yield", **self.given()))
            except Exception as error:
                raise Broken(f"the run ended where {what}: {said(error)}") from error
        failed = any(isinstance(result, GenerationError) for _, result in results)
        return [] if failed else watch.outputs
