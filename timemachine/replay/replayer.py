"""Runs recorded decisions again: the same code path as live, with the journal behind the boundary.

Three modes. *Exact*: the recorded code on the recorded inputs; anything that differs is named.
*Patched*: other code or other models on the recorded inputs, "what would v2 have decided".
*Perturbed*: the recorded code, with some inputs replaced. In all three the function itself is
called, in this process, through the kernel; there is no second implementation for replay.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self, TypeAlias

from microkernel import Kernel, ReplayDivergence, Replaying, code_digest
from microkernel.recording import describe_error
from timemachine.errors import ReplayImpossible
from timemachine.replay.outcome import Outcome, Replay
from timemachine.replay.record import DecisionRecord

__all__ = ["Overrides", "Replayer"]

Overrides: TypeAlias = Mapping[tuple[str, Any], Any]
"""Inputs to replace: ``(source, key)`` to the value that is read there instead."""

SIDE_BY_SIDE = 256
"""Replays of a coroutine function that run in one event loop at a time."""


class Replayer:
    """Replays decisions through ``kernel``; ``resolve`` finds a recorded function by its name.

    ``resolve(name)`` gets ``module:function`` and returns the function; what it does not know it
    must refuse: a journal names code, it does not get to choose what is run. May be used as a
    context manager, and keeps one event loop for all coroutine functions.
    """

    def __init__(self, kernel: Kernel, resolve: Callable[[str], Callable[..., Any]]) -> None:
        self._kernel = kernel
        self._resolve = resolve
        self._runner: asyncio.Runner | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the event loop, if there is one."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def exact(self, record: DecisionRecord) -> Replay:
        """Run the recorded code on the recorded inputs and compare everything.

        Raises ``ReplayImpossible`` for a decision that was never closed.
        """
        return self.exact_all([record])[0]

    def exact_all(self, records: Sequence[DecisionRecord]) -> list[Replay]:
        """``exact`` for many decisions, coroutine functions side by side."""
        return self._run_by_name(
            "exact", None, [(record, Replaying(record.payloads())) for record in records]
        )

    def patched(
        self,
        records: Sequence[DecisionRecord],
        function: Callable[..., Any] | None = None,
        *,
        policy: str = "fail",
        default: object = None,
        overrides: Callable[[DecisionRecord], Overrides] | None = None,
    ) -> list[Replay]:
        """Run other code or models on the recorded inputs of many decisions.

        ``function`` replaces the recorded one (None: the same code, over whatever it now rests
        on). ``policy`` is for inputs beyond the record: ``fail`` ends that replay there, ``live``
        asks the source, ``default`` answers ``default``. ``overrides`` replaces inputs besides.
        Coroutine functions are replayed side by side, so that their models see batches.
        """
        jobs = [
            (
                record,
                Replaying(
                    record.payloads(),
                    overrides=overrides(record) if overrides is not None else None,
                    policy=policy,
                    default=default,
                ),
            )
            for record in records
        ]
        return self._run_by_name("patched", function, jobs)

    def perturbed(
        self,
        record: DecisionRecord,
        batch: Sequence[Overrides],
        *,
        policy: str = "fail",
        default: object = None,
    ) -> list[Replay]:
        """Run the recorded code once for each of ``batch``: ``(source, key)`` to another value.

        Raises ``ReplayImpossible`` for an override of something that the decision did not read.
        """
        known = {(one.source, _hashable(one.key)) for one in record.inputs if one.kind == "read"}
        for source, key in {address for overrides in batch for address in overrides}:
            if (source, _hashable(key)) not in known:
                raise ReplayImpossible(
                    f"decision {record.id[:8]} did not read {key!r} of {source!r}",
                    what=f"{source}: {key!r}",
                    expected="an input of the decision",
                    remedy="srds show lists what it read",
                )
        payloads = record.payloads()
        jobs = [
            (record, Replaying(payloads, overrides=overrides, policy=policy, default=default))
            for overrides in batch
        ]
        return self._run("perturbed", self._resolve(record.name), jobs)

    def _run_by_name(
        self,
        mode: str,
        function: Callable[..., Any] | None,
        jobs: Sequence[tuple[DecisionRecord, Replaying]],
    ) -> list[Replay]:
        """Run each function's decisions together; the replays come in the order of the jobs."""
        positions: dict[str, list[int]] = {}
        for position, (record, _) in enumerate(jobs):
            positions.setdefault(record.name, []).append(position)
        replays: dict[int, Replay] = {}
        for name, places in positions.items():
            call = function if function is not None else self._resolve(name)
            done = self._run(mode, call, [jobs[place] for place in places])
            replays.update(zip(places, done, strict=True))
        return [replays[position] for position in range(len(jobs))]

    def _run(
        self,
        mode: str,
        function: Callable[..., Any],
        jobs: Sequence[tuple[DecisionRecord, Replaying]],
    ) -> list[Replay]:
        for record, _ in jobs:
            if record.outcome is None:
                raise ReplayImpossible(
                    f"decision {record.id[:8]} was never closed",
                    what=record.id,
                    expected="a decision with an answer",
                    remedy="its process died, or it is still running: nothing was answered",
                )
        if not inspect.iscoroutinefunction(inspect.unwrap(function)):
            return [self._replay(mode, function, record, boundary) for record, boundary in jobs]
        if self._runner is None:
            self._runner = asyncio.Runner()
        replays: list[Replay] = []
        for start in range(0, len(jobs), SIDE_BY_SIDE):
            part = jobs[start : start + SIDE_BY_SIDE]
            # The caller's context, not the one of the loop's first use: it says which versions.
            replays += self._runner.run(
                self._replay_together(mode, function, part), context=copy_context()
            )
        return replays

    async def _replay_together(
        self,
        mode: str,
        function: Callable[..., Any],
        jobs: Sequence[tuple[DecisionRecord, Replaying]],
    ) -> list[Replay]:
        async def one(record: DecisionRecord, boundary: Replaying) -> Replay:
            try:
                decision = await self._kernel.replay(
                    record.raw_id, boundary, function, *record.args, **record.kwargs
                )
            except Exception as error:
                return _report(mode, function, record, boundary, error=error)
            return _report(mode, function, record, boundary, answer=decision.answer)

        return await asyncio.gather(*(one(*job) for job in jobs))

    def _replay(
        self,
        mode: str,
        function: Callable[..., Any],
        record: DecisionRecord,
        boundary: Replaying,
    ) -> Replay:
        try:
            decision = self._kernel.replay(
                record.raw_id, boundary, function, *record.args, **record.kwargs
            )
        except Exception as error:
            return _report(mode, function, record, boundary, error=error)
        return _report(mode, function, record, boundary, answer=decision.answer)


def _report(
    mode: str,
    function: Callable[..., Any],
    record: DecisionRecord,
    boundary: Replaying,
    *,
    answer: Any = None,
    error: Exception | None = None,
) -> Replay:
    assert record.outcome is not None
    replayed = Outcome(True, answer) if error is None else Outcome(False, describe_error(error))
    return Replay(
        decision=record.id,
        name=record.name,
        mode=mode,
        recorded=record.outcome,
        replayed=replayed,
        divergence=str(error) if isinstance(error, ReplayDivergence) else None,
        unread=tuple(boundary.unread()),
        extra=tuple(boundary.extra),
        differences=tuple(f"{source}: {what}" for source, what in boundary.differences),
        code_changed=code_digest(inspect.unwrap(function)) != record.code,
        reads=tuple(boundary.reads),
    )


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list | tuple) else key
