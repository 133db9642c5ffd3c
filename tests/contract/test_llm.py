"""`LLM`: what callers call, and what every backend may rely on."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from stillhouse import LLM, ConfigurationError, EchoLLM, GenerationError, UnsupportedError
from stillhouse.outputs import prepare_output
from stillhouse.typing import CAPABILITIES, Capability, GenerateOutput

from ..support import ScriptedLLM, SingleLLM, SyncLLM, chat, chats

IMAGE = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "data:,"}},
        ],
    }
]

BOTH = pytest.mark.parametrize("kind", [SyncLLM, ScriptedLLM])


def texts(outputs: list[GenerateOutput]) -> list[Any]:
    return [output["generations"][0] for output in outputs]


# A pydantic model


@BOTH
def test_unknown_fields_are_refused_and_assignments_are_validated(kind: type[SyncLLM]) -> None:
    with pytest.raises(ValidationError):
        kind(modle="x")  # type: ignore[call-arg]
    llm = kind()
    with pytest.raises(ValidationError):
        llm.model = 5  # type: ignore[assignment]
    with pytest.raises(ValueError, match="colour"):
        llm.colour = "red"
    assert llm.model in ("sync", "scripted")


def test_defaults_are_validated() -> None:
    class WrongDefaultLLM(SyncLLM):
        size: int = "many"  # type: ignore[assignment]

    with pytest.raises(ValidationError):
        WrongDefaultLLM()


def test_an_assignment_that_is_refused_changes_nothing() -> None:
    from pydantic import model_validator

    class PairLLM(SyncLLM):
        low: int = 0
        high: int = 10

        @model_validator(mode="after")
        def _in_order(self) -> PairLLM:
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    llm = PairLLM()
    with pytest.raises(ValidationError):
        llm.low = 11
    assert llm.low == 0


def test_a_field_with_an_alias_goes_by_its_name_too() -> None:
    from pydantic import Field

    class AliasLLM(SyncLLM):
        path: str = Field(default="", alias="model_path")

    assert AliasLLM(path="x").path == AliasLLM(model_path="x").path == "x"  # type: ignore[call-arg]


def test_neither_contract_can_be_used_without_its_abstract_members() -> None:
    class Nameless(LLM):
        def generate(self, inputs: Any, num_generations: int = 1) -> list[GenerateOutput]:
            return []

    class Mute(LLM):
        @property
        def model_name(self) -> str:
            return ""

    for cls, missing in ((Nameless, "model_name"), (Mute, "generate")):
        with pytest.raises(TypeError, match=missing):
            cls()


def test_two_llms_are_equal_by_class_and_fields() -> None:
    class OtherLLM(SyncLLM):
        pass

    assert SyncLLM(model="a") == SyncLLM(model="a")
    assert SyncLLM(model="a") != SyncLLM(model="b")
    assert SyncLLM(model="a") != OtherLLM(model="a")
    with SyncLLM(model="a") as loaded:
        assert loaded == SyncLLM(model="a")
    with pytest.raises(TypeError):
        hash(SyncLLM())


# generate_outputs


@BOTH
def test_outputs_are_in_order_with_the_requested_number_of_generations(kind: Any) -> None:
    with kind() as llm:
        outputs = llm.generate_outputs(chats(*"abcdefgh"), num_generations=2)
        assert [output["generations"] for output in outputs] == [[text] * 2 for text in "abcdefgh"]


@BOTH
def test_no_inputs_give_no_outputs(kind: Any) -> None:
    with kind() as llm:
        assert llm.generate_outputs([]) == []
        assert list(llm.iter_outputs([])) == []


@BOTH
@pytest.mark.parametrize("number", [0, -1, 1.0, "1", True, None])
def test_less_than_one_generation_is_an_error(kind: Any, number: Any) -> None:
    with kind() as llm:
        for call in (llm.generate_outputs, llm.iter_outputs):
            with pytest.raises(ConfigurationError, match="num_generations") as caught:
                call(chats("a"), num_generations=number)
            assert "at least 1" in caught.value.hint


def test_less_than_one_generation_is_an_error_where_the_backend_makes_one_a_call() -> None:
    with SingleLLM() as llm:
        for call in (llm.generate, llm.generate_outputs, llm.iter_outputs):
            with pytest.raises(ConfigurationError, match="num_generations"):
                call(chats("a"), 0)


@BOTH
def test_calling_an_unloaded_llm_is_an_error(kind: Any) -> None:
    llm = kind()
    for call in (llm.generate_outputs, llm.iter_outputs):
        with pytest.raises(ConfigurationError, match="not loaded") as caught:
            call(chats("a"))
        assert "load()" in caught.value.hint


@BOTH
def test_inputs_and_arguments_are_not_mutated(kind: Any) -> None:
    inputs, stop = [chat("a"), (chat("b"), None)], ["x"]
    before = copy.deepcopy((inputs, stop))
    with kind(generation_kwargs={"stop": stop}) as llm:
        llm.generate_outputs(inputs, stop=stop)
        list(llm.iter_outputs(inputs, stop=stop))
        llm.generation_kwargs["stop"].append("y")
    assert (inputs, stop) == before


class ShortLLM(SyncLLM):
    """Breaks the rules of an output, as its model says."""

    def generate(self, inputs: Any, num_generations: int = 1) -> Any:
        if self.model == "outputs":
            return [prepare_output(["x"])]
        if self.model == "generations":
            return [prepare_output(["x"])] * len(inputs)
        if self.model == "text":
            return [{"generations": "ab", "statistics": {}}] * len(inputs)
        return [None] * len(inputs)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("outputs", "returned 1 outputs for 2 inputs"),
        ("generations", "returned 1 generations where 2 were asked for"),
        ("text", "instead of an output with a list of generations"),
        ("nothing", "instead of an output with a list of generations"),
    ],
)
def test_backend_that_returns_the_wrong_number_of_outputs_is_an_error(fault: str, says: str) -> None:
    with ShortLLM(model=fault) as llm:
        with pytest.raises(GenerationError, match=says):
            llm.generate_outputs(chats("a", "b"), num_generations=2)
        with pytest.raises(GenerationError, match="ShortLLM returned"):
            list(llm.iter_outputs(chats("a", "b"), num_generations=2))


def test_a_failure_of_a_synchronous_backend_keeps_what_it_says_was_finished() -> None:
    class HalfLLM(SyncLLM):
        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            raise GenerationError("half of it", outputs=[prepare_output(["x"]), None])

    with HalfLLM() as llm:
        with pytest.raises(GenerationError, match="half of it") as caught:
            llm.generate_outputs(chats("a", "b"))
        assert caught.value.outputs == [prepare_output(["x"]), None]


def test_an_error_of_a_backend_becomes_a_generation_error_with_its_cause() -> None:
    class BrokenLLM(SyncLLM):
        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            raise ZeroDivisionError("of all things")

    with BrokenLLM() as llm, pytest.raises(GenerationError, match="ZeroDivisionError") as caught:
        llm.generate_outputs(chats("a", "b"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.outputs == [None, None]


# Generation parameters


@BOTH
def test_generation_kwargs_are_checked_when_they_are_set(kind: Any) -> None:
    for wrong in ({"temprature": 1}, {"temperature": "hot"}, {"num_generations": 2}, {"inputs": []}):
        with pytest.raises(ValidationError):
            kind(generation_kwargs=wrong)
        llm = kind()
        with pytest.raises(ValidationError) as caught:
            llm.generation_kwargs = wrong
        assert llm.generation_kwargs == {}
        if "temprature" in wrong:
            assert "did you mean 'temperature'?" in str(caught.value)
    assert kind(generation_kwargs={"temperature": 0.5}).get_generation_kwargs() == {"temperature": 0.5}


@BOTH
def test_generation_kwargs_apply_and_explicit_arguments_override_them(kind: Any) -> None:
    def arguments(llm: Any) -> dict[str, Any]:
        made = llm.calls.arguments if isinstance(llm, ScriptedLLM) else llm._arguments
        return {name: made[-1][name] for name in ("temperature", "stop")}

    with kind(generation_kwargs={"temperature": 0.5, "stop": ["x"]}) as llm:
        llm.generate_outputs(chats("a"))
        assert arguments(llm) == {"temperature": 0.5, "stop": ["x"]}
        llm.generate_outputs(chats("a"), temperature=0.25)
        assert arguments(llm) == {"temperature": 0.25, "stop": ["x"]}
        list(llm.iter_outputs(chats("a"), temperature=0.25, stop=None))
        assert arguments(llm) == {"temperature": 0.25, "stop": None}
        assert llm.generation_kwargs == {"temperature": 0.5, "stop": ["x"]}


@BOTH
def test_wrong_arguments_are_refused_before_anything_is_sent(kind: Any) -> None:
    with kind() as llm:
        for call in (llm.generate_outputs, llm.iter_outputs):
            with pytest.raises(ConfigurationError, match="no generation parameter 'temprature'") as caught:
                call(chats("a"), temprature=1)
            assert "'temperature'" in caught.value.hint
            with pytest.raises(ConfigurationError, match="temperature"):
                call(chats("a"), temperature="hot")
            with pytest.raises(ConfigurationError, match="stop"):
                call(chats("a"), stop=5)
        assert llm.batches == [] if isinstance(llm, SyncLLM) else llm.calls.started == []


def test_generation_arguments_are_converted_to_declared_types_and_none_is_kept() -> None:
    with SyncLLM() as llm:
        llm.generate_outputs(chats("a"), temperature=1, stop=("x",))
        assert llm._arguments[-1] == {"temperature": 1.0, "stop": ["x"]}
        assert type(llm._arguments[-1]["temperature"]) is float
        llm.generate_outputs(chats("a"), temperature=None)
        assert llm._arguments[-1]["temperature"] is None


def test_a_backend_may_compute_its_generation_kwargs() -> None:
    class OwnLLM(SyncLLM):
        def get_generation_kwargs(self) -> dict[str, Any]:
            return {"temperature": 0.125}

    with OwnLLM() as llm:
        llm.generate_outputs(chats("a"))
        assert llm._arguments[-1]["temperature"] == 0.125


def test_a_backend_with_kwargs_takes_any_name() -> None:
    class OpenLLM(LLM):
        @property
        def model_name(self) -> str:
            return "open"

        def generate(self, inputs: Any, num_generations: int = 1, top_p: float = 1, **kwargs: Any) -> Any:
            return [prepare_output([f"{top_p} {kwargs}"]) for _ in inputs]

    with OpenLLM(generation_kwargs={"anything": 1}) as llm:
        assert texts(llm.generate_outputs(chats("a"), top_p=0.5)) == ["0.5 {'anything': 1}"]
        with pytest.raises(ConfigurationError):
            llm.generate_outputs(chats("a"), top_p="x")
        assert "kwargs" not in llm.runtime_parameters_names["generation_kwargs"]


# Capabilities


@pytest.mark.parametrize(
    ("input", "lacks"),
    [
        ("raw", "raw_prompt"),
        (chat("a"), "chat"),
        (IMAGE, "images"),
        ((chat("a"), {"format": "json", "schema": {}}), "json_schema"),
        ((chat("a"), {"schema": {"type": "object"}}), "json_schema"),
        ((chat("a"), {"format": "regex", "schema": "a+"}), "regex"),
        ((chat("a"), {"format": "choice", "schema": ["a"]}), "choice"),
    ],
)
@BOTH
def test_input_that_needs_a_missing_capability_is_refused_before_sending(
    kind: Any, input: Any, lacks: Capability
) -> None:
    class ableLLM(kind):  # type: ignore[misc]
        capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

    class lackingLLM(kind):  # type: ignore[misc]
        capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES - {lacks}

    other = "raw" if lacks == "chat" else chat("first")
    with lackingLLM() as llm:
        with pytest.raises(UnsupportedError, match=f"lacks the capability {lacks}") as caught:
            llm.generate_outputs([other, input])
        assert caught.value.hint
        assert llm.batches == [] if isinstance(llm, SyncLLM) else llm.calls.started == []
        with pytest.raises(UnsupportedError):
            list(llm.iter_outputs([input]))
        (result,) = llm.iter_outputs([input], on_error="yield")
        assert isinstance(result[1], GenerationError)
        assert isinstance(result[1].__cause__, UnsupportedError)
        assert llm.batches == [] if isinstance(llm, SyncLLM) else llm.calls.started == []
    able = ableLLM()
    able.check_input(input)
    able.check_input((chat("a"), None))


@pytest.mark.parametrize(
    ("input", "says"),
    [
        (None, "NoneType"),
        (5, "int"),
        ({"role": "user"}, "dict"),
        ([], "no message"),
        (["text"], "not a dict with a role"),
        ([{"content": "x"}], "not a dict with a role"),
        ((chat("a"), None, None), "tuple"),
        ((chat("a"), {"format": "jsn", "schema": {}}), "unknown format"),
        ((chat("a"), {"format": ["json"], "schema": {}}), "unknown format"),
        ((chat("a"), "json"), "of type str"),
    ],
)
def test_invalid_input_is_refused(input: Any, says: str) -> None:
    with ScriptedLLM() as llm:
        with pytest.raises(ConfigurationError, match=says):
            llm.generate_outputs([chat("a"), input])
        assert llm.calls.started == []


def test_extra_keys_and_roles_of_messages_reach_the_backend() -> None:
    seen: list[Any] = []

    class SeeingLLM(ScriptedLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            seen.append(input)
            return prepare_output(["x"])

    messages = [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "4", "tool_call_id": "1", "vendor_key": {"a": 1}},
    ]
    with SeeingLLM() as llm:
        llm.generate_outputs([messages])  # type: ignore[list-item]
    assert seen == [messages]


def test_missing_backend_feature_is_an_unsupported_error() -> None:
    llm = SyncLLM()
    for call in (
        lambda: llm.get_last_hidden_states(chats("a")),
        lambda: llm._prepare_structured_output({"format": "json", "schema": {}}),
        lambda: llm.offline_batch_generate(chats("a")),
    ):
        with pytest.raises(UnsupportedError, match="SyncLLM") as caught:
            call()
        assert isinstance(caught.value, NotImplementedError)
        assert caught.value.hint


# iter_outputs of a synchronous backend


def test_a_synchronous_backend_is_fed_lists_of_the_size_it_prefers() -> None:
    pulled = 0

    def inputs() -> Iterator[Any]:
        nonlocal pulled
        for i in range(10):
            pulled += 1
            yield chat(str(i))

    with SyncLLM() as llm:
        results = llm.iter_outputs(inputs())
        assert pulled == 0
        for yielded, (index, output) in enumerate(results):
            assert index == yielded
            assert output["generations"] == [str(index)]  # type: ignore[index]
            assert pulled <= (yielded // 4 + 1) * 4
        assert llm.batches == [["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8", "9"]]


def test_inputs_of_a_failed_list_are_retried_one_by_one() -> None:
    with SyncLLM() as llm:
        results = dict(llm.iter_outputs(chats("a", "fail b", "c", "fail d", "e"), on_error="yield"))
        assert llm.batches == [["a", "fail b", "c", "fail d"], ["a"], ["fail b"], ["c"], ["fail d"], ["e"]]
        assert [isinstance(results[i], GenerationError) for i in range(5)] == [
            False,
            True,
            False,
            True,
            False,
        ]
        assert texts([results[0], results[2], results[4]]) == ["a", "c", "e"]  # type: ignore[list-item]


def test_finished_outputs_of_a_failed_list_are_not_generated_again() -> None:
    class HalfLLM(SyncLLM):
        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            outputs = super().generate(inputs, num_generations)
            if len(inputs) > 1:
                raise GenerationError("half of it", outputs=[outputs[0], *[None] * (len(inputs) - 1)])
            return outputs

    with HalfLLM() as llm:
        results = dict(llm.iter_outputs(chats("a", "b", "c"), on_error="yield"))
        assert texts([results[i] for i in range(3)]) == ["a", "b", "c"]  # type: ignore[misc]
        assert llm.batches == [["a", "b", "c"], ["b"], ["c"]]


def test_first_failure_is_raised_without_retrying_the_list() -> None:
    with SyncLLM() as llm:
        with pytest.raises(GenerationError, match="fail b failed"):
            list(llm.iter_outputs(chats("a", "fail b", "c", "d", "e")))
        assert llm.batches == [["a", "fail b", "c", "d"]]


def test_an_error_that_stops_the_run_is_raised_at_once() -> None:
    with SyncLLM() as llm:
        with pytest.raises(GenerationError, match="refused"):
            list(llm.iter_outputs(chats("auth", "b", "c", "d", "e"), on_error="yield"))
        assert llm.batches == [["auth", "b", "c", "d"]]
        llm.batches.clear()
        results = llm.iter_outputs(chats("a", "fail b", "auth", "d"), on_error="yield")
        assert [next(results)[0], next(results)[0]] == [0, 1]
        with pytest.raises(GenerationError, match="refused"):
            next(results)
        assert llm.batches == [["a", "fail b", "auth", "d"], ["a"], ["fail b"], ["auth"]]


def test_errors_and_refused_inputs_are_yielded_in_place_and_not_sent() -> None:
    unreadable = GenerationError("line 2 is not JSON", kind="invalid_input", attempts=0)
    with SyncLLM() as llm:
        results = dict(llm.iter_outputs([chat("a"), unreadable, "raw", chat("b")], on_error="yield"))
        assert results[1] is unreadable
        assert isinstance(results[2], GenerationError)
        assert llm.batches == [["a", "b"]]


@BOTH
def test_a_wrong_on_error_is_refused(kind: Any) -> None:
    with kind() as llm, pytest.raises(ConfigurationError, match="on_error") as caught:
        llm.iter_outputs(chats("a"), on_error="ignore")
    assert '"yield"' in caught.value.hint


# What describes it


@BOTH
def test_generate_parameters_and_docstring_are_parsed(kind: Any) -> None:
    llm = kind()
    first = "input" if issubclass(kind, ScriptedLLM) else "inputs"
    names = [parameter.name for parameter in llm.generate_parameters]
    assert names == [first, "num_generations", "temperature", "stop"]
    parsed = llm.generate_parsed_docstring
    assert parsed["args"]["temperature"] == "how far to stray."
    assert parsed["short_description"].startswith(("Answer", "Do"))
    assert parsed is llm.generate_parsed_docstring


def test_what_a_docstring_returns_and_raises() -> None:
    parsed = SyncLLM().generate_parsed_docstring
    assert parsed["long_description"] == "More is not to be said."
    assert parsed["returns"] == "The answers."
    assert parsed["raises"] == {"GenerationError": "an input says so."}


def test_the_logger_is_there_after_load() -> None:
    llm = SyncLLM(model="my-model")
    assert llm._logger is None
    with llm:
        assert isinstance(llm._logger, logging.Logger)
        assert llm._logger.name == "stillhouse.llm.my-model"


# A class written for distilabel, its import lines changed


def test_a_custom_async_llm_in_distilabels_shape() -> None:
    from pydantic import PrivateAttr, SecretStr

    from stillhouse import AsyncLLM, FormattedInput, RuntimeParameter

    class CustomLLM(AsyncLLM):
        model: str
        base_url: RuntimeParameter[str] | None = None
        api_key: RuntimeParameter[SecretStr] | None = None
        _aclient: Any = PrivateAttr(...)
        _num_generations_param_supported = False

        def load(self) -> None:
            super().load()
            assert self._logger is not None
            self._logger.debug("loading")
            self._aclient = {"model": self.model}

        def unload(self) -> None:
            self._aclient = None
            super().unload()

        @property
        def model_name(self) -> str:
            return self.model

        async def agenerate(  # type: ignore[override]
            self, input: FormattedInput, max_new_tokens: int = 128, temperature: float = 1.0
        ) -> GenerateOutput:
            return {
                "generations": [f"{self._aclient['model']} {input[-1]['content']} {max_new_tokens}"],  # type: ignore[index]
                "statistics": {"input_tokens": [1], "output_tokens": [2]},
            }

    llm = CustomLLM(model="m", generation_kwargs={"max_new_tokens": 7})
    llm.load()
    (output,) = llm.generate_outputs(chats("hi"), num_generations=2, **llm.get_generation_kwargs())
    llm.unload()
    assert output["generations"] == ["m hi 7"] * 2
    assert output["statistics"] == {"input_tokens": [1, 1], "output_tokens": [2, 2]}


def test_a_custom_llm_in_distilabels_shape_that_loads_last() -> None:
    from pydantic import PrivateAttr

    from stillhouse import CudaDevicePlacementMixin, MagpieChatTemplateMixin

    class CustomLLM(LLM, MagpieChatTemplateMixin, CudaDevicePlacementMixin):
        model: str
        device: str | None = None
        _pipeline: Any = PrivateAttr(default=None)

        def load(self) -> None:
            if self.device == "cuda":
                CudaDevicePlacementMixin.load(self)
            self._pipeline = ["loaded"]
            super().load()

        def unload(self) -> None:
            if self.device == "cuda":
                CudaDevicePlacementMixin.unload(self)
            super().unload()

        @property
        def model_name(self) -> str:
            assert self._pipeline == ["loaded"]
            return self.model

        def prepare_input(self, input: Any) -> str:
            return self.apply_magpie_pre_query_template("prompt", input)

        def generate(
            self, inputs: list[Any], num_generations: int = 1, max_new_tokens: int = 128
        ) -> list[GenerateOutput]:
            return [
                {"generations": [self.prepare_input(item)] * num_generations, "statistics": {}}
                for item in inputs
            ]

    with CustomLLM(model="m", disable_cuda_device_placement=True) as llm:
        assert texts(llm.generate_outputs(chats("hi"))) == ["prompt"]


def test_echo_answers_with_its_input() -> None:
    with EchoLLM() as llm:
        assert texts(llm.generate_outputs(chats("a"))) == ["a"]
