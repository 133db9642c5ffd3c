"""`list_models` of the contract, and the kit's rule on it."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse import LLM, EchoLLM, UnsupportedError
from stillhouse._settings.models import problem_in
from stillhouse.testing import LLMConformance


def test_backend_without_a_list_says_what_to_do() -> None:
    with pytest.raises(
        UnsupportedError, match=r"EchoLLM lists no models\n  try  look the name of a model up"
    ):
        EchoLLM().list_models()


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ([], ""),
        ([{"name": "m"}], ""),
        ([{"name": "m", "context_length": 5, "max_new_tokens": 1, "created": "2025-08-05", "input_price": 0, "output_price": 2.5}], ""),
        ([{"name": "m", "created": "2025-08-05T10:00:00+02:00"}], ""),
        (({"name": "m"},), "it is a tuple"),
        (["m"], "no name"),
        ([{"id": "m"}], "no name"),
        ([{"name": "a\x1b[2J"}], "no name that can be printed"),
        ([{"name": " m"}], "has the name ' m'"),
        ([{"name": "m", "owned_by": "me"}], "has the key 'owned_by'"),
        ([{"name": "m", "context_length": "5"}], "has the context_length '5'"),
        ([{"name": "m", "context_length": None}], "has the context_length 'None'"),
        ([{"name": "m", "context_length": 0}], "has the context_length '0'"),
        ([{"name": "m", "created": 1754425928}], "has the created '1754425928'"),
        ([{"name": "m", "created": "August"}], "has the created 'August'"),
        ([{"name": "m", "input_price": -1}], "has the input_price '-1'"),
        ([{"name": "m", "output_price": float("nan")}], "has the output_price 'nan'"),
        ([{"name": "m"}, {"name": "m"}], "twice"),
    ],
)  # fmt: skip
def test_a_list_is_well_formed_or_the_problem_is_named(models: Any, problem: str) -> None:
    found = problem_in(models)
    assert problem in found
    assert bool(found) == bool(problem)


class Silent(EchoLLM):
    def list_models(self) -> Any:
        raise UnsupportedError("no")


class Wrong(EchoLLM):
    def list_models(self) -> Any:
        return ["m"]


@pytest.mark.parametrize(
    ("backend", "seen"), [(Silent, "does not say what to do"), (Wrong, "no name that can be printed")]
)
def test_the_kit_says_what_is_wrong(backend: type[LLM], seen: str, monkeypatch: Any) -> None:
    suite: Any = type("TestMine", (LLMConformance,), {"make": lambda self: backend()})
    suite.setup_class()
    mine = suite()
    monkeypatch.setattr(mine, "shared", backend, raising=False)
    with pytest.raises(pytest.fail.Exception, match=rf"(?s)^C84 is broken.*{seen}"):
        mine.test_c84_listed_models_are_well_formed()
    suite.teardown_class()
