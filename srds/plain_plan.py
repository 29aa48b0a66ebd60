"""How a decision is explained and its answer read when its app does not say.

The answer's label and score are looked for where apps commonly put them. "Nothing special" is what
the other recorded decisions of the same function read; what could change an input is what they
read, too. An app that knows better says so by ``@app.explained_by``.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from timemachine.counterfactual import Grid
from timemachine.explanation import Answer, Scalar

if TYPE_CHECKING:
    from srds.explaining import ExplanationPlan
    from timemachine.replay import DecisionRecord

__all__ = ["label_of", "plain_plan", "read_answer", "score_of"]

LABELS = ("answer", "label", "decision")
SCORES = ("score", "confidence")
OTHERS = 5000
"""Other decisions that are looked at, the newest."""

PAIRS = 20_000
"""Pairs of changes that the search may have to replay."""


def label_of(answer: Any) -> str:
    """What was decided: the member ``answer``, ``label`` or ``decision``, or the answer itself."""
    if isinstance(answer, Mapping):
        for name in LABELS:
            if name in answer:
                return str(answer[name])
    return str(answer)


def score_of(answer: Any) -> float | None:
    """How strongly: the member ``score`` or ``confidence``, or a number itself; None if there is
    none."""
    if isinstance(answer, Mapping):
        found = next((answer[name] for name in SCORES if name in answer), None)
        return None if found is None else score_of(found)
    if isinstance(answer, bool | int | float):
        return float(answer)
    return None


def read_answer(answer: Any, recorded: Any) -> Answer:
    """An answer as explanations need it.

    Without a score, it is 1 for the label that was recorded and 0 for any other: an effect then
    says whether the answer stands or falls.
    """
    label = label_of(answer)
    score = score_of(answer)
    return Answer(label, float(label == label_of(recorded)) if score is None else score)


def plain_plan(record: DecisionRecord, others: Iterable[DecisionRecord]) -> ExplanationPlan:
    """The plan for a decision that ended with an answer, out of others of the same function."""
    from srds.explaining import ExplanationPlan, input_values

    assert record.outcome is not None
    recorded = record.outcome.value
    seen: dict[str, list[Scalar]] = {
        name: [] for name, value in input_values(record).items() if _is_scalar(value)
    }
    labels: Counter[str] = Counter()
    alike = (one for one in others if one.name == record.name and one.id != record.id)
    for other in islice(alike, OTHERS):
        if other.outcome is not None and other.outcome.ok:
            labels[label_of(other.outcome.value)] += 1
        for name, value in input_values(other).items():
            if name in seen and _is_scalar(value) and not _is_missing(value):
                seen[name].append(value)
    seen = {name: values for name, values in seen.items() if values}
    del labels[label_of(recorded)]
    wanted = "" if _is_number(recorded) or not labels else labels.most_common(1)[0][0]
    return ExplanationPlan(
        read=lambda answer: read_answer(answer, recorded),
        baseline={name: _typical(values) for name, values in seen.items()},
        actionable=_grids(seen) if wanted else {},
        wanted=wanted,
    )


def _typical(values: Sequence[Scalar]) -> Scalar:
    """The median of numbers; otherwise what is most frequent."""
    if all(type(value) is int for value in values):
        return statistics.median_low(values)  # type: ignore[type-var]
    if all(_is_number(value) for value in values):
        return statistics.median(values)  # type: ignore[type-var]
    return Counter(values).most_common(1)[0][0]


def _grids(seen: Mapping[str, Sequence[Scalar]]) -> dict[str, Grid]:
    """For each input, values that others had, spread over all of them; their range is one step."""
    pairs = max(1, math.comb(len(seen), 2))
    most = max(1, math.isqrt(PAIRS // pairs))
    grids = {}
    for name, values in seen.items():
        if all(_is_number(value) for value in values):
            distinct: list[Scalar] = sorted(set(values))  # type: ignore[type-var]
            step = float(distinct[-1] - distinct[0]) or 1.0  # type: ignore[operator]
        else:
            distinct = [value for value, _ in Counter(values).most_common()]
            step = 1.0
        grids[name] = Grid(tuple(_spread(distinct, most)), step=step)
    return grids


def _spread(values: Sequence[Scalar], most: int) -> list[Scalar]:
    if len(values) <= most:
        return list(values)
    if most == 1:
        return [values[len(values) // 2]]
    return [values[round(k * (len(values) - 1) / (most - 1))] for k in range(most)]


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
