"""Everything that shapes an output gives another key, and nothing else does."""

import enum
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from stillhouse import AsyncLLM, Registry, StructuredOutputMixin
from stillhouse_cache.code import code_digest
from stillhouse_cache.identity import identity
from stillhouse_cache.keys import CallKey

CHAT: list[Any] = [{"role": "user", "content": "hello"}]


class Colour(BaseModel):
    name: str


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    key: SecretStr | None = None
    depth: int = 1


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


class Model(StructuredOutputMixin, AsyncLLM):
    capabilities: ClassVar[Any] = frozenset(
        {"chat", "raw_prompt", "images", "num_generations", "json_schema", "regex", "choice"}
    )
    model: str = "m"
    base_url: str = "http://one"
    api_key: SecretStr = SecretStr("sk-one")
    timeout: float = 1.0
    max_retries: int = 1
    mode: Mode = Mode.FAST
    headers: dict[str, Any] = Field(default_factory=dict)
    extra: Extra = Field(default_factory=Extra)
    inner: list[AsyncLLM] = Field(default_factory=list)
    tags: set[str] = Field(default_factory=set)
    anything: Any = None
    _calls: int = PrivateAttr(default=0)

    @property
    def model_name(self) -> str:
        return self.model

    async def agenerate(
        self,
        input: Any,
        num_generations: int = 1,
        temperature: float = 1.0,
        seed: int | None = None,
        tools: list[Any] | None = None,
        response_format: Any = None,
    ) -> Any:
        self._calls += 1
        return {"generations": ["x"] * num_generations, "statistics": {}}


class Renamed(Model):
    pass


def calls_of(registry: Registry, run: dict[str, Any], cls: type[Model] = Model) -> int:
    """How many calls a run makes after one with the plain settings."""
    plain = Model()
    plain.use_registry(registry)
    with plain:
        plain.generate_outputs([CHAT])
    llm = cls(**run.get("fields", {}))
    llm.use_registry(registry)
    with llm:
        llm.generate_outputs([run.get("input", CHAT)], run.get("n", 1), **run.get("arguments", {}))
    return llm._calls


SHAPED_BY: dict[str, dict[str, Any]] = {
    "model": {"fields": {"model": "other"}},
    "endpoint": {"fields": {"base_url": "http://two"}},
    "an enum": {"fields": {"mode": Mode.SLOW}},
    "a header": {"fields": {"headers": {"x-project": "a"}}},
    "a nested model": {"fields": {"extra": Extra(depth=2)}},
    "an extra field of a nested model": {"fields": {"extra": Extra(unknown=2)}},
    "an LLM inside": {"fields": {"inner": [Model()]}},
    "a set": {"fields": {"tags": {"a"}}},
    "structured output": {"fields": {"structured_output": {"format": "json", "schema": Colour}}},
    "num_generations": {"n": 2},
    "an argument": {"arguments": {"temperature": 0.5}},
    "an argument by field": {"fields": {"generation_kwargs": {"temperature": 0.5}}},
    "a seed": {"arguments": {"seed": 1}},
    "tools": {"arguments": {"tools": [{"name": "f"}]}},
    "a class as argument": {"arguments": {"response_format": Colour}},
    "the text": {"input": [{"role": "user", "content": "hello "}]},
    "the role": {"input": [{"role": "system", "content": "hello"}]},
    "another message": {"input": [*CHAT, *CHAT]},
    "another key of a message": {"input": [{"role": "user", "content": "hello", "name": "x"}]},
    "parts": {"input": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]},
    "a raw prompt": {"input": "hello"},
    "a raw prompt like a chat": {"input": json.dumps(CHAT)},
    "the input's form": {"input": (CHAT, {"format": "choice", "schema": ["a", "b"]})},
}


@pytest.mark.parametrize("run", SHAPED_BY.values(), ids=SHAPED_BY.keys())
def test_changed_setting_or_argument_is_a_cache_miss(registry: Registry, run: dict[str, Any]) -> None:
    assert calls_of(registry, run) == 1
    assert calls_of(registry, run) == 0  # kept apart, and kept


def test_another_llm_class_is_a_cache_miss(registry: Registry) -> None:
    assert calls_of(registry, {}, Renamed) == 1


WITHOUT_EFFECT: dict[str, dict[str, Any]] = {
    "nothing": {},
    "max_concurrency": {"fields": {"max_concurrency": 3}},
    "timeout and retries": {"fields": {"timeout": 9.0, "max_retries": 9}},
    "offline batches": {"fields": {"jobs_ids": ("a",), "offline_batch_generation_block_until_done": 5}},
    "the secret": {"fields": {"api_key": SecretStr("sk-two")}},
    "a secret inside": {"fields": {"extra": Extra(key=SecretStr("sk"))}},
    "a header that authorises": {"fields": {"headers": {"Authorization": "Bearer x"}}},
    "a key in a header": {"fields": {"headers": {"X-Api-Key": "x", "Cookie": "y"}}},
    "the order of a message's keys": {"input": [{"content": "hello", "role": "user"}]},
    "a form that is none": {"input": (CHAT, None)},
}


@pytest.mark.parametrize("run", WITHOUT_EFFECT.values(), ids=WITHOUT_EFFECT.keys())
def test_setting_that_does_not_affect_the_output_is_a_cache_hit(
    registry: Registry, run: dict[str, Any]
) -> None:
    assert calls_of(registry, run) == 0


def test_generation_kwargs_of_a_nested_llm_change_the_key(registry: Registry) -> None:
    warm = {"fields": {"inner": [Model(generation_kwargs={"temperature": 0.1})]}}
    cold = {"fields": {"inner": [Model(generation_kwargs={"temperature": 0.2})]}}
    assert [calls_of(registry, run) for run in (warm, cold, warm)] == [1, 1, 0]


def test_equivalent_structured_outputs_share_a_key(registry: Registry) -> None:
    schema = Colour.model_json_schema()
    written: list[Any] = [
        {"format": "json", "schema": Colour},
        {"schema": schema},
        {"format": "json", "schema": json.dumps(schema)},
    ]
    assert [calls_of(registry, {"input": (CHAT, form)}) for form in written] == [1, 0, 0]


def test_model_name_outside_the_fields_changes_the_key(registry: Registry) -> None:
    class Served(Model):
        _served: str = PrivateAttr(default="weights by default")

        @property
        def model_name(self) -> str:
            return self._served

    keys = []
    for served in ("one", "two", "one"):
        llm = Served()
        llm.use_registry(registry)
        llm._served = served
        keys.append(CallKey.make(llm, {}, 1).of(llm, CHAT))
    assert keys[0] == keys[2] != keys[1]


def test_the_installed_version_counts(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = Model()
    llm.use_registry(registry)
    keys = []
    for version in ("1.0", "1.1", "1.0"):
        monkeypatch.setattr("stillhouse_cache.identity._versions", {Model: [("acme", version)]})
        keys.append(CallKey.make(llm, {}, 1).of(llm, CHAT))
    assert keys[0] == keys[2] != keys[1]


def test_the_version_is_that_of_the_package_with_the_entry_point() -> None:
    echo = Registry().create("echo")
    [(name, versions)] = identity(echo)["classes"]
    assert name == "stillhouse.echo:EchoLLM"
    assert versions == [("stillhouse", Registry().core_version)]


def test_a_replaced_model_file_counts(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    keys = []
    for content, time in (("old", 1), ("new", 2), ("longer", 2), ("old", 1)):
        file.write_text(content)
        os.utime(file, (time, time))
        llm = Model(model=str(file))
        llm.use_registry(registry)
        keys.append(CallKey.make(llm, {}, 1).of(llm, CHAT))
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


def test_a_replaced_file_in_a_model_folder_counts(registry: Registry, tmp_path: Path) -> None:
    keys = []
    for time in (1, 2):
        (tmp_path / "weights").write_text("weights")
        os.utime(tmp_path / "weights", (time, time))
        llm = Model(model=str(tmp_path))
        llm.use_registry(registry)
        keys.append(CallKey.make(llm, {}, 1).of(llm, CHAT))
    assert keys[0] != keys[1]


def test_field_without_a_digest_is_reported_and_not_cached(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    llm = Model(anything=object())
    llm.use_registry(registry)
    with llm:
        for _ in range(2):
            llm.generate_outputs([CHAT, CHAT])
    assert llm._calls == 4
    [record] = caplog.records
    assert "Model.anything holds a object" in record.message
    assert "try" in record.message


def test_an_input_without_a_digest_is_generated(registry: Registry) -> None:
    llm = Model()
    llm.use_registry(registry)
    with llm:
        for _ in range(2):
            llm.generate_outputs([[{"role": "user", "content": "x", "data": b"bytes"}]])
    assert llm._calls == 2


def test_keys_and_cache_files_contain_no_secret(registry: Registry, folder: Path) -> None:
    llm = Model(api_key=SecretStr("sk-very-secret"), headers={"authorization": "Bearer very-secret"})
    llm.use_registry(registry)
    with llm:
        llm.generate_outputs([CHAT])
    assert "secret" not in json.dumps(identity(llm))
    assert all(b"very-secret" not in item.read_bytes() for item in folder.iterdir())


NOTEBOOK = """
import sys
from stillhouse import AsyncLLM
WORDS = {words!r}
def shout(text):
    return text + {mark!r}
class Mine(AsyncLLM):
    @property
    def model_name(self):
        return "mine"
    async def agenerate(self, input, num_generations=1, words={default!r}):
        sys.stdout.write("called ")
        known = "a" in {{"a", "b", "c", "d"}}
        return {{"generations": [shout(WORDS + words)], "statistics": {{}}}}
with Mine() as llm:
    print(llm.generate_outputs([[{{"role": "user", "content": "hello"}}]])[0]["generations"])
"""


def test_a_class_in_a_script_is_told_by_its_code(folder: Path) -> None:
    def run(**changed: str) -> str:
        script = NOTEBOOK.format(**{"words": "w", "mark": "!", "default": "d", **changed})
        environment = {**os.environ, "PYTHONHASHSEED": "random"}
        return subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
        ).stdout.strip()

    assert run() == "called ['wd!']"
    assert run() == "['wd!']"
    assert run(words="v") == "called ['vd!']"
    assert run(mark="?") == "called ['wd?']"
    assert run(default="e") == "called ['we!']"
    assert run() == "['wd!']"


def test_closure_variables_of_a_class_change_the_key() -> None:
    def made(prefix: str) -> type:
        class Made:
            def answer(self) -> str:
                return prefix

        return Made

    assert code_digest(made("a")) == code_digest(made("a")) != code_digest(made("b"))
