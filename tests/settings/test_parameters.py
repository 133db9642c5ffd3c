"""Runtime parameters: naming, describing and setting them, nested models included."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

import pytest
from pydantic import Field, PrivateAttr, SecretStr, ValidationError

from stillhouse import (
    LLM,
    AsyncLLM,
    ConfigurationError,
    CudaDevicePlacementMixin,
    EchoLLM,
    MagpieChatTemplateMixin,
    RuntimeParameter,
)
from stillhouse._settings.generation import generation_parameters

from ..support import SyncLLM


class TunedLLM(SyncLLM):
    base_url: RuntimeParameter[str] = Field(description="Where it is.")
    timeout: RuntimeParameter[float] = 30.0
    api_key: RuntimeParameter[SecretStr] | None = None
    headers: RuntimeParameter[dict[str, str]] = Field(default_factory=dict)
    plain: int = 1


class CompositeLLM(AsyncLLM):
    judge: LLM
    members: list[LLM] = Field(default_factory=list)
    rounds: RuntimeParameter[int] = Field(default=1, ge=1)

    _unused: int = PrivateAttr(default=0)

    @property
    def model_name(self) -> str:
        return "composite"

    async def agenerate(self, input: Any, num_generations: int = 1, depth: int = 1) -> Any:
        """Ask them all.

        Args:
            depth: how deep.
        """


CONTRACT = {
    "use_offline_batch_generation": True,
    "offline_batch_generation_block_until_done": True,
}
GENERATION = {"temperature": True, "stop": True}


class Base(LLM):
    @property
    def model_name(self) -> str:
        return "base"

    def generate(
        self, inputs: Any, num_generations: int = 1, *, temperature: float | None = None, seed: int = 0
    ) -> Any:
        """Generate.

        Args:
            inputs: the inputs.
            temperature: how far to stray.
            seed: where to start.
        """
        return [{"generations": [f"{temperature} {seed}"], "statistics": {}} for _ in inputs]


class Extended(Base):
    def generate(  # a signature that adds to the inherited one
        self, inputs: Any, num_generations: int = 1, *, top_k: int = 5, seed: int = 1, **kwargs: Any
    ) -> Any:
        """Generate more.

        Args:
            top_k: of so many.
            seed: where else to start.
        """
        return super().generate(inputs, num_generations, seed=seed + top_k, **kwargs)


class Further(Extended):
    def generate(self, inputs: Any, num_generations: int = 1, *, min_p: float = 0, **kwargs: Any) -> Any:
        return super().generate(inputs, num_generations, **kwargs)


def test_a_signature_with_kwargs_extends_the_inherited_one() -> None:
    declared = Further.generation_parameters()
    assert list(declared.parameters) == ["temperature", "seed", "top_k", "min_p"]
    assert declared.parameters["seed"].default == 1
    assert declared.annotations["temperature"] == float | None
    assert declared.descriptions["temperature"] == "how far to stray."
    assert declared.descriptions["seed"] == "where else to start."
    assert not declared.open
    llm = Further(generation_kwargs={"top_k": "7"})
    names = [item.name for item in llm.generate_parameters]
    assert names == ["inputs", "num_generations", "min_p", "temperature", "seed", "top_k"]
    assert llm.generate_parsed_docstring["args"]["top_k"] == "of so many."
    with pytest.raises(ConfigurationError, match="'temperatur'") as caught:
        llm.check_arguments({"temperatur": 1})
    assert "'temperature'" in caught.value.hint
    with pytest.raises(ValidationError, match="top_p"):
        Extended(generation_kwargs={"top_p": 1})
    with llm:
        (output,) = llm.generate_outputs([[{"role": "user", "content": "x"}]], temperature=0.5)
    assert output["generations"] == ["0.5 8"]


class Wide(TypedDict, total=False):
    temperature: float | None
    logit_bias: dict[str, int] | None


class Narrow(TypedDict, total=False):
    temperature: float | None


class WideLLM(LLM):
    @property
    def model_name(self) -> str:
        return "wide"

    def generate(self, inputs: Any, num_generations: int = 1, **kwargs: Unpack[Wide]) -> Any:
        """Generate.

        Args:
            temperature: how evenly.
        """
        return []


class NarrowLLM(WideLLM):
    def generate(  # type: ignore[override]
        self, inputs: Any, num_generations: int = 1, min_p: float = 0, **kwargs: Unpack[Narrow]
    ) -> Any:
        """Generate."""
        return []


def test_typed_kwargs_are_all_parameters_whatever_is_inherited() -> None:
    declared = NarrowLLM.generation_parameters()
    assert set(declared.parameters) == {"min_p", "temperature"}
    assert declared.descriptions["temperature"] == "how evenly."
    with pytest.raises(ConfigurationError, match="logit_bias"):
        declared.check({"logit_bias": {}}, "NarrowLLM")


def test_runtime_parameters_names_tells_optional_from_required() -> None:
    assert TunedLLM().runtime_parameters_names == {
        **CONTRACT,
        "generation_kwargs": GENERATION,
        "base_url": False,
        "timeout": True,
        "api_key": True,
        "headers": True,
    }


def test_a_parameter_without_a_default_may_be_set_later() -> None:
    llm = TunedLLM()
    assert llm.base_url is None
    llm.set_runtime_parameters({"base_url": "http://host"})
    assert llm.base_url == "http://host"


def test_a_generation_parameter_without_a_default_is_required() -> None:
    class NeedyLLM(SyncLLM):
        def generate(self, inputs: Any, num_generations: int = 1, *, size: int) -> Any:  # type: ignore[override]
            """Generate.

            Args:
                size: how large.
            """

    names = NeedyLLM().runtime_parameters_names["generation_kwargs"]
    assert names == {"size": False}


def test_runtime_parameters_names_includes_nested_models() -> None:
    names = CompositeLLM(judge=TunedLLM(), members=[SyncLLM(), EchoLLM()]).runtime_parameters_names
    assert names["judge"] == TunedLLM().runtime_parameters_names
    assert names["members"] == {
        "0": SyncLLM().runtime_parameters_names,
        "1": EchoLLM().runtime_parameters_names,
    }
    assert names["rounds"] is True
    assert names["max_concurrency"] is True
    assert "plain" not in names["judge"]


def test_runtime_parameters_info_describes_the_parameters() -> None:
    info = {entry["name"]: entry for entry in TunedLLM().get_runtime_parameters_info()}
    assert info["base_url"] == {"name": "base_url", "optional": False, "description": "Where it is."}
    assert info["timeout"] == {"name": "timeout", "optional": True}
    assert info["generation_kwargs"]["keys"] == [
        {"name": "temperature", "optional": True, "description": "how far to stray."},
        {"name": "stop", "optional": True, "description": "where to stop."},
    ]


def test_runtime_parameters_info_includes_nested_models() -> None:
    llm = CompositeLLM(judge=SyncLLM(), members=[SyncLLM(), EchoLLM()])
    info = {entry["name"]: entry for entry in llm.get_runtime_parameters_info()}
    assert info["judge"] == {
        "name": "judge",
        "runtime_parameters_info": SyncLLM().get_runtime_parameters_info(),
    }
    assert info["members"]["runtime_parameters_info"]["1"] == EchoLLM().get_runtime_parameters_info()


def test_set_runtime_parameters_reaches_nested_models() -> None:
    llm = CompositeLLM(judge=TunedLLM(), members=[SyncLLM(), EchoLLM()])
    llm.set_runtime_parameters(
        {
            "rounds": 2,
            "judge": {"timeout": 5, "generation_kwargs": {"temperature": 0}},
            "members": {"1": {"latency": 0.5}},
            "generation_kwargs": {"depth": 3},
        }
    )
    judge, (first, second) = llm.judge, llm.members
    assert isinstance(judge, TunedLLM)
    assert isinstance(second, EchoLLM)
    assert (llm.rounds, judge.timeout, second.latency) == (2, 5.0, 0.5)
    assert judge.generation_kwargs == {"temperature": 0.0}
    assert first == SyncLLM()


def test_set_runtime_parameters_merges_into_generation_kwargs() -> None:
    llm = TunedLLM(generation_kwargs={"temperature": 0.5, "stop": ["x"]})
    llm.set_runtime_parameters({"generation_kwargs": {"temperature": 1}})
    assert llm.generation_kwargs == {"temperature": 1.0, "stop": ["x"]}
    llm.set_runtime_parameters({"headers": {"a": "1"}})
    llm.set_runtime_parameters({"headers": {"b": "2"}})
    assert llm.headers == {"a": "1", "b": "2"}


def test_a_secret_stays_a_secret() -> None:
    llm = TunedLLM(api_key=SecretStr("old"))
    llm.set_runtime_parameters({"api_key": "hunter2"})
    assert isinstance(llm.api_key, SecretStr)
    assert llm.api_key.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(llm)
    unset = TunedLLM()
    unset.set_runtime_parameters({"api_key": "hunter2"})
    assert isinstance(unset.api_key, SecretStr)


@pytest.mark.parametrize(
    ("parameters", "says", "hint"),
    [
        ({"timeuot": 1}, "TunedLLM has no runtime parameter 'timeuot'", "'timeout'"),
        ({"plain": 2}, "no runtime parameter 'plain'", ""),
        ({"timeout": "soon"}, "timeout", ""),
        ({"generation_kwargs": {"temprature": 1}}, "no generation parameter 'temprature'", ""),
        ({"generation_kwargs": {"temperature": "hot"}}, "temperature", ""),
        ({"generation_kwargs": 5}, "generation_kwargs", ""),
    ],
)
def test_a_wrong_name_or_value_is_an_error_and_sets_nothing(
    parameters: dict[str, Any], says: str, hint: str
) -> None:
    llm = TunedLLM(generation_kwargs={"stop": ["x"]})
    before = llm.model_copy(deep=True)
    with pytest.raises(ConfigurationError, match=says) as caught:
        llm.set_runtime_parameters({"base_url": "http://host", **parameters, "headers": {"a": "1"}})
    assert hint in caught.value.hint
    assert llm == before


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"judge": {"timeuot": 1}}, "TunedLLM has no runtime parameter 'timeuot'"),
        ({"judge": 5}, "judge takes a dict"),
        ({"members": {"2": {}}}, "members has no item '2'"),
        ({"members": {"1": {"latencey": 1}}}, "EchoLLM has no runtime parameter 'latencey'"),
        ({"members": {"1": {"latency": -1}}}, "latency"),
        ({"members": {"1": 5}}, r"members.1 takes a dict"),
        ({"members": [1]}, "members takes a dict"),
        ({"roundz": 2}, "no runtime parameter 'roundz'"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_invalid_nested_runtime_parameter_sets_nothing_anywhere(
    parameters: dict[str, Any], says: str
) -> None:
    llm = CompositeLLM(judge=TunedLLM(), members=[SyncLLM(), EchoLLM()])
    before = llm.model_copy(deep=True)
    wanted = {"judge": {"timeout": 1}, "members": {"0": {"generation_kwargs": {"temperature": 2}}}}
    with pytest.raises(ConfigurationError, match=says):
        llm.set_runtime_parameters({**wanted, **parameters})
    assert llm == before
    with pytest.raises(ConfigurationError, match=says):
        llm.set_runtime_parameters({"max_concurrency": 7, **parameters})
    assert llm.max_concurrency == 64


def test_failed_set_runtime_parameters_restores_nested_models() -> None:
    llm = CompositeLLM(judge=TunedLLM(), members=[SyncLLM(), EchoLLM()])
    before = llm.model_copy(deep=True)
    with pytest.raises(ConfigurationError):
        llm.set_runtime_parameters(
            {"judge": {"timeout": 1}, "members": {"1": {"latency": 2}}, "rounds": 5, "roundz": 2}
        )
    assert llm == before


def test_parameters_that_are_valid_only_together_are_set_in_any_order() -> None:
    class RenderingLLM(SyncLLM, MagpieChatTemplateMixin):
        pass

    llm = RenderingLLM()
    together = {"use_magpie_template": True, "magpie_pre_query_template": "qwen2"}
    llm.set_runtime_parameters(together)
    assert llm.use_magpie_template
    llm.set_runtime_parameters({"magpie_pre_query_template": None, "use_magpie_template": False})
    assert llm.magpie_pre_query_template is None
    llm.set_runtime_parameters(dict(reversed(together.items())))
    with pytest.raises(ConfigurationError, match="magpie_pre_query_template"):
        llm.set_runtime_parameters({"magpie_pre_query_template": None})


def test_empty_list_is_a_valid_runtime_parameter() -> None:
    class GpuLLM(SyncLLM, CudaDevicePlacementMixin):
        pass

    llm = GpuLLM(cuda_devices=[])
    assert llm.runtime_parameters_names["cuda_devices"] is True
    assert llm.get_runtime_parameters_info()
    llm.set_runtime_parameters({"cuda_devices": [1]})
    assert llm.cuda_devices == [1]
    empty = CompositeLLM(judge=SyncLLM(), members=[])
    assert "members" not in empty.runtime_parameters_names
    assert empty.get_runtime_parameters_info()
    empty.set_runtime_parameters({})
    with pytest.raises(ConfigurationError):
        empty.set_runtime_parameters({"members": {}})


def test_the_parameters_of_generate_are_read_from_its_signature() -> None:
    def generate(
        self: Any,
        input: Any,
        num_generations: int = 1,
        temperature: float = 1.0,
        untyped=None,  # type: ignore[no-untyped-def]
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Generate.

        Args:
            seed: where chance begins.
        """

    declared = generation_parameters(generate)
    assert list(declared.parameters) == ["temperature", "untyped", "seed"]
    assert declared.annotations == {"temperature": float, "untyped": Any, "seed": int | None}
    assert declared.descriptions["seed"] == "where chance begins."
    assert declared.open


def test_a_parameter_may_have_a_name_that_pydantic_keeps_for_itself() -> None:
    def generate(self: Any, inputs: Any, num_generations: int = 1, model_dump: int = 1, _x: int = 2) -> None:
        """Generate."""

    assert generation_parameters(generate).check({"model_dump": "3", "_x": 4}, "LLM") == {
        "model_dump": 3,
        "_x": 4,
    }
