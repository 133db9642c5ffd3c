"""Worker processes: each loads the model, and the output is that of one process."""

import json
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse_llamacpp import LlamaCppLLM

ROWS = 3
SCHEMA = {
    "type": "object",
    "properties": {"big": {"type": "boolean"}},
    "required": ["big"],
    "additionalProperties": False,
}


@pytest.mark.model
@pytest.mark.parametrize("schema", [None, SCHEMA], ids=["text", "schema"])
def test_workers_write_what_one_process_writes(schema: dict[str, Any] | None, tmp_path: Path) -> None:
    source = [{"prompt": f"Name {number + 1} rivers in Peru."} for number in range(ROWS)]
    written = []
    for name, more in (("one.jsonl", {}), ("workers.jsonl", {"executor": "processes", "workers": 2})):
        output = tmp_path / name
        stillhouse.run(
            source,
            # One slot: texts that are computed side by side differ in their last digits.
            llm=LlamaCppLLM(parallel=1, n_ctx=512, n_threads=1),
            output=output,
            schema=schema,
            num_generations=2,
            param={"max_new_tokens": 16, "temperature": 0.0, "seed": 1},
            max_failures=0,
            show_bar=False,
            **more,
        )
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        for row in rows:
            del row["statistics"]["cached_tokens"]  # of prompts that this engine, one of two, has read before
        written.append(rows)
    assert written[0] == written[1]
    assert [row["prompt"] for row in written[0]] == [row["prompt"] for row in source]
    for row in written[0]:
        assert len(row["generations"]) == 2
        assert schema is None or all(type(json.loads(text)["big"]) is bool for text in row["generations"])
