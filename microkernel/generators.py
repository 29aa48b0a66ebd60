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
from collections.abc import Callable, Mapping
from typing import Any

from microkernel.after_import import after_import, forget
from microkernel.random import key, philox
from microkernel.task import Ref, unwatched, watched_task

__all__ = [
    "getrandbits",
    "getstate",
    "install",
    "random_",
    "remove",
    "seed",
    "setstate",
    "settle_torch",
    "torch_functions",
]

_NONE: Mapping[str, Any] = {}
_shared = random._inst


def _own(task: Ref[Any]) -> random.Random:
    """The task's stand-in for the generator behind ``random``'s functions."""
    return task.attachment("random", lambda: random.Random(key(task, "random")))


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
    unseeded: list[None] = task.attachment("unseeded", list)
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
    return own.setstate((own.VERSION, args[0], own.gauss_next))  # type: ignore[attr-defined]


def _numpy_state(task: Ref[Any]) -> Any:
    def make() -> Any:
        from numpy.random import RandomState

        return [RandomState(philox(key(task, "numpy.random")))]

    return task.attachment("numpy.random", make)


def _seeded_numpy(task: Ref[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] = _NONE) -> Any:
    """What ``numpy.random.seed`` of these arguments makes of a generator."""
    from numpy.random import RandomState

    given = [*args, *kwargs.values()]
    if given and given[0] is not None:
        return unwatched(lambda: RandomState(*args, **kwargs))
    seeds: list[None] = task.attachment("numpy seeds", list)
    seeds.append(None)
    return RandomState(philox(key(task, f"numpy.random.seed {len(seeds)}")))


def _numpy_function(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """``original`` of the generator that belongs to the task."""
    method = "random_sample" if name in ("ranf", "sample") else name

    def function(*args: Any, **kwargs: Any) -> Any:
        task = watched_task()
        if task is None:
            return original(*args, **kwargs)
        state = _numpy_state(task)
        if name in ("seed", "set_state"):
            # The task's generator is a Philox; seeds and states are those of a Mersenne Twister.
            seeded = (
                _seeded_numpy(task, args, kwargs) if name == "seed" else _seeded_numpy(task, (0,))
            )
            if name == "set_state":
                seeded.set_state(*args, **kwargs)
            state[0] = seeded
            return None
        return getattr(state[0], method)(*args, **kwargs)

    function.__name__ = name
    function.__doc__ = original.__doc__
    function.__wrapped__ = original  # type: ignore[attr-defined]
    return function


_TORCH_FUNCTIONS = (
    "bernoulli",
    "dropout",
    "get_rng_state",
    "initial_seed",
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
    "set_rng_state",
)
_RANDOM_FUNCTIONS = ("get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state")
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

_NUMPY_HELPERS = ("ranf", "sample", "seed")  # functions around the shared state, not methods of it

_lock = threading.RLock()
_numpy_originals: dict[str, Any] = {}
torch_functions: list[tuple[Any, str, Any, Any]] = []
"""What is replaced in torch: (holder, name, what the holder itself had there, stand-in)."""
_torch_in_place = False


def _never() -> bool:
    return False


_watching: Callable[[], bool] = _never


def _torch_function(torch: Any, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """``original`` with the default generator in the state that belongs to the task."""

    def function(*args: Any, **kwargs: Any) -> Any:
        task = watched_task()
        # Whoever else draws meanwhile must wait until the shared state is back.
        with _lock:
            if task is None:
                return original(*args, **kwargs)
            shared = torch.default_generator
            state: list[Any] = task.attachment("torch", list)
            before = shared.get_state()
            try:
                if state:
                    shared.set_state(state[0])
                else:
                    shared.manual_seed(key(task, "torch") % 2**63)
                if name == "seed":
                    return _seed_torch(task, shared)
                return original(*args, **kwargs)
            finally:
                state[:] = [shared.get_state()]
                shared.set_state(before)

    function.__name__ = name
    function.__doc__ = original.__doc__
    function.__wrapped__ = original  # type: ignore[attr-defined]
    return function


def _seed_torch(task: Ref[Any], shared: Any) -> int:
    """``torch.seed``, which takes a seed that nobody chose: one of the task's own."""
    seeds: list[None] = task.attachment("torch seeds", list)
    seeds.append(None)
    seed = key(task, f"torch.seed {len(seeds)}") % 2**63
    shared.manual_seed(seed)
    return seed


def _install_numpy() -> None:
    numpy_random = sys.modules["numpy.random"]
    shared = numpy_random.mtrand._rand
    for name in dir(numpy_random):
        original = getattr(numpy_random, name)
        if getattr(original, "__self__", None) is shared or name in _NUMPY_HELPERS:
            _numpy_originals[name] = original
            setattr(numpy_random, name, _numpy_function(name, original))


def _prepare_torch() -> None:
    torch = sys.modules["torch"]
    with _lock:
        for holder, names in (
            (torch, _TORCH_FUNCTIONS),
            (torch.random, _RANDOM_FUNCTIONS),
            (torch.Tensor, _TENSOR_METHODS),
            (torch.nn.functional, _NN_FUNCTIONS),
        ):
            for name in names:
                original = getattr(holder, name, None)
                if original is not None:
                    stand_in = _torch_function(torch, name, original)
                    torch_functions.append((holder, name, vars(holder).get(name), stand_in))
    settle_torch()


def install(watching: Callable[[], bool]) -> None:
    """Watch ``random``, and NumPy and torch as soon as they are imported.

    ``watching`` says whether a decision is being recorded or replayed.
    """
    global _watching
    _watching = watching
    if type(_shared) is random.Random:
        _shared.__class__ = _Shared
    after_import("numpy.random.mtrand", "numpy.random", _install_numpy)
    after_import("torch.nn.functional", "torch", _prepare_torch)


def settle_torch() -> None:
    """Put torch's stand-ins in place while a decision is open, and take them away else."""
    global _torch_in_place
    with _lock:
        wanted = _watching()
        if wanted == _torch_in_place:
            return
        _torch_in_place = wanted
        for holder, name, own, stand_in in torch_functions:
            if wanted:
                setattr(holder, name, stand_in)
            elif own is not None:
                setattr(holder, name, own)
            else:
                delattr(holder, name)


def remove() -> None:
    """Put everything back; for tests. No decision may be open."""
    global _watching
    forget()
    _watching = _never
    settle_torch()
    torch_functions.clear()
    if _numpy_originals:
        numpy_random = sys.modules["numpy.random"]
        for name, original in _numpy_originals.items():
            setattr(numpy_random, name, original)
        _numpy_originals.clear()
    if type(_shared) is _Shared:
        _shared.__class__ = random.Random  # type: ignore[assignment]
