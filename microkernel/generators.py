"""The generators that a program shares without owning them, one per task instead.

``random``'s module functions, ``numpy.random``'s and torch's default generator are process-wide:
what one decision draws depends on what all others drew. Within a watched task they are replaced by
a generator keyed by the task (``microkernel.random``), so that a replay needs no record of them.
A program's own generators are left alone; one that it leaves unseeded is seeded from the task.

``random``'s functions end in four C methods, which ``microkernel.shims`` watches. NumPy's are
replaced at the module once. torch's are replaced only while a decision is open, because its
compilers recognise functions by identity.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from typing import Any

from microkernel.after_import import after_import, forget
from microkernel.random import key
from microkernel.task import Ref, watched_task

__all__ = [
    "decisions_closed",
    "decisions_open",
    "getrandbits",
    "getstate",
    "install",
    "random_",
    "remove",
    "seed",
    "setstate",
]

_shared = random._inst  # type: ignore[attr-defined]


def _own(task: Ref[Any]) -> random.Random:
    """The task's stand-in for the generator behind ``random``'s functions."""
    return task.extra("random", lambda: random.Random(key(task, "random")))


class _Shared(random.Random):
    """The generator behind ``random``'s functions, with the half of a pair that ``gauss`` keeps."""

    @property
    def gauss_next(self) -> float | None:
        task = watched_task()
        return vars(self).get("gauss_next") if task is None else _own(task).gauss_next  # type: ignore[attr-defined]

    @gauss_next.setter
    def gauss_next(self, value: float | None) -> None:
        task = watched_task()
        if task is None:
            vars(self)["gauss_next"] = value
        else:
            _own(task).gauss_next = value  # type: ignore[attr-defined]


def random_(task: Ref[Any], original: Any, owner: object, args: tuple[Any, ...]) -> Any:
    """``random.random`` of the task."""
    return _own(task).random() if owner is _shared else original()


def getrandbits(task: Ref[Any], original: Any, owner: object, args: tuple[Any, ...]) -> Any:
    """``random.getrandbits`` of the task; the other functions of ``random`` build on it."""
    return _own(task).getrandbits(*args) if owner is _shared else original()


def seed(task: Ref[Any], original: Any, owner: object, args: tuple[Any, ...]) -> Any:
    """``random.seed``, and the seeding of every other generator that is given no seed."""
    if owner is _shared:
        return _own(task).seed(*args)
    if args and args[0] is not None:
        return original()
    unseeded = task.extra("unseeded", list)
    unseeded.append(None)
    return original.given(key(task, f"random.Random {len(unseeded)}"))


def getstate(task: Ref[Any], original: Any, owner: object, args: tuple[Any, ...]) -> Any:
    """``random.getstate`` of the task."""
    return _own(task).getstate()[1] if owner is _shared else original()


def setstate(task: Ref[Any], original: Any, owner: object, args: tuple[Any, ...]) -> Any:
    """``random.setstate`` of the task."""
    if owner is not _shared:
        return original()
    own = _own(task)
    return own.setstate((own.VERSION, args[0], None))


def _numpy_state(task: Ref[Any]) -> Any:
    def make() -> Any:
        from numpy.random import Philox, RandomState

        return [RandomState(Philox(key=key(task, "numpy.random")))]

    return task.extra("numpy.random", make)


def _numpy_function(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        task = watched_task()
        if task is None:
            return original(*args, **kwargs)
        state = _numpy_state(task)
        if name == "seed":
            from numpy.random import RandomState

            state[0] = RandomState(*args, **kwargs)
            return None
        return getattr(state[0], name)(*args, **kwargs)

    function.__name__ = name
    function.__doc__ = original.__doc__
    function.__wrapped__ = original  # type: ignore[attr-defined]
    return function


_TORCH_FUNCTIONS = (
    "bernoulli",
    "dropout",
    "manual_seed",
    "multinomial",
    "normal",
    "poisson",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "seed",
)
_TENSOR_METHODS = (
    "bernoulli",
    "bernoulli_",
    "cauchy_",
    "exponential_",
    "geometric_",
    "log_normal_",
    "multinomial",
    "normal_",
    "random_",
    "uniform_",
)
_NN_FUNCTIONS = ("alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "rrelu")

_lock = threading.RLock()
_numpy_originals: dict[str, Any] = {}
_torch_functions: list[tuple[Any, str, Any, Any]] = []
_open = False


def _torch_function(torch: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """``original`` with the default generator in the state that belongs to the task."""

    def function(*args: Any, **kwargs: Any) -> Any:
        task = watched_task()
        if task is None:
            return original(*args, **kwargs)
        shared = torch.default_generator
        state = task.extra("torch", list)
        with _lock:
            before = shared.get_state()
            try:
                if state:
                    shared.set_state(state[0])
                else:
                    shared.manual_seed(key(task, "torch") % 2**63)
                return original(*args, **kwargs)
            finally:
                state[:] = [shared.get_state()]
                shared.set_state(before)

    function.__wrapped__ = original  # type: ignore[attr-defined]
    return function


def _install_numpy() -> None:
    numpy_random = sys.modules["numpy.random"]
    shared = numpy_random.mtrand._rand
    for name in dir(numpy_random):
        original = getattr(numpy_random, name)
        if getattr(original, "__self__", None) is shared:
            _numpy_originals[name] = original
            setattr(numpy_random, name, _numpy_function(name, original))


def _prepare_torch() -> None:
    torch = sys.modules["torch"]
    for holder, names in (
        (torch, _TORCH_FUNCTIONS),
        (torch.Tensor, _TENSOR_METHODS),
        (torch.nn.functional, _NN_FUNCTIONS),
    ):
        for name in names:
            original = getattr(holder, name, None)
            if original is not None:
                wrapped = _torch_function(torch, original)
                _torch_functions.append((holder, name, original, wrapped))
    if _open:
        decisions_open()


def install() -> None:
    """Watch ``random``, and NumPy and torch as soon as they are imported."""
    if type(_shared) is random.Random:
        _shared.__class__ = _Shared
    after_import("numpy.random.mtrand", "numpy.random", _install_numpy)
    after_import("torch.nn.functional", "torch", _prepare_torch)


def decisions_open() -> None:
    """A first decision is being recorded or replayed: torch's stand-ins take their places."""
    global _open
    _open = True
    for holder, name, _, wrapped in _torch_functions:
        setattr(holder, name, wrapped)


def decisions_closed() -> None:
    """No decision is open any more."""
    global _open
    _open = False
    for holder, name, original, _ in _torch_functions:
        setattr(holder, name, original)


def remove() -> None:
    """Put everything back; for tests."""
    forget()
    decisions_closed()
    _torch_functions.clear()
    if _numpy_originals:
        numpy_random = sys.modules["numpy.random"]
        for name, original in _numpy_originals.items():
            setattr(numpy_random, name, original)
        _numpy_originals.clear()
    if type(_shared) is _Shared:
        _shared.__class__ = random.Random
