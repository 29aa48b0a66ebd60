"""Micro-batches without a timer: whatever has arrived while the replica was busy is the next batch.

A lone caller waits for nothing; under load the batches grow by themselves. Threads work as leader
and followers (Schmidt et al., "Leader/Followers", PLoP 2000): the caller that finds the replica
free runs the queue's head, its own row included, and then hands the lead to the first who still
waits. In asyncio everything that arrives in one pass of the event loop is one batch.

When a model raises, the batch is halved until the row that it raises on is alone: only that row
fails. Each part that was answered is a batch of its own, because its composition decides its bits.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from frameworks.serving.batch import Batch
from frameworks.serving.errors import ModelFailed, ServingError
from frameworks.serving.recording import Predictions, Recorded
from microkernel import boundary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from frameworks.serving.replica import Replica

__all__ = ["Batcher"]


class _Waiting:
    """A row on its way: its answer or error, and who is to be told."""

    __slots__ = ("batch", "decision", "error", "future", "leads", "position", "row", "wake")

    def __init__(self, row: NDArray[Any], decision: bytes | None) -> None:
        self.row = row
        self.decision = decision
        self.batch: Batch | None = None
        self.position = 0
        self.error: BaseException | None = None
        self.leads = False
        self.wake: Any = None
        self.future: asyncio.Future[None] | None = None

    @property
    def done(self) -> bool:
        return self.batch is not None or self.error is not None

    def answer(self) -> Recorded:
        if self.error is not None:
            raise self.error
        if self.batch is None:
            raise ModelFailed(
                "the batch was given up before this row had an answer",
                what="batch",
                expected="a batch that runs to its end",
                remedy="ask again",
            )
        output = self.batch.outputs[self.position].copy()
        return Recorded(self.row, output, self.batch.id, self.position, self.batch.home)


class Batcher:
    """Joins the calls of many threads and coroutines into batches of at most ``max_batch`` rows.

    ``predictions`` records the batches and, in a replayed decision, recomputes the recorded ones;
    without it nothing is journalled but the inputs of the decisions themselves.
    """

    def __init__(
        self, replica: Replica, *, max_batch: int = 64, predictions: Predictions | None = None
    ) -> None:
        if max_batch < 1:
            raise ServingError(
                f"max_batch is {max_batch}",
                what="max_batch",
                expected="at least 1 row",
                remedy="64 suits most small models",
            )
        self.replica = replica
        self.max_batch = max_batch
        self._predictions = predictions or Predictions(replica)
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._led = False
        self._running = threading.Lock()
        self._passes: dict[asyncio.AbstractEventLoop, list[_Waiting]] = {}
        # Drawn when the batcher is made, not in a decision: a decision's own random numbers stay
        # the ones that it asked for.
        self._prefix = os.urandom(8)
        self._count = itertools.count()

    def predict(self, values: Mapping[str, Any] | Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
        """Answer one row with an array (k,), from any thread.

        Inside a recorded decision the answer is an input of the decision. Raises ``RowInvalid``
        when the row does not fit the model, and ``ModelFailed`` when the model raises on this row.
        """
        row = self.replica.row(values)
        if boundary.mode() == "replaying":
            return self._predictions.replay(row)
        decision = boundary.decision_id()
        return self._predictions.exchange(lambda: self._answer(_Waiting(row, decision)))

    async def apredict(
        self, values: Mapping[str, Any] | Sequence[Any] | NDArray[Any]
    ) -> NDArray[Any]:
        """``predict`` for coroutines; the model runs on the event loop's thread.

        Suited to models of well under a millisecond: a slower one holds up the loop.
        """
        row = self.replica.row(values)
        if boundary.mode() == "replaying":
            output = self._predictions.recall(row)
            if output is not None:
                return output
            # Replays that run side by side share batches, too; those belong to no decision.
            waiting = _Waiting(row, None)
            await self._join(waiting)
            return waiting.answer().output
        waiting = _Waiting(row, boundary.decision_id())
        await self._join(waiting)
        return self._predictions.exchange(waiting.answer)

    async def _join(self, waiting: _Waiting) -> None:
        """Be part of the batch that this pass of the event loop ends with."""
        loop = asyncio.get_running_loop()
        waiting.future = loop.create_future()
        arrived = self._passes.get(loop)
        if arrived is None:
            arrived = self._passes[loop] = []
            # An empty context: the batch runs for all who asked, not in the first one's decision.
            loop.call_soon(self._end_pass, loop, context=contextvars.Context())
        arrived.append(waiting)
        await waiting.future

    def _answer(self, waiting: _Waiting) -> Recorded:
        with self._lock:
            self._queue.append(waiting)
            if not self._led:
                self._led = waiting.leads = True
            else:
                waiting.wake = threading.Lock()
                waiting.wake.acquire()
        if not waiting.leads:
            try:
                waiting.wake.acquire()
            except BaseException:
                self._leave(waiting)
                raise
        if waiting.leads:
            self._lead(waiting)
        return waiting.answer()

    def _lead(self, own: _Waiting) -> None:
        """Run the queue's head, with the own row at its front, then hand the lead on."""
        batch: list[_Waiting] = []
        try:
            with self._lock:
                while self._queue and len(batch) < self.max_batch:
                    batch.append(self._queue.popleft())
            self._run(batch)
        finally:
            for waiting in batch:
                if waiting is not own:
                    waiting.wake.release()
            self._hand_on()

    def _hand_on(self) -> None:
        with self._lock:
            if not self._queue:
                self._led = False
                return
            heir = self._queue[0]
            heir.leads = True
        heir.wake.release()

    def _leave(self, waiting: _Waiting) -> None:
        """A waiting caller was interrupted: take its row back, and the lead if it just got it."""
        with self._lock:
            if waiting in self._queue:
                self._queue.remove(waiting)
            leads = waiting.leads
        if leads:
            self._hand_on()

    def _end_pass(self, loop: asyncio.AbstractEventLoop) -> None:
        arrived = [
            waiting
            for waiting in self._passes.pop(loop)
            if waiting.future is not None and not waiting.future.done()
        ]
        try:
            for start in range(0, len(arrived), self.max_batch):
                # Its rows have the error; the rows of the next part may still be answered.
                with contextlib.suppress(Exception):
                    self._run(arrived[start : start + self.max_batch])
        finally:
            for waiting in arrived:
                # Whoever was cancelled meanwhile has gone; the others get theirs.
                if waiting.future is not None and not waiting.future.done():
                    waiting.future.set_result(None)

    def _run(self, batch: list[_Waiting]) -> None:
        """Answer every row of ``batch``, or give it the error that ended the batch."""
        try:
            with self._running:
                self._bisect(batch)
        except Exception as error:
            for waiting in batch:
                if not waiting.done:
                    waiting.error = error
            raise

    def _bisect(self, part: list[_Waiting]) -> None:
        rows = np.array([waiting.row for waiting in part])
        try:
            outputs = self.replica.predict(rows)
        except ModelFailed as error:
            if len(part) == 1:
                part[0].error = error
                return
            middle = len(part) // 2
            self._bisect(part[:middle])
            self._bisect(part[middle:])
            return
        batch = Batch(
            id=self._prefix + next(self._count).to_bytes(8, "big"),
            digest=self.replica.model.digest,
            exactness=self.replica.model.exactness,
            threads=self.replica.threads,
            decisions=tuple(waiting.decision for waiting in part),
            rows=rows,
            outputs=outputs,
        )
        # Journalled before anybody acts on an answer.
        self._predictions.record(batch)
        for position, waiting in enumerate(part):
            waiting.position = position
            waiting.batch = batch
