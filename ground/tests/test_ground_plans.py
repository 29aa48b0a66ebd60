"""No statement reads a whole table: appends stay as cheap as the first one was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from ground import Ground

# What is scanned and is short: the last row, an index that only backward edges are in, the walk.
HARMLESS = {
    "SCAN change",
    "SCAN edge USING INDEX edge_backward",
    "SCAN reached",
    "SCAN CONSTANT ROW",
}


@contextmanager
def _statements() -> Iterator[dict[str, Any]]:
    seen: dict[str, Any] = {}

    def note(_c: Any, _cursor: Any, statement: str, arguments: Any, _x: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            seen.setdefault(statement, arguments[0] if many else arguments)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_no_statement_reads_a_whole_table(ground: Ground, tmp_path: Path) -> None:
    with _statements() as statements:
        with ground.batch():
            items = [ground.item("model", name) for name in ("a", "b", "c")]
            ones = [ground.version(item, tags={"x": 1}) for item in items]
            twos = [
                ground.version(item, content={"n": 2}, parents=[one])
                for item, one in zip(items, ones, strict=True)
            ]
            for one, two in zip(ones, twos, strict=True):
                ground.link(one, two, "used", workflow=ones[0])
        ground.link(twos[2], ones[1], "backward")
        ground.link(twos[0], twos[1], "used")
        move = ground.move("model/a@p", None, ones[0])
        ground.move("model/a@p", ones[0], twos[0])
        ground.resolve("model/a@p")
        ground.resolve("model/a@p", at=move.origin.at)
        ground.history("model/a@p")
        ground.up(twos[1], roles=["used", "backward"])
        ground.down(ones[0])
        ground.find("model", "a", tags={"x": 1})
        ground.find("model")
        ground.items("model")
        ground.origin(ones[0])
        ground.version_by_hash(ones[0].hash[:8])
    connection = sqlite3.connect(tmp_path / "ground.db")
    scans = {
        (step, statement)
        for statement, arguments in statements.items()
        for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", arguments)
        if step.startswith("SCAN") and step not in HARMLESS
    }
    connection.close()
    assert len(statements) > 15
    assert not scans
