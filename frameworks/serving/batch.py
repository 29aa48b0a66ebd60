"""One call of a model as it was made: which rows, in which order, for which decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frameworks.serving.errors import ServingError
from microkernel import events, values

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SERVING_BATCH", "Batch"]

SERVING_BATCH = events.register("serving.batch", (("payload", "binary"),))


@dataclass(frozen=True, eq=False)
class Batch:
    """One call of a model: the rows (n, d) in their order, and the outputs (n, k).

    ``id`` has 16 bytes; ``decisions`` holds for each row the 16 bytes of the decision that asked,
    or None. ``exactness`` is the class of the model, ``threads`` what the call ran on.
    """

    id: bytes
    digest: str
    exactness: str
    threads: int
    decisions: tuple[bytes | None, ...]
    rows: NDArray[Any]
    outputs: NDArray[Any]

    @property
    def home(self) -> bytes | None:
        """The first decision in the batch, among whose events it is journalled."""
        return next((decision for decision in self.decisions if decision is not None), None)

    def encode(self) -> bytes:
        """The payload of a ``serving.batch`` event: msgpack of the fields in their order."""
        return values.encode(
            [
                self.id,
                self.digest,
                self.exactness,
                self.threads,
                list(self.decisions),
                self.rows,
                self.outputs,
            ]
        )

    @classmethod
    def decode(cls, payload: bytes) -> Batch:
        """Read a payload; raises ``ServingError`` when it is none."""
        try:
            fields: Any = values.decode(payload)
            identity, digest, exactness, threads, decisions, rows, outputs = fields
            return cls(identity, digest, exactness, threads, tuple(decisions), rows, outputs)
        except (TypeError, ValueError) as error:
            raise ServingError(
                f"the event is no recorded batch: {error}",
                what="serving.batch",
                expected="the seven fields of a batch",
                remedy="verify the journal; read it with the version that wrote it",
            ) from error
