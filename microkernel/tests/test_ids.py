"""Task ids are derived from the run, the order and the names; never from time or place."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microkernel import Kernel, KernelSettings, current_task
from microkernel.ids import child_id, root_id

RUN = bytes(range(16))
MASK = 2**64 - 1


def avalanche(x: int) -> int:
    for multiplier in (0xD6E8FEB86659FD93, 0xD6E8FEB86659FD93, 1):
        x = (x ^ (x >> 32)) * multiplier & MASK
    return x


def reference_id(parent: bytes, index: int, name: str) -> bytes:
    """The mix function, written from its description."""
    function = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    a = int.from_bytes(parent[:8], "big") ^ avalanche(index + 0x9E3779B97F4A7C15 & MASK)
    b = int.from_bytes(parent[8:], "big") ^ avalanche(function ^ 0xC2B2AE3D27D4EB4F)
    high = avalanche(a + avalanche(b) & MASK)
    low = avalanche(b + avalanche(a ^ 0x165667B19E3779F9) & MASK)
    return high.to_bytes(8, "big") + low.to_bytes(8, "big")


@given(st.binary(min_size=16, max_size=16), st.integers(0, MASK), st.text(max_size=30))
def test_an_id_is_the_mix_of_parent_index_and_name(parent: bytes, index: int, name: str) -> None:
    assert child_id(parent, index, name) == reference_id(parent, index, name)
    assert root_id(parent, index, name) == reference_id(parent, index, name)


def test_ids_are_the_same_in_every_version() -> None:
    assert root_id(RUN, 0, "module:function").hex() == "6255925d8fb311b94ea2ff7f83f72e0e"


@given(st.binary(min_size=16, max_size=16), st.integers(0, 127))
def test_one_changed_bit_of_the_parent_changes_both_halves(parent: bytes, bit: int) -> None:
    other = (int.from_bytes(parent, "big") ^ (1 << bit)).to_bytes(16, "big")
    one, two = child_id(parent, 0, "f"), child_id(other, 0, "f")
    assert one[:8] != two[:8]
    assert one[8:] != two[8:]


@pytest.mark.parametrize("raw", [b"", bytes(15), bytes(17)])
def test_an_id_of_another_length_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        child_id(raw, 0, "f")


def leaf() -> bytes:
    task = current_task()
    assert task is not None
    return task.task_id


def branch(kernel: Kernel, width: int) -> list[Any]:
    return [leaf(), *kernel.get([kernel.submit(leaf) for _ in range(width)])]


def tree(kernel: Kernel) -> list[Any]:
    one = kernel.submit(branch, kernel, 3)
    two = kernel.submit(branch, kernel, 2)
    return [kernel.get(one), kernel.get(two), kernel.get(kernel.submit(leaf))]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_ids_do_not_depend_on_place_or_number_of_threads(threads: int) -> None:
    with Kernel(run_id=RUN) as inline:
        expected = [tree(inline) for _ in range(3)]
    with Kernel(KernelSettings(placement="thread", threads=threads), run_id=RUN) as threaded:
        assert [tree(threaded) for _ in range(3)] == expected


def test_children_count_per_coroutine_in_the_order_of_first_submission() -> None:
    async def one_of_two(kernel: Kernel, log: list[bytes], times: int) -> None:
        for _ in range(times):
            log.append(kernel.submit(leaf).task_id)
            await asyncio.sleep(0)

    async def decision(kernel: Kernel) -> tuple[list[bytes], ...]:
        logs: tuple[list[bytes], ...] = ([], [], [])
        logs[0].append(kernel.submit(leaf).task_id)
        await asyncio.gather(one_of_two(kernel, logs[1], 3), one_of_two(kernel, logs[2], 2))
        logs[0].append(kernel.submit(leaf).task_id)
        return logs

    with Kernel(run_id=RUN) as kernel:
        opened = asyncio.run(_decide(kernel, decision))
        name = f"{__name__}:leaf"
        assert opened.answer == (
            [child_id(opened.id, index, name) for index in (0, 1)],
            [child_id(opened.id, 1 << 32 | index, name) for index in range(3)],
            [child_id(opened.id, 2 << 32 | index, name) for index in range(2)],
        )


def test_threads_of_a_coroutine_count_in_lanes_of_their_own() -> None:
    async def decision(kernel: Kernel) -> list[bytes]:
        first = kernel.submit(leaf).task_id
        elsewhere = await asyncio.to_thread(lambda: kernel.submit(leaf).task_id)
        return [first, elsewhere, kernel.submit(leaf).task_id]

    with Kernel(run_id=RUN) as kernel:
        opened = asyncio.run(_decide(kernel, decision))
        expected = [child_id(opened.id, i, f"{__name__}:leaf") for i in (0, 1 << 32, 1)]
        assert opened.answer == expected


async def _decide(kernel: Kernel, function: Callable[..., Any]) -> Any:
    return await kernel.decision(function, kernel)
