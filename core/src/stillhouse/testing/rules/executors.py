"""`ExecutorRules`: workers give what one process gives, whatever fails, and nothing of them is left.

Over 300 lines: half of them are the rules themselves, which are the docstrings of their tests.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from stillhouse._execution.stopping import Stop, stopping_with
from stillhouse.errors import ConfigurationError, GenerationError, StillhouseError
from stillhouse.protocols import InputWithArguments, Row, RowInputs
from stillhouse.testing.desk import Desk
from stillhouse.testing.entered import ANSWERED, Entered, Results, chat
from stillhouse.testing.executed import MISSING, ExecutedLLM
from stillhouse.testing.executor_kit import LIMIT, SECRET, ExecutorKit, children, logged, threads
from stillhouse.testing.rule import Broken, expect, rule, said, unseen

__all__ = ["ExecutorRules"]

OTHERS = ("processes", "no-such-executor", "")
"""Names that belong to Stillhouse, or to nobody."""

MANY = 40

GRACE_SECONDS = 0.3
"""How long is waited for what must not happen."""

MAX_PULLED = 10_000


class ExecutorRules(ExecutorKit):
    """What an executor does. An author gives `make` and `executor`."""

    # Those that use one executor, one after the other, come first; x04 is the last of them.

    @rule(since="0.2")
    def test_x00_it_generates(self) -> None:
        """It generates for inputs, with the same results as one process. While this rule is broken, no other
        is tested.

        Why: the same command must write the same output with every executor.

        Fix: let each worker load a copy of the LLM and call `iter_finished`; yield its results with the index
        among all inputs.
        """
        self.needs("make_executor")
        entered = self.shared()
        found = entered.collect(_numbers(3))
        with self.llm(entered.desk) as llm:
            wanted = dict(llm.iter_outputs(_numbers(3)))
        expect(found == wanted, f"it gave {found}, and one process gives {wanted}")

    @rule(since="0.2")
    def test_x11_one_iteration_follows_the_other(self) -> None:
        """After an iteration, another one can begin. Each counts its inputs from 0, and may have no inputs.

        Why: a run with a ceiling begins another iteration when the first one had no room for a row.

        Fix: keep the state of an iteration in the generator, not in the executor.
        """
        entered = self.shared()
        for count in (1, 0, 5):
            found = _texts_of(entered.collect(_numbers(count)))
            wanted = {number: [f"{number}!"] for number in range(count)}
            expect(found == wanted, f"for {count} inputs it gave {found}")

    @rule(after="X11", since="0.2")
    def test_x03_results_come_once_and_in_order_on_request(self) -> None:
        """With `ordered=True` results come in the order of the inputs, although later ones are finished
        first; with `ordered=False`, in any order. Each comes once.

        Why: an output that is a stream cannot be put in order afterwards.

        Fix: if `ordered` is set, keep a result until all earlier ones have been yielded.
        """
        for ordered in (True, False):
            indexes = self._indexes(ordered=ordered)
            wanted = list(range(8))
            expect(
                (indexes if ordered else sorted(indexes)) == wanted,
                f"with ordered={ordered} the results of 8 inputs came as {indexes}",
            )

    @rule(after="X11", since="0.2")
    def test_x10_arguments_reach_the_workers(self) -> None:
        """`num_generations`, the generation parameters of the call, and those of a single input reach the
        worker.

        Why: nobody can see that an answer was made with other parameters.

        Fix: send them with the inputs; inputs are `InputWithArguments` where `RowInputs.has_arguments` is
        set, so let the workers iterate over a `RowInputs` that sets it too.
        """
        entered = self.shared()
        found = _texts_of(entered.collect([chat(0), chat(1)], 2, max_new_tokens=7, seed=5))
        expect(found == {0: ["0!"] * 2, 1: ["1!"] * 2}, f"for two generations of two inputs it gave {found}")
        seen = [asked.arguments for asked in entered.desk.asked]
        wanted: dict[str, Any] = {"max_new_tokens": 7, "seed": 5}
        expect(seen == [wanted, wanted], f"the parameters {wanted} reached the LLM as {seen}")
        entered.desk.begin()
        rows = _Rows([chat(0), InputWithArguments(chat(1), {"max_new_tokens": 9}, 9), chat(2)])
        found = _texts_of(entered.collect(rows, seed=5))
        expect(found == {number: [f"{number}!"] for number in range(3)}, f"rows with arguments gave {found}")
        own = {asked.text: asked.arguments["max_new_tokens"] for asked in entered.desk.asked}
        expect(
            own == {"0": None, "1": 9, "2": None}, f"max_new_tokens of the second row alone arrived as {own}"
        )
        seeds = {asked.arguments["seed"] for asked in entered.desk.asked}
        expect(seeds == {5}, f"the seed of rows with arguments arrived as {seeds}")

    @rule(after="X11", since="0.2")
    def test_x12_hooks_are_called_once_where_the_run_is(self) -> None:
        """Hooks are called once for each input, in the process of the run and with the row. An input that a
        hook answers is not sent.

        Why: hooks count tokens and keep state in this process; a second call counts twice.

        Fix: call the hooks of the LLM's registry in the process of the run, and give the copies in the
        workers a registry without hooks.
        """
        entered = self.shared()
        desk, seen = entered.desk, entered.seen
        desk.begin()
        seen.before.clear()
        seen.after.clear()
        found = entered.collect(_Rows([chat(0), chat(1), chat(ANSWERED)]), on_error="yield")
        expect(not desk.hooks, "hooks were called in a worker")
        for name, calls in (("before_generate", seen.before), ("after_generate", seen.after)):
            expect(sorted(calls) == [0, 1, 2], f"{name} was called for the rows {calls}, of 3")
        answered = _texts_of({2: found.get(2)})
        expect(answered == {2: ["answered"]}, f"an input that a hook answered gave {answered}")
        expect(ANSWERED not in desk.texts, "an input that a hook answered was sent to a worker")

    @rule(after="X11", since="0.2")
    def test_x15_a_secret_stays_secret(self) -> None:
        """A secret of the LLM appears in no command line, environment or log record, and not in
        `repr(executor)`.

        Why: every user of the machine can read command lines, and logs are shared.

        Fix: send the LLM to a worker through a pipe or a connection, and keep it out of `repr`.
        """
        entered = self.shared()
        shown = [repr(entered)]
        with logged() as lines:
            entered.collect([chat("one")])
        shown.append(repr(entered))
        expect(not entered.desk.exposed, f"it is in the {' and the '.join(sorted({*entered.desk.exposed}))}")
        expect(not any(SECRET in text for text in shown), "it is in repr(executor)")
        found = [line for line in [*entered.logged, *lines] if SECRET in line]
        expect(not found, f"it is logged: {found and found[0].replace(SECRET, '(the key)')[:200]!r}")

    @rule(after="X11", since="0.2")
    def test_x16_limits_are_those_of_the_run(self) -> None:
        """All workers together have at most `max_concurrency` inputs in flight.

        Why: the limit protects an account or a server, whatever the number of workers.

        Fix: give each worker an equal share of `max_concurrency` and of the rate limits.
        """
        entered = self.shared()
        desk = entered.desk
        desk.begin(held=lambda _: True)
        work = entered.begin(lambda: list(entered.iterate(_numbers(MANY))))
        desk.wait(lambda: len(desk.in_flight) >= LIMIT or work.done(), self.seconds / 6)
        desk.wait(lambda: len(desk.in_flight) > LIMIT, GRACE_SECONDS)
        desk.let_go()
        entered.wait(work, "an iteration")
        expect(desk.most <= LIMIT, f"{desk.most} inputs were in flight, and max_concurrency is {LIMIT}")

    @rule(after="X11", since="0.2")
    def test_x17_an_input_can_be_checked(self) -> None:
        """`check_input` accepts what the LLM accepts, and raises the LLM's error for everything else.

        Why: a run checks its first row before anything is written or paid for.

        Fix: let a worker call `check_input` of its copy.
        """
        entered = self.shared()
        entered.check_input(chat("one"))
        for input, what in (("a text", "raw_prompt"), (7, "int")):
            try:
                entered.check_input(input)
            except StillhouseError as error:
                expect(what in said(error), f"for {input!r} check_input raised {said(error)!r}")
            except Broken:
                raise
            except Exception as error:
                raise Broken(f"check_input raised {type(error).__name__}: {error}") from error
            else:
                raise Broken(f"check_input took {input!r}, which the LLM refuses")

    @rule(after="X11", since="0.2")
    def test_x04_a_failed_input_fails_alone(self) -> None:
        """With `on_error="yield"`, the result of a failed input is its error, with its kind, message and
        attempts, and an input that is an error is its own result; all others are generated. With
        `on_error="raise"`, the error is raised.

        Why: one bad row in a million must not cost the others, and `--retry` chooses rows by the kind.

        Fix: call `iter_finished` with `on_error="yield"` in the workers, and send errors unchanged.
        """
        given = GenerationError("a row that cannot be read", kind="invalid_input", attempts=0)
        entered = self.shared()
        entered.desk.begin({"1": "fail"})
        found = entered.collect([chat(0), chat(1), given, chat(3)], on_error="yield")
        expect(sorted(found) == [0, 1, 2, 3], f"of 4 inputs those at {sorted(found)} have a result")
        error = found[1]
        expect(isinstance(error, GenerationError), f"the failed input gave {error!r}")
        seen = (error.kind, error.message, error.attempts)
        expect(seen == ("timeout", "this input fails", 3), f"its error has become {seen}")
        read = found[2]
        expect(
            isinstance(read, GenerationError) and (read.kind, read.message) == (given.kind, given.message),
            f"the input that is an error gave {read!r}",
        )
        texts = _texts_of({index: found[index] for index in (0, 3)})
        expect(texts == {0: ["0!"], 3: ["3!"]}, f"the others gave {texts}")
        entered.desk.begin({"1": "fail"})
        try:
            entered.collect([chat(0), chat(1), chat(2)], on_error="raise")
        except GenerationError as raised:
            expect(said(raised) == "this input fails", f"with on_error='raise' it raised {said(raised)!r}")
        else:
            raise Broken("with on_error='raise' it raised nothing")
        finally:
            self.discard()

    # Those that need a new one.

    @rule(since="0.2")
    def test_x01_other_names_are_left_alone(self) -> None:
        """For a name that is not its own, `make_executor` returns `None`.

        Why: the first plugin that returns an executor wins, also over the one of Stillhouse.

        Fix: compare the name before anything else.
        """
        llm = self.llm(self.desk())
        for name in OTHERS:
            found = self.call("make_executor", name=name, address=None, llm=llm, workers=None)
            expect(found is None, f"it returned an executor for {name!r}")

    @rule(since="0.2")
    def test_x02_it_starts_on_entry_and_ends_on_exit(self) -> None:
        """`make_executor` starts no thread and no process, and loads nothing. After the executor is left, no
        thread and no process of it is running.

        Why: a refused command never enters its executor, and workers that stay occupy memory, GPUs and nodes.

        Fix: start in `__enter__`; in `__exit__`, end the workers and wait for them.
        """
        self.discard()
        before, processes = threads(), children()
        entered = self.made()
        new = _names(threads() - before)
        expect(not new, f"the executor that was not entered has started {new}")
        expect(children() <= processes, "the executor that was not entered has started a process")
        expect(not entered.desk.loaded, "the executor that was not entered has loaded an LLM")
        entered.enter()
        entered.collect([chat("one")])
        entered.leave()
        expect(self._is_gone(entered), f"{entered.desk.alive} loaded LLMs are left after it was left")
        entered.desk.wait(lambda: threads() <= before and children() <= processes, GRACE_SECONDS)
        expect(threads() <= before, f"{_names(threads() - before)} has not ended after it was left")
        expect(children() <= processes, "a process has not ended after it was left")

    @rule(after="X04", since="0.2")
    def test_x05_an_error_that_stops_the_run_is_raised(self) -> None:
        """An error with `stops_run` is raised, also with `on_error="yield"`, and no further input is sent.

        Why: a refused key would fail a million rows, and may lock the account.

        Fix: check `stops_run` of each error; if it is set, tell all workers to stop, and raise the error.
        """
        entered = self.entered()
        desk = entered.desk
        desk.begin({"2": "refuse"}, held=lambda text: text != "2")
        work = entered.begin(lambda: list(entered.iterate(_numbers(MANY), on_error="yield")))
        while not desk.wait(lambda: "2" in desk.texts or work.done(), GRACE_SECONDS):
            desk.let_go(desk.in_flight)
        entered.step(work)
        try:
            entered.wait(work, "an iteration with an error that stops the run")
        except GenerationError as error:
            expect(error.stops_run and error.kind == "authentication", f"it raised {error!r}")
        else:
            raise Broken("nothing was raised where the key was refused")
        sent = len(desk.asked)
        expect(sent <= 4 * LIMIT, f"{sent} of {MANY} inputs were sent, and the third was refused")

    @rule(after="X05", since="0.2")
    def test_x06_a_request_to_stop_is_obeyed(self) -> None:
        """After a request to stop, the inputs in flight are finished and yielded, no further input is sent,
        and the iteration ends.

        Why: the first Ctrl-C must end the run, and lose no answer that was paid for.

        Fix: in the process of the run, iterate with `current_stop` in force; tell the workers to pull no
        further inputs.
        """
        entered = self.entered()
        desk, stop = entered.desk, Stop()
        found: list[tuple[int, Any]] = []
        desk.begin(held=lambda _: True)

        def iterate() -> None:
            with stopping_with(stop):
                found.extend(entered.iterate(_numbers(MANY), on_error="yield", ordered=False))

        work = entered.begin(iterate)
        desk.wait(lambda: len(desk.in_flight) >= LIMIT or work.done(), self.seconds / 6)
        in_flight = desk.in_flight
        expect(in_flight, "no input was in flight")
        stop.request()
        desk.wait(lambda: not desk.in_flight, GRACE_SECONDS)
        entered.step(work)
        entered.wait(work, "an iteration that was to stop")
        given = {str(index) for index, _ in found}
        lost = [asked.text for asked in in_flight if asked.text not in given or not asked.ended]
        expect(not lost, f"of {len(in_flight)} inputs in flight, {len(lost)} gave no result")
        failed = [result for _, result in found if isinstance(result, GenerationError)]
        expect(not failed, f"an input in flight failed: {failed and said(failed[0])}")
        sent = len(desk.asked) - len(in_flight)
        # Those that a worker took before it heard of the request.
        expect(sent <= 2 * LIMIT, f"{sent} inputs were sent after the request to stop")

    @rule(since="0.2")
    def test_x07_leaving_in_the_middle_ends_the_workers(self) -> None:
        """When an iteration is closed in the middle and the executor is left, the calls in flight are
        cancelled, and the workers end.

        Why: the second Ctrl-C must end the run, however long an answer takes.

        Fix: cancel the calls in flight when the iteration is closed, and in `__exit__`; kill a worker that
        does not end.
        """
        entered = self.entered()
        desk = entered.desk
        desk.begin(held=lambda text: text != "0")

        def take_one() -> None:
            results = entered.iterate(_numbers(MANY))
            next(results)
            results.close()  # type: ignore[attr-defined]

        entered.wait(entered.begin(take_one), "closing an iteration in the middle")
        entered.leave()
        expect(self._is_gone(entered), f"{desk.alive} loaded LLMs are left after it was left")
        expect(
            desk.wait(lambda: not desk.in_flight, self.seconds / 6),
            f"{len(desk.in_flight)} calls are in flight after it was left",
        )

    @rule(after="X04", since="0.2")
    def test_x08_a_worker_that_dies_costs_one_input(self) -> None:
        """An input that kills every worker fails alone, with the kind `server`, after a bounded number of
        attempts; all other inputs are generated.

        Why: one row that needs too much memory must not end a long run, and must not be tried for ever.

        Fix: replace a dead worker, and give its unfinished inputs to others; count the deaths of each input.
        """
        entered = self.entered()
        desk = entered.desk
        desk.begin({"5": "die"})
        found = entered.collect(_numbers(12), on_error="yield")
        error = found.get(5)
        expect(isinstance(error, GenerationError), f"the input whose worker dies gave {error!r}")
        assert isinstance(error, GenerationError)
        expect(error.kind == "server", f"its error has the kind {error.kind}: {said(error)}")
        tried = desk.texts.count("5")
        expect(tried <= 10, f"it was tried {tried} times")
        others = _texts_of({index: result for index, result in found.items() if index != 5})
        wanted = {number: [f"{number}!"] for number in range(12) if number != 5}
        expect(others == wanted, f"the others gave {others}")
        if all(asked.process == os.getpid() for asked in desk.asked):
            unseen("its workers are in the process of the run")

    @rule(after="X07", since="0.2")
    def test_x09_inputs_are_pulled_as_they_are_needed(self) -> None:
        """Inputs are pulled lazily, a bounded number ahead of the results.

        Why: memory must not grow with the rows of a run, and a source may have no end.

        Fix: pull an input only when a worker has room for it.
        """
        entered = self.entered()
        pulled = itertools.count()

        def inputs() -> Iterator[Any]:
            while (number := next(pulled)) <= 2 * MAX_PULLED:
                yield chat(number)

        def take_three() -> None:
            results = entered.iterate(inputs())
            for _ in range(3):
                next(results)
            results.close()  # type: ignore[attr-defined]

        entered.wait(entered.begin(take_three), "the first three results of many inputs")
        count = next(pulled)
        expect(count <= MAX_PULLED, f"{count} inputs were pulled for the first three results")

    @rule(since="0.2")
    def test_x13_an_llm_that_cannot_be_loaded_says_so_on_entry(self) -> None:
        """If the workers cannot load the LLM, entering the executor raises their error, and no worker stays.

        Why: with a wrong model name, a run must end before its first row and say why.

        Fix: wait in `__enter__` until the workers have loaded their copies, and raise the error of a worker
        that failed.
        """
        entered = self.made(fails_loading=True)
        try:
            entered.enter()
        except StillhouseError as error:
            expect(MISSING in said(error), f"entering raised {said(error)!r}, and the worker {MISSING!r}")
        except Broken:
            raise
        except Exception as error:
            raise Broken(f"entering raised {type(error).__name__}: {error}") from error
        else:
            raise Broken("entering raised nothing where no worker can load its LLM")
        expect(self._is_gone(entered), f"{entered.desk.alive} workers are left")

    @rule(since="0.2")
    def test_x14_an_llm_that_cannot_be_sent_is_refused(self) -> None:
        """An LLM that is loaded or does not pickle is a `ConfigurationError` before the first input, unless
        the executor can generate with it.

        Why: another error, or an error in the middle of a run, does not say what to change.

        Fix: pickle the LLM in `make_executor`, and raise a `ConfigurationError` if that fails, or if the LLM
        is loaded.
        """
        desk = self.desk()
        self._refused("does not pickle", self.llm(desk, cargo=threading.Lock()), desk)
        llm = self.llm(desk)
        with llm:
            self._refused("is loaded", llm, desk)

    def _refused(self, what: str, llm: ExecutedLLM, desk: Desk) -> None:
        """Expect that an LLM is refused, or generated with."""
        try:
            entered = Entered(self.make_executor(llm), desk, self.seconds)
            self._stack.callback(entered.close)
            entered.enter()
        except ConfigurationError as error:
            expect(error.message, f"the error for an LLM that {what} has no message")
            return
        except Broken:
            raise
        except Exception as error:
            raise Broken(f"for an LLM that {what} it raised {type(error).__name__}: {error}") from error
        try:
            found = _texts_of(entered.collect([chat("one")]))
        except (Exception, asyncio.CancelledError) as error:
            raise Broken(f"it took an LLM that {what}, and an iteration raised {error!r}") from error
        expect(found == {0: ["one!"]}, f"it took an LLM that {what}, and gave {found}")
        entered.leave()

    def _indexes(self, *, ordered: bool) -> list[int]:
        """Return the indexes of 8 inputs as their results come, the first of which is finished late."""
        entered = self.shared()
        desk = entered.desk
        desk.begin(held=lambda text: text == "0")
        work = entered.begin(lambda: list(entered.iterate(_numbers(8), ordered=ordered)))
        # Several, for the answer to one could arrive after that to the first input, which is let go then.
        desk.wait(
            lambda: sum(bool(asked.ended) for asked in desk.asked) >= 3 or work.done(), self.seconds / 4
        )
        desk.let_go()
        return [index for index, _ in entered.wait(work, "an iteration")]

    def _is_gone(self, entered: Entered) -> bool:
        """Wait until no process that loaded an LLM is left."""
        return entered.desk.wait(lambda: not entered.desk.alive, self.seconds / 6)


class _Rows(RowInputs):
    """Inputs that were made of rows."""

    has_arguments = True

    def __init__(self, inputs: Sequence[Any]) -> None:
        self._inputs = inputs

    def __iter__(self) -> Iterator[Any]:
        return iter(self._inputs)

    def row_at(self, position: int) -> Row | None:
        return Row(position, position + 1, {})


def _numbers(count: int) -> list[Any]:
    return [chat(number) for number in range(count)]


def _texts_of(results: Results) -> dict[int, Any]:
    """Return the texts of results, or what stands in their place."""
    return {
        index: result["generations"] if isinstance(result, dict) else repr(result)
        for index, result in results.items()
    }


def _names(found: set[threading.Thread]) -> str:
    return ", ".join(sorted(f"the thread {thread.name}" for thread in found))
