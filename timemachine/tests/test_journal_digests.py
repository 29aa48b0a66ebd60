"""The journal's own hashing against the standard library's, and against published vectors."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave.transparency import EMPTY_ROOT, Frontier, leaf_hash, tree_root
from timemachine.journal.digest import crc32c, hmac_sha256, sha256
from timemachine.journal.frontier import LeafFrontier

PATHS = pytest.mark.parametrize("portable", [False, True], ids=["best", "portable"])


def crc32c_by_bits(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@PATHS
@pytest.mark.parametrize(
    ("message", "digest"),
    [  # FIPS 180-4 examples
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ],
)
def test_sha256_gives_the_published_vectors(message: bytes, digest: str, portable: bool) -> None:
    assert sha256(message, portable=portable).hex() == digest


@PATHS
def test_sha256_equals_hashlib_at_every_length_around_the_blocks(portable: bool) -> None:
    data = bytes(range(256)) * 2
    for n in range(300):
        assert sha256(data[:n], portable=portable) == hashlib.sha256(data[:n]).digest()


@PATHS
@given(parts=st.lists(st.binary(max_size=200), max_size=6))
def test_sha256_of_parts_is_that_of_their_concatenation(parts: list[bytes], portable: bool) -> None:
    assert sha256(*parts, portable=portable) == hashlib.sha256(b"".join(parts)).digest()


@PATHS
@given(key=st.binary(max_size=64), data=st.binary(max_size=400))
def test_hmac_equals_the_standard_librarys(key: bytes, data: bytes, portable: bool) -> None:
    assert hmac_sha256(key, data, portable=portable) == hmac.digest(key, data, "sha256")


def test_hmac_refuses_a_key_longer_than_a_block() -> None:
    with pytest.raises(ValueError, match="65"):
        hmac_sha256(bytes(65), b"")


@PATHS
@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, section B.4
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_crc32c_gives_the_published_vectors(data: bytes, crc: int, portable: bool) -> None:
    assert crc32c(data, portable=portable) == crc


@PATHS
@given(data=st.binary(max_size=100), cut=st.integers(0, 100))
def test_crc32c_equals_the_definition_and_goes_on_from_a_part(
    data: bytes, cut: int, portable: bool
) -> None:
    assert crc32c(data, portable=portable) == crc32c_by_bits(data)
    first = crc32c(data[:cut], portable=portable)
    assert crc32c(data[cut:], first, portable=portable) == crc32c(data, portable=portable)


def test_the_frontier_in_c_is_that_of_enclave_transparency() -> None:
    ours, theirs = LeafFrontier(), Frontier()
    leaves = [leaf_hash(bytes([i])) for i in range(130)]
    assert ours.root == EMPTY_ROOT
    for i, leaf in enumerate(leaves):
        ours.extend(leaf)
        theirs.append(leaf)
        assert (ours.size, list(ours.hashes), ours.root) == (i + 1, theirs.hashes, theirs.root)
        assert ours.root == tree_root(leaves[: i + 1])


def test_a_frontier_goes_on_from_its_hashes() -> None:
    leaves = b"".join(leaf_hash(bytes([i])) for i in range(77))
    whole, part = LeafFrontier(), LeafFrontier()
    whole.extend(leaves)
    part.extend(leaves[: 32 * 50])
    continued = LeafFrontier(part.size, part.hashes)
    continued.extend(leaves[32 * 50 :])
    assert continued.root == whole.root
    copy = part.copy()
    copy.extend(leaves[32 * 50 :])
    assert (copy.root, part.size) == (whole.root, 50)


def test_a_frontier_refuses_hashes_that_are_none_of_its_size() -> None:
    with pytest.raises(ValueError, match="no frontier of 3"):
        LeafFrontier(3, [bytes(32)])
    with pytest.raises(ValueError, match="31 bytes"):
        LeafFrontier(1, [bytes(31)])
    with pytest.raises(ValueError, match="whole number"):
        LeafFrontier().extend(bytes(33))
