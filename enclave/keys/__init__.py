"""All key files, and the keys in them."""

from enclave.keys.key_directory import KeyDirectory
from enclave.keys.key_ring import KeyRing
from enclave.keys.signing_key import SigningKey
from enclave.keys.verify_key import VerifyKey

__all__ = ["KeyDirectory", "KeyRing", "SigningKey", "VerifyKey"]
