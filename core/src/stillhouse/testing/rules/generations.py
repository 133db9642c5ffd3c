"""`GenerationRules`: how long a generation is, why it ended, and that several of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stillhouse.errors import ConfigurationError, GenerationError, StillhouseError
from stillhouse.llm import LLM
from stillhouse.testing.base import Conformance
from stillhouse.testing.rule import Broken, expect, rule, said, unseen
from stillhouse.testing.words import reason_problem
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = ["GenerationRules"]

# A word is seldom less than a token: what has more words than this many times its tokens has more tokens.
_WORDS_PER_TOKEN = 4
_LONG_TOKENS = 12
_DRAWS = 4
# Of as many draws so many must differ before several generations are expected to.
_DIFFERENT = 3


class GenerationRules(Conformance):
    """A generation ends where it was asked to, says why, and is not the one beside it."""

    @rule(since="0.2")
    def test_c13_every_generation_says_why_it_ended(self) -> None:
        """Every generation has a finish reason: `stop`, `length`, `tool_calls`, `content_filter` or
        `refusal`; for anything else, the provider's own word in lower case.

        Why: callers use it to find and retry truncated answers, with every backend.

        Fix: give `finish_reasons` to `prepare_output`, one word per generation, and translate the provider's
        words.
        """
        for output in self._ask_raw(self.shared(), self.inputs(2)):
            reasons = output.get("finish_reasons")
            expect(reasons is not None, "there are no finish_reasons")
            for position, text in enumerate(output["generations"]):
                if text is None:
                    continue
                reason = reasons[position] if reasons and position < len(reasons) else None
                problem = reason_problem(reason)
                expect(not problem, problem)

    @rule(after=("C05", "C13"))
    def test_c06_what_has_no_text_is_none_and_says_why(self) -> None:
        """A generation is a text or `None`; where it is `None`, `finish_reasons` says why.

        Why: an empty text looks like an answer, and a `None` without a reason looks like a bug.

        Fix: write `text or None`, and give `finish_reasons`, one entry per generation.
        """
        _check_texts(self._ask_raw(self.shared(), self.inputs(2), num_generations=2))

    @rule(after=("C05", "C06", "C13"), since="0.2")
    def test_c15_an_answer_without_a_text_is_none(self) -> None:
        """If the model generates no text, the generation is `None`, and `finish_reasons` says why.

        Why: such an answer is rare, and usually appears in the middle of a long run.

        Fix: write `text or None`. Give the kit `make_empty()` if it finds no input that is answered without a
        text.
        """
        if not _check_texts(self._empty_outputs(self.shared())):
            unseen("every generation had a text; make_empty() may give an input that is answered without one")

    @rule(since="0.2")
    def test_c12_max_new_tokens_is_kept_to(self) -> None:
        """No generation has more tokens than `max_new_tokens`; one that the limit cut off does not have the
        finish reason `stop`.

        Why: budgets reserve tokens by it, and a truncated answer must not look complete.

        Fix: pass it on to the engine or the API, under the name it has there, and give the finish reason
        `length` where an answer was cut off; or leave it out of the signature.
        """
        if "max_new_tokens" not in self.cls.generation_parameters().parameters:
            unseen("there is no parameter max_new_tokens")
        llm = self.shared()
        sent = self._sent_for(llm, max_new_tokens=33)
        if sent is not None:
            same = sent == self._sent_for(llm, max_new_tokens=34)
            expect(not same, "max_new_tokens=33 and max_new_tokens=34 send the same request")
            return
        for text in sorted(self.texts, key=len, reverse=True):
            if self._is_cut(llm, self.input_of(text)):
                return
        unseen("no answer is so long that max_new_tokens cuts it off")

    @rule(after="C05", since="0.2")
    def test_c14_several_generations_are_drawn_one_by_one(self) -> None:
        """Where answers vary, several generations of one input vary too, also with a seed.

        Why: a caller that asks for four samples and gets the same one four times has paid for three of them
        for nothing.

        Fix: give each generation a seed of its own, such as `seed + position`; or set
        `_num_generations_param_supported` to False, and the contract does so.
        """
        llm = self.shared()
        names = self.cls.generation_parameters().parameters
        has_seed = "seed" in names
        sent = self._sent_for(llm, num_generations=3, **({"seed": 4711} if has_seed else {}))
        if sent is not None:
            if not has_seed or len(sent) < 3 * self.requests_per_input:
                unseen("the API draws them, from one request or without a seed")
            if self._sent_for(llm, seed=4711) == self._sent_for(llm, seed=4712):
                unseen("a seed makes no difference to what is sent")
            bodies = [repr(item) for item in sent if item is not None]
            expect(len(set(bodies)) > 1, f"3 generations with seed=4711 sent {len(bodies)} equal requests")
            return
        more = {"temperature": 1.0} if "temperature" in names else {}
        alike: list[Any] = []
        for input in self.inputs():
            seeds = [{"seed": 21 + number} if has_seed else {} for number in range(_DRAWS)]
            alone = {self._first_text(self.ask(llm, [input], **more, **seed)[0]) for seed in seeds}
            if len(alone) < _DIFFERENT:
                continue
            (output,) = self.ask(llm, [input], num_generations=_DRAWS, **more, **seeds[0])
            if len(set(output["generations"])) > 1:
                return
            alike = output["generations"]
        expect(not alike, f"{_DRAWS} generations of one input are all {str(alike[:1])[1:-1][:200]}")
        unseen("the answer to an input is always the same")

    # Helpers

    def _first_text(self, output: GenerateOutput) -> str | None:
        return output["generations"][0]

    def _is_cut(self, llm: LLM, input: FormattedInput) -> bool:
        """Check that an answer is cut off; return whether it is long enough for that."""
        (whole,) = self.ask(llm, [input], max_new_tokens=_LONG_TOKENS)
        for limit in (1, 2, 4):
            try:
                (cut,) = self.ask(llm, [input], max_new_tokens=limit)
            except (ConfigurationError, GenerationError):
                continue  # an engine may have a minimum
            tokens, words = _size(cut)
            expect(tokens <= limit, f"with max_new_tokens={limit} a generation has {tokens} output_tokens")
            expect(
                words <= _WORDS_PER_TOKEN * limit,
                f"with max_new_tokens={limit} a generation has {words} words: {self._first_text(cut)!r}",
            )
            all_tokens, all_words = _size(whole)
            if all_tokens > limit or all_words > _WORDS_PER_TOKEN * limit:
                reason = (cut.get("finish_reasons") or [None])[0]
                seen = f"max_new_tokens={limit} cut a generation off, and its finish reason is 'stop'"
                expect(self._first_text(cut) is None or reason != "stop", seen)
                return True
        return False

    def _empty_outputs(self, llm: LLM) -> Iterator[GenerateOutput]:
        """Yield outputs, as the backend gives them, of what may be answered without a text."""
        try:
            blank = self._ask_for_blank(llm)
        except GenerationError as error:
            raise Broken(f"an answer whose text is empty is an error: {said(error)}") from error
        if blank is not None:
            yield from blank
            return
        made = self.make_empty()
        if made is not None:
            other, input = made
            other.use_registry(self.registry)
            with other:
                yield from self._ask_raw(other, [input])
            return
        for input, arguments in self._provoking(llm):
            try:
                outputs = self._ask_raw(llm, [input], **arguments)
            except StillhouseError:
                continue  # which it may well refuse
            yield from outputs

    def _provoking(self, llm: LLM) -> Iterator[tuple[FormattedInput, dict[str, Any]]]:
        """Inputs and arguments that many an engine answers without a text."""
        yield self.input_of(""), {}
        yield self.input_of(" "), {}
        if "stop" in self.cls.generation_parameters().parameters:
            (input,) = self.inputs(1)
            text = self._first_text(self.ask(llm, [input])[0])
            if text:
                yield input, {"stop": [text[:1]]}


def _check_texts(outputs: Iterable[GenerateOutput]) -> bool:
    """Check what stands where a text may be; return whether one was missing."""
    empty = False
    for output in outputs:
        reasons = output.get("finish_reasons") or []
        for position, text in enumerate(output["generations"]):
            expect(text is None or isinstance(text, str), f"a generation is a {type(text).__name__}")
            expect(text != "", "a generation is an empty text; it must be None")
            empty = empty or text is None
            has_reason = position < len(reasons) and reasons[position]
            expect(
                text is not None or has_reason,
                "a generation is None, and finish_reasons does not say why",
            )
    return empty


def _size(output: GenerateOutput) -> tuple[int, int]:
    """Return the tokens of a generation, 0 where they are unknown, and its words."""
    (entry,) = (output["statistics"].get("output_tokens") or [0])[:1]
    text = output["generations"][0] or ""
    return entry if isinstance(entry, int) else 0, len(text.split())
