"""What an actor may be given beside its class and arguments."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from microkernel.errors import KernelError
from microkernel.settings import PLACEMENTS

__all__ = ["ActorOptions", "has_async_methods", "method_names"]

MOST_COROUTINES = 1000


@dataclass(frozen=True)
class ActorOptions:
    """How an actor runs.

    - ``placement``: ``inline``, in the thread that waits for a call; ``thread``, in a thread of its
      own; ``process``, in a process of its own. Default: where the kernel's tasks run.
    - ``name``: what ``Kernel.actor`` finds it by. A named actor lives until it is stopped; one
      without a name ends, after its calls, when nobody has a reference to it any more.
    - ``concurrency``: calls that run at the same time. Default: 1, and 1,000 for a class with
      ``async`` methods. An inline actor runs one at a time whatever is asked for.
    - ``max_pending``: calls that have not ended, beyond which a further one waits (0: no limit).

    The others are about an actor whose process dies:

    - ``restarts``: how often it is made again, from its arguments or its last checkpoint.
    - ``checkpoint_every``: after so many calls the state is taken, if the class has ``checkpoint``
      and ``restore`` (0: never).
    - ``retry_calls``: calls that had begun are run again. Without it they fail with ``ActorDied``.
    """

    placement: str | None = None
    name: str | None = None
    concurrency: int | None = None
    max_pending: int = 0
    restarts: int = 0
    checkpoint_every: int = 0
    retry_calls: bool = False

    def __post_init__(self) -> None:
        if self.placement is not None and self.placement not in PLACEMENTS:
            raise KernelError(
                f"no placement is named {self.placement!r}",
                what=self.placement,
                expected=" or ".join(PLACEMENTS),
                remedy="leave it out to run the actor where the kernel's tasks run",
            )
        if self.name is not None and not self.name:
            raise KernelError(
                "an actor's name is empty",
                what="name",
                expected="some text",
                remedy="leave it out for an actor that is passed on by reference only",
            )
        if self.concurrency is not None and self.concurrency < 1:
            raise KernelError(
                f"concurrency is {self.concurrency}",
                what="concurrency",
                expected="1 or more",
                remedy="leave it out to run one call at a time",
            )
        for field in ("max_pending", "restarts", "checkpoint_every"):
            if getattr(self, field) < 0:
                raise KernelError(
                    f"{field} is {getattr(self, field)}",
                    what=field,
                    expected="0 or more",
                    remedy="leave it out",
                )


def method_names(cls: type) -> list[str]:
    """The public methods of a class, in the same order in every process."""
    return [name for name in dir(cls) if name[0] != "_" and callable(getattr(cls, name, None))]


def has_async_methods(cls: type) -> bool:
    """Whether a class has public coroutine methods."""
    return any(
        name[0] != "_" and inspect.iscoroutinefunction(getattr(value, "__func__", value))
        for base in cls.__mro__
        for name, value in vars(base).items()
    )
