"""What a replay found: the two outcomes, and the first thing that differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from microkernel import RecordedInput
from microkernel.values import encode
from timemachine.ulps import Comparison, compare

__all__ = ["Outcome", "Replay"]


@dataclass(frozen=True)
class Outcome:
    """How a decision ended: its answer, or, when ``ok`` is false, ``[exception, arguments]``."""

    ok: bool
    value: Any

    def same_bits(self, other: Outcome) -> bool:
        """Whether both ended alike, to the last bit and with the same types."""
        return self.ok == other.ok and encode(self.value) == encode(other.value)

    def __str__(self) -> str:
        if self.ok:
            return repr(self.value)
        name, arguments = self.value
        return f"{name.partition(':')[2]}({', '.join(map(repr, arguments))})"


@dataclass(frozen=True)
class Replay:
    """One decision, run again.

    ``mode``: ``exact``, ``patched`` (other code or models) or ``perturbed`` (other inputs).
    ``divergence``: the first input that was asked for and not recorded, when the run ended there.
    ``unread``: recorded inputs that nobody asked for. ``extra``: inputs beyond the record.
    ``differences``: what frameworks recomputed and found different, in words.
    ``code_changed``: the function's own code is not the one that was recorded.
    """

    decision: str
    name: str
    mode: str
    recorded: Outcome
    replayed: Outcome
    divergence: str | None = None
    unread: tuple[RecordedInput, ...] = ()
    extra: tuple[tuple[str, str, Any, int], ...] = ()
    differences: tuple[str, ...] = ()
    code_changed: bool = False
    reads: tuple[tuple[str, str, Any, int], ...] = field(default=(), repr=False)

    @property
    def same_bits(self) -> bool:
        """Whether the answer, or the error, is the recorded one to the last bit."""
        return self.divergence is None and self.recorded.same_bits(self.replayed)

    @property
    def exact(self) -> bool:
        """Whether nothing differs at all: answer, inputs read, and predictions computed again."""
        return self.same_bits and not (self.unread or self.extra or self.differences)

    @property
    def comparison(self) -> Comparison:
        """The answers compared: bits and units in the last place."""
        return compare(self.recorded.value, self.replayed.value)

    @property
    def first_difference(self) -> str | None:
        """The first thing that differs, named; None when nothing does."""
        if self.divergence is not None:
            return self.divergence
        if self.recorded.ok and not self.replayed.ok:
            return f"the replay ended with {self.replayed}; {self.recorded} was recorded"
        if self.differences:
            return self.differences[0]
        if self.extra:
            kind, source, key, _ = self.extra[0]
            return f"the {kind} of {source!r}, key {key!r}, was not recorded"
        if self.unread:
            first = self.unread[0]
            return (
                f"the {first.kind} of {first.source!r}, key {first.key!r} (event {first.seq}), "
                "was recorded and not asked for"
            )
        if not self.same_bits:
            where = self.comparison.first if self.recorded.ok == self.replayed.ok else None
            place = f" at {'.'.join(map(str, where))}" if where else ""
            return f"the answer differs{place}: {self.recorded} was recorded, now {self.replayed}"
        return None

    def to_json(self) -> dict[str, Any]:
        """The report in plain JSON types."""
        return {
            "decision": self.decision,
            "name": self.name,
            "mode": self.mode,
            "exact": self.exact,
            "same_bits": self.same_bits,
            "recorded": {"ok": self.recorded.ok, "value": self.recorded.value},
            "replayed": {"ok": self.replayed.ok, "value": self.replayed.value},
            "max_ulps": self.comparison.max_ulps,
            "first_difference": self.first_difference,
            "differences": list(self.differences),
            "unread": [[one.kind, one.source, one.key] for one in self.unread],
            "extra": [list(one[:3]) for one in self.extra],
            "inputs_read": len(self.reads),
            "code_changed": self.code_changed,
        }
