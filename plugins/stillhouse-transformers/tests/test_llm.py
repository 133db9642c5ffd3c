"""Generating with a tiny model: what is this engine's own."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_models import tiny_model

from stillhouse import ConfigurationError, GenerationError
from stillhouse_transformers import TransformersLLM

GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 10}


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


CHATS = [said("river " * (1 + 5 * number % 23)) for number in range(10)]


def texts(outputs: Any) -> list[Any]:
    return [output["generations"][0] for output in outputs]


@contextmanager
def loaded(model: Path, **fields: Any) -> Iterator[TransformersLLM]:
    with TransformersLLM(model=str(model), **{"device": "cpu", **fields}) as llm:
        yield llm


def changed(model: Path, tmp_path: Path, file: str, **settings: Any) -> Path:
    """A copy of a model with other settings in one of its files; `None` takes one out."""
    folder = shutil.copytree(model, tmp_path / "changed", dirs_exist_ok=True)
    config = json.loads((folder / file).read_text(encoding="utf-8")) | settings
    config = {key: value for key, value in config.items() if value is not None}
    (folder / file).write_text(json.dumps(config), encoding="utf-8")
    return folder


def library(model: Path) -> tuple[Any, Any]:
    """The model and the tokenizer as somebody loads them by hand."""
    import transformers

    return (
        transformers.AutoModelForCausalLM.from_pretrained(model),
        transformers.AutoTokenizer.from_pretrained(model),
    )


# Against the library driven by hand


def test_texts_are_those_of_generate_by_hand(llm: TransformersLLM, tiny: Path) -> None:
    model, tokenizer = library(tiny)
    for own in ({}, {"repetition_penalty": 1.5}):
        for chat in CHATS[:3]:
            prompt = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            ids = model.generate(**prompt, max_new_tokens=10, do_sample=False, **own)
            expected = tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
            assert texts(llm.generate_outputs([chat], **GREEDY, **own)) == [expected]


def test_hidden_states_are_those_of_the_library(llm: TransformersLLM, tiny: Path) -> None:
    import torch

    model, tokenizer = library(tiny)
    inputs = [*CHATS, "raw", "a longer raw prompt"]
    found = llm.get_last_hidden_states(inputs)
    assert llm.get_last_hidden_states([]) == []
    for input, states in zip(inputs, found, strict=True):
        if isinstance(input, str):
            ids = tokenizer(input, return_tensors="pt")["input_ids"]
        else:
            ids = tokenizer.apply_chat_template(input, add_generation_prompt=True, return_tensors="pt")
            ids = ids if isinstance(ids, torch.Tensor) else ids["input_ids"]
        expected = model(ids, output_hidden_states=True).hidden_states[-1][0].detach().numpy()
        assert states.dtype == "float32"
        assert states.shape == expected.shape
        assert abs(states - expected).max() < 1e-4


def test_log_probabilities_are_those_of_the_logits_before_anything_applies(
    llm: TransformersLLM, tiny: Path
) -> None:
    import torch

    model, tokenizer = library(tiny)
    output = llm.generate_outputs(
        ["A river"], temperature=0.5, top_k=3, repetition_penalty=2, seed=2, max_new_tokens=1, top_logprobs=4
    )[0]
    logits = model(tokenizer("A river", return_tensors="pt")["input_ids"]).logits[0, -1]
    expected = torch.log_softmax(logits, -1)
    ((position,),) = output["logprobs"]
    assert len(position) == 4
    assert position[0]["token"] == (output["generations"][0] or "")
    largest = expected.topk(4).values.tolist()
    assert max(item["logprob"] for item in position) == pytest.approx(largest[0], abs=1e-4)
    assert position[1]["logprob"] in (
        pytest.approx(largest[0], abs=1e-4),
        pytest.approx(largest[1], abs=1e-4),
    )


# The model's own settings


def test_a_tokenizer_that_pads_on_the_right_and_has_no_pad_token(tiny: Path, tmp_path: Path) -> None:
    odd = changed(tiny, tmp_path, "tokenizer_config.json", pad_token=None, padding_side="right")
    with loaded(odd, batch_size=16) as llm, loaded(tiny, batch_size=1) as usual:
        assert texts(llm.generate_outputs(CHATS, **GREEDY)) == texts(usual.generate_outputs(CHATS, **GREEDY))
        tokenizer = llm.opened()[0].tokenizer
        assert tokenizer.pad_token is None
        assert tokenizer.padding_side == "right"


def test_any_of_several_tokens_ends_an_answer(tiny: Path, tmp_path: Path) -> None:
    model, tokenizer = library(tiny)
    prompt = tokenizer.apply_chat_template(CHATS[0], add_generation_prompt=True, return_tensors="pt")[
        "input_ids"
    ]
    third = int(model.generate(prompt, max_new_tokens=3, do_sample=False)[0, -1])
    several = changed(tiny, tmp_path, "generation_config.json", eos_token_id=[2, third])
    with loaded(several) as llm:
        output = llm.generate_outputs(CHATS[:1], **GREEDY)[0]
    assert output["finish_reasons"] == ["stop"]
    assert 1 <= output["statistics"]["output_tokens"][0] <= 3


def test_the_models_own_generation_config_decides_what_a_call_leaves_open(tiny: Path, tmp_path: Path) -> None:
    own = changed(
        tiny,
        tmp_path,
        "generation_config.json",
        do_sample=True,
        temperature=1.3,
        max_new_tokens=7,
        num_beams=3,
    )
    with loaded(own) as llm:
        drawn = llm.generate_outputs(CHATS[:1], num_generations=4, seed=1)[0]
        assert len(set(drawn["generations"])) == 4
        assert max(drawn["statistics"]["output_tokens"]) == 7
        greedy = texts(llm.generate_outputs(CHATS[:1], temperature=0, max_new_tokens=10))
    with loaded(tiny) as llm:
        assert texts(llm.generate_outputs(CHATS[:1], max_new_tokens=10)) == greedy


def test_rows_with_different_parameters_share_a_batch(llm: TransformersLLM) -> None:
    parameters: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 1.0, "seed": 1},
        {"temperature": 0.7, "top_k": 5, "seed": 2},
        {"top_p": 0.8, "seed": 3, "frequency_penalty": 1.0, "presence_penalty": 0.5},
        {"min_p": 0.05, "seed": 4, "repetition_penalty": 1.3},
        {"temperature": 0, "logit_bias": {"the": 5.0, 40: -100}, "top_logprobs": 3},
        {"temperature": 0, "stop": "e"},
    ]
    alone = [llm.generate_outputs(CHATS[:1], max_new_tokens=8, **own)[0] for own in parameters]

    async def together() -> list[Any]:
        calls = [llm.agenerate_outputs(CHATS[:1], max_new_tokens=8, **own) for own in parameters]
        return [outputs[0] for outputs in await asyncio.gather(*calls)]

    for one, other in zip(asyncio.run(together()), alone, strict=True):
        assert one["generations"] == other["generations"]
        assert one["finish_reasons"] == other["finish_reasons"]


def test_penalties_and_biases_change_what_is_taken(llm: TransformersLLM) -> None:
    asked: dict[str, Any] = {"temperature": 0, "max_new_tokens": 6, "logit_bias": {"A": 30.0}}
    assert texts(llm.generate_outputs(CHATS[:1], **asked)) == ["AAAAAA"]
    for own in ({"frequency_penalty": 50.0}, {"presence_penalty": 50.0}, {"repetition_penalty": 50.0}):
        (text,) = texts(llm.generate_outputs(CHATS[:1], **asked, **own))
        assert text.startswith("A")
        assert not text.startswith("AA")
    with pytest.raises(GenerationError, match="logit_bias names the token 99999"):
        llm.generate_outputs(CHATS[:1], logit_bias={99999: 1.0})


def test_a_row_that_has_ended_is_given_before_its_batch_has(llm: TransformersLLM) -> None:
    queue = llm.opened()[1]._queue
    endless: dict[str, Any] = {"temperature": 0, "max_new_tokens": 400, "logit_bias": {2: -1000.0}}

    async def first() -> bool:
        # While the engine has something in hand, the other two wait, and are taken together.
        before = asyncio.ensure_future(llm.agenerate_outputs(CHATS[2:3], **endless))
        while not queue._in_hand:  # noqa: ASYNC110
            await asyncio.sleep(0)
        long = asyncio.ensure_future(llm.agenerate_outputs(CHATS[:1], **endless))
        short = asyncio.ensure_future(llm.agenerate_outputs(CHATS[1:2], temperature=0, max_new_tokens=1))
        while len(queue._waiting) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        before.cancel()
        await asyncio.wait([short, long], return_when=asyncio.FIRST_COMPLETED)
        result = short.done() and not long.done()
        long.cancel()
        await asyncio.gather(before, long, return_exceptions=True)
        return result

    assert asyncio.run(first())
    assert texts(llm.generate_outputs(CHATS[:1], **GREEDY))  # the one that was cancelled is not in the way


# What goes wrong


def test_a_batch_too_large_for_the_memory_is_made_in_parts(
    llm: TransformersLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    expected = texts(llm.generate_outputs(CHATS, **GREEDY))
    model = llm.opened()[0]._model
    generate, sizes = model.generate, []

    def bounded(limit: int) -> Any:
        def call(**arguments: Any) -> Any:
            sizes.append(len(arguments["input_ids"]))
            if sizes[-1] > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return generate(**arguments)

        return call

    monkeypatch.setattr(model, "generate", bounded(3))
    assert texts(llm.generate_outputs(CHATS, **GREEDY)) == expected
    assert max(sizes) > 3
    monkeypatch.setattr(model, "generate", bounded(0))
    results = [result for _, result in llm.iter_outputs(CHATS[:3], on_error="yield", **GREEDY)]
    for error in results:
        assert isinstance(error, GenerationError)
        assert error.kind == "server"
        assert "CUDA out of memory" in str(error)
        assert not error.stops_run
    monkeypatch.undo()
    assert texts(llm.generate_outputs(CHATS, **GREEDY)) == expected


def test_memory_that_runs_out_in_the_middle_costs_no_text_that_was_finished(
    llm: TransformersLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse_transformers.batch import Batch

    expected = texts(llm.generate_outputs(CHATS, temperature=1, seed=3, max_new_tokens=10))
    process, steps = Batch.process, []

    def failing(self: Batch, *arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == 5:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
            )
        return process(self, *arguments)

    monkeypatch.setattr(Batch, "process", failing)
    assert texts(llm.generate_outputs(CHATS, temperature=1, seed=3, max_new_tokens=10)) == expected


def test_a_row_that_breaks_the_engine_fails_alone(
    llm: TransformersLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = texts(llm.generate_outputs(CHATS, **GREEDY))
    model = llm.opened()[0]._model
    generate = model.generate
    poison = len(llm.prompt_ids(CHATS[4]))

    def call(**arguments: Any) -> Any:
        if poison in arguments["attention_mask"].sum(-1).tolist():
            raise ValueError("index out of range in self")
        return generate(**arguments)

    monkeypatch.setattr(model, "generate", call)
    results = [result for _, result in llm.iter_outputs(CHATS, on_error="yield", **GREEDY)]
    for number, result in enumerate(results):
        if isinstance(result, GenerationError):
            assert result.kind == "server"
            assert "index out of range" in str(result)
            assert len(llm.prompt_ids(CHATS[number])) == poison
        else:
            assert texts([result]) == [expected[number]]
    assert isinstance(results[4], GenerationError)


def test_logits_that_are_no_numbers_fail_their_row(tiny: Path) -> None:
    import torch

    with loaded(tiny) as llm:
        engine, _ = llm.opened()
        expected = texts(llm.generate_outputs(["a b", "c d"], **GREEDY))
        (token,) = engine.prompts.encode("Z")
        # The weights of the head are those of the embeddings: a hook breaks the one token alone.
        hook = engine._model.get_input_embeddings().register_forward_hook(
            lambda _, given, found: torch.where((given[0] == token)[..., None], torch.nan, found)
        )
        results = [
            result
            for _, result in llm.iter_outputs(["a b", "Z", "c d"], on_error="yield", logprobs=True, **GREEDY)
        ]
        hook.remove()
    assert isinstance(results[1], GenerationError)
    assert results[1].kind == "server"
    assert "NaN" in str(results[1])
    assert texts([results[0], results[2]]) == expected


def test_a_row_whose_form_is_given_up_fails_alone(
    llm: TransformersLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse.local import Matcher

    form = {"format": "choice", "schema": ["red", "green"]}
    fill, calls = Matcher.fill, []

    def failing(self: Matcher, words: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise GenerationError("the form could not be followed: too large", kind="schema")
        fill(self, words)

    monkeypatch.setattr(Matcher, "fill", failing)
    inputs: list[Any] = [(said("a"), form), (said("b"), form), said("c")]
    results = [result for _, result in llm.iter_outputs(inputs, on_error="yield", **GREEDY)]
    failed = [result for result in results if isinstance(result, GenerationError)]
    assert [error.kind for error in failed] == ["schema"]
    assert len([result for result in results[:2] if result not in failed]) == 1


# Loading


def test_nothing_is_printed_and_no_logger_is_changed(
    tiny: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    import transformers

    def state() -> Any:
        logger = logging.getLogger("transformers")
        bars = transformers.utils.logging.is_progress_bar_enabled()
        return logger.level, [(handler, list(handler.filters)) for handler in logger.handlers], bars

    before = state()
    with loaded(tiny) as llm:
        llm.generate_outputs(CHATS, num_generations=2, temperature=1, seed=1, max_new_tokens=500)
        llm.get_last_hidden_states(CHATS)
    assert state() == before
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_weights_that_are_not_whole_are_refused(tiny: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(tiny, tmp_path / "part")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"lack 1 .*mlp\.up_proj"), loaded(folder):
        pass


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"device": "bogus"}, "device 'bogus' is not available"),
        ({"device": "meta"}, "device 'meta' is not available"),
        ({"dtype": "float77"}, "no dtype 'float77'"),
        ({"quantization": "bogus"}, "quantization 'bogus' cannot be used"),
        ({"context_length": 100_000}, "the model supports at most 512"),
        ({"attn_implementation": "bogus"}, "bogus"),
        ({"model_kwargs": {"bogus": 1}}, "bogus"),
        ({"cuda_devices": [0]}, "does not use CUDA"),
    ],
    ids=str,
)
def test_fields_that_cannot_be_honoured_are_one_clear_error(
    tiny: Path, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised, loaded(tiny, **fields):
        pass
    assert raised.value.hint


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "nothing-known"}, "nothing-known"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "T5|t5"),
        ({"hidden_size": 63}, "cannot load|lack"),
        ({"auto_map": {"AutoConfig": "mine.Config"}, "model_type": "mine"}, "trust_remote_code"),
    ],
    ids=str,
)
def test_models_that_cannot_be_loaded_are_one_clear_error(
    tiny: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    folder = changed(tiny, tmp_path, "config.json", **settings)
    with pytest.raises(ConfigurationError, match=words), loaded(folder):
        pass


def test_a_smaller_context_is_kept_to(tiny: Path) -> None:
    with loaded(tiny, context_length=64) as llm:
        with pytest.raises(GenerationError) as raised:
            llm.generate_outputs([said("river " * 80)], **GREEDY)
        assert raised.value.kind == "context_length"
        assert "context_length" in raised.value.hint
        output = llm.generate_outputs(["river"], temperature=0, logit_bias={2: -1000.0})[0]
        used = output["statistics"]["input_tokens"][0] + output["statistics"]["output_tokens"][0]
        assert (used, output["finish_reasons"]) == (64, ["length"])


def test_an_empty_prompt_is_refused(llm: TransformersLLM) -> None:
    with pytest.raises(GenerationError, match="empty") as raised:
        llm.generate_outputs([""])
    assert raised.value.kind == "invalid_request"
    with pytest.raises(GenerationError, match="empty"):
        llm.get_last_hidden_states([""])


def test_a_model_whose_tokenizer_adds_a_token_takes_an_empty_prompt(tmp_path: Path) -> None:
    with loaded(tiny_model(tmp_path / "adding", bos=True)) as llm:
        assert llm.generate_outputs([""], **GREEDY)[0]["statistics"]["input_tokens"] == [1]
