"""Placing LLMs on CUDA devices. Nothing here needs one: their number is made up."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, PrivateAttr

from stillhouse import ConfigurationError, CudaDevicePlacementMixin
from stillhouse.local.cuda import visible_devices

from ..support import PATIENCE, SyncLLM

pytest.importorskip("filelock")
pytest.importorskip("psutil")


@pytest.fixture(autouse=True)
def _four_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("stillhouse.local.cuda._device_count", lambda: 4)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


class GpuLLM(SyncLLM, CudaDevicePlacementMixin):
    """The mixin after the class, as distilabel's backends have it."""

    seen: list[list[int]] = Field(default_factory=list)

    def load(self) -> None:
        super().load()
        self.seen.append(self.cuda_device_ids)


class GpuFirstLLM(CudaDevicePlacementMixin, SyncLLM):
    """The mixin before it."""


class TwoGpuLLM(GpuLLM):
    _desired_num_gpus: int = PrivateAttr(default=2)


BOTH = pytest.mark.parametrize("kind", [GpuLLM, GpuFirstLLM])


def held(folder: Path) -> list[list[int]]:
    (path,) = folder.glob("stillhouse-cuda-*.json")
    return sorted(entry["devices"] for entry in json.loads(path.read_text()).values())


@BOTH
def test_each_llm_takes_the_first_free_device_and_returns_it(kind: Any, tmp_path: Path) -> None:
    first, second, third = kind(), kind(), kind()
    assert first.cuda_device_ids == []
    with first, second:
        assert (first.cuda_device_ids, second.cuda_device_ids) == ([0], [1])
        assert held(tmp_path) == [[0], [1]]
        first.unload()
        assert first.cuda_device_ids == []
        with third:
            assert third.cuda_device_ids == [0]
            first.load()
            assert first.cuda_device_ids == [2]
    assert held(tmp_path) == []


def test_a_backend_knows_its_devices_while_it_loads() -> None:
    with GpuLLM() as llm:
        assert llm.seen == [[0]]


def test_llm_that_needs_several_devices_gets_those_that_are_free(caplog: pytest.LogCaptureFixture) -> None:
    with TwoGpuLLM() as first, GpuLLM() as second:
        assert first.cuda_device_ids == [0, 1]
        assert second.cuda_device_ids == [2]
        with TwoGpuLLM() as third:
            assert third.cuda_device_ids == [3]
            assert "wants 2 CUDA devices, and 1 of 4 are free" in caplog.text
            caplog.clear()
            with TwoGpuLLM() as fourth:
                assert fourth.cuda_device_ids == []
                assert caplog.text.count("0 of 4 are free") == 1


def test_placement_without_a_free_device_leaves_no_entry(tmp_path: Path) -> None:
    with GpuLLM(cuda_devices=[0, 1, 2, 3]):
        with GpuLLM() as llm:
            assert llm.cuda_device_ids == []
            assert llm.cuda_environment() == dict(os.environ)
        assert held(tmp_path) == [[0, 1, 2, 3]]


def test_explicit_device_list_is_used_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    with GpuLLM(cuda_devices=[3, 1]) as llm:
        assert llm.cuda_device_ids == [3, 1]
        assert caplog.text == ""
        with GpuLLM(cuda_devices=[1]) as other:
            assert other.cuda_device_ids == [1]
            assert "CUDA device 1 is held by GpuLLM too" in caplog.text


def test_a_device_that_does_not_exist_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    llm = GpuLLM(cuda_devices=[4])
    with pytest.raises(ConfigurationError, match=r"no CUDA device 4; visible are \[0, 1, 2, 3\]") as caught:
        llm.load()
    assert caught.value.hint
    assert not llm.is_loaded
    with GpuLLM() as other:
        assert other.cuda_device_ids == [0]


def test_a_load_that_fails_gives_the_devices_back(tmp_path: Path) -> None:
    class BrokenLLM(GpuLLM):
        def load(self) -> None:
            super().load()
            raise OSError("out of memory")

    with pytest.raises(OSError, match="out of memory"):
        BrokenLLM().load()
    assert held(tmp_path) == []


def test_cuda_visible_devices_is_respected_and_not_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1,9")
    before = dict(os.environ)
    assert visible_devices() == [3, 1]
    with GpuLLM() as first, GpuLLM() as second:
        assert (first.cuda_device_ids, second.cuda_device_ids) == ([3], [1])
        assert dict(os.environ) == before
        assert first.cuda_environment() == {**before, "CUDA_VISIBLE_DEVICES": "3"}
        with pytest.raises(ConfigurationError, match=r"no CUDA device 0; visible are \[3, 1\]"):
            GpuLLM(cuda_devices=[0]).load()
    assert dict(os.environ) == before
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(ConfigurationError, match="only indices can be placed") as caught:
        GpuLLM().load()
    assert "disable_cuda_device_placement" in caught.value.hint


def test_cuda_visible_devices_is_not_set_in_the_process() -> None:
    with GpuLLM() as llm:
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
        assert llm.cuda_environment()["CUDA_VISIBLE_DEVICES"] == "0"


def test_device_placement_can_be_disabled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_nvml() -> int:
        raise AssertionError("nobody should ask")

    monkeypatch.setattr("stillhouse.local.cuda._device_count", no_nvml)
    with GpuLLM(disable_cuda_device_placement=True) as llm:
        assert llm.cuda_device_ids == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "clone",
    [copy.copy, copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_takes_a_device_of_its_own(clone: Any) -> None:
    llm = GpuFirstLLM()
    with llm, clone(GpuFirstLLM()) as other:
        assert (llm.cuda_device_ids, other.cuda_device_ids) == ([0], [1])
    twin = clone(llm)
    with llm, twin:
        assert (llm.cuda_device_ids, twin.cuda_device_ids) == ([0], [1])
        twin.unload()
        with GpuLLM() as third:
            assert third.cuda_device_ids == [1]


CHILD = """
import os, sys, tempfile
import stillhouse.local.cuda
from stillhouse import LLM, CudaDevicePlacementMixin
stillhouse.local.cuda._device_count = lambda: 4
tempfile.tempdir = sys.argv[1]

class GpuLLM(LLM, CudaDevicePlacementMixin):
    @property
    def model_name(self): return "gpu"
    def generate(self, inputs, num_generations=1): return []

llm = GpuLLM()
llm.load()
print(llm.cuda_device_ids, flush=True)
sys.stdin.readline()
if sys.argv[2] == "crash":
    os._exit(9)
"""


def child(folder: Path, end: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("end", ["exit", "crash"])
def test_two_processes_share_the_map_and_a_dead_one_is_dropped(tmp_path: Path, end: str) -> None:
    with GpuLLM() as mine, child(tmp_path, end) as first, child(tmp_path, "exit") as second:
        assert mine.cuda_device_ids == [0]
        assert {said(first), said(second)} == {"[1]", "[2]"}
        assert held(tmp_path) == [[0], [1], [2]]
        first.communicate("\n", timeout=PATIENCE)
        if end == "crash":
            assert first.returncode == 9
            assert held(tmp_path) == [[0], [1], [2]]
        else:
            assert first.returncode == 0
            assert len(held(tmp_path)) == 2
        with GpuLLM() as next_one:
            (device,) = next_one.cuda_device_ids
            assert device in (1, 2)
            assert len(held(tmp_path)) == 3
        second.communicate("\n", timeout=PATIENCE)


def test_reused_process_id_is_recognized(tmp_path: Path) -> None:
    with GpuLLM():
        (path,) = tmp_path.glob("stillhouse-cuda-*.json")
        entries = json.loads(path.read_text())
    (entry,) = entries.values()
    path.write_text(json.dumps({"old": {**entry, "started": entry["started"] - 1000, "devices": [0, 1]}}))
    with GpuLLM() as llm:
        assert llm.cuda_device_ids == [0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 5}', '{"a": {}}'])
def test_damaged_device_map_is_started_anew(tmp_path: Path, content: str) -> None:
    with GpuLLM():
        (path,) = tmp_path.glob("stillhouse-cuda-*.json")
    path.write_text(content)
    with GpuLLM() as llm:
        assert llm.cuda_device_ids == [0]


def test_trouble_with_nvml_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ConfigurationError, match="needs NVML") as caught:
        GpuLLM().load()
    assert caught.value.hint == 'pip install "stillhouse[cuda]"'

    class Nvml:
        class NVMLError(Exception):
            pass

        @staticmethod
        def nvmlInit() -> None:
            raise Nvml.NVMLError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", Nvml)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Driver Not Loaded") as caught:
        GpuLLM().load()
    assert "nvidia-smi" in caught.value.hint
