"""`RowGenerator`: results for rows that another program has in memory."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

import stillhouse
from stillhouse import AsyncLLM, ConfigurationError, GenerationError, Row, RowGenerator, StillhouseError

sys.path.append(str(Path(__file__).parent))
import worker_llms  # workers import it by this name


def rows(*columns: dict[str, Any], typed: bool = False) -> list[Row]:
    return [Row(index, index + 1, found, typed=typed) for index, found in enumerate(columns)]


def test_results_come_in_the_order_of_the_rows() -> None:
    class LastFirstLLM(AsyncLLM):
        @property
        def model_name(self) -> str:
            return "last-first"

        _others: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)

        async def agenerate(self, input: Any, num_generations: int = 1) -> stillhouse.GenerateOutput:
            text = input[-1]["content"]
            if text == "0":
                await self._others.wait()
            elif text == "4":
                self._others.set()
            return stillhouse.prepare_output([f"{text}!"] * num_generations)

    with RowGenerator(LastFirstLLM(), prompt_column="q", num_generations=2) as generator:
        results = generator.generate(rows(*({"q": str(number)} for number in range(5))))
    assert [result["generations"] for result in results] == [[f"{number}!"] * 2 for number in range(5)]


def test_a_failed_row_has_its_error_and_the_others_are_done() -> None:
    with RowGenerator("echo", prompt_column="q") as generator:
        results = generator.generate(rows({"q": "a"}, {"q": None}, {"q": 3}, {}, {"q": "b"}))
    assert [result["generations"] for result in results] == [["a"], None, None, None, ["b"]]
    assert [result["error"] and result["error"]["message"] for result in results] == [
        None,
        "line 2: its q is null",
        "line 3: the column q is a number, not a text",
        "line 4: the row has no q",
        None,
    ]
    assert {tuple(result) for result in results} == {
        ("generations", "statistics", "finish_reasons", "model_name", "error")
    }


def test_an_error_that_every_row_would_meet_is_raised() -> None:
    class RefusedLLM(AsyncLLM):
        @property
        def model_name(self) -> str:
            return "refused"

        async def agenerate(self, input: Any, num_generations: int = 1) -> stillhouse.GenerateOutput:
            raise GenerationError("the key was refused", kind="authentication", hint="set THE_KEY")

    with RowGenerator(RefusedLLM()) as generator, pytest.raises(GenerationError) as raised:
        generator.generate(rows({"prompt": "a"}, {"prompt": "b"}))
    assert raised.value.kind == "authentication"
    assert raised.value.hint == "set THE_KEY"


def test_a_column_that_no_row_has_is_an_error() -> None:
    with RowGenerator("echo", prompt_column="question") as generator:
        with pytest.raises(ConfigurationError, match="no column question") as raised:
            generator.generate(rows({"questions": "a"}))
        assert "questions" in raised.value.hint
        generator.check(["questions", "id"])
        with pytest.raises(ConfigurationError, match="no column question") as raised:
            generator.generate(rows({}))  # what `columns_read` leaves
        assert "questions" in raised.value.hint
        # Later rows without it fail alone.
        generator.generate(rows({"question": "a"}))
        assert generator.generate(rows({"questions": "a"}))[0]["error"]["kind"] == "invalid_input"


def test_added_columns_replace_none_of_the_rows() -> None:
    with RowGenerator("echo") as generator:
        with pytest.raises(ConfigurationError, match="has a column error") as raised:
            generator.check(["prompt", "error"])
        assert "output_prefix" in raised.value.hint
        assert "--" not in raised.value.hint
    with RowGenerator("echo", output_prefix="a_", text=True) as generator:
        generator.check(["prompt", "error"])
        (result,) = generator.generate(rows({"prompt": "x"}))
    assert (result["a_generations"], result["a_error"]) == ("x", None)


def test_an_answers_own_column_is_renamed_if_the_rows_have_it() -> None:
    class ScoringLLM(AsyncLLM):
        @property
        def model_name(self) -> str:
            return "scoring"

        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            return {**stillhouse.prepare_output(["x"]), "score": 3}

    with RowGenerator(ScoringLLM()) as generator:
        generator.check(["prompt", "score"])
        (result,) = generator.generate(rows({"prompt": "x"}))
    assert result["generated_score"] == 3
    assert "score" not in result


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"prompt_column": "b"}, ["b"]),
        ({"messages_column": "c"}, ["c"]),
        ({"template": "{{ a }}{{ z | default('') }}"}, ["a"]),
        ({"template": "{{ row }}"}, ["a", "b", "c", "prompt", "input"]),
        ({}, ["prompt", "input"]),
        ({"row_params": True}, ["a", "b", "c", "prompt", "input"]),
    ],
)
def test_the_columns_read(options: dict[str, Any], read: list[str]) -> None:
    generator = RowGenerator("echo", **options)
    assert generator.columns_read(["a", "b", "c", "prompt", "input"]) == read


def test_a_row_has_parameters_of_its_own() -> None:
    with RowGenerator("echo", row_params=True, max_new_tokens=5) as generator:
        one, two = generator.generate(
            rows({"prompt": "a b c", "max_new_tokens": 1}, {"prompt": "a b c", "max_new_tokens": None})
        )
    assert [one["generations"], two["generations"]] == [["a"], ["a b c"]]


def test_the_fields_of_a_schema_are_columns_and_no_others() -> None:
    schema = {"properties": {"name": {"type": "string"}, "error": {"type": "string"}}}
    with RowGenerator(worker_llms.Reading(), schema=schema, expand=True) as generator:
        names = [*generator.columns.names]
        with pytest.raises(ConfigurationError, match="has a column name"):
            generator.check(["prompt", "name"])
        answers = ('{"name": "A", "error": "b", "other": 3}', '{"name": "C"}', "no JSON")
        results = generator.generate(rows(*({"prompt": answer} for answer in answers)))
    assert names == [
        "generations",
        "statistics",
        "finish_reasons",
        "model_name",
        "error",
        "name",
        "generated_error",
    ]
    assert [[*result] for result in results] == [names] * 3
    assert [(result["name"], result["generated_error"]) for result in results] == [
        ("A", "b"),
        ("C", None),
        (None, None),
    ]
    assert [result["error"] for result in results] == [None] * 3


def test_answers_without_fields_are_logged_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    schema = {"properties": {"name": {"type": "string"}}}
    with RowGenerator(worker_llms.Reading(), schema=schema, expand=True) as generator:
        generator.generate(rows({"prompt": "no JSON"}, {"prompt": '{"name": "A"}'}))
    assert [record.getMessage() for record in caplog.records] == [
        "1 answer is no JSON object: the text is in the column generations alone"
    ]


def test_images_are_read_from_allowed_folders(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(worker_llms.PNG)
    found = rows({"prompt": "x", "image": "a.png"}, {"prompt": "x", "image": "/etc/hostname"})
    with RowGenerator(worker_llms.Reading(), image_column="image", images_from=tmp_path) as generator:
        results = generator.generate(found)
    assert re.fullmatch(r"[0-9a-f]{8} x", results[0]["generations"][0])
    assert "is in no folder" in results[1]["error"]["message"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_token": 3}, "no generation parameter 'max_new_token'"),
        ({"max_failures": 3}, "RowGenerator has no option 'max_failures'"),
        ({"max_new_tokens": "many"}, "max_new_tokens"),
        ({"num_generations": 0}, "num_generations is 0"),
        ({"text": True, "num_generations": 2}, "text=True"),
        ({"prompt_column": "a", "template": "{{ a }}"}, "one prompt"),
        ({"prompt_column": 3}, "prompt_column is of the type int"),
        ({"template": "{{ a"}, "template is not valid"),
        ({"executor": "process"}, "no executor 'process'"),
        ({"workers": 2}, "workers requires an executor"),
        ({"schema": "name"}, "JSON schema"),
        ({"expand": True}, "expand=True requires a JSON schema"),
        ({"image_column": "a"}, "reads no images"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as raised:
        RowGenerator("echo", **options)
    assert "--" not in str(raised.value)


def test_an_llm_that_submits_offline_batches_is_refused() -> None:
    llm = stillhouse.create("echo", use_offline_batch_generation=True)
    with pytest.raises(ConfigurationError, match="offline batch"):
        RowGenerator(llm)


def test_an_llm_stays_loaded_if_it_was() -> None:
    llm = stillhouse.create("echo")
    with RowGenerator(llm):
        assert llm.is_loaded
    assert not llm.is_loaded
    with llm:
        with RowGenerator(llm):
            pass
        assert llm.is_loaded


def test_a_row_that_ends_its_worker_fails_alone() -> None:
    prompts = [{"prompt": "die" if number == 3 else str(number)} for number in range(8)]
    with RowGenerator(worker_llms.Fragile(), executor="processes", workers=1) as generator:
        results = generator.generate(rows(*prompts))
        again = generator.generate(rows({"prompt": "a"}))
    assert [result["generations"] for result in results] == [
        None if number == 3 else [f"{number}!"] for number in range(8)
    ]
    assert results[3]["error"]["kind"] == "server"
    assert again[0]["generations"] == ["a!"]


def test_a_backend_that_loses_a_result_is_reported() -> None:
    class LosingLLM(AsyncLLM):
        @property
        def model_name(self) -> str:
            return "losing"

        async def agenerate(self, input: Any, num_generations: int = 1) -> stillhouse.GenerateOutput:
            return stillhouse.prepare_output(["x"])

        def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
            for group in super().iter_finished(*args, **kwargs):
                yield [item for item in group if item.input_index]

    with RowGenerator(LosingLLM()) as generator, pytest.raises(StillhouseError, match="no result for row 1"):
        generator.generate(rows({"prompt": "a"}, {"prompt": "b"}))
