"""Finds the app that made a recorded decision.

A record names code as ``module:function``. A journal may come from anywhere, so what it names is
never imported because it is named there: only the apps shipped under ``srds.apps`` are found by
themselves, and everything else is what the user names with ``--app``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from srds.app import App
from srds.decision_function import DecisionFunction
from srds.errors import AppError

__all__ = ["AppFinder"]

_SHIPPED = re.compile(r"srds\.apps\.[a-z][a-z0-9_]*")


class AppFinder:
    """Finds the apps of records; ``named`` is what the user names: a module or a ``.py`` file.

    ``MODULE:NAME`` or ``FILE.py:NAME`` picks one of several apps in a module. The module is loaded
    when it is first needed; a file under a private name, so that it cannot stand in for another.
    """

    def __init__(self, named: str | None = None) -> None:
        self._named = named
        self._candidates: list[App] | None = None
        self._modules: set[str] = set()
        self._found: dict[str, DecisionFunction[Any, Any]] = {}

    def find(self, name: str) -> DecisionFunction[Any, Any]:
        """The decision function that is recorded as ``name`` (``module:function``).

        Raises ``AppError`` when no app is known to have it.
        """
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def app_of(self, name: str) -> App:
        """The app of the decision function recorded as ``name``; raises ``AppError``."""
        return self.find(name).app

    def function(self, name: str) -> Callable[..., Any]:
        """The undecorated function recorded as ``name``, as a replay runs it; raises
        ``AppError``."""
        return self.find(name).function

    def _find(self, name: str) -> DecisionFunction[Any, Any]:
        module, _, qualname = name.partition(":")
        if self._named is not None:
            apps = self._apps()
            if module == "__main__" or module in self._modules:
                return _only(name, apps, qualname)
        if _SHIPPED.fullmatch(module) and importlib.util.find_spec(module) is not None:
            return _only(name, _apps_in(importlib.import_module(module)), qualname)
        if self._named is not None:
            raise AppError(
                f"the decision was made by {name}, which is not in {self._named}",
                what=name,
                expected="a decision function of " + ", ".join(sorted(self._modules)),
                remedy=f"name the app of {module}: --app MODULE, or --app FILE.py",
            )
        raise AppError(
            f"the app of {name} is not known",
            what=name,
            expected="--app, because no journal gets to choose which code is run",
            remedy=_remedy(module),
        )

    def _apps(self) -> list[App]:
        if self._candidates is None:
            assert self._named is not None
            place, wanted = _split(self._named)
            module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
            apps = _apps_in(module)
            if wanted:
                apps = [app for app in apps if getattr(module, wanted, None) is app]
            if not apps:
                raise AppError(
                    f"{self._named} has no app",
                    what=wanted or place,
                    expected="an srds.App at the top of the module",
                    remedy="app = App('name')",
                )
            functions = [function for app in apps for function in app.functions.values()]
            self._modules = {module.__name__, *(function.__module__ for function in functions)}
            if place.endswith(".py"):
                # The same file may have run as a script, or as a module that its name ends with.
                self._modules.discard(module.__name__)
                self._modules |= _names_of(Path(place))
            self._candidates = apps
        return self._candidates


def _only(name: str, apps: Iterable[App], qualname: str) -> DecisionFunction[Any, Any]:
    apps = list(apps)
    found = [app.functions[qualname] for app in apps if qualname in app.functions]
    if len(found) == 1:
        return found[0]
    known = sorted(function for app in apps for function in app.functions)
    if found:
        raise AppError(
            f"{len(found)} apps have a decision function {qualname}",
            what=name,
            expected="one app",
            remedy="say which: --app MODULE:NAME",
        )
    raise AppError(
        f"{name} is no decision function",
        what=name,
        expected="one of " + ", ".join(known) if known else "an app with decision functions",
        remedy="name the app that made the decision with --app",
    )


def _apps_in(module: ModuleType) -> list[App]:
    return list(
        {id(value): value for value in vars(module).values() if isinstance(value, App)}.values()
    )


def _split(named: str) -> tuple[str, str]:
    place, colon, wanted = named.rpartition(":")
    return (place, wanted) if colon and wanted.isidentifier() else (named, "")


def _names_of(path: Path) -> set[str]:
    """The names under which a file's module may have been recorded, the shortest being its own."""
    parts = path.resolve().with_suffix("").parts
    names: set[str] = set()
    for start in range(len(parts) - 1, 0, -1):
        if not parts[start].isidentifier():
            break
        names.add(".".join(parts[start:]))
    return names


def _remedy(module: str) -> str:
    if module == "__main__":
        return "the decision was made by a script: name it with --app FILE.py"
    return f"if you trust it: --app {module}, or --app FILE.py"


def _import(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise AppError(
            f"{name!r} is neither a module nor a .py file",
            what=name,
            expected="a module name, or the path of a .py file",
            remedy="--app loans.app, or --app loans/app.py",
        )
    # As with `python -m`, but last: no file here may take the place of an installed module.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise AppError(
            f"there is no module {name}",
            what=name,
            expected="a module on the path or below the working directory",
            remedy="name the file instead: --app path/to/app.py",
        ) from None


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise AppError(
            f"there is no file {path}",
            what=str(path),
            expected="the .py file of an app",
            remedy="check the path given with --app",
        )
    name = f"_srds_app_{path.stem}"
    loader = SourceFileLoader(name, str(path.resolve()))
    spec = importlib.util.spec_from_file_location(name, path.resolve(), loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Its neighbours are importable, as when it is run as a script; but they come last.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
