"""Which worker has which inputs, whoever dies when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stillhouse.jobs.executors.assignments import MAX_DEATHS_ALONE, Assignments


@given(
    count=st.integers(1, 120),
    fatal=st.sets(st.integers(0, 119), max_size=4),
    workers=st.integers(1, 5),
    capacity=st.integers(1, 40),
    killed=st.lists(st.booleans(), max_size=30),
)
def test_only_fatal_inputs_fail_and_each_is_finished_once(
    count: int, fatal: set[int], workers: int, capacity: int, killed: list[bool]
) -> None:
    """A worker that has a fatal input dies of it; some others are killed for no reason that an input gives."""
    work = Assignments(capacity)
    for worker in range(workers):
        work.join(worker)
    next_worker, waiting, done, failed, deaths = workers, list(range(count)), [], {}, 0
    kills = list(killed)
    while waiting or work.pending:
        room = min(work.room, len(waiting))
        given_out, waiting = waiting[:room], waiting[room:]
        for _, items in work.give([(position, f"input {position}") for position in given_out]):
            assert items
        work.give_suspects()
        progress = False
        for worker in work.workers:
            held = dict(work._held[worker])
            if not held:
                continue
            progress = True
            is_killed = len(held) > 1 and bool(kills) and kills.pop()
            first = next(iter(held))
            if is_killed or fatal & held.keys():
                if first not in fatal:  # it answers some, and dies then
                    assert work.finish(worker, [first]) == {first: f"input {first}"}
                    done.append(first)
                for position, input, tries in work.leave(worker):
                    assert input == f"input {position}"
                    failed[position] = tries
                deaths += 1
                work.join(next_worker)
                next_worker += 1
            else:
                assert work.finish(worker, held) == held
                done.extend(held)
        assert progress or given_out
    assert sorted(done) == sorted(set(range(count)) - fatal)
    assert failed.keys() == fatal & set(range(count))
    # Alone, and once or several times with others.
    assert {*failed.values()} <= {MAX_DEATHS_ALONE, MAX_DEATHS_ALONE + 1}
    # Halves: a death costs as many more as the inputs can be halved.
    assert deaths <= (len(fatal) + len(killed)) * 16


def test_an_answer_that_comes_after_all_is_not_counted_twice() -> None:
    work = Assignments(8)
    work.join(0)
    work.join(1)
    ((first, items),) = work.give([(0, "a")])
    assert items == [(0, "a")]
    work.leave(first)
    ((second, _),) = work.give_suspects()
    assert work.finish(first, [0]) == {}
    assert work.finish(second, [0]) == {0: "a"}
    assert work.finish(second, [0]) == {}


def test_a_worker_becomes_free_for_what_another_left() -> None:
    """Without that, two busy workers would leave the inputs of a third waiting until the end of the run."""
    work = Assignments(10)
    for worker in range(3):
        work.join(worker)
    for _, items in work.give([(position, "") for position in range(30)]):
        assert len(items) == 10
    assert not work.leave(0)
    assert work.room == 0
    work.finish(1, range(30))
    assert work.room == 0  # it has none, and gets none, but what was left
    ((worker, items),) = work.give_suspects()
    assert (worker, len(items)) == (1, 5)
    assert work.room == 0
    work.finish(1, [position for position, _ in items])
    ((worker, items),) = work.give_suspects()
    assert (worker, len(items)) == (1, 5)
    work.finish(1, [position for position, _ in items])
    assert work.room == 10
