"""Writing settings to a file and reading them back: no secrets, no surprises."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, Field, SecretBytes, SecretStr, ValidationError

from stillhouse import (
    LLM,
    AsyncLLM,
    ConfigurationError,
    EchoLLM,
    RuntimeParameter,
    StructuredOutputMixin,
    UnknownLLMError,
    digest,
)
from stillhouse.registry import Registry

from ..support import ScriptedLLM, SyncLLM, chat, chats

SECRET = "hunter2-hunter2"


class Size(enum.Enum):
    SMALL = "small"


class Endpoint(BaseModel):
    url: str = "http://host"
    key: SecretStr | None = None
    headers: dict[str, str] = {}


@dataclasses.dataclass
class Retry:
    times: int = 3
    password: str | None = None
    proof: SecretStr | None = None


class RichLLM(StructuredOutputMixin, SyncLLM):
    """Fields of every kind, two of which have names that once vanished with `api_key`."""

    api_key: RuntimeParameter[SecretStr] | None = None
    key: str = "a key of a keyboard"
    api: str = "v1"
    token_count: int = 3
    size: Size = Size.SMALL
    path: Path = Path("models/m.gguf")
    pair: tuple[int, str] = (1, "x")
    names: set[str] = Field(default={"b", "a"})
    nothing: str | None = None
    default_headers: RuntimeParameter[dict[str, Any]] = Field(default_factory=dict)
    header_list: list[tuple[str, str]] = Field(default_factory=list)
    secrets: list[SecretStr] = Field(default_factory=list)
    blob: SecretBytes | None = None
    endpoint: Endpoint = Endpoint()
    retry: Retry = Field(default_factory=Retry)
    tokenizer_config: dict[str, Any] = Field(default_factory=dict)
    client: Any = Field(default=None, exclude=True)

    def generate(
        self, inputs: Any, num_generations: int = 1, extra_body: dict[str, Any] | None = None
    ) -> Any:
        return []


class CompositeLLM(AsyncLLM):
    judge: LLM
    members: list[LLM] = Field(default_factory=list)
    by_name: dict[str, LLM] = Field(default_factory=dict)
    spare: EchoLLM | None = None

    @property
    def model_name(self) -> str:
        return "composite"

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any: ...


@pytest.fixture(scope="module")
def registry() -> Registry:
    registry = Registry(entry_points=[])
    registry.register("rich", RichLLM)
    registry.register("composite", CompositeLLM)
    registry.register("sync", SyncLLM)
    return registry


def full(registry: Registry) -> RichLLM:
    llm = registry.create(
        "rich",
        model="m",
        token_count=7,
        pair=(2, "y"),
        names={"c", "d"},
        structured_output={"schema": Endpoint},
        generation_kwargs={"extra_body": {"a": [1, 2.5, None, True]}},
        default_headers={"X-Title": "research"},
        header_list=[("X-Title", "research")],
        tokenizer_config={"eos_token": "</s>", "max_tokens": 5},
        endpoint={"url": "http://other"},
        retry={"times": 9},
        jobs_ids=("1", "2"),
    )
    assert isinstance(llm, RichLLM)
    return llm


def secretive(registry: Registry) -> RichLLM:
    hidden = SecretStr(SECRET)
    llm = registry.create(
        "rich",
        api_key=hidden,
        secrets=[hidden],
        blob=SecretBytes(SECRET.encode()),
        endpoint={"url": f"http://me:{SECRET}@host", "key": SECRET, "headers": {"Authorization": SECRET}},
        retry={"times": 9, "password": SECRET, "proof": SECRET},
        header_list=[("authorization", SECRET), ("X-Title", "research")],
        tokenizer_config={"token": SECRET, "deep": [{"er": {"api_key": SECRET, "hidden": hidden}}]},
        default_headers={
            "X-Title": "research",
            "Authorization": f"Bearer {SECRET}",
            "proxy-authorization": SECRET,
            "X-API-Key": SECRET,
            "api_key": SECRET,
            "apiKey": SECRET,
            "accessToken": SECRET,
            "x-goog-api-key": SECRET,
            "Ocp-Apim-Subscription-Key": SECRET,
            "client_secret": SECRET,
            "aws_secret_access_key": SECRET,
            "hf_token": SECRET,
            "cookie": SECRET,
            "db-password": SECRET,
            "X-Auth": f"bearer {SECRET}",
            "authorization": [SECRET],
            "credentials": SECRET.encode(),
        },
        generation_kwargs={"extra_body": {"headers": {"Authorization": SECRET}, "key": hidden, "n": 1}},
    )
    assert isinstance(llm, RichLLM)
    return llm


# Without secrets


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_dump_omits_secrets_wherever_they_are(registry: Registry, tmp_path: Path, suffix: str) -> None:
    llm = secretive(registry)
    composite = CompositeLLM(judge=llm, members=[llm], by_name={"a": llm})
    composite.use_registry(registry)
    for number, item in enumerate([llm, composite]):
        path = tmp_path / f"{number}.{suffix}"
        item.save(path)
        assert SECRET not in path.read_text(encoding="utf-8")
        assert "**" not in path.read_text(encoding="utf-8")
        assert type(type(item).from_file(path, registry)) is type(item)


def test_dump_keeps_values_that_are_not_secret(registry: Registry) -> None:
    dumped = secretive(registry).dump()
    assert dumped["default_headers"] == {"X-Title": "research"}
    assert dumped["header_list"] == [["X-Title", "research"]]
    assert dumped["generation_kwargs"] == {"extra_body": {"headers": {}, "n": 1}}
    assert dumped["retry"] == {"times": 9}
    assert dumped["endpoint"] == {"url": "http://host", "headers": {}}
    assert dumped["tokenizer_config"] == {"deep": [{"er": {}}]}
    assert (dumped["key"], dumped["api"]) == ("a key of a keyboard", "v1")
    assert "api_key" not in dumped
    assert "blob" not in dumped
    assert full(registry).dump()["tokenizer_config"] == {"eos_token": "</s>", "max_tokens": 5}


def test_dump_keeps_a_schema_with_secret_property_names(registry: Registry) -> None:
    schema = {
        "type": "object",
        "properties": {"password": {"type": "string"}, "token": {"type": "string", "enum": ["a"]}},
        "required": ["password", "token"],
    }
    llm = registry.create("rich", structured_output={"format": "json", "schema": schema})
    assert llm.dump()["structured_output"]["schema"] == schema


def test_no_secret_is_in_a_repr(registry: Registry) -> None:
    llm = secretive(registry)
    assert SECRET not in repr(llm)
    assert SECRET not in str(llm)
    assert "research" in repr(llm)
    assert SECRET not in repr(CompositeLLM(judge=llm, members=[llm]))


def test_no_secret_is_in_an_error_or_a_log(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    messages = []
    for fields in (
        {"api_key": {"nested": SECRET}},
        {"default_headers": SECRET},
        {"endpoint": {"key": [SECRET]}},
        {"generation_kwargs": {"extra_body": SECRET}},
        {"token_count": SECRET},
    ):
        with pytest.raises(ConfigurationError) as caught:
            registry.create("rich", **fields)
        messages.append(str(caught.value))
        with pytest.raises(ValidationError) as invalid:
            RichLLM(**fields)  # type: ignore[arg-type]
        messages.append(str(invalid.value))
        with pytest.raises(ConfigurationError) as caught:
            RichLLM().set_runtime_parameters(fields | {"api_key": [SECRET]})
        messages.append(str(caught.value))
    for name, text in (("a.yaml", f"api_key: {SECRET}: x"), ("a.json", f'{{"api_key": "{SECRET}" x')):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigurationError) as caught:
            RichLLM.from_file(tmp_path / name)
        messages.append(str(caught.value))
    with secretive(registry) as llm:
        llm.generate_outputs([])
    assert SECRET not in "\n".join(messages)
    assert SECRET not in caplog.text


# Round trips


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_saved_settings_load_as_an_equal_llm(registry: Registry, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"llm.{suffix}"
    for llm in (full(registry), registry.create("rich"), registry.create("echo", latency=0.5)):
        llm.save(path)
        assert type(llm).from_file(path, registry) == llm
        assert LLM.from_file(path, registry) == llm
        assert LLM.from_dict(llm.dump(), registry) == llm


def test_save_format_can_be_chosen(registry: Registry, tmp_path: Path) -> None:
    llm = full(registry)
    llm.save(tmp_path / "settings", format="yaml")
    llm.save(str(tmp_path / "settings.txt"), format="json")
    assert RichLLM.from_yaml(tmp_path / "settings", registry) == llm
    assert RichLLM.from_json(tmp_path / "settings.txt", registry) == llm
    json.loads((tmp_path / "settings.txt").read_text())
    assert yaml.safe_load((tmp_path / "settings").read_text())["llm"] == "rich"


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_composites_load_again_equal(registry: Registry, tmp_path: Path, suffix: str) -> None:
    inner = CompositeLLM(judge=full(registry), members=[EchoLLM(model="inner")])
    llm = CompositeLLM(
        judge=inner,
        members=[full(registry), EchoLLM(latency=1), SyncLLM(generation_kwargs={"temperature": 0.25})],
        by_name={"a": EchoLLM(), "b": full(registry)},
        spare=EchoLLM(model="spare"),
    )
    llm.use_registry(registry)
    path = tmp_path / f"llm.{suffix}"
    llm.save(path)
    loaded = LLM.from_file(path, registry)
    assert loaded == llm
    assert isinstance(loaded, CompositeLLM)
    assert [type(member) for member in loaded.members] == [RichLLM, EchoLLM, SyncLLM]


def test_a_schema_class_is_written_before_and_after_loading(registry: Registry) -> None:
    llm = registry.create("rich", structured_output={"format": "json", "schema": Endpoint})
    before = llm.dump()
    with llm:
        assert llm.dump() == before
    assert llm.dump() == before
    assert before["structured_output"]["schema"] == Endpoint.model_json_schema()
    json.dumps(before)


def test_settings_survive_unloading(registry: Registry) -> None:
    llm = full(registry)
    before = llm.model_copy(deep=True)
    with llm:
        pass
    assert llm == before


def test_the_dump_is_of_plain_json_types(registry: Registry) -> None:
    dumped = full(registry).dump()
    assert json.loads(json.dumps(dumped)) == dumped
    assert dumped["llm"] == "rich"
    assert dumped["names"] == ["c", "d"]
    assert "client" not in dumped
    assert "module" not in json.dumps(list(dumped))


def test_value_that_cannot_be_serialized_is_an_error(registry: Registry) -> None:
    llm = registry.create("rich", tokenizer_config={"a": [object()]})
    with pytest.raises(
        ConfigurationError, match=r"RichLLM\.tokenizer_config\.a\[0\] holds a object"
    ) as caught:
        llm.dump()
    assert caught.value.hint
    with pytest.raises(ConfigurationError):
        ScriptedLLM().dump()  # nobody knows it by a name


# Reading


def test_from_dict_does_not_change_its_argument(registry: Registry) -> None:
    llm = CompositeLLM(judge=full(registry), members=[EchoLLM()])
    llm.use_registry(registry)
    data = llm.dump()
    before = copy.deepcopy(data)
    loaded = LLM.from_dict(data, registry)
    loaded.generation_kwargs["x"] = 1
    assert data == before


def test_from_dict_refuses_settings_of_another_class(registry: Registry) -> None:
    with pytest.raises(ConfigurationError, match="of a EchoLLM, not of a RichLLM") as caught:
        RichLLM.from_dict({"llm": "echo"}, registry)
    assert "EchoLLM.from_dict" in caught.value.hint
    assert isinstance(AsyncLLM.from_dict({"llm": "echo"}, registry), EchoLLM)


@pytest.mark.parametrize(
    ("data", "says", "hint"),
    [
        ({"llm": "echo", "modle": "x"}, "there is no 'modle'", "'model'"),
        ({"llm": "echo", "type_info": {"module": "os", "name": "system"}}, "there is no 'type_info'", ""),
        ({"llm": "echo", "spec": "x"}, "there is no 'spec'", ""),
        ({"llm": "echo", "self": "x"}, "there is no 'self'", ""),
        ({"llm": "echo", 5: "x"}, "there is no 5", ""),
        ({"llm": "echo", "latency": "long"}, "latency", ""),
        ({"llm": "echo", "generation_kwargs": {"max_tokens": 5}}, "max_tokens", ""),
        ({"model": "x"}, "name no backend", '"llm"'),
        ({"llm": {"module": "os"}}, "name no backend", ""),
        ({"llm": "composite", "judge": {"llm": "echo", "modle": 1}}, "there is no 'modle'", "'model'"),
        ({"llm": "composite", "judge": {"llm": "composite"}}, "judge is required", ""),
        ({"llm": "composite", "judge": {"model": "x"}}, "judge", ""),
        ({"llm": "composite", "judge": {"llm": "echo"}, "spare": {"llm": "sync"}}, "spare", ""),
        ([], "name no backend", ""),
        (None, "name no backend", ""),
    ],
)
def test_settings_that_are_wrong_are_one_clear_error(
    registry: Registry, data: Any, says: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        LLM.from_dict(data, registry)
    assert hint in caught.value.hint


def test_a_name_that_nobody_registered_answers_with_near_matches(registry: Registry) -> None:
    with pytest.raises(UnknownLLMError) as caught:
        LLM.from_dict({"llm": "ecko"}, registry)
    assert "'echo'" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "[" * 100_000, "is not valid JSON"),
        ("a.yaml", "a: b: c", "is not valid YAML: .*line 1"),
        ("a.yaml", "- a", "holds no settings"),
        ("a.json", "[]", "holds no settings"),
        ("a.yml", "", "holds no settings"),
        ("a.toml", "", "neither a .json nor a .yaml"),
        ("settings", "", "neither a .json nor a .yaml"),
        ("a.json", b"\xff\xfe\x00", "UTF-8"),
        ("a.json", None, "cannot be read"),
    ],
)
def test_a_file_that_holds_no_settings_is_one_clear_error(
    tmp_path: Path, name: str, content: str | bytes | None, says: str
) -> None:
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=says) as caught:
        LLM.from_file(path)
    assert caught.value.hint


def test_a_folder_is_no_file(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither a"):
        LLM.from_file(tmp_path)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        LLM.from_file(tmp_path / "folder.json")
    with pytest.raises(ConfigurationError, match="neither a"):
        registry.create("echo").save(tmp_path / "llm.pickle")
    assert not (tmp_path / "llm.pickle").exists()


# Hostile files

HOSTILE = {
    "an import path": "llm: 'hostile:EvilLLM'",
    "a module": "llm: hostile",
    "a dotted path": "llm: hostile.EvilLLM",
    "distilabel's shape": "type_info: {module: hostile, name: EvilLLM}\nmodel: x",
    "type_info beside a good name": "llm: echo\ntype_info: {module: hostile, name: EvilLLM}",
    "type_info in a value": (
        "llm: echo\ngeneration_kwargs: {max_new_tokens: {type_info: {module: hostile, name: EvilLLM}}}"
    ),
    "an enum": "llm: echo\nmodel: {_type: enum, _enum_type: hostile, _name: X, _values: {a: open('{marker}', 'w')}}",
    "a nested import path": "llm: composite\njudge: {llm: 'hostile:EvilLLM'}",
    "a class in a schema": "llm: rich\nstructured_output: {format: json, schema: 'hostile.EvilLLM'}",
    "a call": "llm: !!python/object/apply:hostile.run []",
    "a call in a value": "llm: echo\nmodel: !!python/object/apply:os.system ['touch {marker}']",
    "a module tag": "llm: echo\nmodel: !!python/module:hostile",
    "a name tag": "llm: echo\nmodel: !!python/name:hostile.EvilLLM",
    "a new object": "llm: !!python/object/new:hostile.EvilLLM {}",
    "its own tag": "llm: echo\nmodel: !hostile x",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_imports_nothing_and_runs_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "hostile.py").write_text(
        f"open({str(marker)!r}, 'w')\nimport stillhouse\nclass EvilLLM(stillhouse.EchoLLM): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "settings.yaml"
    path.write_text(HOSTILE[what].replace("{marker}", str(marker)))
    modules = set(sys.modules)
    with pytest.raises((ConfigurationError, UnknownLLMError)):
        LLM.from_file(path, registry)
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError:
        pass
    else:
        path.with_suffix(".json").write_text(json.dumps(data))
        with pytest.raises((ConfigurationError, UnknownLLMError)):
            LLM.from_file(path.with_suffix(".json"), registry)
    assert not marker.exists()
    assert "hostile" not in sys.modules
    assert set(sys.modules) == modules


def test_a_yaml_file_that_refers_to_itself_is_an_error(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text("llm: composite\njudge: &a {llm: composite, judge: *a}\n")
    with pytest.raises(ConfigurationError, match="itself"):
        LLM.from_file(path, registry)


# Digests


def test_a_digest_is_the_same_for_every_order_of_keys_and_another_for_anything_else() -> None:
    same = digest(chats("a"), {"x": 1, "y": (1, 2)})
    assert digest(chats("a"), {"y": [1, 2], "x": 1}) == same
    for other in (
        digest(chats("b"), {"x": 1, "y": (1, 2)}),
        digest(chats("a"), {"x": 2, "y": (1, 2)}),
        digest([*chats("a"), *chats("a")], {"x": 1, "y": (1, 2)}),
        digest(chats("a"), {"x": "1", "y": (1, 2)}),
    ):
        assert other != same
    assert digest((chat("a"), {"schema": Endpoint})) == digest((chat("a"), {"schema": Endpoint}))
    assert digest("\ud800")
    with pytest.raises(ConfigurationError, match="digest"):
        digest(object())
