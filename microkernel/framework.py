"""The plug-in contract: what a framework brings, and how the stack finds it.

A framework is an installed package that names, under the entry point group ``srds.frameworks``, one
``Framework``. All its parts are optional and are loaded when they are asked for, so that one whose
extra is not installed costs nothing and says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from microkernel.errors import KernelError

__all__ = ["GROUP", "Check", "Framework", "find_frameworks"]

GROUP = "srds.frameworks"


@dataclass(frozen=True)
class Check:
    """One doctor's check: ``run`` returns what is wrong, or None when all is well."""

    name: str
    run: Callable[[], str | None]


@dataclass(frozen=True)
class Framework:
    """What a framework brings.

    ``name``: as users say it. ``extra``: the extra of the ``srds`` distribution that installs what
    it needs, or "" when the base does. ``requires``: the modules that must be importable.
    ``commands``: returns the command group (a Typer application) shown under its name.
    ``pages``: returns the console's pages. ``event_kinds``: names of the event kinds it appends.
    ``placements``: where else than inline and in threads its tasks can run. ``checks``: for the
    doctor.
    """

    name: str
    extra: str = ""
    requires: tuple[str, ...] = ()
    commands: Callable[[], Any] | None = None
    pages: Callable[[], Any] | None = None
    event_kinds: tuple[str, ...] = ()
    placements: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    def missing(self) -> str | None:
        """What to do before the framework can be used; None when it can be."""
        from importlib.util import find_spec

        absent = [name for name in self.requires if find_spec(name) is None]
        if not absent:
            return None
        return f"{self.name} needs {', '.join(absent)}: pip install 'srds[{self.extra}]'"


def find_frameworks() -> dict[str, Framework]:
    """The installed frameworks by name.

    Raises ``KernelError`` when an entry point names something that is no ``Framework``.
    """
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    found = {}
    for entry in entry_points(group=GROUP):
        framework = entry.load()
        if not isinstance(framework, Framework):
            raise KernelError(
                f"the entry point {entry.name!r} of {GROUP} names a {type(framework).__qualname__}",
                what=entry.value,
                expected="a microkernel.framework.Framework",
                remedy=f"correct the distribution that declares {entry.value}",
            )
        found[framework.name] = framework
    return found
