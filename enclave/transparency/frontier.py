"""The frontier of a growing Merkle tree: what an appender has to remember.

The leaves of an RFC 6962 tree of ``size`` leaves fall into complete subtrees, one for each bit set
in ``size``, the largest leftmost. Their roots are all that is needed to append a leaf and to know
the new root, so a log of any length is continued from at most 64 hashes. Elsewhere this is called
a *compact range* that starts at 0.
"""

from __future__ import annotations

from collections.abc import Iterable

from enclave.errors import ProofInvalid
from enclave.transparency.tree import EMPTY_ROOT, node_hash, require_hash

__all__ = ["Frontier"]


class Frontier:
    """The roots of the complete subtrees of a tree of ``size`` leaves, the largest first.

    ``Frontier()`` is the empty tree; ``Frontier(size, hashes)`` continues one from what ``size``
    and ``hashes`` gave earlier. Raises ``ProofInvalid`` when the number of hashes is not the
    number of bits set in ``size``. One thread at a time.

    >>> from enclave.transparency import Frontier, leaf_hash
    >>> frontier = Frontier()
    >>> frontier.extend(leaf_hash(entry) for entry in (b"a", b"b", b"c"))
    >>> frontier.size, len(frontier.hashes)
    (3, 2)
    >>> Frontier(frontier.size, frontier.hashes).root == frontier.root
    True
    """

    __slots__ = ("_hashes", "_size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        kept = [bytes(value) for value in hashes]
        if size < 0 or len(kept) != size.bit_count():
            raise ProofInvalid(
                f"the frontier of a tree of {size} leaves cannot have {len(kept)} hashes",
                what=f"size {size} with {len(kept)} hashes",
                expected="one hash for each bit set in the size",
                remedy="restore size and hashes together, from the same moment",
            )
        for position, value in enumerate(kept):
            require_hash(value, f"frontier hash {position}")
        self._size = size
        self._hashes = kept

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._size

    @property
    def hashes(self) -> list[bytes]:
        """A copy of the subtree roots, the largest subtree first; 32 bytes each."""
        return list(self._hashes)

    @property
    def root(self) -> bytes:
        """The root of the tree: 32 bytes, at the cost of as many hashes as the frontier has."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = node_hash(left, root)
        return root

    def append(self, leaf: bytes) -> None:
        """Add one leaf by its ``leaf_hash`` (32 bytes)."""
        require_hash(leaf, f"leaf hash {self._size}")
        node = leaf
        size = self._size
        while size & 1:
            node = node_hash(self._hashes.pop(), node)
            size >>= 1
        self._hashes.append(node)
        self._size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves by their hashes, in order."""
        for leaf in leaves:
            self.append(leaf)

    def copy(self) -> Frontier:
        """A frontier of the same tree that grows by itself."""
        return Frontier(self._size, self._hashes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frontier):
            return NotImplemented
        return self._size == other._size and self._hashes == other._hashes

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Frontier(size={self._size}, root={self.root.hex()})"
