"""Call something once a module has been imported, now or later.

A program may import NumPy or torch in the middle of its first decision. The shims for them have to
be in place before the import returns, and what the import itself reads (NumPy seeds its global
generator from the operating system) is not an input of the decision.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, cast

from microkernel.task import unwatched

if TYPE_CHECKING:
    from importlib.abc import Loader

__all__ = ["after_import", "forget"]

_expected: dict[str, Callable[[], None]] = {}


class _Loader:
    """The real loader, followed by what was asked for."""

    def __init__(self, loader: Loader, then: Callable[[], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        unwatched(lambda: self._loader.exec_module(module))
        self._then()


class _Finder:
    """Stands first in line, and only for the modules that are expected."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        then = _expected.pop(fullname, None)
        if then is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", _Loader(spec.loader, then))
        return spec


_finder = _Finder()


def after_import(present: str, name: str, then: Callable[[], None]) -> None:
    """Call ``then`` now if ``present`` is imported already, else right after ``name`` has been."""
    if present in sys.modules:
        then()
        return
    _expected[name] = then
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def forget() -> None:
    """Expect nothing any more."""
    _expected.clear()
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
