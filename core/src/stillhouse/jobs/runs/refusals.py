"""`check_run`: what every row of a run would be refused for is said before the first one."""

from __future__ import annotations

from typing import Any

from stillhouse.errors import ConfigurationError, GenerationError, StillhouseError
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.llm import LLM
from stillhouse.protocols import Executor

__all__ = ["check_run"]

_TEXT = "Hello"

# The kinds of errors that will be met again.
_REFUSED = ("invalid_request", "context_length")

_NO_ROW = "no row of this run can be generated for"


def check_run(llm: LLM, formatter: RowFormatter, executor: Executor) -> None:
    """Ask about a short input in the form that the rows of the run will have.

    What only the content of a row can show, such as a system message of its own, is that row's matter.

    Args:
        llm: the LLM.
        formatter: what turns the rows into inputs.
        executor: what will generate, and is asked: the LLM itself if it is loaded.

    Raises:
        ConfigurationError: the LLM refuses raw prompts, chats, the system message of the run, or the
            form that its answers shall have.
    """
    if formatter.raw:
        _refuse(_refusal(executor, _TEXT), _NO_ROW, "leave out --raw")
        return
    chat: list[Any] = [{"role": "user", "content": _TEXT}]
    if formatter.form is not None and _refusal(executor, chat) is None:
        form = _refusal(executor, (chat, formatter.form))
        _refuse(form, "the schema of this run is refused", "give another --schema, or leave it out")
    with_system = None
    if formatter.system is not None:
        with_system = _refusal(executor, [{"role": "system", "content": formatter.system}, *chat])
        if with_system is None:  # a template may need one
            return
    without = _refusal(executor, chat)
    if without is None:
        _refuse(with_system, "the system message of this run is refused", "leave out --system")
    elif not isinstance(without, GenerationError):  # else it may be the text that it does not take
        _refuse(without, _NO_ROW, "--raw sends texts as they are" if "raw_prompt" in llm.capabilities else "")


def _refusal(executor: Executor, input: Any) -> StillhouseError | None:
    """Return why no such input is taken; `None` if it is, or if the check itself failed."""
    try:
        executor.check_input(input)
    except GenerationError as error:
        return error if error.kind in _REFUSED else None
    except StillhouseError as error:
        return error
    except Exception:  # what a check did not mean to raise, the first row will meet too, or not
        return None
    return None


def _refuse(error: StillhouseError | None, problem: str, way_out: str) -> None:
    if error is not None:
        ways = [way for way in (error.hint, way_out) if way]
        raise ConfigurationError(f"{problem}: {error.message}", hint="; ".join(ways)) from error
