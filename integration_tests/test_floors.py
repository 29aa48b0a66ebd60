"""Imports go down only: {microkernel, enclave} < timemachine < ground < frameworks.* < srds.

A package may import its own modules and any lower floor, never another package of its own floor
(but ``frameworks.rl`` its elder ``frameworks.tasks``), and nobody below imports ``srds``. Tests
beside a package keep to the same rule; what crosses packages stands in ``integration_tests``,
``benchmarks``, ``examples`` and ``tools``, which may import anything and are imported by nobody.

The imports are read from the sources, so that one inside a function, under ``TYPE_CHECKING`` or in
a Cython file counts like any other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

FLOORS = {"microkernel": 0, "enclave": 0, "timemachine": 1, "ground": 2, "frameworks": 3, "srds": 4}
ABOVE_ALL = {"benchmarks", "docs", "examples", "integration_tests", "tools"}
ALLOWED_ON_ONE_FLOOR = {("frameworks.rl", "frameworks.tasks")}

SUFFIXES = {".py", ".pyi", ".pyx", ".pxd"}
NOT_OURS = {"build", "dist", "__pycache__", "node_modules"}

_CYTHON_IMPORT = re.compile(
    r"(?:^|;|:)[ \t]*(?:"
    r"from[ \t]+(?P<source>[\w.]+)[ \t]+c?import[ \t]*(?P<names>\([^)]*\)|[^\n;]*)"
    r"|c?import[ \t]+(?P<modules>[\w.]+(?:[ \t]+as[ \t]+\w+)?(?:[ \t]*,[ \t]*[\w.]+"
    r"(?:[ \t]+as[ \t]+\w+)?)*)"
    r")",
    re.MULTILINE,
)
_CYTHON_TEXT = re.compile(
    r'"""(?:\\.|[^\\])*?"""'
    r"|'''(?:\\.|[^\\])*?'''"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'(?:\\.|[^'\\\n])*'"
    r"|#[^\n]*",
    re.DOTALL,
)
_DYNAMIC = {"import_module", "__import__", "find_spec", "importorskip"}


@dataclass(frozen=True)
class Import:
    """One import found in a source: where, and the dotted names that it may reach."""

    line: int
    targets: tuple[str, ...]


def package_of(module: str) -> str | None:
    """The package of ours that a dotted name belongs to: each framework is one of its own."""
    parts = module.split(".")
    if parts[0] not in FLOORS:
        return None
    return ".".join(parts[:2]) if parts[0] == "frameworks" else parts[0]


def imports_of(path: Path, root: Path) -> Iterator[Import]:
    """All imports in a source file, absolute, whichever way they are written."""
    text = path.read_text(encoding="utf-8")
    relative = path.relative_to(root).with_suffix("").parts
    home = relative[:-1]
    if path.suffix in {".py", ".pyi"}:
        yield from _python_imports(ast.parse(text, str(path)), home)
    else:
        yield from _cython_imports(text, home)


def _python_imports(tree: ast.Module, home: tuple[str, ...]) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield Import(node.lineno, tuple(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            source = _absolute("." * node.level + (node.module or ""), home)
            yield Import(node.lineno, _reached(source, [alias.name for alias in node.names]))
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            name = called.id if isinstance(called, ast.Name) else called
            argument = node.args[0]
            if name in _DYNAMIC and isinstance(argument, ast.Constant):
                yield Import(node.lineno, (str(argument.value),))


def _cython_imports(text: str, home: tuple[str, ...]) -> Iterator[Import]:
    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    code = _CYTHON_TEXT.sub(blank, text).replace("\\\n", "  ")
    for match in _CYTHON_IMPORT.finditer(code):
        line = code.count("\n", 0, match.start()) + 1 + match[0].startswith("\n")
        if match["source"]:
            names = [
                name.split()[0] for name in match["names"].strip("() \t").split(",") if name.strip()
            ]
            yield Import(line, _reached(_absolute(match["source"], home), names))
        else:
            yield Import(line, tuple(name.split()[0] for name in match["modules"].split(",")))


def _absolute(source: str, home: tuple[str, ...]) -> str:
    level = len(source) - len(source.lstrip("."))
    if level == 0:
        return source
    base = home[: len(home) - level + 1]
    return ".".join([*base, *filter(None, [source[level:]])])


def _reached(source: str, names: list[str]) -> tuple[str, ...]:
    # ``from frameworks import serving`` reaches a package that the source does not name.
    return tuple(f"{source}.{name}".lstrip(".") for name in names if name != "*") or (source,)


def violations(root: Path) -> list[str]:
    """Each import under ``root`` that does not go down, as ``file:line: reason``."""
    found = []
    for path in sources(root):
        relative = path.relative_to(root)
        if relative.parts[0] not in FLOORS:
            continue
        home = package_of(".".join(relative.with_suffix("").parts)) or ""
        if relative.parts == ("frameworks", "__init__.py"):
            home = "frameworks"
        for statement in imports_of(path, root):
            for target in statement.targets:
                reason = _forbidden(home, target)
                if reason:
                    found.append(f"{relative}:{statement.line}: {reason}")
    return found


def _forbidden(home: str, target: str) -> str | None:
    if target.partition(".")[0] in ABOVE_ALL:
        return f"{home} imports {target}, which stands outside the packages"
    package = package_of(target)
    if package is None or package == home or (home, package) in ALLOWED_ON_ONE_FLOOR:
        return None
    own, other = FLOORS[home.partition(".")[0]], FLOORS[package.partition(".")[0]]
    if other < own:
        return None
    return (
        f"{home} imports {target}, which stands {'above' if other > own else 'on the same floor'}"
    )


def sources(root: Path) -> Iterator[Path]:
    """Every Python and Cython source under ``root``, without builds and hidden folders."""
    for path in sorted(root.iterdir()):
        if path.name in NOT_OURS or path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            yield from sources(path)
        elif path.suffix in SUFFIXES:
            yield path


def test_imports_go_down_only() -> None:
    assert violations(REPOSITORY) == []


def test_every_folder_with_code_has_a_floor_or_stands_above_all() -> None:
    folders = {path.relative_to(REPOSITORY).parts[0] for path in sources(REPOSITORY)}
    unknown = {name for name in folders if (REPOSITORY / name).is_dir()} - {*FLOORS, *ABOVE_ALL}
    assert not unknown, f"give these a floor in {Path(__file__).name}"


@pytest.mark.parametrize("package", FLOORS)
def test_the_reading_finds_the_imports_of_every_package(package: str) -> None:
    files = list(sources(REPOSITORY / package))
    assert files
    reached = {
        package_of(target)
        for path in files
        for statement in imports_of(path, REPOSITORY)
        for target in statement.targets
    }
    assert reached - {None}, f"no import of ours was found in {package}: the reading is broken"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("microkernel/kernel.py", "import timemachine\n"),
        ("microkernel/kernel.py", "import os, enclave.keys as k\n"),
        ("enclave/keys/ring.py", "from microkernel import ids\n"),
        ("enclave/keys/ring.py", "def f():\n    from ground.items import Item\n"),
        ("enclave/keys/ring.pyi", "if TYPE_CHECKING:\n    import srds\n"),
        ("enclave/tests/test_ring.py", "import microkernel.ids\n"),
        ("timemachine/journal/reader.py", "from ...ground import items\n"),
        ("timemachine/journal/reader.py", "from ... import ground\n"),
        ("timemachine/reader.py", "import importlib\nimportlib.import_module('ground.items')\n"),
        ("timemachine/reader.py", "__import__('srds')\n"),
        ("ground/items.py", "import frameworks\n"),
        ("ground/items.py", "from frameworks import serving\n"),
        ("frameworks/serving/replica.py", "from frameworks.rl import rollout\n"),
        ("frameworks/serving/replica.py", "from frameworks import dataflow\n"),
        ("frameworks/serving/replica.py", "from .. import dataflow\n"),
        ("frameworks/serving/replica.py", "from ..dataflow.window import Window\n"),
        ("frameworks/tasks/remote.py", "import frameworks.rl\n"),
        ("frameworks/rl/ppo.py", "import srds.app\n"),
        ("frameworks/__init__.py", "from frameworks.serving import Replica\n"),
        ("microkernel/ring.pyx", "from timemachine.journal cimport Journal\n"),
        ("microkernel/ring.pxd", "cimport enclave.native\n"),
        ("microkernel/ring.pyx", "import os, timemachine as t\n"),
        ("microkernel/ring.pyx", "import os; import ground\n"),
        ("microkernel/ring.pyx", "cdef void f():\n    from srds import app\n"),
        ("microkernel/ring.pyx", 'TEXT = """\n"""\nfrom ground.items import \\\n    Item\n'),
        ("timemachine/a.pyx", "from frameworks cimport (\n    serving,\n)\n"),
        ("timemachine/journal/b.pyx", "from ...ground cimport items\n"),
        ("srds/app.py", "import benchmarks.measure\n"),
        ("ground/items.py", "from integration_tests import floors\n"),
    ],
)
def test_an_import_that_does_not_go_down_is_found(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    [message] = violations(tmp_path)
    line = 1 + next(
        n for n, row in enumerate(text.splitlines()) if "import" in row and _names_us(row)
    )
    assert message.startswith(f"{file}:{line}: ")


def _names_us(row: str) -> bool:
    return any(name in row for name in (*FLOORS, *ABOVE_ALL, "dataflow"))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "srds/app.py",
            "import ground, timemachine, enclave.keys\nfrom frameworks import serving\n",
        ),
        ("srds/cli/main.py", "from srds import app\nfrom ..app import App\n"),
        ("frameworks/rl/ppo.py", "from frameworks.tasks import remote\nfrom ..tasks import get\n"),
        ("frameworks/serving/replica.py", "from frameworks.serving import batch\nimport ground\n"),
        ("ground/items.py", "from timemachine.journal import Reader\nfrom . import errors\n"),
        ("timemachine/reader.pyx", "from microkernel.ids cimport TaskId\nimport enclave.keys\n"),
        ("timemachine/reader.pyx", '"""\nimport srds\n"""\n# import srds\nx = "; import srds"\n'),
        ("microkernel/ids.py", 'TEXT = """\nimport srds\n"""\nimport groundwork, srdslike\n'),
        ("microkernel/ids.pyx", "from libc.stdint cimport uint64_t\nimport ground_truth\n"),
        ("integration_tests/test_all.py", "import srds, microkernel, frameworks.rl\n"),
        ("benchmarks/journal.py", "import srds\n"),
        ("microkernel/build/lib/copy.py", "import srds\n"),
    ],
)
def test_an_import_that_goes_down_is_allowed(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    assert violations(tmp_path) == []
