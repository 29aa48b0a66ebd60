"""One process's view of the object arena: making, sealing, holding, and being full."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microkernel.errors import KernelClosed, KernelError, ObjectLost, ObjectStoreFull
from microkernel.objects import Block, ObjectStore, empty

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="objects in shared memory need Linux"),
]

MIB = 1 << 20


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    store = ObjectStore.create(8 * MIB, patience=0.2)
    yield store
    store.close()


def made(store: ObjectStore, content: bytes) -> Block:
    block = store.allocate(len(content))
    block.fill(content)
    block.seal()
    return block


def test_what_was_written_is_read(store: ObjectStore) -> None:
    block = made(store, b"a million decisions")
    assert bytes(memoryview(block)) == b"a million decisions"
    assert len(block) == block.size == 19
    assert block.sealed


def test_a_sealed_object_cannot_be_written(store: ObjectStore) -> None:
    block = made(store, b"final")
    assert memoryview(block).readonly
    with pytest.raises(TypeError):
        memoryview(block)[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        numpy.frombuffer(block, "u1").flags.writeable = True
    with pytest.raises(KernelError, match="cannot be written"):
        block.fill(b"x")


def test_writing_through_a_pointer_to_a_sealed_object_is_stopped_by_the_machine(
    store: ObjectStore,
) -> None:
    block = made(store, bytes(4096))
    address = numpy.frombuffer(block, "u1").__array_interface__["data"][0]
    child = os.fork()
    if child == 0:
        import ctypes

        faulthandler.disable()
        ctypes.memset(address, 1, 1)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGSEGV


def test_a_block_is_freed_with_the_last_view_of_it(store: ObjectStore) -> None:
    block = made(store, bytes(10_000))
    array = numpy.frombuffer(block, "u1")[5:]
    handle = block.handle
    del block
    gc.collect()
    assert store.statistics().objects == 1
    assert store.hold(handle) is store.hold(handle)
    del array
    assert store.statistics().objects == 0
    assert store.statistics().used == 0


def test_a_handle_is_never_mistaken_for_that_of_a_later_object(store: ObjectStore) -> None:
    handles = set()
    for content in (b"one", b"two", b"three"):
        block = made(store, content)
        assert block.handle not in handles
        for old in handles:
            with pytest.raises(ObjectLost, match="gone"):
                store.hold(old)
        handles.add(block.handle)
        del block


@pytest.mark.parametrize("handle", [0, 1, 2**32, 2**63, 2**64 - 1])
def test_a_handle_that_never_was_is_refused(store: ObjectStore, handle: int) -> None:
    with pytest.raises(ObjectLost):
        store.hold(handle)


@pytest.mark.parametrize("n", [9 * MIB, 2**40, 2**63, 2**64 - 1])
def test_an_object_that_can_never_fit_is_refused_at_once(store: ObjectStore, n: int) -> None:
    with pytest.raises(ObjectStoreFull, match="more than all object memory") as caught:
        store.allocate(n)
    assert "object_memory" in caught.value.remedy
    assert store.statistics().used == 0


def test_an_object_may_be_empty_or_fill_the_arena(store: ObjectStore) -> None:
    nothing = made(store, b"")
    assert bytes(nothing) == b""
    assert store.hold(nothing.handle) is nothing
    del nothing
    everything = store.allocate(8 * MIB)
    assert store.statistics().largest_free == 0
    del everything
    assert store.statistics().largest_free == 8 * MIB


def test_a_full_arena_says_who_holds_what_and_works_again(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    kept = [store.allocate(MIB) for _ in range(8)]
    with (
        caplog.at_level(logging.WARNING, "microkernel.objects"),
        pytest.raises(ObjectStoreFull, match="this kernel holds 8 objects of 8,388,608 bytes"),
    ):
        store.allocate(MIB)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "waiting up to 0 s for room" in caplog.text
    del kept[3]
    assert store.allocate(MIB).size == MIB


def test_who_waits_for_room_gets_it_when_it_comes() -> None:
    store = ObjectStore.create(MIB, patience=30)
    kept = [store.allocate(MIB)]
    got: list[int] = []
    waiter = threading.Thread(target=lambda: got.append(store.allocate(MIB).size))
    waiter.start()
    assert not got
    kept.clear()
    waiter.join(20)
    assert got == [MIB]


def test_waiting_for_room_can_be_interrupted() -> None:
    store = ObjectStore.create(MIB, patience=50)
    kept = store.allocate(MIB)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            store.allocate(1)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert kept.size == MIB


def test_views_outlive_the_closed_store() -> None:
    store = ObjectStore.create(MIB)
    block = made(store, b"still here")
    view = memoryview(block)
    store.close()
    store.close()
    del store, block
    gc.collect()
    assert bytes(view) == b"still here"


def test_a_closed_store_refuses(store: ObjectStore) -> None:
    store.close()
    for use in (lambda: store.allocate(1), lambda: store.hold(1), lambda: store.forget(1)):
        with pytest.raises(KernelClosed):
            use()


def test_a_forked_child_can_read_but_changes_nothing(store: ObjectStore) -> None:
    block = made(store, b"shared")
    view = memoryview(block)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert bytes(view) == b"shared"
            with pytest.raises(KernelClosed, match="forked"):
                store.allocate(1)
            view.release()
            del block
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert store.statistics().objects == 1
    assert bytes(store.hold(block.handle)) == b"shared"


@pytest.mark.parametrize("station", [-1, 0, 64, 1000])
def test_a_station_has_a_number_of_its_own(store: ObjectStore, station: int) -> None:
    with pytest.raises(KernelError):
        ObjectStore.attach(store.fd, station)
    with pytest.raises(KernelError):
        store.forget(station)


def test_something_else_is_not_taken_for_an_arena() -> None:
    for content in (b"", bytes(8192), b"srobjts1" * 1024):
        fd = os.memfd_create("other")
        os.write(fd, content)
        with pytest.raises(KernelError, match="no object arena"):
            ObjectStore.attach(fd, 1)
        os.close(fd)
    with pytest.raises(KernelError):
        ObjectStore.attach(-1, 1)


@pytest.mark.parametrize("capacity", [-1, 2**60, 1.5, "8 MB"])
def test_a_wrong_capacity_is_named(capacity: object) -> None:
    with pytest.raises(KernelError) as caught:
        ObjectStore.create(capacity)  # type: ignore[arg-type]
    assert caught.value.what == "object_memory"


def test_the_default_is_a_share_of_the_memory() -> None:
    store = ObjectStore.create()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < store.capacity <= 0.31 * memory
    store.close()


def test_memory_that_cannot_be_mapped_is_an_error() -> None:
    program = """if True:
        import resource
        from microkernel.errors import KernelError
        from microkernel.objects import ObjectStore
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        try:
            ObjectStore.create(3 << 30)
        except KernelError as error:
            assert "Cannot allocate memory" in str(error), error
            assert "object_memory" in error.remedy
        else:
            raise SystemExit("it could be mapped")
        assert ObjectStore.create(1 << 20).allocate(1000).size == 1000
    """
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_a_store_leaves_no_descriptor_and_no_thread_behind() -> None:
    def left() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    before = left()
    for _ in range(3):
        store = ObjectStore.create(MIB)
        made(store, b"x")
        del store
    assert left() == before


# ---- Arrays ----


@given(
    st.sampled_from(["f8", "i4", "u1", "?", "c16", "M8[ns]", "S5", "i4,f8"]),
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
)
def test_an_array_is_built_in_the_arena(dtype: str, shape: tuple[int, ...]) -> None:
    store = ObjectStore.create(MIB)
    array = empty(store, shape, dtype)
    assert array.shape == shape
    assert array.dtype == numpy.dtype(dtype)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    array[...] = numpy.zeros(shape, dtype)
    assert store.statistics().objects == (1 if array.size else 0)
    del array
    assert store.statistics().objects == 0


def test_an_array_may_be_one_dimension_given_as_a_number(store: ObjectStore) -> None:
    assert empty(store, 3).shape == (3,)
    assert empty(store, 3).dtype == numpy.float64


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 2), object, "cannot lie in shared memory"),
        ((-1,), float, "shape"),
        ((2**40, 2**40), float, "more than all object memory"),
        ((2**31,), float, "more than all object memory"),
    ],
)
def test_an_array_that_cannot_be_is_refused(
    store: ObjectStore, shape: tuple[int, ...], dtype: type, message: str
) -> None:
    with pytest.raises(KernelError, match=message):
        empty(store, shape, dtype)


def test_an_array_keeps_its_memory(store: ObjectStore) -> None:
    part = empty(store, (1000, 10))[10:20, ::2]
    part[...] = 7
    others = [made(store, bytes([n]) * 50_000) for n in range(20)]
    assert (part == 7).all()
    assert len(others) == 20


def test_a_view_pickles_as_what_it_is(store: ObjectStore) -> None:
    array = numpy.frombuffer(made(store, bytes(range(200))), "u1")
    assert (pickle.loads(pickle.dumps(array)) == array).all()


@pytest.mark.slow  # the import alone takes seconds
def test_arrow_reads_an_object_in_place(store: ObjectStore) -> None:
    arrow = pytest.importorskip("pyarrow")
    block = made(store, numpy.arange(1000.0).tobytes())
    column = arrow.Array.from_buffers(arrow.float64(), 1000, [None, arrow.py_buffer(block)])
    handle = block.handle
    del block
    assert column.to_numpy(zero_copy_only=True).sum() == 499_500
    assert store.hold(handle).size == 8000
    del column
    assert store.statistics().objects == 0
