from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

def register(
    cls: type[_T], name: str, encode: Callable[[_T], bytes], decode: Callable[[bytes], _T]
) -> None: ...
def encode(value: object) -> bytes: ...
def decode(data: bytes) -> object: ...
