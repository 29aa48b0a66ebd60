"""Objects that several processes hold: given on, looked at, spilled, left by the dead."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from microkernel.errors import KernelClosed, KernelError, ObjectLost, ObjectStoreFull
from microkernel.objects import Block, ObjectStore

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.skipif(sys.platform != "linux", reason="objects in shared memory need Linux"),
]

MIB = 1 << 20
BOUND = 30  # seconds that an answer may take


class Attached:
    """What a station does in its own process."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.blocks: dict[int, Block] = {}
        self.views: dict[int, memoryview] = {}

    def make(self, content: bytes) -> int:
        block = self.store.allocate(len(content))
        block.fill(content)
        block.seal()
        self.blocks[block.handle] = block
        return block.handle

    def begin(self, n: int) -> int:
        block = self.store.allocate(n)
        self.blocks[block.handle] = block
        return block.handle

    def hold(self, handle: int) -> None:
        self.blocks[handle] = self.store.hold(handle)

    def read(self, handle: int) -> bytes:
        return bytes(self.blocks[handle])

    def look(self, handle: int) -> bytes:
        self.views[handle] = memoryview(self.blocks[handle])
        return bytes(self.views[handle])

    def look_away(self, handle: int) -> None:
        self.views.pop(handle).release()

    def drop(self, handle: int) -> None:
        if handle in self.views:
            self.look_away(handle)
        del self.blocks[handle]

    def churn(self) -> None:
        while True:
            for n in range(64):
                self.make(bytes(100 * n))
            for handle in list(self.blocks):
                self.drop(handle)


def serve(pipe: Any, fd: int, number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    attached = Attached(ObjectStore.attach(fd, number))
    while True:
        try:
            what, *arguments = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            pipe.send(getattr(attached, what)(*arguments))
        except KernelError as error:
            pipe.send(error)


class Station:
    """Another process, attached to ``store``."""

    def __init__(self, store: ObjectStore, number: int) -> None:
        context = multiprocessing.get_context("fork")
        self.store = store
        self.number = number
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, store.fd, number), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, what: Callable[..., Any], *arguments: object) -> None:
        self.pipe.send((what.__name__, *arguments))

    def ask(self, what: Callable[..., Any], *arguments: object) -> Any:
        self.tell(what, *arguments)
        assert self.pipe.poll(BOUND), f"station {self.number} does not answer"
        answer = self.pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self) -> None:
        """End the process as the system does, and let the arena know."""
        self.process.kill()
        self.process.join(BOUND)
        assert self.process.exitcode == -signal.SIGKILL
        self.pipe.close()
        self.store.forget(self.number)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    store = ObjectStore.create(MIB, tmp_path, patience=20)
    yield store
    store.close()


@pytest.fixture
def stations(store: ObjectStore) -> Iterator[list[Station]]:
    stations = [Station(store, number) for number in (1, 2)]
    yield stations
    for station in stations:
        if station.process.is_alive():
            station.kill()


def made(store: ObjectStore, content: bytes) -> Block:
    block = store.allocate(len(content))
    block.fill(content)
    block.seal()
    return block


# ---- Holding ----


def test_an_object_is_read_by_all_and_freed_by_the_last(
    store: ObjectStore, stations: list[Station]
) -> None:
    one, two = stations
    handle = one.ask(Attached.make, b"for all")
    two.ask(Attached.hold, handle)
    one.ask(Attached.drop, handle)
    assert bytes(store.hold(handle)) == b"for all"
    assert two.ask(Attached.read, handle) == b"for all"
    assert dict(store.statistics().holders) == {2: 1}
    two.ask(Attached.drop, handle)
    assert store.statistics().used == 0
    with pytest.raises(ObjectLost):
        store.hold(handle)


def test_an_object_that_is_not_sealed_is_not_given_out(
    store: ObjectStore, stations: list[Station]
) -> None:
    handle = stations[0].ask(Attached.begin, 100)
    with pytest.raises(KernelError, match="still being written"):
        store.hold(handle)


def test_what_the_dead_held_is_freed_and_what_others_hold_is_not(
    store: ObjectStore, stations: list[Station]
) -> None:
    one, two = stations
    kept = one.ask(Attached.make, b"kept" * 100)
    two.ask(Attached.hold, kept)
    for _ in range(10):
        one.ask(Attached.make, bytes(5000))
    one.ask(Attached.begin, 5000)
    one.ask(Attached.look, kept)
    assert store.statistics().holders[1] == 12
    one.kill()
    assert dict(store.statistics().holders) == {2: 1}
    assert two.ask(Attached.read, kept) == b"kept" * 100
    two.kill()
    assert store.statistics().objects == store.statistics().used == 0


def test_killed_in_the_middle_of_allocating(store: ObjectStore) -> None:
    kept = [made(store, bytes([n]) * 3000) for n in range(20)]
    used = store.statistics().used
    chance = random.Random(5)
    for _ in range(15):
        station = Station(store, 1)
        station.ask(Attached.make, b"up")
        station.tell(Attached.churn)
        for _ in range(chance.randrange(200)):  # until it is somewhere in the midst of it
            made(store, bytes(chance.randrange(2000)))
        station.kill()
        assert store.statistics().used == used
    for n, block in enumerate(kept):
        assert bytes(block) == bytes([n]) * 3000


def test_the_full_arena_names_the_worker_that_fills_it(tmp_path: Path) -> None:
    store = ObjectStore.create(MIB, patience=0.1)
    station = Station(store, 5)
    station.ask(Attached.make, bytes(900_000))
    with pytest.raises(ObjectStoreFull, match="worker 5 holds 1 objects of 900,000 bytes"):
        store.allocate(500_000)
    station.kill()
    assert store.allocate(500_000).size == 500_000


def test_one_process_waits_for_the_room_that_another_gives(tmp_path: Path) -> None:
    store = ObjectStore.create(MIB, patience=BOUND)
    block = store.allocate(MIB)
    station = Station(store, 1)
    station.tell(Attached.make, b"x" * 1000)
    assert not station.pipe.poll(0.02)
    del block
    assert station.pipe.poll(BOUND)
    assert bytes(store.hold(station.pipe.recv())) == b"x" * 1000
    station.kill()


def test_the_memory_vanishes_with_a_killed_driver(tmp_path: Path) -> None:
    program = """if True:
        import os, sys
        from microkernel.objects import ObjectStore
        store = ObjectStore.create(1 << 20, sys.argv[1])
        kept = []
        for _ in range(30):
            kept.append(store.allocate(100_000))
            kept[-1].seal()
        assert store.statistics().spilled
        os.kill(os.getpid(), 9)
    """
    child = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=False, timeout=BOUND
    )
    assert child.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


# ---- Spilling ----


def test_more_than_fits_is_kept_on_disk_and_comes_back(store: ObjectStore, tmp_path: Path) -> None:
    blocks = [made(store, bytes([n]) * 100_000) for n in range(40)]
    statistics = store.statistics()
    assert statistics.objects == 40
    assert statistics.spilled >= 30
    assert statistics.used <= statistics.capacity
    assert list(tmp_path.iterdir()) == []  # the file has no name
    for n in random.Random(1).sample(range(40), 40):
        assert bytes(blocks[n]) == bytes([n]) * 100_000
    blocks.clear()
    assert store.statistics().objects == store.statistics().spilled == store.statistics().used == 0


def test_the_object_that_was_idle_longest_goes_first(store: ObjectStore) -> None:
    blocks = [made(store, bytes([n]) * 200_000) for n in range(5)]
    memoryview(blocks[0]).release()  # just used
    made(store, bytes(200_000))
    bytes(blocks[0])
    assert store.statistics().spilled == 1
    bytes(blocks[2])
    assert store.statistics().spilled == 1
    bytes(blocks[1])  # this one was


def test_what_somebody_looks_at_stays(store: ObjectStore, stations: list[Station]) -> None:
    one, _ = stations
    mine = made(store, b"m" * 400_000)
    view = memoryview(mine)
    address = numpy.frombuffer(mine, "u1").__array_interface__["data"]
    handle = one.ask(Attached.make, b"t" * 400_000)
    one.ask(Attached.look, handle)
    others = [made(store, bytes([n]) * 100_000) for n in range(10)]
    assert numpy.frombuffer(mine, "u1").__array_interface__["data"] == address
    assert view == b"m" * 400_000
    with pytest.raises(ObjectStoreFull):
        ObjectStore.create(MIB, patience=0).allocate(2 * MIB)
    one.ask(Attached.look_away, handle)
    assert bytes(others[0]) == bytes(100_000)
    assert one.ask(Attached.read, handle) == b"t" * 400_000


def test_workers_restore_what_others_have_made(store: ObjectStore, stations: list[Station]) -> None:
    handles = [stations[n % 2].ask(Attached.make, bytes([n]) * 150_000) for n in range(20)]
    for n, handle in enumerate(handles):
        other = stations[(n + 1) % 2]
        other.ask(Attached.hold, handle)
        stations[n % 2].ask(Attached.drop, handle)
        assert other.ask(Attached.look, handle) == bytes([n]) * 150_000
        other.ask(Attached.drop, handle)
    assert store.statistics().objects == 0


def test_when_all_is_looked_at_the_error_says_so(tmp_path: Path) -> None:
    store = ObjectStore.create(MIB, tmp_path, patience=0.1)
    views = [memoryview(made(store, bytes(250_000))) for _ in range(4)]
    with pytest.raises(ObjectStoreFull, match="holds 4 objects"):
        store.allocate(250_000)
    spilled = made(store, b"s" * 40_000)
    views.pop()
    views.append(memoryview(made(store, bytes(270_000))))
    assert store.statistics().spilled == 1
    with pytest.raises(ObjectStoreFull, match="bring an object of 40,000 bytes back"):
        bytes(spilled)
    views.clear()
    assert bytes(spilled) == b"s" * 40_000


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: pwrite fails in the same way."""
    program = """if True:
        import resource, signal, sys
        from microkernel.errors import ObjectStoreFull
        from microkernel.objects import ObjectStore
        store = ObjectStore.create(1 << 20, sys.argv[1], patience=0.2)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, resource.RLIM_INFINITY))
        kept = []
        def make(n):
            block = store.allocate(100_000)
            block.fill(bytes([n]) * 100_000)
            block.seal()
            kept.append(block)
        try:
            for n in range(20):
                make(n)
        except ObjectStoreFull as error:
            assert "spilling failed: File too large" in str(error), error
        else:
            raise SystemExit("there was room")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        for n in range(len(kept), 20):
            make(n)
        assert [bytes(block) for block in kept] == [bytes([n]) * 100_000 for n in range(20)]
    """
    child = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=False, timeout=BOUND
    )
    assert child.returncode == 0


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_cannot_be_used_is_refused_at_once(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KernelError, match="nothing can be spilled"):
        ObjectStore.create(MIB, tmp_path / folder)


def test_a_folder_that_vanishes_is_an_error_of_who_waits(tmp_path: Path) -> None:
    folder = tmp_path / "spill"
    folder.mkdir()
    store = ObjectStore.create(MIB, folder, patience=0.1)
    shutil.rmtree(folder)
    kept = [made(store, bytes(500_000)) for _ in range(2)]
    with pytest.raises(ObjectStoreFull, match="spilling failed: No such file"):
        store.allocate(500_000)
    folder.mkdir()
    assert store.allocate(500_000).size == 500_000
    assert len(kept) == 2


def test_a_spilled_object_of_a_closed_store_is_refused(store: ObjectStore) -> None:
    blocks = [made(store, bytes(300_000)) for _ in range(5)]
    store.close()
    refused = 0
    for block in blocks:
        try:
            bytes(block)
        except KernelClosed:
            refused += 1
    assert 1 <= refused < 5


def test_threads_share_what_is_restored(store: ObjectStore) -> None:
    blocks = [made(store, bytes([n]) * 200_000) for n in range(12)]
    wrong: list[int] = []

    def read(seed: int) -> None:
        for n in random.Random(seed).choices(range(12), k=40):
            if bytes(blocks[n]) != bytes([n]) * 200_000:
                wrong.append(n)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
        assert not thread.is_alive()
    assert wrong == []


# ---- All of it, in any order ----


class Sharing(RuleBasedStateMachine):
    """Three stations, the driver among them; one of the others may be killed at any time."""

    objects = Bundle("objects")
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.store = ObjectStore.create(MIB, self.folder, patience=BOUND)
        self.driver = Attached(self.store)
        self.stations = {n: Station(self.store, n) for n in (1, 2)}
        self.content: dict[int, bytes] = {}
        self.holders: dict[int, set[int]] = {}

    def ask(self, station: int, what: Callable[..., Any], *arguments: object) -> Any:
        if station == 0:
            return what(self.driver, *arguments)
        return self.stations[station].ask(what, *arguments)

    @rule(
        target=objects, station=st.integers(0, 2), n=st.sampled_from([0, 1, 999, 70_000, 300_000])
    )
    def make(self, station: int, n: int) -> int:
        content = os.urandom(16)[: n % 17] + bytes(n - n % 17)
        handle = self.ask(station, Attached.make, content)
        assert handle not in self.content
        self.content[handle] = content
        self.holders[handle] = {station}
        return handle

    @rule(handle=objects, station=st.integers(0, 2))
    def hold(self, handle: int, station: int) -> None:
        if self.holders[handle]:
            self.ask(station, Attached.hold, handle)
            self.holders[handle].add(station)
        else:
            with pytest.raises(ObjectLost):
                self.ask(station, Attached.hold, handle)

    @rule(handle=objects, station=st.integers(0, 2))
    def read(self, handle: int, station: int) -> None:
        if station in self.holders[handle]:
            assert self.ask(station, Attached.read, handle) == self.content[handle]

    @rule(handle=objects, station=st.integers(0, 2))
    def drop(self, handle: int, station: int) -> None:
        if station in self.holders[handle]:
            self.ask(station, Attached.drop, handle)
            self.holders[handle].discard(station)

    @rule(station=st.integers(1, 2))
    def kill(self, station: int) -> None:
        self.stations[station].kill()
        self.stations[station] = Station(self.store, station)
        for holders in self.holders.values():
            holders.discard(station)

    @invariant()
    def the_arena_knows_who_holds_what(self) -> None:
        statistics = self.store.statistics()
        alive = [handle for handle, holders in self.holders.items() if holders]
        assert statistics.objects == len(alive)
        assert sum(len(self.content[handle]) for handle in alive) <= (
            statistics.used + statistics.spilled_bytes
        )
        for station in range(3):
            held = [handle for handle in alive if station in self.holders[handle]]
            assert statistics.holders.get(station, 0) == len(held)
            assert statistics.held_bytes.get(station, 0) == sum(
                len(self.content[handle]) for handle in held
            )

    def teardown(self) -> None:
        for station in self.stations.values():
            station.kill()
        for handle in list(self.driver.blocks):
            self.driver.drop(handle)
        assert self.store.statistics().objects == self.store.statistics().used == 0
        self.store.close()


@pytest.mark.parametrize("examples", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_stations_share_objects_in_any_order(tmp_path: Path, examples: int) -> None:
    Sharing.folder = tmp_path
    run_state_machine_as_test(
        Sharing,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
