"""What ``@app.decision`` makes of a function: the same function, as a recorded decision."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from srds.errors import AppError

if TYPE_CHECKING:
    from microkernel import Decision
    from srds.app import App

__all__ = ["DecisionFunction"]

P = ParamSpec("P")
R = TypeVar("R")


class DecisionFunction(Generic[P, R]):
    """Calling it makes a decision and returns the answer (for a coroutine function, an awaitable).

    ``decide`` does the same and returns the ``Decision``, which has the id. ``function`` is the
    undecorated one. ``subject`` names the parameter that says whom the decision is about.
    """

    def __init__(
        self, app: App, function: Callable[P, R], subject: str | None, policy: str | None
    ) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.function = function
        self.policy = policy
        self.is_async = inspect.iscoroutinefunction(function)
        self._subject = self._position(subject)

    def _position(self, subject: str | None) -> tuple[str, int] | None:
        if subject is None:
            return None
        names = list(inspect.signature(self.function).parameters)
        if subject not in names:
            raise AppError(
                f"{self.function.__qualname__} has no parameter {subject!r}",
                what=f"subject={subject!r}",
                expected="one of " + (", ".join(names) or "no parameters"),
                remedy="name the parameter that says whom the decision is about",
            )
        return subject, names.index(subject)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        decision: Any = self.decide(*args, **kwargs)
        answer: Any = _answer(decision) if self.is_async else decision.answer
        result: R = answer
        return result

    def decide(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Make a decision; returns it with its id (for a coroutine function, an awaitable)."""
        return self.app.kernel.decision(
            self.function,
            *args,
            subject=self._subject_of(args, kwargs),
            policy=self.policy,
            versions=self.app.versions,
            **kwargs,
        )

    def _subject_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._subject is None:
            return None
        name, position = self._subject
        return args[position] if position < len(args) else kwargs.get(name)


async def _answer(decision: Any) -> Any:
    made: Decision[Any] = await decision
    return made.answer
