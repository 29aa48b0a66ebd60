"""Catalogues to test with, each with a journal that is a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from enclave.authority import Principal
from ground import Ground

ALICE = Principal("alice")


@dataclass
class Journal:
    """Keeps the events that a catalogue appends."""

    payloads: list[bytes] = field(default_factory=list)

    def append(self, kind: int, payload: bytes) -> None:
        self.payloads.append(payload)


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def open_ground(tmp_path: Path, journal: Journal) -> Callable[..., Ground]:
    def opened(name: str = "ground.db", **arguments: object) -> Ground:
        settings = {"append": journal.append, "principal": ALICE} | arguments
        return Ground.open(tmp_path / name, **settings)  # type: ignore[arg-type]

    return opened


@pytest.fixture
def ground(open_ground: Callable[..., Ground]) -> Iterator[Ground]:
    with open_ground() as opened:
        yield opened
