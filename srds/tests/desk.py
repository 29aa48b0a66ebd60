"""A small app with every kind of decision, run in a process of its own, and how to ask about it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from srds.cli import application

__all__ = ["APP", "REPOSITORY", "Left", "errors", "make", "process", "run", "strict"]

REPOSITORY = Path(__file__).parents[2]

APP = """
import math
import os
import signal
import sys
import time
from datetime import datetime, timezone

from srds import App, aread, read

app = App("desk")
PEOPLE = {
    "ada": {"income": 52.0, "debt": 9.0, "town": "Lynn", "owner": True, "years": 3},
    "bob": {"income": 20.0, "debt": 14.0, "town": "Salem", "owner": False, "years": 8},
    "cyd": {"income": 31.0, "debt": 11.0, "town": "Lynn", "owner": True, "years": 4},
    "nan": {"income": math.nan, "debt": 2.0, "town": "[red]\\x1b[31mLynn", "owner": True,
            "years": 1},
}


@app.resource
def threshold(opened):
    return opened.ground.version_by_hash(opened.versions[0]).content["threshold"]


def points(income, debt):
    return income - 2 * debt


def cell(name, column):
    return read("people", (name, column), lambda: PEOPLE[name][column])


@app.decision(subject="name", policy="prudent")
def grant(name, *, purpose="car"):
    income, debt, town = cell(name, "income"), cell(name, "debt"), cell(name, "town")
    cell(name, "owner"), cell(name, "years")
    score = app.kernel.get(app.kernel.submit(points, income, debt))
    time.time()
    return {"answer": "approve" if score > threshold() else "reject", "score": score}


@app.decision(subject="name")
async def well_off(name):
    async def fetch():
        return PEOPLE[name]["income"]

    return await aread("people", (name, "income"), fetch) > 30


@app.decision
def odd(what):
    return {"what": what, "bytes": b"\\x00\\xff", "infinite": -math.inf, "set": {2, 1},
            "when": datetime(2020, 1, 2, tzinfo=timezone.utc), 3: (1, 2)}


@app.decision
def leave(name):
    cell(name, "income")
    os.kill(os.getpid(), signal.SIGKILL)


async def check():
    await well_off("ada")
    await well_off("bob")


if __name__ == "__main__":
    import asyncio

    with app.open(sys.argv[1]) as opened:
        model = opened.ground.item("model", "desk")
        data = opened.ground.version(opened.ground.item("dataset", "people"), content={"n": 3})
        first = opened.ground.version(model, content={"threshold": 5})
        second = opened.ground.version(model, content={"threshold": 20}, parents=[first])
        opened.ground.link(data, first, "trained_on")
        opened.ground.move("model/desk@production", None, first)
        opened.ground.move("model/desk@next", None, second)
        opened.deploy([first.hash])
        for name in ("ada", "bob", "cyd"):
            grant(name)
        grant("nan", purpose="boat")
        try:
            grant("eve")
        except KeyError:
            pass
        asyncio.run(check())
        odd("things")
    if "die" in sys.argv:
        with app.open(sys.argv[1]) as opened:
            leave("ada")
"""


@dataclass(frozen=True)
class Left:
    """What the app left: its store, its file, and the ids of its decisions by function, subject."""

    store: Path
    file: Path
    ids: dict[tuple[str, Any], str]

    def __call__(self, *arguments: str, exit_code: int = 0, store: bool = True) -> str:
        """Run a command over the store; returns what it wrote to standard output."""
        return run(*arguments, *(["--store", str(self.store)] if store else []), code=exit_code)

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        return strict(self(*arguments, "--json", exit_code=exit_code))

    def copy(self, to: Path) -> Left:
        shutil.copytree(self.store, to)
        return Left(to, self.file, self.ids)

    @property
    def segment(self) -> Path:
        (path,) = self.store.glob("journal/*/*.seg")
        return path


def strict(text: str) -> Any:
    """Parse one JSON document, which NaN and Infinity are not part of."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(application(), arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def errors(*arguments: str, code: int = 1) -> str:
    result = CliRunner().invoke(application(), arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr


def make(folder: Path, *arguments: str) -> Left:
    file = folder / "desk.py"
    file.write_text(APP)
    store = folder / "store"
    done = process(str(file), str(store), *arguments)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    documents = strict(run("log", "--json", "--store", str(store)))["decisions"]
    ids = {(one["name"].rpartition(":")[2], one["subject"]): one["id"] for one in documents}
    return Left(store, file, ids)


def process(
    *arguments: str, cwd: Path = REPOSITORY, timeout: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python of its own, which finds what this one finds."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
