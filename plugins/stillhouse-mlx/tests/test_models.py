"""Models of other kinds: what is in their batches and kept beginnings changes no text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse import ConfigurationError
from stillhouse_mlx import MlxLLM

from .conftest import SMALL, chat

SYSTEM = "You are asked about rivers. Say where they rise, and where they end."

CHATS = [*(chat("river " * (1 + 9 * number % 40)) for number in range(5)), *(chat(w, SYSTEM) for w in "abcd")]


def copied(tiny: Path, folder: Path, **files: dict[str, Any]) -> Path:
    """The model with other entries in its settings."""
    shutil.copytree(tiny, folder)
    for name, changes in files.items():
        path = folder / f"{name}.json"
        entries = {**json.loads(path.read_text(encoding="utf-8")), **changes}
        path.write_text(json.dumps(entries), encoding="utf-8")
    return folder


def with_a_window(tiny: Path, folder: Path) -> Path:
    return copied(
        tiny, folder, config={"sliding_window": 24, "layer_types": ["sliding_attention", "full_attention"]}
    )


def quantized(tiny: Path, folder: Path) -> Path:
    import mlx_lm

    mlx_lm.convert(str(tiny), mlx_path=str(folder), quantize=True, q_bits=4, q_group_size=32)
    return folder


def with_a_state(tiny: Path, folder: Path) -> Path:
    """One that remembers a state of fixed size instead of tokens. mlx-lm batches it wrongly, or did."""
    import mlx.core as mx
    import numpy
    from mlx.utils import tree_flatten
    from mlx_lm.models import mamba

    config = {
        "model_type": "mamba", "vocab_size": 600, "hidden_size": 64, "intermediate_size": 128,
        "state_size": 8, "num_hidden_layers": 2, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True,
        "time_step_rank": 4, "eos_token_id": 2,
    }  # fmt: skip
    chance = numpy.random.default_rng(0)
    weights = {
        name: value
        if name.endswith((".A_log", ".D")) or "norm" in name
        else mx.array(chance.normal(0, 0.3, value.shape), dtype=mx.float32)
        for name, value in tree_flatten(mamba.Model(mamba.ModelArgs.from_dict(config)).parameters())
    }
    shutil.copytree(tiny, folder)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("make", [with_a_window, quantized, with_a_state], ids=lambda make: make.__name__)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_text_is_the_same_alone_and_among_others(
    tiny: Path, tmp_path: Path, make: Callable[[Path, Path], Path]
) -> None:
    model = make(tiny, tmp_path / "model")
    with MlxLLM(model=str(model), prompt_cache=0, **SMALL) as llm:
        alone = [llm.generate_outputs([one], max_new_tokens=16)[0] for one in CHATS]
        assert llm.generate_outputs(CHATS, max_new_tokens=16) == alone
    with MlxLLM(model=str(model), prefill_step=10, **SMALL) as llm:
        assert llm.generate_outputs(CHATS, max_new_tokens=16) == alone
        assert [llm.generate_outputs([one], max_new_tokens=16)[0] for one in CHATS] == alone
        assert llm._engine.prefixes.saved > 100


def test_an_adapter_changes_what_is_said(tiny: Path, llm: MlxLLM, tmp_path: Path) -> None:
    import mlx.core as mx
    import numpy

    chance = numpy.random.default_rng(0)
    shapes = {"lora_a": (64, 4), "lora_b": (4, 64)}
    weights = {
        f"model.layers.1.self_attn.q_proj.{name}": mx.array(chance.normal(0, 1, shape), dtype=mx.float32)
        for name, shape in shapes.items()
    }
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), weights)
    settings = {
        "fine_tune_type": "lora", "num_layers": 1,
        "lora_parameters": {"rank": 4, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]},
    }  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    plain = llm.generate_outputs(CHATS, max_new_tokens=8)
    with MlxLLM(model=str(tiny), adapter_path=str(tmp_path), **SMALL) as adapted:
        said = adapted.generate_outputs(CHATS, max_new_tokens=8)
        assert said != plain
        assert [adapted.generate_outputs([one], max_new_tokens=8)[0] for one in CHATS] == said


def test_ends_that_are_no_tokens_end_nothing(tiny: Path, llm: MlxLLM, tmp_path: Path) -> None:
    odd = {"eos_token_id": [2, -1, True, 99999999, None]}
    form = (chat("Hi"), {"format": "choice", "schema": ["red", "blue"]})
    usual = llm.generate_outputs([chat("Hi"), form], max_new_tokens=20)
    with MlxLLM(model=str(copied(tiny, tmp_path / "model", generation_config=odd)), **SMALL) as other:
        assert other._engine.eos == {2}
        assert other.generate_outputs([chat("Hi"), form], max_new_tokens=20) == usual


@pytest.mark.parametrize("text", ["[1]", '"x"', '{"eos_token_id": 2.5}', '{"eos_token_id": {"a": 1}}'])
def test_settings_of_generation_that_are_none_are_one_error(tiny: Path, tmp_path: Path, text: str) -> None:
    model = copied(tiny, tmp_path / "model")
    (model / "generation_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"generation_config\.json"):
        MlxLLM(model=str(model), **SMALL).load()
