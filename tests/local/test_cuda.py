"""Placing LLMs on CUDA devices. Nothing here needs one: NVML is a stand-in, in children too."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, PrivateAttr

from stillhouse import ConfigurationError, CudaDevicePlacementMixin
from stillhouse.local import placements
from stillhouse.local.cuda import visible_devices
from stillhouse.local.devices import devices_named

from ..support import PATIENCE, SyncLLM

pytest.importorskip("psutil")

FAKE = Path(__file__).parent / "nvml"
GB = 1 << 30
UUIDS = [f"GPU-{letter * 8}-0000" for letter in "abcd"]
INSTANCES = [f"MIG-{number * 8}-0000" for number in "123"]

posix_only = pytest.mark.skipif(os.name == "nt", reason="owners, links and signals are those of POSIX")


def gpu(uuid: str, free: int = 80, **more: Any) -> dict[str, Any]:
    return {"uuid": uuid, "free": free * GB, "total": 80 * GB, **more}


class Host:
    """The GPUs of the host, and the folder of the user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "stillhouse"
        self._file = folder / "gpus.json"
        self.set([gpu(uuid) for uuid in UUIDS])

    def set(self, gpus: list[dict[str, Any]] | str) -> None:
        self._file.write_text(json.dumps(gpus))

    @property
    def map(self) -> Path:
        (path,) = self.folder.glob("cuda-*.json")
        return path

    def held(self) -> list[list[str]]:
        return sorted(entry["devices"] for entry in json.loads(self.map.read_text()).values())


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    spec = importlib.util.spec_from_file_location("pynvml", FAKE / "pynvml.py")
    assert spec is not None
    assert spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "gpus.json"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tmp_path.chmod(0o700)
    return Host(tmp_path)


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


class CpuLLM(GpuLLM):
    """An engine that may run without CUDA, and does."""

    def uses_cuda(self) -> bool:
        return False


BOTH = pytest.mark.parametrize("kind", [GpuLLM, GpuFirstLLM])


# Who gets which device


@BOTH
def test_each_llm_takes_the_first_free_device_and_returns_it(kind: Any, host: Host) -> None:
    first, second, third = kind(), kind(), kind()
    assert first.cuda_device_ids == []
    with first, second:
        assert (first.cuda_device_ids, second.cuda_device_ids) == ([0], [1])
        assert host.held() == [[UUIDS[0]], [UUIDS[1]]]
        first.unload()
        assert first.cuda_device_ids == []
        with third:
            assert third.cuda_device_ids == [0]
            first.load()
            assert first.cuda_device_ids == [2]
    assert host.held() == []


def test_a_backend_knows_its_devices_while_it_loads() -> None:
    with GpuLLM() as llm:
        assert llm.seen == [[0]]


def test_the_device_with_the_fewest_holders_is_taken_and_then_the_one_with_most_memory(host: Host) -> None:
    host.set([gpu(UUIDS[0], 40), gpu(UUIDS[1], 70), gpu(UUIDS[2], 20)])
    with GpuLLM() as first, GpuLLM() as second, GpuLLM() as third, GpuLLM() as fourth:
        taken = [llm.cuda_device_ids for llm in (first, second, third, fourth)]
        assert taken == [[1], [0], [2], [1]]


def test_a_device_that_others_have_filled_counts_as_held(host: Host) -> None:
    host.set([gpu(UUIDS[0], 79), gpu(UUIDS[1], 2)])
    with GpuLLM() as first, GpuLLM() as second, GpuLLM() as third:
        assert [llm.cuda_device_ids for llm in (first, second, third)] == [[0], [0], [1]]


def test_devices_whose_memory_is_unknown_are_taken_in_order(host: Host) -> None:
    host.set([{"uuid": uuid} for uuid in UUIDS])
    with GpuLLM() as first, GpuLLM() as second:
        assert (first.cuda_device_ids, second.cuda_device_ids) == ([0], [1])


def test_llm_that_needs_several_devices_shares_them_when_all_are_held(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.set([gpu(uuid) for uuid in UUIDS[:3]])
    with TwoGpuLLM() as first:
        assert first.cuda_device_ids == first.cuda_ordinals == [0, 1]
        assert caplog.text == ""
        with TwoGpuLLM() as second:
            assert second.cuda_device_ids == [0, 2]
            assert caplog.text.count("CUDA device 0 is held by TwoGpuLLM too") == 1
    host.set([gpu(UUIDS[0])])
    with TwoGpuLLM() as third:
        assert third.cuda_device_ids == [0]
        assert "needs 2 CUDA devices, and 1 are visible" in caplog.text


def test_explicit_device_list_is_used_unchanged(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with GpuLLM(cuda_devices=[3, 1]) as llm:
        assert llm.cuda_device_ids == [3, 1]
        assert llm.cuda_device_names == [UUIDS[3], UUIDS[1]]
        assert caplog.text == ""
        with GpuLLM(cuda_devices=[1]) as other:
            assert other.cuda_device_ids == [1]
            assert "CUDA device 1 is held by GpuLLM too" in caplog.text


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([4], r"no CUDA device 4; visible are \[0, 1, 2, 3\]"),
        ([-1], "no CUDA device -1"),
        ([1, 2, 1], "names device 1 twice"),
    ],
)
def test_a_list_that_cannot_be_had_is_an_error_and_leaves_nothing_behind(
    host: Host, devices: list[int], message: str
) -> None:
    llm = GpuLLM(cuda_devices=devices)
    with pytest.raises(ConfigurationError, match=message) as caught:
        llm.load()
    assert caught.value.hint
    assert not llm.is_loaded
    with GpuLLM() as other:
        assert other.cuda_device_ids == [0]
        assert host.held() == [[UUIDS[0]]]


def test_an_empty_list_is_no_device(host: Host) -> None:
    host.set("nobody should ask")
    with GpuLLM(cuda_devices=[]) as llm:
        assert llm.cuda_device_ids == []
        assert llm.cuda_environment()["CUDA_VISIBLE_DEVICES"] == ""
    assert not host.folder.exists()


def test_a_load_that_fails_gives_the_devices_back(host: Host) -> None:
    class BrokenLLM(GpuLLM):
        def load(self) -> None:
            super().load()
            raise OSError("out of memory")

    with pytest.raises(OSError, match="out of memory"):
        BrokenLLM().load()
    assert host.held() == []


def test_device_placement_can_be_disabled(host: Host) -> None:
    host.set("nobody should ask")
    with GpuLLM(disable_cuda_device_placement=True, cuda_devices=[3]) as llm:
        assert llm.cuda_device_ids == []
    assert not host.folder.exists()


def test_an_engine_without_cuda_needs_neither_nvml_nor_a_map(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with CpuLLM() as llm:
        assert llm.cuda_device_ids == llm.cuda_ordinals == llm.cuda_device_names == []
        assert llm.cuda_environment() == dict(os.environ)
    assert not host.folder.exists()
    with pytest.raises(
        ConfigurationError, match=r"cuda_devices is \[0\], and the engine of CpuLLM"
    ) as caught:
        CpuLLM(cuda_devices=[0]).load()
    assert "leave cuda_devices out" in caught.value.hint
    with CpuLLM(cuda_devices=[]):
        pass


CLONES = pytest.mark.parametrize(
    "clone",
    [copy.copy, copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm)), lambda llm: llm.model_copy()],
    ids=["copy", "deepcopy", "pickle", "model_copy"],
)


@CLONES
def test_a_copy_takes_a_device_of_its_own(clone: Any, host: Host) -> None:
    llm = GpuFirstLLM()
    with llm, clone(GpuFirstLLM()) as other:
        assert (llm.cuda_device_ids, other.cuda_device_ids) == ([0], [1])
        with pytest.raises(TypeError, match="loaded"):
            clone(llm)
    twin = clone(llm)
    with llm, twin:
        assert (llm.cuda_device_ids, twin.cuda_device_ids) == ([0], [1])
        twin.unload()
        assert host.held() == [[UUIDS[0]]]
        with GpuLLM() as third:
            assert third.cuda_device_ids == [1]


# What the user's CUDA_VISIBLE_DEVICES says


@pytest.mark.parametrize(
    ("value", "indices", "names"),
    [
        ("3,1", [3, 1], ["3", "1"]),
        ("3, 1,9", [3, 1], ["3", "1"]),
        ("1,9,2", [1], ["1"]),
        ("1,-1,2", [1], ["1"]),
        ("1,,2", [1], ["1"]),
        ("-1", [], []),
        ("", [], []),
        ("none", [], []),
        ("2gpu,1", [2, 1], ["2", "1"]),
        ("1,1", [], []),
        ("0,9,9", [], []),
        ("GPU-b", [1], [UUIDS[1]]),
        (f"{UUIDS[3]},GPU-aaaa", [3, 0], [UUIDS[3], UUIDS[0]]),
        ("GPU-d,GPU-x,GPU-a", [3], [UUIDS[3]]),
        ("GPU-d,0", [3], [UUIDS[3]]),
        ("0,GPU-d", [0], ["0"]),
        ("GPU-", [], []),
        ("GPU-a,GPU-aa", [], []),
        ("9" * 5000, [], []),
        ("٣", [], []),
    ],
)
def test_cuda_visible_devices_is_the_set_to_choose_from(
    monkeypatch: pytest.MonkeyPatch, value: str, indices: list[int], names: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    before = dict(os.environ)
    assert visible_devices() == indices
    for position in range(len(indices)):
        with GpuLLM(cuda_devices=[indices[position]]) as llm:
            assert llm.cuda_device_ids == [indices[position]]
            assert llm.cuda_ordinals == [position]
            assert llm.cuda_environment() == {**before, "CUDA_VISIBLE_DEVICES": names[position]}
    missing = next(index for index in range(5) if index not in indices)
    with pytest.raises(ConfigurationError, match=f"no CUDA device {missing}; visible are"):
        GpuLLM(cuda_devices=[missing]).load()
    assert dict(os.environ) == before


def test_a_restricted_process_chooses_among_what_it_sees(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    with GpuLLM() as first, GpuLLM() as second:
        assert (first.cuda_device_ids, second.cuda_device_ids) == ([3], [1])
        assert (first.cuda_ordinals, second.cuda_ordinals) == ([0], [1])
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-d,GPU-b,GPU-a")
        with GpuLLM() as third:
            assert (third.cuda_device_ids, third.cuda_ordinals) == ([0], [2])
            assert third.cuda_environment()["CUDA_VISIBLE_DEVICES"] == UUIDS[0]
        assert caplog.text == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with GpuLLM() as none:
        assert none.cuda_device_ids == []
        assert none.cuda_environment()["CUDA_VISIBLE_DEVICES"] == ""
        assert caplog.text.count("needs 1 CUDA devices, and 0 are visible; CUDA_VISIBLE_DEVICES is ''") == 1


def test_mig_instances_are_devices_of_their_own(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    instances = [gpu(uuid, 20 - position) for position, uuid in enumerate(INSTANCES)]
    host.set([gpu(UUIDS[0]), gpu(UUIDS[1], mig=instances[:2]), gpu(UUIDS[2], mig=instances[2:])])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{INSTANCES[2]},MIG-1,{INSTANCES[1]},{UUIDS[0]}")
    assert visible_devices() == [2, 1, 1]
    with GpuLLM() as first, GpuLLM() as second:
        assert (first.cuda_device_names, second.cuda_device_names) == ([INSTANCES[0]], [INSTANCES[1]])
        assert (first.cuda_device_ids, second.cuda_device_ids) == ([1], [1])
        assert (first.cuda_ordinals, second.cuda_ordinals) == ([1], [2])
        assert host.held() == [[INSTANCES[0]], [INSTANCES[1]]]
    with GpuLLM(cuda_devices=[1, 1]) as both:
        assert both.cuda_environment()["CUDA_VISIBLE_DEVICES"] == f"{INSTANCES[0]},{INSTANCES[1]}"
    with pytest.raises(ConfigurationError, match="names device 2 twice"):
        GpuLLM(cuda_devices=[2, 2]).load()


def test_a_lost_gpu_is_not_chosen_and_the_others_keep_their_numbers(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.set([gpu(UUIDS[0], lost=True), gpu(UUIDS[1])])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with GpuLLM() as llm:
        assert (llm.cuda_device_ids, llm.cuda_ordinals) == ([1], [1])


NUMBERS = ["0", "1", "2", "3", "+2", "03", "7", "-1", "1x", "9" * 30, "\N{SUPERSCRIPT TWO}"]
NAMES = ["GPU-", "GPU-a", "GPU-bbb", "GPU-x", "MIG-", "MIG-1", "MIG-22", "gpu-a", "", " ", "x"]
ENTRIES = st.sampled_from([*NUMBERS, *NAMES, *UUIDS, *INSTANCES])
VALUES = st.one_of(st.lists(ENTRIES, max_size=6).map(",".join), st.text(max_size=20))


@given(VALUES)
def test_any_value_names_devices_once_and_handing_them_on_names_the_same(value: str) -> None:
    found = devices_named(value, UUIDS, INSTANCES)
    uuids = [uuid for uuid, _ in found]
    assert len(set(uuids)) == len(uuids)
    assert set(uuids) <= {*UUIDS, *INSTANCES}
    if found:  # an empty value would name none, and "," would not
        assert devices_named(",".join(name for _, name in found), UUIDS, INSTANCES) == found
    # Each one alone, as a child gets it.
    for uuid, name in found:
        assert devices_named(name, UUIDS, INSTANCES) == [(uuid, name)]


@given(st.lists(st.sampled_from(["0", "1", "2", "3"]), unique=True), VALUES)
def test_what_follows_an_invalid_entry_is_ignored(valid: list[str], rest: str) -> None:
    expected = [(UUIDS[int(entry)], entry) for entry in valid]
    assert devices_named(",".join([*valid, "-1", rest]), UUIDS, INSTANCES) == expected
    by_uuid = [UUIDS[int(entry)] for entry in valid]
    assert devices_named(",".join([*by_uuid, "GPU-x"]), UUIDS) == [(uuid, uuid) for uuid in by_uuid]


# Several processes

CHILD = """
import sys
from stillhouse import LLM, CudaDevicePlacementMixin

class GpuLLM(LLM, CudaDevicePlacementMixin):
    @property
    def model_name(self): return "gpu"
    def generate(self, inputs, num_generations=1): return []

llm = GpuLLM()
llm.load()
print(llm.cuda_device_ids, flush=True)
sys.stdin.readline()
"""


@contextmanager
def child(code: str = CHILD) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join([str(FAKE), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_processes_share_the_map_and_one_that_ends_returns_its_device(host: Host) -> None:
    with GpuLLM() as mine, child() as first, child() as second:
        assert mine.cuda_device_ids == [0]
        assert {said(first), said(second)} == {"[1]", "[2]"}
        assert host.held() == [[uuid] for uuid in UUIDS[:3]]
        first.communicate("\n", timeout=PATIENCE)
        assert len(host.held()) == 2
    with GpuLLM() as llm:
        assert llm.cuda_device_ids == [0]
        assert len(host.held()) == 1  # the second was killed


@posix_only
def test_a_killed_process_holds_nothing_even_before_its_parent_notices(host: Host) -> None:
    with child() as first, child() as second:
        taken = sorted((said(process), process) for process in (first, second))
        os.kill(taken[0][1].pid, signal.SIGKILL)
        os.waitid(os.P_PID, taken[0][1].pid, os.WEXITED | os.WNOWAIT)  # a zombie from now on
        assert host.held() == [[UUIDS[0]], [UUIDS[1]]]
        with GpuLLM() as llm:
            assert llm.cuda_device_ids == [0]
            assert len(host.held()) == 2


@posix_only
def test_a_process_killed_while_it_writes_leaves_the_old_map_and_no_lock(host: Host) -> None:
    dies = CHILD.replace(
        "llm = GpuLLM()",
        "import os, pathlib; pathlib.Path.replace = lambda self, target: os.kill(os.getpid(), 9); llm = GpuLLM()",
    )
    with GpuLLM() as mine, child(dies) as victim:
        assert victim.wait(PATIENCE) == -signal.SIGKILL
        assert host.held() == [[UUIDS[0]]]
        assert len(list(host.folder.glob("*.new"))) == 1
        with GpuLLM() as llm:
            assert (mine.cuda_device_ids, llm.cuda_device_ids) == ([0], [1])
            assert not list(host.folder.glob("*.new"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_does_not_give_its_parents_devices_back(host: Host) -> None:
    forks = CHILD.replace(
        "print(",
        "import os\nif os.fork() == 0:\n    llm.unload()\n    os._exit(0)\nos.wait()\nprint(",
    )
    with child(forks) as process:
        assert said(process) == "[0]"
        assert host.held() == [[UUIDS[0]]]


@pytest.mark.parametrize("change", [{"started": 1}, {"pid": 2**31 - 1}, {"boot": "another"}])
def test_an_entry_of_another_process_with_the_same_number_counts_for_nothing(
    host: Host, change: dict[str, Any]
) -> None:
    with GpuLLM():
        ((_, entry),) = json.loads(host.map.read_text()).items()
    host.map.write_text(json.dumps({"mine": entry, "old": {**entry, "devices": [UUIDS[1]], **change}}))
    with GpuLLM() as llm:
        assert llm.cuda_device_ids == [1]
        assert sorted(host.held()) == [[UUIDS[0]], [UUIDS[1]]]


# The file

ENTRY = {"llm": "x", "pid": os.getpid(), "started": 1, "boot": "", "devices": [UUIDS[0]]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"\xff\x00",
        b'{"a": 5}',
        b'{"a": {}}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
        json.dumps({"a": {**ENTRY, "pid": True}}).encode(),
        json.dumps({"a": {**ENTRY, "pid": -1}}).encode(),
        json.dumps({"a": {**ENTRY, "started": float("nan")}}).encode(),
        json.dumps({"a": {**ENTRY, "started": 10**400}}).encode(),
        json.dumps({"a": {**ENTRY, "devices": [[]]}}).encode(),
    ],
)
def test_a_broken_map_is_started_anew(host: Host, content: bytes) -> None:
    with GpuLLM():
        path = host.map
    path.write_bytes(content)
    with GpuLLM() as llm:
        assert llm.cuda_device_ids == [0]
        assert host.held() == [[UUIDS[0]]]


def test_one_broken_entry_does_not_hide_the_others(host: Host) -> None:
    with GpuLLM():
        ((key, entry),) = json.loads(host.map.read_text()).items()
    host.map.write_text(json.dumps({"broken": {"pid": "x"}, key: entry}))
    with GpuLLM() as llm:
        assert llm.cuda_device_ids == [1]


def test_a_huge_map_is_started_anew(host: Host) -> None:
    with GpuLLM():
        ((key, entry),) = json.loads(host.map.read_text()).items()
    host.map.write_text(json.dumps({key: entry}) + " " * (1 << 20))
    with GpuLLM() as llm:
        assert llm.cuda_device_ids == [0]
        assert host.map.stat().st_size < 1000


def as_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def as_pipe(path: Path, target: Path) -> None:
    os.mkfifo(path)


@posix_only
@pytest.mark.parametrize(
    ("planted", "suffix"),
    [(as_link, ""), (as_link, ".new"), (as_link, ".lock"), (as_pipe, ""), (as_pipe, ".new")],
)
def test_neither_links_nor_pipes_are_followed(
    host: Host, tmp_path: Path, planted: Callable[[Path, Path], None], suffix: str
) -> None:
    with GpuLLM():
        content = host.map.read_text()
    victim = tmp_path / "victim"
    victim.write_text(content)
    path = host.map.with_name(host.map.name + suffix)
    path.unlink(missing_ok=True)
    planted(path, victim)
    with GpuLLM() as llm:
        assert llm.cuda_device_ids == [0]
        assert host.held() == [[UUIDS[0]]]
        assert not path.is_symlink()
    assert victim.read_text() == content


@posix_only
def test_a_map_of_another_user_is_no_map(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with GpuLLM():
        content = host.map.read_text()
    host.map.write_text(content)
    own, inode = placements._is_own, host.map.stat().st_ino
    monkeypatch.setattr(placements, "_is_own", lambda status: own(status) and status.st_ino != inode)
    with GpuLLM() as llm:
        assert llm.cuda_device_ids == [0]


@posix_only
def test_the_folder_and_the_files_are_the_users_alone(host: Host) -> None:
    host.folder.mkdir(mode=0o777)
    host.folder.chmod(0o777)
    with GpuLLM():
        assert host.folder.stat().st_mode & 0o777 == 0o700
        assert [path.stat().st_mode & 0o077 for path in host.folder.iterdir()] == [0] * len(
            list(host.folder.iterdir())
        )


@posix_only
def test_a_folder_that_is_a_link_or_anothers_is_left_for_the_next_one(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "stillhouse").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr("platformdirs.user_state_dir", lambda *_, **__: str(tmp_path / "state"))
    runtime = placements._is_ours
    monkeypatch.setattr(placements, "_is_ours", lambda folder: "/run/" not in str(folder) and runtime(folder))
    with GpuLLM():
        assert not list((tmp_path / "elsewhere").iterdir())
        assert list((tmp_path / "state" / "run").glob("cuda-*.json"))


@posix_only
def test_without_any_folder_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placements, "_is_own", lambda status: False)
    with pytest.raises(ConfigurationError, match="belongs to somebody else") as caught:
        GpuLLM().load()
    assert "XDG_RUNTIME_DIR" in caught.value.hint


def test_a_map_that_remains_locked_is_a_clear_error(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    llm = GpuLLM()
    llm.load()
    monkeypatch.setattr(placements, "_PATIENCE", 0)
    with filelock.FileLock(f"{host.map}.lock"):
        with pytest.raises(ConfigurationError, match=r"another process has kept .* locked"):
            GpuLLM().load()
        with caplog.at_level(logging.WARNING):
            llm.unload()
        assert "were not given back" in caplog.text
    assert not llm.is_loaded


def test_trouble_with_nvml_is_a_clear_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.set("Driver Not Loaded")
    with pytest.raises(ConfigurationError, match="Driver Not Loaded") as caught:
        GpuLLM().load()
    assert "nvidia-smi" in caught.value.hint
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ConfigurationError, match="needs NVML") as caught:
        GpuLLM().load()
    assert caught.value.hint == 'stillhouse install "stillhouse[cuda]"'
