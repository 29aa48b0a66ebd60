from pathlib import Path

from typing_extensions import Buffer

from timemachine.journal.frontier import LeafFrontier

class SegmentWriter:
    def __init__(
        self,
        path: Path,
        first_seq: int,
        offset: int,
        tree: LeafFrontier,
        segments: int,
        headers: bytes,
        next_headers: bytes,
        lamport: int,
    ) -> None: ...
    def add(self, fixed: Buffer, parents: Buffer, payload: Buffer) -> None: ...
    def commit(self) -> None: ...
    @property
    def tree(self) -> LeafFrontier: ...
    @property
    def segments(self) -> int: ...
    @property
    def headers(self) -> bytes: ...
    @property
    def lamport(self) -> int: ...
