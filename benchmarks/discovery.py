"""Finds the benches: each module or package here, but for the harness, has ``benches()``.

Importing such a one must be cheap: what it measures is imported when it is measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from benchmarks.measure import Bench

__all__ = ["benches_of", "module_names", "modules_for"]

FOLDER = Path(__file__).parent
HARNESS = frozenset(
    {"__init__", "__main__", "discovery", "document", "measure", "peers", "scratch"}
    | {"granularity", "load", "process_tree"}
)


def module_names(folder: Path = FOLDER) -> list[str]:
    """The names of all modules and packages with benches, sorted."""
    packages = (path.parent.name for path in folder.glob("*/__init__.py"))
    modules = (path.stem for path in folder.glob("*.py") if path.stem not in HARNESS)
    return sorted([*packages, *modules])


def modules_for(names: Iterable[str], modules: Iterable[str]) -> list[str]:
    """The modules that hold the benches of these names; all of them when no name is given.

    A name is a module's, or ``<module>.<quantity>``. Raises ``LookupError`` for an unknown module.
    """
    known = list(modules)
    wanted = {name.partition(".")[0]: name for name in names}
    for module, name in wanted.items():
        if module not in known:
            raise LookupError(f"no bench {name!r}: expected one of {', '.join(known)}")
    return [module for module in known if not wanted or module in wanted]


def benches_of(module: str, names: Iterable[str] = ()) -> list[Bench]:
    """The module's benches that ``names`` ask for: by the module's name all, by their own the one.

    Raises ``ValueError`` when a bench bears another module's name, ``LookupError`` when a name is
    none of the module's benches, and whatever importing the module raises.
    """
    benches: list[Bench] = list(import_module(f"benchmarks.{module}").benches())
    for bench in benches:
        if bench.name.partition(".")[0] != module:
            raise ValueError(f"{bench.name!r} stands in {module}.py: expected {module}.<quantity>")
    asked = [name for name in names if name.partition(".")[0] == module]
    unknown = set(asked) - {module} - {bench.name for bench in benches}
    if unknown:
        expected = ", ".join(bench.name for bench in benches)
        raise LookupError(f"no bench {sorted(unknown)[0]!r}: expected one of {expected}")
    everything = not asked or module in asked
    return [bench for bench in benches if everything or bench.name in asked]
