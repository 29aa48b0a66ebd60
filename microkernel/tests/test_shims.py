"""Time, randomness and identifiers inside a decision come back in a replay, unasked for."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import queue
import random
import secrets
import subprocess
import sys
import threading
import time
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from random import choice as choice_before
from random import random as random_before
from time import perf_counter_ns as perf_counter_ns_before
from time import time as time_before
from typing import Any

import numpy as np
import pytest

from microkernel import (
    Kernel,
    KernelError,
    KernelSettings,
    MemorySink,
    Replaying,
    events,
    read_inputs,
    shims,
)
from microkernel.ids import child_id
from microkernel.random import key, stream

ROOT = Path(__file__).parents[2]


class Recorder:
    def __init__(self, settings: KernelSettings | None = None) -> None:
        self.sink = MemorySink()
        self.kernel = Kernel(settings, sink=self.sink)

    def payloads(self, decision: bytes) -> list[tuple[int, bytes]]:
        return [
            (seq, payload)
            for seq, (kind, _, owner, payload) in enumerate(self.sink.events)
            if kind == events.INPUT and owner == decision
        ]

    def sources(self, decision: bytes) -> list[str]:
        return [i.source for seq, raw in self.payloads(decision) for i in read_inputs(raw, seq)]

    def twice(self, function: Callable[[], Any]) -> tuple[Any, Any, list[str]]:
        decision = self.kernel.decision(function)
        door = Replaying(self.payloads(decision.id))
        again = self.kernel.replay(decision.id, door, function).answer
        assert door.unread() == []
        return decision.answer, again, self.sources(decision.id)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    with made.kernel:
        yield made


class Moment(datetime.datetime):
    """A subclass, as pandas.Timestamp is one."""


class Fixed(datetime.tzinfo):
    def utcoffset(self, when: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(hours=2)

    def dst(self, when: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(0)


CLOCKS = [
    "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns",
    "process_time", "process_time_ns", "thread_time", "thread_time_ns",
]  # fmt: skip
RECORDED: dict[str, Callable[[], Any]] = {
    **{f"time.{name}": getattr(time, name) for name in CLOCKS},
    "time.clock_gettime": lambda: time.clock_gettime(time.CLOCK_REALTIME),
    "time.clock_gettime_ns": lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC),
    "os.urandom": lambda: os.urandom(12),
    "os.getrandom": lambda: os.getrandom(12),
    "uuid1": uuid.uuid1,
    "uuid4": uuid.uuid4,
    "secrets.token_bytes": lambda: secrets.token_bytes(9),
    "secrets.randbelow": lambda: secrets.randbelow(10**12),
    "SystemRandom": lambda: random.SystemRandom().random(),
    "datetime.now": datetime.datetime.now,
    "datetime.now(utc)": lambda: datetime.datetime.now(datetime.UTC),
    "datetime.now(tz=zone)": lambda: datetime.datetime.now(tz=zoneinfo.ZoneInfo("Asia/Tokyo")),
    "datetime.now(custom)": lambda: datetime.datetime.now(FIXED).isoformat(),
    "datetime.today": datetime.datetime.today,
    "datetime.utcnow": lambda: UTCNOW(),
    "subclass.now": lambda: [type(Moment.now()) is Moment, Moment.now().isoformat()],
    "subclass.now(tz)": lambda: Moment.now(FIXED).isoformat(),
    "date.today": datetime.date.today,
    "from time import time": time_before,
    "from time import perf_counter_ns": perf_counter_ns_before,
    "default_rng": lambda: np.random.default_rng().random(),
    "RandomState": lambda: np.random.RandomState().rand(),
}
FIXED = Fixed()
UTCNOW: Any = getattr(datetime.datetime, "utcnow")  # noqa: B009 (deprecated by name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_sources_come_back(recorder: Recorder, name: str) -> None:
    function = RECORDED[name]
    live, again, sources = recorder.twice(lambda: [function() for _ in range(3)])
    assert again == live
    assert sources
    assert recorder.twice(function)[0] != live[0] or name in {"date.today", "subclass.now(tz)"}


BROKEN_DOWN: dict[str, Callable[[], Any]] = {
    "localtime": lambda: list(time.localtime()),
    "localtime(None)": lambda: [time.localtime(None).tm_zone, time.localtime().tm_gmtoff],
    "gmtime": lambda: list(time.gmtime()),
    "ctime": time.ctime,
    "asctime": time.asctime,
    "strftime": lambda: time.strftime("%Y-%m-%d %H:%M:%S %Z"),
}


@pytest.mark.parametrize("name", BROKEN_DOWN)
def test_broken_down_times_come_back_later_and_elsewhere(
    recorder: Recorder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = BROKEN_DOWN[name]
    decision = recorder.kernel.decision(function)
    end = time.time() + 1.1
    while time.time() < end:
        time.sleep(0.05)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        door = Replaying(recorder.payloads(decision.id))
        assert recorder.kernel.replay(decision.id, door, function).answer == decision.answer
    finally:
        monkeypatch.undo()
        time.tzset()


def test_conversions_of_given_times_are_no_inputs(recorder: Recorder) -> None:
    def convert() -> Any:
        at = time.gmtime(0)
        return [
            list(time.localtime(0)), list(time.gmtime(86400)), time.ctime(0), time.asctime(at),
            time.strftime("%Y", at), datetime.datetime.fromtimestamp(0).isoformat(),
        ]  # fmt: skip

    live, again, sources = recorder.twice(convert)
    assert live == again == convert()
    assert sources == []


def test_wrong_arguments_are_refused_as_ever(recorder: Recorder) -> None:
    def wrong() -> list[str]:
        caught = []
        for call in (
            lambda: time.time(1),  # type: ignore[call-arg]
            lambda: datetime.datetime.now("x"),  # type: ignore[arg-type]
            lambda: datetime.datetime.now(zone=None),  # type: ignore[call-arg]
            lambda: os.urandom(-1),
            lambda: random.getrandbits("x"),  # type: ignore[arg-type]
            lambda: time.sleep(-1),
        ):
            with pytest.raises((TypeError, ValueError)) as error:
                call()
            caught.append(error.type.__name__)
        return caught

    expected = wrong()
    live, again, _ = recorder.twice(wrong)
    assert live == again == expected


def test_a_replay_does_not_sleep(recorder: Recorder) -> None:
    def patient() -> None:
        time.sleep(0.2)

    decision = recorder.kernel.decision(patient)
    begin = time.thread_time(), time.monotonic()
    recorder.kernel.replay(decision.id, Replaying(recorder.payloads(decision.id)), patient)
    assert time.monotonic() - begin[1] < 0.2


DERIVED: dict[str, Callable[[], Any]] = {
    "random.random": random.random,
    "from random import random": random_before,
    "from random import choice": lambda: [choice_before(range(1000)) for _ in range(5)],
    "random.gauss": lambda: [random.gauss(0, 1) for _ in range(3)],
    "random.normalvariate": lambda: random.normalvariate(0, 1),
    "random.sample": lambda: random.sample(range(1000), 5),
    "random.shuffle": lambda: random.shuffle(list(range(5))) or random.random(),
    "random.choices": lambda: random.choices(range(1000), k=5),
    "random.getrandbits": lambda: random.getrandbits(100),
    "random.randbytes": lambda: random.randbytes(10),
    "random.Random()": lambda: [random.Random().random(), random.Random().random()],
    "random.getstate": lambda: _returns_to(random.getstate, random.setstate, random.gauss),
    "numpy.random.rand": lambda: np.random.rand(3).tolist(),
    "numpy.random.normal": lambda: np.random.normal(size=3).tolist(),
    "numpy.random.permutation": lambda: np.random.permutation(10).tolist(),
    "numpy.random.seed()": lambda: np.random.seed() or np.random.rand(),
    "numpy.random.ranf": lambda: np.random.ranf(),
    "numpy.random.sample": lambda: np.random.sample(2).tolist(),
    "numpy.random.get_state": lambda: _returns_to(_seeded_state, np.random.set_state,
                                                  np.random.standard_normal),
}  # fmt: skip


def _seeded_state() -> Any:
    np.random.seed(np.random.randint(2**31))
    return np.random.get_state()


def _returns_to(get: Callable[[], Any], put: Callable[[Any], Any], draw: Callable[..., Any]) -> Any:
    draw()
    state = get()
    one = [draw() for _ in range(3)]
    put(state)
    assert [draw() for _ in range(3)] == one
    return one


@pytest.mark.parametrize("name", DERIVED)
def test_shared_generators_draw_from_the_task(recorder: Recorder, name: str) -> None:
    function = DERIVED[name]
    random.seed(5)
    np.random.seed(5)
    expected = [random.random(), np.random.rand()]
    random.seed(5)
    np.random.seed(5)
    live, again, sources = recorder.twice(function)
    other, _, _ = recorder.twice(function)
    assert again == live
    assert other != live
    assert sources == []
    assert [random.random(), np.random.rand()] == expected, "the program's sequence is disturbed"


@pytest.mark.parametrize("name", ["random", "numpy"])
def test_a_seed_inside_a_decision_is_a_seed(recorder: Recorder, name: str) -> None:
    def draw() -> list[float]:
        random.seed(7) if name == "random" else np.random.seed(7)
        return [random.random(), random.gauss(0, 1), float(np.random.rand())]

    inside = recorder.kernel.decision(draw).answer
    outside = draw()
    part = slice(0, 2) if name == "random" else slice(2, 3)
    assert inside[part] == outside[part]


def test_generators_that_the_program_seeded_are_left_alone(recorder: Recorder) -> None:
    own = random.Random(5)
    expected = random.Random(5)
    legacy, modern = np.random.RandomState(5), np.random.default_rng(5)
    recorder.kernel.decision(lambda: [own.random(), random.random()])
    assert [own.random() for _ in range(3)] == [expected.random() for _ in range(4)][1:]

    def draw() -> list[float]:
        return [random.Random(3).random(), float(np.random.RandomState(3).rand()),
                float(np.random.default_rng(3).random())]  # fmt: skip

    assert recorder.kernel.decision(draw).answer == draw()
    drawn = recorder.kernel.decision(lambda: [float(legacy.rand()), float(modern.random())]).answer
    assert drawn == [np.random.RandomState(5).rand(), np.random.default_rng(5).random()]


def test_decisions_that_interleave_draw_what_they_draw_alone(recorder: Recorder) -> None:
    async def draw() -> list[Any]:
        drawn = []
        for _ in range(5):
            drawn += [random.random(), random.gauss(0, 1), float(np.random.rand())]
            await asyncio.sleep(0)
        return drawn

    async def main() -> None:
        decisions = await asyncio.gather(*[recorder.kernel.decision(draw) for _ in range(4)])
        for decision in decisions:
            door = Replaying(recorder.payloads(decision.id))
            assert (await recorder.kernel.replay(decision.id, door, draw)).answer == decision.answer

    asyncio.run(main())


def test_tasks_in_threads_draw_what_they_draw_inline() -> None:
    answers = []
    for settings in (KernelSettings(), KernelSettings(placement="thread", threads=4)):
        with Kernel(settings, sink=MemorySink(), run_id=bytes(16)) as kernel:

            def draw(_: int) -> list[float]:
                return [random.random(), float(np.random.rand()), random.gauss(0, 1)]

            answers.append(
                kernel.decision(lambda k=kernel, d=draw: list(k.map(d, range(50)))).answer
            )
    assert answers[0] == answers[1]
    assert len({row[0] for row in answers[0]}) == 50


def test_a_decision_without_a_journal_is_left_alone() -> None:
    random.seed(3)
    expected = random.random()
    random.seed(3)
    with Kernel() as kernel:
        assert kernel.decision(random.random).answer == expected


def test_the_clock_of_log_lines_and_timeouts_is_no_input(recorder: Recorder) -> None:
    log = logging.getLogger("tests.shims")
    log.setLevel(logging.INFO)
    log.addHandler(logging.NullHandler())

    def chatty() -> float:
        log.info("a line")
        with contextlib.suppress(queue.Empty):
            queue.Queue().get(timeout=0.001)
        threading.Event().wait(0.001)
        return time.time()

    live, again, sources = recorder.twice(chatty)
    assert live == again
    assert sources == ["time.time"]


def test_timers_of_the_event_loop_keep_the_real_clock(recorder: Recorder) -> None:
    """With the recorded one a timer set in a replay would wait for a time of long ago, or years."""

    async def sleepy() -> float:
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await asyncio.wait_for(asyncio.sleep(0.01), 5)
        return time.monotonic()

    async def main() -> None:
        decision = await recorder.kernel.decision(sleepy)
        assert recorder.sources(decision.id) == ["time.monotonic"]
        door = Replaying(recorder.payloads(decision.id))
        again = await asyncio.wait_for(recorder.kernel.replay(decision.id, door, sleepy), 30)
        assert again.answer == decision.answer

    asyncio.run(main())


def test_shims_come_with_the_first_decision_and_go_on_request() -> None:
    program = """
import time, random, datetime
from microkernel import Kernel, MemorySink, shims
pointers = lambda: (time.time, random.random, datetime.datetime.now)
assert shims.watched() == {}
with Kernel(sink=MemorySink()) as kernel:
    kernel.decision(time.time)
    names = shims.watched()
    assert names["time.time"] == "time" and names["random.random"] == "derived"
    assert names["os.urandom"] == "entropy"
    shims.install()
    assert shims.watched() == names
    kernel.decision(lambda: refused())  if False else None
    shims.remove()
    assert shims.watched() == {}
    before = len(kernel.__class__.__mro__)
    assert abs(time.time() - time.clock_gettime(time.CLOCK_REALTIME)) < 5
    random.seed(1); a = random.random(); random.seed(1); assert random.random() == a
    kernel.decision(time.time)
    assert shims.watched() == names
"""
    program = program.replace("    kernel.decision(lambda: refused())  if False else None\n", "")
    program = program.replace("    before = len(kernel.__class__.__mro__)\n", "")
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


def test_shims_stay_while_a_decision_is_open(recorder: Recorder) -> None:
    def remove() -> str:
        with pytest.raises(RuntimeError) as caught:
            shims.remove()
        return str(caught.value)

    assert "a decision is being recorded" in recorder.kernel.decision(remove).answer


def test_many_threads_open_their_first_decision_at_once() -> None:
    program = """
import threading, time, random
from microkernel import Kernel, MemorySink
with Kernel(sink=MemorySink()) as kernel:
    start = threading.Barrier(8)
    def first():
        start.wait()
        for _ in range(50):
            kernel.decision(lambda: [time.time(), random.random()])
    threads = [threading.Thread(target=first) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
from microkernel import shims
assert not shims.watching()
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


def test_numpy_imported_inside_a_decision_is_watched_and_its_import_is_no_input() -> None:
    program = """
import sys
from microkernel import Kernel, MemorySink, Replaying, events
sink = MemorySink()
def draw():
    import numpy
    return [float(numpy.random.rand()), float(numpy.random.normal())]
with Kernel(sink=sink) as kernel:
    assert "numpy" not in sys.modules
    decision = kernel.decision(draw)
    assert [e for e in sink.events if e[0] == events.INPUT] == []
    assert kernel.replay(decision.id, Replaying([]), draw).answer == decision.answer
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


TORCH = """
import threading
import torch
from torch.nn import functional
from microkernel import Kernel, MemorySink, Replaying
from microkernel import shims

def draw():
    out = [torch.rand(2), torch.randn(2), torch.randint(100, (3,)), torch.randperm(5),
           torch.empty(2).uniform_(), torch.empty(2).normal_(),
           torch.bernoulli(torch.full((4,), .5)),
           torch.multinomial(torch.ones(9), 4), functional.dropout(torch.ones(8), .5),
           torch.nn.Dropout()(torch.ones(8)), torch.normal(torch.zeros(2), torch.ones(2)),
           torch.rand_like(torch.ones(2)), torch.ones(4).bernoulli(.5),
           torch.nn.Linear(2, 2).weight, torch.ones(3).exponential_()]
    seed = torch.seed()
    out.append(torch.rand(2))
    assert torch.initial_seed() == torch.random.initial_seed() == seed
    state = torch.get_rng_state()
    one = torch.rand(2)
    torch.set_rng_state(state)
    assert torch.equal(torch.rand(2), one)
    torch.manual_seed(4)
    four = torch.rand(2)
    return [seed, four.tolist(), *[tensor.tolist() for tensor in out]]

torch.manual_seed(1); torch.rand(5); expected = torch.rand(3)
torch.manual_seed(4); four = torch.rand(2).tolist()
torch.manual_seed(1); torch.rand(5)
plain = torch.rand
with Kernel(sink=MemorySink()) as kernel:
    one, two = kernel.decision(draw), kernel.decision(draw)
    assert one.answer[0] != two.answer[0] and one.answer[2] != two.answer[2]
    assert one.answer[1] == two.answer[1] == four
    for decision in (one, two):
        assert kernel.replay(decision.id, Replaying([]), draw).answer == decision.answer
    assert torch.equal(torch.rand(3), expected), "the program's sequence is disturbed"
    assert torch.rand is plain and "uniform_" not in vars(torch.Tensor)

    # Whoever draws outside meanwhile does not disturb the decision.
    stop = threading.Event()
    def noise():
        while not stop.is_set():
            torch.rand(10)
    def many():
        stop.clear()
        thread = threading.Thread(target=noise)
        thread.start()
        drawn = [torch.rand(1).item() for _ in range(500)]
        stop.set()
        thread.join()
        return drawn
    noisy = kernel.decision(many)
    assert kernel.replay(noisy.id, Replaying([]), many).answer == noisy.answer
shims.remove()
assert torch.rand is plain
"""


def test_torch_draws_from_the_task() -> None:
    pytest.importorskip("torch")
    subprocess.run([sys.executable, "-c", TORCH], check=True, cwd=ROOT, timeout=110)


def test_pandas_knows_the_time(recorder: Recorder) -> None:
    pandas = pytest.importorskip("pandas")

    def now() -> list[str]:
        return [
            pandas.Timestamp.now().isoformat(),
            pandas.Timestamp.now("UTC").isoformat(),
            pandas.Timestamp.now(tz="Europe/Berlin").isoformat(),
            pandas.Timestamp.today().isoformat(),
        ]

    live, again, sources = recorder.twice(now)
    assert live == again
    assert len(sources) >= 4


class TestStreams:
    def test_a_stream_is_numpys_philox_of_its_key(self) -> None:
        task = bytes(range(16))
        number = int.from_bytes(child_id(task, 2**64 - 1, "rollout"), "big")
        assert key(task, "rollout") == number
        expected = np.random.Generator(np.random.Philox(key=number)).random(5)
        assert (stream(task, "rollout").random(5) == expected).all()

    def test_streams_differ_by_task_and_purpose(self) -> None:
        keys = {key(bytes([i] * 16), purpose) for i in range(20) for purpose in "abc"}
        assert len(keys) == 60

    def test_a_task_finds_its_own_stream(self) -> None:
        with Kernel() as kernel:
            ref = kernel.submit(lambda: stream(None, "x").random())
            assert kernel.get(ref) == stream(ref, "x").random() == stream(ref.task_id, "x").random()

    def test_outside_a_task_there_is_none(self) -> None:
        with pytest.raises(KernelError, match="no task is running"):
            stream(None, "x")
