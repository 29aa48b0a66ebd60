"""Actors inline and in threads: order, errors, names, limits, ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from microkernel import (
    Instrument,
    Kernel,
    KernelClosed,
    KernelError,
    KernelSettings,
    TaskCancelled,
    current_task,
)
from microkernel.actors import ActorOptions, ActorRef
from microkernel.errors import ActorBusy, ActorDied, DeadlineMissed

pytestmark = pytest.mark.timeout(20)

INLINE = ActorOptions(placement="inline")
THREAD = ActorOptions(placement="thread")


class Counter:
    """Counts, and remembers in which order it was asked to."""

    def __init__(self, start: int = 0) -> None:
        self.value = start
        self.seen: list[object] = []

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def note(self, what: object) -> object:
        self.seen.append(what)
        return what

    def notes(self) -> list[object]:
        return list(self.seen)

    def fail(self, message: str = "broken") -> None:
        raise ValueError(message)

    def thread(self) -> int:
        return threading.get_ident()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class Waiting:
    """Its coroutines wait for one another."""

    def __init__(self) -> None:
        self.woken: asyncio.Event | None = None
        self.open = 0
        self.most = 0

    def event(self) -> asyncio.Event:
        self.woken = self.woken or asyncio.Event()
        return self.woken

    async def wait(self) -> str:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await self.event().wait()
        finally:
            self.open -= 1
        return "woken"

    async def rest(self) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        for _ in range(3):
            await asyncio.sleep(0)
        self.open -= 1

    async def wake(self) -> None:
        self.event().set()

    async def counts(self) -> tuple[int, int]:
        return self.open, self.most

    async def own_call(self) -> bytes | None:
        await asyncio.sleep(0)
        task = current_task()
        return None if task is None else task.task_id


@pytest.fixture(params=["inline", "thread"])
def options(request: pytest.FixtureRequest) -> ActorOptions:
    return ActorOptions(placement=request.param)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(KernelSettings(threads=2)) as opened:
        yield opened


def test_calls_run_in_order_and_change_one_state(kernel: Kernel, options: ActorOptions) -> None:
    counter = kernel.spawn(Counter, 10, options=options)
    assert kernel.get([counter.add(n) for n in range(100)])[-1] == 10 + sum(range(100))
    assert [ref.name for ref in (counter.add(), counter.fail())] == [
        f"{Counter.__module__}:Counter.add",
        f"{Counter.__module__}:Counter.fail",
    ]


def test_the_last_call_brings_those_before_it(kernel: Kernel, options: ActorOptions) -> None:
    counter = kernel.spawn(Counter, options=options)
    refs = [counter.add() for _ in range(10_000)]
    assert kernel.get(refs[-1]) == 10_000
    assert all(ref.done for ref in refs)


def test_a_call_that_waits_for_an_argument_holds_up_its_callers_later_ones(
    kernel: Kernel, options: ActorOptions
) -> None:
    counter = kernel.spawn(Counter, options=options)
    asked = threading.Event()

    def slow(x: str) -> str:
        assert asked.wait(30)
        return x

    first = kernel.options(placement="thread").submit(slow, "first")
    refs = [counter.note(first), counter.note("second"), counter.note(kernel.submit(str, "third"))]
    refs.append(counter.note("fourth"))
    with pytest.raises(TimeoutError):
        kernel.get(refs[3], timeout=0.01)
    asked.set()
    assert kernel.get(refs[3]) == "fourth"
    assert kernel.get(counter.notes()) == ["first", "second", "third", "fourth"]


def test_another_caller_passes_a_call_that_waits(kernel: Kernel, options: ActorOptions) -> None:
    counter = kernel.spawn(Counter, options=options)

    def answer() -> object:
        return kernel.get(counter.note("from the task"))

    argument = kernel.options(placement="thread").submit(answer)
    held = counter.note(argument)
    assert kernel.get(held) == "from the task"
    assert kernel.get(counter.notes()) == ["from the task", "from the task"]


def test_a_failed_argument_fails_the_call_and_not_the_next(
    kernel: Kernel, options: ActorOptions
) -> None:
    counter = kernel.spawn(Counter, options=options)
    broken = kernel.submit(int, "x")
    held, next_one = counter.note(broken), counter.note(kernel.submit(str, 1))
    with pytest.raises(ValueError, match="invalid literal"):
        kernel.get(held)
    assert kernel.get(next_one) == "1"
    with pytest.raises(ValueError, match="invalid literal"):
        kernel.get(counter.note(broken))
    assert kernel.get(counter.add()) == 1


def test_a_held_call_that_is_cancelled_makes_way(kernel: Kernel, options: ActorOptions) -> None:
    counter = kernel.spawn(Counter, options=options)
    asked = threading.Event()
    slow = kernel.options(placement="thread").submit(asked.wait, 30)
    held = counter.note(slow)
    behind = counter.note("behind")
    also_held = counter.note(slow)
    assert kernel.cancel(held)
    assert kernel.get(behind) == "behind"
    asked.set()
    assert kernel.get(also_held) is True


def test_an_error_goes_to_the_caller_and_the_actor_lives_on(
    kernel: Kernel, options: ActorOptions
) -> None:
    counter = kernel.spawn(Counter, options=options)
    failing, working = counter.fail("no"), counter.add()
    assert kernel.get(working) == 1
    with pytest.raises(ValueError, match="no") as raised:
        kernel.get(failing)
    assert "Counter.fail" in raised.value.__notes__[0]


def test_an_error_of_the_constructor_is_every_calls_error(
    kernel: Kernel, options: ActorOptions
) -> None:
    counter = kernel.spawn(Counter, 1, 2, options=options)
    for ref in [counter.add(), counter.add()]:
        with pytest.raises(TypeError, match="positional"):
            kernel.get(ref)
    with pytest.raises(TypeError, match="positional"):
        kernel.get(counter.add())


def test_constructor_arguments_may_be_references(kernel: Kernel, options: ActorOptions) -> None:
    counter = kernel.spawn(Counter, kernel.submit(int, "41"), options=options)
    assert kernel.get(counter.add()) == 42
    counter = kernel.spawn(Counter, start=kernel.submit(int, "x"), options=options)
    with pytest.raises(ValueError, match="invalid literal"):
        kernel.get(counter.add())


def test_only_public_methods_are_reached(kernel: Kernel) -> None:
    counter = kernel.spawn(Counter)
    for name in ("value", "_private", "missing"):
        with pytest.raises(AttributeError, match=name):
            getattr(counter, name)
    assert dir(counter) == ["add", "call", "fail", "note", "notes", "thread"]
    with pytest.raises(KernelError, match="no class"):
        kernel.spawn(len)  # type: ignore[arg-type]
    with pytest.raises(KernelError, match="made by the kernel"):
        ActorRef()


def test_an_inline_actor_runs_in_the_thread_that_waits(kernel: Kernel) -> None:
    counter = kernel.spawn(Counter, options=INLINE)
    assert kernel.get(counter.thread()) == threading.get_ident()


def test_a_threaded_actor_keeps_its_thread(kernel: Kernel) -> None:
    counter = kernel.spawn(Counter, options=THREAD)
    threads = set(kernel.get([counter.thread() for _ in range(10)]))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_concurrent_calls_overlap_up_to_the_limit(kernel: Kernel) -> None:
    together = threading.Barrier(3)
    counter = kernel.spawn(Counter, options=ActorOptions(placement="thread", concurrency=3))
    assert sorted(kernel.get([counter.call(together.wait, 30) for _ in range(3)])) == [0, 1, 2]
    lock = threading.Lock()

    def alone() -> bool:
        got = lock.acquire(blocking=False)
        if got:
            time.sleep(0)
            lock.release()
        return got

    single = kernel.spawn(Counter, options=THREAD)
    assert all(kernel.get([single.call(alone) for _ in range(100)]))


def test_coroutines_of_an_actor_wait_for_one_another(kernel: Kernel) -> None:
    waiting = kernel.spawn(Waiting, options=THREAD)
    refs = [waiting.wait() for _ in range(100)]
    assert kernel.get(waiting.counts()) == (100, 100)
    kernel.get(waiting.wake())
    assert kernel.get(refs) == ["woken"] * 100
    call = waiting.own_call()
    assert kernel.get(call) == call.task_id


def test_coroutines_are_limited_by_the_concurrency(kernel: Kernel) -> None:
    waiting = kernel.spawn(Waiting, options=ActorOptions(placement="thread", concurrency=2))
    kernel.get([waiting.rest() for _ in range(10)])
    assert kernel.get(waiting.counts()) == (0, 2)


def test_a_coroutine_that_is_cancelled_makes_room(kernel: Kernel) -> None:
    waiting = kernel.spawn(Waiting, options=ActorOptions(placement="thread", concurrency=1))
    held, wakes = waiting.wait(), waiting.wake()
    with pytest.raises(TimeoutError):
        kernel.get(wakes, timeout=0.01)
    assert kernel.cancel(held)
    kernel.get(wakes)
    assert kernel.get(waiting.counts()) == (0, 1)
    with pytest.raises(TaskCancelled):
        kernel.get(held)


def test_an_inline_actor_runs_its_coroutines_one_by_one(kernel: Kernel) -> None:
    waiting = kernel.spawn(Waiting, options=INLINE)
    refs = [waiting.wake(), waiting.wait(), waiting.counts()]
    assert kernel.get(refs) == [None, "woken", (0, 1)]

    async def inside_a_loop() -> Any:
        return await waiting.counts()

    assert asyncio.run(inside_a_loop()) == (0, 1)


def test_coroutines_await_actors(kernel: Kernel, options: ActorOptions) -> None:
    counter = kernel.spawn(Counter, options=options)

    async def main() -> list[int]:
        first = [await counter.add(), await counter.add()]
        return first + list(await asyncio.gather(*(ref_of(counter.add()) for _ in range(3))))

    async def ref_of(ref: Any) -> Any:
        return await ref

    assert asyncio.run(main()) == [1, 2, 3, 4, 5]


def test_a_queued_call_can_be_cancelled(kernel: Kernel, options: ActorOptions) -> None:
    counter = kernel.spawn(Counter, options=options)
    refs = [counter.add() for _ in range(3)]
    if options is INLINE or not refs[1].done:
        cancelled = kernel.cancel(refs[1])
        assert kernel.get(counter.add()) == (3 if cancelled else 4)


def test_a_running_call_is_broken_off_and_the_actor_goes_on(kernel: Kernel) -> None:
    running = threading.Event()

    def endless() -> None:
        running.set()
        while True:
            time.sleep(0.001)

    counter = kernel.spawn(Counter, options=THREAD)
    ref, after = counter.call(endless), counter.add()
    assert running.wait(30)
    assert kernel.cancel(ref)
    assert kernel.get(after) == 1
    with pytest.raises(TaskCancelled):
        kernel.get(ref)


def test_a_call_has_a_deadline(kernel: Kernel) -> None:
    gate = threading.Event()
    counter = kernel.spawn(Counter, options=THREAD)
    first = counter.call(gate.wait, 30)
    late = counter.add.options(deadline=0.01)()
    with pytest.raises(DeadlineMissed):
        kernel.get(late)
    gate.set()
    assert kernel.get(first) is True
    assert kernel.get(counter.add.options(deadline=30.0)()) == 1


def test_waiting_for_many_calls_takes_them_as_they_end(
    kernel: Kernel, options: ActorOptions
) -> None:
    counters = [kernel.spawn(Counter, options=options) for _ in range(4)]
    pending: Any = [counter.add() for counter in counters for _ in range(25)]
    results = []
    while pending:
        done, pending = kernel.wait(pending)
        results += kernel.get(done)
    assert sorted(results) == sorted(list(range(1, 26)) * 4)


def test_results_of_calls_are_arguments(kernel: Kernel, options: ActorOptions) -> None:
    one, other = kernel.spawn(Counter, options=options), kernel.spawn(Counter, options=options)
    ref = one.add(1)
    for _ in range(10):
        ref = other.add(one.add(ref))
    assert kernel.get(kernel.submit(lambda x: x + 1, ref)) == kernel.get(ref) + 1


def test_actors_call_actors_and_tasks_call_actors(kernel: Kernel, options: ActorOptions) -> None:
    back = kernel.spawn(Counter, options=options)
    front = kernel.spawn(Counter, options=options)
    assert kernel.get(front.call(lambda: kernel.get(back.add(5)) + 1)) == 6
    tasks = [kernel.submit(lambda: kernel.get(back.add(1))) for _ in range(20)]
    threaded = kernel.options(placement="thread")
    tasks += [threaded.submit(lambda: kernel.get(back.add(1))) for _ in range(20)]
    assert sorted(kernel.get(tasks)) == list(range(6, 46))


def test_a_wait_for_ones_own_call_is_an_error(kernel: Kernel, options: ActorOptions) -> None:
    counter = kernel.spawn(Counter, options=options)

    def own() -> Any:
        return kernel.get(counter.add())

    with pytest.raises(KernelError, match="waits for its own"):
        kernel.get(counter.call(own))
    assert kernel.get(counter.add()) == 2


def test_ids_follow_from_caller_and_call(options: ActorOptions) -> None:
    def ids() -> list[bytes]:
        with Kernel(run_id=bytes(16)) as kernel:
            counter = kernel.spawn(Counter, options=options)
            refs = [counter.add(), counter.note(1), kernel.submit(kernel.put, 1), counter.add()]
            kernel.get(refs)
            return [ref.task_id for ref in refs]

    assert ids() == ids()
    assert len(set(ids())) == 4


def test_a_named_actor_is_found_until_it_is_stopped(kernel: Kernel, options: ActorOptions) -> None:
    named = ActorOptions(placement=options.placement, name="shared")
    kernel.spawn(Counter, 5, options=named)
    gc.collect()
    counter = kernel.actor("shared")
    assert counter == kernel.actor("shared")
    assert len({counter, kernel.actor("shared")}) == 1
    assert kernel.get(counter.add()) == 6
    with pytest.raises(KernelError, match="lives already"):
        kernel.spawn(Counter, options=named)
    kernel.stop(counter)
    with pytest.raises(KernelError, match="no actor is named 'shared'"):
        kernel.actor("shared")
    assert kernel.get(kernel.spawn(Counter, options=named).add()) == 1


def test_stopping_finishes_what_was_asked(kernel: Kernel, options: ActorOptions) -> None:
    counter = kernel.spawn(Counter, options=options)
    refs = [counter.add() for _ in range(10)]
    kernel.stop(counter)
    late = counter.add()
    assert kernel.get(refs) == list(range(1, 11))
    for ref in (late, counter.add()):
        with pytest.raises(ActorDied) as raised:
            kernel.get(ref)
        assert not raised.value.begun


def test_stopping_now_fails_what_was_asked_and_says_what_had_begun(kernel: Kernel) -> None:
    running = threading.Event()

    def endless() -> None:
        running.set()
        while True:
            time.sleep(0.001)

    counter = kernel.spawn(Counter, options=THREAD)
    begun, queued, held = counter.call(endless), counter.add(), counter.add(kernel.submit(int))
    assert running.wait(30)
    kernel.stop(counter, now=True)
    for ref, had_begun in ((begun, True), (queued, False), (held, False)):
        with pytest.raises(ActorDied) as raised:
            kernel.get(ref)
        assert raised.value.begun == had_begun


def test_an_actor_ends_with_its_last_reference(kernel: Kernel, options: ActorOptions) -> None:
    ended = threading.Event()

    class Ending:
        def answer(self) -> int:
            return 42

        def __del__(self) -> None:
            ended.set()

    assert kernel.get(kernel.spawn(Ending, options=options).answer()) == 42
    gc.collect()
    assert ended.wait(30)


def test_pending_calls_are_limited(kernel: Kernel, options: ActorOptions) -> None:
    limited = ActorOptions(placement=options.placement, max_pending=10)
    counter = kernel.spawn(Counter, options=limited)
    refs = []
    for _ in range(1000):
        refs.append(counter.add())
        assert sum(not ref.done for ref in refs[-20:]) <= 10
    assert kernel.get(refs) == list(range(1, 1001))


def test_a_coroutine_is_told_that_an_actor_is_busy(kernel: Kernel) -> None:
    gate = threading.Event()
    counter = kernel.spawn(Counter, options=ActorOptions(placement="thread", max_pending=2))

    async def main() -> list[Any]:
        refs = [counter.call(gate.wait, 30), counter.add()]
        with pytest.raises(ActorBusy):
            counter.add()
        gate.set()
        return [await ref for ref in refs]

    kernel.get(counter.add())
    assert asyncio.run(main()) == [True, 2]


def test_closing_finishes_what_was_asked_of_actors(options: ActorOptions) -> None:
    with Kernel() as kernel:
        counter = kernel.spawn(Counter, options=options)
        refs = [counter.add() for _ in range(1000)]
    assert refs[-1].done
    assert not [thread for thread in threading.enumerate() if "srds-actor" in thread.name]
    with pytest.raises(KernelClosed):
        counter.add()


def test_closing_by_an_error_ends_actors_at_once() -> None:
    running = threading.Event()
    refs = []

    def endless() -> None:
        running.set()
        while True:
            time.sleep(0.001)

    class LeftOpenError(Exception):
        pass

    kernel = Kernel()
    counter = kernel.spawn(Counter, options=THREAD)
    waiting = kernel.spawn(Waiting, options=THREAD)
    refs = [counter.call(endless), counter.add(), waiting.wait()]
    assert running.wait(30)

    def use() -> None:
        with kernel:
            raise LeftOpenError

    with pytest.raises(LeftOpenError):
        use()
    assert all(ref.failed for ref in refs)
    assert not [thread for thread in threading.enumerate() if "srds-actor" in thread.name]


def test_a_call_that_is_given_up_leaves_no_place_for_the_next_while_it_runs() -> None:
    # An inline call runs in one thread and is cancelled by another.
    running, gate = threading.Event(), threading.Event()
    overlapping: list[bool] = []
    inside = threading.Lock()

    def hold() -> None:
        with inside:
            running.set()
            gate.wait(30)

    def look() -> None:
        overlapping.append(inside.locked())

    with Kernel(KernelSettings(threads=1)) as kernel:
        counter = kernel.spawn(Counter, options=INLINE)
        held, after = counter.call(hold), counter.call(look)
        helper = kernel.options(placement="thread").submit(kernel.get, [held])
        helped = kernel.options(placement="thread").submit(lambda: kernel.get(held))
        assert running.wait(30)
        assert kernel.cancel(held)
        gate.set()
        kernel.get(after)
        assert overlapping == [False]
        for ref in (helped, held, helper):
            with pytest.raises(TaskCancelled):
                kernel.get(ref)


def test_instruments_see_calls_as_tasks(options: ActorOptions) -> None:
    seen: list[tuple[str, str]] = []

    class Watch(Instrument):
        def submitted(self, ref: Any) -> None:
            seen.append(("submitted", ref.name.rpartition(":")[2]))

        def started(self, ref: Any) -> None:
            seen.append(("started", ref.name.rpartition(":")[2]))

        def finished(self, ref: Any) -> None:
            seen.append(("finished", ref.name.rpartition(":")[2]))

    with Kernel(KernelSettings(instruments=(Watch(),))) as kernel:
        kernel.get(kernel.spawn(Counter, options=options).add())
    assert sorted(seen) == sorted(
        (event, name)
        for event in ("submitted", "started", "finished")
        for name in ("Counter", "Counter.add")
    )


def test_options_are_checked() -> None:
    for wrong in (
        {"placement": "moon"},
        {"name": ""},
        {"concurrency": 0},
        {"max_pending": -1},
        {"restarts": -1},
        {"checkpoint_every": -1},
    ):
        with pytest.raises(KernelError):
            ActorOptions(**wrong)  # type: ignore[arg-type]
