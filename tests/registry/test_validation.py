"""What a class must be, before anybody generates with it."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from stillhouse import PluginError
from stillhouse.registry import Problem, Registry

HEAD = """
import asyncio
import functools
from collections.abc import Callable
from typing import Annotated, Any

import stillhouse
from pydantic import Field, PrivateAttr, SecretStr


class Named:
    @property
    def model_name(self):
        return "x"


class Opaque:
    pass

"""


def load(site: Any, body: str) -> Problem | None:
    """What is wrong with `FakeLLM` in a module of this body."""
    source = HEAD + textwrap.dedent(body)
    site.install_llm("plug", "plug", "plug_module", source)
    registry = Registry()
    try:
        registry.get_llm("plug")
    except PluginError:
        (found,) = site.info(registry).troubles
        return found
    return None


def line(body: str, text: str) -> int:
    """The number of the line of the module that begins with `text`."""
    lines = (HEAD + textwrap.dedent(body)).splitlines()
    return next(number for number, item in enumerate(lines, start=1) if item.strip().startswith(text))


def class_with(method: str, base: str = "AsyncLLM", fields: str = "") -> str:
    body = f"class FakeLLM(Named, stillhouse.{base}):\n"
    for part in (fields, method):
        body += textwrap.indent(textwrap.dedent(part), "    ")
    return body


GOOD = """
async def agenerate(self, input, num_generations=1):
    return {}
"""

# E203


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("FakeLLM = 3", "the entry point leads to an object of the class int"),
        ("FakeLLM = asyncio", "the entry point leads to the module asyncio"),
        ("def FakeLLM():\n    pass", "the entry point leads to the function FakeLLM (plug_module.py:20)"),
        ("class FakeLLM:\n    pass", "FakeLLM is a class of another kind (plug_module.py:20)"),
        ("FakeLLM = int", "int is a class of another kind"),
        ("FakeLLM = stillhouse.EchoLLM()", "the entry point leads to an object of the class EchoLLM"),
    ],
)
def test_entry_point_that_is_not_an_llm_class_is_refused(site: Any, body: str, cause: str) -> None:
    found = load(site, body)
    assert found is not None
    assert (found.code, found.cause) == ("E203", cause)


# E204


def test_all_abstract_members_are_named(site: Any) -> None:
    found = load(site, "class FakeLLM(stillhouse.AsyncLLM):\n    pass\n")
    assert found is not None
    assert found.code == "E204"
    assert found.cause == "FakeLLM does not implement agenerate, model_name (plug_module.py:20)"


# E205


@pytest.mark.parametrize(
    ("method", "base", "problem"),
    [
        (
            "def agenerate(self, input, num_generations=1): return {}",
            "AsyncLLM",
            "agenerate must be a coroutine",
        ),
        (
            "async def agenerate(self, input, num_generations=1): yield {}",
            "AsyncLLM",
            "agenerate must be a coroutine",
        ),
        (
            "async def generate(self, inputs, num_generations=1): return []",
            "LLM",
            "generate must not be a coroutine",
        ),
        (
            "def generate(self, inputs, num_generations=1): yield {}",
            "LLM",
            "generate yields, but must return a list",
        ),
        ("async def agenerate(self): return {}", "AsyncLLM", "agenerate takes no input"),
        ("async def agenerate(self, *, input): return {}", "AsyncLLM", "agenerate takes no input"),
        ("async def agenerate(self, input): return {}", "AsyncLLM", "agenerate takes no num_generations"),
        (
            "async def agenerate(self, input, num_generations=1, /): return {}",
            "AsyncLLM",
            "agenerate does not take num_generations by name",
        ),
        ("def generate(self, inputs): return []", "LLM", "generate takes no num_generations"),
        ("def generate(self, inputs, **kwargs): return []", "LLM", "generate takes no num_generations"),
        (
            "def generate(self, inputs, temperature=1.0, num_generations=1): return []",
            "LLM",
            "generate does not take num_generations right after inputs",
        ),
        (
            "def generate(self, inputs, *, num_generations=1): return []",
            "LLM",
            "generate does not take num_generations right after inputs",
        ),
        (
            "async def agenerate(self, input, num_generations=1, *, temperature): return {}",
            "AsyncLLM",
            "agenerate requires temperature, which nobody passes",
        ),
    ],
)
def test_a_wrong_signature(site: Any, method: str, base: str, problem: str) -> None:
    body = class_with(method, base)
    found = load(site, body)
    assert found is not None
    assert found.code == "E205"
    where = line(body, method.partition("(")[0])
    assert found.cause == f"FakeLLM.{problem} (plug_module.py:{where})"


@pytest.mark.parametrize(
    ("method", "base"),
    [
        (GOOD, "AsyncLLM"),
        ("async def agenerate(self, input, num_generations): return {}", "AsyncLLM"),
        ("async def agenerate(self, input, temperature=1.0, num_generations=1): return {}", "AsyncLLM"),
        ("async def agenerate(self, input, **kwargs): return {}", "AsyncLLM"),
        ("async def agenerate(self, *args, **kwargs): return {}", "AsyncLLM"),
        ("def generate(self, inputs, num_generations=1, **kwargs): return []", "LLM"),
        ("def generate(self, inputs, *args, **kwargs): return []", "LLM"),
        (
            "_num_generations_param_supported: bool = PrivateAttr(default=False)\n"
            "async def agenerate(self, input, temperature: float = 1.0): return {}",
            "AsyncLLM",
        ),
    ],
)
def test_a_right_signature(site: Any, method: str, base: str) -> None:
    assert load(site, class_with(method, base)) is None


ASYNC_LLM = class_with(GOOD)


@pytest.mark.parametrize("base", ["LLM", "AsyncLLM"])
@pytest.mark.parametrize(
    "method",
    [
        "async def load(self): super().load()",
        "async def unload(self): super().unload()",
        "async def offline_batch_generate(self, inputs=None, num_generations=1): return []",
        "async def get_generation_kwargs(self): return {}",
        "async def get_last_hidden_states(self, inputs): return []",
        "async def check_input(self, input): return None",
        "async def set_runtime_parameters(self, runtime_parameters): return None",
        "async def _prepare_structured_output(self, structured_output): return {}",
        "async def load(self): yield",
    ],
)
def test_member_that_nobody_awaits_is_refused(site: Any, method: str, base: str) -> None:
    own = GOOD if base == "AsyncLLM" else "def generate(self, inputs, num_generations=1): return []\n"
    body = class_with(f"{own}\n{method}\n", base)
    found = load(site, body)
    assert found is not None
    name = method.partition("(")[0].removeprefix("async def ")
    assert (found.code, found.message) == ("E205", "has a member that is not what the contract says")
    where = line(body, method.partition("(")[0])
    assert found.cause == (
        f"FakeLLM.{name} must not be a coroutine: nobody awaits it (plug_module.py:{where})"
    )
    assert found.hint.startswith(f"write it as def {name}")
    assert ("self.run_on_loop(coroutine)" in found.hint) == (base == "AsyncLLM")


def test_generate_of_an_async_llm_must_not_be_a_coroutine(site: Any) -> None:
    found = load(site, class_with(GOOD + "async def generate(self, inputs, num_generations=1): return []\n"))
    assert found is not None
    assert found.cause.startswith("FakeLLM.generate must not be a coroutine: nobody awaits it")


def test_inherited_coroutine_is_refused_in_a_subclass(site: Any) -> None:
    body = ASYNC_LLM.replace("FakeLLM", "Base") + "    async def load(self): pass\n"
    found = load(site, body + "\n\nclass FakeLLM(Base):\n    def unload(self): super().unload()\n")
    assert found is not None
    assert found.cause.startswith("FakeLLM.load must not be a coroutine")


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        ("def model_name(self): return 'x'", "model_name is a method, and must be a property"),
        ("async def model_name(self): return 'x'", "model_name is a method, and must be a property"),
        ("@classmethod\ndef model_name(cls): return 'x'", "model_name is a method, and must be a property"),
        ("@property\nasync def model_name(self): return 'x'", "model_name must not be a coroutine"),
    ],
)
def test_model_name_that_is_no_property(site: Any, member: str, problem: str) -> None:
    found = load(site, class_with(f"{GOOD}\n{member}\n").replace("Named, ", ""))
    assert found is not None
    assert found.code == "E205"
    assert found.cause.startswith(f"FakeLLM.{problem}")


@pytest.mark.parametrize(
    ("value", "problem", "hint"),
    [
        ("frozenset({'chat', 'raw-prompt'})", "has names that are not capabilities: raw-prompt", "write raw_prompt for raw-prompt"),
        ("['image', 'tool']", "has names that are not capabilities: image, tool", "write images for image"),
        ("frozenset({None, 3})", "has names that are not capabilities: 3, None", "use names of chat, choice, "),
        ("'chat'", "is the string 'chat', not a set of names", "write frozenset({'chat'})"),
    ],
)  # fmt: skip
def test_capabilities_that_do_not_exist_are_refused(site: Any, value: str, problem: str, hint: str) -> None:
    found = load(site, class_with(f"{GOOD}\ncapabilities = {value}\n"))
    assert found is not None
    assert found.code == "E205"
    assert found.cause.startswith(f"FakeLLM.capabilities {problem} (plug_module.py:")
    assert found.hint.startswith(hint)


@pytest.mark.parametrize(
    "member",
    [
        "capabilities = {'chat', 'images'}",
        "capabilities = ()",
        "@property\ndef capabilities(self): return frozenset({'chat'})",
    ],
)
def test_capabilities_of_any_collection_are_accepted(site: Any, member: str) -> None:
    assert load(site, class_with(f"{GOOD}\n{member}\n")) is None


def test_plain_load_around_a_coroutine_is_accepted(site: Any) -> None:
    method = "def load(self):\n    super().load()\n    self.run_on_loop(asyncio.sleep(0))\n"
    assert load(site, class_with(GOOD + method)) is None


# E207


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("api_key: str = ''", "holds a secret as plain text"),
        ("api_key: str | None = None", "holds a secret as plain text"),
        ("openai_api_key: str = ''", "holds a secret as plain text"),
        ("hf_token: str = ''", "holds a secret as plain text"),
        ("aws_secret_access_key: str = ''", "holds a secret as plain text"),
        ("db_password: stillhouse.RuntimeParameter[str] = ''", "holds a secret as plain text"),
        (
            "client: Opaque = Field(default_factory=Opaque)",
            "cannot be stored in a file: JSON has no form for <class 'plug_module.Opaque'>",
        ),
        ("clients: list[Opaque] = []", "cannot be stored in a file: JSON has no form for"),
        ("callback: Callable[[str], str] = str", "cannot be stored in a file: "),
    ],
)
def test_a_field_that_cannot_be_stored(site: Any, fields: str, problem: str) -> None:
    body = class_with(GOOD, fields="model: str = 'm'\n" + fields + "\n")
    found = load(site, body)
    assert found is not None
    assert found.code == "E207"
    name = fields.partition(":")[0]
    assert found.cause.startswith(f"the field {name} of FakeLLM {problem}")
    assert found.cause.endswith(f"(plug_module.py:{line(body, name)})")
    assert "arbitrary_types_allowed" not in found.cause, "that is no advice of ours"


def test_problem_field_of_a_base_class_is_located_there(site: Any) -> None:
    body = class_with(GOOD, fields="password: str = ''\n").replace("FakeLLM", "Base")
    found = load(site, body + "\n\nclass FakeLLM(Base):\n    model: str = 'm'\n")
    assert found is not None
    assert found.cause.endswith(f"(plug_module.py:{line(body, 'password')})")


def test_a_field_by_the_name_under_which_files_keep_the_backend(site: Any) -> None:
    found = load(site, class_with(GOOD, fields="llm: str = 'm'\n"))
    assert found is not None
    assert found.code == "E207"
    assert found.cause.startswith("FakeLLM has a field llm, under which files keep the backend's name")


@pytest.mark.parametrize(
    "fields",
    [
        "api_key: SecretStr | None = None",
        "headers: dict[str, SecretStr] = {}",
        "inner: stillhouse.LLM | None = None",
        "inner: list[stillhouse.LLM] = []",
        "client: Opaque = Field(default_factory=Opaque, exclude=True)",
        "_client: Opaque | None = PrivateAttr(default=None)",
        "max_tokens: int = 3",
        "eos_token: str = '</s>'",
        "tokenizer: str = 'x'",
        "api_key_variable: str = 'MY_KEY'",
        "score: Annotated[float, Field(ge=0)] = 0",
        "anything: Any = None",
    ],
)
def test_field_that_can_be_serialized_is_accepted(site: Any, fields: str) -> None:
    assert load(site, class_with(GOOD, fields=fields + "\n")) is None


def test_a_generation_parameter_that_cannot_be_described(site: Any) -> None:
    body = class_with("async def agenerate(self, input, num_generations=1, guide: Opaque | None = None): ...")
    found = load(site, body)
    assert found is not None
    assert found.code == "E207"
    assert found.cause.startswith(
        "the parameter guide of FakeLLM.agenerate cannot be described: JSON has no form for"
    )
    assert found.cause.endswith(f"(plug_module.py:{line(body, 'async def agenerate')})")
