"""What a prediction leaves in the journal, and how a replay computes it again.

A prediction is an *input* of the decision that asked for it: kind ``prediction``, the model's
digest as source, its name as key, and ``[row, output, batch id, position, home]`` as value. The
batch itself is a ``serving.batch`` event among those of its *home*, the first decision in it, where
a reader's index finds it. A replay does not believe the recorded output: it compares the row that
the replayed code presents, computes the model again as its exactness class demands, and notes each
difference on the boundary. What the model answers *now* is what the decision gets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from frameworks.serving.batch import SERVING_BATCH, Batch
from frameworks.serving.errors import ServingError
from microkernel import boundary
from timemachine.exactness import ExactnessClass
from timemachine.ulps import Comparison, compare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from frameworks.serving.replica import Replica
    from timemachine.journal import Reader

__all__ = ["BatchSource", "Events", "PredictionDifference", "Predictions", "Recorded", "batches_in"]

_KIND = "prediction"


class Events(Protocol):
    """What predictions are journalled through: ``kernel.events``."""

    def append(
        self, kind: int, payload: bytes, *, decision: bytes | None = None, flags: int = 0
    ) -> None:
        """Append one event."""
        ...


BatchSource = Callable[[bytes, bytes], Batch | None]
"""Finds a journalled batch by its home decision and its id; None when there is no such batch."""


def batches_in(reader: Reader) -> BatchSource:
    """Finds batches in a journal, by its index of decisions."""

    def find(home: bytes, identity: bytes) -> Batch | None:
        for event in reader.events(home, kinds=("serving.batch",)):
            batch = Batch.decode(event.payload)
            if batch.id == identity:
                return batch
        return None

    return find


@dataclass(frozen=True, eq=False)
class Recorded:
    """One prediction: its row and output, its place in a batch, and where that is journalled."""

    row: NDArray[Any]
    output: NDArray[Any]
    batch: bytes
    position: int
    home: bytes | None


@dataclass(frozen=True, eq=False)
class PredictionDifference:
    """What a replay found to differ in one prediction; it is noted on the boundary.

    - ``kind``: ``row`` when the replayed code presented another row, as it does in a patched or
      perturbed replay; ``output`` when the same row got another output.
    - ``comparison`` gives bits and ulps; ``recorded`` and ``replayed`` are the rows or outputs.
    - ``exact``: whether the exactness class promised equal bits as the model was recomputed.
    """

    kind: Literal["row", "output"]
    model: str
    digest: str
    comparison: Comparison
    recorded: NDArray[Any]
    replayed: NDArray[Any]
    exact: bool

    def __str__(self) -> str:
        ulps = self.comparison.max_ulps
        return f"the {self.kind} of model {self.model!r} differs" + (
            "" if ulps is None else f" by at most {ulps} ulps"
        )


class Predictions:
    """The record of one replica's predictions.

    ``events`` is where batches are journalled, or None when nothing is kept. ``batches`` finds the
    journalled batches in a replay; only models that are not *invariant* need it.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        events: Events | None = None,
        batches: BatchSource | None = None,
    ) -> None:
        self.replica = replica
        self._events = events
        self._batches = batches
        # The rows of one batch belong to several decisions, which are often replayed one after
        # the other: its outputs are computed once.
        self._recomputed: tuple[bytes, NDArray[Any]] | None = None

    def record(self, batch: Batch) -> None:
        """Journal a batch in which a decision had a row."""
        if self._events is not None and batch.home is not None:
            self._events.append(SERVING_BATCH, batch.encode(), decision=batch.home)

    def exchange(self, fetch: Callable[[], Recorded]) -> NDArray[Any]:
        """The output of ``fetch()``, which inside a recorded decision is kept as its input."""
        model = self.replica.model
        if boundary.mode() != "recording":
            return fetch().output
        return _output(
            boundary.exchange(_KIND, model.digest, model.name, lambda: _as_value(fetch()))
        )

    def replay(self, row: NDArray[Any]) -> NDArray[Any]:
        """The output for ``row`` in a replayed decision, computed again.

        Raises what ``recall`` does.
        """
        output = self.recall(row)
        return boundary.outside(lambda: self._alone(row)) if output is None else output

    def recall(self, row: NDArray[Any]) -> NDArray[Any] | None:
        """The recorded prediction of a replayed decision, computed again; None where there is none
        for this row, because a patched or perturbed replay presents another or asks another model.

        Raises ``ReplayDivergence`` when the decision asked for no such prediction when it was
        recorded (unless the replay lets it ask live), and ``ServingError`` when the batch that is
        needed is not in the journal.
        """
        model = self.replica.model
        asked_live: list[bool] = []
        value: Any = boundary.exchange(
            _KIND, model.digest, model.name, lambda: asked_live.append(True)
        )
        if asked_live:
            return None
        recorded = _from_value(value)
        if recorded is None:
            # Beyond the record, under a policy that answers a default.
            return np.asarray(value)
        comparison = compare(recorded.row, row)
        if not comparison.bits_equal:
            self._note("row", comparison, recorded.row, row, exact=True)
            return None
        output = boundary.outside(lambda: self._again(recorded))
        comparison = compare(recorded.output, output)
        if not comparison.bits_equal:
            exact = model.exactness != ExactnessClass.UNSTABLE
            self._note("output", comparison, recorded.output, output, exact=exact)
        return output

    def _alone(self, row: NDArray[Any]) -> NDArray[Any]:
        return self.replica.predict(row.reshape(1, -1)).reshape(-1)

    def _again(self, recorded: Recorded) -> NDArray[Any]:
        """The recorded row's output, from its whole batch.

        An invariant model needs only the row; but the class was measured on a sample, the batch is
        at hand, and computing it once serves all its rows.
        """
        invariant = self.replica.model.exactness == ExactnessClass.INVARIANT
        known = self._recomputed
        if known is None or known[0] != recorded.batch:
            batch = self._find(recorded, required=not invariant)
            if batch is None:
                return self._alone(recorded.row)
            known = self._recomputed = (batch.id, self.replica.predict(batch.rows))
        output: NDArray[Any] = known[1][recorded.position].copy()
        return output

    def _find(self, recorded: Recorded, *, required: bool) -> Batch | None:
        model = self.replica.model
        batch = None
        if self._batches is not None and recorded.home is not None:
            batch = self._batches(recorded.home, recorded.batch)
        if batch is None:
            if not required:
                return None
            raise ServingError(
                f"the batch {recorded.batch.hex()} of model {model.name!r} is not at hand",
                what=recorded.batch.hex(),
                expected=f"its rows, because the model is {model.exactness}",
                remedy="replay from the journal that recorded the decision",
            )
        if batch.digest != model.digest or not 0 <= recorded.position < len(batch.rows):
            raise ServingError(
                f"the batch {recorded.batch.hex()} is not the one of this prediction",
                what=recorded.batch.hex(),
                expected=f"a batch of model {model.digest}",
                remedy="verify the journal",
            )
        return batch

    def _note(
        self,
        kind: Literal["row", "output"],
        comparison: Comparison,
        recorded: NDArray[Any],
        replayed: NDArray[Any],
        *,
        exact: bool,
    ) -> None:
        model = self.replica.model
        difference = PredictionDifference(
            kind, model.name, model.digest, comparison, recorded, replayed, exact
        )
        boundary.note_difference(model.name, difference)


def _as_value(prediction: Recorded) -> list[Any]:
    return [
        prediction.row,
        prediction.output,
        prediction.batch,
        prediction.position,
        prediction.home,
    ]


def _from_value(value: Any) -> Recorded | None:
    if isinstance(value, list) and len(value) == 5 and isinstance(value[0], np.ndarray):
        return Recorded(*value)
    return None


def _output(value: list[Any]) -> NDArray[Any]:
    output: NDArray[Any] = value[1]
    return output
