"""Imports respect the layers, however they are written, and a third-party class type-checks."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stillhouse

from .surface import MODULES

ROOT = Path(__file__).parents[2]
PACKAGE = Path(stillhouse.__file__).parent


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Hold the sources of a checkout to `.importlinter`, without importing any of them."""
    sources = [root / "core/src", *sorted(root.glob("plugins/*/src"))]
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources)), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
    )


def test_imports_respect_the_layers_and_have_no_cycle() -> None:
    checked = lint_imports(ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 broken" in checked.stdout


AT_THE_TOP = "import stillhouse.cli.app\n"
IN_A_FUNCTION = "def later() -> None:\n    from stillhouse.cli import app\n"
FOR_A_TYPE_CHECKER = (
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stillhouse.cli.app import app\n"
)


@pytest.mark.parametrize("text", [AT_THE_TOP, IN_A_FUNCTION, FOR_A_TYPE_CHECKER])
def test_import_of_a_higher_layer_is_detected_in_any_spelling(tmp_path: Path, text: str) -> None:
    for sources in [ROOT / "core/src", *ROOT.glob("plugins/*/src")]:
        ignored = shutil.ignore_patterns("__pycache__", "templates")
        shutil.copytree(sources, tmp_path / sources.relative_to(ROOT), ignore=ignored)
    shutil.copy(ROOT / ".importlinter", tmp_path)
    with (tmp_path / "core/src/stillhouse/_settings/digest.py").open("a", encoding="utf-8") as module:
        module.write(text)
    checked = lint_imports(tmp_path)
    assert checked.returncode == 1
    assert "stillhouse._settings is not allowed to import stillhouse.cli" in checked.stdout


def test_imports_are_written_in_full() -> None:
    for path in [*PACKAGE.rglob("*.py"), *ROOT.glob("plugins/*/src/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.ImportFrom) or node.level == 0, f"{path}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_a_public_module_says_what_is_public(module: str) -> None:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    assert "__all__ = " in text


def test_top_level_module_is_public_underscored_or_has_a_public_facade() -> None:
    """What stands in the package itself, without an underscore, is public, or its face is."""
    listed = {name.split(".")[1] for name in MODULES if "." in name}
    # Their names are given by the package itself; `local`, `echo` and the command line are for users.
    elsewhere = {"async_llm", "cli", "echo", "jobs", "llm", "local", "scaffold"}
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {name for name in found if not name.startswith("_")} == listed | elsewhere


STRANGER = """
from typing import Any, ClassVar

from pydantic import PrivateAttr, SecretStr
from typing_extensions import assert_type

import stillhouse
from stillhouse import Capability, FormattedInput, GenerateOutput, GenerationError, RuntimeParameter


class MyLLM(stillhouse.AsyncLLM):
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "seed"})

    model: str
    api_key: RuntimeParameter[SecretStr] | None = None

    _client: Any = PrivateAttr(default=None)

    def load(self) -> None:
        super().load()
        self._client = object()

    @property
    def model_name(self) -> str:
        return self.model

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, temperature: float = 1.0
    ) -> GenerateOutput:
        return stillhouse.prepare_output(["x"] * num_generations, [1], finish_reasons=["stop"])


class MySyncLLM(stillhouse.LLM):
    @property
    def model_name(self) -> str:
        return "m"

    def generate(
        self, inputs: list[FormattedInput], num_generations: int = 1, seed: int | None = None
    ) -> list[GenerateOutput]:
        return []


def use() -> None:
    with MyLLM(model="m") as llm:
        assert_type(llm, MyLLM)
        outputs = llm.generate_outputs([[{"role": "user", "content": "hi"}], "raw"], temperature=0.5)
        assert_type(outputs[0]["generations"], list[str | None])
        outputs[0]["generation"]  # type: ignore[typeddict-item]
        llm.generate_outputs([5])  # type: ignore[list-item]
        for index, result in llm.iter_outputs(iter(["a"]), on_error="yield"):
            assert_type(index, int)
            if isinstance(result, GenerationError):
                assert_type(result.attempts, int)
            else:
                assert_type(result["statistics"], dict[str, list[Any]])
    assert_type(stillhouse.get_llm("echo"), type[stillhouse.LLM])
    assert_type(stillhouse.create("echo"), stillhouse.LLM)
    assert_type(MyLLM.from_dict({}), MyLLM)


async def use_from_a_coroutine(llm: MyLLM) -> None:
    assert_type(await llm.agenerate_outputs(["a"]), list[GenerateOutput])
    async for index, _ in llm.aiter_outputs(["a"]):
        assert_type(index, int)
"""


def test_third_party_llm_class_passes_strict_mypy(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    source = tmp_path / "stranger.py"
    source.write_text(STRANGER)
    settings = ["--strict", "--no-error-summary", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    output, errors, status = api.run([*settings, str(source)])
    # Strictly, a `type: ignore` that is not needed is an error too.
    assert (output, errors, status) == ("", "", 0)
