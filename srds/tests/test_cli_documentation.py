"""The commands on the page about the command line work as they are written there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from srds.tests.desk import REPOSITORY, process, run, strict

PAGE = (REPOSITORY / "docs" / "cli.md").read_text()
COMMANDS = re.findall(r"^\$ srds (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def bob_in_loan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SRDS_STORE", raising=False)
    done = process("examples/loan.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # What the page says that it prints.
    assert done.stdout in PAGE
    return str(strict(run("log", "--json", "--subject", "bob"))["decisions"][0]["id"])


def test_every_command_on_the_page_works(bob_in_loan: str) -> None:
    assert len(COMMANDS) > 8
    written = {}
    for command in COMMANDS:
        written[command] = run(*shlex.split(command.replace("$ID", bob_in_loan)))
        assert written[command]
        if command.endswith("--json"):
            strict(written[command])
    (block,) = re.findall(r"^```text\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    (perturbed,) = [text for command, text in written.items() if "--grid" in command]
    assert block in perturbed


def test_the_page_names_every_command_and_option() -> None:
    listed = [
        line.split()[0]
        for line in run("--help").partition("Commands:")[2].splitlines()
        if line.startswith("  ") and line.strip()
    ]
    for name in listed:
        assert f"`srds {name}" in PAGE
        options = set(re.findall(r"--[a-z]+", run(name, "--help")))
        unnamed = options - {"--help", "--seed", "--full", "--name", "--failed", "--depth"}
        assert not [option for option in unnamed if option not in PAGE]


def test_errors_are_documents_as_the_page_says(tmp_path: Path) -> None:
    (shape,) = re.findall(r"`\{\"error\": \{(.*?)\}\}`", PAGE)
    document = strict(run("log", "--json", "--store", str(tmp_path), code=1))
    assert sorted(document["error"]) == sorted(json.loads(f"[{shape}]"))
