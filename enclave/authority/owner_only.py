"""The simplest authority: what somebody owns is theirs alone."""

from __future__ import annotations

from collections.abc import Callable

from enclave.authority.authorizer import Action
from enclave.authority.principal import Principal
from enclave.errors import AccessDenied

__all__ = ["OwnerOnly"]


class OwnerOnly:
    """Only its owner may read or write an item; anybody may create one that nobody owns.

    ``owner_of(item, as_of)`` says who owned an item at a moment (nanoseconds of Unix time, or None
    for now), None for nobody; it is injected by whoever keeps the items. Every version of an item
    falls under the item's owner. Nothing else is considered: there is no superuser.

    >>> from enclave.authority import Action, Principal
    >>> authority = OwnerOnly(lambda item, as_of: Principal("alice"))
    >>> authority.authorize(Principal("alice"), Action.READ, "loans", None, None)
    >>> authority.authorize(Principal("bob"), Action.READ, "loans", None, None)
    Traceback (most recent call last):
    enclave.errors.AccessDenied: bob may not read loans: only its owner alice may
    """

    def __init__(self, owner_of: Callable[[str, int | None], Principal | None]) -> None:
        self._owner_of = owner_of

    def authorize(
        self,
        principal: Principal,
        action: Action,
        item: str,
        version: str | None,
        as_of: int | None,
    ) -> None:
        """Return when allowed, else raise ``AccessDenied`` with the rule that denied it."""
        action = Action(action)
        owner = self._owner_of(item, as_of)
        if owner == principal or (owner is None and action is Action.CREATE):
            return
        subject = item if version is None else f"version {version} of {item}"
        moment = "" if as_of is None else f" at {as_of} ns of Unix time"
        if owner is None:
            reason = f"nobody owned it{moment}" if moment else "nobody owns it"
            rule = "an item that has an owner"
            remedy = f"create {item} first"
        else:
            reason = f"only its owner {owner}{moment} may"
            rule = f"{action} by its owner"
            remedy = f"ask {owner} to do it, or act as {owner}"
        raise AccessDenied(
            f"{principal} may not {action} {subject}: {reason}",
            what=f"{principal} {action} {subject}",
            expected=rule,
            remedy=remedy,
        )
