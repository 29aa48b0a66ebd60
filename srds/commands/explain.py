"""``srds explain``: which inputs made a decision, and the smallest change that turns it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from srds.commands.options import AppOption, DecisionArgument, JsonOption, StoreOption
from srds.errors import UsageError
from srds.rendering import bar, console, print_json, put, safe, say, shown, table

if TYPE_CHECKING:
    from rich.console import Console

    from srds.explaining import Explanation, ExplanationPlan
    from timemachine.counterfactual import ChangeSearch

__all__ = ["explain"]


def explain(
    decision: DecisionArgument,
    shapley: Annotated[
        bool,
        typer.Option("--shapley", help="Share out what inputs do together; takes longer."),
    ] = False,
    app: AppOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which inputs made a decision, and which smallest change of them turns it.

    All of it is computed from replays of the decision with other inputs. An app says what is
    typical and what could change; without that, the other recorded decisions serve as a measure.
    """
    from srds.commands.log import newest_first
    from srds.explaining import explain as explain_record
    from srds.finding_apps import AppFinder
    from srds.plain_plan import plain_plan
    from srds.replay_session import ReplaySession
    from srds.store import Store
    from timemachine.replay import Records

    opened = Store.open(store)
    record = Records(opened.reader()).find(decision)
    finder = AppFinder(app)
    function = finder.find(record.name)
    make_plan = function.app.plans.get(function.function.__qualname__)
    if record.outcome is None or not record.outcome.ok:
        raise UsageError(
            f"decision {record.id[:12]} has no answer to explain",
            what=record.id,
            expected="a decision that ended with an answer",
            remedy=f"srds show {record.id[:12]} tells how it ended",
        )
    with ReplaySession(opened, finder) as session:
        running, replayer = session.of(record)
        if make_plan is None:
            plan = plain_plan(record, newest_first(opened))
            if not plan.baseline:
                raise UsageError(
                    "there is nothing to compare this decision with",
                    what=record.id,
                    expected="other decisions of the same function with inputs of the same names",
                    remedy="read inputs with keys such as (subject, name), make more decisions, "
                    "or give the app a plan with @app.explained_by",
                )
        else:
            with running.resting_on(record.versions):
                plan = make_plan(running, record)
        generator = None
        if shapley:
            from numpy.random import default_rng

            generator = default_rng(0)  # the same question gets the same answer
        explanation = explain_record(running, replayer, record, plan, generator=generator)
    if as_json:
        source = "other decisions" if make_plan is None else "app"
        print_json({**explanation.to_json(), "wanted": plan.wanted or None, "baseline": source})
        return
    _print(console(), explanation, plan, typical="app" if make_plan else "other decisions")


def _print(out: Console, explanation: Explanation, plan: ExplanationPlan, typical: str) -> None:
    answer = explanation.answer
    where = f"decision {explanation.decision[:12]}"
    say(out, f"{where}: {safe(answer.label)}, score {shown(answer.score)}")
    moved = [effect for effect in explanation.effects if effect.value]
    if moved:
        out.print()
        largest = abs(moved[0].value)
        rows = [
            (
                safe(effect.name),
                shown(effect.recorded, 24),
                shown(effect.baseline, 24),
                f"{effect.value:+.4g}",
                bar(effect.value, largest),
                "" if effect.ablated == answer.label else safe(effect.ablated),
            )
            for effect in moved
        ]
        headings = ("input", "recorded", "typical", "effect", "", "answer if typical")
        put(out, table(headings, rows, right=("recorded", "typical", "effect")))
    still = len(explanation.effects) - len(moved)
    out.print()
    meaning = (
        "An effect is that input's share (its Shapley value) in how far the score is from where "
        "it would be if all inputs were typical"
        if any(effect.shapley is not None for effect in explanation.effects)
        else "An effect is how far the score is from where it would be if that one input were "
        "typical"
    )
    say(
        out,
        f"{meaning} (typical: by the {typical})."
        + (f" {still} more inputs have none." if still else ""),
    )
    if explanation.change is not None:
        out.print()
        say(out, _change_in_words(explanation.change, plan.wanted))


def _change_in_words(search: ChangeSearch, wanted: str) -> str:
    certificate = search.certificate
    most = len(certificate.candidates) - 1
    if search.found is None:
        return (
            f"No change of at most {most} inputs on the grid leads to {safe(wanted)}: all "
            f"{certificate.tried - 1:,} were replayed."
        )
    if not search.found.changes:
        return f"The answer is {safe(wanted)} as it is."
    changes = " and ".join(
        f"{safe(one.name)} from {shown(one.recorded)} to {shown(one.value)}"
        + (f" ({safe(one.unit)})" if one.unit else "")
        for one in search.found.changes
    )
    # The recorded inputs themselves are the first candidate, and no change.
    smaller = certificate.smaller_tried - 1
    return (
        f"The smallest change that leads to {safe(wanted)}: {changes} (score "
        f"{shown(search.found.answer.score)}). "
        + (
            f"All {smaller:,} smaller changes on the grid were replayed; none of them does."
            if smaller > 0
            else "No change on the grid is smaller."
        )
    )
