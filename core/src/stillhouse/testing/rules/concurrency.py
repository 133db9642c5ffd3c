"""`ConcurrencyRules`: many inputs at once, inside loops, from threads, bounded, cancelled."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import GenerationError
from stillhouse.testing.base import Conformance
from stillhouse.testing.rule import Broken, expect, rule, unseen
from stillhouse.testing.watch import watching
from stillhouse.typing import GenerateOutput

__all__ = ["ConcurrencyRules"]

# How long the kit waits for what happens at once if the rule is kept.
_PATIENCE_SECONDS = 5.0
# A call that takes longer than this without giving way holds up every other call.
_BLOCKING_SECONDS = 0.05


class ConcurrencyRules(Conformance):
    """As many calls at once as requested, and none left when the caller stops."""

    @rule
    def test_c40_it_works_inside_a_running_event_loop(self) -> None:
        """`generate_outputs` works inside a running event loop, and does not affect that loop.

        Why: notebooks and servers run an event loop.

        Fix: in an `AsyncLLM`, write `agenerate` and leave the loop to the contract, or use `run_on_loop`;
        elsewhere never call `asyncio.run` or `run_until_complete`.
        """
        llm = self.shared()

        async def main() -> list[GenerateOutput]:
            loop = asyncio.get_running_loop()
            outputs = self.ask(llm, self.inputs(2))
            expect(asyncio.get_running_loop() is loop, "another event loop runs after the call")
            return outputs

        expect(len(asyncio.run(main())) == 2, "other than two outputs came back")

    @rule
    def test_c41_several_threads_may_use_it_at_once(self) -> None:
        """Several threads may generate with one loaded LLM at once, and each gets its own answers.

        Why: a server has a thread per request.

        Fix: store no data of a call in attributes of the LLM; put a lock around an engine that handles one
        call at a time.
        """
        llm = self.shared()
        inputs = self.inputs()
        alone = [self.ask(llm, [input])[0] for input in inputs]
        compared = len({repr(output["statistics"].get("input_tokens")) for output in alone}) > 1
        barrier = threading.Barrier(len(inputs))

        def ask(position: int) -> GenerateOutput:
            barrier.wait(_PATIENCE_SECONDS)
            return self.ask(llm, [inputs[position]])[0]

        with ThreadPoolExecutor(len(inputs)) as pool:
            together = list(pool.map(ask, range(len(inputs))))
        for position, (output, expected) in enumerate(zip(together, alone, strict=True)):
            expect(len(output["generations"]) == 1, f"thread {position} got another number of generations")
            seen, own = (item["statistics"].get("input_tokens") for item in (output, expected))
            expect(seen == own, f"thread {position} got input_tokens {seen}, where its own input has {own}")
        if not compared:
            unseen("no input_tokens tell which answer is whose")

    @rule(concurrent=True)
    def test_c42_concurrency_is_bounded(self) -> None:
        """At most `max_concurrency` inputs are in flight.

        Why: it keeps a run within a provider's limits and a machine's memory.

        Fix: do not override `generate`; if you must, hold a semaphore of that size.
        """
        llm = self.shared()
        assert isinstance(llm, AsyncLLM)
        llm.max_concurrency = 2
        with watching(llm, before=_give_way) as watch:
            self.ask(llm, self.inputs(8))
            list(llm.iter_outputs(self.inputs(8), **self.given()))
        expect(watch.most <= 2, f"{watch.most} calls were in flight, and max_concurrency is 2")

    @rule(concurrent=True)
    def test_c43_concurrency_is_real(self) -> None:
        """With `max_concurrency` of 4, four inputs are in flight at once, and none delays the others.

        Why: this is the purpose of an `AsyncLLM`: one by one, a million rows take weeks.

        Fix: `await` inside `agenerate`; move blocking calls to `await asyncio.to_thread(…)`; do not hold a
        lock around the request.
        """
        llm = self.shared()
        assert isinstance(llm, AsyncLLM)
        llm.max_concurrency = 4
        arrived, all_here = 0, asyncio.Event()

        async def meet(_: Any) -> None:
            nonlocal arrived
            arrived += 1
            if arrived == 4:
                all_here.set()
            await asyncio.wait_for(all_here.wait(), _PATIENCE_SECONDS)

        try:
            with watching(llm, before=meet):
                self.ask(llm, self.inputs(4))
        except GenerationError:
            expect(arrived >= 4, f"{arrived} of 4 inputs were in flight; the others waited for them to end")
            raise
        expect(not _holds_the_loop(self, llm), "agenerate holds the event loop while it waits")

    @rule(concurrent=True)
    def test_c44_who_cancels_leaves_nothing_running(self) -> None:
        """When the caller is cancelled, or stops reading, its calls are cancelled and have ended.

        Why: a request that nobody waits for still costs money, and holds a connection and a slot.

        Fix: let `asyncio.CancelledError` through; do not `shield` a request; await every task that
        `agenerate` starts.
        """
        llm = self.loaded()
        assert isinstance(llm, AsyncLLM)
        before = llm.run_on_loop(_tasks())
        started = threading.Event()

        async def signal_start(_: Any) -> None:
            started.set()

        async def main() -> None:
            task = asyncio.create_task(llm.agenerate_outputs(self.inputs(), **self.given()))
            await asyncio.to_thread(started.wait, _PATIENCE_SECONDS)
            task.cancel()
            await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
            expect(
                task.done(),
                f"{_PATIENCE_SECONDS:.0f} seconds after it was cancelled, the call is still running",
            )

        with watching(llm, before=signal_start) as watch:
            asyncio.run(main())
            expect(watch.in_flight == 0, f"{watch.in_flight} calls are in flight after the cancellation")
            for _ in llm.iter_outputs(self.inputs(), **self.given()):
                break
            expect(watch.in_flight == 0, f"{watch.in_flight} calls are in flight after the caller stopped")
        left = [task for task in llm.run_on_loop(_tasks()) - before if not task.done()]
        expect(not left, f"still running on the LLM's loop: {[_name_of(task) for task in left]}")

    @rule(concurrent=True)
    def test_c45_the_first_failure_cancels_the_others(self) -> None:
        """The first failed input cancels the others, and is a `GenerationError` whose `outputs` has the
        finished outputs.

        Why: after a failure, a caller must neither wait for the rest nor lose the outputs that it has paid
        for.

        Fix: do not override `generate`; raise `GenerationError` from `agenerate`.
        """
        llm = self.loaded()
        assert isinstance(llm, AsyncLLM)
        llm.max_concurrency = 4
        inputs, first_done, forever = self.inputs(4), asyncio.Event(), asyncio.Event()
        under_way, all_under_way = 0, asyncio.Event()

        async def fail_second(input: Any) -> None:
            nonlocal under_way
            under_way += 1
            if under_way == len(inputs):
                all_under_way.set()
            position = inputs.index(input)
            if position == 1:
                await asyncio.wait_for(first_done.wait(), _PATIENCE_SECONDS)
                await asyncio.wait_for(all_under_way.wait(), _PATIENCE_SECONDS)
                raise GenerationError("the conformance kit failed this input", kind="server")
            if position > 1:
                await asyncio.wait_for(forever.wait(), _PATIENCE_SECONDS)

        async def agenerate(*args: Any, **kwargs: Any) -> GenerateOutput:
            output = await original(*args, **kwargs)
            first_done.set()
            return output

        original = llm.agenerate
        llm.__dict__["agenerate"] = agenerate
        with watching(llm, before=fail_second) as watch:
            try:
                self.ask(llm, inputs)
            except GenerationError as error:
                done = [output is not None for output in error.outputs]
            else:
                raise Broken("an input failed, and no error was raised")
        expect(done == [True, False, False, False], f"of four inputs, the first finished; outputs has {done}")
        expect(watch.cancelled == 2, f"{watch.cancelled} of the 2 other calls were cancelled")
        expect(watch.in_flight == 0, f"{watch.in_flight} calls are still in flight")


def _holds_the_loop(kit: Conformance, llm: AsyncLLM) -> bool:
    """Return whether each of four calls takes long without ever giving way to the loop."""
    turns = 0
    held: list[bool] = []

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    original = llm.agenerate

    async def agenerate(*args: Any, **kwargs: Any) -> GenerateOutput:
        loop = asyncio.get_running_loop()
        before, began = turns, loop.time()
        output = await original(*args, **kwargs)
        held.append(turns == before and loop.time() - began > _BLOCKING_SECONDS)
        return output

    async def main() -> asyncio.Task[None]:
        return asyncio.create_task(count())

    counter = llm.run_on_loop(main())
    llm.__dict__["agenerate"] = agenerate
    try:
        kit.ask(llm, kit.inputs(4))
    finally:
        llm.__dict__.pop("agenerate")
        llm.event_loop.call_soon_threadsafe(counter.cancel)
    return bool(held) and all(held)


async def _give_way(_: Any) -> None:
    """Let every other call begin that is allowed to."""
    for _ in range(100):
        await asyncio.sleep(0)


async def _tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def _name_of(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())
