"""A job of Ray Data on a cluster of this machine. It writes what came out as JSON; `test_stage.py` runs it.

Usage: python stage_job.py FOLDER NAME…, with the names of functions here
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ray
from pyarrow.parquet import read_metadata, read_schema
from ray.data import ActorPoolStrategy, DataContext
from stage_llms import MAX_CHARACTERS, ObeyingLLM, ReadingLLM

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
    jobs = {job.__name__: job for job in JOBS}
    for name in sys.argv[2:]:
        job = jobs[name]
        (FOLDER / f"{name}.json").write_text(json.dumps(job()), encoding="utf-8")
    ray.shutdown()


def odd_rows() -> Any:
    """One row is too long, and one ends the process that generates for it."""
    prompts = {100: "x" * (MAX_CHARACTERS + 1), 180: "die"}
    rows = [{"id": number, "question": prompts.get(number, f"q{number}")} for number in range(200)]
    (FOLDER / "asking").mkdir()
    llm = ObeyingLLM(api_key=SECRET, folder=str(FOLDER / "asking"))
    return generated(rows, 8, 25, llm=llm, executor="processes", workers=1, temperature=0.5)


def dying_rows() -> Any:
    """Three rows end the process that generates for them."""
    rows = [{"id": number, "question": "die" if number in (20, 50, 80) else "q"} for number in range(100)]
    return generated(rows, 4, 25, llm=ObeyingLLM(), executor="processes", workers=1)


def killed_actor() -> Any:
    """The process of one of two actors is killed at row 50, once."""
    (FOLDER / "killing").mkdir()
    rows = [
        {"id": number, "question": "kill once" if number == 50 else f"q{number}"} for number in range(200)
    ]
    return generated(rows, 8, 25, llm=ObeyingLLM(folder=str(FOLDER / "killing")))


class AsyncStage:
    """The stage, as one of those that Ray Data awaits, several batches at a time."""

    def __init__(self, **options: Any) -> None:
        self._stage = GenerateStage(**options)

    async def __call__(self, batch: Any) -> AsyncIterator[Any]:
        yield await asyncio.to_thread(self._stage, batch)


def orders() -> Any:
    """The first rows take longest: with the order kept or not, one actor or two, awaited or not."""
    return ordered((True, 2, GenerateStage), (True, 2, AsyncStage), (False, 2, GenerateStage))


def other_orders() -> Any:
    """The other combinations."""
    return ordered(
        (True, 1, GenerateStage),
        (True, 1, AsyncStage),
        (False, 1, GenerateStage),
        (False, 1, AsyncStage),
        (False, 2, AsyncStage),
    )


def ordered(*ways: tuple[bool, int, Any]) -> dict[str, Any]:
    """The rows of a job for each way: whether the order is kept, the number of actors, and the stage."""
    rows = [{"id": number, "question": f"sleep {(10 - number) / 50}"} for number in range(10)]
    loads = FOLDER / "loads"
    loads.mkdir()
    found: dict[str, Any] = {}
    for keeps, actors, stage in ways:
        DataContext.get_current().execution_options.preserve_order = keeps
        llm = ObeyingLLM(folder="" if found else str(loads))
        name = f"{keeps} {actors} {stage.__name__}"
        found[name] = generated(rows, 5, 2, stage=stage, actors=actors, llm=llm)
    DataContext.get_current().execution_options.preserve_order = True
    return found


def typed_columns() -> Any:
    """Of several blocks, one has a failed row, and one has no other."""
    rows = [{"id": number, "question": f"q{number}"} for number in range(20)]
    for number in (7, *range(15, 20)):
        rows[number]["question"] = "x" * (MAX_CHARACTERS + 1)
    found = {}
    for format in ("numpy", "pandas"):
        dataset = mapped(rows, 4, 5, actors=1, format=format, llm=ObeyingLLM()).materialize()
        folder = FOLDER / f"parquet-{format}"
        dataset.write_parquet(str(folder))
        frame = dataset.to_pandas().sort_values("id")
        schema = dataset.schema()
        found[format] = {
            "blocks": [types_of(ray.get(block)) for block in dataset.to_arrow_refs()],
            "schema": {name: str(type) for name, type in zip(schema.names, schema.types, strict=True)},
            "files": [types_of(read_schema(path)) for path in sorted(folder.glob("*.parquet"))],
            "errors": [error["kind"] if isinstance(error, dict) else None for error in frame["error"]],
            "rows": sum(read_metadata(path).num_rows for path in folder.glob("*.parquet")),
        }
    return found


def types_of(table: Any) -> dict[str, str]:
    schema = getattr(table, "schema", table)
    return {field.name: str(field.type) for field in schema}


def expanded() -> Any:
    """The fields of answers are columns; in one block, no answer has any."""
    properties = {"name": {"type": "string"}, "age": {"type": "integer"}, "more": {}}
    answers = ['{"name": "A", "age": 3, "more": [1, "x"], "odd": 1}', '{"name": "B"}', "no JSON", "fail"]
    dataset = mapped(
        [{"id": number, "question": answers[number // 2]} for number in range(8)], 4, 2,
        actors=1, format="numpy", llm=ReadingLLM(), expand=True, schema={"properties": properties},
    ).materialize()  # fmt: skip
    return {
        "blocks": [types_of(ray.get(block)) for block in dataset.to_arrow_refs()],
        "rows": [{name: row[name] for name in ("id", *properties)} for row in dataset.take_all()],
    }


def refused_key() -> Any:
    """A row meets an error that every row would meet."""
    rows = [{"id": number, "question": "refuse" if number == 3 else "q"} for number in range(6)]
    try:
        return generated(rows, 1, 6, actors=1, llm=ObeyingLLM())
    except Exception as error:
        return str(error)


def mapped(
    rows: list[dict[str, Any]],
    blocks: int,
    batch_size: int,
    *,
    stage: Any = GenerateStage,
    actors: int = 2,
    format: str = "pyarrow",
    **options: Any,
) -> Any:
    """The dataset of a job of Ray Data that generates for rows."""
    return ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        stage,
        fn_constructor_kwargs={"prompt_column": "question", **options},
        batch_size=batch_size,
        batch_format=format,
        compute=ActorPoolStrategy(size=actors),
        num_cpus=0,
    )


def generated(*arguments: Any, **options: Any) -> list[Any]:
    """The rows of such a dataset."""
    found: list[Any] = mapped(*arguments, **options).take_all()
    return found


JOBS = (
    odd_rows, dying_rows, killed_actor, orders, other_orders, typed_columns, expanded, refused_key,
)  # fmt: skip


if __name__ == "__main__":
    main()
