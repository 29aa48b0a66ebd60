"""The smallest change of inputs that turns a decision, with a certificate that none is smaller.

Wachter, Mittelstadt and Russell (2018) ask for the closest world in which the answer differs. Here
the world is a grid of values that the person can reach ("actionable" inputs), the search is
exhaustive over all single changes and then all pairs, and each candidate is a replay of the
decision itself. So an answer is valid by construction, and minimal on the grid by exhaustion: the
certificate says how many smaller candidates were replayed and did not turn the decision.

Smaller means fewer changed inputs first; among equally many, a smaller sum of distances, each in
steps of its grid; among equal distances, the order in which inputs and values were given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal, TypeAlias

from timemachine.errors import ExplanationError
from timemachine.explanation import Answer, Judge, Scalar, ask, same_value

__all__ = [
    "Certificate",
    "Change",
    "ChangeSearch",
    "Counterfactual",
    "Grid",
    "search_changes",
    "smallest_change",
]

Direction: TypeAlias = Literal["any", "up", "down"]


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that an input can be changed to, and the yardstick for how far that is.

    Args:
        values: at least one value; neither NaN nor None, no value twice.
        step: the change that counts as distance 1, above 0; the change of a value that is no
            number (a text, a truth value) counts as 1.
        unit: of the values, for readers, such as ``"$1000"``.
        direction: whether a value may only rise or only fall from the recorded one. Only numbers
            rise and fall.

    Raises ExplanationError for anything else.
    """

    values: tuple[Scalar, ...]
    step: float = 1.0
    unit: str = ""
    direction: Direction = "any"

    def __post_init__(self) -> None:
        if not self.values:
            raise ExplanationError(
                "a grid without values",
                what="values = ()",
                expected="at least one value",
                remedy="List the values that the input can be changed to.",
            )
        for value in self.values:
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                raise ExplanationError(
                    f"a grid holds {value}",
                    what=f"value {value}",
                    expected="a finite number, a text or a truth value",
                    remedy="Leave it out: nobody can change an input to a missing value.",
                )
            if self.direction != "any" and not _is_number(value):
                raise ExplanationError(
                    f"{value!r} cannot go {self.direction}",
                    what=f"value {value!r} with direction {self.direction!r}",
                    expected="numbers",
                    remedy='Use direction "any" and list the values allowed.',
                )
        if len(set(self.values)) < len(self.values):
            raise ExplanationError(
                "a grid holds a value twice",
                what=f"values = {self.values}",
                expected="distinct values",
                remedy="Remove the repetition.",
            )
        if not (math.isfinite(self.step) and self.step > 0):
            raise ExplanationError(
                f"a grid's step is {self.step}",
                what=f"step = {self.step}",
                expected="a finite number above 0",
                remedy="Give the change that counts as distance 1, in the input's unit.",
            )
        if self.direction not in ("any", "up", "down"):
            raise ExplanationError(
                f"a grid's direction is {self.direction!r}",
                what=f"direction = {self.direction!r}",
                expected='"any", "up" or "down"',
                remedy="Say how the input may change.",
            )

    @classmethod
    def between(
        cls, low: float, high: float, step: float, unit: str = "", direction: Direction = "any"
    ) -> Grid:
        """The values ``low, low + step, …`` up to ``high`` (to a millionth of a step).

        >>> Grid.between(0.5, 2.0, 0.5).values
        (0.5, 1.0, 1.5, 2.0)
        """
        if not (all(map(math.isfinite, (low, high, step))) and step > 0 and low <= high):
            raise ExplanationError(
                f"no grid goes from {low} to {high} in steps of {step}",
                what=f"low = {low}, high = {high}, step = {step}",
                expected="finite numbers, low <= high, step > 0",
                remedy="Swap the bounds or correct the step.",
            )
        count = math.floor((high - low) / step + 1e-6) + 1
        return cls(tuple(low + index * step for index in range(count)), step, unit, direction)

    def allows(self, recorded: Scalar, value: Scalar) -> bool:
        """Tell whether an input may be changed from the recorded value to this one."""
        if same_value(recorded, value):
            return False
        if self.direction == "any":
            return True
        assert isinstance(recorded, int | float)
        assert isinstance(value, int | float)
        return value > recorded if self.direction == "up" else value < recorded

    def distance(self, recorded: Scalar, value: Scalar) -> float:
        """How far the change is, in steps; 1 where the values are not both numbers."""
        if not (_is_number(recorded) and _is_number(value)):
            return 1.0
        assert isinstance(recorded, int | float)
        assert isinstance(value, int | float)
        # Rounded, so that three steps of 0.1 are as far as one of 0.3 and ties are true ties.
        return round(abs(value - recorded) / self.step, 9)


@dataclass(frozen=True, slots=True)
class Change:
    """One input, what was recorded, and what it would have to be."""

    name: str
    recorded: Scalar
    value: Scalar
    distance: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was replayed to be sure: how many candidates exist, were tried, and are smaller.

    ``candidates[k]`` is the number of ways to change exactly ``k`` inputs on the grid, for every
    ``k`` that the search reached; ``tried`` the number of replays; ``smaller_tried`` how many of
    them came before the change that was found in the order of size: none of those turned the
    decision. Where nothing was found, all were tried.
    """

    candidates: tuple[int, ...]
    tried: int
    smaller_tried: int


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """The smallest change on the grid that leads to the wanted answer; none if it was given."""

    changes: tuple[Change, ...]
    recorded: Answer
    answer: Answer
    certificate: Certificate

    @property
    def distance(self) -> float:
        """Sum of the distances of the changes, each in steps of its grid."""
        return sum(change.distance for change in self.changes)


@dataclass(frozen=True, slots=True)
class ChangeSearch:
    """The outcome of a search: what was found, if anything, and the certificate either way."""

    found: Counterfactual | None
    certificate: Certificate


def smallest_change(
    inputs: Mapping[str, Scalar],
    actionable: Mapping[str, Grid],
    judge: Judge,
    wanted: str | Callable[[Answer], bool],
    *,
    most_changes: int = 2,
) -> Counterfactual | None:
    """Find the smallest change of one input, else of two, that leads to the wanted answer.

    Takes the arguments of `search_changes`, whose outcome also certifies that nothing was found.

    >>> def judge(batch):
    ...     rows = [{"income": 20.0, "debt": 9.0, **overrides} for overrides in batch]
    ...     scores = [row["income"] - 2 * row["debt"] for row in rows]
    ...     return [Answer("approve" if score > 5 else "reject", score) for score in scores]
    >>> found = smallest_change(
    ...     {"income": 20.0, "debt": 9.0},
    ...     {"debt": Grid.between(0, 9, 1, "$1000", "down")},
    ...     judge,
    ...     "approve",
    ... )
    >>> found.changes[0].value, found.certificate.smaller_tried
    (7, 2)
    """
    return search_changes(inputs, actionable, judge, wanted, most_changes=most_changes).found


def search_changes(
    inputs: Mapping[str, Scalar],
    actionable: Mapping[str, Grid],
    judge: Judge,
    wanted: str | Callable[[Answer], bool],
    *,
    most_changes: int = 2,
) -> ChangeSearch:
    """Search all changes on the grid in the order of their size for the wanted answer.

    Args:
        inputs: the recorded inputs by name.
        actionable: the grid of each input that may change.
        judge: re-decides a batch of overrides.
        wanted: the label wanted, or a predicate over answers.
        most_changes: how many inputs may change at once, 1 or 2.

    Raises ExplanationError for an actionable input that the decision did not read or that was
    missing (None or NaN) and has a direction, and for a judge that fails to answer.
    """
    if most_changes not in (1, 2):
        raise ExplanationError(
            f"most_changes = {most_changes}",
            what=f"most_changes = {most_changes}",
            expected="1 or 2: larger changes cannot be searched exhaustively",
            remedy="Use 2.",
        )
    singles = {name: _single_changes(name, inputs, grid) for name, grid in actionable.items()}
    is_wanted = wanted if callable(wanted) else lambda answer: answer.label == wanted
    (recorded,) = ask(judge, [{}])
    candidates = [1]
    tried = 1
    smaller = 0
    if is_wanted(recorded):
        certificate = Certificate(tuple(candidates), tried, smaller)
        return ChangeSearch(Counterfactual((), recorded, recorded, certificate), certificate)
    smaller = 1
    for size in range(1, most_changes + 1):
        changes = _in_order_of_size(singles, size)
        candidates.append(len(changes))
        # Portions in the order of size: the first hit is the smallest, and the rest is not needed.
        for start in range(0, len(changes), 1024):
            portion = changes[start : start + 1024]
            answers = ask(judge, [{one.name: one.value for one in change} for change in portion])
            tried += len(portion)
            for offset, answer in enumerate(answers):
                if is_wanted(answer):
                    certificate = Certificate(tuple(candidates), tried, smaller + offset)
                    found = Counterfactual(portion[offset], recorded, answer, certificate)
                    return ChangeSearch(found, certificate)
            smaller += len(portion)
    return ChangeSearch(None, Certificate(tuple(candidates), tried, smaller))


def _single_changes(name: str, inputs: Mapping[str, Scalar], grid: Grid) -> list[Change]:
    if name not in inputs:
        raise ExplanationError(
            f"the decision read no input named {name!r}",
            what=f"actionable input {name!r}",
            expected=f"one of {', '.join(sorted(inputs))}",
            remedy="Give grids only for inputs that the decision read.",
        )
    recorded = inputs[name]
    missing = recorded is None or (isinstance(recorded, float) and math.isnan(recorded))
    if grid.direction != "any" and (missing or not _is_number(recorded)):
        raise ExplanationError(
            f"{name!r} was recorded as {recorded!r}, which cannot go {grid.direction}",
            what=f"{name} = {recorded!r}",
            expected="a number that was recorded",
            remedy='Leave the input out, or give its grid the direction "any".',
        )
    return [
        Change(name, recorded, value, 1.0 if missing else grid.distance(recorded, value), grid.unit)
        for value in grid.values
        if grid.allows(recorded, value)
    ]


def _in_order_of_size(
    singles: Mapping[str, Sequence[Change]], size: int
) -> list[tuple[Change, ...]]:
    changes = [
        change
        for names in combinations(singles, size)
        for change in product(*(singles[name] for name in names))
    ]
    changes.sort(key=lambda change: round(sum(one.distance for one in change), 9))
    return changes


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
