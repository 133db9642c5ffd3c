"""`import stillhouse`, and its whole contract, against `import pydantic`; budget 1.3.

Each import is a process of its own; a process that imports nothing is subtracted from both.
"""

from __future__ import annotations

import argparse
import sys

from measure import alternate, command_seconds, machine, median, print_rows

STATEMENTS = {
    "nothing": "pass",
    "import pydantic, with a model": "import pydantic; pydantic.BaseModel",
    "import stillhouse": "import stillhouse",
    "import stillhouse, with LLM and AsyncLLM": "import stillhouse; stillhouse.AsyncLLM",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    print(machine())
    readings = alternate(
        {
            name: lambda statement=statement: command_seconds([sys.executable, "-c", statement])
            for name, statement in STATEMENTS.items()
        },
        arguments.rounds,
    )
    print_rows("time of the whole process", readings, "ms", 1000)
    nothing = median(readings["nothing"])
    base = median(readings["import pydantic, with a model"]) - nothing
    for name in list(STATEMENTS)[2:]:
        print(f"{name}, against pydantic: {(median(readings[name]) - nothing) / base:.2f} (budget 1.3)")


if __name__ == "__main__":
    main()
