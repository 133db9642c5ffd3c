"""`HookRules`: what a plugin of hooks does in a run, and what it leaves alone."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from stillhouse.echo import EchoLLM
from stillhouse.errors import GenerationError
from stillhouse.jobs.formats.rows import RowFormatter, invalid_row
from stillhouse.jobs.runs.announcing import announced, run_info
from stillhouse.jobs.runs.online import RunStatistics, run
from stillhouse.jobs.store.stream import StreamStore
from stillhouse.outputs import check_output, prepare_output
from stillhouse.protocols import Row, RunInfo, RunSummary
from stillhouse.registry.registry import Registry
from stillhouse.testing.hook_kit import HookKit, raised_in
from stillhouse.testing.printed import printed
from stillhouse.testing.rule import Broken, expect, rule, unseen

__all__ = ["HookRules"]

TEXTS = ("Name a river.", "Name a river in Peru, and say where it ends.", "Name a river: é 川 🙂")
_THREADS = 4


class HookRules(HookKit):
    """A plugin takes part in runs: it raises nothing, changes nothing and holds nobody up."""

    @rule(since="0.2")
    def test_g00_it_is_taken_in(self) -> None:
        """Every hook fits its specification, and the plugin accepts its settings. While this rule is broken,
        no other is tested.

        Why: if one hook of a plugin does not fit, none of its hooks is called (E206).

        Fix: read the sentence after `seen`; `stillhouse check NAME` says the same.
        """
        try:
            self.registry()
        except Exception as error:
            raise Broken(str(error)) from error

    @rule(since="0.2")
    def test_g01_no_hook_raises(self) -> None:
        """No hook raises: in a run, for a row that cannot be read, for one that fails, and where an LLM is
        used without a run, so that there is no row.

        Why: an exception in a hook is logged once and ignored: a cache finds nothing, an account lacks rows.

        Fix: `row` is `None` outside a run, `input` is `None` for a row that cannot be read, and `output` is
        `None` where there is an `error`. Catch the exceptions of your own services, and continue without
        them.
        """
        with self.recorded() as (registry, raised):
            for times in ("at first", "when it was asked the same again"):
                _use(registry)
                raised_in(raised, f"where an LLM is used without a run, {times}")
                _run(registry)
                raised_in(raised, f"in a run, {times}")
                # Texts that were never answered, or a cache would keep them from failing.
                _run(registry, [f"{text} ({times})" for text in TEXTS], failure_rate=1.0)
                raised_in(raised, f"in a run whose rows fail, {times}")

    @rule(after="G01", since="0.2")
    def test_g02_it_works_in_any_thread(self) -> None:
        """It works in threads other than the one that loaded it, and in several at once.

        Why: two runs in one process call one plugin, each from its own thread.

        Fix: guard what the hooks share with a `threading.Lock`, and open what belongs to one thread (a
        connection of `sqlite3`, say) in each.
        """
        with self.recorded() as (registry, raised):
            threads = [threading.Thread(target=_run, args=(registry,)) for _ in range(_THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            raised_in(raised, f"in {_THREADS} runs at once, each in a thread of its own")

    @rule(after="G01", since="0.2")
    def test_g03_nothing_that_it_is_shown_is_changed(self) -> None:
        """The input, the arguments, the row, the output, the error and the summary are not changed.

        Why: each plugin receives a copy: a change has no effect, and there is no error.

        Fix: build a new object. To give another answer, return it from `before_generate`.
        """
        self.needs("before_generate", "after_generate", "run_started", "run_finished")
        with EchoLLM() as llm:
            settings = copy.deepcopy(llm.__dict__)
            for hook, given in _shown(llm):
                if hook not in self.hooks:
                    continue
                before = _state(given)
                with contextlib.suppress(Exception):  # another rule's
                    self.call(hook, **given)
                after = _state(given)
                changed = [name for name in given if name != "llm" and before[name] != after[name]]
                expect(not changed, f"{hook} changed {', '.join(changed)}")
                expect(llm.__dict__ == settings, f"{hook} changed the fields of the LLM")

    @rule(after="G01", since="0.2")
    def test_g04_an_answer_has_as_many_generations_as_asked_for(self) -> None:
        """What `before_generate` returns is an output with `num_generations` generations, or `None`.

        Why: any other answer is ignored with a warning, and the LLM is asked.

        Fix: build answers with `stillhouse.prepare_output`, and make `num_generations` part of the key of
        stored answers.
        """
        self.needs("before_generate")
        answers = 0
        with self.recorded() as (registry, _), registry.create("echo") as llm:
            for count in (1, 2, 1):
                llm.generate_outputs([*_chats(TEXTS)], count)
                for input in _chats(TEXTS):
                    answer = self.call(
                        "before_generate", llm=llm, input=input, num_generations=count, arguments={}, row=None
                    )
                    answers += answer is not None
                    _check(answer, count)
        if not answers:
            unseen("it answers none of the kit's inputs")

    @rule(after="G01", since="0.2")
    def test_g05_nothing_is_printed(self) -> None:
        """Nothing is written to standard output.

        Why: with `-o -` the rows are written there, and any other line corrupts them.

        Fix: log with `logging.getLogger(…)`, or write to a file.
        """
        with self.recorded() as (registry, _), printed() as lines:
            _use(registry)
            _run(registry)
        expect(not lines, f"it printed {''.join(lines)[:200]!r}")

    @rule(after="G01", since="0.2")
    def test_g06_the_process_is_left_as_it_is(self) -> None:
        """The environment, the working folder, signal handlers, logging and the event loop are not
        changed.

        Why: they belong to the program that the run is part of.

        Fix: keep what you need in the plugin; set up only loggers of your own.
        """
        with self.recorded() as (registry, _):
            _use(registry)
            _run(registry)
        expect(not self.changed, f"it changed {', '.join(sorted(self.changed))}")

    @rule(after="G00", since="0.2")
    def test_g07_every_setting_has_a_default_and_a_description(self) -> None:
        """The plugin works without settings, and describes each of its settings.

        Why: it is active as soon as it is installed, before anybody has configured it; `stillhouse show`
        lists them.

        Fix: give each field of the model a default and `Field(description=…)`.
        """
        self.needs("settings_model")
        fields = self.call("settings_model").model_fields
        required = [name for name, field in fields.items() if field.is_required()]
        expect(not required, f"settings without a default: {', '.join(required)}")
        silent = [name for name, field in fields.items() if not field.description]
        expect(not silent, f"settings without a description: {', '.join(silent)}")


def _chats(texts: Sequence[str]) -> Iterator[Any]:
    return ([{"role": "user", "content": text}] for text in texts)


def _use(registry: Registry) -> None:
    """Use an LLM without a run."""
    with registry.create("echo") as llm:
        llm.generate_outputs([*_chats(TEXTS)])
        llm.generate_outputs(["a raw prompt"], 2)
        unreadable = invalid_row(7, "not valid JSON")
        for _ in llm.iter_outputs([*_chats(TEXTS), unreadable], on_error="yield"):
            pass


def _run(registry: Registry, texts: Sequence[str] = TEXTS, **fields: Any) -> None:
    """Make a run whose second row cannot be read, as `stillhouse generate` does."""
    rows = [Row(index, index + 1, {"prompt": text}) for index, text in enumerate(texts)]
    rows[1] = Row(1, 2, error=invalid_row(2, "not valid JSON"))
    statistics = RunStatistics()
    with registry.create("echo", **fields) as llm:
        info = run_info(llm, "rows.jsonl", "answers.jsonl", _Nothing())
        with announced(llm, info, statistics, lambda: "complete"):
            store = StreamStore(_Nothing(), llm.model_name)
            run(llm, rows, RowFormatter(), store, statistics=statistics)


class _Nothing:
    """A reader without rows, and a writer that keeps none."""

    schema = None
    share_read: float | None = None

    def __iter__(self) -> Iterator[Row]:
        return iter(())

    def digest(self) -> str:
        return ""

    def close(self) -> None:
        pass

    def write(self, record: dict[str, Any]) -> None:
        pass

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        pass


def _shown(llm: EchoLLM) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each hook is shown of a call and a run."""
    call: dict[str, Any] = {
        "llm": llm,
        "input": [{"role": "user", "content": TEXTS[0]}],
        "num_generations": 1,
        "arguments": {"temperature": 0.5, "stop": ["."]},
        "row": Row(0, 1, {"prompt": TEXTS[0], "tags": ["river"]}),
    }
    yield "before_generate", call
    output = prepare_output(["The Ucayali."], [4], [3], finish_reasons=["stop"])
    yield "after_generate", {**copy.deepcopy(_without(call)), "llm": llm, "output": output, "error": None,
                             "from_hook": False, "seconds": 0.5}  # fmt: skip
    error = GenerationError("the server is busy", kind="server", outputs=[output])
    yield "after_generate", {**copy.deepcopy(_without(call)), "llm": llm, "output": None, "error": error,
                             "from_hook": False, "seconds": 0.5}  # fmt: skip
    run = RunInfo("rows.jsonl", "answers.jsonl", "echo", "echo", 3, resumed=False)
    yield "run_started", {"run": run}
    yield "run_finished", {"summary": RunSummary(run, "complete", 2, {"server": 1}, 0, 4, 3, None, 1.0)}


def _without(call: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in call.items() if name != "llm"}


def _state(given: dict[str, Any]) -> dict[str, Any]:
    """Copy what a hook is shown, but the LLM; of an error, what it says."""
    return {
        name: copy.deepcopy(vars(value) if isinstance(value, GenerationError) else value)
        for name, value in _without(given).items()
    }


def _check(answer: Any, count: int) -> None:
    if answer is None:
        return
    try:
        check_output(answer, count, "before_generate")
    except GenerationError as error:
        raise Broken(error.message) from error
