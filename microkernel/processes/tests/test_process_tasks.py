"""Tasks in worker processes: the same rules, ids and results as inline and in threads."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from microkernel import (
    DeadlineMissed,
    Kernel,
    KernelSettings,
    MemorySink,
    Replaying,
    TaskCancelled,
    TaskOptions,
    boundary,
    current_kernel,
    current_task,
    events,
)
from microkernel.errors import KernelError, WorkerCrashed

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def kernel():
    with Kernel(KernelSettings(placement="process", processes=2, grace=0.3)) as opened:
        yield opened


def increment(x, by=1):
    return x + by


def fibonacci(n):
    if n < 2:
        return n
    kernel = current_kernel()
    return sum(kernel.get([kernel.submit(fibonacci, n - 1), kernel.submit(fibonacci, n - 2)]))


def depth(n):
    kernel = current_kernel()
    return 0 if n == 0 else 1 + kernel.get(kernel.submit(depth, n - 1))


def die_once(mark):
    if not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return current_task().attempts


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def spin():
    while True:
        pass


def fail(*arguments):
    raise ValueError(*arguments)


def test_a_task_runs_in_another_process(kernel):
    assert kernel.get(kernel.submit(os.getpid)) != os.getpid()


def test_references_and_named_arguments_arrive_as_values(kernel):
    one = kernel.submit(increment, 0)
    assert kernel.get(kernel.submit(increment, one, by=kernel.submit(increment, 9))) == 11


def test_a_chain_of_dependent_tasks_gives_its_end(kernel):
    ref = kernel.submit(increment, 0)
    for _ in range(300):
        ref = kernel.submit(increment, ref)
    assert kernel.get(ref) == 301


def test_many_tasks_come_back_in_the_order_in_which_they_were_asked_for(kernel):
    assert kernel.get([kernel.submit(increment, n) for n in range(5000)]) == list(range(1, 5001))


def test_ids_are_those_of_an_inline_run(kernel):
    def ids(placement):
        with Kernel(KernelSettings(placement=placement, processes=1), run_id=bytes(16)) as opened:
            refs = [opened.submit(task_ids) for _ in range(3)]
            return opened.get(refs)

    assert ids("process") == ids("inline")


def task_ids():
    kernel = current_kernel()
    nested = [kernel.submit(own_id) for _ in range(3)]
    return [current_task().task_id, *kernel.get(nested)]


def own_id():
    return current_task().task_id


def test_nested_tasks_need_no_more_processes(kernel):
    before = kernel.get(kernel.submit(os.getppid))
    assert kernel.get(kernel.submit(fibonacci, 12)) == 144
    workers = Path(f"/proc/{before}/task/{before}/children").read_text().split()
    assert len(workers) <= 2


def test_a_deep_chain_of_waits_ends(kernel):
    assert kernel.get(kernel.submit(depth, 500)) == 500


def test_an_error_keeps_its_type_and_names_the_line_of_the_worker(kernel):
    with pytest.raises(ValueError, match="a reason") as caught:
        kernel.get(kernel.submit(fail, "a reason"))
    assert any(entry.name == "fail" for entry in caught.traceback)


def test_a_task_whose_worker_is_killed_is_run_again(kernel, tmp_path):
    assert kernel.get(kernel.submit(die_once, str(tmp_path / "died"))) == 2


def test_a_task_that_kills_every_worker_is_given_up_in_the_end(kernel):
    with pytest.raises(WorkerCrashed, match="died"):
        kernel.get(kernel.submit(die))
    assert kernel.get(kernel.submit(increment, 1)) == 2


def test_a_task_that_must_not_run_twice_does_not(kernel, tmp_path):
    mark = tmp_path / "ran"
    with pytest.raises(WorkerCrashed):
        kernel.get(kernel.options(crash_retries=0).submit(die_once, str(mark)))
    assert mark.exists()
    assert kernel.get(kernel.submit(increment, 1)) == 2


def test_a_running_task_is_cancelled_between_two_byte_codes(kernel):
    ref = kernel.submit(spin)
    other = kernel.submit(increment, 1)
    kernel.get(other)
    assert kernel.cancel(ref)
    with pytest.raises(TaskCancelled):
        kernel.get(ref)
    assert kernel.get([kernel.submit(increment, n) for n in range(10)]) == list(range(1, 11))


def blocked():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    spin()


def test_the_process_of_a_task_that_does_not_heed_is_replaced(kernel):
    ref = kernel.submit(blocked)
    time.sleep(0.05)
    assert kernel.cancel(ref)
    assert kernel.get([kernel.submit(increment, n) for n in range(100)]) == list(range(1, 101))


def test_a_missed_deadline_ends_a_task_that_still_runs(kernel):
    with pytest.raises(DeadlineMissed):
        kernel.get(kernel.options(deadline=0.05).submit(spin))
    assert kernel.get(kernel.submit(increment, 1)) == 2


def test_arrays_come_back_as_read_only_views(kernel):
    result = kernel.get(kernel.submit(np.negative, np.arange(100_000.0)))
    assert result[7] == -7
    assert not result.flags.writeable


def test_lambdas_and_closures_are_sent(kernel):
    offset = 5
    assert kernel.get(kernel.submit(lambda x: x + offset, 1)) == 6


def test_a_reference_inside_a_list_is_waited_for(kernel):
    def total(refs):
        return sum(current_kernel().get(refs))

    assert kernel.get(kernel.submit(total, [kernel.submit(increment, n) for n in range(4)])) == 10


def test_what_cannot_be_sent_says_so(kernel):
    with pytest.raises(KernelError):
        kernel.get(kernel.submit(increment, (n for n in range(3))))


def test_coroutines_await_tasks_of_other_processes(kernel):
    async def gather():
        return await asyncio.gather(*[kernel.submit(increment, n) for n in range(50)])

    assert asyncio.run(gather()) == list(range(1, 51))


def test_wait_gives_the_first_that_end(kernel):
    pending = [kernel.submit(increment, n) for n in range(200)]
    taken = []
    while pending:
        done, pending = kernel.wait(pending, count=1)
        taken += kernel.get(done)
    assert sorted(taken) == list(range(1, 201))


def test_thread_tasks_that_depend_on_a_process_go_on_while_nobody_waits(kernel):
    import threading

    ended = threading.Event()
    remote = kernel.submit(increment, 1)
    kernel.options(placement="thread").submit(lambda value: ended.set(), remote)
    assert ended.wait(10)


def read(n):
    return [random.random(), time.time(), boundary.read("feed", n, lambda: n * 2)]


def decide(count):
    kernel = current_kernel()
    return kernel.get([kernel.submit(read, n) for n in range(count)])


def test_a_decision_keeps_and_replays_what_its_tasks_read_in_other_processes():
    sink = MemorySink()
    with Kernel(KernelSettings(placement="process", processes=2), sink=sink) as kernel:
        decision = kernel.decision(decide, 4)
        inputs = [
            (seq, payload)
            for seq, (kind, _, owner, payload) in enumerate(sink.events)
            if kind == events.INPUT and owner == decision.id
        ]
        again = kernel.replay(decision.id, Replaying(inputs), decide, 4)
    assert again.answer == decision.answer


def open_a_decision():
    return current_kernel().decision(increment, 1)


def test_a_worker_opens_no_decisions(kernel):
    with pytest.raises(KernelError, match="worker process"):
        kernel.get(kernel.submit(open_a_decision))


def test_closing_leaves_no_process(tmp_path):
    with Kernel(KernelSettings(placement="process", processes=2)) as kernel:
        pids = set(kernel.get([kernel.submit(os.getpid) for _ in range(100)]))
        server = kernel.get(kernel.submit(os.getppid))
    for pid in (*pids, server):
        assert not Path(f"/proc/{pid}").exists()


def test_closing_with_an_error_gives_running_tasks_up():
    kernel = Kernel(KernelSettings(placement="process", processes=1))
    ref = kernel.submit(spin)
    kernel.submit(increment, 1)
    kernel.close(cancel=True)
    assert ref.failed


def test_a_forked_child_says_that_the_kernel_is_not_its_own(kernel):
    kernel.get(kernel.submit(increment, 1))
    pid = os.fork()
    if pid == 0:
        try:
            kernel.submit(increment, 1)
        except KernelError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert kernel.get(kernel.submit(increment, 1)) == 2


def test_options_of_tasks_hold_for_processes(kernel):
    assert kernel.get(kernel.options(placement="process", priority=3).submit(increment, 1)) == 2
    assert TaskOptions(placement="process").placement == "process"


def failed_and_not(refs):
    kernel = current_kernel()
    return [ref.failed or kernel.get(ref) for ref in refs]


def test_a_failed_reference_inside_a_list_arrives_as_one_that_failed(kernel):
    refs = [kernel.submit(fail, "no"), kernel.submit(increment, 1)]
    assert kernel.get(kernel.submit(failed_and_not, refs)) == [True, 2]


def count_to(n, mark):
    try:
        yield from range(n)
    finally:
        Path(mark).touch()


def test_items_of_a_stream_come_from_another_process_with_back_pressure(kernel, tmp_path):
    assert list(kernel.stream(count_to, 10_000, str(tmp_path / "all"))) == list(range(10_000))
    stream = kernel.stream(count_to, 10_000_000, str(tmp_path / "left"), window=8)
    assert [next(stream) for _ in range(100)] == list(range(100))
    stream.close()
    kernel.get(kernel.submit(increment, 1))
    deadline = time.monotonic() + 20
    while not (tmp_path / "left").exists() and time.monotonic() < deadline:
        kernel.get(kernel.submit(increment, 1))
    assert (tmp_path / "left").exists()
