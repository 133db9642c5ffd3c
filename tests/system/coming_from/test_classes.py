"""Classes written for distilabel: they are registered and generate, with only their import lines changed."""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.local.devices import Device
from stillhouse.testing.server import ScriptedServer

from .sources import SOURCES, TABLE, translate

CHAT = [{"role": "user", "content": "hello there"}]


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., stillhouse.LLM]:
    """Make an LLM of one of the sources, through a registry that has validated its class."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def make(kind: str, **fields: Any) -> stillhouse.LLM:
        (tmp_path / f"written_{kind}.py").write_text(translate(SOURCES[kind]), encoding="utf-8")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, f"written_{kind}", raising=False)
        module = importlib.import_module(f"written_{kind}")
        cls = [item for item in vars(module).values() if getattr(item, "__module__", "") == module.__name__][
            -1
        ]
        registry = stillhouse.Registry(entry_points=[])
        registry.register(kind, cls)
        return registry.create(kind, **fields)

    return make


def test_only_import_lines_are_changed() -> None:
    for source in SOURCES.values():
        assert "stillhouse" not in source
        changed = translate(source)
        assert "distilabel" not in "".join(re.findall(r"^ *(?:from|import) .*$", changed, re.M))
        kept = re.sub(r"^ *from distilabel[\w.]* import (?:\([^)]*\)|.*)\n", "", source, flags=re.M)
        assert re.sub(r"^ *from stillhouse[\w.]* import .*\n", "", changed, flags=re.M) == kept


@pytest.mark.parametrize("name", TABLE)
def test_every_name_of_the_table_is_where_the_page_says(name: str) -> None:
    modules, here = TABLE[name]
    home, _, new = here.rpartition(".")
    module = importlib.import_module(home)
    assert new in module.__all__
    assert getattr(module, new) is not None
    assert all(item.startswith("distilabel.") for item in modules)


def test_the_table_has_what_such_classes_import() -> None:
    named = {"ChatType", "InstructorStructuredOutputType", "OutlinesStructuredOutputType", "LLMStatistics",
             "RuntimeParametersMixin"}  # fmt: skip
    assert named <= set(TABLE)
    assert len(TABLE) >= 30


def test_client_of_a_server(registered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("SMALLTALK_API_KEY", "sk-small")

    def respond(path: str, body: Any) -> Any:
        text = body["messages"][-1]["content"].upper()
        choices = [{"message": {"content": text}}] * body["n"]
        return {"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 5}}

    server = ScriptedServer(respond)
    try:
        llm = registered("client", model="small", base_url=f"{server.origin}/v1")
        assert "sk-small" not in repr(llm)
        given = [{**CHAT[0], "name": "ann", "cache_control": {"type": "ephemeral"}}]
        with llm:
            outputs = llm.generate_outputs([CHAT, given], num_generations=2, max_new_tokens=9)
        assert [item["generations"] for item in outputs] == [["HELLO THERE"] * 2] * 2
        assert outputs[0]["statistics"] == {"input_tokens": [3], "output_tokens": [5]}
        sent = sorted((request.body["messages"] for request in server.requests), key=len)
        assert given in sent, "a key that no type declares is sent too"
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-small"}
    finally:
        server.close()


def test_one_that_answers_once_a_call(registered: Any) -> None:
    llm = registered("single")
    with llm:
        assert llm.model_name == "single-loaded"
        (output,) = llm.generate_outputs([CHAT], num_generations=3, seed=7)
    assert output["generations"] == ["hello there 7", "hello there 8", "hello there 9"]
    assert output["statistics"] == {"input_tokens": [2, 2, 2], "output_tokens": [3, 3, 3]}


def test_one_that_loads_nothing(registered: Any) -> None:
    with registered("dummy") as llm:
        assert llm.generate_outputs([CHAT], num_generations=2) == [
            {"generations": ["output", "output"], "statistics": {}}
        ]


def test_engine_in_this_process(registered: Any, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_text("engine")
    llm = registered("engine", model_path=tmp_path / "weights.bin")
    for _ in range(2):
        with llm:
            (output,) = llm.generate_outputs([CHAT], num_generations=2, logprobs=True)
            assert output["generations"] == ["engine: hello there"] * 2
            assert output["logprobs"][1] == [[{"token": "a", "logprob": -0.5}]]
    assert {item["name"] for item in llm.get_runtime_parameters_info()} >= {"extra_kwargs", "model_path"}
    with pytest.raises(stillhouse.ConfigurationError, match="n_ctx"):
        registered("engine", n_ctx=0)


def test_engine_on_devices(registered: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    devices = [Device(index, f"GPU-{index}", str(index), index) for index in range(2)]
    monkeypatch.setattr("stillhouse.local.cuda.visible", lambda: devices)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    llm = registered("gpu", model="m", use_magpie_template=True, magpie_pre_query_template="qwen2")
    with llm:
        assert llm.cuda_device_ids == [0]
        system = [{"role": "system", "content": "be brief"}]
        outputs = llm.generate_outputs([CHAT, system])
    assert llm.cuda_device_ids == []
    assert outputs[0]["generations"] == ["<user>hello there"]
    assert outputs[1]["generations"] == ["<system>be brief<|im_start|>user\n"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_llm_made_of_others(registered: Any) -> None:
    llm = registered("composite", llms=[registered("dummy"), stillhouse.create("echo")])
    with llm:
        assert llm.model_name.startswith("longest-of-test-")
        (output,) = llm.generate_outputs([CHAT])
    assert output["generations"] == ["hello there"]


def test_offline_batch_with_the_exceptions_of_distilabel(registered: Any) -> None:
    llm = registered("batch", use_offline_batch_generation=True)
    llm.set_runtime_parameters({"limits": {"rows": 1}})
    with llm:
        with pytest.raises(stillhouse.OfflineBatchNotFinishedError) as caught:
            llm.generate_outputs([CHAT])
        assert caught.value.jobs_ids == ("job-1",)
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["offline"]
        with pytest.raises(stillhouse.ConfigurationError, match="too many rows"):
            llm.generate_outputs([CHAT, CHAT])
        llm.use_offline_batch_generation = False
        assert llm.generate_outputs([CHAT], num_generations=2)[0]["generations"] == ["online"] * 2


@pytest.mark.parametrize("kind", SOURCES)
def test_a_class_survives_describing_and_saving(registered: Any, kind: str, tmp_path: Path) -> None:
    """What `show`, `save` and `--config` need of it."""
    (tmp_path / "weights.bin").write_text("engine")
    fields: dict[str, Any] = {
        "client": {"model": "m", "api_key": "sk-1"},
        "engine": {"model_path": tmp_path / "weights.bin"},
        "gpu": {"model": "m"},
    }.get(kind, {})
    llm = registered(kind, **fields)
    assert llm.runtime_parameters_names["generation_kwargs"] is not None
    assert isinstance(llm.generate_parsed_docstring["args"], dict)
    assert "sk-1" not in str(llm.dump())
