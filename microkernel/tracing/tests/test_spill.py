"""Filling and writing blocks is free of data races, and no entry is lost between the two."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SOURCE = Path(__file__).with_name("c") / "spill_stress.c"
TASKS = 300_000

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stress, compiled with ThreadSanitizer."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path_factory.mktemp("spill") / "spill_stress"
    flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=thread", "-Wno-tsan", f"-I{REPOSITORY}"]
    built = subprocess.run(
        [compiler, *flags, str(SOURCE), "-o", str(program), "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "tsan" in built.stderr:
        pytest.skip("no ThreadSanitizer")
    assert built.returncode == 0, built.stderr
    return program


@pytest.mark.parametrize("capacity", [0, 10])
def test_blocks_pass_from_thread_to_thread_without_a_race(
    program: Path, tmp_path: Path, capacity: int
) -> None:
    ran = subprocess.run(
        [str(program), str(tmp_path), str(TASKS), str(capacity)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if "unexpected memory mapping" in ran.stderr:
        pytest.skip("ThreadSanitizer does not run here")
    assert (ran.returncode, ran.stderr) == (0, "")
    found, lost, overwritten, wrong = map(int, ran.stdout.split())
    assert (found + lost + overwritten, wrong) == (TASKS, 0)
    assert (overwritten > 0) == (capacity > 0)
