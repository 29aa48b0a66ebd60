"""Lineage: up, down, cursors, cycles, and why a decision came out as it did."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enclave.authority import Action, Principal
from enclave.errors import AccessDenied
from ground import BadCursor, CycleRefused, Ground, MixedBatch, UnknownVersion, Version
from ground.lineage import Lineage


def _versions(ground: Ground, count: int) -> list[Version]:
    item = ground.item("step", "s")
    with ground.batch():
        return [ground.version(item, content={"n": n}) for n in range(count)]


def _closure(edges: set[tuple[int, int]], start: int, up: bool) -> dict[int, int]:
    """Distances by a plain breadth-first search: what the database must answer."""
    depths = {start: 0}
    frontier = [start]
    while frontier:
        following = []
        for node in frontier:
            for source, target in edges:
                near, far = (target, source) if up else (source, target)
                if near == node and far not in depths:
                    depths[far] = depths[node] + 1
                    following.append(far)
        frontier = following
    return depths


def test_lineage_shows_who_made_what_from_what_by_which_workflow(ground: Ground) -> None:
    data = ground.version(ground.item("dataset", "loans"), content={"rows": 1989})
    training = ground.version(ground.item("workflow", "training"), content={"code": "abc"})
    model = ground.version(ground.item("model", "mortgage"), content={"depth": 3})
    ground.link(data, model, "trained_on", workflow=training)
    lineage = ground.up(model)
    assert [str(node.item) for node in lineage.nodes] == ["model/mortgage", "dataset/loans"]
    assert [node.depth for node in lineage.nodes] == [0, 1]
    (edge,) = lineage.edges
    assert (edge.source, edge.target, edge.role) == (data.hash, model.hash, "trained_on")
    assert edge.workflow == training.hash
    assert [node.item for node in lineage.workflows] == [training.item]
    assert list(lineage.lines()) == [
        f"model/mortgage {model.hash[:12]}",
        f"  trained_on [workflow/training {training.hash[:12]}] dataset/loans {data.hash[:12]}",
    ]
    assert ground.down(data.hash).nodes[1].origin == ground.origin(model)
    assert json.loads(json.dumps(lineage.to_json()))["nodes"][0]["principal"] == "alice"


def test_the_same_edge_by_two_workflows_is_two_edges_and_again_is_none(ground: Ground) -> None:
    one, two, three, four = _versions(ground, 4)
    for _ in range(2):
        ground.link(one, two, "used")
        ground.link(one, two, "used", workflow=three)
        ground.link(one, two, "used", workflow=four)
    assert len(ground.up(two).edges) == 3


def test_roles_and_depth_restrict_the_walk(ground: Ground) -> None:
    one, two, three, four = _versions(ground, 4)
    ground.link(one, two, "used")
    ground.link(two, three, "used")
    ground.link(four, three, "checked")
    assert [node.hash for node in ground.up(three, depth=1).nodes] == [
        three.hash,
        two.hash,
        four.hash,
    ]
    assert {node.hash for node in ground.up(three, roles=["checked"]).nodes} == {
        three.hash,
        four.hash,
    }
    assert ground.up(three, depth=0).edges == ()
    for depth in (-1, True, 1.5):
        with pytest.raises(BadCursor):
            ground.up(three, depth=depth)  # type: ignore[arg-type]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sets(
        st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda pair: pair[0] != pair[1]),
        max_size=24,
    ),
    st.integers(1, 5),
    st.none() | st.integers(0, 4),
    st.booleans(),
)
def test_walks_answer_as_a_plain_search_does_and_cycles_are_refused(
    open_ground: Any, pairs: set[tuple[int, int]], limit: int, depth: int | None, up: bool
) -> None:
    edges: set[tuple[int, int]] = set()
    with open_ground(f"walk-{hash((frozenset(pairs), limit, depth, up))}.db") as ground:
        versions = _versions(ground, 12)
        number = {version.hash: n for n, version in enumerate(versions)}
        for source, target in sorted(pairs):
            if source in _closure(edges, target, up=False):
                with pytest.raises(CycleRefused):
                    ground.link(versions[source], versions[target], "used")
            else:
                ground.link(versions[source], versions[target], "used")
                edges.add((source, target))
        ask = ground.up if up else ground.down
        for start in (0, 5, 11):
            truth = {
                node: at
                for node, at in _closure(edges, start, up).items()
                if depth is None or at <= depth
            }
            pages = _pages(ask, versions[start], depth, limit)
            nodes = [node for page in pages for node in page.nodes]
            assert {number[node.hash]: node.depth for node in nodes} == truth
            assert len(nodes) == len(truth)
            assert [node.depth for node in nodes] == sorted(truth.values())
            found = [(number[e.source], number[e.target]) for page in pages for e in page.edges]
            assert sorted(found) == sorted(
                (source, target) for source, target in edges if {source, target} <= truth.keys()
            )


def _pages(ask: Any, version: Version, depth: int | None, limit: int) -> list[Lineage]:
    pages = [ask(version, depth=depth, limit=limit)]
    while pages[-1].cursor is not None:
        pages.append(ask(version, depth=depth, limit=limit, cursor=pages[-1].cursor))
    return pages


def test_pages_of_one_walk_ignore_edges_that_come_meanwhile(ground: Ground) -> None:
    versions = _versions(ground, 6)
    for source, target in pairwise(versions[:4]):
        ground.link(source, target, "used")
    first = ground.down(versions[0], limit=2)
    ground.link(versions[0], versions[5], "used")
    rest = ground.down(versions[0], limit=10, cursor=first.cursor)
    assert [node.hash for node in first.nodes + rest.nodes] == [v.hash for v in versions[:4]]
    assert len(ground.down(versions[0]).nodes) == 5


def test_a_cursor_of_another_question_is_refused(ground: Ground) -> None:
    one, two, three = _versions(ground, 3)
    ground.link(one, two, "used")
    ground.link(two, three, "used")
    cursor = ground.up(three, limit=1).cursor
    assert cursor is not None
    assert ground.find(limit=1).cursor is not None
    for ask in (
        lambda: ground.down(three, cursor=cursor),
        lambda: ground.up(two, cursor=cursor),
        lambda: ground.up(three, depth=1, cursor=cursor),
        lambda: ground.up(three, cursor="nonsense"),
        lambda: ground.up(three, cursor="é" * 32),
        lambda: ground.find(cursor=cursor),
        lambda: ground.up(three, limit=0),
        lambda: ground.find(limit=10**7),
    ):
        with pytest.raises(BadCursor):
            ask()


def test_a_version_cannot_come_from_its_own_successor(ground: Ground) -> None:
    item = ground.item("model", "m")
    first = ground.version(item, content={"n": 1})
    second = ground.version(item, content={"n": 2}, parents=[first])
    with pytest.raises(CycleRefused) as refused:
        ground.link(second, first, "made")
    assert refused.value.expected
    with pytest.raises(CycleRefused):
        ground.link(first, first, "made")
    assert ground.up(first).edges == ()


def test_an_edge_needs_both_its_versions(ground: Ground) -> None:
    (one,) = _versions(ground, 1)
    with pytest.raises(UnknownVersion):
        ground.link(one, "0" * 64, "used")
    with pytest.raises(UnknownVersion):
        ground.link(Version.of(one.item, content={"n": "never added"}), one, "used")
    with pytest.raises(UnknownVersion):
        ground.up("0" * 64)


def test_twenty_thousand_versions_answer_and_long_chains_do_too(ground: Ground) -> None:
    versions = _versions(ground, 20_000)
    half = 10_000
    with ground.batch():
        for at in range(1, half):
            ground.link(versions[at - 1], versions[at], "next")
        for at in range(half, len(versions)):
            ground.link(versions[(at - half) // 2], versions[at], "used")
            ground.link(versions[half - 1], versions[at], "used")
    chain = ground.up(versions[half - 1], limit=20_000)
    assert len(chain.nodes) == half
    assert chain.nodes[-1].depth == half - 1
    assert len(list(chain.lines())) == half
    all_of_it = ground.down(versions[0], limit=20_000)
    assert len(all_of_it.nodes) == 20_000
    assert all_of_it.cursor is None
    assert len(ground.down(versions[0]).nodes) == 1000


@dataclass(frozen=True)
class Decided:
    id: str
    name: str
    versions: tuple[str, ...]
    inputs: dict[str, Any] = field(default_factory=dict)


def test_why_leads_from_a_decision_to_data_code_and_what_is_missing(ground: Ground) -> None:
    data = ground.version(ground.item("dataset", "loans"), content={"rows": 1989})
    code = ground.version(ground.item("code", "train.py"), reference="objects/" + "a" * 64)
    models = [ground.version(ground.item("model", name), content={}) for name in ("gbt", "mlp")]
    for model in models:
        ground.link(data, model, "trained_on")
        ground.link(code, model, "computed_by")
    decision = Decided(
        "ab" * 16, "decide", (models[1].hash, models[0].hash, "f" * 64), {"income": 4.5, "raw": b""}
    )
    why = ground.why(decision)
    assert why.lineage.roots == (models[1].hash, models[0].hash)
    assert {str(node.item) for node in why.lineage.nodes} == {
        "dataset/loans",
        "code/train.py",
        "model/gbt",
        "model/mlp",
    }
    assert len(why.lineage.edges) == 4
    assert why.missing == ("f" * 64,)
    assert list(why.lines()) == [
        f"decision decide {'ab' * 16}",
        "  input income = 4.5",
        "  input raw = b''",
        f"  used model/mlp {models[1].hash[:12]}",
        f"    trained_on dataset/loans {data.hash[:12]}",
        f"    computed_by code/train.py {code.hash[:12]}",
        f"  used model/gbt {models[0].hash[:12]}",
        f"    trained_on dataset/loans {data.hash[:12]}",
        f"    computed_by code/train.py {code.hash[:12]}",
        f"  used {'f' * 12} (not in this catalogue)",
    ]
    assert json.loads(json.dumps(why.to_json()))["missing"] == ["f" * 64]
    nothing = ground.why(Decided("cd" * 16, "bare", ()))
    assert nothing.lineage.nodes == ()


class AllBut:
    """Lets anybody do anything but read the items it names."""

    def __init__(self, *hidden: str) -> None:
        self.hidden = hidden
        self.asked: list[tuple[str, str | None, int | None]] = []

    def authorize(
        self,
        principal: Principal,
        action: Action,
        item: str,
        version: str | None,
        as_of: int | None,
    ) -> None:
        self.asked.append((item, version, as_of))
        if action is Action.READ and item in self.hidden:
            raise AccessDenied(f"{principal} may not read {item}")


def test_what_may_not_be_read_stays_in_the_graph_as_a_hash(open_ground: Any) -> None:
    authority = AllBut()
    with open_ground(authorizer=authority) as ground:
        one = ground.version(ground.item("dataset", "raw"))
        two = ground.version(ground.item("dataset", "secret"))
        three = ground.version(ground.item("model", "m"))
        ground.link(one, two, "used")
        ground.link(two, three, "used")
        authority.hidden = ("dataset/secret",)
        authority.asked.clear()
        lineage = ground.up(three)
        assert [node.hash for node in lineage.nodes] == [three.hash, two.hash, one.hash]
        assert [node.item and node.item.name for node in lineage.nodes] == ["m", None, "raw"]
        assert lineage.nodes[1].origin is None
        assert "secret" not in json.dumps(lineage.to_json()) + "".join(lineage.lines())
        # Each step was asked for, by the version's own hash.
        assert {version for _, version, _ in authority.asked} == {one.hash, two.hash, three.hash}
        assert [version.item.name for version in ground.find().entries] == ["m", "raw"]
        assert [item.name for item in ground.items().entries] == ["raw", "m"]
        refused: tuple[Callable[[], object], ...] = (
            lambda: ground.up(two),
            lambda: ground.version_by_hash(two.hash),
            lambda: ground.history(two.item.ref("main")),
            lambda: ground.resolve(two.item.ref("main")),
            lambda: ground.origin(two),
            lambda: ground.link(two, three, "checked"),
            lambda: ground.item("dataset", "secret"),
        )
        for ask in refused:
            with pytest.raises(AccessDenied):
                ask()


def test_a_batch_is_one_principals(ground: Ground) -> None:
    bob = ground.acting_as(Principal("bob"))
    with ground.batch():
        mine = ground.version(ground.item("model", "mine"))
        with pytest.raises(MixedBatch):
            bob.item("model", "his")
    assert ground.find().entries == (mine,)


def test_without_an_authority_items_are_for_their_owners_alone(ground: Ground) -> None:
    with ground.batch():
        mine = ground.version(ground.item("model", "mine"))
    bob = ground.acting_as(Principal("bob"))
    his = bob.version(bob.item("model", "his"))
    for ask in (
        lambda: bob.version(mine.item, content={"stolen": True}),
        lambda: bob.move(mine.item.ref("production"), None, mine),
        lambda: bob.link(mine, his, "used"),
        lambda: bob.link(his, mine, "used"),
        lambda: bob.version_by_hash(mine.hash),
    ):
        with pytest.raises(AccessDenied):
            ask()
    assert bob.find().entries == (his,)
    assert ground.owner_of("model/his") == Principal("bob")
    made = ground.origin(mine).at
    assert ground.owner_of("model/mine", made - 1) is None
    assert ground.owner_of("model/mine", made) == Principal("alice")
    before = ground.acting_as(Principal("alice"), rules_of=made - 1)
    with pytest.raises(AccessDenied):
        before.version_by_hash(mine.hash)
