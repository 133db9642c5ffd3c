"""Text Generation Inference: its own way with chats, its `generate` for raw prompts, and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillhouse import GenerateOutput, GenerationError, UnsupportedError, prepare_output
from stillhouse.http import counted, finish_reason, logprobs_of, statistics_of
from stillhouse_huggingface.parameters import TGI_CHAT, TGI_RAW

__all__ = ["chat_arguments", "check_parameters", "generate_body", "generated", "keep_counts", "without_stop"]

HINT = "check that base_url is the address of a Text Generation Inference server, or set api to openai"

_REASONS = {"eos_token": "stop", "stop_sequence": "stop"}

_INSTEAD = {
    "presence_penalty": "use frequency_penalty, or repetition_penalty with a raw prompt: TGI turns this "
    "one into a repetition penalty of another strength",
    "logit_bias": "leave it out: TGI accepts and ignores it",
    "reasoning_effort": "leave it out, and say in the prompt how long to think",
}

_PROMPT_COUNT, _GENERATED_COUNT = "x-prompt-tokens", "x-generated-tokens"


def check_parameters(given: Mapping[str, Any], llm: str, *, raw: bool | None = None) -> None:
    """Refuse a parameter that a TGI server would ignore, or misunderstand.

    Args:
        given: the parameters.
        llm: the name of the LLM, for the message.
        raw: whether they are for a raw prompt or for a chat; `None` refuses those that are for neither.

    Raises:
        UnsupportedError: there is one.
    """
    known, what = (TGI_RAW, "raw prompts") if raw else (TGI_CHAT, "chats")
    if raw is None:
        known, what = TGI_CHAT | TGI_RAW, "any input"
    for name in given:
        if name not in known:
            other = "send a raw prompt" if name in TGI_RAW else "send a chat" if name in TGI_CHAT else ""
            raise UnsupportedError(
                f"{llm} does not support {name} for {what}: the endpoint runs Text Generation Inference",
                hint=_INSTEAD.get(name) or other or "leave it out",
            )


def chat_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a chat as TGI takes them: stops are a list, and a `top_p` of 1 is none."""
    arguments = dict(given)
    if isinstance(arguments.get("stop"), str):
        arguments["stop"] = [arguments["stop"]]
    if arguments.get("top_p") == 1:
        del arguments["top_p"]
    return arguments


def generate_body(prompt: str, given: Mapping[str, Any], grammar: dict[str, Any] | None) -> dict[str, Any]:
    """The body of a request to `generate`."""
    parameters: dict[str, Any] = {"details": True, "return_full_text": False}
    arguments, extra = chat_arguments(given), dict(given.get("extra_body") or {})
    temperature = arguments.pop("temperature", None)
    if temperature is not None:
        parameters["do_sample"] = temperature > 0
        if temperature > 0:  # 0 is refused
            parameters["temperature"] = temperature
    top = arguments.pop("top_logprobs", None)
    if top:
        parameters["top_n_tokens"] = top
    for name, value in arguments.items():
        if name not in ("extra_body", "logprobs"):
            parameters[name] = value
    if grammar is not None:
        parameters["grammar"] = grammar
    parameters |= extra.pop("parameters", None) or {}
    return {"inputs": prompt, "parameters": parameters, **extra}


def keep_counts(answer: Any, headers: Mapping[str, str]) -> None:
    """Put the counts of an answer of `generate`, which are in its headers, into its details."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict) or "generated_text" not in answer or _PROMPT_COUNT not in headers:
        return
    details = answer.get("details")
    if not isinstance(details, dict):
        details = answer["details"] = {}
    details.update({name: headers[name] for name in (_PROMPT_COUNT, _GENERATED_COUNT) if name in headers})


def generated(answer: Any, body: Any, *, logprobs: bool) -> GenerateOutput:
    """The output of an answer of `generate`. Nothing in it is taken to be of the right type.

    Args:
        answer: JSON types; some gateways put it into a list.
        body: of the request; `None` if it is not known.
        logprobs: whether log probabilities were asked for: they come in any case.

    Raises:
        GenerationError: it has another shape.
    """
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    text = answer.get("generated_text") if isinstance(answer, dict) else None
    details = answer.get("details") if isinstance(answer, dict) else None
    details = details if isinstance(details, dict) else {}
    generated = details.get("generated_tokens")
    statistics = statistics_of(
        input_tokens=details.get(_PROMPT_COUNT),
        output_tokens=details.get(_GENERATED_COUNT) if generated is None else generated,
    )
    if not isinstance(text, str):
        raise GenerationError(
            "the answer has another shape than that of generate",
            kind="server",
            outputs=counted(statistics),
            hint=HINT,
        )
    reason = details.get("finish_reason")
    if reason == "stop_sequence":
        parameters = body.get("parameters") if isinstance(body, dict) else None
        text = without_stop(text, parameters.get("stop") if isinstance(parameters, dict) else None)
    output = prepare_output([text or None], finish_reasons=[finish_reason(reason, _REASONS)])
    output["statistics"] = statistics
    positions = _logprobs(details) if logprobs else None
    if positions:
        output["logprobs"] = [positions]
    return output


def without_stop(text: str, stop: Any) -> str:
    """A text without the one of the texts to stop at that ends it: TGI leaves it there."""
    texts = stop if isinstance(stop, list) else [stop]
    ending = max((end for end in texts if isinstance(end, str) and text.endswith(end)), key=len, default="")
    return text[: len(text) - len(ending)]


def _logprobs(details: dict[str, Any]) -> list[Any] | None:
    tokens, tops = details.get("tokens"), details.get("top_tokens")
    if not isinstance(tokens, list):
        return None
    if not isinstance(tops, list) or len(tops) != len(tokens):
        tops = [None] * len(tokens)
    positions = []
    for token, top in zip(tokens, tops, strict=True):
        if not isinstance(token, dict) or token.get("special") is True:  # such as the end, which is no text
            continue
        others = [
            (item.get("text"), item.get("logprob"))
            for item in (top if isinstance(top, list) else ())
            if isinstance(item, dict)
        ]
        positions.append(logprobs_of(token.get("text"), token.get("logprob"), others))
    return positions
