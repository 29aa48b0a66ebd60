"""Versions are what they say: hashes, canonical content, names."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ground import (
    BadName,
    Ground,
    Item,
    NotCanonical,
    Ref,
    TooLarge,
    UnknownItem,
    UnknownVersion,
    Version,
)
from ground.canonical import canonical, parse
from ground.changes import EdgeAdded, ItemAdded, RefMoved, Transaction, VersionAdded
from ground.versions import Edge

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)
CONTENT = st.none() | st.dictionaries(st.text(), VALUES, max_size=4)
TAGS = st.dictionaries(
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=9),
    st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    max_size=3,
)
HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        # RFC 8785, appendix B
        (0.0, b"0"),
        (-0.0, b"0"),
        (5e-324, b"5e-324"),
        (-5e-324, b"-5e-324"),
        (1.7976931348623157e308, b"1.7976931348623157e+308"),
        (9007199254740992.0, b"9007199254740992"),
        (295147905179352830000.0, b"295147905179352830000"),
        (9.999999999999997e22, b"9.999999999999997e+22"),
        (1e23, b"1e+23"),
        (999999999999999700000.0, b"999999999999999700000"),
        (1e21, b"1e+21"),
        (0.000001, b"0.000001"),
        (9.999999999999997e-7, b"9.999999999999997e-7"),
        (333333333.3333332, b"333333333.3333332"),
        (1424953923781206.2, b"1424953923781206.2"),
    ],
)
def test_numbers_are_written_as_ecmascript_does(number: float, text: bytes) -> None:
    assert canonical(number) == text


def test_keys_are_ordered_by_utf16_code_units() -> None:
    keys = {"\ufb33": 3, "\U0001f600": 2, "a": 1}
    assert canonical(keys) == '{"a":1,"\U0001f600":2,"\ufb33":3}'.encode()


@given(VALUES)
def test_what_was_read_is_written_again_the_same(value: Any) -> None:
    document = canonical(value)
    assert canonical(parse(document)) == document
    assert json.loads(document) == json.loads(canonical(json.loads(json.dumps(value))))


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"auc": math.nan}, "model/m.content.auc"),
        ({"a": [1, {"b": math.inf}]}, "model/m.content.a[1].b"),
        ({"n": 2**53}, "model/m.content.n"),
        ({"b": b"bytes"}, "model/m.content.b"),
        ({"s": "\ud800"}, "model/m.content.s"),
        ({1: 2}, "model/m.content"),
    ],
)
def test_content_without_a_canonical_form_is_refused_by_its_place(
    content: dict[Any, Any], place: str
) -> None:
    with pytest.raises(NotCanonical) as refused:
        Version.of(Item("model", "m"), content=content)
    assert refused.value.what == place
    assert refused.value.remedy


def test_endless_nesting_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(NotCanonical):
        Version.of(Item("model", "m"), content=loop)


@given(CONTENT, TAGS, st.lists(HASHES, max_size=3), st.randoms())
def test_equal_content_is_one_hash_in_whatever_order_it_is_said(
    content: dict[str, Any] | None, tags: dict[str, Any], parents: list[str], random: Any
) -> None:
    item = Item("model", "m")
    one = Version.of(item, content=content, tags=tags, parents=tuple(parents))
    shuffled = dict(random.sample(sorted(tags.items()), len(tags)))
    random.shuffle(parents)
    assert Version.of(item, content=content, tags=shuffled, parents=tuple(parents)) == one
    assert one.hash == hashlib.sha256(one.document).hexdigest()
    assert Version.of_document(parse(one.document)) == one


def test_each_part_of_a_version_is_part_of_its_hash() -> None:
    said = [
        Version.of(Item("model", "m")),
        Version.of(Item("model", "n")),
        Version.of(Item("data", "m")),
        Version.of(Item("model", "m"), content={}),
        Version.of(Item("model", "m"), reference="objects/a"),
        Version.of(Item("model", "m"), tags={"a": 1}),
        Version.of(Item("model", "m"), tags={"a": True}),
        Version.of(Item("model", "m"), parents=("0" * 64,)),
    ]
    assert len({version.hash for version in said}) == len(said)


def test_a_change_to_what_was_parsed_does_not_reach_the_version() -> None:
    version = Version.of(Item("model", "m"), content={"depth": 3})
    document = version.document
    content = version.content
    assert content is not None
    content["depth"] = 4
    assert version.document == document
    assert version.hash == hashlib.sha256(document).hexdigest()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Item("Model", "m"),
        lambda: Item("model", ""),
        lambda: Item("model", "a\nb"),
        lambda: Item("model", "x" * 513),
        lambda: Item("mo/del", "m"),
        lambda: Ref(Item("model", "m"), "pro@duction"),
        lambda: Item.parse("model"),
        lambda: Ref.parse("model/m"),
        lambda: Version.of(Item("model", "m"), tags={"a": [1]}),  # type: ignore[dict-item]
        lambda: Version.of(Item("model", "m"), parents=("abc",)),
        lambda: Version.of(Item("model", "m"), content=[1]),  # type: ignore[arg-type]
    ],
)
def test_what_the_catalogue_cannot_hold_is_refused(make: Any) -> None:
    with pytest.raises(BadName) as refused:
        make()
    assert refused.value.what
    assert refused.value.expected
    assert refused.value.remedy


def test_names_may_hold_what_sql_quotes(ground: Ground) -> None:
    name = 'Robert\'); DROP TABLE version;-- % _ "x" @/ 日本'
    version = ground.version(ground.item("dataset", name), content={"'": "\0"}, tags={"'--": "%"})
    assert ground.find("dataset", name, tags={"'--": "%"}).entries == (version,)
    assert ground.find("dataset", "Robert%").entries == ()
    assert ground.find("dataset", name).entries[0].content == {"'": "\0"}
    ground.move(version.item.ref("main"), None, version)
    assert ground.resolve(f"dataset/{name}@main") == version


def test_a_large_version_is_refused() -> None:
    with pytest.raises(TooLarge):
        Version.of(Item("model", "m"), content={"weights": "0" * (1 << 20)})


def test_saying_it_again_is_the_same_version_and_no_event(ground: Ground, journal: Any) -> None:
    item = ground.item("model", "m")
    first = ground.version(item, content={"depth": 3}, tags={"stage": "trial"})
    events = len(journal.payloads)
    assert ground.item("model", "m") == item
    assert ground.version(item, content={"depth": 3.0}, tags={"stage": "trial"}) == first
    assert len(journal.payloads) == events
    assert ground.find().entries == (first,)


def test_a_version_needs_its_item_and_parents_of_it(ground: Ground) -> None:
    with pytest.raises(UnknownItem):
        ground.version(Item("model", "m"))
    other = ground.version(ground.item("model", "other"))
    item = ground.item("model", "m")
    for parent in (other.hash, "0" * 64):
        with pytest.raises(UnknownVersion):
            ground.version(item, parents=[parent])
    assert ground.find("model", "m").entries == ()


ITEMS = st.builds(Item, st.sampled_from(["model", "data"]), st.sampled_from(["a", "b/c@d", "é"]))
VERSIONS = st.builds(
    lambda item, content, tags: Version.of(item, content=content, tags=tags), ITEMS, CONTENT, TAGS
)
CHANGES = (
    st.builds(ItemAdded, ITEMS)
    | st.builds(VersionAdded, VERSIONS)
    | st.builds(
        EdgeAdded,
        st.builds(Edge, HASHES, HASHES, st.sampled_from(["used", "made"]), st.none() | HASHES),
    )
    | st.builds(
        RefMoved, st.builds(Ref, ITEMS, st.just("p")), st.none() | HASHES, st.none() | HASHES
    )
)


@given(st.lists(CHANGES, max_size=4), st.none() | HASHES, st.text(min_size=1))
def test_an_event_is_canonical_and_reads_back_as_the_same_transaction(
    changes: list[Any], after: str | None, principal: str
) -> None:
    made = Transaction(7, after, 1_700_000_000_000_000_001, principal, tuple(changes))
    assert canonical(parse(made.payload)) == made.payload
    assert Transaction.parse(made.payload) == made
