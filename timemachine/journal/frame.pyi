from dataclasses import dataclass

from typing_extensions import Buffer

MAX_PAYLOAD: int
MAX_LENGTH: int

@dataclass(frozen=True)
class Event:
    log: str
    seq: int
    lamport: int
    wall_ns: int
    decision: bytes | None
    kind: str
    flags: int
    parents: tuple[tuple[int, int], ...]
    payload: bytes

def decode_record(
    log: str, fixed: Buffer, parents: Buffer, payload: Buffer, kinds: dict[int, str]
) -> Event: ...
def encode(
    fixed: Buffer, parents: Buffer, payload: Buffer, salt: Buffer
) -> tuple[bytes, bytes]: ...
def is_whole(frame: Buffer) -> bool: ...
def leaf_of(frame: Buffer) -> bytes: ...
def commitment_of(frame: Buffer) -> bytes: ...
