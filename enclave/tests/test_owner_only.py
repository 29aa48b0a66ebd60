"""What the owner-only authority allows, and how it explains what it does not."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave.authority import Action, Authorizer, OwnerOnly, Principal
from enclave.errors import AccessDenied

ALICE, BOB = Principal("alice"), Principal("bob")
SOLD_AT = 1_700_000_000_000_000_000


def owner_of(item: str, as_of: int | None) -> Principal | None:
    """``loans`` is alice's; ``house`` was alice's until she sold it to bob."""
    if item == "loans":
        return ALICE
    if item == "house":
        return ALICE if as_of is not None and as_of < SOLD_AT else BOB
    return None


AUTHORITY = OwnerOnly(owner_of)


def test_it_is_an_authorizer() -> None:
    assert isinstance(AUTHORITY, Authorizer)


@given(
    st.sampled_from([ALICE, BOB, Principal("carol")]),
    st.sampled_from(Action),
    st.sampled_from(["loans", "house", "nothing"]),
    st.none() | st.just("c0ffee"),
    st.none() | st.sampled_from([SOLD_AT - 1, SOLD_AT]),
)
def test_the_owner_may_and_nobody_else_may(
    principal: Principal, action: Action, item: str, version: str | None, as_of: int | None
) -> None:
    owner = owner_of(item, as_of)
    allowed = principal == owner or (owner is None and action == "create")
    try:
        AUTHORITY.authorize(principal, action, item, version, as_of)
    except AccessDenied:
        assert not allowed
    else:
        assert allowed


def test_a_denial_says_who_what_and_why() -> None:
    with pytest.raises(AccessDenied) as caught:
        AUTHORITY.authorize(BOB, Action.WRITE, "loans", "c0ffee", None)
    assert str(caught.value) == (
        "bob may not write version c0ffee of loans: only its owner alice may"
    )
    assert caught.value.what == "bob write version c0ffee of loans"
    assert caught.value.expected == "write by its owner"
    assert caught.value.remedy == "ask alice to do it, or act as alice"


def test_a_denial_at_an_earlier_moment_names_the_owner_of_then() -> None:
    AUTHORITY.authorize(BOB, Action.READ, "house", None, None)
    with pytest.raises(AccessDenied, match=f"only its owner alice at {SOLD_AT - 1} ns"):
        AUTHORITY.authorize(BOB, Action.READ, "house", None, SOLD_AT - 1)


def test_what_nobody_owns_can_only_be_created() -> None:
    AUTHORITY.authorize(BOB, Action.CREATE, "nothing", None, None)
    with pytest.raises(AccessDenied, match="bob may not read nothing: nobody owns it"):
        AUTHORITY.authorize(BOB, Action.READ, "nothing", None, None)
    with pytest.raises(AccessDenied, match="bob may not create loans: only its owner alice may"):
        AUTHORITY.authorize(BOB, Action.CREATE, "loans", None, None)


def test_an_action_that_does_not_exist_is_an_error_even_for_the_owner() -> None:
    with pytest.raises(ValueError, match="devour"):
        AUTHORITY.authorize(ALICE, "devour", "loans", None, None)


@pytest.mark.parametrize("name", ["", "two\nlines", "bell\x07"])
def test_a_principal_s_name_can_be_printed(name: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        Principal(name)


def test_a_principal_does_not_change_and_is_known_by_its_name() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALICE.name = "bob"
    assert Principal("alice") == ALICE
    assert len({ALICE, BOB, Principal("alice")}) == 2
