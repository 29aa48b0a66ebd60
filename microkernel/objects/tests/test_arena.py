"""The arena as C: its allocator beside an oracle, data races, a death at any step."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "c" / "stress_objects.c"
BOUND = 100  # seconds; the program ends itself then

pytestmark = [
    pytest.mark.timeout(BOUND + 30),
    pytest.mark.skipif(sys.platform != "linux", reason="objects in shared memory need Linux"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="these tests are C: no gcc found"),
]


def build(folder: Path, *options: str) -> Path:
    program = folder / "stress_objects"
    command = ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]
    paths = ["-pthread", "-I", str(SOURCE.parents[2]), str(SOURCE), "-o", str(program)]
    subprocess.run([*command, *options, *paths], check=True, timeout=BOUND)
    return program


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built for ThreadSanitizer, where there is one that runs."""
    folder = tmp_path_factory.mktemp("watched")
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    command = ["gcc", "-fsanitize=thread", str(probe), "-o", str(folder / "probe")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this gcc has no ThreadSanitizer: install libtsan")
    if subprocess.run([folder / "probe"], capture_output=True, check=False).returncode:
        pytest.skip("ThreadSanitizer does not run on this system")
    return build(folder, "-fsanitize=thread")


def run(program: Path, *arguments: object) -> str:
    command = [str(program), *map(str, arguments)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    assert outcome.returncode == 0, outcome.stdout[-2000:] + outcome.stderr[-6000:]
    assert outcome.stdout.endswith("ok\n")
    return outcome.stdout


def test_the_allocator_agrees_with_a_map_of_bytes(plain: Path) -> None:
    run(plain, "heap", 100_000)


@pytest.mark.parametrize("spilling", [False, True])
def test_threads_that_share_objects_find_them_whole(
    plain: Path, tmp_path: Path, spilling: bool
) -> None:
    run(plain, "threads", 4_000, *([tmp_path] if spilling else []))


@pytest.mark.parametrize("spilling", [False, True])
def test_no_data_race_between_stations_and_keeper(
    watched: Path, tmp_path: Path, spilling: bool
) -> None:
    run(watched, "threads", 1_500, *([tmp_path] if spilling else []))


def test_a_process_may_die_at_any_step_of_any_operation(plain: Path) -> None:
    points = int(run(plain, "points").split()[0])
    assert points > 300


def test_killed_processes_leave_the_arena_whole(plain: Path) -> None:
    run(plain, "kills", 100)


def test_elsewhere_than_on_linux_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.c").write_text(
        """
        #include "native.h"
        int main(void) {
            srds_store *store;
            int fd;
            return srds_store_create(1 << 20, 1, 0, 0, &fd, &store) != ENOSYS
                || srds_store_attach(3, 1, &store) != ENOSYS;
        }
        """
    )
    program = tmp_path / "elsewhere"
    command = ["gcc", "-U__linux__", "-Wall", "-Werror", "-Wno-unused-function"]
    paths = ["-I", str(SOURCE.parents[2]), str(tmp_path / "elsewhere.c"), "-o", str(program)]
    subprocess.run([*command, *paths], check=True, timeout=BOUND)
    assert subprocess.run([program], check=False, timeout=BOUND).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-fsanitize=address,undefined",)])
def test_the_arena_survives_long_stress(tmp_path: Path, options: tuple[str, ...]) -> None:
    program = build(tmp_path, *options)
    run(program, "heap", 1_000_000)
    run(program, "threads", 50_000, tmp_path)
    run(program, "points")
    run(program, "kills", 3_000)
