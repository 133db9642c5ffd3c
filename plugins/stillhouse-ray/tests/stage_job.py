"""A job of Ray Data on a cluster of this machine. It writes what came out as JSON; `test_stage.py` runs it.

Usage: python stage_job.py FOLDER NAME…, with the names of functions here
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from stage_llms import MAX_CHARACTERS, ObeyingLLM

from stillhouse_ray import GenerateStage

FOLDER = Path(sys.argv[1])
SECRET = "sk-a-secret-of-the-stage"


def main() -> None:
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, _temp_dir=str(FOLDER / "ray"),
    )  # fmt: skip
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    jobs = {job.__name__: job for job in (odd_rows, dying_rows, slow_rows, refused_key)}
    for name in sys.argv[2:]:
        job = jobs[name]
        (FOLDER / f"{name}.json").write_text(json.dumps(job()), encoding="utf-8")
    ray.shutdown()


def odd_rows() -> Any:
    """One row is too long, and one ends the process that generates for it."""
    prompts = {100: "x" * (MAX_CHARACTERS + 1), 180: "die"}
    rows = [{"id": number, "question": prompts.get(number, f"q{number}")} for number in range(200)]
    llm = ObeyingLLM(api_key=SECRET)
    return generated(rows, 8, 25, llm=llm, executor="processes", workers=1, temperature=0.5)


def dying_rows() -> Any:
    """Three rows end the process that generates for them."""
    rows = [{"id": number, "question": "die" if number in (20, 50, 80) else "q"} for number in range(100)]
    return generated(rows, 4, 25, llm=ObeyingLLM(), executor="processes", workers=1)


def slow_rows() -> Any:
    """The first rows take longest."""
    rows = [{"id": number, "question": f"sleep {(10 - number) / 20}"} for number in range(10)]
    (FOLDER / "loads").mkdir()
    return generated(rows, 5, 2, llm=ObeyingLLM(folder=str(FOLDER / "loads")))


def refused_key() -> Any:
    """A row meets an error that every row would meet."""
    rows = [{"id": number, "question": "refuse" if number == 3 else "q"} for number in range(6)]
    try:
        return generated(rows, 1, 6, actors=1, llm=ObeyingLLM())
    except Exception as error:
        return str(error)


def generated(
    rows: list[dict[str, Any]], blocks: int, batch_size: int, *, actors: int = 2, **options: Any
) -> list[Any]:
    """Generate for rows in a job of Ray Data."""
    dataset = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        GenerateStage,
        fn_constructor_kwargs={"prompt_column": "question", **options},
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=actors),
        num_cpus=0,
    )
    found: list[Any] = dataset.take_all()
    return found


if __name__ == "__main__":
    main()
