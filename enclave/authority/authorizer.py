"""The one access hook: every read, write and traversal step asks it."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol, runtime_checkable

from enclave.authority.principal import Principal

__all__ = ["Action", "Authorizer"]


class Action(StrEnum):
    """What a principal may want to do with an item."""

    CREATE = "create"
    """Make an item that does not exist yet, and own it from then on."""

    READ = "read"
    """See an item, any of its versions, or that an edge leads to them."""

    WRITE = "write"
    """Add a version, an edge or a tag, or move a reference."""


@runtime_checkable
class Authorizer(Protocol):
    """Decides on access; what it does not allow, it denies. Called from several threads."""

    def authorize(
        self,
        principal: Principal,
        action: Action,
        item: str,
        version: str | None,
        as_of: int | None,
    ) -> None:
        """Return when ``principal`` may do ``action`` on ``item``, else raise ``AccessDenied``.

        ``item`` is the item's name; ``version`` the content hash of the one meant (hexadecimal),
        or None for the item as a whole; ``as_of`` the moment whose rules hold, in nanoseconds of
        Unix time, or None for now.
        """
        ...
