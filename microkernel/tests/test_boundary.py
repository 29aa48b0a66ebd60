"""The door: what a decision reads is kept, and a replay reads what was kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from microkernel import (
    DeadlineMissed,
    Decision,
    Instrument,
    Kernel,
    KernelError,
    KernelSettings,
    MemorySink,
    RecordedError,
    ReplayDivergence,
    Replaying,
    ValueNotRecordable,
    boundary,
    code_digest,
    current_task,
    events,
    read_inputs,
)
from microkernel.values import decode, decode_all

RUN = bytes(range(16))


class Recorder:
    """A kernel with a sink in memory, and replays of what it recorded."""

    def __init__(self, settings: KernelSettings | None = None) -> None:
        self.sink = MemorySink()
        self.kernel = Kernel(settings, sink=self.sink, run_id=RUN)

    def payloads(self, decision: bytes, kind: int) -> list[tuple[int, bytes]]:
        return [
            (seq, payload)
            for seq, (number, _, owner, payload) in enumerate(self.sink.events)
            if number == kind and owner == decision
        ]

    def inputs(self, decision: bytes) -> list[Any]:
        blocks = self.payloads(decision, events.INPUT)
        return [entry for seq, raw in blocks for entry in read_inputs(raw, seq)]

    def replaying(self, decision: bytes, **options: Any) -> Replaying:
        return Replaying(self.payloads(decision, events.INPUT), **options)

    def replay(
        self, decision: bytes, function: Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        door = self.replaying(decision, **options)
        before = len(self.sink.events)
        answer = self.kernel.replay(decision, door, function, *args).answer
        assert len(self.sink.events) == before, "a replay journals nothing"
        return answer, door

    def check(self, function: Callable[..., Any], *args: Any) -> Decision[Any]:
        """Decide, replay, compare; everything recorded must be read."""
        decision = self.kernel.decision(function, *args)
        answer, door = self.replay(decision.id, function, *args)
        assert answer == decision.answer
        assert door.unread() == []
        assert door.extra == []
        return decision  # type: ignore[no-any-return]


@pytest.fixture(params=["inline", "thread"])
def recorder(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    made = Recorder(KernelSettings(placement=request.param, threads=2))
    with made.kernel:
        yield made


class Table:
    """A source whose answers change from one read to the next."""

    def __init__(self) -> None:
        self.reads = 0

    def fetch(self) -> int:
        self.reads += 1
        return self.reads


def test_outside_a_decision_the_door_is_open() -> None:
    table = Table()
    assert boundary.read("table", "row", table.fetch) == 1
    assert boundary.keep("kind", "table", "row", 5) == 5
    assert boundary.exchange("kind", "table", "row", table.fetch) == 2
    assert boundary.mode() is None
    assert boundary.decision_id() is None
    boundary.note_difference("table", "x")


def test_without_a_sink_decisions_run_and_nothing_is_kept() -> None:
    with Kernel() as kernel:
        decision = kernel.decision(lambda: (boundary.mode(), boundary.read("t", 1, lambda: 2)))
        assert decision.answer == ("live", 2)
        assert not kernel.events.kept


def test_a_replay_reads_what_was_recorded_and_asks_nobody(recorder: Recorder) -> None:
    table = Table()

    def decide(factor: int) -> Any:
        modes.append(boundary.mode())
        rows = [boundary.read("table", ["row", i % 2], table.fetch) for i in range(4)]
        return [row * factor for row in rows], boundary.decision_id()

    modes: list[str | None] = []
    decision = recorder.check(decide, 10)
    assert decision.answer == ([10, 20, 30, 40], decision.id)
    assert table.reads == 4
    assert modes == ["recording", "replaying"]
    assert [(i.source, i.key, i.ordinal, i.value) for i in recorder.inputs(decision.id)] == [
        ("table", ["row", 0], 0, 1),
        ("table", ["row", 1], 0, 2),
        ("table", ["row", 0], 1, 3),
        ("table", ["row", 1], 1, 4),
    ]


def test_code_that_reads_in_another_order_gets_its_own_inputs(recorder: Recorder) -> None:
    def decide() -> tuple[str, str]:
        a = boundary.read("table", "a", lambda: "A")
        return a, boundary.read("table", "b", lambda: "B")

    def patched() -> tuple[str, str]:
        b = boundary.read("table", "b", lambda: "?")
        return boundary.read("table", "a", lambda: "?"), b

    decision = recorder.kernel.decision(decide)
    assert recorder.replay(decision.id, patched)[0] == ("A", "B")


@pytest.mark.parametrize("reads", [31, 32, 33, 500])
def test_any_number_of_inputs_is_numbered(recorder: Recorder, reads: int) -> None:
    table = Table()
    decision = recorder.check(
        lambda: [boundary.read("table", i % 7, table.fetch) for i in range(reads)]
    )
    assert decision.answer == list(range(1, reads + 1))
    assert [i.ordinal for i in recorder.inputs(decision.id)] == [i // 7 for i in range(reads)]


def test_the_failure_of_a_source_is_an_input(recorder: Recorder) -> None:
    class Local(Exception):
        def __init__(self, code: int, *, needed: int) -> None:
            super().__init__(code)

    def missing() -> None:
        raise KeyError("k")

    def local() -> None:
        raise Local(5, needed=1)

    def unprintable() -> None:
        class Odd:
            def __repr__(self) -> str:
                raise RuntimeError

        raise OSError(2, Odd(), "\ud800", [[object()]])

    def decide() -> list[str]:
        caught = []
        for fetch in (missing, local, unprintable):
            try:
                boundary.read("s", fetch.__name__, fetch)
            except KeyError as error:
                caught.append(f"KeyError {error.args}")
            except OSError as error:
                caught.append(f"OSError {error.args[0]}")
            except (Local, RecordedError):
                caught.append("local")
        return caught

    assert recorder.check(decide).answer == ["KeyError ('k',)", "local", "OSError 2"]


def test_a_rebuilt_error_imports_nothing() -> None:
    from microkernel.values import encode

    def replay(name: str) -> BaseException:
        key = [encode(part) for part in ("read", "s", None)]
        with Kernel() as kernel:
            task = bytes(16)
            payload = b"\x97" + b"".join(key) + encode(0) + encode(task) + encode(False)
            door = Replaying([(0, payload + encode([name, ["x"]]))])
            with pytest.raises(Exception) as caught:  # noqa: PT011
                kernel.replay(task, door, lambda: boundary.read("s", None, lambda: 1))
            return caught.value

    assert type(replay("builtins:ValueError")) is ValueError
    for name in ("no.such:ValueError", "builtins:SystemExit", "os:system", "ctypes.wintypes:x", ""):
        assert type(replay(name)) is RecordedError


def test_an_answer_that_cannot_be_recorded_is_refused_also_in_the_replay(
    recorder: Recorder,
) -> None:
    def decide() -> str:
        try:
            boundary.read("table", "row", object)
        except ValueNotRecordable as error:
            return str(error)
        return "accepted"

    decision = recorder.check(decide)
    assert "builtins.object" in decision.answer
    noted = Kernel(sink=MemorySink())
    with noted, pytest.raises(ValueNotRecordable) as caught:
        noted.decision(lambda: boundary.read("table", "row", object))
    assert "source 'table', key 'row'" in caught.value.__notes__[0]


def test_what_a_source_reads_and_submits_is_its_own_affair(recorder: Recorder) -> None:
    kernel = recorder.kernel

    def source() -> Any:
        inner = boundary.read("inner", 1, lambda: 5)
        task = kernel.submit(lambda: boundary.read("inner", 2, lambda: 6))
        assert task.decision_id is None
        own = kernel.decision(lambda: boundary.read("inner", 3, lambda: 7))
        return [inner, kernel.get(task), own.answer, own.id]

    def decide() -> Any:
        answer = boundary.read("outer", 1, source)
        child = kernel.submit(lambda: boundary.read("child", 1, lambda: 8))
        return answer, child.task_id, kernel.get(child)

    decision = recorder.check(decide)
    assert [i.source for i in recorder.inputs(decision.id)] == ["outer", "child"]
    own = decision.answer[0][3]
    assert own != decision.id
    assert [i.source for i in recorder.inputs(own)] == ["inner"]


def test_tasks_of_a_decision_have_inputs_of_their_own(recorder: Recorder) -> None:
    table = Table()

    def part(i: int) -> Any:
        return [boundary.read("table", "same", table.fetch) for _ in range(3)]

    def decide() -> Any:
        refs = [recorder.kernel.submit(part, i) for i in range(20)]
        return recorder.kernel.get(refs)

    decision = recorder.check(decide)
    assert table.reads == 60
    assert len({i.task for i in recorder.inputs(decision.id)}) == 20


def test_threads_of_a_coroutine_read_at_the_same_time(recorder: Recorder) -> None:
    both = threading.Barrier(2)

    def slow(i: int) -> int:
        both.wait(30)
        inner = boundary.read("inner", i, lambda: 1)
        both.wait(30)
        return i + inner

    async def decide() -> Any:
        return await asyncio.gather(
            *[asyncio.to_thread(boundary.read, "slow", i, lambda i=i: slow(i)) for i in range(2)]
        )

    decision = asyncio.run(awaited(recorder.kernel.decision(decide)))
    assert {i.source for i in recorder.inputs(decision.id)} == {"slow"}
    door = recorder.replaying(decision.id)
    assert asyncio.run(awaited(recorder.kernel.replay(decision.id, door, decide))).answer == [1, 2]


async def awaited(awaitable: Any) -> Any:
    return await awaitable


class TestPolicies:
    def decided(self, recorder: Recorder) -> bytes:
        def decide() -> int:
            return boundary.read("a", 1, lambda: 1) + boundary.read("b", 2, lambda: 2)

        return recorder.kernel.decision(decide).id  # type: ignore[no-any-return]

    def test_a_divergence_names_what_differs_first(self, recorder: Recorder) -> None:
        decision = self.decided(recorder)

        def patched() -> int:
            boundary.read("a", 1, lambda: 0)
            return boundary.read("new", [3], lambda: 3)

        with pytest.raises(ReplayDivergence) as caught:
            recorder.replay(decision, patched)
        seq = recorder.inputs(decision)[1].seq
        assert "asked for the read of 'new', key [3], which the recorded run did not read" in str(
            caught.value
        )
        assert f"read of 'b', key 2 (event {seq})" in str(caught.value)
        assert caught.value.expected in str(caught.value)

        with pytest.raises(ReplayDivergence, match=r"for the 2th time.*'b', key 2"):
            recorder.replay(decision, lambda: [boundary.read("a", 1, int) for _ in "12"])

    def test_inputs_that_nobody_asked_for_are_listed(self, recorder: Recorder) -> None:
        decision = self.decided(recorder)
        _, door = recorder.replay(decision, lambda: boundary.read("b", 2, lambda: 0))
        assert door.unread() == recorder.inputs(decision)[:1]
        assert door.reads == [("read", "b", 2, 0)]

    def test_extra_reads_may_ask_the_source_or_a_default(self, recorder: Recorder) -> None:
        decision = self.decided(recorder)

        def patched() -> list[Any]:
            return [boundary.read("a", 1, lambda: 10), boundary.read("c", 3, lambda: 30)]

        answer, door = recorder.replay(decision, patched, policy="live")
        assert answer == [1, 30]
        assert door.extra == [("read", "c", 3, 0)]
        answer, door = recorder.replay(decision, patched, policy="default", default=-1)
        assert answer == [1, -1]

    def test_extra_waits_and_cancellations_are_real(self, recorder: Recorder) -> None:
        decision = self.decided(recorder)
        kernel = recorder.kernel

        def patched() -> list[Any]:
            refs = [kernel.submit(int, i) for i in "123"]
            done, _ = kernel.wait(refs, 3)
            late = kernel.submit(int, "4")
            return [*kernel.get(done), kernel.cancel(late), kernel.get(refs, timeout=60)]

        for policy in ("live", "default"):
            answer, _ = recorder.replay(decision, patched, policy=policy)
            assert answer == [1, 2, 3, True, [1, 2, 3]]
        with pytest.raises(ReplayDivergence, match="wait of 'kernel'"):
            recorder.replay(decision, patched)

    def test_overrides_perturb_every_read_of_a_key(self, recorder: Recorder) -> None:
        def decide() -> list[int]:
            return [boundary.read("a", "k", lambda: 1), boundary.read("a", "k", lambda: 2)]

        decision = recorder.kernel.decision(decide)
        answer, door = recorder.replay(decision.id, decide, overrides={("a", "k"): 9})
        assert answer == [9, 9]
        assert door.unread() == []

    def test_an_unknown_policy_is_refused(self) -> None:
        with pytest.raises(KernelError, match="no policy is named 'hope'"):
            Replaying([], policy="hope")

    @pytest.mark.parametrize(
        "payload", [b"\x00", b"\x93\x01\x02\x03", b"\x97\x01", b"\x97" + b"\xc0" * 6]
    )
    def test_what_is_no_input_is_refused(self, payload: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 (worded by what is wrong)
            Replaying([(0, payload)])
        with pytest.raises(ValueError):  # noqa: PT011
            read_inputs(payload)


class TestKernelInputs:
    """Outcomes that time decides are inputs, too."""

    def test_the_tasks_that_a_wait_returned_are_replayed(self, recorder: Recorder) -> None:
        kernel = recorder.kernel

        def decide() -> list[Any]:
            gates = [threading.Event() for _ in range(3)]
            threaded = kernel.options(placement="thread")

            def after(i: int) -> int:
                gates[i].wait(30 if boundary.mode() == "recording" else 0)
                return i

            refs = [threaded.submit(after, i) for i in range(2)]
            order, pending = [], refs
            for i in (1, 0):
                gates[i].set()
                (done,), pending = kernel.wait(pending)
                order.append(kernel.get(done))
            return order

        assert recorder.check(decide).answer == [1, 0]

    def test_ten_thousand_waits_in_a_decision(self, recorder: Recorder) -> None:
        def decide() -> int:
            pending: Any = [recorder.kernel.submit(int, i) for i in range(10_000)]
            total = 0
            while pending:
                (done,), pending = recorder.kernel.wait(pending)
                total += recorder.kernel.get(done)
            return total

        assert recorder.check(decide).answer == sum(range(10_000))

    def test_a_missed_deadline_is_replayed_and_one_that_was_met_is_not_missed(
        self, recorder: Recorder
    ) -> None:
        import time

        live = True

        def decide() -> list[str]:
            place = recorder.kernel.options(placement="thread", deadline=0.05)
            late = place.submit(threading.Event().wait, 0.3 if live else 0)
            soon = recorder.kernel.options(deadline=30).submit(int, "5")
            answers = []
            for ref in (late, soon):
                try:
                    answers.append(str(recorder.kernel.get(ref)))
                except DeadlineMissed:
                    answers.append("missed")
            return answers

        decision = recorder.kernel.decision(decide)
        assert decision.answer == ["missed", "5"]
        live = False
        begin = time.monotonic()
        assert recorder.replay(decision.id, decide)[0] == decision.answer
        assert time.monotonic() - begin < 10

    def test_the_end_of_a_timeout_is_replayed(self, recorder: Recorder) -> None:
        gate = threading.Event()

        def decide() -> list[str]:
            answers = []
            ref = recorder.kernel.options(placement="thread").submit(gate.wait, 0.2)
            for seconds in (0.01, 60):
                try:
                    recorder.kernel.get(ref, timeout=seconds)
                    answers.append("in time")
                except TimeoutError:
                    answers.append("too late")
            return answers

        assert recorder.check(decide).answer == ["too late", "in time"]

    def test_whether_a_cancellation_came_in_time_is_replayed(self, recorder: Recorder) -> None:
        def decide() -> list[bool]:
            done, queued = [recorder.kernel.submit(int, "1") for _ in range(2)]
            recorder.kernel.get(done)
            blocked = recorder.kernel.submit(int, queued)
            return [recorder.kernel.cancel(done), recorder.kernel.cancel(blocked) or True]

        assert recorder.check(decide).answer == [False, True]


class TestDecisions:
    def test_the_journal_has_the_opening_first_and_the_answer_last(
        self, recorder: Recorder
    ) -> None:
        def decide(income: float, *, term: int) -> str:
            boundary.read("table", "row", lambda: 1)
            recorder.kernel.get(recorder.kernel.submit(int, "1"))
            return "approve"

        decision = recorder.kernel.decision(
            decide, 4.5, term=12, subject="applicant 7", policy="p1", versions=["ab12"]
        )
        kinds = [k for k, _, owner, _ in recorder.sink.events if owner == decision.id]
        assert kinds == [
            events.DECISION_OPENED,
            events.INPUT,
            events.TASKS,
            events.DECISION_CLOSED,
        ]
        ((_, opened),) = recorder.payloads(decision.id, events.DECISION_OPENED)
        name = f"{__name__}:{decide.__qualname__}"
        assert decode(opened) == [
            name, code_digest(decide), [4.5], {"term": 12}, "applicant 7", "p1", ["ab12"],
        ]  # fmt: skip
        ((_, closed),) = recorder.payloads(decision.id, events.DECISION_CLOSED)
        assert decode(closed) == [True, "approve"]
        ((_, tasks),) = recorder.payloads(decision.id, events.TASKS)
        ((task, parent, function, code, ok, started, took),) = decode_all(tasks)  # type: ignore[misc]
        assert len(task) == 16
        assert (parent, function, code, ok) == (decision.id, "builtins:int", code_digest(int), True)
        assert started > 0
        assert took >= 0

    def test_records_of_tasks_are_gathered_in_blocks(self, recorder: Recorder) -> None:
        def decide() -> int:
            return len(recorder.kernel.get([recorder.kernel.submit(int, i) for i in range(1000)]))

        decision = recorder.check(decide)
        blocks = recorder.payloads(decision.id, events.TASKS)
        assert 2 < len(blocks) < 50
        assert sum(len(decode_all(payload)) for _, payload in blocks) == 1000

    def test_an_error_closes_the_decision_with_it(self, recorder: Recorder) -> None:
        ran: list[int] = []

        def decide() -> None:
            first = recorder.kernel.options(placement="inline").submit(ran.append, 1)
            recorder.kernel.submit(int, first)
            raise LookupError("no such applicant", object)

        with pytest.raises(LookupError):
            recorder.kernel.decision(decide)
        kind, _, _, payload = recorder.sink.events[-1]
        assert kind == events.DECISION_CLOSED
        assert decode(payload) == [
            False, ["builtins:LookupError", ["no such applicant", "<class 'object'>"]],
        ]  # fmt: skip
        assert ran == []

    def test_an_answer_that_cannot_be_recorded_is_not_given(self, recorder: Recorder) -> None:
        with pytest.raises(ValueNotRecordable, match=r"builtins\.object"):
            recorder.kernel.decision(object)
        kind, _, _, payload = recorder.sink.events[-1]
        assert kind == events.DECISION_CLOSED
        assert decode(payload)[0] is False  # type: ignore[index]

    def test_arguments_that_cannot_be_recorded_open_nothing(self, recorder: Recorder) -> None:
        from microkernel import shims

        with pytest.raises(ValueNotRecordable):
            recorder.kernel.decision(id, object())
        assert recorder.sink.events == []
        assert not shims.watching()

    def test_tasks_that_nobody_asked_for_end_before_the_decision(self, recorder: Recorder) -> None:
        table = Table()

        def decide() -> str:
            for _ in range(5):
                recorder.kernel.submit(lambda: boundary.read("table", 1, table.fetch))
            return "done"

        decision = recorder.kernel.decision(decide)
        assert len(recorder.inputs(decision.id)) == 5
        assert recorder.sink.events[-1][0] == events.DECISION_CLOSED

    def test_a_decision_within_a_decision_is_a_task_of_it(self, recorder: Recorder) -> None:
        def inner() -> int:
            return boundary.read("table", "row", lambda: 5)

        def decide() -> Any:
            nested = recorder.kernel.decision(inner)
            return nested.answer, nested.id

        decision = recorder.check(decide)
        assert decision.answer == (5, decision.id)

    def test_a_decision_may_be_opened_in_a_worker(self, recorder: Recorder) -> None:
        def decide() -> int:
            return boundary.read("table", "row", lambda: 5)

        ref = recorder.kernel.submit(lambda: recorder.kernel.decision(decide).id)
        decision = recorder.kernel.get(ref)
        assert recorder.replay(decision, decide)[0] == 5

    def test_a_replay_inside_a_decision_is_refused(self, recorder: Recorder) -> None:
        def decide() -> None:
            recorder.kernel.replay(bytes(16), Replaying([]), int)

        with pytest.raises(KernelError, match="a replay inside a decision"):
            recorder.kernel.decision(decide)

    def test_events_of_packages_belong_to_the_running_decision(self, recorder: Recorder) -> None:
        kind = events.register("tests.note", (("text", "string"),))

        def decide() -> None:
            recorder.kernel.events.append(kind, b"inside", flags=3)
            recorder.kernel.events.append(kind, b"", decision=bytes(16))

        decision = recorder.check(decide)
        assert [e for e in recorder.sink.events if e[0] == kind] == [
            (kind, 3, decision.id, b"inside"),
            (kind, 0, bytes(16), b""),
        ]

    def test_an_instrument_sees_decisions_and_inputs(self) -> None:
        class Watcher(Instrument):
            def __init__(self) -> None:
                self.seen: list[Any] = []

            def decision_opened(self, ref: Any) -> None:
                self.seen.append(("opened", ref.subject))

            def input(self, ref: Any, kind: str, source: str, key: object) -> None:
                self.seen.append((kind, source, key))

            def decision_closed(self, ref: Any) -> None:
                self.seen.append(("closed", ref.decision_id))

        watcher = Watcher()
        recorder = Recorder(KernelSettings(instruments=(watcher,)))
        decision = recorder.kernel.decision(
            lambda: boundary.read("table", 1, lambda: 2), subject="s"
        )
        assert watcher.seen == [("opened", "s"), ("read", "table", 1), ("closed", decision.id)]


class TestCoroutines:
    @staticmethod
    async def other(n: int) -> int:
        await asyncio.sleep(0)
        return n * 10

    def test_decisions_run_concurrently_and_replay_one_by_one(self, recorder: Recorder) -> None:
        import random

        kernel = recorder.kernel

        async def decide(n: int) -> list[Any]:
            seen: list[Any] = []
            for i in range(3):
                seen.append(boundary.read("sync", [n, i], lambda i=i: i))
                await asyncio.sleep(0.001)
                seen.append(random.random())
                seen.append(await boundary.aread("async", n, lambda: self.other(n)))
            refs = [
                kernel.submit(lambda i=i: boundary.read("task", i, lambda: i)) for i in range(3)
            ]
            done, pending = kernel.wait(refs, 1)
            seen.append(sorted([*[kernel.get(ref) for ref in done], *[await r for r in pending]]))
            return [*seen, boundary.decision_id()]

        async def main() -> None:
            decisions = await asyncio.gather(*[kernel.decision(decide, n) for n in range(6)])
            for n, decision in enumerate(decisions):
                assert decision.answer[-1] == decision.id
                door = recorder.replaying(decision.id)
                again = await kernel.replay(decision.id, door, decide, n)
                assert again.answer == decision.answer
                assert door.unread() == []

        asyncio.run(main())

    def test_what_an_asynchronous_source_reads_is_its_own_affair(self, recorder: Recorder) -> None:
        async def source() -> int:
            await asyncio.sleep(0)
            assert boundary.decision_id() is None
            return boundary.read("inner", 1, lambda: 5)

        async def decide() -> int:
            with pytest.raises(LookupError, match="gone"):
                await boundary.aread("broken", 1, self.broken)
            return await boundary.aread("outer", 1, source)

        decision = asyncio.run(awaited(recorder.kernel.decision(decide)))
        assert [i.source for i in recorder.inputs(decision.id)] == ["broken", "outer"]
        door = recorder.replaying(decision.id)
        assert asyncio.run(awaited(recorder.kernel.replay(decision.id, door, decide))).answer == 5
        live = Replaying([], policy="live")
        assert asyncio.run(awaited(recorder.kernel.replay(decision.id, live, decide))).answer == 5

    @staticmethod
    async def broken() -> None:
        raise LookupError("gone")

    def test_a_cancelled_decision_is_closed_with_an_error(self, recorder: Recorder) -> None:
        from microkernel import shims

        async def decide() -> None:
            boundary.read("table", 1, lambda: 1)
            await asyncio.Event().wait()

        async def main() -> None:
            task = asyncio.ensure_future(recorder.kernel.decision(decide))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        kind, _, _, payload = recorder.sink.events[-1]
        assert kind == events.DECISION_CLOSED
        assert decode(payload) == [False, ["asyncio.exceptions:CancelledError", []]]
        assert not shims.watching()
        assert current_task() is None

    @pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
    def test_a_decision_that_is_never_awaited_opens_nothing(self, recorder: Recorder) -> None:
        from microkernel import shims

        async def decide() -> None:
            pass

        coroutine = recorder.kernel.decision(decide)
        coroutine.close()
        assert recorder.sink.events == []
        assert not shims.watching()

    def test_a_decision_that_is_thrown_away_half_way_is_closed(self, recorder: Recorder) -> None:
        from microkernel import shims

        async def decide() -> None:
            await asyncio.sleep(0)

        coroutine = recorder.kernel.decision(decide)
        coroutine.send(None)
        coroutine.close()
        assert decode(recorder.sink.events[-1][3])[1] == ["builtins:GeneratorExit", []]  # type: ignore[index]
        assert not shims.watching()
        assert current_task() is None

    def test_what_outlives_the_answer_is_no_part_of_it(self, recorder: Recorder) -> None:
        late: list[Any] = []

        async def background(gate: asyncio.Event) -> None:
            await gate.wait()
            late.append((boundary.mode(), boundary.read("table", 2, lambda: 5)))

        async def main() -> None:
            gate = asyncio.Event()
            tasks = []

            async def decide() -> int:
                tasks.append(asyncio.create_task(background(gate)))
                return boundary.read("table", 1, lambda: 1)

            await recorder.kernel.decision(decide)
            gate.set()
            await tasks[0]

        asyncio.run(main())
        assert recorder.sink.events[-1][0] == events.DECISION_CLOSED
        assert late[0][1] == 5

    def test_a_function_run_by_a_coroutine_is_the_running_task(self, recorder: Recorder) -> None:
        kernel = recorder.kernel
        inline = kernel.options(placement="inline")
        outside = inline.submit(lambda: boundary.decision_id())

        async def decide() -> Any:
            inside = inline.submit(lambda: current_task())
            return [
                kernel.get(inside) is inside,
                kernel.get(outside),
                boundary.decision_id(),
            ]

        def around() -> Any:
            return asyncio.run(awaited(kernel.decision(decide)))

        decision = kernel.get(inline.submit(around))
        assert decision.answer == [True, None, decision.id]
