"""``srds verify``: check that the journal is as it was written."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srds.commands.options import JsonOption, StoreOption
from srds.errors import UsageError
from srds.rendering import console, print_json, put, safe, say, table

if TYPE_CHECKING:
    from pathlib import Path

    from srds.store import Store
    from timemachine.journal import Finding, LogReport, VerifyReport

__all__ = ["verify"]


def verify(
    log: Annotated[
        str | None,
        typer.Option("--log", metavar="ID", help="Only this log, by the first digits of its id."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the journal frame by frame against its signatures and name what was altered.

    The exit status is 1 when anything is damaged.
    """
    from srds.store import Store
    from timemachine.journal import verify as verify_journal

    opened = Store.open(store)
    directory = opened.journal if log is None else _log_directory(opened, log)
    progress = console(stderr=True)
    with nullcontext() if as_json or not progress.is_terminal else progress.status("verifying"):
        report = verify_journal(directory, opened.trusted())
    if as_json:
        print_json(_document(report))
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(1)


def _log_directory(store: Store, prefix: str) -> Path:
    from timemachine.journal.log_directory import log_directories

    logs = log_directories(store.journal)
    found = [path for path in logs if path.name.startswith(prefix.lower())] if prefix else []
    if len(found) != 1:
        raise UsageError(
            f"{len(found) or 'no'} logs begin with {prefix!r}",
            what=f"--log {prefix}",
            expected="one of " + (", ".join(path.name for path in logs) or "no logs"),
            remedy="give the id of one log, or leave --log out",
        )
    return found[0]


def _print(report: VerifyReport) -> None:
    from rich.text import Text

    out = console()
    rows = [
        (
            log.log,
            f"{log.segments:,}",
            f"{log.frames:,}",
            f"{log.signed_frames:,}",
            f"{log.checkpoints:,}",
            Text("damaged", "bold red") if _damage(log) else Text("whole", "green"),
        )
        for log in report.logs
    ]
    headings = ("log", "segments", "frames", "signed for", "signatures", "state")
    put(out, table(headings, rows, right=headings[1:5]))
    out.print()
    for finding in report.findings:
        style = "red" if finding.severity == "damage" else "yellow"
        say(out, (f"{finding.severity}: ", f"bold {style}"), safe(finding))
    say(out, _summary(report))


def _summary(report: VerifyReport) -> str:
    damaged = [finding for finding in report.findings if finding.severity == "damage"]
    if damaged:
        return (
            f"The journal is NOT as it was written: {len(damaged)} "
            f"{'thing is' if len(damaged) == 1 else 'things are'} damaged, named above."
        )
    signed = sum(log.signed_frames for log in report.logs)
    later = report.frames - signed
    return (
        f"All {report.frames:,} frames are as they were written. Signatures of keys that this "
        f"store trusts cover {signed:,} of them"
        + (f"; the last {later:,} came after the last signature." if later else ".")
    )


def _damage(log: LogReport) -> bool:
    return any(finding.severity == "damage" for finding in log.findings)


def _document(report: VerifyReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "frames": report.frames,
        "logs": [
            {
                "log": log.log,
                "ok": not _damage(log),
                "segments": log.segments,
                "frames": log.frames,
                "signed_frames": log.signed_frames,
                "checkpoints": log.checkpoints,
            }
            for log in report.logs
        ],
        "findings": [_finding(one) for one in report.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "log": finding.log,
        "segment": finding.segment,
        "offset": finding.offset,
        "seq": finding.seq,
        "decision": None if finding.decision is None else finding.decision.hex(),
        "message": finding.message,
    }
