import os
from typing import Literal

from timemachine.journal.frame import Event

class SegmentFile:
    path: str
    log: str
    kinds: dict[int, str]
    first_seq: int
    start: int
    last: int
    def __init__(
        self,
        path: str | os.PathLike[str],
        log: str,
        kinds: dict[int, str],
        first_seq: int,
        start: int,
    ) -> None: ...
    def refresh(self) -> None: ...
    def problem(self, offset: int) -> str | None: ...
    def frame_at(self, offset: int) -> bytes: ...
    def head_at(self, offset: int) -> tuple[int, int, bytes | None, int] | None: ...
    def leaf_at(self, offset: int) -> bytes: ...
    def event(self, offset: int, *, scanning: bool = ...) -> Event: ...
    def find_whole(self, offset: int, least_seq: int) -> int | None: ...
    def audit(
        self, offset: int, seq: int, computed: bytearray, sidecar: bytes, stop_kind: int
    ) -> tuple[int, int, Literal["end", "kind", "frame", "seq", "commitment", "leaf"]]: ...
