"""What the kernel knows of a callable: a name, and a digest that changes with its code."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from microkernel import Kernel, KernelError, code_digest

HERE = __name__


def plain(x: int = 1) -> int:
    return x + 1


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@decorated
def one() -> int:
    return 1


@decorated
def two() -> int:
    return 2


class Scorer:
    def __init__(self, weight: int = 2) -> None:
        self.weight = weight

    def score(self, x: int) -> int:
        return x * self.weight

    def __call__(self, x: int) -> int:
        return x + self.weight


class Unhashable(Scorer):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return False


class Equal(Scorer):
    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)


@pytest.mark.parametrize(
    ("function", "arguments", "name", "result"),
    [
        (plain, (1,), f"{HERE}:plain", 2),
        (functools.partial(plain, 4), (), f"{HERE}:plain", 5),
        (functools.partial(functools.partial(plain), x=4), (), f"{HERE}:plain", 5),
        (one, (), f"{HERE}:one", 1),
        (two, (), f"{HERE}:two", 2),
        (Scorer().score, (4,), f"{HERE}:Scorer.score", 8),
        (Scorer(), (4,), f"{HERE}:Scorer", 6),
        (Unhashable(), (4,), f"{HERE}:Unhashable", 6),
        (pow, (2, 3), "builtins:pow", 8),
        (int, ("7",), "builtins:int", 7),
        ([1, 2, 2].count, (2,), "builtins:list.count", 2),
        (lambda x: x, (5,), f"{HERE}:<lambda>", 5),
    ],
)
def test_callables_of_every_kind_run_under_the_name_their_author_gave(
    function: Callable[..., Any], arguments: tuple[Any, ...], name: str, result: object
) -> None:
    with Kernel() as kernel:
        ref = kernel.submit(function, *arguments)
        assert ref.name == name
        assert kernel.get(ref) == result


def test_equal_callables_are_not_taken_for_each_other() -> None:
    with Kernel() as kernel:
        assert kernel.get([kernel.submit(Equal(1), 1), kernel.submit(Equal(5), 1)]) == [2, 6]


def test_closures_over_the_same_code_run_with_their_own_values() -> None:
    with Kernel() as kernel:
        assert kernel.get([kernel.submit(lambda i=i: i) for i in range(5)]) == [0, 1, 2, 3, 4]
        makers = [lambda y, x=x: x + y for x in range(3)]
        assert kernel.get([kernel.submit(maker, 10) for maker in makers]) == [10, 11, 12]


def test_the_kernel_keeps_no_data_of_functions_alive() -> None:
    class Data:
        pass

    def closure(data: Data) -> Callable[[], bool]:
        return lambda: data is not None

    with Kernel() as kernel:
        data = Data()
        gone = weakref.ref(data)
        assert kernel.get(kernel.submit(closure(data)))
        assert kernel.get(kernel.submit(lambda kept=data: kept is not None))
        assert not kernel.get(kernel.submit(functools.partial(isinstance, data), int))
        del data
        gc.collect()
        assert gone() is None


def test_what_cannot_be_called_is_named() -> None:
    with Kernel() as kernel:
        for wrong in (5, [1]):
            with pytest.raises(KernelError, match="cannot be called"):
                kernel.submit(wrong)  # type: ignore[arg-type]


def test_a_coroutine_function_is_no_task() -> None:
    async def coroutine() -> None:
        pass

    class Asynchronous:
        async def __call__(self) -> None:
            pass

    with Kernel() as kernel:
        for wrong in (coroutine, functools.partial(coroutine), Asynchronous()):
            with pytest.raises(KernelError, match="is a coroutine function"):
                kernel.submit(wrong)


def compiled(source: str) -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(compile(source, "anywhere.py", "exec"), scope)
    return scope["f"]  # type: ignore[no-any-return]


BASE = "def f(x, k=3):\n    return x + 1"


@pytest.mark.parametrize(
    "changed",
    [
        "def f(x, k=3):\n    return x + 2",
        "def f(x, k=3):\n    return x - 1",
        "def f(x, k=4):\n    return x + 1",
        "def f(x, *, k=3):\n    return x + 1",
        "def f(x, k=3):\n    return (lambda: x + 1)()",
        "def f(x, k=3):\n    return x in {1, 2}",
        "def f(x, k=3):\n    try:\n        return x + 1\n    except KeyError:\n        return 0",
    ],
)
def test_the_digest_changes_with_the_code(changed: str) -> None:
    assert code_digest(compiled(BASE)) != code_digest(compiled(changed))


def test_the_digest_does_not_change_with_the_place_of_the_code() -> None:
    assert code_digest(compiled(BASE)) == code_digest(compiled("\n\n" + BASE))
    assert code_digest(compiled(BASE)) == code_digest(functools.partial(compiled(BASE)))
    inner = "def f(x):\n    return x in {'a', 'b', 'c', 'd'}"
    assert code_digest(compiled(inner)) == code_digest(compiled(inner))
    assert len(code_digest(len)) == 16


def test_the_digest_of_an_object_is_that_of_its_call() -> None:
    assert code_digest(Scorer()) == code_digest(Scorer.__call__)
    assert code_digest(Scorer().score) == code_digest(Scorer.score)
    assert code_digest(one) != code_digest(two)
