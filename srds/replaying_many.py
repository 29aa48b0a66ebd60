"""Replays over a whole store: are all decisions exact, and what would other models have decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from srds.errors import AppError
from srds.plain_plan import label_of
from srds.rendering import console
from timemachine.replay import DecisionRecord, Outcome, Records, Replay

if TYPE_CHECKING:
    from ground import Ground
    from srds.app import App, OpenApp
    from srds.replay_session import ReplaySession
    from timemachine.fingerprint import Difference
    from timemachine.journal import Reader

__all__ = ["Exactness", "Patches", "environment_differences", "exact", "patched"]

TOGETHER = 64
"""Decisions that are replayed at a time, so that models see batches and progress is seen."""


@dataclass
class Exactness:
    """Exact replays: ``skipped`` counts decisions whose app is not known, by the reason why;
    ``unfinished`` are those that were never closed."""

    replays: list[Replay] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0

    @property
    def ok(self) -> bool:
        """Whether every decision that was closed was replayed, and exactly."""
        return not self.skipped and all(one.exact for one in self.replays)

    def by_function(self) -> dict[str, list[Replay]]:
        """The replays of each function."""
        found: dict[str, list[Replay]] = {}
        for one in self.replays:
            found.setdefault(one.name, []).append(one)
        return found


@dataclass
class Patches:
    """Replays on other ``versions`` (as they were asked for, and their hashes)."""

    versions: list[tuple[str, str]] = field(default_factory=list)
    recorded_versions: tuple[str, ...] = ()
    replays: list[Replay] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0

    def transitions(self) -> Counter[tuple[str, str]]:
        """How many decisions went from which answer to which."""
        return Counter((_label(one.recorded), _label(one.replayed)) for one in self.replays)

    def changed(self) -> list[Replay]:
        """The replays whose answer is another."""
        return [one for one in self.replays if _label(one.recorded) != _label(one.replayed)]


def environment_differences(
    reader: Reader, records: Iterable[DecisionRecord] | None = None
) -> tuple[Difference, ...]:
    """Where this process's environment differs from those that the decisions were made in.

    Without ``records``, those of all segments of the journal count.
    """
    from timemachine.fingerprint import differences, fingerprint

    if records is not None:
        headers = [reader.header_of(record.events[0]) for record in records]
    else:
        reader.refresh()
        headers = [header for log in reader.logs for header in reader.headers(log)]
    present = fingerprint()
    found = {one: None for header in headers for one in differences(header.fingerprint, present)}
    return tuple(found)


def exact(
    session: ReplaySession, records: Records | Sequence[DecisionRecord], *, strict: bool = False
) -> Exactness:
    """Replay decisions exactly. ``strict``: what cannot be replayed is an error, not counted."""
    result = Exactness()
    for opened, some in _portions(session, records, result, strict, by_versions=True):
        _, replayer = session.of(some[0])
        with opened.resting_on(some[0].versions):
            result.replays += replayer.exact_all(some)
    return result


def patched(
    session: ReplaySession,
    records: Records | Sequence[DecisionRecord],
    versions: Sequence[str],
    *,
    strict: bool = False,
) -> Patches:
    """Replay decisions on other versions; what they read beyond the record is asked of the source.

    ``versions`` are references (``kind/name@ref``) or hashes. Raises ``GroundError`` for one that
    is not in the catalogue.
    """
    result = Patches()
    for opened, some in _portions(session, records, result, strict, by_versions=False):
        if not result.versions:
            result.versions = [(text, _hash(opened.ground, text)) for text in versions]
            result.recorded_versions = some[0].versions
        _, replayer = session.of(some[0])
        with opened.resting_on([hash_ for _, hash_ in result.versions]):
            result.replays += replayer.patched(some, policy="live")
    return result


def _portions(
    session: ReplaySession,
    records: Records | Sequence[DecisionRecord],
    result: Exactness | Patches,
    strict: bool,
    *,
    by_versions: bool,
) -> Iterator[tuple[OpenApp, list[DecisionRecord]]]:
    """The decisions that can be replayed together: of one app, and resting on the same versions.

    What cannot be replayed is counted in ``result``.
    """
    waiting: dict[tuple[App, tuple[str, ...]], list[DecisionRecord]] = {}
    total = len(records.ids()) if isinstance(records, Records) else len(records)
    with _progress(total) as advance:
        for record in records:
            if record.outcome is None and not strict:
                result.unfinished += 1
                continue
            try:
                opened, _ = session.of(record)
            except AppError as error:
                if strict:
                    raise
                result.skipped[_reason(error)] += 1
                continue
            key = opened.app, record.versions if by_versions else ()
            waiting.setdefault(key, []).append(record)
            if len(waiting[key]) == TOGETHER:
                yield opened, waiting.pop(key)
                advance(TOGETHER)
        for (app, _), some in waiting.items():
            yield app.now, some
            advance(len(some))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, if somebody watches and there is something to wait for."""
    err = console(stderr=True)
    if total < 2 or not err.is_terminal:
        yield lambda count: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("replaying", total=total)
        yield lambda count: progress.advance(task, count)


def _hash(ground: Ground, text: str) -> str:
    version = ground.resolve(text) if "@" in text else ground.version_by_hash(text)
    return version.hash


def _reason(error: AppError) -> str:
    return f"{error}; {error.remedy}"


def _label(outcome: Outcome) -> str:
    return label_of(outcome.value) if outcome.ok else f"error: {outcome}"
