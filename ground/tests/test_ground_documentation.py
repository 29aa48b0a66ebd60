"""The examples of the documentation run."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from ground import catalogue

PAGE = Path(__file__).parents[2] / "docs" / "ground.md"


def test_the_example_of_the_catalogue_runs() -> None:
    results = doctest.testmod(catalogue)
    assert results.attempted
    assert not results.failed


def test_the_examples_of_the_page_run_one_after_another() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
