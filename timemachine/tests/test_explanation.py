"""The vocabulary of explanations, and the examples in their docstrings."""

from __future__ import annotations

import doctest
import math
from pathlib import Path

import pytest

from timemachine import attribution, counterfactual, explanation
from timemachine.errors import ExplanationError
from timemachine.explanation import Answer, ask, same_value


@pytest.mark.parametrize("module", [explanation, attribution, counterfactual])
def test_the_examples_in_the_docstrings_run(module):
    assert doctest.testmod(module).failed == 0


def test_questions_are_asked_in_portions_and_answered_in_order():
    portions = []

    def judge(batch):
        portions.append(len(batch))
        return [Answer("x", overrides["a"]) for overrides in batch]

    answers = ask(judge, [{"a": float(i)} for i in range(10)], batch_size=4)

    assert [answer.score for answer in answers] == list(range(10))
    assert portions == [4, 4, 2]


def test_a_missing_answer_is_named():
    with pytest.raises(ExplanationError, match="1 answers to 2 questions") as caught:
        ask(lambda batch: [Answer("x", 1.0)], [{}, {"a": 1}])
    assert caught.value.remedy


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_names_the_inputs_replaced(score):
    with pytest.raises(ExplanationError, match="when income is replaced"):
        ask(lambda batch: [Answer("x", score)], [{"income": 0.0}])


def test_a_missing_value_is_the_same_input_as_itself():
    assert same_value(math.nan, math.nan)
    assert same_value(None, None)
    assert not same_value(math.nan, 0.0)
    assert not same_value(None, math.nan)


def test_the_examples_on_the_page_run():
    page = Path(__file__).parents[2] / "docs" / "explanation.md"
    results = doctest.testfile(str(page), module_relative=False)
    assert results.attempted > 0
    assert results.failed == 0
