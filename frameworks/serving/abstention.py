"""When to answer and when to say "I don't know": a threshold with a stated error rate.

The rule is to give an answer where its confidence reaches a threshold. The threshold is chosen so
that, with a stated confidence over the draw of the calibration rows, the error rate among the cases
answered stays under a target: risk control by Learn then Test (Angelopoulos et al. 2021) with exact
binomial tests. Candidate thresholds are tested in sequences that start where a certain number of
cases is answered, which looks at no label, and go down until a test fails; several starts share the
error probability equally (Bonferroni). The lowest threshold that passed answers the most cases.

The statement holds for new cases drawn like the calibration rows, and for the bank's or doctor's
own verdict as the truth. It says nothing about cases of another kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from frameworks.serving.errors import CalibrationError

__all__ = ["Guarantee", "choose_threshold", "error_bound"]

# Each start is twice as many cases as the one before: the first alone would be lost to one error.
_STARTS = 4

_CANDIDATES = tuple(percent / 100 for percent in range(99, 49, -1))


@dataclass(frozen=True, slots=True)
class Guarantee:
    """A threshold, and what the calibration rows say about the error rate above it.

    ``threshold`` is None where no threshold could be shown to meet the target: then abstain always.
    ``bound`` is the upper confidence bound (Clopper and Pearson 1934) of the error rate among cases
    like the ``answered`` ones, of which ``wrong`` were wrong; with probability ``confidence`` over
    the draw of the calibration rows the error rate is at most ``target``.
    """

    threshold: float | None
    answered: int
    wrong: int
    bound: float
    target: float
    confidence: float


def choose_threshold(
    confidences: Sequence[float],
    wrong: Sequence[bool],
    *,
    target: float,
    confidence: float = 0.9,
    candidates: Sequence[float] = _CANDIDATES,
) -> Guarantee:
    """Choose the lowest threshold whose error rate is shown to stay under the target.

    Args:
        confidences: confidence of the answer to each calibration row, within [0, 1].
        wrong: whether that answer would have been wrong.
        target: highest error rate allowed among answered cases, within (0, 1).
        confidence: probability over calibration rows that the target is met, within (0, 1).
        candidates: thresholds to consider, fixed before looking at the rows.

    Raises CalibrationError for values outside these ranges or unequal lengths.

    >>> sure = choose_threshold([0.9] * 60 + [0.6] * 60, [False] * 60 + [True] * 60, target=0.1)
    >>> sure.threshold, sure.answered, sure.wrong
    (0.61, 60, 0)
    """
    _check(confidences, wrong, target, confidence)
    level = (1 - confidence) / _STARTS
    ladder = sorted(set(candidates), reverse=True)
    counts = []
    for threshold in ladder:
        errors = [error for c, error in zip(confidences, wrong, strict=True) if c >= threshold]
        counts.append((len(errors), sum(errors)))
    # With fewer cases than this, not even a spotless record would pass the test.
    fewest = math.ceil(math.log(level) / math.log1p(-target))
    lowest = None
    for start in range(_STARTS):
        for step, (answered, errors_seen) in enumerate(counts):
            if answered < fewest * 2**start:
                continue
            if error_bound(errors_seen, answered, 1 - level) > target:
                break
            lowest = step if lowest is None else max(lowest, step)
    if lowest is None:
        return Guarantee(None, 0, 0, 1.0, target, confidence)
    answered, errors_seen = counts[lowest]
    bound = error_bound(errors_seen, answered, 1 - level)
    return Guarantee(ladder[lowest], answered, errors_seen, bound, target, confidence)


def error_bound(wrong: int, answered: int, confidence: float) -> float:
    """Upper confidence bound of an error rate, exact for binomial counts; 1 with no answers.

    >>> round(error_bound(0, 29, 0.95), 4)
    0.0981
    """
    from scipy.special import betaincinv

    if wrong >= answered:
        return 1.0
    return float(betaincinv(wrong + 1, answered - wrong, confidence))


def _check(
    confidences: Sequence[float], wrong: Sequence[bool], target: float, confidence: float
) -> None:
    if len(confidences) != len(wrong):
        raise CalibrationError(
            f"{len(confidences)} confidences for {len(wrong)} answers",
            what="unequal lengths",
            expected="one confidence for each answer",
            remedy="Pass the two columns of the same rows.",
        )
    for name, value in (("target", target), ("confidence", confidence)):
        if not 0 < value < 1:
            raise CalibrationError(
                f"{name} = {value}",
                what=f"{name} = {value}",
                expected="a number within (0, 1)",
                remedy="Give the error rate that is allowed as a share, such as 0.08."
                if name == "target"
                else "Give the probability as a share, such as 0.9.",
            )
    for value in confidences:
        if not 0 <= value <= 1:
            raise CalibrationError(
                f"a confidence of {value}",
                what=f"confidence {value}",
                expected="a probability within [0, 1]",
                remedy="Calibrate the predictions first.",
            )
