"""`check_run`: what every row of a run would be refused for is said before the first one."""

from __future__ import annotations

from typing import Any

from stillhouse.errors import ConfigurationError, StillhouseError
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.llm import LLM

__all__ = ["check_run"]

_TEXT = "Hello"

_NO_ROW = "no row of this run can be generated for"


def check_run(llm: LLM, formatter: RowFormatter) -> None:
    """Ask the LLM about a short input in the form that the rows of the run will have.

    What only the content of a row can show, such as a system message of its own, is that row's matter.

    Args:
        llm: the LLM, loaded.
        formatter: what turns the rows into inputs.

    Raises:
        ConfigurationError: the LLM refuses raw prompts, chats, the system message of the run, or the
            form that its answers shall have.
    """
    if formatter.raw:
        _ask(llm, _TEXT, _NO_ROW, "leave out --raw")
        return
    chat = [{"role": "user", "content": _TEXT}]
    _ask(llm, chat, _NO_ROW, "--raw sends texts as they are" if "raw_prompt" in llm.capabilities else "")
    if formatter.system is not None:
        _ask(
            llm,
            [{"role": "system", "content": formatter.system}, *chat],
            "the system message of this run is refused",
            "leave out --system",
        )


def _ask(llm: LLM, input: Any, problem: str, way_out: str) -> None:
    try:
        llm.check_input(input)
    except StillhouseError as error:
        ways = [way for way in (error.hint, way_out) if way]
        raise ConfigurationError(f"{problem}: {error.message}", hint="; ".join(ways)) from error
    except Exception:  # what a check did not mean to raise, the first row will meet too, or not
        return
