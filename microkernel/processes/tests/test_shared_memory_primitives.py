"""Ring, doorbell and deque, as C: stressed, watched by ThreadSanitizer, and model-checked.

They are three small files on which every message between processes rests, and what is wrong with
such code shows once in a million times. So the tests do not wait for luck: ``tests/c/model.h`` runs
the headers as they stand through every interleaving of a few operations, also with delayed stores.
That the checks would find something is itself checked, with headers from which a fence, an ordering
or a rule has been taken out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "c"
HEADERS = SOURCES.parent.parent
BOUND = 120  # seconds; the programs end themselves before

pytestmark = [
    pytest.mark.timeout(BOUND + 30),
    pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="these tests are C: no gcc found"),
]


def compiled(folder: Path, program: str, *options: str, headers: Path = HEADERS) -> Path:
    """The program of that name, built with those options."""
    binary = folder / program
    if not binary.exists():
        base = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
        paths = ["-I", str(headers), "-I", str(SOURCES)]
        # The model checker jumps between stacks, which looks like damage to the hardened longjmp.
        source = ["-U_FORTIFY_SOURCE", str(SOURCES / f"{program}.c"), "-o", str(binary)]
        subprocess.run([*base, *options, *paths, *source], check=True, timeout=BOUND)
    return binary


def run(binary: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(binary), *map(str, arguments)]
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=BOUND, check=False
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs are built for ThreadSanitizer, if it is there and can run."""
    folder = tmp_path_factory.mktemp("watched")
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    build = ["gcc", "-fsanitize=thread", str(probe), "-o", str(folder / "probe")]
    if subprocess.run(build, capture_output=True, check=False).returncode:
        pytest.skip("this gcc has no ThreadSanitizer: install libtsan")
    outcome = run(folder / "probe")
    if outcome.returncode:  # older libtsan cannot live with much address randomization
        pytest.skip(f"ThreadSanitizer does not run on this system: {outcome.stderr.strip()}")
    return folder


def assert_clean(outcome: subprocess.CompletedProcess[str]) -> None:
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-6000:]
    assert "ok" in outcome.stdout


# ---- Stress ----


@pytest.mark.parametrize(
    ("program", "amount", "options"),
    [
        ("stress_ring", 200_000, ()),
        ("stress_bell", 10_000, ()),
        ("stress_deque", 1_000_000, ()),
        ("stress_deque", 500_000, ("-DSRDS_DEQUE_BITS=1",)),
    ],
)
def test_everything_arrives_once_under_stress(
    tmp_path: Path, program: str, amount: int, options: tuple[str, ...]
) -> None:
    assert_clean(run(compiled(tmp_path, program, *options), amount))


@pytest.mark.parametrize(
    ("program", "amount"),
    [("stress_ring", 30_000), ("stress_bell", 2_000), ("stress_deque", 200_000)],
)
def test_no_data_race_under_stress(watched: Path, program: str, amount: int) -> None:
    assert_clean(run(compiled(watched, program, "-fsanitize=thread"), amount))


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["", "-fsanitize=thread", "-fsanitize=address,undefined"])
@pytest.mark.parametrize(
    ("program", "amount", "options"),
    [
        ("stress_ring", 1_000_000, ()),
        ("stress_ring", 200_000, ("-DSRDS_RING_BITS=15",)),
        ("stress_bell", 50_000, ()),
        ("stress_deque", 4_000_000, ()),
        ("stress_deque", 1_000_000, ("-DSRDS_DEQUE_BITS=1",)),
    ],
)
def test_everything_arrives_once_under_long_stress(
    tmp_path: Path,
    watched: Path,
    program: str,
    amount: int,
    options: tuple[str, ...],
    sanitizer: str,
) -> None:
    binary = compiled(tmp_path, program, *options, *([sanitizer] if sanitizer else []))
    assert_clean(run(binary, amount))


# ---- Every interleaving ----

# What the owner does, what each of two thieves tries. Two slots: `+++` finds it full.
DEQUES = ["+-", "++--", "+-+-", "++-+-", "+++--", "+++-+-"]


@pytest.mark.parametrize("memory", ["sc", "tso", "pso"])
def test_the_deque_gives_each_item_once_in_every_interleaving(plain: Path, memory: str) -> None:
    binary = compiled(plain, "model_deque")
    for owner in DEQUES:
        outcome = run(binary, memory, owner, 2, 1)
        assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize("memory", ["sc", "tso", "pso"])
def test_nobody_sleeps_through_a_message_in_any_interleaving(plain: Path, memory: str) -> None:
    binary = compiled(plain, "model_bell")
    scenarios = ["one", "threshold", "batch", "death"] + ["two"] * (memory == "tso")
    for scenario in scenarios:
        outcome = run(binary, memory, scenario)
        assert outcome.returncode == 0, f"{scenario}: {outcome.stdout}"


@pytest.mark.parametrize("memory", ["sc", "tso", "pso"])
def test_a_worker_killed_anywhere_loses_no_task(plain: Path, memory: str) -> None:
    outcome = run(compiled(plain, "model_bell"), memory, "recovery")
    assert outcome.returncode == 0, outcome.stdout


def test_without_a_ring_for_the_dead_somebody_sleeps_forever(plain: Path) -> None:
    """Why the rule at the top of bell.h is there."""
    outcome = run(compiled(plain, "model_bell"), "sc", "death-unrung")
    assert outcome.returncode == 1
    assert "a thread waits forever" in outcome.stdout


# ---- The checks find what they are for ----

MUTANTS = {
    "pop without its fence": (
        "deque.h",
        "srds_fence();\n    top = atomic_load_explicit",
        "top = atomic_load_explicit",
        ("model_deque", "tso", "++--", 2, 1),
    ),
    "pop that does not compete for the last item": (
        "deque.h",
        "if (top == bottom) {",
        "if (0) {",
        ("model_deque", "sc", "+-", 1, 1),
    ),
    "push that shows the slot before its content": (
        "deque.h",
        "atomic_store_explicit(&deque->bottom, bottom + 1, memory_order_release);\n    return 1;",
        "atomic_store_explicit(&deque->bottom, bottom + 1, memory_order_relaxed);\n    return 1;",
        ("model_deque", "pso", "++--", 2, 1),
    ),
    "sleeping without the fence before the last look": (
        "bell.h",
        "srds_fence();\n        if (srds_bell_ready",
        "if (srds_bell_ready",
        ("model_bell", "tso", "one"),
    ),
    "notifying without the fence before looking who sleeps": (
        "bell.h",
        "srds_fence();\n        known",
        "known",
        ("model_bell", "tso", "threshold"),
    ),
    "trusting that whoever said so has made the call": (
        "bell.h",
        "atomic_store_explicit(&bell->asleep, 0, memory_order_release);\n    srds_futex_wake",
        "if (atomic_exchange_explicit(&bell->asleep, 0, memory_order_acq_rel)) srds_futex_wake",
        ("model_bell", "sc", "death"),
    ),
    "consuming a task before its answer is seen": (
        "ring.h",
        "&ring->head, ring->read, memory_order_release",
        "&ring->head, ring->read, memory_order_relaxed",
        ("model_bell", "pso", "recovery"),
    ),
}


def mutated(folder: Path, header: str, old: str, new: str) -> Path:
    """A copy of the headers with one place changed."""
    copies = folder / "headers"
    copies.mkdir()
    for original in HEADERS.glob("*.h"):
        shutil.copy(original, copies)
    text = (copies / header).read_text()
    assert text.count(old) == 1, f"{header} has changed: adapt the mutant"
    (copies / header).write_text(text.replace(old, new))
    return copies


@pytest.mark.parametrize("name", MUTANTS)
def test_the_model_checker_finds(tmp_path: Path, name: str) -> None:
    header, old, new, (program, *arguments) = MUTANTS[name]
    headers = mutated(tmp_path, header, old, new)
    outcome = run(compiled(tmp_path, str(program), headers=headers), *arguments)
    assert outcome.returncode == 1, outcome.stdout
    assert outcome.stdout.startswith("violation: ")


def test_thread_sanitizer_finds_publishing_without_order(tmp_path: Path, watched: Path) -> None:
    headers = mutated(
        tmp_path,
        "ring.h",
        "&ring->tail, ring->reserved, SRDS_BEFORE_FENCE",
        "&ring->tail, ring->reserved, memory_order_relaxed",
    )
    outcome = run(compiled(tmp_path, "stress_ring", "-fsanitize=thread", headers=headers), 5_000)
    assert outcome.returncode != 0
    assert "data race" in outcome.stderr
