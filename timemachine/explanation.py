"""The vocabulary of explanations: a judge that re-decides one recorded decision with other inputs.

Every explanation here is computed from perturbed replays and from nothing else. The replayer
provides the *judge*: it takes a batch of overrides, each of which replaces some of the recorded
inputs of one decision, re-runs the decision's own code and returns an answer for each. So an
explanation speaks about the decision that was made, with all that its code derives from its
inputs, and not about a surrogate model; and it can itself be replayed, because all randomness
comes from a generator that the caller passes in.

`timemachine.attribution` asks which inputs moved the answer; `timemachine.counterfactual` asks
which smallest change of inputs turns it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from timemachine.errors import ExplanationError

__all__ = ["Answer", "Judge", "Overrides", "Scalar", "ask", "same_value"]

Scalar: TypeAlias = bool | int | float | str | None
"""The value of one input of a decision; NaN and None stand for a value that was missing."""

Overrides: TypeAlias = Mapping[str, Scalar]
"""Inputs to replace, by name; the others keep their recorded values."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the decision answered: its label and the score behind it (finite; on any scale)."""

    label: str
    score: float


Judge: TypeAlias = Callable[[Sequence[Overrides]], Sequence[Answer]]
"""Re-decides a batch: one answer for each overrides, in their order."""


def ask(judge: Judge, batch: Sequence[Overrides], *, batch_size: int = 4096) -> list[Answer]:
    """Ask the judge about a batch in portions of ``batch_size`` and check what it answers.

    Raises ExplanationError when an answer is missing or its score is not a finite number.
    """
    answers: list[Answer] = []
    for start in range(0, len(batch), batch_size):
        portion = batch[start : start + batch_size]
        returned = judge(portion)
        if len(returned) != len(portion):
            raise ExplanationError(
                f"the judge gave {len(returned)} answers to {len(portion)} questions",
                what=f"{len(returned)} answers",
                expected=f"{len(portion)} answers, in the order of the questions",
                remedy="Return one answer for each overrides.",
            )
        for overrides, answer in zip(portion, returned, strict=True):
            if not math.isfinite(answer.score):
                changed = ", ".join(sorted(overrides)) or "no input"
                raise ExplanationError(
                    f"the decision's score is {answer.score} when {changed} is replaced",
                    what=f"score {answer.score}",
                    expected="a finite number",
                    remedy="Leave out the values with which the decision has no score, or let it "
                    "answer with a defined score for them.",
                )
        answers.extend(returned)
    return answers


def same_value(left: Scalar, right: Scalar) -> bool:
    """Tell whether two values are the same input; a missing value (NaN) is the same as itself."""
    if isinstance(left, float) and isinstance(right, float) and left != left and right != right:
        return True
    return left == right
