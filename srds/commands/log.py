"""``srds log``: list the recorded decisions."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srds.commands.options import JsonOption, StoreOption
from srds.rendering import console, duration, local_time, print_json, put, safe, say, shown, table

if TYPE_CHECKING:
    from rich.text import Text

    from srds.store import Store
    from timemachine.replay import DecisionRecord

__all__ = ["log", "newest_first"]


def log(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    name: Annotated[
        str | None, typer.Option("--name", help="Only functions with this in their name.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", help="Only decisions about this subject.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option("--answer", help="Only answers with this in them.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only those that ended with an error, or not at all.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the recorded decisions, the newest last."""
    from srds.store import Store

    def wanted(record: DecisionRecord) -> bool:
        outcome = record.outcome
        return not (
            (name is not None and name not in record.name)
            or (subject is not None and subject != str(record.subject))
            or (answer is not None and (outcome is None or answer not in str(outcome)))
            or (failed and outcome is not None and outcome.ok)
        )

    opened = Store.open(store)
    records = list(islice(filter(wanted, newest_first(opened)), limit))[::-1]
    if as_json:
        print_json({"store": str(opened.path), "decisions": [_document(one) for one in records]})
        return
    out = console()
    if not records:
        say(out, "no decisions")
        return
    rows = [
        (
            record.id[:12],
            _short_time(record.opened_ns),
            safe(_short_name(record.name)),
            "" if record.subject is None else shown(record.subject, 30),
            _answer(record),
            duration(record.nanoseconds),
        )
        for record in records
    ]
    headings = ("id", "time", "function", "subject", "answer", "took")
    put(out, table(headings, rows, right=("took",)))


def newest_first(store: Store) -> Iterator[DecisionRecord]:
    """The decisions of all logs of a store, the newest first; each is read when it is reached."""
    from timemachine.journal import Reader
    from timemachine.replay import Records

    def backwards(reader: Reader) -> Iterator[DecisionRecord]:
        records = Records(reader)
        return (one for raw in reversed(reader.decisions()) if (one := records.read(raw)))

    reader = store.reader()
    reader.refresh()
    streams = [backwards(Reader(store.journal / one)) for one in reader.logs]
    return heapq.merge(*streams, key=lambda record: -record.opened_ns)


def _short_name(name: str) -> str:
    """``module:function`` without the packages around the module."""
    module, colon, function = name.partition(":")
    return module.rpartition(".")[2] + colon + function


def _short_time(nanoseconds: int) -> str:
    """To the second, and without the year where it is this one, as ``ls`` does."""
    text = local_time(nanoseconds)[:19]
    return text[5:] if text[:4] == local_time(time.time_ns())[:4] else text


def _answer(record: DecisionRecord) -> Text:
    from rich.text import Text

    from srds.plain_plan import label_of, score_of

    if record.outcome is None:
        return Text("unfinished", "yellow")
    if not record.outcome.ok:
        return Text(shown(str(record.outcome)), "red")
    value = record.outcome.value
    label, score = label_of(value), score_of(value)
    if score is None or label == str(value):
        return Text(shown(label))
    return Text(f"{shown(label, 40)} ({score:.3g})")


def _document(record: DecisionRecord) -> dict[str, Any]:
    outcome = record.outcome
    return {
        "id": record.id,
        "opened_ns": record.opened_ns,
        "time": local_time(record.opened_ns),
        "name": record.name,
        "subject": record.subject,
        "finished": outcome is not None,
        "ok": None if outcome is None else outcome.ok,
        "answer": None if outcome is None else outcome.value,
        "nanoseconds": record.nanoseconds,
    }
