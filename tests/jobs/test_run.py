"""`stillhouse.run` and `arun`: a whole run from Python, and that the command has the same options."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, PrivateAttr

import stillhouse
from stillhouse import AsyncLLM, ConfigurationError, FormattedInput, GenerateOutput, GenerationError, Run
from stillhouse.cli.generate.command import generate
from stillhouse.jobs.launch.options import Options, in_python

ROWS = [{"prompt": f"text {number}", "id": number} for number in range(20)]

# Options of the command that Python has otherwise, or not at all.
ONLY_THE_COMMAND = {
    "prompt": "a single text is llm.generate_outputs",
    "estimate": "stillhouse.estimate",
    "preview": "the inputs are seen in a terminal",
    "json": "likewise",
    "traceback": "the logger stillhouse.bugs",
    "verbose": "the logger stillhouse.messages",
    "quiet": "show_bar",
}
ONLY_PYTHON = {"on_progress", "show_bar", "parameters"}


class CountingLLM(AsyncLLM):
    """Answers with the text in capitals, and counts the requests of this process."""

    model: str = "counting"
    _requests: int = PrivateAttr(default=0)

    @property
    def model_name(self) -> str:
        return self.model

    async def agenerate(  # type: ignore[override]
        self, input: FormattedInput, num_generations: int = 1, temperature: float = 1.0
    ) -> GenerateOutput:
        self._requests += 1
        content = input[-1]["content"]  # type: ignore[index]
        if "fail" in str(content):
            raise GenerationError(f"row {self._requests} is refused", kind="content_filter")
        return stillhouse.prepare_output([f"{content} {temperature}".upper()] * num_generations)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = stillhouse.Registry(entry_points=())
    registry.register("counting", CountingLLM)
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


# The command and the function


def test_the_command_and_the_function_have_the_same_options() -> None:
    command = {parameter.name for parameter in generate.params} - {*ONLY_THE_COMMAND}
    function = {*inspect.signature(stillhouse.run).parameters} - ONLY_PYTHON
    assert command == function
    assert {*Options.__dataclass_fields__} == command | {*ONLY_THE_COMMAND}


def test_an_estimate_has_the_options_of_a_run_that_matter_to_it() -> None:
    run, estimate = (
        inspect.signature(function).parameters for function in (stillhouse.run, stillhouse.estimate)
    )
    for name, parameter in estimate.items():
        assert parameter == run[name]
    unimportant = {
        "max_concurrency", "wait", "finish_online", "max_tokens_total", "max_cost", "max_failures",
        "executor", "workers", "metrics", "state_copy",
    }  # fmt: skip
    assert {*run} - {*estimate} == unimportant | ONLY_PYTHON - {"parameters"}


def test_an_estimate_refuses_what_would_not_change_it(source: Path) -> None:
    """It is an option of `run`, and no generation parameter."""
    with pytest.raises(
        stillhouse.ConfigurationError, match="no option 'max_failures', which does not change"
    ):
        stillhouse.estimate(source, llm="echo", output="o.jsonl", max_failures=3)


def test_the_output_is_that_of_the_command(source: Path, tmp_path: Path) -> None:
    stillhouse.run(source, llm="echo", output=tmp_path / "one.jsonl", num_generations=2, limit=7)
    with pytest.raises(SystemExit) as exited:
        generate.main(
            [str(source), "--llm", "echo", "-o", str(tmp_path / "other.jsonl"), "-n", "2", "--limit", "7"]
        )
    assert not exited.value.code
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "other.jsonl").read_bytes()


class EndingLLM(CountingLLM):
    """One whose creation ends the program."""

    def model_post_init(self, context: Any) -> None:
        raise SystemExit(0)


def test_a_backend_cannot_end_the_program_when_it_is_created(source: Path, tmp_path: Path) -> None:
    registry = stillhouse.default_registry()
    registry.register("ending", EndingLLM)
    with pytest.raises(RuntimeError, match="EndingLLM raised SystemExit: 0"):
        stillhouse.run(source, llm="ending", output=tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command_resumes_what_python_began_and_the_other_way_round(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    stillhouse.run(source, llm="counting", output=output, limit=5, temperature=0.5)
    command = [str(source), "--llm", "counting", "-o", str(output), "--param", "temperature=0.5"]
    with pytest.raises(SystemExit):
        generate.main([*command, "--limit", "12"])
    llm = CountingLLM()
    run = stillhouse.run(source, llm=llm, output=output, temperature=0.5)
    assert (llm._requests, run.counts.rows) == (8, 20)


@pytest.mark.parametrize(
    ("text", "renamed"),
    [
        ("give --llm NAME", "give llm=NAME"),
        ("or use --restart to start over", "or use restart=True to start over"),
        ("leave out --max-tokens-total and --max-cost", "leave out max_tokens_total and max_cost"),
        ("give -o OUTPUT.jsonl for a run", "give output=OUTPUT.jsonl for a run"),
        ("pip install -U --upgrade x-o", "pip install -U --upgrade x-o"),
    ],
)
def test_a_hint_names_an_option_as_it_is_named_here(text: str, renamed: str) -> None:
    assert in_python(text) == renamed


# Inputs


def rows_of(run: Run) -> list[dict[str, Any]]:
    return list(run)


def inputs() -> Iterator[Any]:
    yield pytest.param(lambda path: path, id="a path")
    yield pytest.param(lambda path: str(path), id="the text of a path")
    yield pytest.param(lambda _: ROWS, id="a list")
    yield pytest.param(lambda _: (row for row in ROWS), id="a generator")
    for name in ("pandas", "polars", "pyarrow", "datasets"):
        yield pytest.param(
            lambda _, name=name: table_of(name),
            id=name,
            marks=[pytest.mark.filterwarnings("ignore::DeprecationWarning")],
        )


def table_of(library: str) -> Any:
    module: Any = pytest.importorskip(library)
    if library == "pyarrow":
        return module.Table.from_pylist(ROWS)
    if library == "datasets":
        return module.Dataset.from_list(ROWS)
    return module.DataFrame(ROWS)


@pytest.mark.parametrize("input", [*inputs()])
def test_every_input_gives_the_rows_of_its_file(input: Any, source: Path, tmp_path: Path) -> None:
    expected = rows_of(stillhouse.run(source, llm="echo", output=tmp_path / "file.jsonl"))
    run = stillhouse.run(input(source), llm="echo", output=tmp_path / "other.jsonl")
    assert rows_of(run) == expected
    assert (tmp_path / "other.jsonl").read_bytes() == (tmp_path / "file.jsonl").read_bytes()


@pytest.mark.parametrize("input", [*inputs()])
def test_the_same_call_again_asks_for_nothing(input: Any, source: Path, tmp_path: Path) -> None:
    llm = CountingLLM()
    for _ in range(2):
        run = stillhouse.run(input(source), llm=llm, output=tmp_path / "out.jsonl")
        assert (llm._requests, run.counts) == (20, (20, 20, {}))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"rows.jsonl", "out.jsonl", "out.jsonl.run.db"}


def test_texts_and_chats_are_rows(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "x"}, {"role": "user", "content": "b"}]
    run = stillhouse.run(["a", chat], llm="echo")
    assert [row["generations"] for row in run] == [["a"], ["b"]]


def test_types_of_a_table_are_kept(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table(
        {
            "prompt": ["a", None],
            "when": pa.array([1, 2], pa.timestamp("us")),
            "n": pa.array([1, 2], pa.int8()),
        }
    )
    run = stillhouse.run(table, llm="echo", output=tmp_path / "out.parquet")
    schema = pa.parquet.read_schema(run.output)
    assert (schema.field("when").type, schema.field("n").type) == (pa.timestamp("us"), pa.int8())
    assert run.counts == (2, 1, {"invalid_input": 1})


def test_rows_that_changed_are_refused_with_the_difference(tmp_path: Path) -> None:
    stillhouse.run(ROWS, llm="echo", output=tmp_path / "out.jsonl")
    with pytest.raises(ConfigurationError, match="1 of 20 rows differs") as raised:
        stillhouse.run([*ROWS[:-1], {"prompt": "new"}], llm="echo", output=tmp_path / "out.jsonl")
    assert "restart=True" in raised.value.hint


def failing() -> Iterator[dict[str, str]]:
    yield {"prompt": "a"}
    raise RuntimeError("the source broke")


@pytest.mark.parametrize("input", [5, None, b"x", {"a": 1}, [1], [["a"]], [{"prompt": "a"}, 2.5], failing])
def test_an_input_that_is_none_costs_nothing_and_leaves_nothing(input: Any, tmp_path: Path) -> None:
    llm = CountingLLM()
    given, error = (input(), RuntimeError) if input is failing else (input, ConfigurationError)
    with pytest.raises(error):
        stillhouse.run(given, llm=llm, output=tmp_path / "out.jsonl")
    assert llm._requests == 0
    assert list(tmp_path.iterdir()) == []


# The LLM and the options


def test_an_llm_that_is_loaded_stays_loaded(tmp_path: Path) -> None:
    with CountingLLM() as llm:
        stillhouse.run(ROWS, llm=llm)
        assert llm.is_loaded
    stillhouse.run(ROWS, llm=llm)
    assert not llm.is_loaded


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no LLM is named"),
        ({"llm": 5}, "llm is of the type int"),
        ({"llm": "counting", "limit": 0}, "limit is 0"),
        ({"llm": "counting", "limit": True}, "limit is True"),
        ({"llm": "counting", "num_generations": 1.5}, "num_generations is 1.5"),
        ({"llm": "counting", "max_cost": float("nan")}, "max_cost is nan"),
        ({"llm": "counting", "wait": 5}, "no batch to wait for"),
        ({"llm": "counting", "retry": "ratelimit"}, "no kind of error 'ratelimit'"),
        ({"llm": "counting", "retry": ["timeout", "x"]}, "no kind of error 'x'"),
        ({"llm": "counting", "temprature": 1}, "no generation parameter 'temprature'"),
        ({"llm": "counting", "temperature": "hot"}, "temperature"),
        ({"llm": "counting", "temperature": 1, "param": {"temperature": 1}}, "temperature is given twice"),
        ({"llm": "counting", "fields": {"modle": "x"}}, "no field 'modle'"),
        ({"llm": "counting", "output": "-"}, "standard input or output"),
        ({"llm": "counting", "output": "x.docx"}, "unknown file format"),
        ({"llm": "counting", "template": "{{ x"}, "the template is not valid"),
        ({"llm": "counting", "batch": True}, "no offline batches"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(
    options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=words) as raised:
        stillhouse.run(ROWS, **{"output": "out.jsonl", **options})
    assert "--" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_fields_are_refused_beside_an_llm() -> None:
    with pytest.raises(ConfigurationError, match="the LLM is given"):
        stillhouse.run(ROWS, llm=CountingLLM(), max_concurrency=3)


# The result


def test_failed_rows_are_data_and_are_retried_by_kind(tmp_path: Path) -> None:
    rows = [{"prompt": "fail" if number % 5 == 0 else "a"} for number in range(20)]
    llm, output = CountingLLM(), tmp_path / "out.jsonl"
    run = stillhouse.run(rows, llm=llm, output=output)
    assert run.counts == (20, 16, {"content_filter": 4})
    assert [(failure.kind, failure.rows, failure.example) for failure in run.failures] == [
        ("content_filter", 4, 1)
    ]
    assert [row["error"]["kind"] for row in run if row["error"]] == ["content_filter"] * 4
    stillhouse.run(rows, llm=llm, output=output, retry="content_filter")
    assert llm._requests == 24
    assert "4 failed" in repr(run)
    assert run.report().read_text().startswith("<!")


def test_the_rows_are_there_in_another_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    run = stillhouse.run(ROWS, llm="echo", output="out.jsonl")
    monkeypatch.chdir(tmp_path / "other")
    assert len(list(run)) == 20
    assert run.failures == []


def test_without_an_output_the_rows_go_with_the_result() -> None:
    run = stillhouse.run(ROWS, llm="echo")
    folder = run.output.parent
    assert len(run) == len(list(run)) == len(list(run)) == 20
    with pytest.raises(ConfigurationError, match="temporary"):
        run.report()
    del run
    assert not folder.exists()


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    stillhouse.run(ROWS, llm="echo")
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_by_a_function_of_ones_own() -> None:
    seen: list[Any] = []
    stillhouse.run(ROWS, llm="echo", on_progress=seen.append)
    assert (seen[-1].rows, seen[-1].failed, seen[-1].share) == (20, 0, 1.0)
    assert str(seen[-1]).startswith("20 of 20 rows (100%), 0 failed")


def test_an_error_of_that_function_ends_no_run() -> None:
    def show(_: Any) -> None:
        raise ValueError("no")

    with pytest.warns(UserWarning, match="on_progress is not called again: ValueError: no"):
        assert len(stillhouse.run(ROWS, llm="echo", on_progress=show)) == 20


# In loops and threads, and interrupted


def test_it_runs_within_a_loop_and_on_a_thread() -> None:
    async def main() -> int:
        return len(stillhouse.run(ROWS, llm="counting"))

    assert asyncio.run(main()) == 20
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(len(stillhouse.run(ROWS, llm="counting"))))
    thread.start()
    thread.join()
    assert found == [20]


def test_a_loop_goes_on_during_arun() -> None:
    asyncio.run(check_loop_goes_on())


async def check_loop_goes_on() -> None:
    gate = asyncio.Event()

    class WaitingLLM(CountingLLM):
        async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]
            loop.call_soon_threadsafe(gate.set)
            return stillhouse.prepare_output(["x"])

    loop = asyncio.get_running_loop()
    running = asyncio.create_task(stillhouse.arun(ROWS, llm=WaitingLLM()))
    await gate.wait()
    assert (await running).counts.done == 20


def test_a_cancelled_arun_keeps_what_is_finished_and_starts_nothing_more(tmp_path: Path) -> None:
    asyncio.run(check_cancelling(tmp_path))


async def check_cancelling(tmp_path: Path) -> None:
    begun, released = threading.Event(), threading.Event()

    class SlowLLM(CountingLLM):
        async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]
            self._requests += 1
            begun.set()
            await asyncio.to_thread(released.wait)
            return stillhouse.prepare_output(["x"])

    llm = SlowLLM(max_concurrency=4)
    running = asyncio.create_task(stillhouse.arun(ROWS, llm=llm, output=tmp_path / "out.jsonl"))
    await asyncio.to_thread(begun.wait)
    running.cancel()
    await asyncio.sleep(0)
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    sent = llm._requests
    assert sent < 20
    run = await stillhouse.arun(ROWS, llm=llm, output=tmp_path / "out.jsonl")
    assert (llm._requests, run.counts.done) == (20, 20)


SCRIPT = """
import asyncio, signal, sys, time
import stillhouse

class SlowLLM(stillhouse.AsyncLLM):
    max_concurrency: int = 2
    @property
    def model_name(self): return "slow"
    async def agenerate(self, input, num_generations: int = 1):
        print("request", flush=True)
        await asyncio.sleep(0.05)
        return stillhouse.prepare_output([input[-1]["content"]])

stillhouse.default_registry().register("slow", SlowLLM)
try:
    stillhouse.run(["text %d" % number for number in range(40)], llm="slow", output=sys.argv[1])
except KeyboardInterrupt as error:
    print("interrupted:", error, flush=True)
    handler = signal.getsignal(signal.SIGINT)
    assert handler is signal.default_int_handler, handler
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no interrupt to a single process")
def test_an_interrupted_script_goes_on_where_it_was(tmp_path: Path) -> None:
    def start(output: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(output)], stdout=subprocess.PIPE, text=True
        )

    output, other = tmp_path / "out.jsonl", tmp_path / "other.jsonl"
    process = start(output)
    assert process.stdout is not None
    for _ in range(6):
        assert process.stdout.readline() == "request\n"
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    lines = rest.splitlines()
    first = 6 + lines.count("request")
    assert "finished rows are kept; the same call resumes it" in lines[-1]
    assert first < 40
    assert not output.exists()
    again, _ = start(output).communicate(timeout=60)
    assert again.splitlines().count("request") == 40 - first
    start(other).communicate(timeout=60)
    assert output.read_bytes() == other.read_bytes()


def test_a_run_that_stops_raises_and_the_same_call_resumes(tmp_path: Path) -> None:
    class KeyLLM(CountingLLM):
        key: str = Field(default="", exclude=True)

        async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]
            if not self.key:
                raise GenerationError("the key is refused", kind="authentication", stops_run=True)
            return stillhouse.prepare_output(["x"])

    with pytest.raises(GenerationError, match="the key is refused"):
        stillhouse.run(ROWS, llm=KeyLLM(), output=tmp_path / "out.jsonl")
    assert stillhouse.run(ROWS, llm=KeyLLM(key="k"), output=tmp_path / "out.jsonl").counts.done == 20


@pytest.mark.parametrize(
    "name",
    ["output_prefix", "format", "delimiter", "encoding", "image_column", "state", "retry", "template_file"],
)
def test_a_value_of_another_type_is_an_error_of_ours(source: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / "out.jsonl"
    for value in (5, [5]):
        with pytest.raises(stillhouse.ConfigurationError, match=f"^{name} is "):
            stillhouse.run(source, llm="counting", output=output, **{name: value})
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


# Options that are on or off

FLAGS = sorted(
    name
    for name, parameter in inspect.signature(stillhouse.run).parameters.items()
    if parameter.annotation == "bool"
)


@pytest.mark.parametrize("value", ["yes", "no", "", 0, 1, None, [True]])
@pytest.mark.parametrize("name", FLAGS)
def test_an_option_that_is_on_or_off_is_true_or_false(tmp_path: Path, name: str, value: Any) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(ConfigurationError, match=f"^{name} is ") as raised:
        stillhouse.run(["a"], llm="echo", output=output, **{name: value})
    assert raised.value.hint == "give True or False"
    if name in inspect.signature(stillhouse.estimate).parameters:
        with pytest.raises(ConfigurationError, match=f"^{name} is "):
            stillhouse.estimate(["a"], llm="echo", **{name: value})
    assert not list(tmp_path.iterdir())


def test_an_estimate_refuses_what_the_run_refuses() -> None:
    rows = [{"prompt": "a", "error": "mine"}]
    with pytest.raises(ConfigurationError, match="the input has a column error"):
        stillhouse.estimate(rows, llm="echo")
    assert stillhouse.estimate(rows, llm="echo", output_prefix="new_").rows == 1
