"""A journal that fails under a decision: no answer without its record, nobody waits for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from enclave.keys import SigningKey
from microkernel import Kernel, KernelSettings, boundary, shims
from timemachine.journal import open_log


@pytest.mark.parametrize("places", [(), (0,), (1, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("placement", ["inline", "thread"])
def test_no_answer_is_given_that_is_not_in_the_journal(
    tmp_path: Path, placement: str, places: tuple[int, ...]
) -> None:
    """The journal is closed under the decision, by these of its tasks."""
    settings = KernelSettings(placement=placement, threads=2)
    with (
        open_log(tmp_path, SigningKey.generate("tests")) as journal,
        Kernel(settings, sink=journal, run_id=journal.run_id) as kernel,
    ):

        def part(i: int) -> int:
            if i in places:
                journal.close()
            return boundary.read("table", i, lambda: i)

        def decide() -> list[int]:
            return kernel.get([kernel.submit(part, i) for i in range(4)])

        if places:
            for _ in range(3):
                with pytest.raises(Exception, match="closed"):
                    kernel.decision(decide)
        else:
            assert kernel.decision(decide).answer == [0, 1, 2, 3]
        assert kernel.get(kernel.submit(int, "5")) == 5
    assert not shims.watching()


def test_tasks_whose_records_cannot_be_written_end_and_the_decision_raises(tmp_path: Path) -> None:
    """More records than one block holds, so that appending fails while tasks are ending."""
    with (
        open_log(tmp_path, SigningKey.generate("tests")) as journal,
        Kernel(KernelSettings(placement="thread", threads=2), sink=journal) as kernel,
    ):

        def decide() -> int:
            journal.close()
            return sum(kernel.get([kernel.submit(int, i) for i in range(1000)]))

        with pytest.raises(Exception, match="closed"):
            kernel.decision(decide)
