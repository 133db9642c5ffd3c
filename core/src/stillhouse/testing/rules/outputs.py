"""`OutputRules`: the number, the order and the shape of outputs."""

from __future__ import annotations

import copy
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.llm import LLM
from stillhouse.testing.base import Conformance
from stillhouse.testing.examples import TOOL
from stillhouse.testing.rule import Broken, expect, rule, unseen
from stillhouse.typing import GenerateOutput

__all__ = ["OutputRules"]

_NOT_COUNTS: list[Any] = [0, -1, True, 1.5]


class OutputRules(Conformance):
    """One output per input, in order, each in the one shape."""

    @rule(since="0.2")
    def test_c00_it_answers(self) -> None:
        """It loads, and answers a question with a text. While this rule is broken, no other is tested.

        Why: what does not answer can keep no other promise.

        Fix: see the line of yours below `seen`. `generate` returns a list with one
        `prepare_output([text, …])` per input, `agenerate` a single one.
        """
        outputs = self.ask(self.shared(), self.inputs(1))
        expect(len(outputs) == 1, f"{len(outputs)} outputs for one input")
        generations, reasons = outputs[0]["generations"], outputs[0].get("finish_reasons")
        expect(any(generations), f"the generations are {generations}; finish_reasons is {reasons}")

    @rule
    def test_c02_there_is_one_output_for_each_input(self) -> None:
        """There are as many outputs as inputs.

        Why: what is missing cannot be distinguished from what failed, and everything after it moves up.

        Fix: return one output per input; raise `GenerationError` where an input failed.
        """
        llm = self.shared()
        for count in (1, 3):
            outputs = llm.generate(self.inputs(count), 1, **self.given())
            expect(isinstance(outputs, list), f"generate returned {type(outputs).__name__}, not a list")
            expect(len(outputs) == count, f"{len(outputs)} outputs for {count} inputs")

    @rule(after="C02")
    def test_c01_outputs_are_in_the_order_of_the_inputs(self) -> None:
        """Outputs come in the order of the inputs, whichever is finished first.

        Why: rows of a file are joined with their answers by position; a wrong order mixes up rows
        without any error.

        Fix: put each output at the place of its input, also where the engine finishes them in
        another order.
        """
        llm = self.shared()
        inputs = self.inputs()
        alone = [self.ask(llm, [input])[0] for input in inputs]
        compare = _marks(alone, [self.ask(llm, [input])[0] for input in inputs])
        if len({repr(mark) for mark in compare(alone)}) < 2:
            unseen("the answers are all alike, and no input_tokens tell which is which")
        together = self.ask(llm, inputs)
        expect(
            compare(together) == compare(alone),
            f"asked together the inputs gave {_short(compare(together))}, alone {_short(compare(alone))}",
        )

    @rule
    def test_c03_no_inputs_give_no_outputs(self) -> None:
        """An empty list of inputs gives an empty list.

        Why: a batch that a filter emptied is not an error.

        Fix: return `[]` before asking the engine, which may refuse an empty batch.
        """
        llm = self.shared()
        expect(llm.generate_outputs([], **self.given()) == [], "generate_outputs([]) is not []")
        expect(not llm.generate([], 1, **self.given()), "generate([]) gives something")
        expect(list(llm.iter_outputs([], **self.given())) == [], "iter_outputs([]) yields something")

    @rule
    def test_c04_fewer_than_one_generation_is_refused(self) -> None:
        """`num_generations` below 1, or no whole number, is a `ConfigurationError`.

        Why: a mistaken 0 would cost money and return nothing.

        Fix: leave the check to the contract: do not override `generate_outputs`, or call
        `super().generate_outputs(…)`.
        """
        llm = self.shared()
        for count in _NOT_COUNTS:
            try:
                llm.generate_outputs(self.inputs(1), count, **self.given())
            except ConfigurationError:
                continue
            raise Broken(f"num_generations={count!r} was accepted")

    @rule
    def test_c05_as_many_generations_as_asked_for(self) -> None:
        """Every output has `num_generations` generations.

        Why: a caller that asks for four samples relies on four; missing ones would be lost silently.

        Fix: call the engine as often as necessary, or set `_num_generations_param_supported` to False and let
        the contract do so.
        """
        llm = self.shared()
        for count in (1, 2, 5):
            for output in self.ask(llm, self.inputs(2), num_generations=count):
                made = len(output["generations"])
                expect(made == count, f"{made} generations where {count} were asked for")

    @rule(after="C05")
    def test_c07_statistics_are_lists(self) -> None:
        """A statistic is a list: one entry per generation, or one for the whole request.

        Why: the runner sums the lists up; a bare number or a list of another length cannot be told
        apart by generation.

        Fix: build outputs with `stillhouse.prepare_output`, and give it lists.
        """
        seen = False
        for output in self._raw(self.shared(), 3):
            statistics = output.get("statistics")
            expect(isinstance(statistics, dict), f"statistics is {statistics!r}, not a dict")
            seen = seen or bool(statistics)
            for name, entries in statistics.items():
                made = len(output["generations"])
                expect(isinstance(entries, list), f"the statistic {name} is {entries!r}, not a list")
                expect(
                    len(entries) in (1, made),
                    f"the statistic {name} has {len(entries)} entries for {made} generations",
                )
        if not seen:
            unseen("there are no statistics")

    @rule(after="C05")
    def test_c08_token_counts_are_whole_numbers_and_known(self) -> None:
        """Token counts are whole numbers; what is unknown is left out, never 0 or -1.

        Why: budgets and costs are computed from them, and a made-up zero makes a run look free.

        Fix: pass `None` to `prepare_output` for a count that you do not know.
        """
        seen = False
        for output in self._raw(self.shared(), 2):
            written = any(output["generations"])
            for name, entries in output["statistics"].items():
                if not name.endswith("_tokens") or not isinstance(entries, list):
                    continue
                seen = True
                for entry in entries:
                    whole = entry is None or (isinstance(entry, int) and not isinstance(entry, bool))
                    expect(whole, f"{name} holds {entry!r}")
                    expect(entry is None or entry >= 0, f"{name} holds {entry}, which counts nothing")
                unknown = name == "input_tokens" or (name == "output_tokens" and written)
                expect(not unknown or any(entries), f"{name} is {entries}, but there were tokens")
        if not seen:
            unseen("no statistic counts tokens")

    @rule(after="C05")
    def test_c09_other_keys_have_an_entry_per_generation(self) -> None:
        """Every other key of an output holds a list with one entry per generation.

        Why: entry *i* belongs to generation *i*, whatever the key; merging and writing rely on it.

        Fix: give further keys to `prepare_output` as lists of that length, `None` where there is nothing.
        """
        seen = False
        for output in self._raw(self.shared(), 2):
            for key, entries in output.items():
                if key in ("generations", "statistics"):
                    continue
                seen = True
                made, count = len(output["generations"]), None
                if isinstance(entries, list):
                    count = len(entries)
                expect(count == made, f"{key} is {_short(entries)} for {made} generations")
        if not seen:
            unseen("there are no other keys")

    @rule(after="C02")
    def test_c10_inputs_are_left_as_they_are(self) -> None:
        """Inputs are never changed.

        Why: callers send the same chat again, and write it beside its answer.

        Fix: copy a chat before adding to it: `[*chat, message]`, `{**message, "role": …}`.
        """
        llm = self.shared()
        inputs = self.inputs()
        before = copy.deepcopy(inputs)
        self.ask(llm, inputs)
        expect(inputs == before, f"the inputs are now {_short(inputs)}")

    @rule
    def test_c11_arguments_are_left_as_they_are(self) -> None:
        """Arguments and `generation_kwargs` are never changed.

        Why: the same arguments hold for a million rows, from several threads.

        Fix: copy a dict or a list before changing it, also one inside another.
        """
        llm = self.shared()
        names = self.cls.generation_parameters().parameters
        given = self.given()
        more = {"stop": ["###"], "tools": [copy.deepcopy(TOOL)] if "tools" in llm.capabilities else None}
        given |= {name: value for name, value in more.items() if name in names and value is not None}
        if not given:
            unseen("there is no parameter that the kit knows a value of")
        llm.generation_kwargs = copy.deepcopy(given)
        stored = copy.deepcopy(llm.generation_kwargs)
        before = copy.deepcopy(given)
        llm.generate_outputs(self.inputs(2), **given)
        expect(given == before, f"the arguments are now {_short(given)}")
        expect(llm.generation_kwargs == stored, f"generation_kwargs is now {_short(llm.generation_kwargs)}")

    def _raw(self, llm: LLM, count: int) -> list[GenerateOutput]:
        """Outputs as the backend gives them."""
        return self._ask_raw(llm, self.inputs(2), num_generations=count)


def _marks(first: list[GenerateOutput], second: list[GenerateOutput]) -> Any:
    """Return what identifies the input: its tokens, and the text if that is always the same."""
    same = [output["generations"] for output in first] == [output["generations"] for output in second]

    def compare(outputs: list[GenerateOutput]) -> list[Any]:
        return [
            (output["statistics"].get("input_tokens"), output["generations"] if same else None)
            for output in outputs
        ]

    return compare


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + " …"
