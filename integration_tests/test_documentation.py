"""The documentation holds: its examples run, its links lead somewhere, its program is the example.

Pages whose package tests them already are left to it. A page is tested in the form it is written
in: ``>>>`` as one doctest session, ``python`` blocks one after another in one namespace.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
TEXTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *PAGES]
TESTED_BY_THEIR_PACKAGE = {
    "boundary.md",
    "enclave.md",
    "explanation.md",
    "ground.md",
    "judgement.md",
    "kernel.md",
}

LINK = re.compile(r"!?\[[^]\n]*(?:\n[^]\n]*)?\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def untested(page: Path) -> bool:
    return page.name not in TESTED_BY_THEIR_PACKAGE


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text()) if found == language]


def name_of(path: Path) -> str:
    return path.name


def without_code(text: str) -> str:
    return BLOCK.sub("", text)


def anchors(path: Path) -> set[str]:
    """The anchors that a Markdown renderer gives to a page's headings."""
    headings = HEADING.findall(without_code(path.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def environment(**variables: str) -> dict[str, str]:
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    kept = {key: value for key, value in os.environ.items() if key != "SRDS_STORE"}
    return kept | {"PYTHONPATH": paths} | variables


@pytest.mark.parametrize(
    "page", [page for page in PAGES if untested(page) and ">>> " in page.read_text()], ids=name_of
)
def test_the_session_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testfile(str(page), module_relative=False)
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if untested(page) and page.name != "quickstart.md" and blocks(page, "python")
    ],
    ids=name_of,
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(page, "python")))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=False,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", TEXTS, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(text: Path) -> None:
    missing = []
    for link in LINK.findall(without_code(text.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = text.parent / place if place else text
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert not missing


def test_the_index_lists_every_page() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text()
    listed = set(LINK.findall(index))
    assert {page.name for page in PAGES} - {"index.md"} <= listed


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_program_shown_is_the_example(page: str) -> None:
    example = (REPOSITORY / "examples" / "loan.py").read_text()
    program = example.partition('"""\n\n')[2]
    assert program in blocks(REPOSITORY / page, "python")
    assert len([line for line in program.splitlines() if line.strip()]) == 12


def test_the_commands_of_the_quickstart_run_on_the_example(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    text = (REPOSITORY / "docs" / "quickstart.md").read_text()
    told = BLOCK.search(text, text.index("<!-- these commands are tested -->"))
    assert told is not None
    first, *commands = told[2].splitlines()
    variable, _, value = first.removeprefix("export ").partition("=")
    identity = ""
    for command in commands:
        words = shlex.split(command.replace("ID", identity))
        program = {"python": [], "srds": ["-m", "srds"]}[words[0]]
        done = subprocess.run(
            [sys.executable, *program, *words[1:]],
            cwd=tmp_path,
            env=environment(**{variable: value}),
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stderr)
        if words[:2] == ["srds", "log"]:
            [identity] = re.findall(r"^([0-9a-f]+) .*reject", done.stdout, re.MULTILINE)
    assert (tmp_path / value / "store.json").is_file()
