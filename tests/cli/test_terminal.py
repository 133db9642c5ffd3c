"""What comes from a model, a server or a file is shown on a terminal, and never done."""

from __future__ import annotations

import base64
import functools
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stillhouse.cli.streams import Stream, shown

from .conftest import write_rows
from .test_signals import PATIENCE

pytest.importorskip("pty", reason="this system has no pseudo-terminals")

BACKENDS = Path(__file__).with_name("odd_backends.py")

# A title, a cleared screen, the clipboard, a link, the same with C1, and a text that turns around.
ODD = (
    "a\x1b]0;title\x07b\x1b[2Jc\x1b]52;c;ZXZpbA==\x07\x1b]8;;http://x\x1b\\d\x9b2Je\x08\x7f\x85\u202ef\u2066"
)

CONTROLS = [chr(code) for code in (*range(1, 9), *range(11, 32), *range(127, 160))] + list(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)

# What rich sends: colours, the cursor shown and hidden, a line erased, a line up.
_OURS = re.compile("\x1b\\[[0-9;]*m|\x1b\\[\\?25[lh]|\x1b\\[2K|\x1b\\[1A")


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(BACKENDS), "--nursery"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    yield process
    process.communicate("", timeout=PATIENCE)


Called = Callable[..., tuple[int, str]]


@pytest.fixture
def call(nursery: subprocess.Popen[str], tmp_path: Path) -> Called:
    """Run a command with a pipe for both its streams, and return its status and what it printed."""

    def call(
        *arguments: object, encoding: str = "utf-8", terminal: bool = False, path: Sequence[Path] = ()
    ) -> tuple[int, str]:
        order = {
            "arguments": list(map(str, arguments)), "encoding": encoding, "terminal": terminal,
            "folder": str(tmp_path), "path": list(map(str, path)),
        }  # fmt: skip
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        nursery.stdin.write(json.dumps(order) + "\n")
        nursery.stdin.flush()
        status, printed = json.loads(nursery.stdout.readline())
        return status, base64.b64decode(printed).decode(encoding)

    return call


@pytest.fixture
def on_terminal(call: Called) -> Called:
    """Run a command on a terminal of its own, and return its status and all that the terminal got."""
    return functools.partial(call, terminal=True)


def check_shown(text: str) -> None:
    """Nothing but lines, tabs and what rich sends."""
    left = _OURS.sub("", text).replace("\r\n", "\n")
    found = {character for character in left if shown(character) != character} - {"\r"}
    assert not found, (sorted(map(ascii, found)), ascii(left))
    # Only rich goes back to the beginning of a line, to erase it.
    assert not re.search("\r(?![\n\x1b])", text), ascii(text)


def odd_texts(count: int) -> list[str]:
    """Return texts with control characters at random places, always the same ones."""
    chance = random.Random(16)
    return [
        "".join(
            chance.choice(CONTROLS) if chance.random() < 0.5 else chance.choice("ab[]0;m") for _ in range(12)
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    "how", ["answer", "reason", "error", "stop", "log", "warning", "print", "refusal", "bug"]
)
def test_whatever_a_backend_says_is_shown(on_terminal: Called, tmp_path: Path, how: str) -> None:
    for number, text in enumerate([ODD, *odd_texts(1)]):
        source = write_rows(tmp_path / f"{number}.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
        settings = ["--llm", "saying", "--set", f"model={text}", "--set", f"how={how}"]
        for rest in (
            ["--prompt", "a"],
            [source, "-o", "-"],
            [source, "-o", tmp_path / f"{number}.out.jsonl"],
        ):
            _, got = on_terminal("generate", *rest, *settings)
            check_shown(got)
            if "--prompt" in rest and how == "answer":
                assert shown(text) in got


@pytest.mark.parametrize(
    "arguments",
    [
        ["ODD"],
        ["--ODD"],
        ["list", "ODD"],
        ["show", "ODD"],
        ["check", "ODD"],
        ["models", "ODD"],
        ["models", "saying", "--set", "model=ODD"],
        ["models", "saying", "--set", "model=ODD", "--json"],
        ["models", "saying", "ODD"],
        ["models", "saying", "--set", "ODD=1"],
        ["status", "ODD.jsonl"],
        ["report", "ODD.jsonl"],
        ["report", "ODD.jsonl", "-o", "ODD"],
        ["batches", "ODD.jsonl"],
        ["new", "ODD"],
        ["new", "x", "--into", "ODD"],
        ["generate", "ODD.jsonl", "--llm", "echo", "-o", "out.jsonl"],
        ["generate", "ODD", "--llm", "echo", "-o", "out.jsonl"],
        ["generate", "in.jsonl", "--llm", "ODD", "-o", "out.jsonl"],
        ["generate", "in.jsonl", "--llm", "echo:ODD", "-o", "out.jsonl"],
        ["generate", "in.jsonl", "--llm", "echo", "-o", "ODD"],
        ["generate", "in.jsonl", "--llm", "echo", "-o", "out.jsonl", "--set", "ODD=ODD"],
        ["generate", "in.jsonl", "--llm", "echo", "-o", "out.jsonl", "--set", "latency=ODD"],
        ["generate", "in.jsonl", "--llm", "echo", "-o", "out.jsonl", "--param", "ODD=ODD"],
        ["generate", "in.jsonl", "--llm", "echo", "-o", "out.jsonl", "--retry", "ODD"],
        ["generate", "in.jsonl", "--llm", "echo", "-o", "out.jsonl", "--limit", "ODD"],
        ["generate", "in.jsonl", "--llm", "echo", "-o", "out.jsonl", "--template", "{{ ODD"],
        ["generate", "in.jsonl", "--config", "ODD.json", "-o", "out.jsonl"],
        ["generate", "in.jsonl", "--config", "odd.yaml", "-o", "out.jsonl"],
        ["generate", "odd.jsonl", "--llm", "echo", "-o", "odd-out.jsonl"],
        ["generate", "--prompt", "ODD", "--llm", "echo"],
    ],
    ids=" ".join,
)
def test_whatever_is_given_or_read_is_shown(
    on_terminal: Called, tmp_path: Path, arguments: list[str]
) -> None:
    odd = ODD.replace("/", "")
    write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}])
    write_rows(tmp_path / "odd.jsonl", [{"prompt": 5, ODD: ODD}, f'{{"prompt": "{ODD}', {ODD: 1}])
    (tmp_path / "odd.yaml").write_text(json.dumps({"llm": ODD, ODD: ODD}))
    _, got = on_terminal(*(argument.replace("ODD", odd) for argument in arguments))
    check_shown(got)


def test_the_names_of_files_are_shown(on_terminal: Called, tmp_path: Path) -> None:
    name = f"{ODD.replace('/', '')}.jsonl"
    write_rows(tmp_path / name, [{"prompt": "a"}])
    output = f"out-{name}"
    for arguments in (
        ["generate", name, "--llm", "echo", "-o", output],
        ["generate", name, "--llm", "echo", "-o", output],
        ["status", output],
        ["status", output, "--json"],
        ["batches", output],
        ["report", output],
    ):
        status, got = on_terminal(*arguments)
        check_shown(got)
        assert status == 0, ascii(got)


def test_whatever_the_metadata_of_a_plugin_says_is_shown(on_terminal: Called, tmp_path: Path) -> None:
    odd = ODD.replace("\x85", "")  # the end of a line in an e-mail's header
    package = tmp_path / "odd-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: odd\nVersion: 1.0{odd}\nSummary: {odd}\n"
    )
    (package / "entry_points.txt").write_text(
        "[stillhouse.llms]\nodd = odd_plugin:OddLLM\nodder = odd_plugin:None\n"
    )
    (tmp_path / "odd_plugin.py").write_text(
        f"""
import stillhouse
class OddLLM(stillhouse.LLM):
    {("A backend. " + odd)!r}
    model: str = stillhouse.llm.Field(default={odd!r}, description={odd!r})
    @property
    def model_name(self): return self.model
    def generate(self, inputs, num_generations: int = 1, odd: str = {odd!r}): ...
""".replace("stillhouse.llm.Field", "__import__('pydantic').Field")
    )
    for arguments in (
        ["list"], ["list", "--json"], ["list", "--requirements"], ["show", "odd"], ["show", "odd", "--json"],
        ["show", "odder"], ["check"], ["check", "--json"], ["check", "--traceback"],
    ):  # fmt: skip
        _, got = on_terminal(*arguments, path=[tmp_path])
        check_shown(got)


def test_json_on_a_terminal_stays_json(on_terminal: Called) -> None:
    status, got = on_terminal("models", "saying", "--set", "model=\x9b\x7f\u202e", "--json")
    assert status == 0
    json.loads(got)


def test_rows_on_a_terminal_stay_json(on_terminal: Called, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": ODD}])
    status, got = on_terminal("generate", source, "--llm", "echo", "-o", "-")
    (row,) = [json.loads(line) for line in _OURS.sub("", got).splitlines() if "generations" in line]
    assert (status, row["generations"]) == (0, [ODD])


def test_a_pipe_gets_the_generations_as_they_are(call: Called) -> None:
    assert call("generate", "--prompt", ODD, "--llm", "echo") == (0, f"{ODD}\n")


class Written(list[str]):
    def write(self, text: str) -> None:
        self.append(text)

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        pass


def test_a_progress_bar_of_a_library_stays_one_and_nothing_else_goes_back() -> None:
    written: Any = Written()
    stream = Stream(written, is_error=True)
    for text in ("\r 10%", "\r 20%", "\r     \r", "\n", "said: ", "\rover", "\n", "whole\rline\n"):
        stream.write(text)
    assert written == [
        "\r 10%", "\r 20%", "\r     \r", "\n", "said: ", "\\x0dover", "\n", "whole\\x0dline\n",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--prompt", "é ☃ 😀", "--llm", "echo"],
        ["show", "saying"],
        ["show", "saying", "--json"],
        ["list"],
        ["list", "--json"],
        ["models", "saying", "--set", "model=é ☃ 😀"],
        ["models", "saying", "--set", "model=é ☃ 😀", "--json"],
        ["--help"],
        ["generate", "--help"],
    ],
    ids=" ".join,
)
def test_what_the_encoding_lacks_is_replaced(call: Called, encoding: str, arguments: list[str]) -> None:
    status, text = call(*arguments, encoding=encoding)
    assert (status, "Traceback" in text) == (0, False), text
    if "--json" in arguments:
        json.loads(text)
        assert "models" not in arguments or "☃" in json.dumps(json.loads(text), ensure_ascii=False)


def test_what_the_environments_encoding_lacks_is_replaced() -> None:
    result = subprocess.run(
        [sys.executable, str(BACKENDS), "generate", "--prompt", "é ☃", "--llm", "echo"],
        capture_output=True, timeout=PATIENCE, env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "é \\u2603\n".encode("cp1252"), b"")


@pytest.mark.parametrize("error", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("generate in.jsonl --llm echo -o out.jsonl", 0),
        ("generate in.jsonl --llm echo -o -", 0),
        ("generate --prompt a --llm echo", 0),
        ("generate none.jsonl --llm echo -o out.jsonl", 1),
        ("generate in.jsonl --llm echo -o out.jsonl --limit 0", 2),
        ("show none", 1),
        ("list", 0),
    ],
)
def test_a_standard_error_that_cannot_be_written_changes_nothing(
    tmp_path: Path, error: str, arguments: str, status: int
) -> None:
    if error.endswith("full") and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}])
    result = in_shell(tmp_path, f"{arguments} {error}")
    assert result.returncode == status
    if "-o -" in arguments:
        assert [json.loads(line)["generations"] for line in result.stdout.splitlines()] == [["a"]]
    if "out.jsonl" in arguments and status == 0:
        assert (tmp_path / "out.jsonl").exists()


def in_shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} {BACKENDS} {line}"],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("list", 0),
        ("show echo", 0),
        ("check none", 1),
        ("generate --help", 0),
        ("generate in.jsonl --llm echo -o -", 0),
        ("generate in.jsonl --llm saying --set how=error --max-failures 0 -o -", 3),
    ],
)
@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_has_enough_changes_neither_status_nor_messages(
    tmp_path: Path, arguments: str, status: int, reader: str
) -> None:
    write_rows(tmp_path / "in.jsonl", [{"prompt": "a" * 500}] * 300)
    result = in_shell(tmp_path, f"{arguments} | {reader}")
    assert result.returncode == status, result.stderr
    assert "Broken pipe" not in result.stderr
    assert "Traceback" not in result.stderr
    if arguments.startswith("generate in.jsonl --llm echo"):
        assert result.stderr == ""


@pytest.mark.parametrize(
    "arguments", ["list", "--version", "generate --prompt a --llm echo", "generate in.jsonl --llm echo -o -"]
)
@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_a_standard_output_that_cannot_be_written_is_an_error(
    tmp_path: Path, arguments: str, output: str
) -> None:
    if output.endswith("full") and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}])
    result = in_shell(tmp_path, f"{arguments} {output}")
    assert result.returncode == 1, result.stderr
    assert "error: standard output " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("output", ["-o -", "-o out.jsonl"])
def test_a_standard_input_that_is_closed_is_told(tmp_path: Path, output: str) -> None:
    result = in_shell(tmp_path, f"generate - --llm echo {output} <&-")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines()[0] == "error: standard input is closed"


def test_a_file_is_read_while_standard_input_is_closed(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}])
    assert in_shell(tmp_path, "generate in.jsonl --llm echo -o out.jsonl <&-").returncode == 0


def test_the_module_is_the_command(tmp_path: Path) -> None:
    def called(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stillhouse", *arguments], capture_output=True, text=True, timeout=PATIENCE
        )

    assert called("generate", "--prompt", "hi", "--llm", "echo").stdout == "hi\n"
    assert called("--help").stdout.startswith("Usage: python -m stillhouse [OPTIONS] COMMAND")
    wrong = called("show")
    assert (wrong.returncode, "python -m stillhouse show --help" in wrong.stderr) == (2, True)
