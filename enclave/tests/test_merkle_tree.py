"""The tree against published vectors, RFC 6962's own recursive definitions, and its laws."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave.errors import ProofInvalid
from enclave.transparency import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(b"entry %d" % index) for index in range(300)]


# The definitions of RFC 6962 sections 2.1 to 2.1.2, word for word, over entries that are hashed
# here and not by the code under test.


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    if not d:
        return sha256(b"").digest()
    if len(d) == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = split(len(d))
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = split(len(d))
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], b: bool) -> list[bytes]:
    if m == len(d):
        return [] if b else [mth(d)]
    k = split(len(d))
    if m <= k:
        return [*subproof(m, d[:k], b), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


# The shape of a proof: on which side each of its hashes stands. Two sizes of one shape cannot be
# told apart by a proof, which is why a checkpoint signs the size.


def inclusion_shape(m: int, n: int) -> list[str]:
    if n == 1:
        return []
    k = split(n)
    if m < k:
        return [*inclusion_shape(m, k), "right"]
    return [*inclusion_shape(m - k, n - k), "left"]


def consistency_shape(m: int, n: int, b: bool = True) -> list[str]:
    if m == n:
        return [] if b else ["seed"]
    k = split(n)
    if m <= k:
        return [*consistency_shape(m, k, b), "right"]
    return [*consistency_shape(m - k, n - k, False), "left"]


def verifies_inclusion(*arguments: Any) -> bool:
    try:
        verify_inclusion(*arguments)
    except ProofInvalid:
        return False
    return True


def verifies_consistency(*arguments: Any) -> bool:
    try:
        verify_consistency(*arguments)
    except ProofInvalid:
        return False
    return True


def with_flipped_bit(value: bytes, bit: int) -> bytes:
    altered = bytearray(value)
    altered[bit // 8 % len(value)] ^= 1 << bit % 8
    return bytes(altered)


def published(kind: str) -> list[Any]:
    root = os.environ.get("SRDS_VECTORS")
    if root is None:
        reason = f"SRDS_VECTORS is unset: the 98 published {kind} proofs were not verified"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="unset")]
    folder = Path(root, "merkle", kind)
    files = sorted(folder.rglob("*.json"))
    assert files, f"SRDS_VECTORS is set, but there are no vectors in {folder}"
    return [pytest.param(file, id=str(file.relative_to(folder))) for file in files]


def decoded(values: list[str] | None) -> list[bytes]:
    return [b64decode(value or "") for value in values or []]


@pytest.mark.parametrize("file", published("inclusion"))
def test_a_published_inclusion_proof_is_judged_as_its_author_says(file: Path) -> None:
    case = json.loads(file.read_text())
    [leaf, root] = decoded([case["leafHash"], case["root"]])
    accepted = verifies_inclusion(
        leaf, case["leafIdx"], case["treeSize"], decoded(case["proof"]), root
    )
    assert accepted is not case["wantErr"], case["desc"]


@pytest.mark.parametrize("file", published("consistency"))
def test_a_published_consistency_proof_is_judged_as_its_author_says(file: Path) -> None:
    case = json.loads(file.read_text())
    [old_root, new_root] = decoded([case["root1"], case["root2"]])
    accepted = verifies_consistency(
        case["size1"], old_root, case["size2"], new_root, decoded(case["proof"])
    )
    assert accepted is not case["wantErr"], case["desc"]


def test_leaf_and_node_hashes_are_those_of_the_specification() -> None:
    assert leaf_hash(b"x") == sha256(b"\x00x").digest()
    assert node_hash(b"l" * 32, b"r" * 32) == sha256(b"\x01" + b"l" * 32 + b"r" * 32).digest()
    assert sha256().digest() == EMPTY_ROOT


@pytest.mark.parametrize("size", [*range(1, 35), 64, 65])
def test_roots_and_proofs_are_those_of_the_recursive_definition(size: int) -> None:
    entries = [b"entry %d" % index for index in range(size)]
    assert tree_root(LEAVES, size) == mth(entries)
    for index in range(size):
        assert inclusion_proof(LEAVES, index, size) == path(index, entries)
        assert consistency_proof(LEAVES, index + 1, size) == subproof(index + 1, entries, True)


def test_a_proof_over_all_leaves_needs_no_size() -> None:
    leaves = LEAVES[:11]
    assert tree_root(leaves) == tree_root(LEAVES, 11)
    assert inclusion_proof(leaves, 4) == inclusion_proof(LEAVES, 4, 11)
    assert consistency_proof(leaves, 4) == consistency_proof(LEAVES, 4, 11)


@st.composite
def leaf_in_tree(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(st.integers(1, len(LEAVES)))
    return draw(st.integers(0, size - 1)), size


@st.composite
def growth(draw: st.DrawFn) -> tuple[int, int]:
    new_size = draw(st.integers(1, len(LEAVES)))
    return draw(st.integers(1, new_size)), new_size


@given(leaf_in_tree(), st.integers(0, 255), st.data())
def test_an_inclusion_proof_verifies_and_no_altered_bit_of_it_does(
    place: tuple[int, int], bit: int, data: st.DataObject
) -> None:
    index, size = place
    leaf, root, proof = LEAVES[index], tree_root(LEAVES, size), inclusion_proof(LEAVES, index, size)
    assert verifies_inclusion(leaf, index, size, proof, root)
    assert not verifies_inclusion(with_flipped_bit(leaf, bit), index, size, proof, root)
    assert not verifies_inclusion(leaf, index, size, proof, with_flipped_bit(root, bit))
    assert not verifies_inclusion(leaf, index, size, [*proof, root], root)
    assert not verifies_inclusion(leaf, index, size, [root, *proof], root)
    if proof:
        assert not verifies_inclusion(leaf, index, size, proof[:-1], root)
        position = data.draw(st.integers(0, len(proof) - 1))
        altered = list(proof)
        altered[position] = with_flipped_bit(altered[position], bit)
        assert not verifies_inclusion(leaf, index, size, altered, root)


@given(leaf_in_tree(), st.integers(0, 12), st.booleans())
def test_an_altered_index_or_size_fails_wherever_it_alters_the_path(
    place: tuple[int, int], bit: int, alter_index: bool
) -> None:
    index, size = place
    root, proof = tree_root(LEAVES, size), inclusion_proof(LEAVES, index, size)
    other_index = index ^ (1 << bit) if alter_index else index
    other_size = size if alter_index else size ^ (1 << bit)
    accepted = verifies_inclusion(LEAVES[index], other_index, other_size, proof, root)
    same_path = other_index < other_size and (
        inclusion_shape(other_index, other_size) == inclusion_shape(index, size)
    )
    assert accepted is same_path
    assert not (alter_index and accepted), "one tree has one leaf at each path"


@given(growth(), st.integers(0, 255), st.data())
def test_a_consistency_proof_verifies_and_no_altered_bit_of_it_does(
    sizes: tuple[int, int], bit: int, data: st.DataObject
) -> None:
    old, new = sizes
    old_root, new_root = tree_root(LEAVES, old), tree_root(LEAVES, new)
    proof = consistency_proof(LEAVES, old, new)
    assert verifies_consistency(old, old_root, new, new_root, proof)
    assert not verifies_consistency(old, with_flipped_bit(old_root, bit), new, new_root, proof)
    assert not verifies_consistency(old, old_root, new, with_flipped_bit(new_root, bit), proof)
    assert not verifies_consistency(old, old_root, new, new_root, [*proof, new_root])
    if proof:
        assert not verifies_consistency(old, old_root, new, new_root, proof[:-1])
        position = data.draw(st.integers(0, len(proof) - 1))
        altered = list(proof)
        altered[position] = with_flipped_bit(altered[position], bit)
        assert not verifies_consistency(old, old_root, new, new_root, altered)


@given(growth(), st.integers(0, 12), st.booleans())
def test_an_altered_old_or_new_size_fails_wherever_it_alters_the_path(
    sizes: tuple[int, int], bit: int, alter_old: bool
) -> None:
    old, new = sizes
    proof = consistency_proof(LEAVES, old, new)
    other_old, other_new = (old ^ (1 << bit), new) if alter_old else (old, new ^ (1 << bit))
    accepted = verifies_consistency(
        other_old, tree_root(LEAVES, old), other_new, tree_root(LEAVES, new), proof
    )
    same_path = 0 < other_old <= other_new and (
        consistency_shape(other_old, other_new) == consistency_shape(old, new)
    )
    assert accepted is same_path


@given(growth(), st.integers(0, 299))
def test_a_log_that_rewrote_an_old_leaf_has_no_consistency_proof(
    sizes: tuple[int, int], index: int
) -> None:
    old, new = sizes
    rewritten = list(LEAVES)
    rewritten[index % old] = leaf_hash(b"something else")
    proof = consistency_proof(rewritten, old, new)
    assert not verifies_consistency(
        old, tree_root(LEAVES, old), new, tree_root(rewritten, new), proof
    )


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 5), (6, 5), (-1, 5)])
def test_a_consistency_proof_from_nothing_or_backwards_is_an_error(old: int, new: int) -> None:
    with pytest.raises(ProofInvalid, match=f"size {old} to size {new}"):
        consistency_proof(LEAVES, old, new)
    with pytest.raises(ProofInvalid, match=f"size {old} to size {new}"):
        verify_consistency(old, EMPTY_ROOT, new, tree_root(LEAVES, new), [])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (0, 301)])
def test_a_leaf_that_no_such_tree_has_is_an_error(index: int, size: int) -> None:
    with pytest.raises(ProofInvalid):
        inclusion_proof(LEAVES, index, size)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_hash_of_another_length_is_refused_wherever_it_stands(length: int) -> None:
    odd, root = bytes(length), tree_root(LEAVES, 2)
    assert not verifies_inclusion(odd, 0, 2, [LEAVES[1]], root)
    assert not verifies_inclusion(LEAVES[0], 0, 2, [odd], root)
    assert not verifies_inclusion(LEAVES[0], 0, 2, [LEAVES[1]], odd)
    assert not verifies_consistency(1, LEAVES[0], 2, odd, [LEAVES[1]])
    assert not verifies_consistency(1, odd, 2, root, [LEAVES[1]])
    with pytest.raises(ProofInvalid):
        Frontier().append(odd)


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_frontier_that_was_stored_and_restored_goes_on_as_if_nothing_had_been(
    first: int, second: int
) -> None:
    begin, end = sorted((first, second))
    earlier = Frontier()
    earlier.extend(LEAVES[:begin])
    restored = Frontier(earlier.size, earlier.hashes)
    restored.extend(LEAVES[begin:end])
    assert restored.size == end
    assert restored.root == mth([b"entry %d" % index for index in range(end)])
    assert earlier.size == begin, "the frontier that was stored has not moved"
    straight = Frontier()
    straight.extend(LEAVES[:end])
    assert straight == restored


def test_a_copied_frontier_grows_by_itself() -> None:
    frontier = Frontier()
    frontier.extend(LEAVES[:5])
    copied = frontier.copy()
    copied.append(LEAVES[5])
    frontier.hashes.clear()
    assert (frontier.size, frontier.root) == (5, tree_root(LEAVES, 5))
    assert (copied.size, copied.root) == (6, tree_root(LEAVES, 6))


@pytest.mark.parametrize(
    ("size", "hashes"), [(1, []), (0, [EMPTY_ROOT]), (3, LEAVES[:1]), (-1, []), (1, [b"short"])]
)
def test_a_frontier_whose_parts_do_not_fit_is_refused(size: int, hashes: list[bytes]) -> None:
    with pytest.raises(ProofInvalid):
        Frontier(size, hashes)
