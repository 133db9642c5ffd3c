"""Spans of runs and of their rows, as a collector gets them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from otlp_receiver import Receiver, attributes_of

import stillhouse
from stillhouse import GenerationError, Registry, hookimpl

ERROR = 2
CLIENT = 3


class Sampling(stillhouse.LLM):
    """Takes what a provider's model takes."""

    @property
    def model_name(self) -> str:
        return "sampling-1"

    def generate(
        self, inputs: Any, num_generations: int = 1, temperature: float = 1.0, top_p: float = 1.0,
        max_new_tokens: int = 10, seed: int | None = None, stop: list[str] | None = None,
    ) -> Any:  # fmt: skip
        return [
            stillhouse.prepare_output(
                ["a b"] * num_generations,
                [4],
                [2] * num_generations,
                finish_reasons=["stop"] * num_generations,
            )
            for _ in inputs
        ]


def test_a_row_is_a_span_by_the_conventions(
    opened: Callable[..., Registry], receiver: Receiver, tmp_path: Path
) -> None:
    registry = opened(endpoint=receiver.url, ratio=1.0, flush_seconds=30.0)
    registry.register("mistral", Sampling)  # the conventions have a name of their own for it
    stillhouse.run(
        [{"prompt": "one two"}], llm=registry.create("mistral"), output=tmp_path / "out.jsonl",
        temperature=0.25, max_new_tokens=7, seed=3, stop=["SECRET-123"], num_generations=3,
    )  # fmt: skip
    (span,) = receiver.rows
    assert (span.name, span.kind, span.status.code) == ("chat sampling-1", CLIENT, 0)
    assert attributes_of(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.request.model": "sampling-1",
        "gen_ai.request.choice.count": 3,
        "gen_ai.request.temperature": 0.25,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.seed": 3,
        "gen_ai.response.finish_reasons": ["stop", "stop", "stop"],
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 6,
        "stillhouse.row.index": 0,
    }
    assert not span.events
    assert b"SECRET-123" not in receiver.raw


def test_a_raw_prompt_is_a_text_completion(run_echo: Callable[..., Any], receiver: Receiver) -> None:
    run_echo([{"prompt": "one"}], raw=True)
    (span,) = receiver.rows
    assert span.name == "text_completion echo"


def test_a_span_takes_as_long_as_its_call(run_echo: Callable[..., Any], receiver: Receiver) -> None:
    run_echo([{"prompt": "one"}], fields={"latency": 0.05})
    (span,) = receiver.rows
    assert span.end_time_unix_nano - span.start_time_unix_nano >= 50_000_000


def test_rows_are_children_of_their_run(run_echo: Callable[..., Any], receiver: Receiver) -> None:
    run_echo([{"prompt": f"row {number}"} for number in range(5)])
    (run,) = receiver.runs
    assert run.name == "invoke_workflow stillhouse"
    assert {(span.trace_id, span.parent_span_id) for span in receiver.rows} == {(run.trace_id, run.span_id)}
    assert len(receiver.rows) == 5
    found = attributes_of(run)
    assert (found["stillhouse.run.outcome"], found["stillhouse.run.done"]) == ("complete", 5)
    assert found["stillhouse.run.resumed"] is False
    assert found["gen_ai.usage.output_tokens"] == sum(
        attributes_of(span)["gen_ai.usage.output_tokens"] for span in receiver.rows
    )


def test_two_runs_at_once_keep_their_rows_apart(
    opened: Callable[..., Registry], receiver: Receiver, tmp_path: Path
) -> None:
    from threading import Barrier, Thread

    registry = opened(endpoint=receiver.url, ratio=1.0, flush_seconds=30.0)
    both = Barrier(2)

    def run(number: int) -> None:
        def rows() -> Any:
            both.wait()
            yield from ({"prompt": f"row {index}"} for index in range(4 + number))

        stillhouse.run(rows(), llm=registry.create("echo"), output=tmp_path / f"{number}.jsonl")

    threads = [Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    traces = {run.trace_id: attributes_of(run)["stillhouse.run.done"] for run in receiver.runs}
    assert sorted(traces.values()) == [4, 5]
    for trace, done in traces.items():
        assert sum(span.trace_id == trace for span in receiver.rows) == done


def test_a_failed_row_names_the_kind_of_its_error(run_echo: Callable[..., Any], receiver: Receiver) -> None:
    run = run_echo([{"prompt": "SECRET-123"}], fields={"failure_rate": 1.0})
    kind = run.failures[0].kind
    (span,) = receiver.rows
    assert (span.status.code, span.status.message) == (ERROR, "")
    assert attributes_of(span)["error.type"] == kind
    assert attributes_of(span)["stillhouse.attempts"] == 1
    (whole,) = receiver.runs
    assert attributes_of(whole)["stillhouse.run.failed"] == 1
    assert attributes_of(whole)[f"stillhouse.run.failed.{kind}"] == 1
    assert whole.status.code == 0


def test_attempts_of_a_failed_row_are_counted(
    opened: Callable[..., Registry], receiver: Receiver, tmp_path: Path
) -> None:
    class Busy(stillhouse.LLM):
        @property
        def model_name(self) -> str:
            return "busy"

        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            raise GenerationError("the server is busy", kind="server", attempts=6)

    registry = opened(endpoint=receiver.url, ratio=1.0, flush_seconds=30.0)
    registry.register("busy", Busy)
    rows = [{"prompt": "x"}, {"prompt": "y"}]
    stillhouse.run(rows, llm=registry.create("busy"), output=tmp_path / "out.jsonl")
    assert [attributes_of(span)["stillhouse.attempts"] for span in receiver.rows] == [6, 6]
    assert {span.name for span in receiver.rows} == {"chat busy"}


def test_an_answer_of_a_hook_is_marked(
    opened: Callable[..., Registry], receiver: Receiver, tmp_path: Path
) -> None:
    class Cache:
        @hookimpl
        def before_generate(self) -> Any:
            return stillhouse.prepare_output(["kept"], [9], [9])

    registry = opened(endpoint=receiver.url, ratio=1.0, flush_seconds=30.0)
    registry.register_hooks("cache", Cache())
    stillhouse.run([{"prompt": "x"}], llm=registry.create("echo"), output=tmp_path / "out.jsonl")
    (span,) = receiver.rows
    assert attributes_of(span)["stillhouse.from_hook"] is True
    assert receiver.points == []  # nothing was asked for, and nothing paid


def test_only_a_sample_of_the_rows_has_spans(run_echo: Callable[..., Any], receiver: Receiver) -> None:
    run_echo([{"prompt": f"{number}"} for number in range(400)], {"ratio": 0.25})
    assert 40 < len(receiver.rows) < 160
    (count,) = (point.count for name, _, point in receiver.points if name.endswith("duration"))
    assert count == 400


def test_without_rows_in_the_sample_there_is_the_run(
    run_echo: Callable[..., Any], receiver: Receiver
) -> None:
    run_echo([{"prompt": "x"}], {"ratio": 0.0})
    assert receiver.rows == []
    assert len(receiver.runs) == 1
