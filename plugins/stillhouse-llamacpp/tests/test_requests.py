from __future__ import annotations

import pytest

from stillhouse import ConfigurationError
from stillhouse.local import seed_of
from stillhouse_llamacpp.answers import read_answer
from stillhouse_llamacpp.failures import failure
from stillhouse_llamacpp.requests import request_body


def test_request_body_has_the_engines_names_and_omits_none() -> None:
    given = {"max_new_tokens": 4, "repetition_penalty": 1.1, "top_k": 0, "top_p": None}
    body = request_body("chat", {**given, "logit_bias": {7: -1.0, "I": 2.0}}, None, None, {"mirostat": 2})
    streaming = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
    assert body == {
        "max_tokens": 4,
        "repeat_penalty": 1.1,
        "top_k": 0,
        "logit_bias": {"7": -1.0, "I": 2.0},
        "mirostat": 2,
        **streaming,
    }


def test_log_probabilities_have_a_name_for_each_route() -> None:
    assert request_body("chat", {}, True, 3, None)["top_logprobs"] == 3
    assert request_body("completion", {}, True, 3, None)["logprobs"] == 3
    assert request_body("completion", {}, True, None, None)["logprobs"] == 1


@pytest.mark.parametrize("name", ["grammar", "messages", "n", "stream"])
def test_extra_fields_do_not_overrule_the_backend(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        request_body("chat", {}, None, None, {name: 1})


def test_seed_never_takes_the_value_that_means_random() -> None:
    assert [seed_of(5, 0), seed_of(5, 2)] == [5, 7]
    assert seed_of(2**32 - 2, 1) == 0


def test_a_stream_and_a_whole_answer_make_the_same_output() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}
    stream = [
        {"choices": [{"delta": {"role": "assistant", "content": None}, "finish_reason": None}]},
        {"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": None}]},
        {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]},
        {"choices": [{"delta": {"content": "b"}, "finish_reason": None}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": usage},
    ]
    message = {"content": "ab", "reasoning_content": "hm"}
    whole = [{"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}]
    output = read_answer(stream, None)
    assert output == read_answer(whole, None)
    assert output == {
        "generations": ["ab"],
        "statistics": {"input_tokens": [3], "output_tokens": [2], "cached_tokens": [0]},
        "finish_reasons": ["stop"],
        "reasoning": ["hm"],
    }


def test_an_empty_answer_is_none_and_what_is_unknown_is_absent() -> None:
    output = read_answer([{"choices": [{"text": "", "finish_reason": "length"}]}], None)
    assert output == {"generations": [None], "statistics": {}, "finish_reasons": ["length"]}


def test_the_generated_token_comes_first_and_the_end_is_no_position() -> None:
    a, b = {"id": 1, "token": "a", "logprob": -1.0}, {"id": 2, "token": "b", "logprob": -2.0}
    end = {"id": 0, "token": "", "bytes": [], "logprob": -0.1, "top_logprobs": []}
    # After a held-back beginning of a stop sequence, the engine gives a position the text sent there.
    held = {**b, "token": "", "bytes": [], "top_logprobs": [a, b]}
    choice = {"text": "b", "finish_reason": "stop", "logprobs": {"content": [held, end]}}
    assert read_answer([{"choices": [choice]}], 2)["logprobs"] == [
        [[{"token": "b", "logprob": -2.0}, {"token": "a", "logprob": -1.0}]]
    ]
    assert read_answer([{"choices": [choice]}], 0)["logprobs"] == [[[{"token": "b", "logprob": -2.0}]]]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("json parse error"), "invalid_request"),
        ({"code": 400, "message": "no", "type": "invalid_request_error"}, "invalid_request"),
        ({"code": 500, "message": "no", "type": "server_error"}, "server"),
        ("no", "server"),
    ],
)
def test_errors_of_the_engine_have_a_kind(error: object, kind: str) -> None:
    assert failure(error).kind == kind
