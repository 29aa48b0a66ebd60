"""The catalogue: what is known of data, models, code and who made what from what.

Modelled on Ground (Hellerstein et al., CIDR 2017): versioned items, lineage between any two
versions. Departures: versions are content-hashed, references move only by compare-and-set and every
move is kept, lineage is transitive in both directions, each read and step asks the authority, and
the journal is the truth (see ``ground.session``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from enclave.authority import Action, Authorizer, OwnerOnly, Principal
from ground.access import Gate, Owners
from ground.changes import Change, EdgeAdded, ItemAdded, RefMoved, VersionAdded
from ground.cursors import Cursor, checked_limit, mark_of
from ground.errors import (
    AmbiguousVersion,
    BadName,
    UnknownRef,
)
from ground.lineage import DecisionLineage, DecisionRecord, Direction, Lineage
from ground.versions import (
    Edge,
    Item,
    Origin,
    Page,
    Ref,
    RefMove,
    Scalar,
    Version,
    checked_hash,
    checked_role,
)

if TYPE_CHECKING:
    from ground.session import Session

__all__ = ["Ground"]

SHORTEST_PREFIX = 4
_CANDIDATES = 6

Entry = TypeVar("Entry")


class Ground:
    """A catalogue, open for one principal; made by ``Ground.open``, closed by ``close``.

    May be used from several threads; several processes may have the same catalogue open.

    >>> import tempfile
    >>> from enclave.authority import Principal
    >>> journal = []
    >>> with tempfile.TemporaryDirectory() as store:
    ...     with Ground.open(
    ...         f"{store}/ground.db",
    ...         append=lambda kind, payload: journal.append(payload),
    ...         principal=Principal("alice"),
    ...     ) as ground:
    ...         data = ground.version(ground.item("dataset", "loans"), content={"rows": 1989})
    ...         model = ground.version(ground.item("model", "mortgage"), content={"depth": 3})
    ...         edge = ground.link(data, model, "trained_on")
    ...         [str(node.item) for node in ground.up(model).nodes]
    ['model/mortgage', 'dataset/loans']
    """

    def __init__(self, session: Session, owners: Owners, gate: Gate) -> None:
        self._session = session
        self._owners = owners
        self._gate = gate

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        append: Callable[[int, bytes], object] | None,
        principal: Principal,
        authorizer: Authorizer | None = None,
        patience: float = 10.0,
    ) -> Self:
        """Open the catalogue in the file ``path``, for ``principal``.

        ``append(kind, payload)`` journals an event and returns when it is acknowledged; without it
        the catalogue is only read, and must exist. ``authorizer`` is asked about every access;
        without one, items are for their owners alone. ``patience`` is how many seconds to wait for
        another writer. Raises ``ForeignDatabase``, ``DatabaseTooNew``, ``DatabaseUnreadable`` or
        ``DatabaseLocked``.
        """
        # SQLAlchemy takes a quarter of a second to import: only who opens a catalogue pays that.
        from ground.database import Database
        from ground.session import Session

        database = Database(Path(path), read_only=append is None, patience=patience)
        session = Session(database, append)
        owners = Owners(session.ownership_of, session.settled)
        return cls(session, owners, Gate(authorizer or OwnerOnly(owners.owner_of), principal, None))

    @staticmethod
    def rebuild(path: str | os.PathLike[str], events: Iterable[bytes]) -> int:
        """Make the database at ``path``, where there must be none, from ``ground.change`` payloads.

        The events may come in any order and from several journals. Returns the number of
        transactions; the file appears when it is complete. Raises ``MalformedChange`` or
        ``JournalEventsMissing`` for events that do not make one history, and
        ``DatabaseUnreadable`` when there is a file already.
        """
        from ground.rebuilding import rebuild

        return rebuild(path, events)

    def acting_as(self, principal: Principal, *, rules_of: int | None = None) -> Ground:
        """The same catalogue for another principal.

        ``rules_of`` asks the authority by the rules that held at that moment (unix nanoseconds):
        what was this principal allowed then?
        """
        return Ground(self._session, self._owners, Gate(self._gate.authorizer, principal, rules_of))

    def close(self) -> None:
        """Close the catalogue, also for those that ``acting_as`` made from it."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def owner_of(self, item: str, as_of: int | None = None) -> Principal | None:
        """Who owns the item written ``kind/name``: what ``enclave.authority.OwnerOnly`` asks."""
        return self._owners.owner_of(item, as_of)

    # Changes

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make all changes of the block one transaction and one event of the journal.

        The block's own reads see them, nobody else's do before its end. An exception undoes all.
        Changes are tried together, so an unknown version or a cycle may be told only when the block
        reads, moves a reference or ends. Other writers wait meanwhile: keep batches short.
        """
        with self._session.transaction(self._gate.principal.name):
            yield

    def item(self, kind: str, name: str) -> Item:
        """The item of this kind and name, made if it is new and then owned by the principal.

        Raises ``BadName``, or ``enclave.AccessDenied``.
        """
        item = Item(kind, name)
        if self._owners.owner_of(str(item), None) is not None:
            self._gate.demand(Action.READ, item)
            return item
        self._gate.demand(Action.CREATE, item)
        self._change(ItemAdded(item))
        return item

    def version(
        self,
        item: Item,
        *,
        content: Mapping[str, Any] | None = None,
        reference: str | None = None,
        parents: Sequence[Version | str] = (),
        tags: Mapping[str, Scalar] | None = None,
    ) -> Version:
        """Add a version of ``item``; saying again what a version says gives that version.

        ``content`` is any RFC 8785 value with string keys; ``reference`` says where the bits are
        when they are elsewhere; ``parents`` are the versions of the same item that this one
        succeeds; ``tags`` are strings, numbers or booleans that ``find`` can ask for. Raises
        ``NotCanonical`` (NaN, infinity, foreign types), ``TooLarge``, ``BadName``, ``UnknownItem``,
        ``UnknownVersion`` (a parent) or ``enclave.AccessDenied``.
        """
        version = Version.of(
            item,
            content=content,
            reference=reference,
            parents=tuple(_hash(parent) for parent in parents),
            tags=tags,
        )
        self._demand_write(item)
        self._change(VersionAdded(version))
        return version

    def link(
        self,
        source: Version | str,
        target: Version | str,
        role: str,
        *,
        workflow: Version | str | None = None,
    ) -> Edge:
        """Say that ``target`` was made from, by or for ``source``, in the part ``role`` names.

        Roles are the field's own words: ``trained_on``, ``used``, ``computed_by``, ``evaluated``.
        ``workflow`` is the version of the workflow that did it. The same edge again is no change.
        Raises ``UnknownVersion``, ``CycleRefused``, ``BadName`` or ``enclave.AccessDenied``.
        """
        edge = Edge(
            _hash(source),
            _hash(target),
            checked_role(role),
            None if workflow is None else _hash(workflow),
        )
        with self._session.transaction(self._gate.principal.name) as transaction:
            for end in (source, workflow):
                if end is not None:
                    self._gate.demand(Action.READ, self._item_of(end), _hash(end))
            self._gate.demand(Action.WRITE, self._item_of(target), edge.target)
            transaction.add(EdgeAdded(edge))
        return edge

    def move(
        self, ref: Ref | str, expected: Version | str | None, new: Version | str | None
    ) -> RefMove:
        """Let ``ref`` point to ``new``, if it points to ``expected`` now (``None`` for nowhere).

        Raises ``CompareAndSetFailed`` when it was moved meanwhile, ``UnknownVersion`` when ``new``
        is no version of the reference's item, ``UnknownItem`` or ``enclave.AccessDenied``.
        """
        ref = _ref(ref)
        change = RefMoved(
            ref,
            None if expected is None else _hash(expected),
            None if new is None else _hash(new),
        )
        self._demand_write(ref.item)
        with self._session.transaction(self._gate.principal.name) as transaction:
            transaction.add(change)
            transaction.flush()
            return RefMove(ref, change.old, change.new, transaction.origin)

    def catch_up(self, events: Iterable[bytes]) -> int:
        """Apply those ``ground.change`` payloads that the database does not have; return how many.

        What a killed writer journalled and did not commit comes in this way. Raises
        ``JournalEventsMissing`` when the events do not lead on from the database.
        """
        return self._session.catch_up(events)

    # Questions

    def resolve(self, ref: Ref | str, *, at: int | None = None) -> Version:
        """The version that ``ref`` points to, or pointed to ``at`` a moment (unix nanoseconds).

        Raises ``UnknownRef`` when it points nowhere, or ``enclave.AccessDenied``.
        """
        from ground.lookup import ref_target
        from ground.reading import ref_target_at, versions_like

        ref = _ref(ref)
        self._gate.demand(Action.READ, ref.item)
        with self._session.reading() as connection:
            hash_ = (
                ref_target(connection, ref) if at is None else ref_target_at(connection, ref, at)
            )
            if hash_ is None:
                raise UnknownRef(
                    f"{ref} points nowhere" + ("" if at is None else f" at {at}"),
                    what=str(ref),
                    expected="a reference that was moved to a version",
                    remedy="move it: ground.move(ref, None, version)",
                )
            (version,) = versions_like(connection, hash_, 1)
        self._gate.demand(Action.READ, version.item, version.hash)
        return version

    def version_by_hash(self, prefix: str) -> Version:
        """The version whose hash begins so (4 to 64 hexadecimal digits).

        Raises ``UnknownVersion``, ``AmbiguousVersion``, ``BadName`` or ``enclave.AccessDenied``.
        """
        from ground.lookup import unknown_version
        from ground.reading import versions_like

        prefix = _checked_prefix(prefix)
        with self._session.reading() as connection:
            found = versions_like(connection, prefix, _CANDIDATES)
        if not found:
            raise unknown_version(prefix, "the first digits of the hash of a version")
        if len(found) == 1:
            self._gate.demand(Action.READ, found[0].item, found[0].hash)
            return found[0]
        raise AmbiguousVersion(
            f"several versions have a hash that begins with {prefix}",
            candidates=tuple(version.hash for version in found),
            what=prefix,
        )

    def origin(self, version: Version | str) -> Origin:
        """Who brought a version into the catalogue, and when.

        Raises ``UnknownVersion`` or ``enclave.AccessDenied``.
        """
        from ground.lookup import unknown_version
        from ground.reading import origin_of

        hash_ = _hash(version)
        self._gate.demand(Action.READ, self._item_of(version), hash_)
        with self._session.reading() as connection:
            origin = origin_of(connection, hash_)
        if origin is None:
            raise unknown_version(hash_, "the hash of a version in the catalogue")
        return origin

    def items(
        self, kind: str | None = None, *, limit: int = 1000, cursor: str | None = None
    ) -> Page[Item]:
        """The items that the principal may read, oldest first."""
        from ground.reading import find_items

        mark = mark_of("items", kind)
        after = Cursor.parse(cursor, mark).position if cursor else 0
        with self._session.reading() as connection:
            rows = find_items(connection, kind=kind, after=after, limit=checked_limit(limit) + 1)
        return _page(rows, limit, mark, lambda item: self._gate.may_read(item))

    def find(
        self,
        kind: str | None = None,
        name: str | None = None,
        *,
        tags: Mapping[str, Scalar] | None = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Page[Version]:
        """The versions that the principal may read and that match all that is given, newest first.

        A page may hold fewer than ``limit`` versions and still have a next: those that may not be
        read are left out of it.
        """
        from ground.reading import find_versions

        mark = mark_of("find", kind, name, sorted((tags or {}).items()))
        with self._session.reading() as connection:
            rows = find_versions(
                connection,
                kind=kind,
                name=name,
                tags=tags or {},
                before=Cursor.parse(cursor, mark).position if cursor else None,
                limit=checked_limit(limit) + 1,
            )
        return _page(
            rows, limit, mark, lambda version: self._gate.may_read(version.item, version.hash)
        )

    def history(
        self, ref: Ref | str, *, limit: int = 1000, cursor: str | None = None
    ) -> Page[RefMove]:
        """The moves of a reference, newest first: which model was in production when."""
        from ground.reading import moves_of

        ref = _ref(ref)
        self._gate.demand(Action.READ, ref.item)
        mark = mark_of("history", ref)
        before = Cursor.parse(cursor, mark).position if cursor else None
        with self._session.reading() as connection:
            rows = moves_of(connection, ref, before=before, limit=checked_limit(limit) + 1)
        return _page(rows, limit, mark, lambda move: True)

    def up(
        self,
        version: Version | str,
        *,
        depth: int | None = None,
        roles: Sequence[str] = (),
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Lineage:
        """What ``version`` was made from, to ``depth`` steps (``None`` for all), nearest first.

        ``roles`` restricts the walk to edges of these roles; ``limit`` is the most versions on a
        page. Versions that the principal may not read stand in the graph as hashes. Raises
        ``UnknownVersion``, ``BadCursor``, or ``enclave.AccessDenied`` for ``version`` itself.
        """
        return self._walk([_hash(version)], "up", depth, roles, limit, cursor)

    def down(
        self,
        version: Version | str,
        *,
        depth: int | None = None,
        roles: Sequence[str] = (),
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Lineage:
        """What was made from ``version``; the arguments and errors are those of ``up``."""
        return self._walk([_hash(version)], "down", depth, roles, limit, cursor)

    def why(
        self,
        decision: DecisionRecord,
        *,
        depth: int | None = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> DecisionLineage:
        """What is behind a decision: the versions that its record names and what they came from.

        Versions that the record names and the catalogue does not have are ``missing``. Raises
        ``BadName`` when the record names something that is no hash, or ``BadCursor``.
        """
        from ground.lookup import version_ids

        named = [checked_hash(hash_) for hash_ in dict.fromkeys(decision.versions)]
        with self._session.reading() as connection:
            known = version_ids(connection, named)
        roots = [hash_ for hash_ in named if hash_ in known]
        return DecisionLineage(
            id=decision.id,
            name=decision.name,
            inputs=dict(decision.inputs),
            lineage=self._walk(roots, "up", depth, (), limit, cursor, demand_roots=False),
            missing=tuple(hash_ for hash_ in named if hash_ not in known),
        )

    def _walk(
        self,
        roots: Sequence[str],
        direction: Direction,
        depth: int | None,
        roles: Sequence[str],
        limit: int,
        cursor: str | None,
        *,
        demand_roots: bool = True,
    ) -> Lineage:
        from ground.walking import walk

        with self._session.reading() as connection:
            return walk(
                connection,
                self._gate,
                self._owners,
                roots,
                direction=direction,
                depth=depth,
                roles=roles,
                limit=limit,
                cursor=cursor,
                demand_roots=demand_roots,
            )

    def _change(self, change: Change) -> None:
        with self._session.transaction(self._gate.principal.name) as transaction:
            transaction.add(change)

    def _demand_write(self, item: Item) -> None:
        from ground.lookup import unknown_item

        if self._owners.owner_of(str(item), None) is None:
            raise unknown_item(item)
        self._gate.demand(Action.WRITE, item)

    def _item_of(self, version: Version | str) -> Item:
        if isinstance(version, Version):
            return version.item
        from ground.lookup import unknown_version
        from ground.reading import versions_like

        with self._session.reading() as connection:
            found = versions_like(connection, checked_hash(version), 1)
        if not found:
            raise unknown_version(version, "the hash of a version in the catalogue")
        return found[0].item


def _hash(version: Version | str) -> str:
    return version.hash if isinstance(version, Version) else checked_hash(version)


def _ref(ref: Ref | str) -> Ref:
    return ref if isinstance(ref, Ref) else Ref.parse(ref)


def _checked_prefix(prefix: str) -> str:
    lowered = prefix.lower() if isinstance(prefix, str) else ""
    if not SHORTEST_PREFIX <= len(lowered) <= 64 or set(lowered) - set("0123456789abcdef"):
        raise BadName(
            f"{prefix!r} begins no version hash",
            what="version hash",
            expected=f"{SHORTEST_PREFIX} to 64 hexadecimal digits",
            remedy="look the version up: ground.find(kind, name)",
        )
    return lowered


def _page(
    rows: Sequence[tuple[int, Entry]], limit: int, mark: bytes, readable: Callable[[Entry], bool]
) -> Page[Entry]:
    page = rows[:limit]
    return Page(
        tuple(entry for _, entry in page if readable(entry)),
        str(Cursor(mark, page[-1][0], 0)) if len(rows) > limit else None,
    )
