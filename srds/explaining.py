"""Explains one recorded decision: which inputs made it, and which smallest change turns it.

The explanations of ``timemachine`` ask a judge; here the judge is the decision itself, replayed
with other inputs. An app says by an ``ExplanationPlan`` how its answers are read; without one, an
answer is its own label and needs a number in it to be attributed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from srds.app import OpenApp
from srds.errors import UsageError
from timemachine.attribution import Effect, attribute
from timemachine.counterfactual import ChangeSearch, Grid, search_changes
from timemachine.explanation import Answer, Overrides, Scalar
from timemachine.replay import DecisionRecord, Outcome, Replayer

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["Explanation", "ExplanationPlan", "explain", "input_values", "named_inputs"]

Address = tuple[str, Any]


@dataclass(frozen=True)
class ExplanationPlan:
    """How decisions of one function are explained.

    ``read`` turns an answer into label and score. ``baseline`` gives each input's value that
    stands for "nothing special"; ``actionable`` what the subject could change. ``wanted`` is the
    label that the smallest change is to lead to.
    """

    read: Callable[[Any], Answer]
    baseline: Mapping[str, Scalar]
    actionable: Mapping[str, Grid] = field(default_factory=dict)
    wanted: str = ""


@dataclass(frozen=True)
class Explanation:
    """The inputs of a decision in descending effect, and the search for the smallest change."""

    decision: str
    answer: Answer
    effects: tuple[Effect, ...]
    change: ChangeSearch | None

    def to_json(self) -> dict[str, Any]:
        """The explanation in plain JSON types."""
        return {
            "decision": self.decision,
            "label": self.answer.label,
            "score": self.answer.score,
            "effects": [
                {
                    "input": effect.name,
                    "recorded": effect.recorded,
                    "baseline": effect.baseline,
                    "effect": effect.value,
                    "label_at_baseline": effect.ablated,
                }
                for effect in self.effects
            ],
            "smallest_change": _change_json(self.change),
        }


def named_inputs(record: DecisionRecord) -> dict[str, Address]:
    """The inputs that the decision read, by a short name each: the last part of the key.

    A name that two sources share is written ``source.name`` for the second one.
    """
    names: dict[str, Address] = {}
    for one in record.inputs:
        if one.kind != "read":
            continue
        key = one.key
        name = str(key[-1] if isinstance(key, tuple | list) and key else key)
        address = (one.source, tuple(key) if isinstance(key, list) else key)
        if names.setdefault(name, address) != address:
            names[f"{one.source}.{name}"] = address
    return names


def input_values(record: DecisionRecord) -> dict[str, Scalar]:
    """The recorded values of the named inputs."""
    by_address = {
        (one.source, tuple(one.key) if isinstance(one.key, list) else one.key): one.value
        for one in record.inputs
        if one.kind == "read" and one.ok
    }
    return {
        name: by_address[address]
        for name, address in named_inputs(record).items()
        if address in by_address
    }


def explain(
    opened: OpenApp,
    replayer: Replayer,
    record: DecisionRecord,
    plan: ExplanationPlan,
    *,
    generator: Generator | None = None,
) -> Explanation:
    """Explain a recorded decision by replaying it with other inputs.

    With a ``generator`` the effects are Shapley values, which share out what inputs do together;
    without one, each is the effect of that input alone. Raises ``UsageError`` when the decision
    ended with an error, or when a plan names inputs that it did not read.
    """
    if record.outcome is None or not record.outcome.ok:
        raise UsageError(
            f"decision {record.id[:8]} has no answer to explain",
            what=record.id,
            expected="a decision that ended with an answer",
            remedy="srds show tells how it ended",
        )
    addresses = named_inputs(record)
    inputs = input_values(record)

    def judge(batch: Sequence[Overrides]) -> list[Answer]:
        replays = replayer.perturbed(
            record, [{addresses[name]: value for name, value in one.items()} for one in batch]
        )
        return [_answer(plan, one.replayed) for one in replays]

    with opened.resting_on(record.versions):
        baseline = {name: value for name, value in plan.baseline.items() if name in inputs}
        effects = attribute(inputs, baseline, judge, generator=generator) if baseline else []
        change = None
        if plan.actionable and plan.wanted:
            change = search_changes(inputs, plan.actionable, judge, plan.wanted)
    return Explanation(record.id, plan.read(record.outcome.value), tuple(effects), change)


def _answer(plan: ExplanationPlan, outcome: Outcome) -> Answer:
    if not outcome.ok:
        raise UsageError(
            f"with other inputs the decision ended with {outcome}",
            what=str(outcome),
            expected="an answer for every input on the grid",
            remedy="restrict the grid to values that the decision can handle",
        )
    return plan.read(outcome.value)


def _change_json(search: ChangeSearch | None) -> dict[str, Any] | None:
    if search is None:
        return None
    certificate = {
        "candidates": list(search.certificate.candidates),
        "tried": search.certificate.tried,
        "smaller_tried": search.certificate.smaller_tried,
    }
    if search.found is None:
        return {"found": False, "certificate": certificate}
    return {
        "found": True,
        "label": search.found.answer.label,
        "score": search.found.answer.score,
        "changes": [
            {"input": one.name, "from": one.recorded, "to": one.value}
            for one in search.found.changes
        ],
        "certificate": certificate,
    }
