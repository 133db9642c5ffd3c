"""What people reported of engines on their machines, replayed on each engine.

A plugin subclasses `LocalEngineReports` in a test module, with `make` for its LLM. Texts are compared
under greedy decoding, and with a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_models import tiny_model

from stillhouse import AsyncLLM, ConfigurationError, GenerationError, UnsupportedError

__all__ = ["STRICT", "LocalEngineReports"]

STRICT = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\\n' }}"  # a newline at the end of a template is dropped
)
"""A template that takes no system message, and the roles in turns only."""

FORM = {
    "format": "json",
    "schema": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
OTHER = {"format": "choice", "schema": ["red", "green", "blue"]}

GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 12}


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


MIXED = [said("river " * (1 + 7 * number % 40)) for number in range(16)]
"""Chats of 1 to 40 words, unsorted."""


def texts(outputs: Any) -> list[Any]:
    return [output["generations"][0] for output in outputs]


class LocalEngineReports:
    """The replays. `make` gives an LLM of a folder, not loaded; `eos` is the token that ends an answer.

    Attributes:
        context: how many tokens prompt and answer may have in the LLM that `make` gives.
        begins_chats: whether the engine itself puts the token that begins a text before a chat, once.
        merges_system: whether the engine writes a system message into the user's first one where the
            template refuses it.
    """

    context = 512
    eos = 2
    begins_chats = False
    merges_system = False

    def make(self, model: Path, **fields: Any) -> AsyncLLM:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tiny_model(tmp_path_factory.mktemp("tiny") / "tiny")

    @pytest.fixture(scope="class")
    @classmethod
    def llm(cls, model: Path) -> Iterator[AsyncLLM]:
        with cls().make(model) as llm:
            yield llm

    @contextlib.contextmanager
    def loaded(self, model: Path, **fields: Any) -> Iterator[AsyncLLM]:
        with self.make(model, **fields) as llm:
            yield llm

    @staticmethod
    def copied(model: Path, tmp_path: Path, **settings: Any) -> Path:
        """The model with other settings of its tokenizer; `None` takes one out."""
        folder = shutil.copytree(model, tmp_path / "copied")
        file = folder / "tokenizer_config.json"
        config = {**json.loads(file.read_text(encoding="utf-8")), **settings}
        file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}), encoding="utf-8")
        return folder

    # A row's text does not depend on its neighbours.

    def test_a_short_prompt_beside_a_long_one_has_the_text_that_it_has_alone(
        self, model: Path, tmp_path: Path
    ) -> None:
        odd = self.copied(model, tmp_path, pad_token=None, padding_side="right")
        before = (odd / "tokenizer_config.json").read_bytes()
        inputs = [said("Hi"), said("river " * 100)]
        with self.loaded(odd) as llm:
            alone = [texts(llm.generate_outputs([input], **GREEDY))[0] for input in inputs]
            assert texts(llm.generate_outputs(inputs, **GREEDY)) == alone
        assert (odd / "tokenizer_config.json").read_bytes() == before

    @pytest.mark.parametrize("parameters", [GREEDY, {**GREEDY, "temperature": 1, "seed": 11}])
    def test_a_row_has_the_same_text_alone_and_among_4_and_16(self, llm: AsyncLLM, parameters: Any) -> None:
        alone = [texts(llm.generate_outputs([input], **parameters))[0] for input in MIXED]
        assert texts(llm.generate_outputs(MIXED, **parameters)) == alone
        for start in range(0, 16, 4):
            four = MIXED[start : start + 4]
            assert texts(llm.generate_outputs(four, **parameters)) == alone[start : start + 4]

    def test_each_seed_and_each_generation_has_a_text_of_its_own(self, llm: AsyncLLM) -> None:
        asked: dict[str, Any] = {"temperature": 1, "max_new_tokens": 12}
        several = llm.generate_outputs([said("Hi")], num_generations=3, seed=5, **asked)[0]["generations"]
        single = [texts(llm.generate_outputs([said("Hi")], seed=seed, **asked))[0] for seed in (5, 6, 7)]
        assert several == single
        assert len(set(single)) == 3

    # Stop texts.

    def test_a_stop_text_ends_an_answer_wherever_it_begins_and_is_left_out(self, llm: AsyncLLM) -> None:
        whole = texts(llm.generate_outputs([said("Hi")], **GREEDY))[0]
        assert len(whole) > 8
        for start in range(1, len(whole) - 3):
            stop = whole[start : start + 3]
            if "\ufffd" in stop:
                continue  # a part of a character: its text is known when it is whole
            output = llm.generate_outputs([said("Hi")], stop=stop, **GREEDY)[0]
            assert output["generations"] == [whole[: whole.find(stop)] or None], stop
            assert output["finish_reasons"] == ["stop"]

    def test_the_first_of_several_stop_texts_counts_and_the_rest_of_the_batch_goes_on(
        self, llm: AsyncLLM
    ) -> None:
        whole = texts(llm.generate_outputs(MIXED[:4], **GREEDY))
        stops = [whole[0][3:5], whole[0][3:6]]  # one is the beginning of the other
        for text, output in zip(whole, llm.generate_outputs(MIXED[:4], stop=stops, **GREEDY), strict=True):
            ends = [text.find(stop) for stop in stops if stop in text]
            assert output["generations"] == [text[: min(ends, default=None)] or None]

    def test_an_answer_that_a_stop_text_leaves_empty_is_none_and_says_why(self, llm: AsyncLLM) -> None:
        whole = texts(llm.generate_outputs([said("Hi")], **GREEDY))[0]
        output = llm.generate_outputs([said("Hi")], stop=whole[0], **GREEDY)[0]
        assert output["generations"] == [None]
        assert output["finish_reasons"] == ["stop"]

    # Lengths, ends and counts.

    def test_one_prompt_that_is_too_long_fails_alone_among_nine(self, llm: AsyncLLM) -> None:
        inputs = [*MIXED[:4], said("river " * self.context), *MIXED[4:9]]
        outputs = [output for _, output in llm.iter_outputs(inputs, on_error="yield", **GREEDY)]
        error = outputs.pop(4)
        assert isinstance(error, GenerationError)
        assert error.kind == "context_length"
        assert not error.stops_run
        assert str(self.context) in error.message or "room" in error.message
        assert texts(outputs) == texts(llm.generate_outputs(MIXED[:9], **GREEDY))

    def test_an_answer_may_be_one_token_long(self, llm: AsyncLLM) -> None:
        for output in llm.generate_outputs(MIXED[:3], temperature=0, max_new_tokens=1):
            assert output["statistics"]["output_tokens"] == [1]
            assert output["finish_reasons"] == ["length"]

    def test_an_answer_that_ends_at_once_is_none_and_its_neighbours_go_on(self, llm: AsyncLLM) -> None:
        ended = llm.generate_outputs(MIXED[:2], logit_bias={self.eos: 1000}, **GREEDY)
        for output in ended:
            assert output["generations"] == [None]
            assert output["finish_reasons"] == ["stop"]
            assert output["statistics"]["output_tokens"] in ([0], [1])

    def test_every_row_has_its_own_number_of_tokens_and_nothing_after_its_end(self, llm: AsyncLLM) -> None:
        outputs = llm.generate_outputs(MIXED, **GREEDY)
        for output in outputs:
            assert "<|im_end|>" not in (output["generations"][0] or "")
            assert 1 <= output["statistics"]["output_tokens"][0] <= 12
        counts = [output["statistics"]["input_tokens"][0] for output in outputs]
        words = [len(input[0]["content"].split()) for input in MIXED]
        assert sorted(range(16), key=counts.__getitem__) == sorted(range(16), key=words.__getitem__)

    def test_a_chat_begins_with_what_its_template_writes_and_with_nothing_else(
        self, model: Path, tmp_path: Path
    ) -> None:
        adding = tiny_model(tmp_path / "adding", bos=True)
        with self.loaded(model) as plain:
            counts = [
                plain.generate_outputs([input], **GREEDY)[0]["statistics"]["input_tokens"]
                for input in (said("Hi"), "Hi")
            ]
        with self.loaded(adding) as llm:
            chat, raw = (
                llm.generate_outputs([input], **GREEDY)[0]["statistics"]["input_tokens"]
                for input in (said("Hi"), "Hi")
            )
        assert chat == [counts[0][0] + self.begins_chats]
        assert raw == [counts[1][0] + 1]

    # Forms.

    def test_forms_hold_whatever_is_in_the_batch_and_whoever_goes_away(self, llm: AsyncLLM) -> None:
        inputs = [(said("river " * (number % 5)), FORM if number % 3 else OTHER) for number in range(16)]
        inputs[7] = inputs[4]
        alone = [
            texts(llm.generate_outputs([input], temperature=0, max_new_tokens=40))[0] for input in inputs
        ]
        for answer, (_, form) in zip(alone, inputs, strict=True):
            if form is OTHER:
                assert answer in OTHER["schema"]
            else:
                assert set(json.loads(answer)) == {"a", "b"}
        assert texts(llm.generate_outputs(inputs, temperature=0, max_new_tokens=40)) == alone

        async def with_one_that_leaves() -> list[Any]:
            calls = [
                asyncio.ensure_future(llm.agenerate_outputs([input], temperature=0, max_new_tokens=40))
                for input in inputs
            ]
            await asyncio.sleep(0)
            calls[2].cancel()
            return await asyncio.gather(*calls, return_exceptions=True)

        results = asyncio.run(with_one_that_leaves())
        del results[2]
        assert [texts(result)[0] for result in results] == [*alone[:2], *alone[3:]]

    def test_a_row_with_a_form_that_is_cut_off_fails_alone(self, llm: AsyncLLM) -> None:
        inputs: list[Any] = [said("Hi"), (said("Hi"), FORM), "raw"]
        outputs = [
            output
            for _, output in llm.iter_outputs(inputs, on_error="yield", temperature=0, max_new_tokens=2)
        ]
        assert isinstance(outputs[1], GenerationError)
        assert outputs[1].kind == "truncated"
        assert not isinstance(outputs[0], GenerationError)
        assert not isinstance(outputs[2], GenerationError)

    def test_a_model_that_wants_to_write_spaces_only_cannot_in_a_form(self, llm: AsyncLLM) -> None:
        text = {
            "format": "json",
            "schema": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
        }
        biased = {" ": 60, "\n": 60, "  ": 60, "\t": 60}
        outputs = llm.generate_outputs(
            [(said("Hi"), {**text, "schema": {**text["schema"], "additionalProperties": False}})],
            temperature=0, max_new_tokens=30, logit_bias=biased,
        )  # fmt: skip
        answer = texts(outputs)[0]
        assert answer == json.dumps(json.loads(answer), separators=(",", ":"))

    # Streams.

    @pytest.mark.parametrize(
        "parameters", [GREEDY, {**GREEDY, "temperature": 1, "seed": 11, "max_new_tokens": 40}]
    )
    @pytest.mark.parametrize("input", [said("Hi"), "Hi"])
    def test_the_pieces_of_a_stream_are_the_text_of_generate(
        self, llm: AsyncLLM, input: Any, parameters: Any
    ) -> None:
        *pieces, output = llm.stream(input, logit_bias={self.eos: -1000}, **parameters)
        (whole,) = llm.generate_outputs([input], logit_bias={self.eos: -1000}, **parameters)
        assert len(pieces) > 3
        assert "".join(pieces) == whole["generations"][0]  # type: ignore[arg-type]
        assert {**output, "statistics": None} == {**whole, "statistics": None}  # type: ignore[dict-item]
        for name in ("input_tokens", "output_tokens"):
            assert output["statistics"][name] == whole["statistics"][name]  # type: ignore[index]

    def test_no_piece_has_a_part_of_a_stop_text(self, llm: AsyncLLM) -> None:
        whole = texts(llm.generate_outputs([said("Hi")], **GREEDY))[0]
        for start in range(1, len(whole) - 3, 2):
            stop = whole[start : start + 3]
            if "\ufffd" in stop:
                continue
            *pieces, output = llm.stream(said("Hi"), stop=[stop, whole[start + 1 :] + "?"], **GREEDY)
            assert "".join(pieces) == whole[: whole.find(stop)]  # type: ignore[arg-type]
            assert output["finish_reasons"] == ["stop"]  # type: ignore[index]

    def test_a_form_and_log_probabilities_are_those_of_generate(self, llm: AsyncLLM) -> None:
        given: dict[str, Any] = {"temperature": 0, "max_new_tokens": 40}
        if "logprobs" in llm.capabilities:
            given["top_logprobs"] = 2
        (whole,) = llm.generate_outputs([(said("Hi"), FORM)], **given)
        *pieces, output = llm.stream((said("Hi"), FORM), **given)
        assert len(pieces) > 1
        assert "".join(pieces) == whole["generations"][0]  # type: ignore[arg-type]
        assert output.get("logprobs") == whole.get("logprobs")  # type: ignore[union-attr]

    def test_a_stream_that_is_left_does_not_disturb_its_neighbours(self, llm: AsyncLLM) -> None:
        alone = texts(llm.generate_outputs(MIXED[:6], **GREEDY))

        async def main() -> Any:
            calls = asyncio.ensure_future(llm.agenerate_outputs(MIXED[:6], **GREEDY))
            endless: dict[str, Any] = {"max_new_tokens": 400, "logit_bias": {self.eos: -1000}}
            async with contextlib.aclosing(llm.astream(said("Hi"), **endless)) as items:  # type: ignore[type-var]
                assert isinstance(await anext(items), str)
            *pieces, output = [item async for item in llm.astream(MIXED[2], **GREEDY)]
            return "".join(pieces), output["generations"][0], texts(await calls)  # type: ignore[arg-type, index]

        assert asyncio.run(main()) == (alone[2], alone[2], alone)

    def test_unloading_ends_a_stream_with_an_error(self, model: Path) -> None:
        with self.loaded(model) as llm:
            items = llm.stream(said("Hi"), max_new_tokens=400, logit_bias={self.eos: -1000})
            assert isinstance(next(items), str)
            llm.unload()
            with pytest.raises(GenerationError) as caught:
                list(items)
            assert caught.value.kind == "connection"

    # Log-probabilities, templates, two engines.

    def test_log_probabilities_can_be_written_as_json(self, llm: AsyncLLM) -> None:
        if "logprobs" not in llm.capabilities:
            pytest.skip("this engine gives none")
        output = llm.generate_outputs(
            [said("Hi")], logprobs=True, top_logprobs=5, logit_bias={self.eos: -1000}, **GREEDY
        )[0]
        json.dumps(output, allow_nan=False)
        assert len(output["logprobs"][0]) == output["statistics"]["output_tokens"][0]
        for position in output["logprobs"][0]:
            assert len(position) == 5
            assert all(candidate["logprob"] <= 1e-4 for candidate in position)

    def test_roles_that_the_template_refuses_fail_their_row_by_name(self, model: Path) -> None:
        with self.loaded(model, chat_template=STRICT) as llm:
            rows: list[Any] = [
                said("Hi"),
                [*said("Hi"), *said("Hi again")],
                [{"role": "assistant", "content": "Hi"}, *said("Hi")],
                [{"role": "system", "content": "Be brief."}, *said("Hi")],
            ]
            outputs = [output for _, output in llm.iter_outputs(rows, on_error="yield", **GREEDY)]
            failed = [isinstance(output, GenerationError) for output in outputs]
            assert failed == [False, True, True, not self.merges_system]
            assert "alternate" in str(outputs[1])
            assert "alternate" in str(outputs[2])
            if self.merges_system:
                return
            assert "role system" in str(outputs[3])
            # A run with such a system message for all is refused before its first row.
            with pytest.raises((ConfigurationError, UnsupportedError), match="system"):
                llm.check_input(rows[3])

    def test_without_a_template_raw_prompts_run_and_chats_stop_before_the_first(
        self, model: Path, tmp_path: Path
    ) -> None:
        bare = self.copied(model, tmp_path, chat_template=None)
        with self.loaded(bare) as llm:
            assert texts(llm.generate_outputs(["Hi"], **GREEDY))[0]
            with pytest.raises((ConfigurationError, UnsupportedError), match="chat template") as raised:
                llm.check_input(said("Hi"))
            assert "chat_template" in raised.value.hint
        (bare / "chat_template.jinja").write_text(STRICT, encoding="utf-8")
        with self.loaded(bare) as with_file, self.loaded(model) as usual:
            assert texts(with_file.generate_outputs([said("Hi")], **GREEDY)) == texts(
                usual.generate_outputs([said("Hi")], **GREEDY)
            )

    def test_a_second_engine_starts_when_the_first_has_ended(self, model: Path) -> None:
        for _ in range(2):
            with self.loaded(model) as llm:
                assert texts(llm.generate_outputs([said("Hi")], **GREEDY))[0]
