"""The arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "JSON_ASKED",
    "AppOption",
    "DecisionArgument",
    "JsonOption",
    "OptionalDecisionArgument",
    "StoreOption",
]

JSON_ASKED = "srds.json"
"""The key in a context's ``meta`` that says whether the answer is to be JSON."""

COMPLETED_JOURNAL_BYTES = 32 << 20
COMPLETED_IDS = 100


def _remember(context: typer.Context, value: bool) -> bool:
    context.meta[JSON_ASKED] = value
    return value


def _complete_decision(context: typer.Context, incomplete: str) -> list[str]:
    """The newest decisions whose id begins so; nothing when that would take long or fails."""
    from srds.store import Store
    from timemachine.replay import Records

    try:
        store = Store.open(context.params.get("store"))
        if sum(path.stat().st_size for path in store.journal.rglob("*.seg")) > (
            COMPLETED_JOURNAL_BYTES
        ):
            return []
        ids = Records(store.reader()).ids()
    except Exception:  # a terminal that waits for a completion has no use for an error
        return []
    return [one for one in ids if one.startswith(incomplete.lower())][: -COMPLETED_IDS - 1 : -1]


StoreOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--store", help="The store's directory [default: $SRDS_STORE or .srds].", show_default=False
    ),
]

JsonOption: TypeAlias = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document.", is_eager=True, callback=_remember),
]

AppOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE|FILE.py",
        help="The app that made the decision; apps under srds.apps are found by themselves.",
        show_default=False,
    ),
]

_DECISION = typer.Argument(
    metavar="ID",
    help="The decision's id, or its first digits.",
    autocompletion=_complete_decision,
    show_default=False,
)

DecisionArgument: TypeAlias = Annotated[str, _DECISION]

OptionalDecisionArgument: TypeAlias = Annotated[str | None, _DECISION]
