"""Asking the authority: the one place in Ground where access is decided."""

from __future__ import annotations

from collections.abc import Callable

from enclave.authority import Action, Authorizer, Principal
from enclave.errors import AccessDenied
from ground.versions import Item

__all__ = ["Gate", "Owners"]


class Owners:
    """Who owns which item. An item's owner is who made it; that never changes, so it is kept.

    ``find(item)`` looks up ``(principal, since)``, or ``None`` for an item that is not there;
    ``settled()`` says whether what it finds is committed.
    """

    _KEPT = 100_000

    def __init__(
        self, find: Callable[[Item], tuple[str, int] | None], settled: Callable[[], bool]
    ) -> None:
        self._find = find
        self._settled = settled
        self._known: dict[str, tuple[Principal, int]] = {}

    def learn(self, item: Item, principal: str, since: int) -> None:
        """Keep what has been found, when it is committed."""
        name = str(item)
        if name not in self._known and self._settled():
            if len(self._known) >= self._KEPT:
                self._known.clear()
            self._known[name] = (Principal(principal), since)

    def owner_of(self, item: str, as_of: int | None) -> Principal | None:
        """Who owned the item written ``kind/name`` at a moment (unix nanoseconds, None for now)."""
        known = self._known.get(item)
        if known is None:
            parsed = Item.parse(item)
            found = self._find(parsed)
            if found is None:
                return None
            self.learn(parsed, *found)
            known = (Principal(found[0]), found[1])
        principal, since = known
        return principal if as_of is None or as_of >= since else None


class Gate:
    """What one principal may do, by the rules that held at ``as_of`` (None for those of now)."""

    def __init__(self, authorizer: Authorizer, principal: Principal, as_of: int | None) -> None:
        self.authorizer = authorizer
        self.principal = principal
        self.as_of = as_of

    def demand(self, action: Action, item: Item, version: str | None = None) -> None:
        """Return when it is allowed; raises ``enclave.AccessDenied`` when it is not."""
        self.authorizer.authorize(self.principal, action, str(item), version, self.as_of)

    def may_read(self, item: Item, version: str | None = None) -> bool:
        """Whether reading is allowed."""
        try:
            self.demand(Action.READ, item, version)
        except AccessDenied:
            return False
        return True
