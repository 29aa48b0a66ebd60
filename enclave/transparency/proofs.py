"""Inclusion and consistency proofs: made from leaf hashes, verified without them.

Generation follows the definitions of RFC 6962 sections 2.1.1 and 2.1.2, verification the
algorithms of RFC 9162 sections 2.1.3.2 and 2.1.4.2. Two properties of the scheme that a caller
has to know:

- A proof does not authenticate the sizes. Trees of three and of four leaves can share the path of
  a leaf, so sizes and roots must come *together* from a signed checkpoint, never from the prover.
- Every log is trivially consistent with the empty one. A consistency proof from size 0 therefore
  says nothing, and is refused instead of accepted.
"""

from __future__ import annotations

from collections.abc import Sequence

from enclave.errors import ProofInvalid
from enclave.transparency.frontier import Frontier
from enclave.transparency.tree import node_hash, require_hash

__all__ = [
    "consistency_proof",
    "inclusion_proof",
    "tree_root",
    "verify_consistency",
    "verify_inclusion",
]


def tree_root(leaves: Sequence[bytes], size: int | None = None) -> bytes:
    """The root (32 bytes) over the first ``size`` leaf hashes, or over all of them.

    Raises ``ProofInvalid`` when there are fewer than ``size``.
    """
    size = len(leaves) if size is None else size
    _require_leaves(leaves, size)
    return _subtree_root(leaves, 0, size)


def inclusion_proof(leaves: Sequence[bytes], index: int, size: int | None = None) -> list[bytes]:
    """The path from leaf ``index`` (from 0) to the root of the tree of the first ``size`` leaves.

    ``leaves`` are leaf hashes; ``size`` is all of them unless given. The siblings are returned
    from the leaf upwards. Raises ``ProofInvalid`` when the tree has no such leaf.

    >>> from enclave.transparency import leaf_hash, tree_root, verify_inclusion
    >>> leaves = [leaf_hash(entry) for entry in (b"a", b"b", b"c")]
    >>> proof = inclusion_proof(leaves, 2)
    >>> verify_inclusion(leaves[2], 2, 3, proof, tree_root(leaves))
    """
    size = len(leaves) if size is None else size
    _require_leaves(leaves, size)
    _require_index(index, size)
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_subtree_root(leaves, middle, end))
            end = middle
        else:
            path.append(_subtree_root(leaves, begin, middle))
            begin = middle
    path.reverse()
    return path


def consistency_proof(
    leaves: Sequence[bytes], old_size: int, new_size: int | None = None
) -> list[bytes]:
    """What shows that the tree of ``new_size`` leaves continues the one of ``old_size``.

    ``leaves`` are leaf hashes; ``new_size`` is all of them unless given. Raises ``ProofInvalid``
    when the sizes are not ``0 < old_size <= new_size <= len(leaves)``.
    """
    new_size = len(leaves) if new_size is None else new_size
    _require_leaves(leaves, new_size)
    _require_sizes(old_size, new_size)
    path: list[bytes] = []
    begin, end = 0, new_size
    # Descend until the old tree is the whole of [begin, end): a subtree that both trees share.
    while end != old_size:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            path.append(_subtree_root(leaves, middle, end))
            end = middle
        else:
            path.append(_subtree_root(leaves, begin, middle))
            begin = middle
    if begin > 0:
        path.append(_subtree_root(leaves, begin, end))
    path.reverse()
    return path


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that ``leaf`` (a leaf hash) stands at ``index`` of the tree of ``size`` and ``root``.

    ``size`` and ``root`` must come together from a checkpoint that was verified. Raises
    ``ProofInvalid`` when the proof does not show it.
    """
    _require_index(index, size)
    require_hash(leaf, "the leaf hash")
    require_hash(root, "the root")
    _require_proof(proof)
    position, last = index, size - 1
    node = leaf
    for sibling in proof:
        if last == 0:
            raise _wrong_length(len(proof), f"leaf {index} of {size}")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise _wrong_length(len(proof), f"leaf {index} of {size}")
    _require_equal(node, root, f"leaf {index} is not in the tree of {size} leaves")


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of ``new_size`` and ``new_root`` only appended to the old one.

    Each size and its root must come together from a checkpoint that was verified. Raises
    ``ProofInvalid`` when the proof does not show it, and when ``old_size`` is 0: that would
    prove nothing.
    """
    _require_sizes(old_size, new_size)
    subject = f"sizes {old_size} and {new_size}"
    if old_size == new_size:
        if proof:
            raise _wrong_length(len(proof), subject)
        # Nothing is hashed here, so the roots need only be the same bytes.
        _require_equal(old_root, new_root, f"two trees of {new_size} leaves differ")
        return
    require_hash(old_root, "the old root")
    require_hash(new_root, "the new root")
    _require_proof(proof)
    path = list(proof)
    if old_size.bit_count() == 1:
        # A complete old tree is itself the first node on the path; the prover leaves it out.
        path.insert(0, old_root)
    if not path:
        raise _wrong_length(len(proof), subject)
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old_node = new_node = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _wrong_length(len(proof), subject)
        if position & 1 or position == last:
            old_node = node_hash(sibling, old_node)
            new_node = node_hash(sibling, new_node)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new_node = node_hash(new_node, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise _wrong_length(len(proof), subject)
    _require_equal(old_node, old_root, f"the proof does not lead to the root of {old_size} leaves")
    _require_equal(new_node, new_root, f"the tree of {new_size} leaves is no continuation")


def _split(size: int) -> int:
    """The largest power of two below ``size`` (which is at least 2): where RFC 6962 splits."""
    return 1 << ((size - 1).bit_length() - 1)


def _subtree_root(leaves: Sequence[bytes], begin: int, end: int) -> bytes:
    frontier = Frontier()
    for index in range(begin, end):
        frontier.append(leaves[index])
    return frontier.root


def _require_leaves(leaves: Sequence[bytes], size: int) -> None:
    if not 0 <= size <= len(leaves):
        raise ProofInvalid(
            f"there is no tree of {size} leaves: the log has {len(leaves)}",
            what=f"tree size {size}",
            expected=f"a size from 0 to {len(leaves)}",
            remedy="use a checkpoint of this log, or read the log further",
        )


def _require_index(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise ProofInvalid(
            f"a tree of {size} leaves has no leaf {index}",
            what=f"leaf index {index}",
            expected=f"an index from 0 to below {size}",
            remedy="use a checkpoint that is as new as the leaf",
        )


def _require_sizes(old_size: int, new_size: int) -> None:
    if not 0 < old_size <= new_size:
        raise ProofInvalid(
            f"no consistency proof leads from size {old_size} to size {new_size}",
            what=f"sizes {old_size} and {new_size}",
            expected="0 < old size <= new size",
            remedy="start from a checkpoint of at least one leaf, and not newer than the other",
        )


def _require_proof(proof: Sequence[bytes]) -> None:
    for position, value in enumerate(proof):
        require_hash(value, f"proof hash {position}")


def _wrong_length(length: int, subject: str) -> ProofInvalid:
    return ProofInvalid(
        f"a proof of {length} hashes cannot be one for {subject}",
        what=f"proof of {length} hashes",
        expected="exactly the hashes on the path",
        remedy="ask the log for the proof again, with the sizes of the two checkpoints",
    )


def _require_equal(computed: bytes, claimed: bytes, message: str) -> None:
    if computed != claimed:
        raise ProofInvalid(
            f"{message}: the hashes lead to {computed.hex()}, not {claimed.hex()}",
            what=computed.hex(),
            expected=claimed.hex(),
            remedy="treat the log as altered until a proof from a trusted copy says otherwise",
        )
