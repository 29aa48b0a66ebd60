"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Principal"]


@dataclass(frozen=True, order=True)
class Principal:
    """Somebody, or some program, that acts: two with the same ``name`` are the same one.

    How a caller came to be known by that name is for whoever made the principal to vouch for.
    Raises ``ValueError`` when the name is empty or has a control character.
    """

    name: str

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable():
            raise ValueError(f"a principal's name is non-empty, printable text, not {self.name!r}")

    def __str__(self) -> str:
        return self.name
