"""Executors of plugins that do what the protocol does not allow: one error, and the same command resumes."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import AsyncLLM, ConfigurationError, GenerationError, StillhouseError, hookimpl
from stillhouse.registry import hook_executors

from .conftest import read_jsonl
from .test_executors import write

ROWS = 23
TEXTS = [f"row {number}" for number in range(ROWS)]


class Plain(AsyncLLM):
    """Answers as the executors here do."""

    @property
    def model_name(self) -> str:
        return "plain"

    async def agenerate(self, input: Any, num_generations: int = 1) -> Any:  # type: ignore[override]
        return answer(input)


def answer(input: Any) -> Any:
    return stillhouse.prepare_output([f"{input[-1]['content']}!"])


def fair(inputs: Iterable[Any], size: int = 5) -> Iterator[list[Any]]:
    """Generate as the protocol says."""
    numbered = enumerate(inputs)
    while group := list(itertools.islice(numbered, size)):
        yield [
            (index, input if isinstance(input, GenerationError) else answer(input), 0.1)
            for index, input in group
        ]


Odd = Callable[[Any], Any]


class Strange:
    """An executor whose `iter_finished` is a function here."""

    def __init__(self, odd: Odd = fair) -> None:
        self._odd = odd
        self.given: list[str] = []

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> bool | None:
        return None

    def check_input(self, input: Any) -> None:
        pass

    def iter_finished(
        self, inputs: Any, num_generations: int = 1, *, on_error: str = "raise", ordered: bool = True
    ) -> Any:
        return self._odd(inputs)


class Plugin:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @hookimpl
    def make_executor(self, name: str) -> Any:
        return self._make() if name == "strange" else None


def run(tmp_path: Path, make: Callable[[], Any], **options: Any) -> stillhouse.Run:
    source = tmp_path / "in.jsonl"
    if not source.exists():
        write(source, TEXTS)
    registry = stillhouse.registry.Registry(entry_points=())
    registry.register_hooks("oddities", Plugin(make))
    llm = Plain(max_concurrency=4)
    llm.use_registry(registry)
    given = {"executor": "strange", "max_failures": 0, **options}
    return stillhouse.run(source, llm=llm, output=tmp_path / "out.jsonl", show_bar=False, **given)


def check_output(tmp_path: Path) -> None:
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["generations"] for row in rows] == [[f"{text}!"] for text in TEXTS]


def refusal(tmp_path: Path, make: Callable[[], Any]) -> StillhouseError:
    """The error that ends a run; the same command without the executor resumes what was stored."""
    with pytest.raises(StillhouseError) as refused:
        run(tmp_path, make)
    assert not (tmp_path / "out.jsonl").exists()
    run(tmp_path, Strange, executor=None)
    check_output(tmp_path)
    return refused.value


def then(*more: Any) -> Odd:
    """Generate for some inputs, and then yield groups, or raise errors."""

    def odd(inputs: Any) -> Iterator[Any]:
        groups = fair(inputs)
        yield next(groups)
        yield next(groups)
        for group in more:
            if isinstance(group, BaseException):
                raise group
            yield group

    return odd


def early(inputs: Any) -> Iterator[Any]:
    yield from itertools.islice(fair(inputs), 2)


def with_gap(inputs: Any) -> Iterator[Any]:
    for group in fair(inputs):
        yield [result for result in group if result[0] not in (7, 11)]


def twice(inputs: Any) -> Iterator[Any]:
    yield from fair(inputs)
    yield from fair(inputs)


def with_copy(inputs: Any) -> Iterator[Any]:
    groups = [*fair(inputs)]
    yield groups[1]
    yield groups[1]


def closing(inputs: Any) -> Iterator[Any]:
    source = iter(inputs)
    yield next(fair(source))
    source.close()  # type: ignore[attr-defined]


def nothing(inputs: Any) -> None:
    return None


class Whole(int):
    """As of numpy."""


OUTPUT = stillhouse.prepare_output(["x"])
NAMED = "the executor of the plugin oddities "

ODDITIES: dict[str, tuple[Odd, str]] = {
    "twice": (twice, "iterates over its inputs a second time"),
    "copy": (with_copy, "yielded a second result for input 5"),
    "early": (early, "ended after 10 inputs, and there are more"),
    "gap": (with_gap, "ended without a result for input 7 and for 1 more"),
    "closing": (closing, "failed: AttributeError"),
    "no iterator": (nothing, "failed: TypeError: 'NoneType' object is not iterable"),
    "again": (then([(3, OUTPUT, 0.0)]), "yielded a second result for input 3"),
    "never": (then([(10**9, OUTPUT, 0.0)]), "yielded a result for input 1000000000, and has taken 10 inputs"),
    "negative": (then([(-1, OUTPUT, 0.0)]), "yielded a result for input -1"),
    "bool": (then([(True, OUTPUT, 0.0)]), "whose index is True of the type bool"),
    "whole": (then([(Whole(3), OUTPUT, 0.0)]), "whose index is 3 of the type Whole"),
    "float": (then([(3.0, OUTPUT, 0.0)]), "whose index is 3.0 of the type float"),
    "text": (then([("3", OUTPUT, 0.0)]), "whose index is a str"),
    "unhashable": (then([([], OUTPUT, 0.0)]), "whose index is a list"),
    "pair": (then([(3, OUTPUT)]), "yielded a tuple where a tuple of index, result and seconds"),
    "no tuple": (then([3]), "yielded 3 of the type int where a tuple"),
    "no group": (then(None), "yielded a NoneType where a list of results is expected"),
    "dict": (then({3: OUTPUT}), "yielded a dict where a list"),
    "endless group": (then(itertools.repeat((3, OUTPUT, 0.0))), "yielded a repeat where a list"),
    "runtime": (then(RuntimeError("boom")), "failed: RuntimeError: boom"),
    "system": (then(OSError(5, "the cluster is gone")), "failed: OSError: [Errno 5] the cluster is gone"),
    "exit": (then(SystemExit(3)), "failed: SystemExit: 3"),
    "interrupt": (then(KeyboardInterrupt()), "failed: KeyboardInterrupt"),
    "generator": (then(GeneratorExit()), "failed: GeneratorExit"),
    "cancelled": (then(asyncio.CancelledError()), "failed: CancelledError"),
    "stop": (then(StopIteration()), "failed: RuntimeError: generator raised StopIteration"),
}  # fmt: skip


def iterate(odd: Odd) -> list[int]:
    """Iterate as a run does, without one."""
    chats = [[{"role": "user", "content": text}] for text in TEXTS]
    with hook_executors.PluginExecutor("oddities", Strange(odd)) as executor:
        groups = executor.iter_finished(chats, on_error="yield", ordered=False)
        return [index for group in groups for index, _, _ in group]


@pytest.mark.parametrize("name", ODDITIES)
def test_what_the_protocol_does_not_allow_is_one_error_with_the_plugins_name(name: str) -> None:
    odd, said = ODDITIES[name]
    with pytest.raises(StillhouseError) as refused:
        iterate(odd)
    error = refused.value
    assert error.message.startswith(NAMED)
    assert said in error.message


@pytest.mark.parametrize("name", ["again", "early", "exit", "interrupt"])
def test_a_run_that_such_an_error_stopped_is_resumed(tmp_path: Path, name: str) -> None:
    odd, said = ODDITIES[name]
    error = refusal(tmp_path, lambda: Strange(odd))
    assert error.message.startswith(NAMED)
    assert said in error.message
    assert "plugin's authors" in error.hint


@pytest.mark.parametrize("seconds", [None, "1", -1.0, float("nan"), float("inf"), True], ids=repr)
def test_seconds_are_a_number(seconds: Any) -> None:
    def odd(inputs: Any) -> Iterator[Any]:
        for group in fair(inputs):
            yield [(index, output, seconds if index == 8 else 0.0) for index, output, _ in group]

    with pytest.raises(ConfigurationError, match="as the seconds of input 8"):
        iterate(odd)


def test_what_was_right_before_an_error_is_stored(tmp_path: Path) -> None:
    given: list[str] = []

    def odd(inputs: Any) -> Iterator[Any]:
        for group in fair(inputs, size=6):
            given.extend(output["generations"][0] for _, output, _ in group)
            yield [*group[:3], group[0], *group[3:]] if len(given) == 12 else group

    with pytest.raises(ConfigurationError, match="a second result for input 6"):
        run(tmp_path, lambda: Strange(odd))
    assert len(given) == 12
    run(tmp_path, lambda: Strange(odd))
    assert given == [f"{text}!" for text in TEXTS]
    check_output(tmp_path)


def test_an_error_of_the_plugin_for_the_user_is_raised_as_it_is(tmp_path: Path) -> None:
    error = refusal(tmp_path, lambda: Strange(then(ConfigurationError("no credit", hint="buy some"))))
    assert (error.message, error.hint) == ("no credit", "buy some")


class Bare(GenerationError):
    """An error without any of its attributes."""

    def __init__(self) -> None:
        Exception.__init__(self, "bare")


def odd_kind(kind: Any) -> GenerationError:
    error = GenerationError("odd kind", outputs=[OUTPUT])
    error.kind = kind
    return error


WRONG: list[tuple[Any, str]] = [
    (None, "returned"), ("x", "returned"), ({}, "returned"), ({"generations": []}, "returned 0 generations"),
    ({"generations": ["a", "b"]}, "returned 2 generations"), ({"generations": [5]}, "returned"),
    (Bare(), "Bare"), (odd_kind([]), "odd kind"), (odd_kind("no such kind"), "odd kind"),
]  # fmt: skip


def test_an_output_of_a_wrong_form_fails_its_row(tmp_path: Path) -> None:
    def odd(inputs: Any) -> Iterator[Any]:
        for group in fair(inputs):
            yield [
                (index, WRONG[index][0] if index < len(WRONG) else output, 0.0) for index, output, _ in group
            ]

    run(tmp_path, lambda: Strange(odd))
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows if row["error"]] == [*range(len(WRONG))]
    for row, (_, said) in zip(rows, WRONG, strict=False):
        assert said in row["error"]["message"]
        assert row["error"]["kind"] == "unknown"
        assert said != "returned" or NAMED.strip() in row["error"]["message"]


@pytest.mark.parametrize("result", [ValueError("bug"), SystemExit(1)], ids=repr)
def test_another_exception_is_no_result(result: Any) -> None:
    def odd(inputs: Any) -> Iterator[Any]:
        for group in fair(inputs):
            yield [(index, result if index == 8 else output, 0.0) for index, output, _ in group]

    with pytest.raises(ConfigurationError, match="and not a GenerationError"):
        iterate(odd)


def test_an_error_that_stops_the_run_is_no_result(tmp_path: Path) -> None:
    refused = GenerationError("the key was refused", kind="authentication")

    def odd(inputs: Any) -> Iterator[Any]:
        for group in fair(inputs):
            yield [(index, refused if index == 8 else output, 0.0) for index, output, _ in group]

    assert refusal(tmp_path, lambda: Strange(odd)).message == "the key was refused"


def test_an_executor_that_takes_all_inputs_first_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_executors, "MAX_AHEAD", 10)
    monkeypatch.setattr(hook_executors, "AHEAD", 0)

    def odd(inputs: Any) -> Iterator[Any]:
        yield from fair([*inputs])

    assert "read 10 inputs ahead of their results" in refusal(tmp_path, lambda: Strange(odd)).message


def test_inputs_may_be_pulled_in_another_thread(tmp_path: Path) -> None:
    """Never while the run stores results: the rows and the budget are its own."""

    def odd(inputs: Any) -> Iterator[Any]:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.extend(fair(inputs)))
        thread.start()
        while thread.is_alive() or found:
            if found:
                yield found.pop(0)
            else:
                thread.join(0.001)

    run(tmp_path, lambda: Strange(odd))
    check_output(tmp_path)


def test_an_iteration_without_an_end_ends(tmp_path: Path) -> None:
    closed: list[bool] = []

    def odd(inputs: Any) -> Iterator[Any]:
        try:
            yield from fair(inputs)
            while True:
                yield []
        finally:
            closed.append(True)

    run(tmp_path, lambda: Strange(odd))
    check_output(tmp_path)
    assert closed == [True]


def test_an_input_that_cannot_be_read_is_not_blamed_on_the_plugin(tmp_path: Path) -> None:
    class Source(stillhouse.protocols.RowInputs):
        def __iter__(self) -> Iterator[Any]:
            yield [{"role": "user", "content": "x"}]
            raise OSError(5, "the disk of the input is gone")

        def row_at(self, position: int) -> None:
            return None

    def swallowing(inputs: Any) -> Iterator[Any]:
        source = iter(inputs)
        yield from fair([next(source)])
        try:
            next(source)
        except OSError:
            return

    for odd in (fair, swallowing):
        with (
            hook_executors.PluginExecutor("oddities", Strange(odd)) as executor,
            pytest.raises(OSError, match="the disk of the input"),
        ):
            list(executor.iter_finished(Source(), on_error="yield"))


def test_results_of_a_stream_have_the_order_of_the_inputs() -> None:
    def odd(inputs: Any) -> Iterator[Any]:
        for group in fair(inputs, size=2):
            yield group[::-1]

    chats = [[{"role": "user", "content": text}] for text in TEXTS]
    with hook_executors.PluginExecutor("oddities", Strange(odd)) as executor:
        found = [index for group in executor.iter_finished(chats, ordered=False) for index, _, _ in group]
        assert sorted(found) == [*range(ROWS)]
        with pytest.raises(ConfigurationError, match="of input 1 where that of input 0 comes next"):
            list(executor.iter_finished(chats))


# The hook, entering, leaving


def boom(*given: object) -> Any:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (boom, "the plugin oddities, which may provide it, failed: RuntimeError: boom"),
        (lambda: 5, "failed: TypeError: it returned int, which has no __enter__, __exit__"),
        (lambda: None, "there is no executor 'strange'"),
    ],
)
def test_a_hook_that_fails_is_named_where_nobody_has_the_executor(
    tmp_path: Path, make: Any, said: str
) -> None:
    assert said in refusal(tmp_path, make).message


class Failing(Strange):
    """Raises on entry, or enters as something else."""

    def __init__(self, enters: Any) -> None:
        super().__init__()
        self._enters = enters

    def __enter__(self) -> Any:
        if isinstance(self._enters, BaseException):
            raise self._enters
        return self._enters


@pytest.mark.parametrize(
    ("enters", "said"),
    [
        (RuntimeError("boom"), "failed: RuntimeError: boom"), (SystemExit(1), "failed: SystemExit: 1"),
        (OSError(5, "gone"), "failed: OSError"),
        (None, "is a NoneType, which has no check_input, iter_finished"), (5, "is a int, which has no"),
    ],
    ids=repr,
)  # fmt: skip
def test_entering_that_fails_is_one_error(tmp_path: Path, enters: Any, said: str) -> None:
    assert f"{NAMED}{said}" in refusal(tmp_path, lambda: Failing(enters)).message


class Leaving(Strange):
    """Raises on exit, or asks to forget what was raised."""

    def __init__(self, leaves: Any, odd: Odd = fair) -> None:
        super().__init__(odd)
        self._leaves = leaves

    def __exit__(self, *exc_info: object) -> bool | None:
        if isinstance(self._leaves, BaseException):
            raise self._leaves
        return bool(self._leaves)


@pytest.mark.parametrize("leaves", [RuntimeError("boom"), SystemExit(1), StillhouseError("boom")], ids=repr)
def test_leaving_that_fails_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, leaves: Any
) -> None:
    """Every row is stored, and the output is written."""
    with caplog.at_level(logging.WARNING, "stillhouse.hooks"):
        assert run(tmp_path, lambda: Leaving(leaves)).outcome == "complete"
    check_output(tmp_path)
    (said,) = caplog.messages
    assert said.startswith(f"{NAMED}failed as the run left it: ")


@pytest.mark.parametrize("leaves", [RuntimeError("another"), True], ids=repr)
def test_leaving_hides_no_error(tmp_path: Path, leaves: Any) -> None:
    error = refusal(tmp_path, lambda: Leaving(leaves, then(RuntimeError("boom"))))
    assert "failed: RuntimeError: boom" in error.message


def test_an_iteration_that_cannot_be_closed_hides_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(inputs: Any) -> Iterator[Any]:
        for group in fair(inputs):
            try:
                yield [*group, (99, OUTPUT, 0.0)] if group[0][0] == 5 else group
            except GeneratorExit:
                yield []

    assert "yielded a result for input 99" in refusal(tmp_path, lambda: Strange(odd)).message
    assert "generator ignored GeneratorExit" in caplog.text


# All of it at random

CHANGES: list[Callable[[list[Any]], Any]] = [
    lambda group: [*group, group[0]],
    lambda group: [(-index, output, 0.0) for index, output, _ in group],
    lambda group: [(float(index), output, 0.0) for index, output, _ in group],
    lambda group: group[:-1],
    lambda group: None,
    lambda group: [*group, None],
    lambda group: [(index, output, None) for index, output, _ in group],
    lambda group: [(index, KeyError(index), 0.0) for index, _, _ in group],
    boom,
]


SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(8, 120))]


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_an_executor_does_each_row_is_written_once(tmp_path: Path, seed: int) -> None:
    """What was stored is not given to it again, and every error names it."""
    chance = random.Random(seed)
    stored: set[int] = set()

    def odd(inputs: Any) -> Iterator[Any]:
        def seen() -> Iterator[Any]:
            for input in inputs:
                number = int(input[-1]["content"].split()[1])
                assert number not in stored
                yield input

        spoilt = chance.randrange(8)
        for number, group in enumerate(fair(seen(), size=chance.randint(1, 6))):
            texts = [int(output["generations"][0].split()[1][:-1]) for _, output, _ in group]
            if number == spoilt:
                yield chance.choice(CHANGES)(group)
            else:
                yield group
                stored.update(texts)

    def failure() -> str:
        try:
            run(tmp_path, lambda: Strange(odd))
        except ConfigurationError as error:
            return error.message
        return ""

    while said := failure():
        assert said.startswith(NAMED)
    check_output(tmp_path)
