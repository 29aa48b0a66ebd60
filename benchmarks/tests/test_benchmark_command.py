"""The command, run as users run it, over a copy of the harness with benches of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.discovery import FOLDER, HARNESS, benches_of, module_names
from benchmarks.document import BEGIN, END

BENCHES = {
    "sound": """
        from benchmarks.measure import Bench, Figure

        def measured(effort):
            print("chatter of a library")
            yield Figure("sound.speed", float(effort.rounds), "/s", "higher", 3.0, "naive")

        def other(effort):
            yield Figure("sound.size", 7.0, "B", "lower")

        def benches():
            return [Bench("sound.speed", measured), Bench("sound.size", other)]
    """,
    "raising": """
        from benchmarks.measure import Bench

        def measured(effort):
            raise RuntimeError("no such luck")

        def benches():
            return [Bench("raising.speed", measured)]
    """,
    "crashing": """
        import os
        from benchmarks.measure import Bench

        def benches():
            return [Bench("crashing.speed", lambda effort: os.abort())]
    """,
    "silent": """
        from benchmarks.measure import Bench

        def benches():
            return [Bench("silent.speed", lambda effort: [])]
    """,
    "unimportable": "import a_package_that_nobody_has",
    "misnamed": """
        from benchmarks.measure import Bench

        def benches():
            return [Bench("sound.speed", print)]
    """,
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The harness alone, with no benches, and no peers that would have to be downloaded."""
    package = tmp_path / "benchmarks"
    package.mkdir()
    for name in HARNESS:
        shutil.copy(FOLDER / f"{name}.py", package)
    with (package / "peers.py").open("a") as peers:
        peers.write("\nENVIRONMENTS = ()\n")
    (tmp_path / "docs").mkdir()
    page = f"# Benchmarks\n\nAbove.\n\n{BEGIN}\n\nold table\n\n{END}\n\nBelow.\n"
    (tmp_path / "docs" / "benchmarks.md").write_text(page)
    return tmp_path


def add(home: Path, *names: str) -> None:
    for name in names:
        lines = [line.removeprefix("        ") for line in BENCHES[name].splitlines()]
        (home / "benchmarks" / f"{name}.py").write_text("\n".join(lines))


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_each_figure_is_one_line_and_nothing_else_is_printed(home: Path) -> None:
    add(home, "sound")
    run = command(home)
    assert run.returncode == 0, run.stderr
    figures = [json.loads(line) for line in run.stdout.splitlines()]
    assert [figure["bench"] for figure in figures] == ["sound.speed", "sound.size"]
    assert "chatter" in run.stderr


def test_a_name_selects_a_module_or_one_bench_and_quick_takes_fewer_rounds(home: Path) -> None:
    add(home, "sound", "raising")
    assert len(command(home, "sound").stdout.splitlines()) == 2
    full, quick = (command(home, "sound.speed", *flag) for flag in ((), ("--quick",)))
    assert json.loads(quick.stdout)["ours"] < json.loads(full.stdout)["ours"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raising", "no such luck"),
        ("crashing", "crashing.speed ended with status"),
        ("silent", "no figure"),
        ("unimportable", "a_package_that_nobody_has"),
        ("misnamed", "misnamed.py"),
    ],
)
def test_a_failing_bench_is_named_and_the_others_still_run(
    home: Path, name: str, said: str
) -> None:
    add(home, "sound", name)
    run = command(home)
    assert run.returncode == 1
    assert name in run.stderr
    assert said in run.stderr
    assert len(run.stdout.splitlines()) == 2


@pytest.mark.parametrize("name", ["nothing", "sound.nothing"])
def test_an_unknown_name_is_refused_with_the_known_ones(home: Path, name: str) -> None:
    add(home, "sound")
    run = command(home, name)
    assert run.returncode != 0
    assert name in run.stderr
    assert "sound" in run.stderr
    assert run.stdout == ""


def test_the_page_takes_the_table_of_a_full_run_and_keeps_its_text(home: Path) -> None:
    add(home, "sound")
    assert command(home, "--write-docs").returncode == 0
    page = (home / "docs" / "benchmarks.md").read_text()
    assert page.startswith("# Benchmarks\n\nAbove.\n")
    assert page.endswith("\n\nBelow.\n")
    assert "old table" not in page
    assert "| `sound.speed` | 15 /s | naive | 3 /s | 5 |" in page
    assert "| `sound.size` | 7 B |  |  |  |" in page
    assert "cores" in page


def test_the_page_keeps_its_last_figures_when_a_bench_fails(home: Path) -> None:
    add(home, "sound", "raising")
    before = (home / "docs" / "benchmarks.md").read_text()
    assert command(home, "--write-docs").returncode == 1
    assert (home / "docs" / "benchmarks.md").read_text() == before


@pytest.mark.parametrize("flag", ["--quick", "sound"])
def test_only_a_full_run_is_written_to_the_page(home: Path, flag: str) -> None:
    add(home, "sound")
    before = (home / "docs" / "benchmarks.md").read_text()
    assert command(home, "--write-docs", flag).returncode == 2
    assert (home / "docs" / "benchmarks.md").read_text() == before


def test_setup_says_what_it_built(home: Path) -> None:
    run = command(home, "--setup")
    assert run.returncode == 0
    assert "built:" in run.stderr


@pytest.mark.parametrize("module", module_names())
def test_every_module_of_this_project_lists_its_benches_without_measuring(module: str) -> None:
    assert benches_of(module)
