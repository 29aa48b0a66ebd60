from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from microkernel.errors import KernelError

POLICIES: tuple[str, ...]

class RecordedError(KernelError): ...

@dataclass(frozen=True)
class RecordedInput:
    seq: int
    kind: str
    source: str
    key: Any
    ordinal: int
    task: bytes
    ok: bool
    value: Any

def read_inputs(payload: bytes | memoryview, seq: int = 0) -> list[RecordedInput]: ...

class Replaying:
    mode: str
    reads: list[tuple[str, str, object, int]]
    extra: list[tuple[str, str, object, int]]
    differences: list[tuple[str, object]]
    def __init__(
        self,
        payloads: Iterable[tuple[int, bytes]],
        *,
        overrides: Mapping[tuple[str, object], object] | None = None,
        policy: str = "fail",
        default: object = None,
    ) -> None: ...
    def unread(self) -> list[RecordedInput]: ...
