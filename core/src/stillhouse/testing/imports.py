"""What a plugin requires, imports and costs: looked at in its metadata, and in a process of its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from packaging.requirements import Requirement

from stillhouse.registry.candidates import Candidate
from stillhouse.testing.rule import Broken, expect, warn

__all__ = ["check_quick", "check_range", "heavy_imports", "module_of"]

_SLOW_SECONDS = 0.5

# What takes long to import, or belongs to an engine or a client.
_HEAVY = (
    "aiohttp", "anthropic", "boto3", "cohere", "google.genai", "groq", "httpx", "huggingface_hub",
    "instructor", "jax", "litellm", "llama_cpp", "mistralai", "mlx", "mlx_lm", "numpy", "onnxruntime",
    "openai", "outlines", "pandas", "pyarrow", "requests", "scipy", "tensorflow", "tokenizers", "torch",
    "transformers", "vllm", "xllamacpp",
)  # fmt: skip

# Imports a module in a process of its own and reports what that imported and cost. CPU time: other
# programs on the machine do not count.
_PROBE = """
import json, sys, time
import stillhouse.async_llm, stillhouse.registry.registry
before, began = set(sys.modules), time.process_time()
__import__(sys.argv[1])
seconds = time.process_time() - began
print(json.dumps({"seconds": seconds, "modules": sorted(set(sys.modules) - before)}))
"""


def module_of(candidate: Candidate) -> str:
    """Return the module that an entry point names."""
    return candidate.value.partition(":")[0].strip()


def check_range(candidate: Candidate, core_version: str) -> None:
    """Break the rule unless a distribution requires the core in a range that the installed one is in."""
    if candidate.distribution == "stillhouse":
        pytest.skip("it is part of the core")
    parsed = [Requirement(line) for line in candidate.requires]
    own = [
        item
        for item in parsed
        if item.name == "stillhouse" and not (item.marker and "extra" in str(item.marker))
    ]
    expect(own, f"{candidate.package} does not require stillhouse")
    operators = {specifier.operator for item in own for specifier in item.specifier}
    lower, upper = operators & {">=", ">", "==", "~="}, operators & {"<", "<=", "==", "~="}
    expect(lower and upper, f"it requires {own[0]}, which has no {'upper' if lower else 'lower'} bound")
    fits = all(item.specifier.contains(core_version, prereleases=True) for item in own)
    expect(fits, f"it requires {own[0]}, and stillhouse {core_version} is installed")


def check_quick(module: str) -> None:
    """Warn of a module that takes long to import."""
    seconds = _import_in_a_process(module)["seconds"]
    if seconds > _SLOW_SECONDS:
        warn(f"importing {module} took {seconds * 1000:.0f} ms of CPU time")


def heavy_imports(module: str) -> list[str]:
    """List the engines, SDKs and HTTP clients that importing a module imports."""
    imported = set(_import_in_a_process(module)["modules"])
    return [name for name in _HEAVY if name in imported]


@functools.cache
def _import_in_a_process(module: str) -> Any:
    path = os.pathsep.join(item or "." for item in sys.path)
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _PROBE, module],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise Broken(f"in a process of its own it cannot be imported: {result.stderr.strip()[-300:]}")
    return json.loads(result.stdout.splitlines()[-1])
