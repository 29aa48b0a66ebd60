"""The package as a whole: its examples run, its stubs are complete, importing it is cheap."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import microkernel

PACKAGE = Path(microkernel.__file__).parent
MODULES = [
    module.name
    for module in pkgutil.walk_packages(microkernel.__path__, "microkernel.")
    if ".tests" not in module.name
]
PAGES = ("kernel.md", "boundary.md")
HEAVY = {"numpy", "torch", "pandas", "sklearn", "pyarrow", "cryptography", "sqlalchemy"}


def test_the_modules_are_found() -> None:
    assert {"microkernel.kernel", "microkernel.random", "microkernel.values"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_a_module_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_the_documentation_run(page: str) -> None:
    path = PACKAGE.parent / "docs" / page
    result = doctest.testfile(str(path), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted > 15


@pytest.mark.parametrize("stub", sorted(path.stem for path in PACKAGE.glob("*.pyi")))
def test_a_stub_names_what_its_module_has(stub: str) -> None:
    module = importlib.import_module(f"microkernel.{stub}")
    for node in ast.parse((PACKAGE / f"{stub}.pyi").read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert hasattr(module, node.name), node.name
        if isinstance(node, ast.ClassDef):
            members = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            assert [m for m in members if not hasattr(getattr(module, node.name), m)] == []


def test_every_name_of_the_package_is_there() -> None:
    assert sorted(microkernel.__all__) == microkernel.__all__
    assert all(hasattr(microkernel, name) for name in microkernel.__all__)


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, microkernel; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    assert HEAVY.isdisjoint(loaded.stdout.split())
