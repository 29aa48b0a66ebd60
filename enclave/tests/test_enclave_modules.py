"""The package as a whole: its examples run, and importing it is cheap."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import enclave

MODULES = [
    module.name
    for module in pkgutil.walk_packages(enclave.__path__, "enclave.")
    if ".tests" not in module.name
]

IMPORTS = """
import sys
import enclave, enclave.authority, enclave.keys, enclave.transparency
print(sorted({name.partition(".")[0] for name in sys.modules} & {"cryptography", "asyncio", "ssl"}))
"""


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_a_module_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_examples_of_the_documentation_run() -> None:
    page = Path(enclave.__file__).parents[1] / "docs" / "enclave.md"
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted > 20


def test_importing_everything_loads_no_cryptography() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(enclave.__file__).parents[1],
    )
    assert loaded.stdout.strip() == "[]"
