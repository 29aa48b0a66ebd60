from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from microkernel.errors import KernelError

POLICIES: tuple[str, ...]

class RecordedError(KernelError): ...

@dataclass(frozen=True)
class RecordedInput:
    seq: int
    kind: str
    source: str
    key: object
    ordinal: int
    task: bytes
    ok: bool
    value: object

def read_input(payload: bytes | memoryview, seq: int = 0) -> RecordedInput: ...

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
