"""The docs' notebook in a real kernel, also interrupted in its middle."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from .steps import DOCS

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

# pyzmq and its event loops warn of themselves.
pytestmark = [pytest.mark.filterwarnings("ignore")]

SLOW = """
import asyncio, pathlib
import stillhouse

class SlowLLM(stillhouse.AsyncLLM):
    max_concurrency: int = 2
    @property
    def model_name(self):
        return "slow"
    async def agenerate(self, input, num_generations: int = 1):
        with pathlib.Path("requests").open("a") as stream:
            print(input[-1]["content"], file=stream)
        await asyncio.sleep(0.05)
        return stillhouse.prepare_output([input[-1]["content"].upper()])

rows = [f"text {number}" for number in range(60)]
"""
RUN = 'stillhouse.run(rows, llm=SlowLLM(), output="out.jsonl").counts.done'


def notebook(*cells: str) -> Any:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def outputs(cell: Any) -> str:
    """What a cell shows, as text."""
    found = []
    for output in cell["outputs"]:
        found.append(
            output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue", "")
        )
    return "\n".join(found)


def test_the_notebook_of_the_docs_runs_and_runs_again(tmp_path: Path) -> None:
    shown = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(shown, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    first = (tmp_path / "answers.jsonl").read_bytes()
    assert first.count(b"\n") == 100
    texts = [outputs(cell) for cell in shown.cells if cell.cell_type == "code"]
    assert "5000" in texts[1]
    assert "complete, 100 rows, 100 done, 0 failed" in texts[2]
    assert "1 ['Name 1 rivers in Peru.']" in texts[3]
    nbclient.NotebookClient(shown, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "answers.jsonl").read_bytes() == first


def test_an_interrupted_cell_resumes_with_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cache would have the answers of the first run.
    monkeypatch.setenv("STILLHOUSE_DISABLE_PLUGINS", "stillhouse-cache")
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    for folder in (whole, interrupted):
        folder.mkdir()
    shown = notebook(SLOW, RUN)
    nbclient.NotebookClient(shown, timeout=120, resources={"metadata": {"path": str(whole)}}).execute()
    assert outputs(shown.cells[1]).endswith("60")
    # There is one bar, updated in its place.
    assert sum("text/html" in output.get("data", {}) for output in shown.cells[1]["outputs"]) == 1

    shown = notebook(SLOW, RUN, RUN)
    client = nbclient.NotebookClient(
        shown, timeout=120, allow_errors=True, resources={"metadata": {"path": str(interrupted)}}
    )
    requests = interrupted / "requests"

    def interrupt() -> None:
        while not (requests.exists() and requests.read_text().count("\n") >= 10):
            if done.wait(0.01):
                return
        asyncio.run(client.km.interrupt_kernel())

    done = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    client.execute()
    done.set()
    thread.join()
    message = outputs(shown.cells[1])
    found = re.search(r"(\d+) finished rows are kept; the same call resumes it", message)
    assert found, message
    assert 10 <= int(found[1]) < 60
    assert outputs(shown.cells[2]).endswith("60")
    assert requests.read_text().count("\n") == 60
    assert (interrupted / "out.jsonl").read_bytes() == (whole / "out.jsonl").read_bytes()
