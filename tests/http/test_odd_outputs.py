"""What a backend's functions return may be anything: a row is finished, or fails and says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from stillhouse import ConfigurationError, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.http import Failure, Request, StructuredHTTPLLM
from stillhouse.typing import Capability

from ..support import PATIENCE, in_thread
from .conftest import Reply, ScriptedServer

CHAT: Any = [{"role": "user", "content": "hello"}]
FORM = {"format": "json", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
QUOTA = {
    "x-ratelimit-limit-tokens": "1000",
    "x-ratelimit-remaining-tokens": "900",
    "x-ratelimit-reset-tokens": "1s",
}


class OddLLM(StructuredHTTPLLM):
    """A backend whose `output_of` the test writes."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "num_generations", "json_schema"})
    api_key_required: ClassVar[bool] = False
    read: Any = None
    made: list[int] = []  # noqa: RUF012

    @classmethod
    def form_fields(cls, structured_output: Any) -> dict[str, Any]:
        return {"form": structured_output["schema"]}

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        return await self.complete(input, num_generations, {})

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        self.made.append(num_generations)
        chat, form = self.split(input)
        return Request("generate", {"input": chat, "n": num_generations}, form)

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        output: GenerateOutput = self.read(answer)
        return output


def generated(server: ScriptedServer, read: Callable[[Any], Any], count: int = 1, **fields: Any) -> Any:
    """Return the result of one row, the outputs that its error has, and the requests made of it."""
    with OddLLM(model="m", base_url=server.url, read=read, **fields) as llm:
        ((_, result),) = llm.iter_outputs([CHAT], count, on_error="yield")
    return result, llm.made


def test_an_answer_without_a_generation_is_not_asked_for_again(server: ScriptedServer) -> None:
    """It was repeated for ever, and paid each time."""
    counted = prepare_output([], [3], [4])
    error, _ = generated(server, lambda _: counted, 2)
    assert isinstance(error, GenerationError)
    assert (error.kind, error.attempts) == ("server", 1)
    assert error.outputs == [counted]
    assert len(server.requests) == 1


def test_what_was_made_before_an_answer_without_a_generation_is_kept(server: ScriptedServer) -> None:
    texts = [["one"], []]
    error, _ = generated(server, lambda _: prepare_output(texts.pop(0)), 2)
    assert isinstance(error, GenerationError)
    assert [output and output["generations"] for output in error.outputs] == [["one"]]
    assert error.attempts == len(server.requests) == 2


@pytest.mark.parametrize(
    "statistics",
    [{}, {"statistics": None}, {"statistics": {"input_tokens": 3, "output_tokens": 4}}, {"statistics": []}],
)
@pytest.mark.parametrize("quota", [{}, QUOTA])
def test_odd_statistics_cost_no_row(
    server: ScriptedServer, quota: dict[str, str], statistics: dict[str, Any]
) -> None:
    """They did where the server told of a quota of tokens."""
    server.script = [Reply(headers=quota)]
    output, _ = generated(server, lambda _: {"generations": ["fine"], **statistics})
    assert not isinstance(output, GenerationError)
    assert output["generations"] == ["fine"]


@pytest.mark.parametrize("output", [None, "fine", ["fine"], {}, {"generations": None, "statistics": {}}])
def test_an_output_that_is_none_says_what_to_return(server: ScriptedServer, output: Any) -> None:
    error, _ = generated(server, lambda _: output)
    assert isinstance(error, GenerationError)
    assert "OddLLM returned" in error.message
    assert "instead of an output" in error.message


@pytest.mark.parametrize("reasons", [None, ["stop"], ["stop"] * 3, 5, [["stop"], 1]])
def test_every_generation_is_held_to_the_form_whatever_the_finish_reasons(
    server: ScriptedServer, reasons: Any
) -> None:
    """One without a finish reason passed unchecked."""
    texts = [['{"a": 1}', '{"a": "bad"}'], ['{"a": 2}']]

    def read(_: Any) -> Any:
        output: dict[str, Any] = {**prepare_output(texts.pop(0))}
        return output if reasons is None else output | {"finish_reasons": reasons}

    output, _ = generated(server, read, 2, structured_output=FORM)
    assert not isinstance(output, GenerationError)
    assert output["generations"] == ['{"a": 1}', '{"a": 2}']


def test_statistics_that_are_texts_survive_a_second_request(server: ScriptedServer) -> None:
    """Their sum was asked for, and the row was lost."""
    texts = ['{"a": "bad"}', '{"a": 2}']
    places = ["here", "there"]

    def read(_: Any) -> Any:
        statistics = {"output_tokens": [3], "model": ["m-1"], "place": [places.pop(0)]}
        return {"generations": [texts.pop(0)], "statistics": statistics, "finish_reasons": ["stop"]}

    output, _ = generated(server, read, structured_output=FORM)
    assert not isinstance(output, GenerationError)
    assert output["statistics"] == {"output_tokens": [6], "model": ["m-1"]}


def test_a_row_with_a_form_makes_its_request_once(server: ScriptedServer) -> None:
    output, made = generated(
        server,
        lambda _: prepare_output(['{"a": 1}'] * 2, finish_reasons=["stop"] * 2),
        2,
        structured_output=FORM,
    )
    assert not isinstance(output, GenerationError)
    assert made == [2]
    assert [request.body["n"] for request in server.requests] == [2]


def test_an_error_does_not_quote_a_whole_answer(server: ScriptedServer) -> None:
    server.script = [Reply(body=json.dumps("%41" * 2**20).encode())]

    def read(answer: Any) -> Any:
        raise ValueError(f"odd: {answer}")

    error, _ = generated(server, read, api_key="sk-1234567890abcdef")
    assert isinstance(error, GenerationError)
    assert len(error.message) < 1000
    assert len(str(error.__cause__)) < 20_000


@pytest.mark.parametrize(
    ("hook", "said"),
    [("classify", None), ("classify", True), ("classify", "no"), ("failure_in", True), ("failure_in", {})],
)
def test_what_a_hook_returns_instead_of_a_failure_is_no_answer(
    server: ScriptedServer, hook: str, said: Any
) -> None:
    """It passed for the answer: a row was done with the text of an error."""

    class HookedLLM(OddLLM):
        locals()[hook] = lambda self, *_: said

    server.script = [Reply(status=400 if hook == "classify" else 200)]
    with HookedLLM(model="m", base_url=server.url, read=lambda answer: prepare_output([str(answer)])) as llm:
        ((_, result),) = llm.iter_outputs([CHAT], on_error="yield")
    assert isinstance(result, GenerationError)
    assert f"{hook} failed: TypeError: it returned {type(said).__name__}" in result.message


@pytest.mark.parametrize("wait", [float("nan"), -1.0, "5", [1]])
def test_a_wait_that_is_none_is_not_waited_for(server: ScriptedServer, wait: Any) -> None:
    """After NaN, no request was ever sent again."""

    class WaitingLLM(OddLLM):
        def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
            return Failure("rate_limit", "busy", retried=True, congestion=True, retry_after=wait)

    server.script = [Reply(status=429)]
    with WaitingLLM(model="m", base_url=server.url, read=lambda _: prepare_output(["fine"])) as llm:
        future = in_thread(lambda: llm.generate_outputs([CHAT]))
        assert future.result(PATIENCE)[0]["generations"] == ["fine"]
    assert len(server.requests) == 2


def test_an_answer_without_content_is_not_asked_for_again(server: ScriptedServer) -> None:
    """204 says that there is nothing, as after a deletion; it was taken for an answer that was lost."""
    server.script = [Reply(status=204, body=b"")]
    with OddLLM(model="m", base_url=server.url) as llm:
        assert llm.run_on_loop(llm.request("DELETE", "jobs/1")) is None
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["authorization: Bearer sk-1234567890abcdef", "x y", "x\n", "", "é"])
def test_a_name_that_no_header_has_is_refused_by_itself(server: ScriptedServer, name: str) -> None:
    """base_url was blamed for it, or it was sent."""
    llm = OddLLM(model="m", base_url=server.url, default_headers={name: "value"})
    with pytest.raises(ConfigurationError, match="the name of a header") as caught:
        llm.load()
    assert "sk-1234567890abcdef" not in str(caught.value)
    assert not server.requests
