"""``srds show``: everything that is recorded of one decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srds.commands.options import DecisionArgument, JsonOption, StoreOption
from srds.rendering import (
    console,
    duration,
    local_time,
    print_fields,
    print_json,
    put,
    safe,
    shown,
    table,
)

if TYPE_CHECKING:
    from microkernel import RecordedInput
    from timemachine.journal import Reader
    from timemachine.replay import DecisionRecord

__all__ = ["show"]


def show(
    decision: DecisionArgument, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Show everything that is recorded of one decision."""
    from srds.store import Store
    from timemachine.replay import Records

    reader = Store.open(store).reader()
    record = Records(reader).find(decision)
    if as_json:
        print_json(_document(reader, record))
        return
    out = console()
    arguments = [shown(one) for one in record.args]
    arguments += [f"{safe(name)}={shown(one)}" for name, one in record.kwargs.items()]
    print_fields(
        out,
        {
            "decision": record.id,
            "function": safe(record.name),
            "code": record.code.hex(),
            "arguments": ", ".join(arguments),
            "subject": "" if record.subject is None else shown(record.subject),
            "policy": "" if record.policy is None else shown(record.policy),
            "versions": "\n".join(record.versions),
            "opened": f"{local_time(record.opened_ns)}, took {duration(record.nanoseconds)}",
            "answer": _ending(record),
            "journal": f"log {record.log}, events {record.events[0].seq} to "
            f"{record.events[-1].seq}",
        },
    )
    if record.inputs:
        out.print()
        rows = [
            (str(one.seq), one.kind, shown(one.source, 30), shown(one.key, 40), _value(one))
            for one in record.inputs
        ]
        put(out, table(("event", "input", "source", "key", "value"), rows, right=("event",)))
    if record.tasks:
        out.print()
        tasks = [
            (
                task.id[:12],
                safe(task.name),
                "done" if task.ok else "failed",
                duration(task.nanoseconds),
            )
            for task in record.tasks
        ]
        put(out, table(("task", "function", "state", "took"), tasks, right=("took",)))


def _ending(record: DecisionRecord) -> str:
    if record.outcome is None:
        return "none: it was never closed (its process died, or it is still running)"
    if not record.outcome.ok:
        return f"error: {safe(record.outcome)}"
    return shown(record.outcome.value, 400)


def _value(one: RecordedInput) -> str:
    if not one.ok:
        name, arguments = _error(one.value)
        return f"error: {name} {shown(arguments)}"
    value = one.value
    if one.kind == "prediction" and isinstance(value, list | tuple) and len(value) > 1:
        # [row, output, batch, position, home]: the row is the other inputs over again.
        value = value[1]
    return shown(value)


def _error(value: Any) -> tuple[str, Any]:
    if isinstance(value, list) and len(value) == 2:
        return safe(str(value[0]).rpartition(":")[2]), value[1]
    return "", value


def _document(reader: Reader, record: DecisionRecord) -> dict[str, Any]:
    header = reader.header_of(record.events[0])
    outcome = record.outcome
    return {
        "id": record.id,
        "name": record.name,
        "code": record.code.hex(),
        "arguments": record.args,
        "named_arguments": record.kwargs,
        "subject": record.subject,
        "policy": record.policy,
        "versions": record.versions,
        "opened_ns": record.opened_ns,
        "nanoseconds": record.nanoseconds,
        "finished": outcome is not None,
        "ok": None if outcome is None else outcome.ok,
        "answer": None if outcome is None else outcome.value,
        "inputs": [
            {
                "event": one.seq,
                "kind": one.kind,
                "source": one.source,
                "key": one.key,
                "ordinal": one.ordinal,
                "task": one.task.hex(),
                "ok": one.ok,
                "value": one.value,
            }
            for one in record.inputs
        ],
        "tasks": [
            {
                "id": task.id,
                "parent": task.parent,
                "name": task.name,
                "code": task.code.hex(),
                "ok": task.ok,
                "nanoseconds": task.nanoseconds,
            }
            for task in record.tasks
        ],
        "journal": {
            "log": record.log,
            "first_event": record.events[0].seq,
            "last_event": record.events[-1].seq,
            "run": header.run_id.hex(),
        },
        "environment": dict(header.fingerprint),
    }
