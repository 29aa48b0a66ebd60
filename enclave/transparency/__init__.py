"""The hash tree over a log, its proofs, and the signed notes that publish its head."""

from enclave.transparency.checkpoints import Checkpoint, open_checkpoint, sign_checkpoint
from enclave.transparency.frontier import Frontier
from enclave.transparency.notes import NoteSignature, SignedNote, sign_note
from enclave.transparency.proofs import (
    consistency_proof,
    inclusion_proof,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from enclave.transparency.tree import EMPTY_ROOT, HASH_SIZE, leaf_hash, node_hash

__all__ = [
    "EMPTY_ROOT",
    "HASH_SIZE",
    "Checkpoint",
    "Frontier",
    "NoteSignature",
    "SignedNote",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "open_checkpoint",
    "sign_checkpoint",
    "sign_note",
    "tree_root",
    "verify_consistency",
    "verify_inclusion",
]
