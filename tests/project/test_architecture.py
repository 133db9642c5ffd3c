"""Imports run one way, and a stranger's class types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import stillhouse

PACKAGE = Path(stillhouse.__file__).parent
MODULES = {
    ".".join(("stillhouse", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

# Each may import what stands on a line before its own. Those on one line may import each other, but
# not in a circle.
LAYERS = [
    {"errors", "hookspecs", "typing"},
    {
        "answers", "call", "cuda", "drive", "inputs", "instructor", "ledger", "lifecycle", "loop", "magpie",
        "offline", "outputs", "parameters", "results", "serialization", "structured", "window",
    },
    {"llm"},
    {"async_llm"},
    {"describe", "echo", "http"},
    {"registry"},
    {"jobs", "scaffold", "testing"},
    {"cli"},
]  # fmt: skip


def imports(path: Path, *, lazy: bool) -> set[str]:
    """The modules of the core that a module imports when it runs; `lazy`: also in its functions."""

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and not lazy:
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: write imports in full"
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    yield full if full in MODULES else child.module or ""
            yield from visit(child)

    return set(visit(ast.parse(path.read_text(encoding="utf-8"))))


def layer(module: str) -> int | None:
    """The line on which a module of the core stands; `None` for the package itself and for others."""
    package, _, rest = module.partition(".")
    if package != "stillhouse" or not rest:
        return None
    top = rest.partition(".")[0]
    (found,) = [number for number, names in enumerate(LAYERS) if top in names] or [-1]
    assert found >= 0, f"{module} has no place in the layers"
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_one_way(module: str) -> None:
    own = layer(module)
    for imported in imports(MODULES[module], lazy=False):
        theirs = layer(imported)
        if own is None:
            assert theirs is None, f"{module} imports {imported} before anybody asked for it"
        elif theirs is not None and not imported.startswith("stillhouse.registry."):
            assert theirs <= own, f"{module} imports {imported}"


def test_there_is_no_circle() -> None:
    graph = {module: imports(path, lazy=False) & MODULES.keys() for module, path in MODULES.items()}
    while graph:
        free = [module for module, needs in graph.items() if not (needs - {module}) & graph.keys()]
        assert free, f"these import each other: {sorted(graph)}"
        for module in free:
            del graph[module]


def test_the_registry_knows_the_contract_only_inside_validation() -> None:
    contract = {f"stillhouse.{name}" for number in (2, 3) for name in LAYERS[number]}
    for module, path in MODULES.items():
        if module.startswith("stillhouse.registry") and module != "stillhouse.registry.validation":
            assert not imports(path, lazy=True) & contract, module


def test_only_the_command_line_knows_the_command_line_and_only_it_knows_jobs() -> None:
    for module, path in MODULES.items():
        for imported in imports(path, lazy=True):
            if imported.startswith("stillhouse.cli"):
                assert module.startswith("stillhouse.cli"), module
            if imported.startswith("stillhouse.jobs"):
                assert module.startswith(("stillhouse.cli", "stillhouse.jobs")), module


def test_only_the_kit_knows_the_kit_and_pytest() -> None:
    for module, path in MODULES.items():
        if not module.startswith("stillhouse.testing"):
            known = imports(path, lazy=True)
            assert not [name for name in known if name.startswith(("stillhouse.testing", "pytest"))], module


def test_the_core_imports_no_plugin() -> None:
    for module, path in MODULES.items():
        for imported in imports(path, lazy=True):
            assert not imported.startswith("stillhouse_"), f"{module} imports {imported}"


def test_a_module_says_what_is_public() -> None:
    for name in ("llm", "async_llm", "window", "drive", "loop", "lifecycle", "call", "outputs", "inputs",
                 "parameters", "results", "serialization", "structured", "offline", "magpie", "cuda", "echo", "errors",
                 "typing"):  # fmt: skip
        text = MODULES[f"stillhouse.{name}"].read_text(encoding="utf-8")
        assert "__all__ = [" in text, name


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


def test_a_strangers_class_types_strictly(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    source = tmp_path / "stranger.py"
    source.write_text(STRANGER)
    settings = ["--strict", "--no-error-summary", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    output, errors, status = api.run([*settings, str(source)])
    # Strictly, a `type: ignore` that is not needed is an error too.
    assert (output, errors, status) == ("", "", 0)
