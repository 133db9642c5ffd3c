"""Tables at every width: no name is broken, and styles in a pipe where somebody asks for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stillhouse.cli import layout

from .terminals import on_pty, plain

SHOWING = """
from stillhouse.cli import layout
from stillhouse.cli.standard import own_standard_output, wrapped
own_standard_output()
with wrapped():
    layout.print_table(("NAME", "STATUS", "PACKAGE", "SUMMARY"), [
        ("inference-endpoints", "loaded", "stillhouse-inference-endpoints 0.1.0", "Inference providers, and more"),
        ("echo", "failed E201", "stillhouse 0.1.0", ""),
    ])
"""

STACKED = """\
NAME  STATUS
    PACKAGE
    SUMMARY
inference-endpoints  loaded
    stillhouse-inference-endpoints
    0.1.0
    Inference providers, and more
echo  failed E201
    stillhouse 0.1.0
"""

NAMES = ("inference-endpoints", "stillhouse-inference-endpoints", "failed", "Inference", "providers,")


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120])
@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}], ids=str)
def test_no_word_of_a_table_is_broken(tmp_path: Path, columns: int, environment: dict[str, str]) -> None:
    status, got = on_pty(["-c", SHOWING], tmp_path, columns, **environment)
    text = plain(got)
    assert status == 0, got
    for name in NAMES:
        assert re.search(rf"(?<!\S){re.escape(name)}(?!\S)", text), (name, text)
    if columns == 40:
        assert text == STACKED
    # A word that is wider than the terminal is the only thing that goes beyond it.
    assert all(len(line.strip()) <= columns or " " not in line.strip() for line in text.splitlines()), text
    assert bool(re.search("\x1b\\[[0-9;]*m", got)) is (not environment)


def test_the_terminal_of_the_output_counts_and_not_that_of_the_messages(tmp_path: Path) -> None:
    script = "import os; os.dup2(os.open(os.devnull, os.O_WRONLY), 2)\n" + SHOWING
    assert plain(on_pty(["-c", script], tmp_path, 40)[1]) == STACKED


class _Piped:
    """Standard output in a pipe, as a command sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    def shows(self, rows: Sequence[Sequence[str]], capfd: Any) -> str:
        from stillhouse.cli.standard import wrapped

        with wrapped():
            layout.print_table(("NAME", "STATUS"), rows)
        text: str = capfd.readouterr().out
        return text


ROWS = [("echo", "loaded"), ("\x1b]0;t\x07", "failed")]


def test_a_pipe_gets_styles_where_force_color_is_set_and_no_color_wins(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    forced = _Piped(monkeypatch, FORCE_COLOR="1", TERM="dumb").shows(ROWS, capfd)
    assert "\x1b[1mNAME" in forced
    assert "\x1b[32mloaded\x1b[0m" in forced
    assert "\x1b[31mfailed\x1b[0m" in forced
    # Whatever shows the styles would also do what comes from elsewhere.
    assert "\x1b]0;" not in forced
    bare = [line.rstrip() for line in re.sub("\x1b\\[[0-9;]*m", "", forced).splitlines()]
    assert bare == ["NAME          STATUS", "echo          loaded", "\\x1b]0;t\\x07  failed"]
    for environment in ({"FORCE_COLOR": ""}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}):
        text = _Piped(monkeypatch, **environment).shows(ROWS[:1], capfd)
        assert text == "NAME  STATUS\necho  loaded\n"
