"""The leaves read since the last signed root, in two versions: as the frames say, and the sidecar.

Both are grown into a tree where a signed root is met; the version that gives this root is genuine.
Only the differences of the sidecar are kept, so that a sound log costs one tree and one buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from timemachine.journal.frontier import LeafFrontier

__all__ = ["LeafTally"]


class LeafTally:
    """Collects leaf hashes and settles them against signed roots."""

    def __init__(self) -> None:
        self._settled = LeafFrontier()
        self._leaves = bytearray()
        self._written: dict[int, bytes] = {}
        self._lost = False

    @property
    def settled_size(self) -> int:
        """The number of leaves up to the last root."""
        return self._settled.size

    def extend(self, leaves: bytearray) -> None:
        """Add leaves that frames and sidecar agree on."""
        self._leaves += leaves

    def append(self, leaf: bytes, written: bytes) -> None:
        """Add a leaf as the frame gives it, and as the sidecar has it."""
        if leaf != written:
            self._written[len(self._leaves)] = written
        self._leaves += leaf

    def lose(self) -> None:
        """Some leaves are in neither: no root can be told until ``restart``."""
        self._lost = True

    def restart(self, size: int, frontier: Sequence[bytes]) -> None:
        """Go on from a tree of which only the frontier is known; ``ValueError`` when it is none."""
        self._settled = LeafFrontier(size, frontier)
        self._leaves.clear()
        self._written.clear()
        self._lost = False

    def has_frontier(self, frontier: Sequence[bytes]) -> bool:
        """Whether the leaves so far, in one version, have this frontier."""
        if self._lost:
            return True
        expected = tuple(frontier)
        end = len(self._leaves)
        return any(self._grown(v, end).hashes == expected for v in self._versions())

    def settle(self, size: int, root: bytes) -> Literal["frames", "sidecar", "neither", "unknown"]:
        """Which version of the first ``size`` leaves has this root; they are then done with."""
        if self._lost or size < self._settled.size:
            return "unknown"
        end = 32 * (size - self._settled.size)
        result: Literal["frames", "sidecar", "neither"] = "neither"
        settled: LeafFrontier | None = None
        for name, leaves in zip(("frames", "sidecar"), self._versions(), strict=False):
            tree = self._grown(leaves, end)
            if settled is None or tree.root == root:
                settled = tree
            if tree.root == root:
                result = "frames" if name == "frames" else "sidecar"
                break
        if settled is not None:
            self._settled = settled
        del self._leaves[:end]
        self._written = {at - end: leaf for at, leaf in self._written.items() if at >= end}
        return result

    def _versions(self) -> list[bytearray]:
        if not self._written:
            return [self._leaves]
        written = bytearray(self._leaves)
        for at, leaf in self._written.items():
            written[at : at + 32] = leaf
        return [self._leaves, written]

    def _grown(self, leaves: bytearray, end: int) -> LeafFrontier:
        tree = self._settled.copy()
        with memoryview(leaves) as view:
            tree.extend(view[:end])
        return tree
