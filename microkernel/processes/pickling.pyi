from collections.abc import Callable
from typing import Any, TypeVar

from microkernel.task import Ref

_T = TypeVar("_T")

def register_reducer(kind: type[_T], reduce: Callable[[_T], tuple[Any, ...]]) -> None: ...
def sendable(value: object) -> bool: ...

class UnfinishedReferences(Exception):
    references: list[Ref[Any]]
    def __init__(self, references: list[Ref[Any]]) -> None: ...
