"""Signed notes: a text and the signatures under it.

Follows C2SP signed-note v1 (https://c2sp.org/signed-note) with its Ed25519 signature type, so that
the notes are read by Go's ``sumdb/note``, by witnesses and by monitors. One departure, to the
strict side: base64 must be in its one canonical form, so that a note has one form in bytes.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, replace

from enclave.errors import NoteInvalid, SignatureInvalid, SignerNotTrusted
from enclave.keys.names import is_key_name
from enclave.keys.signing_key import SigningKey
from enclave.keys.verify_key import VerifyKey

__all__ = ["NoteSignature", "SignedNote", "sign_note"]

MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100

_DASH = "\u2014 "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True)
class NoteSignature:
    """A signature line: who claims to have signed (``name``, 32-bit ``key_id``), and the bytes."""

    name: str
    key_id: int
    signature: bytes

    def __str__(self) -> str:
        payload = self.key_id.to_bytes(4, "big") + self.signature
        return f"{_DASH}{self.name} {b64encode(payload).decode()}"


@dataclass(frozen=True)
class SignedNote:
    """A text that ends in a newline, and its signatures, **not** verified by being parsed.

    Use ``verify`` before believing the text. ``bytes(note)`` is its written form. Raises
    ``NoteInvalid`` when the text cannot stand in a note.

    >>> from enclave.keys import SigningKey
    >>> key = SigningKey.generate("example.org/log")
    >>> note = sign_note("four words of text\\n", key)
    >>> SignedNote.parse(bytes(note)).verify([key.public]) == (key.public,)
    True
    """

    text: str
    signatures: tuple[NoteSignature, ...] = ()

    def __post_init__(self) -> None:
        if not self.text.endswith("\n"):
            raise _invalid("its text does not end in a newline")
        if _CONTROL.search(self.text):
            raise _invalid("its text has a control character other than newline")
        try:
            self.text.encode()
        except UnicodeEncodeError:
            raise _invalid("its text cannot be written in UTF-8") from None

    @classmethod
    def parse(cls, data: bytes) -> SignedNote:
        """Read a note in its written form; raises ``NoteInvalid`` and says which rule it breaks."""
        if len(data) > MAX_NOTE_BYTES:
            raise _invalid(f"it has {len(data)} bytes, more than {MAX_NOTE_BYTES}")
        try:
            written = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _invalid(f"it is not UTF-8 at byte {error.start}") from None
        text, blank, tail = written.rpartition("\n\n")
        if not blank or not tail:
            raise _invalid("no blank line with signatures after it")
        if not tail.endswith("\n"):
            raise _invalid("its last line does not end in a newline")
        lines = tail[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise _invalid(f"it has {len(lines)} signatures, more than {MAX_SIGNATURES}")
        return cls(text + "\n", tuple(_parse_signature(line) for line in lines))

    def verify(self, trusted: Iterable[VerifyKey]) -> tuple[VerifyKey, ...]:
        """The trusted keys that signed the text, in the order of the lines; at least one.

        Signatures by unknown keys are ignored, as the specification demands. Raises
        ``SignatureInvalid`` when one that claims to be by a trusted key is not, and
        ``SignerNotTrusted`` when no trusted key signed.
        """
        known = {(key.name, key.key_id): key for key in trusted}
        signers: dict[VerifyKey, None] = {}
        for line in self.signatures:
            key = known.get((line.name, line.key_id))
            if key is None:
                continue
            if not key.verifies(line.signature, self.text.encode()):
                raise SignatureInvalid(
                    f"the signature of {line.name} (key {line.key_id:08x}) does not fit the text",
                    what=line.name,
                    expected="the text exactly as it was signed",
                    remedy="the note was altered: get it again from where it was published",
                )
            signers[key] = None
        if not signers:
            named = ", ".join(f"{line.name}+{line.key_id:08x}" for line in self.signatures)
            raise SignerNotTrusted(
                f"no trusted key signed this note; it is signed by {named or 'nobody'}",
                what=named,
                expected="a signature by one of " + (", ".join(map(_label, known)) or "no key"),
                remedy="get the signer's verifier key from a place you trust, and trust it",
            )
        return tuple(signers)

    def signed_by(self, *keys: SigningKey) -> SignedNote:
        """This note, signed by each key as well; an earlier signature by it is replaced."""
        message = self.text.encode()
        added = tuple(NoteSignature(key.name, key.key_id, key.sign(message)) for key in keys)
        replaced = {(line.name, line.key_id) for line in added}
        kept = tuple(line for line in self.signatures if (line.name, line.key_id) not in replaced)
        return replace(self, signatures=kept + added)

    def __bytes__(self) -> bytes:
        if not self.signatures:
            raise _invalid("it has no signature")
        lines = "".join(f"{line}\n" for line in self.signatures)
        return f"{self.text}\n{lines}".encode()


def sign_note(text: str, *keys: SigningKey) -> SignedNote:
    """The note over ``text`` (which ends in a newline), signed by each of ``keys``."""
    return SignedNote(text).signed_by(*keys)


def _parse_signature(line: str) -> NoteSignature:
    if not line.startswith(_DASH):
        raise _invalid("a line after the blank line is no signature line")
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not space or not is_key_name(name):
        raise _invalid("a signature line has no valid key name")
    try:
        payload = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(f"the signature of {name} is not base64") from None
    if len(payload) <= 4 or b64encode(payload).decode() != encoded:
        raise _invalid(f"the signature of {name} is too short or not canonical base64")
    return NoteSignature(name, int.from_bytes(payload[:4], "big"), payload[4:])


def _label(key: tuple[str, int]) -> str:
    return f"{key[0]}+{key[1]:08x}"


def _invalid(reason: str) -> NoteInvalid:
    return NoteInvalid(
        f"not a signed note: {reason}",
        what=reason,
        expected="text, a blank line, and signature lines as in c2sp.org/signed-note",
        remedy="get the note again from where it was published",
    )
