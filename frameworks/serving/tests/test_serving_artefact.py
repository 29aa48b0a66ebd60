"""The store of artefacts: whole files under their digests, and signatures beside them."""

import hashlib
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enclave.keys import KeyRing, SigningKey
from frameworks.serving import ArtefactCorrupt, ArtefactMissing, ArtefactRefused


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=2000))
def test_what_is_stored_is_found_under_its_digest(store, data):
    digest = store.write(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert digest in store
    assert store.read(digest) == data
    assert store.path(digest) == store.directory / digest[:2] / digest[2:]


def test_many_threads_may_store_the_same_artefact(store):
    data = bytes(200_000)
    begin = threading.Barrier(8)
    digests = []

    def write():
        begin.wait()
        digests.append(store.write(data))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(digests)) == 1
    assert store.read(digests[0]) == data
    assert [path.name for path in store.path(digests[0]).parent.iterdir()] == [digests[0][2:]]


def test_a_missing_artefact_is_named_with_what_to_do(store):
    digest = "ab" * 32
    with pytest.raises(ArtefactMissing, match=digest) as missing:
        store.read(digest)
    assert "register the model again" in missing.value.remedy
    assert digest not in store


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "AB" * 32, "ab" * 31, "ab" * 33])
def test_only_a_digest_becomes_a_path(store, digest):
    with pytest.raises(ArtefactMissing):
        store.path(digest)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"X" + data[1:]])
def test_a_damaged_artefact_is_refused_and_can_be_stored_again(store, damage):
    digest = store.write(b"the weights")
    path = store.path(digest)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtefactCorrupt, match=digest) as corrupt:
        store.read(digest)
    assert str(path) in corrupt.value.remedy
    assert store.write(b"the weights") == digest
    assert store.read(digest) == b"the weights"


def test_a_failed_write_leaves_nothing_behind(store, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write(b"the weights")
    monkeypatch.undo()
    assert [path for path in store.directory.rglob("*") if path.is_file()] == []
    assert store.read(store.write(b"the weights")) == b"the weights"


def test_a_signature_names_the_trusted_key_that_made_it(store, key, trusted):
    digest = store.write(b"the weights")
    assert store.signer(digest, "torch", trusted) is None
    store.sign(digest, "torch", key)
    store.sign(digest, "torch", key)
    assert store.signer(digest, "torch", trusted) == key.name
    assert len(store.path(digest).with_name(digest[2:] + ".sig").read_text().splitlines()) == 1


def test_a_signature_of_a_stranger_does_not_count_but_does_no_harm(store, key, trusted):
    digest = store.write(b"the weights")
    store.sign(digest, "torch", SigningKey.generate("example.org/stranger"))
    assert store.signer(digest, "torch", trusted) is None
    with pytest.raises(ArtefactRefused, match=digest) as refused:
        store.require_signer(digest, "torch", trusted, "it is a program")
    assert "it is a program" in str(refused.value)
    store.sign(digest, "torch", key)
    assert store.require_signer(digest, "torch", trusted, "it is a program") == key.name
    with pytest.raises(ArtefactRefused):
        store.require_signer(digest, "torch", KeyRing(), "it is a program")


def test_a_signature_over_another_format_or_artefact_is_an_error(store, key, trusted):
    one, two = store.write(b"one"), store.write(b"two")
    store.sign(one, "torch", key)
    with pytest.raises(ArtefactCorrupt, match="something else"):
        store.signer(one, "sklearn", trusted)
    signatures = store.path(one).with_name(one[2:] + ".sig").read_bytes()
    store.path(two).with_name(two[2:] + ".sig").write_bytes(signatures)
    with pytest.raises(ArtefactCorrupt, match=two):
        store.signer(two, "torch", trusted)


@pytest.mark.parametrize("text", [b"nonsense\n", b"\xff\xfe", b"a+00000000 !!!\n"])
def test_a_file_of_signatures_that_holds_anything_else_is_an_error(store, trusted, text):
    digest = store.write(b"the weights")
    store.path(digest).with_name(digest[2:] + ".sig").write_bytes(text)
    with pytest.raises(ArtefactCorrupt, match=digest):
        store.signer(digest, "torch", trusted)


def test_a_damaged_artefact_is_not_signed(store, key):
    digest = store.write(b"the weights")
    store.path(digest).write_bytes(b"other weights")
    with pytest.raises(ArtefactCorrupt):
        store.sign(digest, "torch", key)
    assert not store.path(digest).with_name(digest[2:] + ".sig").exists()
