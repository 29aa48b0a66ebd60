"""``srds perturb``: decide a recorded case again with other inputs."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srds.commands.options import AppOption, DecisionArgument, JsonOption, StoreOption
from srds.errors import UsageError
from srds.rendering import console, print_json, put, safe, say, shown, table

if TYPE_CHECKING:
    from rich.text import Text

    from timemachine.replay import DecisionRecord, Outcome, Replay

__all__ = ["perturb"]

MOST = 10_000
_RANGE = re.compile(r"(?P<low>[^:]+?)\.\.(?P<high>[^:]+):(?P<points>[0-9]+)")
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class _Range:
    """``name=low..high:points``, as it was given."""

    name: str
    points: tuple[float, ...]
    scaled: bool


def perturb(
    decision: DecisionArgument,
    to: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Replace an input. May be repeated."),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option("--scale", metavar="NAME=LOW..HIGH:N", help="Multiply an input by N factors."),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="NAME=LOW..HIGH:N", help="Put an input at N values."),
    ] = None,
    app: AppOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide a recorded case again with some inputs replaced, over all combinations.

    Names are those that srds explain and srds why use.
    """
    settings = dict(_setting(text) for text in to or ())
    ranges = [_range(text, scaled=True) for text in scale or ()]
    ranges += [_range(text, scaled=False) for text in grid or ()]
    _check(settings, ranges)

    from srds.explaining import named_inputs
    from srds.finding_apps import AppFinder
    from srds.replay_session import ReplaySession
    from srds.store import Store
    from timemachine.replay import Records

    opened = Store.open(store)
    record = Records(opened.reader()).find(decision)
    addresses = named_inputs(record)
    axes = _axes(record, settings, ranges)
    names = list(axes)
    points = list(product(*axes.values()))
    with ReplaySession(opened, AppFinder(app)) as session:
        running, replayer = session.of(record)
        with running.resting_on(record.versions):
            replays = replayer.perturbed(
                record,
                [
                    {addresses[name]: value for name, value in zip(names, point, strict=True)}
                    for point in points
                ],
            )
    if as_json:
        print_json(_document(record, names, points, replays))
    else:
        run = len(axes[names[-1]])
        _print(record, names, points, replays, run)


def _setting(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (sign and name.strip()):
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
    return name.strip(), value.strip()


def _range(text: str, *, scaled: bool) -> _Range:
    hint = "--scale" if scaled else "--grid"
    name, _, rest = text.partition("=")
    found = _RANGE.fullmatch(rest.strip())
    if not name.strip() or found is None:
        example = "income=0.8..1.2:9" if scaled else "income=20..40:5"
        raise typer.BadParameter(
            f"{text!r} is not NAME=LOW..HIGH:N, such as {example}", param_hint=hint
        )
    try:
        low, high = float(found["low"]), float(found["high"])
    except ValueError:
        raise typer.BadParameter(
            f"the bounds of {text!r} are no numbers", param_hint=hint
        ) from None
    count = int(found["points"])
    if not (math.isfinite(low) and math.isfinite(high)):
        raise typer.BadParameter(f"the bounds of {text!r} are not finite", param_hint=hint)
    if not 1 <= count <= MOST:
        raise typer.BadParameter(f"{text!r} has not 1 to {MOST:,} points", param_hint=hint)
    # Rounded to twelve digits: 0.85 is meant, not 0.8500000000000001.
    steps = max(1, count - 1)
    points = tuple(float(f"{low + (high - low) * k / steps:.12g}") for k in range(count))
    return _Range(name.strip(), points, scaled)


def _check(settings: Mapping[str, str], ranges: Sequence[_Range]) -> None:
    names = [*settings, *(one.name for one in ranges)]
    if not names:
        raise typer.BadParameter("nothing to change: give --set, --scale or --grid")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise typer.BadParameter(f"{', '.join(twice)} is given more than once")
    combinations = math.prod(len(one.points) for one in ranges)
    if combinations > MOST:
        raise typer.BadParameter(
            f"{combinations:,} combinations are more than {MOST:,}: give fewer points"
        )


def _axes(
    record: DecisionRecord, settings: Mapping[str, str], ranges: Sequence[_Range]
) -> dict[str, list[Any]]:
    """The values of each input that is replaced, in the order of the table's columns."""
    from srds.explaining import input_values, named_inputs

    known = named_inputs(record)
    for name in (*settings, *(one.name for one in ranges)):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            raise UsageError(
                f"decision {record.id[:12]} read no input named {name!r}",
                what=name,
                expected="one of " + (", ".join(known) or "nothing: it read no inputs"),
                remedy=f"did you mean {' or '.join(close)}?" if close else "srds show lists them",
            )
    recorded = input_values(record)
    axes: dict[str, list[Any]] = {
        name: [_value(name, text, recorded.get(name))] for name, text in settings.items()
    }
    for one in ranges:
        value = recorded.get(one.name)
        if one.scaled and not _is_number(value):
            raise UsageError(
                f"{one.name} was recorded as {shown(value)}, which cannot be scaled",
                what=one.name,
                expected="an input that is a number",
                remedy=f"--set {one.name}=VALUE",
            )
        factor: Any = value if one.scaled else 1
        whole = type(value) is int
        axes[one.name] = [_number(point * factor, whole=whole) for point in one.points]
    return axes


def _value(name: str, text: str, recorded: object) -> Any:
    """A value as it is typed, in the type of what was recorded."""
    if isinstance(recorded, str):
        return text
    if text.lower() in ("none", "null"):
        return None
    if isinstance(recorded, bool):
        if text.lower() not in _TRUTH:
            raise _wrong_type(name, text, "true or false")
        return _TRUTH[text.lower()]
    if _is_number(recorded):
        try:
            return _number(float(text), whole=type(recorded) is int)
        except ValueError:
            raise _wrong_type(name, text, "a number") from None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _wrong_type(name: str, text: str, expected: str) -> UsageError:
    return UsageError(
        f"{name} = {text!r} is not {expected}",
        what=f"--set {name}={text}",
        expected=expected,
        remedy="give a value of the type that was recorded, or none for a missing one",
    )


def _number(value: float, *, whole: bool) -> int | float:
    return int(value) if whole and value.is_integer() else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _print(
    record: DecisionRecord,
    names: Sequence[str],
    points: Sequence[Sequence[Any]],
    replays: Sequence[Replay],
    run: int,
) -> None:
    from rich.text import Text

    from srds.explaining import input_values

    assert record.outcome is not None
    out = console()
    recorded = input_values(record)
    before = ", ".join(f"{safe(name)} = {shown(recorded.get(name), 24)}" for name in names)
    say(out, f"decision {record.id[:12]}, recorded with {before}: {_label(record.outcome)}")
    out.print()
    rows: list[list[str | Text]] = []
    for position, (point, replay) in enumerate(zip(points, replays, strict=True)):
        label = _label(replay.replayed)
        turned = position % run and label != _label(replays[position - 1].replayed)
        style = "" if label == _label(record.outcome) else "bold"
        rows.append(
            [
                *(shown(value, 24) for value in point),
                Text(shown(label), style),
                _score(replay.replayed),
                "← turns" if turned else "",
            ]
        )
    put(out, table((*map(safe, names), "answer", "score", ""), rows, right=(*names, "score")))
    changed = sum(_label(one.replayed) != _label(record.outcome) for one in replays)
    out.print()
    say(out, f"{changed:,} of {len(replays):,} answers differ from the recorded one.")


def _label(outcome: Outcome) -> str:
    from srds.plain_plan import label_of

    return safe(label_of(outcome.value)) if outcome.ok else f"error: {safe(outcome)}"


def _score(outcome: Outcome) -> str:
    from srds.plain_plan import score_of

    score = score_of(outcome.value) if outcome.ok else None
    return "" if score is None else shown(score)


def _document(
    record: DecisionRecord,
    names: Sequence[str],
    points: Sequence[Sequence[Any]],
    replays: Sequence[Replay],
) -> dict[str, Any]:
    from srds.explaining import input_values
    from srds.plain_plan import score_of

    assert record.outcome is not None
    recorded = input_values(record)
    return {
        "decision": record.id,
        "recorded": {
            "inputs": {name: recorded.get(name) for name in names},
            "ok": record.outcome.ok,
            "answer": record.outcome.value,
        },
        "points": [
            {
                "inputs": dict(zip(names, point, strict=True)),
                "ok": one.replayed.ok,
                "answer": one.replayed.value,
                "score": score_of(one.replayed.value) if one.replayed.ok else None,
                "turned": _label(one.replayed) != _label(record.outcome),
            }
            for point, one in zip(points, replays, strict=True)
        ],
    }
