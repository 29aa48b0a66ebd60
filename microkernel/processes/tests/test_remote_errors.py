"""An exception that comes from another process is as useful as one of this process."""

from __future__ import annotations

import mmap
import threading
import traceback
from typing import Any

import pytest

from microkernel.errors import ActorDied, KernelError, NotRebuilt, RemoteError, TaskCancelled
from microkernel.processes.function_table import FunctionTable
from microkernel.processes.payload import Payloads

MEMORY = mmap.mmap(-1, 2 << 20)
HERE, THERE = (Payloads(None, FunctionTable.over(MEMORY, i, stations=2)) for i in range(2))


def raised(function: Any, *args: Any) -> BaseException:
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def sent(error: BaseException) -> BaseException:
    return THERE.decode_error(HERE.encode_error(error))


class TwoArguments(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class OddFile(FileNotFoundError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "No such file or directory", path)


class NamedOnly(KeyError):
    def __init__(self, *, key: str) -> None:
        super().__init__(key)
        self.key = key


class OwnWay(Exception):
    def __init__(self, *parts: int) -> None:
        super().__init__(sum(parts))
        self.parts = parts

    def __reduce__(self) -> Any:
        return OwnWay, self.parts


class MadeByNew(Exception):
    def __new__(cls, a: int, b: int) -> MadeByNew:
        return super().__new__(cls, a)

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a)
        self.b = b


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain"),
        ValueError(),
        KeyError("key"),
        StopIteration(5),
        SystemExit(3),
        KeyboardInterrupt(),
        FileNotFoundError(2, "No such file", "/nowhere"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        ImportError("no module", name="somewhere", path="/else"),
        SyntaxError("bad", ("file.py", 3, 4, "x = = 1")),
        TwoArguments(404, "gone"),
        OddFile("/nowhere"),
        NamedOnly(key="k"),
        OwnWay(1, 2, 3),
        MadeByNew(1, 2),
        KernelError("m", what="w", expected="e", remedy="r"),
        ActorDied("m", begun=True, what="w"),
        TaskCancelled("stopped"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_type_text_arguments_and_attributes_are_kept(error: BaseException) -> None:
    there = sent(error)
    assert type(there) is type(error)
    assert str(there) == str(error)
    assert there.args == error.args
    assert vars(there) == vars(error)
    for name in ("errno", "filename", "code", "name", "path", "lineno", "value", "start"):
        assert getattr(there, name, None) == getattr(error, name, None)


def test_a_type_of_this_process_only_is_the_same_type_when_it_comes_home() -> None:
    class Local(Exception):
        pass

    there = sent(Local(1))
    assert str(there) == "1"
    assert type(HERE.decode_error(THERE.encode_error(there))) is Local


def inner(n: int) -> float:
    return 1 / n


def outer() -> None:
    inner(0)


def test_the_printed_traceback_shows_the_lines_of_the_other_process() -> None:
    error = raised(outer)
    printed = "".join(traceback.format_exception(sent(error)))
    assert printed == "".join(traceback.format_exception(error))
    assert "return 1 / n" in printed
    assert "~~^~~" in printed


def test_a_raised_error_shows_both_processes() -> None:
    there = sent(raised(outer))

    def get() -> None:
        raise there.with_traceback(there.__traceback__)

    names = [frame.name for frame in traceback.extract_tb(raised(get).__traceback__)]
    assert names == ["raised", "get", "raised", "outer", "inner"]


def test_cause_context_and_notes_are_kept() -> None:
    def fail() -> None:
        try:
            try:
                inner(0)
            except ZeroDivisionError:
                raise KeyError("context")  # noqa: B904
        except KeyError as error:
            error.add_note("a note")
            raise TwoArguments(1, "effect") from error

    error = raised(fail)
    there = sent(error)
    assert there.__suppress_context__
    assert type(there.__cause__) is KeyError
    assert there.__cause__.__notes__ == ["a note"]
    assert there.__context__ is there.__cause__
    assert type(there.__cause__.__context__) is ZeroDivisionError
    assert not there.__cause__.__suppress_context__
    assert "".join(traceback.format_exception(there)) == "".join(traceback.format_exception(error))


def test_a_group_is_kept_with_its_members() -> None:
    group = ExceptionGroup(
        "several", [raised(outer), ExceptionGroup("inner", [TwoArguments(1, "x")])]
    )
    group.add_note("noted")
    there = sent(group)
    assert isinstance(there, ExceptionGroup)
    assert there.__notes__ == ["noted"]
    assert [type(member) for member in there.exceptions] == [ZeroDivisionError, ExceptionGroup]
    assert "".join(traceback.format_exception(there)) == "".join(traceback.format_exception(group))


def test_exceptions_that_refer_to_each_other_are_kept() -> None:
    one, other = ValueError(1), ValueError(2)
    one.__cause__, other.__cause__ = other, one
    there = sent(one)
    assert there.__cause__ is not None
    assert there.__cause__.__cause__ is there


def test_a_long_chain_is_cut() -> None:
    error = ValueError(0)
    first = error
    for n in range(10_000):
        error.__context__ = ValueError(n)
        error = error.__context__
    there: BaseException | None = sent(first)
    length = 0
    while there is not None:
        there, length = there.__context__, length + 1
    assert 10 < length < 1000


def test_a_deep_recursion_keeps_both_ends_of_its_traceback() -> None:
    def dive(n: int) -> int:
        return inner(0) if n == 0 else dive(n - 1)  # type: ignore[return-value]

    names = [frame.name for frame in traceback.extract_tb(sent(raised(dive, 500)).__traceback__)]
    assert names[0] == "raised"
    assert names[-1] == "inner"
    assert len(names) < 300


# What cannot be sent or rebuilt


def test_arguments_and_attributes_that_cannot_be_sent_become_their_text() -> None:
    error = ValueError("a lock", threading.Lock())
    error.guard = threading.Lock()  # type: ignore[attr-defined]
    error.answer = 42  # type: ignore[attr-defined]
    there = sent(error)
    assert type(there) is ValueError
    assert there.args[0] == "a lock"
    assert "lock" in there.args[1]
    assert there.answer == 42  # type: ignore[attr-defined]
    assert "args[1] could not be sent" in there.__notes__[0]
    assert "guard could not be sent" in there.__notes__[1]


class Evil(Exception):
    def __reduce__(self) -> Any:
        raise ZeroDivisionError

    def __str__(self) -> str:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_an_exception_whose_own_code_fails_is_sent_all_the_same() -> None:
    there = sent(raised(lambda: (_ for _ in ()).throw(Evil(Evil()))))
    assert type(there) is Evil
    assert there.__traceback__ is not None


def test_a_type_that_cannot_be_rebuilt_becomes_a_remote_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise OwnWay(1, 2)

    payload = HERE.encode_error(raised(fail))
    monkeypatch.delattr(f"{__name__}.OwnWay")
    there = THERE.decode_error(payload)
    assert isinstance(there, RemoteError)
    assert str(there) == f"{__name__}.OwnWay: 3"
    assert there.what == f"{__name__}.OwnWay"
    assert "raise OwnWay(1, 2)" in there.text
    assert there.__traceback__ is not None


def test_an_unusual_result_of_reduce_falls_back_to_the_arguments() -> None:
    class Sly(Exception):
        def __reduce__(self) -> Any:
            return int, ("no number",)

    there = sent(Sly("text", 1))
    assert type(there).__name__ == "Sly"
    assert there.args == ("text", 1)


def test_a_huge_text_is_kept() -> None:
    assert sent(ValueError("x" * 100_000)).args == ("x" * 100_000,)


def test_an_error_payload_that_is_none_is_refused() -> None:
    for payload in (b"", HERE.encode_result([1])[0], HERE.encode_result([{}])[0]):
        with pytest.raises(NotRebuilt):
            THERE.decode_error(payload)
