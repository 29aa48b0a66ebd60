"""The nouns of the catalogue: items, versions, references, edges and the moves of references.

They follow the metamodel of Ground (Hellerstein et al., CIDR 2017, section 3.3): an *item* is what
keeps its identity, a *version* is an immutable state of it, and versions form a DAG. Two
departures: a version is named by the hash of what it says (equal content is one version), and who
wrote it when is not part of it (see ``Origin``).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from ground.canonical import canonical, parse
from ground.errors import BadName, MalformedChange, TooLarge

__all__ = [
    "Edge",
    "Item",
    "Origin",
    "Page",
    "Ref",
    "RefMove",
    "Scalar",
    "Version",
    "checked_hash",
    "checked_role",
]

MAX_DOCUMENT_BYTES = 1 << 20
MAX_NAME_LENGTH = 512

Scalar = str | int | float | bool
Entry = TypeVar("Entry")

_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_HASH = re.compile(r"[0-9a-f]{64}")
_CONTROL = {"Cc", "Cs", "Zl", "Zp"}


@dataclass(frozen=True, order=True)
class Item:
    """What keeps its identity while it changes: a dataset, a model, a feature, a workflow.

    ``kind`` is lower-case letters, digits, ``_``, ``.`` and ``-`` (at most 64); ``name`` is any
    text of at most 512 characters without control characters. Raises ``BadName``.
    """

    kind: str
    name: str

    def __post_init__(self) -> None:
        _check(_KIND, self.kind, "kind", "lower-case letters, digits, '_', '.', '-'; at most 64")
        _check_text(self.name, "name")

    def ref(self, name: str) -> Ref:
        """The reference ``name`` (for example ``production``) of this item."""
        return Ref(self, name)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Item:
        """The item written ``kind/name``."""
        kind, slash, name = text.partition("/")
        if not slash:
            raise BadName(
                f"{text!r} names no item",
                what="item",
                expected="kind/name",
                remedy="write for example model/mortgage",
            )
        return cls(kind, name)


@dataclass(frozen=True, order=True)
class Ref:
    """A movable name of one of an item's versions: a branch or an alias such as ``production``."""

    item: Item
    name: str

    def __post_init__(self) -> None:
        _check(_REF, self.name, "reference", "letters, digits, '_', '.', '-'; at most 128")

    def __str__(self) -> str:
        return f"{self.item}@{self.name}"

    @classmethod
    def parse(cls, text: str) -> Ref:
        """The reference written ``kind/name@ref``."""
        item, at, name = text.rpartition("@")
        if not at:
            raise BadName(
                f"{text!r} names no reference",
                what="reference",
                expected="kind/name@ref",
                remedy="write for example model/mortgage@production",
            )
        return cls(Item.parse(item), name)


@dataclass(frozen=True)
class Version:
    """An immutable state of an item, known by the hash of its canonical document.

    ``hash`` is the SHA-256 (64 hex digits) of ``document``, the RFC 8785 form of the item's kind
    and name, the tags, the external reference, the content and the sorted hashes of the parents.
    """

    item: Item
    hash: str
    document: bytes = field(repr=False, compare=False)

    @classmethod
    def of(
        cls,
        item: Item,
        *,
        content: Mapping[str, Any] | None = None,
        reference: str | None = None,
        parents: tuple[str, ...] = (),
        tags: Mapping[str, Scalar] | None = None,
    ) -> Version:
        """The version that says this; ``parents`` are hashes.

        Raises ``NotCanonical``, ``BadName`` or ``TooLarge`` (more than 1 MiB: keep such content
        outside and give a ``reference`` to it).
        """
        if content is not None and not isinstance(content, Mapping):
            raise BadName(
                f"the content of {item} is a {type(content).__name__}",
                what="content",
                expected="a mapping with string keys, or None",
                remedy="wrap the value: {'value': …}",
            )
        for key, value in (tags or {}).items():
            _check_tag(key, value)
        if reference is not None:
            _check_text(reference, "reference", longest=4096)
        document = canonical(
            {
                "content": content,
                "item": {"kind": item.kind, "name": item.name},
                "parents": sorted({checked_hash(parent) for parent in parents}),
                "reference": reference,
                "tags": tags or {},
            },
            name=str(item),
        )
        if len(document) > MAX_DOCUMENT_BYTES:
            raise TooLarge(
                f"a version of {item} would take {len(document)} bytes",
                what=str(item),
                expected=f"at most {MAX_DOCUMENT_BYTES} bytes",
                remedy="keep the content as an object and give a reference to it",
            )
        return cls(item, hashlib.sha256(document).hexdigest(), document)

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Version:
        """The version of a parsed document, checked as a new one is; raises ``MalformedChange``."""
        if set(document) != {"content", "item", "parents", "reference", "tags"}:
            raise MalformedChange(
                "a version's document has other members than it should",
                what="version",
                expected="content, item, parents, reference, tags",
                remedy="verify the journal",
            )
        item = Item(**document["item"])
        return cls.of(
            item,
            content=document["content"],
            reference=document["reference"],
            parents=tuple(document["parents"]),
            tags=document["tags"],
        )

    @cached_property
    def _members(self) -> dict[str, Any]:
        members: dict[str, Any] = parse(self.document)
        return members

    @property
    def content(self) -> dict[str, Any] | None:
        """What the version says, as parsed JSON; ``None`` when it only refers."""
        content: dict[str, Any] | None = self._members["content"]
        return content

    @property
    def reference(self) -> str | None:
        """Where the bits are when they are elsewhere, for example ``objects/<sha256>``."""
        reference: str | None = self._members["reference"]
        return reference

    @property
    def parents(self) -> tuple[str, ...]:
        """The hashes of the versions that this one succeeds, sorted; two or more for a merge."""
        return tuple(self._members["parents"])

    @property
    def tags(self) -> dict[str, Scalar]:
        """The tags, by key."""
        tags: dict[str, Scalar] = self._members["tags"]
        return tags

    def __str__(self) -> str:
        return f"{self.item}:{self.hash[:12]}"


@dataclass(frozen=True)
class Origin:
    """Who brought something into the catalogue, and when.

    ``revision`` counts the catalogue's transactions from 1; ``at`` is unix time in nanoseconds,
    for information only.
    """

    revision: int
    at: int
    principal: str


@dataclass(frozen=True)
class Edge:
    """A lineage edge: ``target`` was made from, by or for ``source``, in the part ``role`` says.

    ``source``, ``target`` and ``workflow`` are version hashes; ``workflow`` is the version of the
    workflow that made the edge, when there was one.
    """

    source: str
    target: str
    role: str
    workflow: str | None = None


@dataclass(frozen=True)
class RefMove:
    """One move of a reference; ``old`` and ``new`` are version hashes, ``None`` for nowhere."""

    ref: Ref
    old: str | None
    new: str | None
    origin: Origin


@dataclass(frozen=True)
class Page(Generic[Entry]):
    """Some entries of an answer, and the ``cursor`` for the next page (``None`` at the end)."""

    entries: tuple[Entry, ...]
    cursor: str | None = None


def checked_hash(text: str) -> str:
    """``text`` when it is a whole version hash; raises ``BadName``."""
    _check(_HASH, text, "version hash", "64 lower-case hexadecimal digits")
    return text


def checked_role(text: str) -> str:
    """``text`` when it can be the role of an edge; raises ``BadName``."""
    _check(_KIND, text, "role", "lower-case letters, digits, '_', '.', '-'; at most 64")
    return text


def _check(pattern: re.Pattern[str], text: object, what: str, expected: str) -> None:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise BadName(
            f"{_shown(text)} is not a {what}",
            what=what,
            expected=expected,
            remedy=f"choose another {what}",
        )


def _check_text(text: object, what: str, *, longest: int = MAX_NAME_LENGTH) -> None:
    if (
        not isinstance(text, str)
        or not 0 < len(text) <= longest
        or not (text.isprintable() or _CONTROL.isdisjoint(map(unicodedata.category, text)))
    ):
        raise BadName(
            f"{_shown(text)} is not a {what}",
            what=what,
            expected=f"text of 1 to {longest} characters without control characters",
            remedy=f"choose another {what}",
        )


def _check_tag(key: object, value: object) -> None:
    _check_text(key, "tag")
    if not isinstance(value, (str, int, float, bool)):
        raise BadName(
            f"the tag {key!r} has a {type(value).__name__} for a value",
            what=str(key),
            expected="a string, number or boolean",
            remedy="put structured values into the content",
        )


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else shown[:77] + "…"
