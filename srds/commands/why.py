"""``srds why``: the lineage of a decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from srds.commands.options import DecisionArgument, JsonOption, StoreOption
from srds.rendering import console, print_json, print_tree

if TYPE_CHECKING:
    from ground import DecisionLineage
    from srds.store import Store
    from timemachine.replay import DecisionRecord

__all__ = ["why"]


def why(
    decision: DecisionArgument,
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth", min=0, help="How many steps back [default: all].", show_default=False
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is behind a decision: its inputs, its models, and what those were made from."""
    from srds.store import Store
    from timemachine.replay import Records

    opened = Store.open(store)
    lineage = _lineage(opened, Records(opened.reader()).find(decision), depth)
    if as_json:
        print_json(lineage.to_json())
    else:
        print_tree(console(), lineage.lines())


def _lineage(store: Store, record: DecisionRecord, depth: int | None) -> DecisionLineage:
    from ground import DecisionLineage, Lineage
    from srds.explaining import input_values
    from srds.lineage import lineage_of

    if not store.ground.exists():
        # An app that rests on no versions has no catalogue.
        nothing = Lineage("up", (), (), ())
        inputs = dict(input_values(record))
        return DecisionLineage(record.id, record.name, inputs, nothing, record.versions)
    with store.catalogue() as ground:
        return lineage_of(ground, record, depth=depth)
