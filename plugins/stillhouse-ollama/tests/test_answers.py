"""What an answer becomes: texts, thoughts, calls, counts, reasons, and odd ones."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import GenerationError
from stillhouse.outputs import check_output
from stillhouse.testing import ScriptedServer
from stillhouse_ollama.wire import output_of


def answer(content: str = "The Ucayali.", **fields: Any) -> dict[str, Any]:
    """An answer of `api/chat`; fields of the message go into it."""
    message = {name: fields.pop(name) for name in ("thinking", "tool_calls") if name in fields}
    return {
        "model": "llama3.2",
        "created_at": "2026-11-04T09:12:44.120371Z",
        "message": {"role": "assistant", "content": content, **message},
        "done": True,
        "done_reason": "stop",
        "total_duration": 174560334,
        "load_duration": 101397084,
        "prompt_eval_count": 11,
        "prompt_eval_duration": 13074791,
        "eval_count": 18,
        "eval_duration": 52479709,
        **fields,
    }


def text_answer(response: str = "The Ucayali.", **fields: Any) -> dict[str, Any]:
    """An answer of `api/generate`."""
    whole = answer(**fields)
    thoughts = {name: text for name, text in whole.pop("message").items() if name == "thinking"}
    return {**whole, "response": response, **thoughts}


CHAT: list[Any] = [{"role": "user", "content": "Name a river."}]
CALL = {"function": {"name": "length_of", "arguments": {"river": "Ucayali"}}}
POSITIONS = [
    {
        "token": "The",
        "logprob": -0.1,
        "bytes": [84],
        "top_logprobs": [{"token": "The", "logprob": -0.1}, {"token": "A", "logprob": -2.5}],
    }
]


def test_answer_has_text_reason_and_counts(make: Any) -> None:
    (output,) = make().generate_outputs([CHAT])
    assert output == {
        "generations": ["The Ucayali."],
        "statistics": {"input_tokens": [11], "output_tokens": [18]},
        "finish_reasons": ["stop"],
    }


def test_answer_to_a_raw_prompt_is_its_response(make: Any, says: Callable[..., None]) -> None:
    says(text_answer(" there was", done_reason="length", logprobs=POSITIONS))
    (output,) = make().generate_outputs(["Once upon a time"], max_new_tokens=2, top_logprobs=2)
    assert (output["generations"], output["finish_reasons"]) == ([" there was"], ["length"])
    assert output["logprobs"] == [[[{"token": "The", "logprob": -0.1}, {"token": "A", "logprob": -2.5}]]]


@pytest.mark.parametrize(
    ("said", "reason"),
    [("stop", "stop"), ("length", "length"), ("load", "load"), ("unload", "unload"), ("New", "new"),
     (None, None), ("", None), (5, None), (["stop"], None)],
)  # fmt: skip
def test_finish_reason_is_the_apis_word(said: Any, reason: str | None) -> None:
    assert output_of(answer(done_reason=said), chat=True)["finish_reasons"] == [reason]


def test_finish_reason_that_is_absent_is_unknown() -> None:
    whole = answer()
    del whole["done_reason"]
    assert output_of(whole, chat=True)["finish_reasons"] == [None]


def test_loading_alone_gives_no_text() -> None:
    whole = answer("", done_reason="load")
    del whole["prompt_eval_count"], whole["eval_count"]
    assert output_of(whole, chat=True) == {
        "generations": [None],
        "statistics": {},
        "finish_reasons": ["load"],
    }


@pytest.mark.parametrize(
    "missing", [["prompt_eval_count"], ["eval_count"], ["prompt_eval_count", "eval_count"]]
)
def test_counts_that_are_left_out_are_unknown(
    make: Any, says: Callable[..., None], missing: list[str]
) -> None:
    says({name: value for name, value in answer().items() if name not in missing})
    (output,) = make(tokens_per_minute=1_000_000).generate_outputs([CHAT])
    assert output["generations"] == ["The Ucayali."]
    assert len(output["statistics"]) == 2 - len(missing)


def test_tool_calls_have_ids_and_arguments_as_text() -> None:
    twice = {"id": 7, "function": {"name": "f", "arguments": '{"a":1}'}}
    output = output_of(answer("", tool_calls=[CALL, twice, CALL, "?", {}]), chat=True)
    (calls,) = output["tool_calls"]
    assert calls is not None
    assert output["finish_reasons"] == ["tool_calls"]
    assert output["generations"] == [None]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [
        {"river": "Ucayali"}, {"a": 1}, {"river": "Ucayali"},
    ]  # fmt: skip
    ids = [call["id"] for call in calls]
    assert ids[1] == "7"
    assert len(set(ids)) == 3
    assert all(isinstance(id, str) and id for id in ids)


def test_calls_that_were_cut_off_are_told_so() -> None:
    assert output_of(answer("", tool_calls=[CALL], done_reason="length"), chat=True)["finish_reasons"] == [
        "length"
    ]


def test_calls_of_an_answer_can_be_sent_back(
    make: Any, says: Callable[..., None], server: ScriptedServer
) -> None:
    says(answer("", tool_calls=[CALL]))
    llm = make()
    (output,) = llm.generate_outputs([CHAT])
    (calls,) = output["tool_calls"]
    assert calls is not None
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "1771"}
    llm.generate_outputs([[*CHAT, {"role": "assistant", "content": None, "tool_calls": calls}, result]])
    back = server.requests[-1].body["messages"]
    assert back[1]["tool_calls"][0]["function"] == CALL["function"]
    assert back[2]["tool_name"] == "length_of"


def test_thoughts_are_reasoning_and_no_answer(
    make: Any, says: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    says(answer("", thinking='{"a": 1}', eval_count=90))
    says(answer("", thinking='{"a": 1}', eval_count=90))
    with caplog.at_level(logging.WARNING):
        outputs = make(max_concurrency=1).generate_outputs([CHAT, CHAT])
    for output in outputs:
        assert output["generations"] == [None]
        assert output["reasoning"] == ['{"a": 1}']
    assert [record.message for record in caplog.records if "thoughts" in record.message] != []
    assert len([record for record in caplog.records if "thoughts" in record.message]) == 1


def test_thoughts_in_place_of_the_form_fail_the_row(make: Any, says: Callable[..., None]) -> None:
    for _ in range(2):
        says(answer("", thinking='{"a": 1}', eval_count=90))
    form = {"format": "json", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    with pytest.raises(GenerationError) as caught:
        make(structured_output=form).generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.attempts) == ("schema", 2)


@pytest.mark.parametrize(
    ("count", "num_ctx", "is_told"),
    [(2048, None, True), (4096, 4096, True), (4096, 8192, False), (2047, None, False), (8192, 8192, True)],
)
def test_count_as_large_as_the_context_draws_one_warning(
    make: Any, says: Callable[..., None], caplog: pytest.LogCaptureFixture,
    count: int, num_ctx: int | None, is_told: bool,
) -> None:  # fmt: skip
    says(answer(prompt_eval_count=count))
    says(answer(prompt_eval_count=count))
    with caplog.at_level(logging.WARNING):
        make().generate_outputs([CHAT, CHAT], num_ctx=num_ctx)
    assert len([record for record in caplog.records if "num_ctx" in record.message]) == is_told


def test_answer_that_is_not_done_is_asked_for_again(
    make: Any, says: Callable[..., None], server: ScriptedServer, at_once: None
) -> None:
    says({"model": "m", "message": {"role": "assistant", "content": "Yes"}, "done": False})
    (output,) = make().generate_outputs([CHAT])
    assert output["generations"] == ["The Ucayali."]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "odd", [{}, {"message": None, "eval_count": 5}, {"message": {"content": 5}}, [], "text", 5, None]
)
def test_answer_of_another_shape_fails_its_row(make: Any, says: Callable[..., None], odd: Any) -> None:
    says(json.dumps(odd).encode())
    with pytest.raises(GenerationError) as caught:
        make(retry_timeout=0).generate_outputs([CHAT])
    assert caught.value.kind == "server"


def test_what_was_counted_in_an_answer_that_cannot_be_read_is_kept() -> None:
    with pytest.raises(GenerationError) as caught:
        output_of({"message": {"content": {}}, "eval_count": 5}, chat=True)
    assert caught.value.outputs == [{"generations": [], "statistics": {"output_tokens": [5]}}]


def test_answers_are_read_as_the_client_reads_them() -> None:
    types: Any = pytest.importorskip("ollama._types", reason="pip install ollama")
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    position = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.0}]}
    whole = answer("Yes", thinking="Hm.", tool_calls=[call], logprobs=[position])
    theirs, ours = types.ChatResponse(**whole), output_of(whole, chat=True)
    assert ours["generations"] == [theirs.message.content]
    assert ours["reasoning"] == [theirs.message.thinking]
    assert ours["statistics"] == {
        "input_tokens": [theirs.prompt_eval_count], "output_tokens": [theirs.eval_count],
    }  # fmt: skip
    (calls,) = ours["tool_calls"]
    assert calls is not None
    assert calls[0]["function"]["name"] == theirs.message.tool_calls[0].function.name
    logprobs = ours["logprobs"][0]
    assert logprobs is not None
    assert logprobs[0][0]["logprob"] == theirs.logprobs[0].logprob
    raw = text_answer("Yes", thinking="Hm.")
    assert output_of(raw, chat=False)["generations"] == [types.GenerateResponse(**raw).response]


WHOLE = answer("x", thinking="y", tool_calls=[{"id": "1", **CALL}], logprobs=POSITIONS)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=2)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.integers()), max_size=3),
)  # fmt: skip


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.sampled_from(places(WHOLE)), ODD, st.booleans())
def test_no_part_of_an_answer_is_trusted(path: tuple[Any, ...], odd: Any, is_raw: bool) -> None:
    whole: Any = copy.deepcopy(WHOLE)
    if is_raw:
        whole["response"] = "x"
    if not path:
        whole = odd
    else:
        holder = whole
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = odd
    try:
        output = output_of(whole, chat=not is_raw)
    except GenerationError:
        return  # of this row alone
    checked = check_output(output, 1, "OllamaLLM")
    assert all(text is None or isinstance(text, str) for text in checked["generations"])
    for call in (checked.get("tool_calls") or [None])[0] or ():
        assert isinstance(call["id"], str)
        assert isinstance(call["function"]["arguments"], str)


# A stream, which some gateways send although none was asked for


def lines(*parts: Any) -> bytes:
    return (
        b"\n\n".join(part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts) + b"\n"
    )


def piece(done: bool = False, **message: Any) -> dict[str, Any]:
    return {"model": "llama3.2", "message": {"role": "assistant", "content": "", **message}, "done": done}


def test_stream_is_one_answer(make: Any, says: Callable[..., None]) -> None:
    logprob = [{"token": "a", "logprob": -0.1}]
    last = {**piece(True), "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 3}
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    says(
        lines(
            piece(thinking="h"), piece(thinking="m"), {**piece(content="Uca"), "logprobs": logprob},
            {**piece(content="yali"), "logprobs": logprob}, piece(tool_calls=[call]), last,
        ),
        content_type="application/x-ndjson",
    )  # fmt: skip
    (output,) = make().generate_outputs([CHAT])
    assert (output["generations"], output["reasoning"]) == (["Ucayali"], ["hm"])
    assert (output["finish_reasons"], len(output["tool_calls"][0])) == (["tool_calls"], 1)
    assert (output["statistics"], len(output["logprobs"][0])) == (
        {"input_tokens": [11], "output_tokens": [3]},
        2,
    )
    says(lines({"response": "O", "done": False}, {"response": "nce", "done": True}))
    assert make().generate_outputs(["x"])[0]["generations"] == ["Once"]


@pytest.mark.parametrize(
    "raw",
    [
        lines(piece(content="Yes"), {"error": "an error was encountered while running the model"}),
        lines(piece(content="Yes"), piece(content=" no")),
        lines(piece(content="Yes"), piece(content=" no"), b'{"mess'),
        lines(piece(content="Yes")),
    ],
)
def test_stream_that_breaks_off_is_no_answer(
    make: Any, says: Callable[..., None], server: ScriptedServer, at_once: None, raw: bytes
) -> None:
    says(raw)
    (output,) = make().generate_outputs([CHAT])
    assert (output["generations"], len(server.requests)) == (["The Ucayali."], 2)


@pytest.mark.parametrize(
    "raw",
    [
        lines({"a": 1}, {"b": 2}),
        lines(piece(), [1], piece(True)),
        b"{}\n{",
        b"x\ny",
        lines(piece(True), b"x"),
    ],
)
def test_lines_of_another_api_are_told(make: Any, says: Callable[..., None], raw: bytes) -> None:
    says(raw)
    with pytest.raises(GenerationError, match="JSON"):
        make().generate_outputs([CHAT])
