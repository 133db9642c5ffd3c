"""What every row would be refused for is said before the first one; one bad row fails alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

import stillhouse
from stillhouse import (
    AsyncLLM,
    Capability,
    FormattedInput,
    GenerateOutput,
    GenerationError,
    UnsupportedError,
    prepare_output,
)
from stillhouse.inputs import split_input

ROWS = [{"prompt": "one"}, {"prompt": "two"}]
OWN = {"messages": [{"role": "system", "content": "mine"}, {"role": "user", "content": "three"}]}


class StrictLLM(AsyncLLM):
    """A model whose template refuses system messages, or chats altogether."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "raw_prompt"})
    asked: ClassVar[list[Any]] = []

    template: str = "strict"

    @property
    def model_name(self) -> str:
        return "strict"

    def check_input(self, input: Any) -> None:
        super().check_input(input)
        content, _ = split_input(input)
        if self.template == "broken":
            raise KeyError("the check itself")
        if self.template == "down" and len(content) == 2:
            raise GenerationError("no server", kind="connection")
        if self.template.startswith("needs") and content[0]["role"] != "system":  # type: ignore[index]
            if self.template == "needs":
                raise UnsupportedError("the template needs a system message")
            raise GenerationError("the template needs a system message", kind="invalid_request")
        if isinstance(content, str):
            return
        if self.template == "short" and len(str(content)) > 300:
            raise GenerationError("too long", kind="context_length")
        if self.template == "none":
            raise UnsupportedError("the model has no chat template", hint="give --set chat_template=FILE")
        if content[0]["role"] == "system" and self.template in ("strict", "late", "short"):
            if self.template == "late":
                raise GenerationError("Conversation roles must alternate", kind="invalid_request")
            raise UnsupportedError("the template refuses the role system")

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        self.asked.append(input)
        return prepare_output(["text"])


class ChatLLM(StrictLLM):
    """The same without raw prompts."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat"})


@pytest.fixture(autouse=True)
def strict(own_registry: stillhouse.Registry) -> None:
    own_registry.register("strict", StrictLLM)
    own_registry.register("chat", ChatLLM)
    StrictLLM.asked.clear()


@pytest.mark.parametrize("output", ["out.jsonl", "-"])
@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (
            ["--llm", "strict", "--system", "Be brief"],
            "the system message of this run is refused: the template refuses the role system",
            "leave out --system",
        ),
        (
            ["--llm", "strict", "--system", "Be brief", "--set", "template=late"],
            "the system message of this run is refused: Conversation roles must alternate",
            "leave out --system",
        ),
        (
            ["--llm", "strict", "--set", "template=none"],
            "no row of this run can be generated for: the model has no chat template",
            "give --set chat_template=FILE; --raw sends texts as they are",
        ),
        (
            ["--llm", "strict", "--set", "template=none", "--system", "Be brief"],
            "no row of this run can be generated for: the model has no chat template",
            "give --set chat_template=FILE; --raw sends texts as they are",
        ),
        (
            ["--llm", "strict", "--system", "x" * 300, "--set", "template=short"],
            "the system message of this run is refused: too long",
            "leave out --system",
        ),
        (
            ["--llm", "strict", "--set", "template=needs"],
            "no row of this run can be generated for: the template needs a system message",
            "",
        ),
        (
            ["--llm", "chat", "--raw"],
            "no row of this run can be generated for: ChatLLM lacks the capability raw_prompt",
            "leave out --raw",
        ),
    ],
)
def test_a_run_that_no_row_can_pass_stops_before_the_first(
    run: Any, rows_file: Any, tmp_path: Path, output: str, options: list[str], message: str, hint: str
) -> None:
    target = output if output == "-" else tmp_path / output
    result = run("generate", rows_file(ROWS), "-o", target, *options)
    assert result.status == 1
    assert f"error: {message}" in result.err
    assert hint in result.err
    assert "Traceback" not in result.err
    assert (StrictLLM.asked, result.out) == ([], "")
    if output != "-":  # it can be mended, and the same output be used
        assert run("generate", rows_file(ROWS), "-o", target, "--llm", "strict").status == 0


def test_the_system_message_of_one_row_is_that_row_s_matter(
    run: Any, rows_file: Any, read: Any, tmp_path: Path
) -> None:
    source = rows_file([ROWS[0], OWN, ROWS[1]])
    assert run("generate", source, "-o", tmp_path / "out.jsonl", "--llm", "strict").status == 3
    rows = read(tmp_path / "out.jsonl")
    assert [row["error"] and row["error"]["message"] for row in rows] == [
        None, "the template refuses the role system", None,
    ]  # fmt: skip


def test_a_check_that_breaks_stops_no_run(run: Any, rows_file: Any, read: Any, tmp_path: Path) -> None:
    options = ["--llm", "strict", "--set", "template=broken"]
    assert run("generate", rows_file(ROWS), "-o", tmp_path / "out.jsonl", *options).status == 3
    assert "the check itself" in read(tmp_path / "out.jsonl")[0]["error"]["message"]


@pytest.mark.parametrize(
    ("template", "system"), [("needs", True), ("needs-late", True), ("needs-late", False), ("down", True)]
)
def test_what_a_row_may_mend_or_a_moment_stops_no_run(
    run: Any, rows_file: Any, read: Any, tmp_path: Path, template: str, system: bool
) -> None:
    """Where the template needs a system message, that of the run or of a row is one."""
    options = ["--llm", "strict", "--set", f"template={template}", *(["--system", "Be brief"] * system)]
    run("generate", rows_file([ROWS[0], OWN]), "-o", tmp_path / "out.jsonl", *options)
    first, second = (row["error"] for row in read(tmp_path / "out.jsonl"))
    if template == "down":
        assert first["kind"] == second["kind"] == "connection"
    else:
        assert (first is None, second) == (system, None)


def test_a_raw_run_needs_no_chat_template(run: Any, rows_file: Any, tmp_path: Path) -> None:
    options = ["--llm", "strict", "--set", "template=none", "--raw"]
    assert run("generate", rows_file(ROWS), "-o", tmp_path / "out.jsonl", *options).status == 0
    assert StrictLLM.asked == ["one", "two"]
