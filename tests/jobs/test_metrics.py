"""`--metrics FILE`: the progress of a run as text for Prometheus."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import stillhouse
from stillhouse import AsyncLLM, ConfigurationError, GenerationError
from stillhouse.jobs.reporting import metrics
from stillhouse.jobs.reporting.metrics import MARKER, MetricsFile, RunLabels, metrics_text
from stillhouse.jobs.reporting.progress import Extent
from stillhouse.jobs.runs.statistics import RunStatistics

LABELS = RunLabels("out.jsonl", "echo", "echo", "1")


def samples(path: Path) -> dict[str, float]:
    """The samples of a file, without the label of the output, as a strict parser reads them."""
    found = {}
    for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
        assert family.documentation
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
            labels = {name: value for name, value in sample.labels.items() if name != "output"}
            found[" ".join([sample.name, *labels.values()])] = sample.value
    return found


class Mixed(AsyncLLM):
    """Answers, or fails with the kind that a prompt names."""

    @property
    def model_name(self) -> str:
        return "mixed"

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:  # type: ignore[override]
        text = input[-1]["content"]
        if text != "fine":
            raise GenerationError(f"SECRET-123 {text}", kind=text.split()[0])
        return stillhouse.prepare_output(["ok"], [3], [2])


def test_at_the_end_the_file_has_all_counts(tmp_path: Path) -> None:
    texts = ["fine"] * 5 + ["timeout 1", "timeout 2", "server SECRET-123"]
    rows = [{"prompt": text, "id": f"SECRET-123-{number}"} for number, text in enumerate(texts)]
    path = tmp_path / "run.prom"
    stillhouse.run(rows, llm=Mixed(), output=tmp_path / "out.jsonl", metrics=path)
    found = samples(path)
    assert path.read_text().splitlines()[0] == MARKER
    assert {name: found[f"stillhouse_rows_total {name}"] for name in ("done", "failed", "skipped")} == {
        "done": 5, "failed": 3, "skipped": 0,
    }  # fmt: skip
    assert found["stillhouse_row_failures_total timeout"] == 2
    assert found["stillhouse_row_failures_total server"] == 1
    assert found["stillhouse_tokens_total input"] == 15
    assert found["stillhouse_tokens_total output"] == 10
    assert found["stillhouse_rows_in_flight"] == 0
    outcomes = {
        name.split()[1]: value for name, value in found.items() if name.startswith("stillhouse_run_outcome")
    }
    assert outcomes == {"running": 0, "complete": 1, "waiting": 0, "interrupted": 0, "stopped": 0}
    assert "SECRET-123" not in path.read_text()
    assert [file.name for file in tmp_path.iterdir() if "prom" in file.name] == ["run.prom"]


def test_a_resumed_run_counts_what_was_finished_as_skipped(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"{number}"}) + "\n" for number in range(9)))
    path = tmp_path / "run.prom"
    stillhouse.run(source, llm="echo", output=tmp_path / "out.jsonl", limit=4, metrics=path)
    assert samples(path)["stillhouse_rows_total done"] == 4
    stillhouse.run(source, llm="echo", output=tmp_path / "out.jsonl", metrics=path)
    assert samples(path)["stillhouse_rows_total done"] == 5
    assert samples(path)["stillhouse_rows_total skipped"] == 4
    assert samples(path)["stillhouse_rows_expected"] == 9


def test_the_file_is_there_before_the_first_row_and_changes_while_the_run_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "METRICS_SECONDS", 0.01)
    path = tmp_path / "run.prom"
    seen: list[dict[str, float]] = []

    class Looking(Mixed):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:  # type: ignore[override]
            seen.append(samples(path))
            while input[-1]["content"] == "second" and not seen[-1]["stillhouse_rows_total done"]:
                await asyncio.sleep(0.01)
                seen[-1] = samples(path)
            return stillhouse.prepare_output(["ok"])

    rows = [{"prompt": "first"}, {"prompt": "second"}]
    stillhouse.run(rows, llm=Looking(max_concurrency=1), output=tmp_path / "out.jsonl", metrics=path)
    assert [found["stillhouse_rows_total done"] for found in seen] == [0, 1]
    assert seen[0]["stillhouse_run_outcome running"] == 1


def test_a_stopped_and_an_interrupted_run_say_so(tmp_path: Path) -> None:
    class Ending(Mixed):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:  # type: ignore[override]
            raise GenerationError("no such key", kind="authentication", stops_run=True)

    path = tmp_path / "run.prom"
    with pytest.raises(GenerationError):
        stillhouse.run([{"prompt": "a"}], llm=Ending(), output=tmp_path / "a.jsonl", metrics=path)
    assert samples(path)["stillhouse_run_outcome stopped"] == 1

    class Interrupted(Mixed):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:  # type: ignore[override]
            signal.raise_signal(signal.SIGINT)
            return stillhouse.prepare_output(["ok"])

    with pytest.raises(KeyboardInterrupt):
        stillhouse.run(
            [{"prompt": "a"}] * 3,
            llm=Interrupted(max_concurrency=1),
            output=tmp_path / "b.jsonl",
            metrics=path,
        )
    assert samples(path)["stillhouse_run_outcome interrupted"] == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"mine", b"# HELP node_load1\n", MARKER.encode()[:-1] + b"!"],
    ids=["empty", "text", "other", "near"],
)
def test_another_file_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.prom"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not a file of metrics that Stillhouse wrote"):
        stillhouse.run([{"prompt": "a"}], llm="echo", output=tmp_path / "out.jsonl", metrics=path)
    assert path.read_bytes() == content
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "out.jsonl.run.db").exists()


def test_what_lies_where_the_file_is_written_is_not_replaced_either(tmp_path: Path) -> None:
    beside = tmp_path / ".run.prom.partial"
    beside.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"\.run\.prom\.partial exists"):
        MetricsFile(tmp_path / "run.prom")
    assert beside.read_text() == "mine"
    for left in (b"", MARKER.encode()[:10], MARKER.encode() + b"\nhalf"):  # of a process that was killed
        beside.write_bytes(left)
        MetricsFile(tmp_path / "run.prom")
        assert not beside.exists()


@pytest.mark.parametrize("name", ["missing/run.prom", "out.jsonl", "out.jsonl.run.db", "folder"])
def test_a_place_that_cannot_be_written_is_an_error_before_the_first_row(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError):
        stillhouse.run([{"prompt": "a"}], llm="echo", output=tmp_path / "out.jsonl", metrics=tmp_path / name)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused_with_the_option_that_named_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="is a pipe, which cannot be replaced") as refused:
        MetricsFile(tmp_path / "pipe")
    assert refused.value.hint == "give --metrics the path of a file"


@pytest.mark.parametrize("given", ["", "-"])
def test_standard_output_and_nothing_are_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigurationError, match="it is not the path of a file"):
        stillhouse.run([{"prompt": "a"}], llm="echo", output=tmp_path / "out.jsonl", metrics=given)
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.prom").symlink_to(tmp_path / "real.prom")
    (tmp_path / "real.prom").write_text(f"{MARKER}\n")
    stillhouse.run(
        [{"prompt": "a"}], llm="echo", output=tmp_path / "out.jsonl", metrics=tmp_path / "link.prom"
    )
    assert (tmp_path / "link.prom").is_symlink()
    assert samples(tmp_path / "real.prom")["stillhouse_rows_total done"] == 1


def test_a_full_disk_later_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "METRICS_SECONDS", 0.001)
    replace, calls = Path.replace, []

    def full(self: Path, target: Path) -> Any:
        if self.name.endswith(".prom.partial"):
            calls.append(self)
            if len(calls) > 1:
                raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with caplog.at_level(logging.WARNING, "stillhouse"):
        run = stillhouse.run(
            [{"prompt": "a"}] * 5, llm="echo", fields={"latency": 0.05, "max_concurrency": 1},
            output=tmp_path / "out.jsonl", metrics=tmp_path / "run.prom",
        )  # fmt: skip
    assert run.counts.done == 5
    assert len(calls) > 2
    assert caplog.text.count("run.prom cannot be written: No space left on device; the run continues") == 1
    assert not (tmp_path / ".run.prom.partial").exists()


def test_labels_are_escaped_bounded_and_without_credentials(tmp_path: Path) -> None:
    odd = RunLabels('a"b\\c\nd\x1b{}é' + "x" * 500, 'llm"', "\udcff", "1")
    progress = metrics.Tracker(RunStatistics(), Extent(lambda: None, lambda: None, 1)).now()
    path = tmp_path / "odd.prom"
    text = metrics_text(progress, {"timeout": 1, 'mine"} 1': 5}, 0, odd, "running")
    path.write_bytes(text.encode("utf-8", errors="replace"))
    (info,) = (
        sample
        for family in text_string_to_metric_families(path.read_text(encoding="utf-8"))
        for sample in family.samples
        if sample.name == "stillhouse_run_info"
    )
    assert info.labels["output"].startswith('a"b\\c?d?{}éxxx')
    assert len(info.labels["output"]) == 200
    assert info.labels["llm"] == 'llm"'
    assert "mine" not in text


def test_series_do_not_depend_on_the_rows(tmp_path: Path) -> None:
    def rows(count: int) -> Iterator[dict[str, str]]:
        return ({"id": f"{number}", "prompt": f"unknown {number}"} for number in range(count))

    sizes = []
    for count in (10, 1000):
        path = tmp_path / f"{count}.prom"
        stillhouse.run(
            rows(count), llm=Mixed(), output=tmp_path / f"{count}.jsonl", metrics=path, max_failures=0
        )
        sizes.append(len(samples(path)))
    assert sizes[0] == sizes[1] < 20


def test_a_killed_run_leaves_a_whole_file_that_the_next_one_replaces(tmp_path: Path) -> None:
    code = """
import stillhouse, sys, os, signal
from stillhouse.jobs.reporting import metrics
class Killing(stillhouse.AsyncLLM):
    @property
    def model_name(self): return "killing"
    async def agenerate(self, input, num_generations=1):
        if input[-1]["content"] == sys.argv[1]: os.kill(os.getpid(), signal.SIGKILL)
        return stillhouse.prepare_output(["ok"])
rows = [{"prompt": str(number)} for number in range(10)]
stillhouse.run(rows, llm=Killing(max_concurrency=1), output="out.jsonl", metrics="run.prom")
"""
    path = tmp_path / "run.prom"
    for killed_at, status in (("5", -9), ("none", 0)):
        result = subprocess.run([sys.executable, "-c", code, killed_at], cwd=tmp_path, env={**os.environ})
        assert result.returncode == status
        found = samples(path)
        assert found["stillhouse_run_outcome complete"] == (status == 0)
    assert found["stillhouse_rows_total done"] + found["stillhouse_rows_total skipped"] == 10
