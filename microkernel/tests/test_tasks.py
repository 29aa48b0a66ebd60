"""Tasks inline and in threads: arguments, errors, cancellation, deadlines, memory, closing."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from microkernel import (
    DeadlineMissed,
    Instrument,
    Kernel,
    KernelClosed,
    KernelError,
    KernelSettings,
    TaskCancelled,
    TaskOptions,
    current_task,
)

ROOT = Path(__file__).parents[2]
INLINE = KernelSettings()
ONE_THREAD = KernelSettings(placement="thread", threads=1)
THREADS = KernelSettings(placement="thread", threads=2)


@pytest.fixture(params=[INLINE, ONE_THREAD, THREADS], ids=["inline", "one thread", "threads"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with Kernel(request.param) as opened:
        yield opened


def increment(x: int) -> int:
    return x + 1


def add(*numbers: int, scale: int = 1) -> int:
    return sum(numbers) * scale


def fail(message: str = "broken") -> None:
    raise ValueError(message)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class TestArguments:
    def test_a_chain_of_ten_thousand_runs(self, kernel: Kernel) -> None:
        ref = kernel.put(0)
        for _ in range(10_000):
            ref = kernel.submit(increment, ref)
        assert kernel.get(ref) == 10_000

    def test_a_ladder_of_diamonds_runs_each_task_once(self, kernel: Kernel) -> None:
        runs: list[int] = []

        def both(a: int, b: int) -> int:
            runs.append(1)
            return a + b

        ref = kernel.put(1)
        for _ in range(200):
            ref = kernel.submit(both, ref, ref)
        assert kernel.get(ref) == 2**200
        assert len(runs) == 200

    def test_named_arguments_may_be_references(self, kernel: Kernel) -> None:
        two = kernel.submit(increment, 1)
        assert kernel.get(kernel.submit(add, 1, two, scale=two)) == 6
        assert kernel.get(kernel.submit(add, scale=kernel.put(3))) == 0

    def test_references_inside_containers_are_left_alone(self, kernel: Kernel) -> None:
        ref = kernel.put(1)
        assert kernel.get(kernel.submit(lambda refs: refs[0] is ref, [ref]))

    def test_inline_and_threaded_tasks_feed_each_other(self) -> None:
        with Kernel(THREADS) as kernel:
            ref = kernel.put(0)
            for i in range(100):
                place = kernel.options(placement=("inline", "thread")[i % 2])
                ref = place.submit(increment, ref)
            assert kernel.get(ref) == 100

    def test_arguments_may_have_any_name(self, kernel: Kernel) -> None:
        def named(function: int, self: int, args: int) -> int:
            return function + self + args

        assert kernel.get(kernel.submit(named, function=1, self=2, args=3)) == 6

    def test_a_reference_of_another_kernel_must_be_done(self) -> None:
        with Kernel() as one, Kernel() as other:
            ref = one.submit(increment, 1)
            for use in (
                lambda: other.submit(increment, ref),
                lambda: other.submit(increment, x=ref),
                lambda: other.get(ref),
                lambda: other.get([ref], timeout=1),
                lambda: other.wait([ref]),
                lambda: other.cancel(ref),
            ):
                with pytest.raises(KernelError, match="another kernel"):
                    use()
            assert one.get(ref) == 2
            assert other.get(other.submit(increment, ref)) == 3

    def test_map_yields_in_order_and_takes_endless_iterables(self, kernel: Kernel) -> None:
        taken: list[int] = []

        def endless() -> Iterator[int]:
            n = 0
            while True:
                taken.append(n)
                yield n
                n += 1

        results = kernel.map(increment, endless())
        assert [next(results) for _ in range(2000)] == list(range(1, 2001))
        assert len(taken) < 2000 + 1100
        assert list(kernel.map(add, [1, 2, 3], [10, 20, 30])) == [11, 22, 33]
        assert list(kernel.map(add, [])) == []

    def test_ready_inline_tasks_run_in_the_order_of_submission(self) -> None:
        order: list[int] = []
        with Kernel() as kernel:
            refs = [kernel.submit(order.append, i) for i in range(500)]
            kernel.get(refs[200])
            assert order == [200]
            kernel.wait(refs, 500)
        assert order == [200, *range(200), *range(201, 500)]


class TestErrors:
    def test_an_error_keeps_the_frames_of_its_task(self, kernel: Kernel) -> None:
        with pytest.raises(ValueError, match="broken") as caught:
            kernel.get(kernel.submit(fail))
        frames = [frame.name for frame in traceback.extract_tb(caught.tb)]
        assert "fail" in frames
        assert caught.value.__notes__[0].startswith(f"in task {__name__}:fail (")

    def test_several_gets_do_not_make_the_traceback_grow(self, kernel: Kernel) -> None:
        refs = [kernel.submit(fail)]
        refs += [kernel.submit(increment, refs[0]), kernel.submit(increment, x=refs[0])]
        refs[1].attachment("mine", dict)
        lengths = set()
        for ref in refs * 5:
            with pytest.raises(ValueError, match="broken") as caught:
                kernel.get(ref)
            names = [frame.name for frame in traceback.extract_tb(caught.tb)]
            assert names.count("fail") == 1
            lengths.add(len(names))
            assert len(caught.value.__notes__) == 1
        assert len(lengths) <= 2

    def test_an_error_ends_all_that_depend_on_it(self, kernel: Kernel) -> None:
        ran: list[int] = []
        ref = kernel.submit(fail)
        refs = [ref]
        for _ in range(10_000):
            refs.append(kernel.submit(lambda *_: ran.append(1), refs[-1], ref))
        with pytest.raises(ValueError, match="broken"):
            kernel.get(refs[-1])
        kernel.wait(refs, len(refs))
        assert all(ref.failed for ref in refs)
        assert ran == []

    def test_an_error_that_cannot_be_annotated_is_still_the_error(self, kernel: Kernel) -> None:
        class Stubborn(Exception):
            def add_note(self, note: str) -> None:
                raise RuntimeError("no notes")

        def stubborn() -> None:
            raise Stubborn

        with pytest.raises(Stubborn):
            kernel.get(kernel.submit(stubborn))

    def test_what_is_no_reference_is_named(self, kernel: Kernel) -> None:
        with pytest.raises(KernelError, match="not int"):
            kernel.get([5])  # type: ignore[list-item]
        with pytest.raises(KernelError, match="not str"):
            kernel.wait(["x"])  # type: ignore[list-item]

    def test_options_out_of_range_are_refused(self, kernel: Kernel) -> None:
        for wrong in ({"placement": "moon"}, {"deadline": 0.0}, {"deadline": float("nan")}):
            with pytest.raises(KernelError):
                TaskOptions(**wrong)  # type: ignore[arg-type]
        with pytest.raises(KernelError, match="threads is -1"):
            KernelSettings(threads=-1)
        with pytest.raises(KernelError, match="instrument"):
            KernelSettings(instruments=(print,))  # type: ignore[arg-type]
        with pytest.raises(KernelError, match="timeout"):
            kernel.get(kernel.put(1), timeout=-1)
        with pytest.raises(KernelError, match="wait for -1"):
            kernel.wait([], -1)


class TestCancelling:
    def test_a_queued_task_never_runs(self, kernel: Kernel) -> None:
        gate, ran = threading.Event(), []
        if kernel.settings.placement == "thread":
            for _ in range(kernel.settings.threads):
                kernel.submit(gate.wait)
        ref = kernel.submit(ran.append, 1)
        later = kernel.submit(increment, ref)
        assert kernel.cancel(ref)
        gate.set()
        for cancelled in (ref, later):
            with pytest.raises(TaskCancelled, match="append was cancelled"):
                kernel.get(cancelled)
        assert ran == []
        assert not kernel.cancel(ref)

    def test_what_is_done_cannot_be_cancelled(self, kernel: Kernel) -> None:
        ref = kernel.submit(increment, 1)
        assert kernel.get(ref) == 2
        assert not kernel.cancel(ref)
        assert kernel.get(ref) == 2

    def test_a_running_task_is_stopped_and_its_worker_goes_on(self) -> None:
        started, stopped = threading.Event(), threading.Event()

        def spin() -> None:
            try:
                started.set()
                while True:
                    pass
            finally:
                stopped.set()

        with Kernel(ONE_THREAD) as kernel:
            ref = kernel.submit(spin)
            assert started.wait(30)
            assert kernel.cancel(ref)
            assert ref.cancel_requested
            with pytest.raises(TaskCancelled):
                kernel.get(ref)
            assert stopped.wait(30)
            assert kernel.get([kernel.submit(increment, i) for i in range(100)])[-1] == 100

    @pytest.mark.parametrize("how", ["get", "timeout", "wait"])
    def test_a_task_that_waits_for_another_is_stopped(self, how: str) -> None:
        gate, ended = threading.Event(), threading.Event()
        seen: list[str] = []

        def waiting(kernel: Kernel, ref: Any) -> None:
            try:
                if how == "wait":
                    kernel.wait([ref])
                else:
                    kernel.get(ref, timeout=None if how == "get" else 60)
            except TaskCancelled as error:
                seen.append(str(error))
                raise
            finally:
                ended.set()

        with Kernel(THREADS) as kernel:
            slow = kernel.submit(gate.wait)
            wait_until(lambda: "running" in repr(slow))
            ref = kernel.submit(lambda: waiting(kernel, slow))
            wait_until(lambda: "running" in repr(ref))
            assert kernel.cancel(ref)
            assert ended.wait(30)
            gate.set()
        assert len(seen) == 1

    def test_a_task_on_top_of_a_cancelled_one_is_not_hit(self) -> None:
        inner_started, go_on = threading.Event(), threading.Event()
        results: list[int] = []

        def inner() -> int:
            inner_started.set()
            while not go_on.is_set():
                pass
            return 5

        def outer(kernel: Kernel) -> None:
            ref = kernel.submit(inner)
            results.append(0)
            try:
                kernel.get(ref)
            finally:
                results.append(kernel.get(ref) if ref.done else -1)

        with Kernel(ONE_THREAD) as kernel:
            ref = kernel.submit(outer, kernel)
            assert inner_started.wait(30)
            assert kernel.cancel(ref)
            go_on.set()
            with pytest.raises(TaskCancelled):
                kernel.get(ref)
        assert results == [0, 5]

    def test_a_task_may_give_itself_up(self, kernel: Kernel) -> None:
        def give_up() -> int:
            task = current_task()
            assert task is not None
            kernel.cancel(task)
            return 1

        with pytest.raises(TaskCancelled):
            kernel.get(kernel.submit(give_up))


class TestDeadlines:
    def test_a_task_that_has_not_started_misses_its_deadline(self) -> None:
        begun, gate, ran = threading.Event(), threading.Event(), []
        with Kernel(ONE_THREAD) as kernel:
            kernel.submit(lambda: (begun.set(), gate.wait()))
            assert begun.wait(30)
            ref = kernel.options(deadline=0.01).submit(ran.append, 1)
            with pytest.raises(DeadlineMissed, match="append had no result by its deadline"):
                kernel.get(ref)
            gate.set()
        assert ran == []

    def test_a_running_task_misses_its_deadline_and_is_stopped(self) -> None:
        stopped = threading.Event()

        def spin() -> None:
            try:
                while True:
                    pass
            finally:
                stopped.set()

        with Kernel(THREADS) as kernel:
            ref = kernel.options(deadline=0.02).submit(spin)
            with pytest.raises(DeadlineMissed):
                kernel.get(ref)
            assert stopped.wait(30)

    def test_an_inline_task_that_took_too_long_has_missed_it(self) -> None:
        with Kernel() as kernel:
            ref = kernel.options(deadline=0.001).submit(time.sleep, 0.01)
            with pytest.raises(DeadlineMissed):
                kernel.get(ref)

    @pytest.mark.parametrize("how", ["get", "timeout", "wait", "close"])
    def test_a_deadline_passes_whoever_waits_for_whatever(self, how: str) -> None:
        """Here for a task that depends on the late one, or for the end of the kernel."""
        gate = threading.Event()
        with Kernel(THREADS) as kernel:
            late = kernel.options(deadline=0.01).submit(gate.wait)
            ref = kernel.submit(increment, late)
            if how == "get":
                with pytest.raises(DeadlineMissed):
                    kernel.get(ref)
            elif how == "timeout":
                with pytest.raises(DeadlineMissed):
                    kernel.get([ref], timeout=60)
            elif how == "wait":
                done, pending = kernel.wait([ref, kernel.submit(gate.wait)])
                assert done == [ref]
                assert len(pending) == 1
            else:
                threading.Timer(0.1, gate.set).start()
                kernel.close()
            assert late.failed
            gate.set()

    def test_a_result_in_time_is_a_result(self, kernel: Kernel) -> None:
        soon = kernel.options(deadline=60)
        assert kernel.get([soon.submit(increment, i) for i in range(100)])[-1] == 100

    def test_results_do_not_outlive_their_use_because_of_a_deadline(self) -> None:
        with Kernel() as kernel:
            soon = kernel.options(deadline=3600)
            kernel.get([soon.submit(bytes, 1) for _ in range(200)])
            gc.collect()
            before = sum(type(o).__name__ == "Ref" for o in gc.get_objects())
            for _ in range(2000):
                kernel.get(soon.submit(bytes, 1))
            gc.collect()
            assert sum(type(o).__name__ == "Ref" for o in gc.get_objects()) < before + 200


class TestInterrupting:
    @pytest.mark.parametrize("placement", ["inline", "thread"])
    @pytest.mark.parametrize("wait", ["kernel.get(ref)", "kernel.wait([ref])", "kernel.close()"])
    def test_ctrl_c_ends_a_wait_at_once(self, placement: str, wait: str) -> None:
        program = f"""
import sys, threading, time
from microkernel import Kernel, KernelSettings
def busy():
    print("started", flush=True)
    while True:
        time.sleep(0.001)
try:
    with Kernel(KernelSettings(placement={placement!r}, threads=1)) as kernel:
        ref = kernel.submit(busy)
        {wait}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(7)
"""
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == "interrupted\n"
            assert process.wait(30) == 7


class TestThreads:
    @pytest.mark.parametrize("threads", [1, 2])
    def test_a_thousand_nested_waits_need_no_more_threads(self, threads: int) -> None:
        limit = sys.getrecursionlimit()

        def nest(kernel: Kernel, n: int) -> int:
            if n == 0:
                return 0
            ref = kernel.submit(nest, kernel, n - 1)
            if n % 3 == 0:
                return kernel.get(ref) + 1
            if n % 3 == 1:
                return kernel.get([ref], timeout=60)[0] + 1
            (done,), _ = kernel.wait([ref])
            return kernel.get(done) + 1

        stack = threading.stack_size(256 << 20)
        sys.setrecursionlimit(20_000)
        try:
            with Kernel(KernelSettings(placement="thread", threads=threads)) as kernel:
                assert kernel.get(kernel.submit(nest, kernel, 1000)) == 1000
        finally:
            sys.setrecursionlimit(limit)
            threading.stack_size(stack)

    def test_a_task_does_not_run_on_top_of_one_that_it_waits_for(self) -> None:
        """The unrelated task would wait, through a thread, for the one under it, for ever."""
        with Kernel(THREADS) as kernel:
            inline = kernel.options(placement="inline")
            gate = threading.Event()
            slow = kernel.submit(gate.wait)
            first = inline.submit(lambda: kernel.get(slow))
            through = kernel.submit(lambda: kernel.get(first))
            unrelated = inline.submit(lambda: kernel.get(through))
            threading.Timer(0.05, gate.set).start()
            assert kernel.get(first, timeout=60)
            assert kernel.get(unrelated)

    def test_many_threads_share_a_kernel(self, kernel: Kernel) -> None:
        errors: list[BaseException] = []

        def use(seed: int) -> None:
            try:
                for i in range(200):
                    a = kernel.submit(increment, seed + i)
                    b = kernel.submit(add, a, a)
                    assert kernel.get(b) == 2 * (seed + i + 1)
                refs = [kernel.submit(increment, n) for n in range(100)]
                done, pending = kernel.wait(refs, 50)
                assert len(done) == 50
                assert sorted(kernel.get([*done, *pending])) == list(range(1, 101))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=use, args=(n * 1000,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert errors == []

    def test_work_done_in_destructors_loses_no_wake_up(self) -> None:
        class Careless:
            def __del__(self) -> None:
                time.sleep(0)

        with Kernel(THREADS) as kernel:
            for _ in range(300):
                given_up = [kernel.submit(lambda _: None, Careless()) for _ in range(4)]
                refs = [kernel.submit(increment, i) for i in range(4)]
                for ref in given_up:
                    kernel.cancel(ref)
                del given_up, ref
                assert kernel.get(refs, timeout=60) == [1, 2, 3, 4]

    def test_a_thread_that_cannot_be_started_is_an_error_at_submission(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_more(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with Kernel(ONE_THREAD) as kernel:
            monkeypatch.setattr(threading.Thread, "start", no_more)
            with pytest.raises(KernelError, match="no worker thread"):
                kernel.submit(increment, 1)
            monkeypatch.undo()
            assert kernel.get(kernel.submit(increment, 1)) == 2

    def test_a_forked_child_does_not_use_its_parents_kernel(self) -> None:
        program = """
import os, threading
from microkernel import Kernel, KernelClosed, KernelSettings
gate = threading.Event()
with Kernel(KernelSettings(placement="thread", threads=1)) as kernel:
    ref, done = kernel.submit(gate.wait), kernel.put(5)
    child = os.fork()
    if child == 0:
        assert kernel.get(done) == 5
        for use in (lambda: kernel.submit(int), lambda: kernel.get(ref), kernel.put):
            try:
                use(1) if use == kernel.put else use()
            except KernelClosed as error:
                assert "forked" in str(error)
            else:
                os._exit(3)
        with Kernel(KernelSettings(placement="thread", threads=1)) as own:
            assert own.get(own.submit(int, "7")) == 7
        kernel.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.set()
    assert kernel.get(ref)
"""
        subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


class TestClosing:
    def test_what_was_submitted_is_finished(self) -> None:
        for settings in (INLINE, ONE_THREAD, THREADS):
            done: list[int] = []
            with Kernel(settings) as kernel:
                inline = kernel.options(placement="inline")
                for i in range(100):
                    inline.submit(done.append, kernel.submit(increment, i))
            assert sorted(done) == list(range(1, 101))

    def test_an_error_in_the_block_gives_the_rest_up(self, kernel: Kernel) -> None:
        gate, ran = threading.Event(), []
        refs: list[Any] = []

        def block() -> None:
            with other:
                for _ in range(3):
                    other.submit(gate.wait, 60)
                refs.extend(other.submit(ran.append, i) for i in range(10))
                refs.append(other.submit(ran.append, refs[0]))
                threading.Timer(0.1, gate.set).start()
                raise RuntimeError("out")

        other = Kernel(kernel.settings)
        with pytest.raises(RuntimeError, match="out"):
            block()
        assert all(ref.failed for ref in refs)
        assert ran == []
        with pytest.raises(TaskCancelled):
            other.get(refs[-1])

    def test_a_closed_kernel_says_so(self) -> None:
        kernel = Kernel()
        kernel.close()
        kernel.close()
        for use in (
            lambda: kernel.submit(increment, 1),
            lambda: kernel.options(deadline=1.0).submit(increment, 1),
            lambda: kernel.map(increment, [1]),
            lambda: kernel.options(deadline=1.0).map(increment, [1]),
            lambda: kernel.put(1),
            lambda: kernel.decision(increment, 1),
        ):
            with pytest.raises(KernelClosed, match="the kernel is closed"):
                use()

    def test_a_task_cannot_close_its_kernel(self, kernel: Kernel) -> None:
        with pytest.raises(KernelError, match="closes the kernel that runs it"):
            kernel.get(kernel.submit(kernel.close))
        assert kernel.get(kernel.submit(increment, 1)) == 2

    @pytest.mark.slow
    def test_a_task_that_does_not_stop_is_left_behind(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate, started = threading.Event(), threading.Semaphore(0)

        def stubborn() -> None:
            started.release()
            gate.wait()

        kernel = Kernel(THREADS)
        for _ in range(2):
            kernel.submit(stubborn)
            assert started.acquire(timeout=30)
        begin = time.monotonic()
        with caplog.at_level(logging.WARNING, "microkernel"):
            kernel.close(cancel=True)
        assert time.monotonic() - begin < 9
        assert "stubborn does not stop" in caplog.text
        gate.set()


class Watcher(Instrument):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def submitted(self, ref: Any) -> None:
        self.seen.append(("submitted", ref.name.partition(":")[2]))

    def started(self, ref: Any) -> None:
        self.seen.append(("started", ref.name.partition(":")[2]))

    def finished(self, ref: Any) -> None:
        self.seen.append(("finished", ref.name.partition(":")[2]))


class TestInstruments:
    @pytest.mark.parametrize("placement", ["inline", "thread"])
    def test_events_of_a_task_come_in_order(self, placement: str) -> None:
        watcher = Watcher()
        settings = KernelSettings(placement=placement, threads=1, instruments=(watcher,))
        with Kernel(settings) as kernel:
            kernel.get(kernel.submit(increment, 1))
            failed = kernel.submit(fail)
            kernel.wait([failed])
            kernel.wait([kernel.submit(add, failed)])
        of = {name: [e for e, n in watcher.seen if n == name] for name in ("increment", "fail")}
        assert list(of.values()) == [["submitted", "started", "finished"]] * 2
        assert [e for e, n in watcher.seen if n == "add"] == ["submitted", "finished"]

    def test_one_that_raises_is_reported_once_and_breaks_nothing(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(Instrument):
            def started(self, ref: Any) -> None:
                raise RuntimeError("broken instrument")

            def finished(self, ref: Any) -> None:
                raise RuntimeError("broken instrument")

        watcher = Watcher()
        with Kernel(KernelSettings(instruments=(Broken(), watcher))) as kernel:
            assert kernel.get([kernel.submit(increment, i) for i in range(5)])[-1] == 5
        assert caplog.text.count("an instrument raised and is not called again") == 2
        assert len(watcher.seen) == 15

    def test_ctrl_c_in_an_instrument_loses_no_task(self) -> None:
        class Interrupted(Instrument):
            def finished(self, ref: Any) -> None:
                if ref.name.endswith("fail"):
                    raise KeyboardInterrupt

        with Kernel(KernelSettings(instruments=(Interrupted(),))) as kernel:
            ref = kernel.submit(fail)
            later = kernel.submit(increment, ref)
            with pytest.raises(KeyboardInterrupt):
                kernel.get(later)
            assert later.failed


class TestMemory:
    @pytest.mark.parametrize("settings", [INLINE, THREADS], ids=["inline", "threads"])
    def test_a_hundred_thousand_tasks_leave_nothing_behind(self, settings: KernelSettings) -> None:
        def round_of(kernel: Kernel) -> None:
            refs = [kernel.submit(increment, i) for i in range(1000)]
            kernel.get(refs)
            refs = [kernel.submit(lambda x, i=i: x + i, refs[i]) for i in range(500)]
            pending: Any = refs
            while pending:
                _, pending = kernel.wait(pending, 100)

        with Kernel(settings) as kernel:
            kernel.submit(increment, 1)  # never asked for: stays at the front of its queue
            for _ in range(3):
                round_of(kernel)
            gc.collect()
            tracemalloc.start()
            try:
                round_of(kernel)
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
                for _ in range(20):
                    round_of(kernel)
                gc.collect()
                assert tracemalloc.get_traced_memory()[0] - before < 50_000
            finally:
                tracemalloc.stop()

    def test_results_go_with_their_references(self, kernel: Kernel) -> None:
        class Result:
            alive = 0

            def __init__(self) -> None:
                Result.alive += 1

            def __del__(self) -> None:
                Result.alive -= 1

        for _ in range(100):
            ref = kernel.submit(Result)
            kernel.get(ref)
        kernel.get(kernel.submit(increment, 1))
        del ref
        wait_until(lambda: gc.collect() >= 0 and Result.alive <= 2)

    def test_a_long_chain_that_nobody_runs_is_freed(self) -> None:
        kernel = Kernel()
        ref = kernel.submit(increment, 0)
        for _ in range(100_000):
            ref = kernel.submit(increment, ref)
        del ref
        kernel.close(cancel=True)
        del kernel
        gc.collect()

    def test_frequent_signals_do_not_disturb(self) -> None:
        old = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            with Kernel(THREADS) as kernel:
                assert kernel.get(kernel.submit(time.sleep, 0.1)) is None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)


def test_the_current_task_is_known_inside_and_nowhere_else(kernel: Kernel) -> None:
    assert current_task() is None
    ref = kernel.submit(lambda: current_task())
    assert kernel.get(ref) is ref
    assert kernel.get(kernel.submit(os.getpid)) == os.getpid()
    assert current_task() is None
