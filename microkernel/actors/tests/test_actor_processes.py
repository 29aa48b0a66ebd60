"""Actors in processes: the same rules as elsewhere, and what happens when the process dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microkernel import (
    Kernel,
    KernelError,
    KernelSettings,
    MemorySink,
    TaskCancelled,
    current_kernel,
    events,
    read_inputs,
)
from microkernel.actors import ActorOptions, ActorRef
from microkernel.errors import ActorDied, NotSendable

pytestmark = pytest.mark.timeout(60)


def process(**more: Any) -> ActorOptions:
    return ActorOptions(placement="process", **more)


class Counter:
    """Counts, and can be made to die."""

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def fail(self) -> None:
        raise LookupError("no such row")

    def pid(self) -> int:
        return os.getpid()

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def die_once(self, mark: str) -> int:
        if not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.add()

    def die_when_repeated(self, folder: str) -> int:
        runs = len(list(Path(folder).iterdir()))
        Path(folder, str(runs)).touch()
        if runs == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.add()

    def endless(self, mark: str) -> None:
        Path(mark).touch()
        while True:
            time.sleep(0.001)

    def stubborn(self, mark: str) -> None:
        Path(mark).touch()
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(0.001)

    def lock(self) -> object:
        return threading.Lock()


class Saving(Counter):
    """Has checkpoints."""

    def checkpoint(self) -> int:
        return self.value

    def restore(self, value: int) -> None:
        self.value = value


class Dying:
    """Dies while it is constructed, so many times."""

    def __init__(self, folder: str, times: int) -> None:
        made = len(list(Path(folder).iterdir()))
        Path(folder, str(made)).touch()
        if made < times:
            os.kill(os.getpid(), signal.SIGKILL)

    def answer(self) -> int:
        return 42


class Waiting:
    """Its coroutines wait for one another."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()

    async def wait(self) -> str:
        await self.woken.wait()
        return "woken"

    async def wake(self) -> None:
        self.woken.set()

    async def fail(self) -> None:
        raise LookupError("no such row")

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel(KernelSettings(processes=1, grace=0.3)) as opened:
        yield opened


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_calls_run_in_order_in_another_process(kernel: Kernel) -> None:
    counter = kernel.spawn(Counter, 10, options=process())
    assert kernel.get([counter.add(n) for n in range(1000)])[-1] == 10 + sum(range(1000))
    assert kernel.get(counter.pid()) != os.getpid()
    with pytest.raises(LookupError, match="no such row"):
        kernel.get(counter.fail())
    assert kernel.get(counter.add(0)) == 10 + sum(range(1000))


def test_ten_thousand_queued_calls(kernel: Kernel) -> None:
    counter = kernel.spawn(Counter, options=process())
    refs = [counter.add() for _ in range(10_000)]
    assert kernel.get(refs[-1]) == 10_000
    pending: Any = refs
    taken = []
    while pending:
        done, pending = kernel.wait(pending, count=1000)
        taken += kernel.get(done)
    assert taken == list(range(1, 10_001))


def test_large_arguments_and_results_go_through(kernel: Kernel) -> None:
    class Store:
        def keep(self, data: bytes) -> int:
            self.data = data
            return len(data)

        def give(self) -> bytes:
            return self.data

    store = kernel.spawn(Store, options=process())
    assert kernel.get(store.keep(bytes(5_000_000))) == 5_000_000
    assert kernel.get(store.give()) == bytes(5_000_000)


def test_references_are_replaced_by_results_also_inside_values(kernel: Kernel) -> None:
    class Summing:
        def total(self, numbers: list[Any]) -> int:
            return sum(current_kernel().get(n) if hasattr(n, "done") else n for n in numbers)

        def last(self, x: int) -> int:
            return x

    summing = kernel.spawn(Summing, options=process())
    slow = kernel.options(placement="thread").submit(lambda: time.sleep(0.02) or 5)
    refs = [summing.last(slow), summing.total([1, slow]), summing.last(7)]
    assert kernel.get(refs) == [5, 6, 7]


def test_an_error_of_the_constructor_is_every_calls_error(kernel: Kernel) -> None:
    counter = kernel.spawn(Counter, 1, 2, options=process(restarts=3))
    for ref in [counter.add(), counter.add()]:
        with pytest.raises(TypeError, match="positional"):
            kernel.get(ref)
    with pytest.raises(TypeError, match="positional"):
        kernel.get(counter.add())


def test_what_cannot_be_sent_is_the_calls_error(kernel: Kernel) -> None:
    counter = kernel.spawn(Counter, options=process())
    with pytest.raises(NotSendable):
        kernel.get(counter.add(threading.Lock()))
    with pytest.raises(NotSendable):
        kernel.get(counter.lock())
    assert kernel.get(counter.add()) == 1


def test_coroutines_run_at_the_same_time(kernel: Kernel) -> None:
    waiting = kernel.spawn(Waiting, options=process())
    refs = [waiting.wait() for _ in range(50)]
    failing = waiting.fail()
    assert kernel.get(waiting.pid()) != os.getpid()
    assert kernel.cancel(refs[7])
    kernel.get(waiting.wake())
    with pytest.raises(TaskCancelled):
        kernel.get(refs.pop(7))
    assert kernel.get(refs) == ["woken"] * 49
    with pytest.raises(LookupError):
        kernel.get(failing)


def test_threads_of_an_actor_overlap(kernel: Kernel) -> None:
    class Meeting:
        def __init__(self, n: int) -> None:
            import threading

            self.barrier = threading.Barrier(n)

        def meet(self) -> int:
            return self.barrier.wait(30)

    meeting = kernel.spawn(Meeting, 3, options=process(concurrency=3))
    assert sorted(kernel.get([meeting.meet() for _ in range(3)])) == [0, 1, 2]


def test_a_crash_fails_what_was_asked_and_says_what_had_begun(kernel: Kernel) -> None:
    counter = kernel.spawn(Counter, options=process())
    answered, dying, queued = counter.add(), counter.die(), counter.add()
    assert kernel.get(answered) == 1
    for ref, begun in ((dying, True), (queued, False), (counter.add(), False)):
        with pytest.raises(ActorDied) as raised:
            kernel.get(ref)
        assert raised.value.begun == begun


def test_a_crash_between_calls_is_noticed(kernel: Kernel) -> None:
    counter = kernel.spawn(Counter, 5, options=process(restarts=1))
    assert kernel.get(counter.add()) == 6
    first = kernel.get(counter.pid())
    os.kill(first, signal.SIGKILL)
    results = []
    end = time.monotonic() + 30
    while not results and time.monotonic() < end:
        with contextlib.suppress(ActorDied):  # one that was sent to the dying process
            results.append(kernel.get(counter.add()))
    assert results[0] in (6, 7)
    assert kernel.get(counter.pid()) != first


def test_calls_are_run_again_if_asked_for(kernel: Kernel, tmp_path: Path) -> None:
    counter = kernel.spawn(Counter, options=process(restarts=1, retry_calls=True))
    refs = [counter.die_once(str(tmp_path / "died")), *(counter.add() for _ in range(100))]
    assert kernel.get(refs) == list(range(1, 102))


def test_a_restart_continues_from_the_checkpoint(kernel: Kernel) -> None:
    saving = kernel.spawn(Saving, options=process(restarts=1, checkpoint_every=10))
    assert kernel.get([saving.add() for _ in range(25)])[-1] == 25
    with pytest.raises(ActorDied):
        kernel.get(saving.die())
    # Without retry_calls, what was done since the last checkpoint is lost.
    assert kernel.get(saving.add()) == 21


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_nothing_is_lost_with_checkpoints_and_retries(
    kernel: Kernel, tmp_path: Path, every: int
) -> None:
    saving = kernel.spawn(
        Saving, options=process(restarts=2, checkpoint_every=every, retry_calls=True)
    )
    refs = []
    for i in range(300):
        mark = str(tmp_path / f"{i // 100}")
        refs.append(saving.die_once(mark) if i in (50, 150) else saving.add())
    assert kernel.get(refs) == list(range(1, 301))


def test_a_crash_while_calls_are_run_again_loses_nothing(kernel: Kernel, tmp_path: Path) -> None:
    saving = kernel.spawn(
        Saving, options=process(restarts=3, checkpoint_every=1000, retry_calls=True)
    )
    runs = tmp_path / "runs"
    runs.mkdir()
    refs = [saving.add() for _ in range(20)]
    refs.append(saving.die_when_repeated(str(runs)))
    refs += [saving.add() for _ in range(20)]
    assert kernel.get(refs) == list(range(1, 42))
    refs = [saving.die_once(str(tmp_path / "died")), saving.add()]
    assert kernel.get(refs) == [42, 43]
    assert len(list(runs.iterdir())) == 3


def test_random_kills_lose_and_repeat_nothing(kernel: Kernel) -> None:
    saving = kernel.spawn(
        Saving, options=process(restarts=20, checkpoint_every=5, retry_calls=True)
    )
    refs: list[Any] = []
    for _ in range(8):
        os.kill(kernel.get(saving.pid()), signal.SIGKILL)
        refs += [saving.add() for _ in range(50)]
    assert kernel.get(refs) == list(range(1, 401))


def test_dying_while_it_is_constructed(kernel: Kernel, tmp_path: Path) -> None:
    dying = kernel.spawn(Dying, str(tmp_path), 2, options=process(restarts=2, retry_calls=True))
    assert kernel.get(dying.answer()) == 42


def test_the_limit_of_restarts_ends_the_actor(kernel: Kernel, tmp_path: Path) -> None:
    dying = kernel.spawn(Dying, str(tmp_path), 2, options=process(restarts=1, retry_calls=True))
    for ref in (dying.answer(), dying.answer()):
        with pytest.raises(ActorDied):
            kernel.get(ref)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_running_call_is_interrupted(kernel: Kernel, tmp_path: Path) -> None:
    counter = kernel.spawn(Counter, options=process())
    endless, after = counter.endless(str(tmp_path / "begun")), counter.add()
    wait_for(tmp_path / "begun")
    assert kernel.cancel(endless)
    assert kernel.get(after) == 1


def test_queued_calls_are_cancelled_before_they_run(kernel: Kernel, tmp_path: Path) -> None:
    counter = kernel.spawn(Counter, options=process())
    endless = counter.endless(str(tmp_path / "begun"))
    queued = [counter.add() for _ in range(10)]
    wait_for(tmp_path / "begun")
    assert all(kernel.cancel(ref) for ref in queued)
    assert kernel.cancel(endless)
    assert kernel.get(counter.add()) == 1


def test_stopping_now_kills_a_call_that_does_not_return(kernel: Kernel, tmp_path: Path) -> None:
    counter = kernel.spawn(Counter, options=process())
    pid = kernel.get(counter.pid())
    endless, queued = counter.endless(str(tmp_path / "begun")), counter.add()
    wait_for(tmp_path / "begun")
    kernel.stop(counter, now=True)
    for ref, begun in ((endless, True), (queued, False)):
        with pytest.raises(ActorDied) as raised:
            kernel.get(ref)
        assert raised.value.begun == begun
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.001)
    assert not Path(f"/proc/{pid}").exists()


def test_a_stopped_actor_gives_its_process_back(kernel: Kernel) -> None:
    for i in range(70):  # more than there are places
        numbers = kernel.spawn(list, (i,), options=process())
        assert kernel.get(numbers.pop()) == i
        kernel.stop(numbers)


def test_workers_call_actors(kernel: Kernel) -> None:
    def use(actor: ActorRef, n: int) -> list[int]:
        here = current_kernel()
        return here.get([actor.add() for _ in range(n)])

    elsewhere = kernel.options(placement="process")
    for placement in ("process", "thread", "inline"):
        counter = kernel.spawn(Counter, options=ActorOptions(placement=placement))
        results = kernel.get([elsewhere.submit(use, counter, 10) for _ in range(4)])
        assert sorted(n for found in results for n in found) == list(range(1, 41))
        with pytest.raises(LookupError):
            kernel.get(elsewhere.submit(lambda a: current_kernel().get(a.fail()), counter))


def test_workers_find_actors_by_name_and_give_references_back(kernel: Kernel) -> None:
    def use(name: str) -> ActorRef:
        found = current_kernel().actor(name)
        current_kernel().get(found.add())
        return found

    kernel.spawn(Counter, options=process(name="counted"))
    elsewhere = kernel.options(placement="process")
    again = kernel.get(elsewhere.submit(use, "counted"))
    assert again == kernel.actor("counted")
    assert kernel.get(again.add()) == 2
    with pytest.raises(KernelError, match="no actor is named 'nobody'"):
        kernel.get(elsewhere.submit(use, "nobody"))
    kernel.stop(again)


def test_actors_in_processes_call_one_another(kernel: Kernel) -> None:
    class Front:
        def __init__(self, back: ActorRef) -> None:
            self.back = back

        def add(self, n: int) -> int:
            return current_kernel().get(self.back.add(n))

    back = kernel.spawn(Counter, options=process())
    fronts = [kernel.spawn(Front, back, options=process()) for _ in range(2)]
    refs = [front.add(1) for _ in range(50) for front in fronts]
    assert sorted(kernel.get(refs)) == list(range(1, 101))


def test_answers_are_inputs_of_a_recorded_decision() -> None:
    sink = MemorySink()
    with Kernel(KernelSettings(processes=1), sink=sink) as kernel:
        counter = kernel.spawn(Counter, 5, options=process())

        def decide() -> int:
            own = kernel.spawn(Counter, options=process())
            return kernel.get(counter.add()) + kernel.get(own.add())

        assert kernel.decision(decide).answer == 7
    found = [p for kind, _, _, p in sink.events if kind == events.INPUT]
    assert [(i.kind, i.key, i.value) for p in found for i in read_inputs(p)] == [
        ("actor", "add", 6)
    ]


def test_closing_with_actors_at_work_is_bounded(tmp_path: Path) -> None:
    class LeftOpenError(Exception):
        pass

    kernel = Kernel(KernelSettings(processes=1))
    counter = kernel.spawn(Counter, options=process())
    waiting = kernel.spawn(Waiting, options=process())
    refs = [counter.endless(str(tmp_path / "begun")), counter.add(), waiting.wait()]
    pid = kernel.get(waiting.pid())

    def use() -> None:
        with kernel:
            wait_for(tmp_path / "begun")
            raise LeftOpenError

    began = time.monotonic()
    with pytest.raises(LeftOpenError):
        use()
    assert time.monotonic() - began < 10
    assert all(ref.failed for ref in refs)
    assert not Path(f"/proc/{pid}").exists()


def test_a_call_that_does_not_stop_when_told_to_is_killed(kernel: Kernel, tmp_path: Path) -> None:
    counter = kernel.spawn(Saving, options=process(restarts=1, retry_calls=True))
    stubborn, after = counter.stubborn(str(tmp_path / "begun")), counter.add()
    wait_for(tmp_path / "begun")
    assert kernel.cancel(stubborn)
    with pytest.raises(TaskCancelled):
        kernel.get(stubborn)
    assert kernel.get(after) == 1


def test_a_checkpoint_that_fails_leaves_the_last_one(kernel: Kernel) -> None:
    class Choosy(Saving):
        def checkpoint(self) -> int:
            if self.value > 10:
                raise ValueError("too large")
            return self.value

    saving = kernel.spawn(Choosy, options=process(restarts=1, checkpoint_every=5, retry_calls=True))
    assert kernel.get([saving.add() for _ in range(30)])[-1] == 30
    os.kill(kernel.get(saving.pid()), signal.SIGKILL)
    assert kernel.get(saving.add()) == 31


def test_a_restore_that_fails_is_every_calls_error(kernel: Kernel) -> None:
    class Forgetful(Saving):
        def restore(self, value: int) -> None:
            raise LookupError("forgotten")

    saving = kernel.spawn(
        Forgetful, options=process(restarts=1, checkpoint_every=1, retry_calls=True)
    )
    kernel.get(saving.add())
    os.kill(kernel.get(saving.pid()), signal.SIGKILL)
    for ref in (saving.add(), saving.add()):
        with pytest.raises(LookupError, match="forgotten"):
            kernel.get(ref)


def test_a_worker_spawns_actors_of_its_own(kernel: Kernel) -> None:
    def use() -> tuple[list[int], bool]:
        here = current_kernel()
        counter = here.spawn(Counter, 5)
        return here.get([counter.add(), counter.add()]), here.get(counter.pid()) == os.getpid()

    assert kernel.get(kernel.options(placement="process").submit(use)) == ([6, 7], True)


def test_a_forked_child_cannot_call(kernel: Kernel) -> None:
    counter = kernel.spawn(Counter, options=process())
    kernel.get(counter.add())
    child = os.fork()
    if child == 0:
        try:
            counter.add()
        except KernelError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert kernel.get(counter.add()) == 2


def test_closing_finishes_what_was_asked_of_an_actor() -> None:
    with Kernel(KernelSettings(processes=1)) as kernel:
        counter = kernel.spawn(Counter, options=process())
        refs = [counter.add() for _ in range(5000)]
    assert refs[-1].done
    assert not any(ref.failed for ref in refs)


def test_options_that_contradict_one_another_are_refused(kernel: Kernel) -> None:
    with pytest.raises(KernelError, match="no method checkpoint"):
        kernel.spawn(Counter, options=process(checkpoint_every=1))
    with pytest.raises(KernelError, match="concurrent"):
        kernel.spawn(Saving, options=process(checkpoint_every=1, concurrency=2))
