import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from typing_extensions import Buffer

from enclave.keys import SigningKey
from microkernel.event_sink import EventSink
from timemachine.journal.recovery import Recovery
from timemachine.journal.settings import JournalSettings

class Journal(EventSink):
    log_id: str
    run_id: bytes
    directory: Path
    settings: JournalSettings
    recovery: Recovery
    @staticmethod
    def open(
        directory: str | os.PathLike[str],
        key: SigningKey,
        *,
        settings: JournalSettings | None = ...,
        fingerprint: Mapping[str, Any] | None = ...,
    ) -> Journal: ...
    def append_event(
        self,
        kind: int,
        payload: Buffer,
        *,
        decision: bytes | None = ...,
        flags: int = ...,
        parents: Sequence[tuple[int, int]] = ...,
    ) -> int: ...
    def sync(self, timeout: float | None = ...) -> None: ...
    def observe(self, lamport: int) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def durable_size(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def _await_checkpoint(self) -> bool: ...
    def _checkpoint(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
