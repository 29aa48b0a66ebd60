"""What benches and peers' scripts are made of: known loads, process trees, METG, peers' ends."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.discovery import benches_of, module_names
from benchmarks.granularity import WIDTH, cell, smallest_length, stencil
from benchmarks.load import dies_once, hogs, iterations_per_second, rollout
from benchmarks.peers import PeerEnvironment, trial
from benchmarks.process_tree import (
    children,
    cpu_seconds,
    descendants,
    memory_bytes,
    parent,
    private_bytes,
    tree,
    with_variable,
)

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
SLEEPER = "import sys; print(flush=True); sys.stdin.read()"


@contextmanager
def sleeping(program: str = SLEEPER, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is up and waits until the ``with`` block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | variables,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.communicate(timeout=60)


def test_a_tree_holds_the_processes_that_a_process_started_and_theirs() -> None:
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}])"
    with sleeping(inner) as process:
        mine = descendants(os.getpid())
        assert process.pid in mine
        theirs = descendants(process.pid)
        assert len(theirs) == 1
        assert set(theirs) < set(mine)
        assert tree(process.pid) == [process.pid, *theirs]
        assert children(process.pid) == set(theirs)
        assert parent(theirs[0]) == process.pid
    assert not set(theirs) & set(descendants(os.getpid()))
    assert parent(theirs[0]) == 0


def test_processor_time_counts_also_children_that_have_ended() -> None:
    before = cpu_seconds([os.getpid()])
    program = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert cpu_seconds([os.getpid()]) - before > 0.15


def test_memory_of_many_is_less_than_the_sum_because_shared_pages_count_once() -> None:
    with sleeping() as one, sleeping() as other:
        assert 0 < private_bytes(one.pid) <= memory_bytes([one.pid])
        together = memory_bytes([one.pid, other.pid])
        assert together >= private_bytes(one.pid) + private_bytes(other.pid)


def test_processes_are_found_by_a_variable_they_were_started_with() -> None:
    with sleeping(SRDS_TEST_MARK="seven") as process:
        assert with_variable("SRDS_TEST_MARK", "seven") == [process.pid]
        assert with_variable("SRDS_TEST_MARK", "sev") == []


def test_a_load_of_known_length_takes_the_processor_that_long() -> None:
    rate = iterations_per_second(2, 0.05)
    assert rate > 1e5
    assert rollout(round(rate * 0.01)) > 0


def test_hogs_are_busy_in_the_block_and_gone_after_it() -> None:
    before = set(children(os.getpid()))
    with hogs(2):
        born = set(children(os.getpid())) - before
        assert len(born) == 2
        deadline = time.monotonic() + 60
        while cpu_seconds(born) == 0:
            assert time.monotonic() < deadline
    assert not born & set(children(os.getpid()))


def test_a_task_that_kills_its_process_answers_the_second_time(tmp_path: Path) -> None:
    program = f"from benchmarks.load import dies_once; dies_once({str(tmp_path / 'died')!r})"
    runs = [
        subprocess.run([sys.executable, "-c", program], cwd=PAGE.parents[1], check=False)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [-9, 0]
    assert dies_once(str(tmp_path / "died")) <= time.monotonic()


def test_each_task_of_the_stencil_takes_its_neighbours_results_of_the_step_before() -> None:
    calls = itertools.count()

    def run(iterations: int, *neighbours: int) -> int:
        next(calls)
        assert len(set(neighbours)) == 1
        return cell(iterations, *neighbours)

    assert stencil(run, 1, steps=7) == [7] * WIDTH
    assert next(calls) == 7 * WIDTH


@pytest.mark.parametrize("overhead", [3e-7, 1e-5, 2e-3])
@pytest.mark.parametrize("first", [1e-6, 1e-3])
def test_metg_is_where_the_overhead_is_as_long_as_the_task(overhead: float, first: float) -> None:
    found = smallest_length(lambda length: length / (length + overhead), first)
    assert found == pytest.approx(overhead, rel=0.05)


def test_metg_gives_up_on_what_never_gets_half_and_stops_at_the_shortest_task() -> None:
    with pytest.raises(RuntimeError, match="useful"):
        smallest_length(lambda length: 0.4, 1e-3)
    assert smallest_length(lambda length: 0.9, 1e-5) < 2.1e-7


@pytest.fixture
def peer(tmp_path: Path) -> tuple[PeerEnvironment, Path]:
    """An environment that is this one, as if ``--setup`` had made it; and its folder."""
    environment = PeerEnvironment("naive", ("nothing",))
    home = tmp_path / ".peers" / "naive"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(sys.executable)
    (home / "requirements.sha256").write_text(environment.fingerprint)
    return environment, tmp_path / ".peers"


def test_a_trial_can_use_the_harness_and_leaves_nothing_behind(
    peer: tuple[PeerEnvironment, Path], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, subprocess, sys, tempfile, time\n"
        "from benchmarks.peer_scripts.trials import median_of, run\n"
        "def daemon(count):\n"
        "    open(tempfile.mkstemp()[1], 'w').write('left behind')\n"
        "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],\n"
        "                     start_new_session=True, stdout=subprocess.DEVNULL)\n"
        f"    open({str(tmp_path / 'home')!r}, 'w').write(tempfile.gettempdir())\n"
        f"    open({str(tmp_path / 'mark')!r}, 'w').write(os.environ[{peers.MARK!r}])\n"
        "    return median_of(lambda: count, 3)\n"
        "run({'daemon': daemon})\n"
    )
    environment, folder = peer
    assert trial(environment, script, "daemon", "7", folder=folder) == 7.0
    assert with_variable(peers.MARK, (tmp_path / "mark").read_text()) == []
    assert not Path((tmp_path / "home").read_text()).exists()


def test_a_peer_that_is_not_set_up_is_left_out_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not peers.there(PeerEnvironment("naive", ("nothing",)), tmp_path)
    assert "--setup" in capsys.readouterr().err


def test_every_script_of_a_peer_is_python_that_compiles() -> None:
    for script in peers.SCRIPTS.glob("*.py"):
        compile(script.read_text("utf-8"), script.name, "exec")


def test_every_bench_is_explained_on_the_page() -> None:
    text = PAGE.read_text("utf-8")
    benches = [bench.name for module in module_names() for bench in benches_of(module)]
    assert [name for name in benches if f"`{name}`" not in text] == []


def test_the_cost_of_a_record_is_measured_over_as_many_as_asked_for() -> None:
    from microkernel.tracing.cost import record_ns

    assert record_ns(bytes(16), 1) > 0
    assert record_ns(bytes(16), 100_000) < 1e6
