"""Joins the two halves of a decision's lineage: the journal's record and the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from srds.explaining import input_values
from timemachine.replay import DecisionRecord

if TYPE_CHECKING:
    from ground import DecisionLineage, Ground

__all__ = ["lineage_of"]


@dataclass(frozen=True)
class _Named:
    """A decision's record in the form in which Ground asks for it."""

    id: str
    name: str
    versions: tuple[str, ...]
    inputs: Mapping[str, Any]


def lineage_of(
    ground: Ground, record: DecisionRecord, *, depth: int | None = None
) -> DecisionLineage:
    """What is behind a decision: its inputs, the versions it rested on, what those came from."""
    named = _Named(record.id, record.name, record.versions, input_values(record))
    return ground.why(named, depth=depth)
