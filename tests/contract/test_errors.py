"""What is raised: what it says, what it is, and that it travels between processes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import stillhouse
from stillhouse import (
    ConfigurationError,
    GenerationError,
    OfflineBatchNotFinishedError,
    PluginError,
    StillhouseError,
    UnknownLLMError,
    UnsupportedError,
)
from stillhouse.errors import ERROR_KINDS, near_matches
from stillhouse.outputs import prepare_output

ERRORS: list[tuple[StillhouseError, type[Exception]]] = [
    (ConfigurationError("it is wrong", hint="do it right"), ValueError),
    (UnsupportedError("it cannot", hint="do without"), NotImplementedError),
    (UnknownLLMError("there is none", name="x", hint="did you mean y?"), LookupError),
    (
        PluginError(
            "error[E201]", code="E201", entry_point="g: n = m:a", distribution="d 1", hint="reinstall"
        ),
        StillhouseError,
    ),
    (
        GenerationError(
            "failed", kind="server", attempts=3, outputs=[prepare_output(["x"]), None], hint="wait"
        ),
        StillhouseError,
    ),
    (OfflineBatchNotFinishedError(["a", "b"]), StillhouseError),
]
EACH = pytest.mark.parametrize(("error", "base"), ERRORS, ids=lambda item: type(item).__name__)


@EACH
def test_every_error_class_is_a_stillhouse_error_and_its_builtin(
    error: StillhouseError, base: type[Exception]
) -> None:
    assert isinstance(error, StillhouseError)
    assert isinstance(error, base)


@EACH
def test_every_error_has_a_hint(error: StillhouseError, base: type[Exception]) -> None:
    assert error.message
    assert error.hint
    if not isinstance(error, PluginError):  # its message is the whole report
        assert str(error) == f"{error.message}\n  try  {error.hint}"


def test_error_without_a_hint_is_only_its_message() -> None:
    assert str(ConfigurationError("it is wrong")) == "it is wrong"
    assert str(PluginError("the report", hint="reinstall")) == "the report"


@EACH
@pytest.mark.parametrize(
    "clone", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy], ids=str
)
def test_every_error_can_be_pickled_and_copied(
    error: StillhouseError, base: type[Exception], clone: Any
) -> None:
    other = clone(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert other.args == error.args


def test_a_generation_error_says_what_kind_and_what_was_finished() -> None:
    error = GenerationError("failed")
    assert (error.kind, error.attempts, error.outputs) == ("unknown", 1, [])
    assert set(ERROR_KINDS) >= {
        "rate_limit", "timeout", "connection", "server", "authentication", "invalid_request",
        "context_length", "content_filter", "schema", "truncated", "unknown",
    }  # fmt: skip


def test_only_a_refused_key_stops_the_run() -> None:
    stopping = [kind for kind in ERROR_KINDS if GenerationError("x", kind=kind).stops_run]
    assert stopping == ["authentication"]


def test_wrapping_an_error() -> None:
    own = GenerationError("failed", kind="timeout")
    assert GenerationError.wrap(own) is own
    other = GenerationError.wrap(KeyError("x"))
    assert other.message == "KeyError: 'x'"
    assert isinstance(other.__cause__, KeyError)
    refused = GenerationError.wrap(UnsupportedError("it cannot", hint="do without"))
    assert (refused.kind, refused.attempts, refused.hint) == ("invalid_request", 0, "do without")


def test_the_ids_of_unfinished_jobs() -> None:
    assert OfflineBatchNotFinishedError(["a", "b"]).jobs_ids == ("a", "b")
    assert "a, b" in str(OfflineBatchNotFinishedError(["a", "b"]))
    assert OfflineBatchNotFinishedError().jobs_ids == ()


def test_near_matches() -> None:
    assert near_matches("temprature", ["temperature", "top_p"]) == "did you mean 'temperature'?"
    assert near_matches("x", ["top_p", "seed"]) == "available: seed, top_p"
    assert near_matches("x", []) == "there are none"
    # The columns of a file: one line, whatever they are named, and however many they are.
    assert near_matches("x", ["", " ", "a\nb", "\x1b[2J"]) == r"available: '', '\x1b[2J', ' ', 'a\nb'"
    many = near_matches("x", [f"column {number:05}" for number in range(20_000)])
    assert many.endswith(", column 00099 and 19,900 more")


def test_every_public_name_resolves() -> None:
    for name in stillhouse.__all__:
        assert getattr(stillhouse, name) is not None, name
    assert set(stillhouse.__all__) <= set(dir(stillhouse))
    assert stillhouse.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = stillhouse.nothing
