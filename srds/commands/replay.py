"""``srds replay``: run recorded decisions again, exactly or on other models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from srds.commands.options import (
    AppOption,
    JsonOption,
    OptionalDecisionArgument,
    StoreOption,
)
from srds.rendering import console, print_fields, print_json, put, safe, say, shown, table

if TYPE_CHECKING:
    from srds.replaying_many import Exactness, Patches
    from timemachine.fingerprint import Difference
    from timemachine.replay import Outcome, Replay

__all__ = ["replay"]

NAMED = 10
"""Decisions that a summary names; --json names all."""


def replay(
    decision: OptionalDecisionArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="Replay all decisions.")] = False,
    versions: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="REF",
            help="Decide on this model instead: kind/name@ref, or a version's hash. May be "
            "repeated.",
        ),
    ] = None,
    app: AppOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run recorded decisions again and compare every bit; or see what other models would decide.

    The exit status is 1 when a replay is not exact. With --with there is nothing to be exact to.
    """
    if (decision is None) != everything:
        raise typer.BadParameter("give a decision's ID, or --all")
    from srds.finding_apps import AppFinder
    from srds.replay_session import ReplaySession
    from srds.replaying_many import environment_differences, exact, patched
    from srds.store import Store
    from timemachine.replay import Records

    opened = Store.open(store)
    reader = opened.reader()
    records = Records(reader)
    # One decision that has no app is an error; among all of them it is one of the results.
    chosen = [] if decision is None else [records.find(decision)]
    differing = environment_differences(reader, chosen or None)
    if not as_json:
        _print_environment(differing)
    environment = [str(one) for one in differing]
    with ReplaySession(opened, AppFinder(app)) as session:
        if versions:
            patches = patched(session, chosen or records, versions, strict=bool(chosen))
            if as_json:
                print_json({**_patches_document(patches), "environment": environment})
            elif chosen:
                _print_patched(patches.replays[0], patches)
            else:
                _print_patches(patches)
            return
        result = exact(session, chosen or records, strict=bool(chosen))
    if as_json and chosen:
        print_json({**result.replays[0].to_json(), "environment": environment})
    elif as_json:
        print_json({**_exactness_document(result), "environment": environment})
    elif chosen:
        _print_exact(result.replays[0])
    else:
        _print_exactness(result)
    if not result.ok:
        raise typer.Exit(1)


def _print_environment(differing: tuple[Difference, ...]) -> None:
    if not differing:
        return
    err = console(stderr=True)
    say(err, "The environment is not the recorded one; bits may honestly differ:")
    for one in differing:
        say(err, f"  {safe(one)}")


def _print_exact(replay: Replay) -> None:
    from rich.text import Text

    comparison = replay.comparison
    if replay.same_bits:
        bits = Text("the same", "green")
    else:
        bits = Text("differ", "red")
    ulps = (
        ""
        if replay.same_bits or comparison.max_ulps is None
        else (f"at most {comparison.max_ulps:,} units in the last place")
    )
    same = _label(replay.recorded) == _label(replay.replayed)
    out = console()
    print_fields(
        out,
        {
            "decision": f"{replay.decision[:12]}  {safe(replay.name)}",
            "recorded": _label(replay.recorded),
            "replayed": _label(replay.replayed),
            "answer": "the same" if same else "differs",
            "bits": bits,
            "ulps": ulps,
            "inputs": _inputs_in_words(replay),
            "code": "the function's code has changed since" if replay.code_changed else "",
            "first difference": safe(replay.first_difference or ""),
        },
    )
    if replay.exact:
        words = ": the recorded inputs lead to the recorded answer, bit for bit."
        say(out, ("exact", "bold green"), words)
    else:
        say(out, ("NOT exact", "bold red"), ": see the first difference.")


def _inputs_in_words(replay: Replay) -> str:
    words = f"{len(replay.reads)} read"
    if replay.unread:
        words += f", {len(replay.unread)} of the record not asked for"
    if replay.extra:
        words += f", {len(replay.extra)} beyond the record"
    return words


def _print_exactness(result: Exactness) -> None:
    out = console()
    rows = [
        (
            safe(name),
            f"{len(replays):,}",
            f"{sum(one.exact for one in replays):,}",
            f"{sum(one.same_bits for one in replays):,}",
            f"{sum(_label(one.recorded) == _label(one.replayed) for one in replays):,}",
        )
        for name, replays in result.by_function().items()
    ]
    headings = ("function", "replayed", "exact", "same bits", "same answer")
    if rows:
        put(out, table(headings, rows, right=headings[1:]))
    inexact = [one for one in result.replays if not one.exact]
    for one in inexact[:NAMED]:
        say(out, f"{one.decision[:12]}: {safe(one.first_difference)}")
    if len(inexact) > NAMED:
        say(out, f"… and {len(inexact) - NAMED:,} more; --json names all")
    for reason, count in result.skipped.items():
        say(out, f"{count:,} not replayed: {safe(reason)}")
    if result.unfinished:
        say(out, f"{result.unfinished:,} were never closed: there is no answer to compare with")
    total = len(result.replays)
    say(
        out,
        f"{total - len(inexact):,} of {total:,} replays are exact, to the last bit."
        if total
        else "no decisions were replayed",
    )


def _exactness_document(result: Exactness) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "replayed": len(result.replays),
        "exact": sum(one.exact for one in result.replays),
        "same_bits": sum(one.same_bits for one in result.replays),
        "unfinished": result.unfinished,
        "skipped": [{"reason": why, "decisions": n} for why, n in result.skipped.items()],
        "not_exact": [one.to_json() for one in result.replays if not one.exact],
    }


def _print_patched(replay: Replay, patches: Patches) -> None:
    print_fields(
        console(),
        {
            "decision": f"{replay.decision[:12]}  {safe(replay.name)}",
            "instead of": "\n".join(patches.recorded_versions),
            "decided on": "\n".join(f"{text}  {hash_}" for text, hash_ in patches.versions),
            "recorded": _label(replay.recorded),
            "now": _label(replay.replayed),
            "inputs": _inputs_in_words(replay),
        },
    )


def _print_patches(patches: Patches) -> None:
    out = console()
    for text, hash_ in patches.versions:
        say(out, f"decided on {safe(text)} ({hash_[:12]})")
    rows = [
        (shown(before), shown(after), f"{count:,}")
        for (before, after), count in patches.transitions().most_common()
    ]
    if rows:
        put(out, table(("recorded", "now", "decisions"), rows, right=("decisions",)))
    for reason, count in patches.skipped.items():
        say(out, f"{count:,} not replayed: {safe(reason)}")
    if patches.unfinished:
        say(out, f"{patches.unfinished:,} were never closed: there is no answer to compare with")
    say(out, f"{len(patches.changed()):,} of {len(patches.replays):,} answers change.")


def _patches_document(patches: Patches) -> dict[str, Any]:
    return {
        "with": [hash_ for _, hash_ in patches.versions],
        "replayed": len(patches.replays),
        "changed": len(patches.changed()),
        "unfinished": patches.unfinished,
        "skipped": [{"reason": why, "decisions": n} for why, n in patches.skipped.items()],
        "transitions": [
            {"recorded": before, "now": after, "decisions": count}
            for (before, after), count in patches.transitions().most_common()
        ],
        "decisions": [
            {
                "id": one.decision,
                "recorded": {"ok": one.recorded.ok, "value": one.recorded.value},
                "now": {"ok": one.replayed.ok, "value": one.replayed.value},
            }
            for one in patches.replays
        ],
    }


def _label(outcome: Outcome) -> str:
    return shown(outcome.value, 200) if outcome.ok else f"error: {safe(outcome)}"
