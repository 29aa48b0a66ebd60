"""Signed notes and checkpoints against the specification's rules and notes that others signed."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave.errors import (
    EnclaveError,
    KeyInvalid,
    NoteInvalid,
    SignatureInvalid,
    SignerNotTrusted,
)
from enclave.keys import KeyRing, SigningKey, VerifyKey
from enclave.transparency import (
    EMPTY_ROOT,
    Checkpoint,
    NoteSignature,
    SignedNote,
    leaf_hash,
    open_checkpoint,
    sign_checkpoint,
    sign_note,
)

# The example of the Go package golang.org/x/mod/sumdb/note, with its published key pair.
GO_VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE = (
    f"{GO_TEXT}\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqd"
    "ngotpRZb6KE6RyyBwJnAM=\n"
).encode()

# The example of c2sp.org/signed-note, which is published without its key.
SPECIFICATION_NOTE = (
    "Ognuno sta solo sul cuor della terra\n"
    "trafitto da un raggio di sole:\n"
    "\n"
    "ed è subito sera.\n"
    "\n"
    "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrM"
    "ouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
).encode()

# The example of c2sp.org/tlog-checkpoint.
SPECIFICATION_CHECKPOINT = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Z"
    "hcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
).encode()

ORIGIN = "example.org/log/1"
KEY = SigningKey.generate("example.org/log")
OTHER_KEY = SigningKey.generate("example.net/witness")
CHECKPOINT = Checkpoint(ORIGIN, 5, leaf_hash(b"root"))


def test_a_note_that_go_signed_verifies() -> None:
    key = VerifyKey.parse(GO_VERIFIER)
    note = SignedNote.parse(GO_NOTE)
    assert note.text == GO_TEXT
    assert note.verify([key]) == (key,)
    assert bytes(note) == GO_NOTE


def test_the_same_key_signs_the_same_note_as_go() -> None:
    key = SigningKey.parse(GO_SIGNER)
    assert str(key.public) == GO_VERIFIER
    assert bytes(sign_note(GO_TEXT, key)) == GO_NOTE


def test_the_specification_s_example_is_read_as_it_is_described() -> None:
    note = SignedNote.parse(SPECIFICATION_NOTE)
    assert note.text.endswith("raggio di sole:\n\ned è subito sera.\n")
    [line] = note.signatures
    assert line.name == "quasimodo.example/salvatore"
    assert (line.key_id, len(line.signature)) == (0x367BA04B, 64)
    assert bytes(note) == SPECIFICATION_NOTE


def test_the_checkpoint_specification_s_example_is_read_as_it_is_described() -> None:
    note = SignedNote.parse(SPECIFICATION_CHECKPOINT)
    checkpoint = Checkpoint.from_text(note.text)
    assert checkpoint.origin == "example.com/behind-the-sofa"
    assert checkpoint.size == 20852163
    assert b64encode(checkpoint.root).decode() == "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
    assert checkpoint.text == note.text
    with pytest.raises(SignerNotTrusted, match=r"example\.com/behind-the-sofa"):
        note.verify([KEY.public])


def test_no_altered_bit_of_a_signed_checkpoint_is_accepted() -> None:
    genuine = sign_checkpoint(CHECKPOINT, KEY)
    assert open_checkpoint(genuine, [KEY.public], origin=ORIGIN) == CHECKPOINT
    for bit in range(8 * len(genuine)):
        altered = bytearray(genuine)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EnclaveError):
            open_checkpoint(bytes(altered), [KEY.public], origin=ORIGIN)


def test_no_truncated_checkpoint_is_accepted() -> None:
    genuine = sign_checkpoint(CHECKPOINT, KEY)
    for length in range(len(genuine)):
        with pytest.raises(EnclaveError):
            open_checkpoint(genuine[:length], [KEY.public], origin=ORIGIN)


def test_an_altered_text_is_told_from_an_untrusted_signer() -> None:
    altered = sign_checkpoint(CHECKPOINT, KEY).replace(b"\n5\n", b"\n4\n")
    with pytest.raises(SignatureInvalid, match=r"example\.org/log \(key [0-9a-f]{8}\)"):
        open_checkpoint(altered, [KEY.public], origin=ORIGIN)
    with pytest.raises(SignerNotTrusted, match=r"signed by example\.org/log"):
        open_checkpoint(altered, [OTHER_KEY.public], origin=ORIGIN)
    with pytest.raises(SignerNotTrusted):
        open_checkpoint(altered, KeyRing(), origin=ORIGIN)


def test_a_genuine_checkpoint_of_another_log_is_refused() -> None:
    data = sign_checkpoint(CHECKPOINT, KEY)
    with pytest.raises(NoteInvalid, match=r"not of 'example\.org/log/2'"):
        open_checkpoint(data, [KEY.public], origin="example.org/log/2")


def test_signatures_by_unknown_keys_are_ignored_and_by_known_ones_all_checked() -> None:
    note = sign_note("text\n", KEY, OTHER_KEY)
    both = KeyRing([KEY.public, OTHER_KEY.public])
    assert note.verify(both) == (KEY.public, OTHER_KEY.public)
    assert note.verify([OTHER_KEY.public]) == (OTHER_KEY.public,)
    forged = NoteSignature(KEY.name, KEY.key_id, OTHER_KEY.sign(b"text\n"))
    half_forged = SignedNote("text\n", (*note.signatures, forged))
    with pytest.raises(SignatureInvalid, match=r"example\.org/log"):
        half_forged.verify(both)
    assert half_forged.verify([OTHER_KEY.public]) == (OTHER_KEY.public,)


def test_a_key_of_the_same_name_is_not_the_same_key() -> None:
    namesake = SigningKey.generate(KEY.name)
    with pytest.raises(SignerNotTrusted):
        sign_note("text\n", KEY).verify([namesake.public])


def test_a_note_signed_again_by_the_same_key_has_one_signature_of_it() -> None:
    note = sign_note("text\n", KEY, OTHER_KEY)
    assert [line.name for line in note.signed_by(KEY).signatures] == [OTHER_KEY.name, KEY.name]


def test_sixteen_signatures_are_accepted_and_a_flood_is_not() -> None:
    line = sign_note("text\n", KEY).signatures[0]
    assert SignedNote.parse(bytes(SignedNote("text\n", (line,) * 16))).verify([KEY.public])
    with pytest.raises(NoteInvalid, match="101 signatures"):
        SignedNote.parse(bytes(SignedNote("text\n", (line,) * 101)))
    with pytest.raises(NoteInvalid, match="bytes, more than"):
        SignedNote.parse(bytes(SignedNote("x" * 1_000_000 + "\n", (line,))))


SIGNATURE = "— name " + b64encode(bytes(68)).decode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no blank line"),
        (b"text\n", "no blank line"),
        (b"text\n\n", "no blank line"),
        (f"text\n{SIGNATURE}\n".encode(), "no blank line"),
        (f"text\n\n{SIGNATURE}".encode(), "does not end in a newline"),
        (f"text\r\n\n{SIGNATURE}\n".encode(), "control character"),
        (f"te\x00xt\n\n{SIGNATURE}\n".encode(), "control character"),
        (b"te\xffxt\n\n" + f"{SIGNATURE}\n".encode(), "UTF-8 at byte 2"),
        (f"text\n\n{SIGNATURE}\nmore\n".encode(), "no signature line"),
        (f"text\n\n{SIGNATURE.replace('—', '-')}\n".encode(), "no signature line"),
        (f"text\n\n{SIGNATURE.replace('name', 'na+me')}\n".encode(), "no valid key name"),
        (f"text\n\n{SIGNATURE.replace('name', 'na me')}\n".encode(), "not base64"),
        ("text\n\n— na\u00a0me AAAAAAAA\n".encode(), "no valid key name"),
        (f"text\n\n{SIGNATURE.replace('name ', '')}\n".encode(), "no valid key name"),
        (f"text\n\n{SIGNATURE}\x07\n".encode(), "not base64"),
        ("text\n\n— name AAAAAA==\n".encode(), "too short"),
        ("text\n\n— name AAAAAAB=\n".encode(), "not canonical"),
        ("text\n\n— name \n".encode(), "too short"),
    ],
)
def test_what_breaks_a_rule_of_the_specification_is_no_note(data: bytes, reason: str) -> None:
    with pytest.raises(NoteInvalid, match=reason):
        SignedNote.parse(data)


@pytest.mark.parametrize("text", ["no newline", "", "tab\there\n", "half a pair \ud800\n"])
def test_a_text_that_cannot_stand_in_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(NoteInvalid):
        sign_note(text, KEY)


def test_a_note_without_signatures_has_no_written_form() -> None:
    with pytest.raises(NoteInvalid, match="no signature"):
        bytes(SignedNote("text\n"))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), min_size=1))
def test_every_text_comes_back_as_it_was_signed(text: str) -> None:
    written = bytes(sign_note(text + "\n", KEY))
    note = SignedNote.parse(written)
    assert note.text == text + "\n"
    assert note.verify([KEY.public]) == (KEY.public,)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_note_or_a_clear_error(data: bytes) -> None:
    try:
        note = SignedNote.parse(data)
    except NoteInvalid:
        return
    assert bytes(note) == data


ROOT = b64encode(leaf_hash(b"root")).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"origin\n5\n{ROOT}",
        "origin\n5\n",
        f"\n5\n{ROOT}\n",
        f"origin\n5\n{ROOT}\n\n",
        f"origin\n5\n{ROOT}\n\nextension\n",
        f"origin\n05\n{ROOT}\n",
        f"origin\n-5\n{ROOT}\n",
        f"origin\n+5\n{ROOT}\n",
        f"origin\n5 \n{ROOT}\n",
        f"origin\n\u0665\n{ROOT}\n",
        f"origin\n{2**64}\n{ROOT}\n",
        f"origin\n{'9' * 5000}\n{ROOT}\n",
        f"origin\n0\n{ROOT}\n",
        f"origin\n5\n{ROOT[:-4]}\n",
        f"origin\n5\n{ROOT[:-1]}\n",
        f"origin\n5\n {ROOT}\n",
        "origin\n5\n" + ROOT[:-2] + chr(ord(ROOT[-2]) + 1) + "=\n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteInvalid, match="not a checkpoint"):
        Checkpoint.from_text(text)


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.integers(1, 2**64 - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), max_size=3),
)
def test_every_checkpoint_comes_back_as_it_was_signed(
    origin: str, size: int, root: bytes, extensions: list[str]
) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    opened = open_checkpoint(sign_checkpoint(checkpoint, KEY), [KEY.public], origin=origin)
    assert opened == checkpoint


@pytest.mark.parametrize(
    "fields",
    [
        ("", 1, bytes(32), ()),
        ("two\nlines", 1, bytes(32), ()),
        ("origin", -1, bytes(32), ()),
        ("origin", 2**64, bytes(32), ()),
        ("origin", 1, bytes(31), ()),
        ("origin", 0, bytes(32), ()),
        ("origin", 1, bytes(32), ("",)),
    ],
)
def test_a_checkpoint_that_could_not_be_read_back_is_not_made(
    fields: tuple[str, int, bytes, tuple[str, ...]],
) -> None:
    with pytest.raises(NoteInvalid, match="not a checkpoint"):
        Checkpoint(*fields)


def test_the_empty_log_has_a_checkpoint() -> None:
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    assert open_checkpoint(sign_checkpoint(empty, KEY), [KEY.public], origin=ORIGIN) == empty


@pytest.mark.parametrize(
    "line",
    [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        GO_VERIFIER.replace("c74f20a3", "c74f20a4"),
        GO_VERIFIER.replace("c74f20a3", "C74F20A3"),
        GO_VERIFIER.replace("Peter", "Petra"),
        GO_VERIFIER.replace("+ARpc", "+AVpc"),
        GO_VERIFIER[:-4],
        GO_VERIFIER + "\n",
        "+c74f20a3+" + b64encode(b"\x01" + bytes(32)).decode(),
        "name+00000000+" + b64encode(b"\x02" + bytes(32)).decode(),
    ],
)
def test_an_altered_verifier_key_line_is_refused(line: str) -> None:
    with pytest.raises(KeyInvalid):
        VerifyKey.parse(line)


def test_a_private_key_pasted_as_a_verifier_key_is_not_quoted_back() -> None:
    with pytest.raises(KeyInvalid) as caught:
        VerifyKey.parse(GO_SIGNER)
    secret = GO_SIGNER.rpartition("+")[2]
    assert secret not in repr(caught.value)
    assert secret not in str(vars(caught.value))


def test_a_signature_of_another_length_or_message_does_not_verify() -> None:
    signature = KEY.sign(b"message")
    assert KEY.public.verifies(signature, b"message")
    assert not KEY.public.verifies(signature, b"massage")
    assert not KEY.public.verifies(signature[:-1], b"message")
    assert not KEY.public.verifies(b"", b"message")
    assert not OTHER_KEY.public.verifies(signature, b"message")


def test_the_key_in_a_verifier_line_is_the_32_bytes_of_the_curve_point() -> None:
    encoded = GO_VERIFIER.rpartition("+")[2]
    assert VerifyKey.parse(GO_VERIFIER).raw == b64decode(encoded)[1:]
