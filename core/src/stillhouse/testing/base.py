"""`Conformance`: the base of the rules on backends: makes, loads, asks and restores the LLM under test."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import ConfigurationError
from stillhouse.llm import LLM
from stillhouse.registry import Registry
from stillhouse.registry.policy import Policy
from stillhouse.testing.kit import Kit
from stillhouse.testing.rule import Broken
from stillhouse.testing.watch import watching
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = ["Conformance", "quietly_unload"]


class Conformance(Kit):
    """The base of the rules on backends. An author gives `make`, and may set the class variables."""

    arguments: ClassVar[Mapping[str, Any] | None] = None
    """Generation parameters for every call; `None` asks for short answers and, where there is one,
    sets a seed."""

    texts: ClassVar[Sequence[str]] = (
        "Name a river.",
        "Name a river in Peru, and say where it ends.",
        "Name three rivers of Peru, say for each of them where it ends, and which of them is the longest.",
        "Name one river and one lake in Peru.",
    )
    """Four texts of different lengths, to ask the LLM."""

    answers_are_scripted: ClassVar[bool] = False
    """Whether the answers come from a script, so that they do not show what the backend can do."""

    requests_per_input: ClassVar[int] = 1
    """How many requests one generation of an input takes; more than one where a job is polled."""

    _shared: ClassVar[LLM | None] = None
    _looked_at: ClassVar[LLM | None] = None
    _registry: ClassVar[Registry | None] = None

    def make(self) -> LLM:
        """Return a new LLM, not loaded. The kit loads and unloads it."""
        raise NotImplementedError(f"{type(self).__name__} has no make(): return an LLM that is not loaded")

    def make_failing(self) -> tuple[LLM, FormattedInput] | None:
        """Return an LLM, not loaded, and an input that fails on it; `None` if there is no way to make one."""
        return None

    def make_empty(self) -> tuple[LLM, FormattedInput] | None:
        """Return an LLM, not loaded, and an input that it answers without a text; `None` if there is none.

        The kit looks for one itself: this is for a backend for which it finds none.
        """
        return None

    # For the rules

    @classmethod
    def teardown_class(cls) -> None:
        """Clean up; pytest calls it after the last test of the class."""
        if cls._shared is not None:
            quietly_unload(cls._shared)
        cls._shared = cls._looked_at = cls._registry = None

    @pytest.fixture(autouse=True)
    def _clean_up(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[None]:
        """Restore what a test set, unload what it loaded, and leave the user's own state alone."""
        monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))
        self._stack = contextlib.ExitStack()
        yield
        self._stack.close()
        if self._looked_at is not None:
            backend = type(self._looked_at)
            name = f"{backend.__module__}.{backend.__qualname__}"
            request.node.user_properties.append(("conformance_backend", name))

    @property
    def registry(self) -> Registry:
        """A registry with every installed backend and no hooks, so that no cache answers for the LLM."""
        cls = type(self)
        if cls._registry is None:
            import importlib_metadata

            entry_points = importlib_metadata.entry_points(group="stillhouse.llms")
            cls._registry = Registry(entry_points, Policy())
            backend = type(self.make())
            try:
                cls._registry.name_of(backend)
            except ConfigurationError:
                # Not by `register`, which rejects a class that breaks a rule: one test checks that.
                cls._registry._registered["under-test"] = backend
        return cls._registry

    def new(self) -> LLM:
        """Return a new LLM, with the kit's registry."""
        llm = self.make()
        if not isinstance(llm, LLM):
            raise Broken(f"make() returned {type(llm).__name__}, and not an LLM")
        llm.use_registry(self.registry)
        return llm

    def loaded(self) -> LLM:
        """Return a new LLM, loaded until the test ends."""
        llm = self.new()
        self._stack.callback(quietly_unload, llm)
        with self._observed():
            llm.load()
        return llm

    def shared(self) -> LLM:
        """Return the loaded LLM that many tests share; what a test sets is restored when it ends."""
        cls = type(self)
        if cls._shared is None or not cls._shared.is_loaded:
            llm = self.new()
            with self._observed():
                llm.load()
            cls._shared = llm
        llm = cls._shared
        before = dict(llm.__dict__)
        self._stack.callback(object.__setattr__, llm, "__dict__", before)
        return llm

    @property
    def cls(self) -> type[LLM]:
        """The class under test."""
        return type(self._unloaded())

    def _made_of(self) -> tuple[type, ...]:
        made = type(self)._looked_at
        return type(made).__mro__ if made is not None else ()

    @property
    def is_async(self) -> bool:
        return issubclass(self.cls, AsyncLLM)

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset(self._unloaded().capabilities)

    def _unloaded(self) -> LLM:
        """Return an LLM that is never loaded, for inspection."""
        cls = type(self)
        if cls._looked_at is None:
            cls._looked_at = self.new()
        return cls._looked_at

    def input_of(self, text: str) -> FormattedInput:
        """Return a chat with this text, or the text itself if the backend takes no chats."""
        if "chat" in self.capabilities:
            return [{"role": "user", "content": text}]
        return text

    def inputs(self, count: int | None = None) -> list[FormattedInput]:
        """Return this number of inputs, with the texts in turn; as many as there are texts if `None`."""
        count = len(self.texts) if count is None else count
        return [copy.deepcopy(self.input_of(self.texts[index % len(self.texts)])) for index in range(count)]

    def given(self, **more: Any) -> dict[str, Any]:
        """Return the generation parameters of a call."""
        if self.arguments is not None:
            return {**copy.deepcopy(dict(self.arguments)), **more}
        names = self.cls.generation_parameters().parameters
        given: dict[str, Any] = {}
        if "max_new_tokens" in names:
            given["max_new_tokens"] = 12
        if "seed" in names:
            given["seed"] = 7
        return given | more

    def ask(
        self, llm: LLM, inputs: list[FormattedInput] | None = None, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Return the outputs for inputs; for four of the kit's if none are given."""
        with self._observed():
            return llm.generate_outputs(self.inputs() if inputs is None else inputs, **self.given(**kwargs))

    def _ask_raw(
        self, llm: LLM, inputs: list[FormattedInput] | None = None, **kwargs: Any
    ) -> list[GenerateOutput]:
        """`ask`, but return the outputs as the backend gives them: the contract mends what callers get.

        Where `agenerate` makes one generation a call, there is an output for each of them.
        """
        with watching(llm) as watch:
            self.ask(llm, inputs, **kwargs)
        return watch.outputs

    def _sent_for(self, llm: LLM, **given: Any) -> list[Any] | None:
        """Ask for one input, and return what was sent for it; `None` where the kit does not see that."""
        return None

    def _ask_for_blank(self, llm: LLM) -> list[GenerateOutput] | None:
        """Ask where every answer has an empty text; `None` where the kit cannot bring that about."""
        return None


def quietly_unload(llm: LLM) -> None:
    """Unload; a rule of its own reports what that raises."""
    with contextlib.suppress(Exception):
        llm.unload()
