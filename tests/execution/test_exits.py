"""Whether an exception that would end the program comes from a signal, or from the code itself."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stillhouse._execution.exits import is_from_signal


def caught(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        threading.Event().wait(0.01)


def passing_on() -> None:
    try:
        interrupted()
    except KeyboardInterrupt:
        raise


def raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


@pytest.fixture
def exiting_handler() -> Iterator[None]:
    def handle(number: int, frame: object) -> None:
        raise SystemExit(number)

    before = signal.signal(signal.SIGTERM, handle)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("function", [interrupted, passing_on])
def test_an_interrupt_of_the_keyboard_is_from_a_signal(function: Callable[[], None]) -> None:
    assert is_from_signal(caught(function))


def test_what_a_handler_raises_is_from_a_signal(exiting_handler: None) -> None:
    assert is_from_signal(caught(lambda: (os.kill(os.getpid(), signal.SIGTERM), interrupted())))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(0), GeneratorExit(), asyncio.CancelledError(), ValueError()]
)
def test_what_code_raises_itself_is_not(error: BaseException, exiting_handler: None) -> None:
    assert not is_from_signal(caught(raising(error)))
