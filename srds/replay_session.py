"""The apps of recorded decisions, opened over a store for replays as they are needed."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from srds.app import App, OpenApp
    from srds.finding_apps import AppFinder
    from srds.store import Store
    from timemachine.replay import DecisionRecord, Replayer

__all__ = ["ReplaySession"]


class ReplaySession:
    """Opens each app once and closes all of them; a context manager. Nothing is written."""

    def __init__(self, store: Store, finder: AppFinder) -> None:
        self._store = store
        self._finder = finder
        self._stack = ExitStack()
        self._opened: dict[App, tuple[OpenApp, Replayer]] = {}

    def of(self, record: DecisionRecord) -> tuple[OpenApp, Replayer]:
        """The open app that made a decision, and its replayer; raises ``AppError``."""
        from timemachine.replay import Replayer

        app = self._finder.app_of(record.name)
        if app not in self._opened:
            opened = self._stack.enter_context(app.open(self._store, recording=False))
            replayer = self._stack.enter_context(Replayer(opened.kernel, self._finder.function))
            self._opened[app] = opened, replayer
        return self._opened[app]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
