"""What the tests of this backend share: models, a loaded LLM, and engines that start within seconds.

An engine's processes import for half a minute. Those of most tests are forked of a process that has done
it once (`preloaded`); everything else is as it is for users. `test_process` starts them as users do.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing.forkserver
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_models import smollm2, tiny_model

from stillhouse_vllm import VLLM, child
from stillhouse_vllm.environment import changed_environment
from stillhouse_vllm.launch import Launch
from stillhouse_vllm.library import library

SMALL: dict[str, Any] = {"max_model_len": 512, "dtype": "float32", "kv_cache_memory": 0.1, "max_num_seqs": 32}
"""The fields of an LLM on a small machine."""

HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1}
"""Those of a tiny model of a size for which the engine has code on a CPU."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("vllm") is None:
        missing = pytest.mark.skip(reason="vllm is not installed: tox run -e vllm installs it")
        for item in items:
            if "stillhouse-vllm" in item.path.parts and item.path.name != "test_parts.py":
                item.add_marker(missing)


def _described(self: Launch, data: dict[str, Any]) -> dict[str, Any]:
    """As in `Launch`, but what to print into is named: the server of processes inherits nothing."""
    told = {"output": f"/proc/{os.getpid()}/fd/{self._descriptor}"}
    main = str(Path(__file__).with_name("forked.py"))
    data.pop("init_main_from_name", None)
    return {**data, "init_main_from_path": main, "sys_argv": ["test", child.MARK + json.dumps(told)]}


@contextmanager
def forked_engines() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own libraries
        library()
        import vllm.v1.engine.utils as utils

    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    multiprocessing.set_forkserver_preload(["preloaded"])
    with changed_environment({"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}):
        multiprocessing.forkserver.ensure_running()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "get_mp_context", lambda: multiprocessing.get_context("forkserver"))
        patch.setattr(Launch, "_described", _described)
        yield


@pytest.fixture(scope="session")
def fast_start() -> Iterator[None]:
    """Engines start within seconds while this is used."""
    with forked_engines():
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", **HEADS)


@pytest.fixture(scope="session")
def small() -> Path:
    """SmolLM2, in float32."""
    return smollm2()


@pytest.fixture(scope="session")
def loaded(fast_start: None, small: Path) -> Iterator[VLLM]:
    with VLLM(model=str(small), **SMALL) as llm:
        yield llm


@pytest.fixture
def llm(loaded: VLLM) -> Iterator[VLLM]:
    """SmolLM2, loaded once; what a test sets is set back."""
    before = dict(loaded.__dict__)
    yield loaded
    object.__setattr__(loaded, "__dict__", before)
