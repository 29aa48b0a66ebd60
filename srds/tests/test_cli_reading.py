"""``srds log``, ``show`` and ``why``: what is recorded, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srds.tests.desk import Left, errors, make


def test_the_log_lists_decisions_with_the_newest_last(left: Left) -> None:
    lines = left("log").splitlines()
    assert lines[0].split() == ["id", "time", "function", "subject", "answer", "took"]
    assert [line.split()[3] for line in lines[1:]] == [
        *["__main__:grant"] * 5,
        *["__main__:well_off"] * 2,
        "__main__:odd",
    ]
    assert lines[2].startswith(left.ids["grant", "bob"][:12])
    assert "bob" in lines[2]
    assert "reject" in lines[2]
    assert "reject (-8)" in lines[2]
    assert "KeyError('eve')" in lines[5]
    assert all(line == line.rstrip() for line in lines)
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--limit", "2"], [("well_off", "bob"), ("odd", None)]),
        (["--name", "well"], [("well_off", "ada"), ("well_off", "bob")]),
        (["--subject", "bob"], [("grant", "bob"), ("well_off", "bob")]),
        (["--answer", "approve"], [("grant", "ada"), ("grant", "cyd")]),
        (["--failed"], [("grant", "eve")]),
        (["--subject", "bob", "--name", "grant"], [("grant", "bob")]),
        (["--name", "nothing"], []),
    ],
)
def test_the_log_is_filtered(
    left: Left, options: list[str], expected: list[tuple[str, Any]]
) -> None:
    decisions = left.json("log", *options)["decisions"]
    assert [one["id"] for one in decisions] == [left.ids[key] for key in expected]


def test_the_log_says_when_there_is_nothing(left: Left) -> None:
    assert left("log", "--name", "nothing") == "no decisions\n"


def test_a_decision_whose_process_died_is_unfinished(tmp_path: Path) -> None:
    left = make(tmp_path, "die")
    (one,) = left.json("log", "--name", "leave")["decisions"]
    assert not one["finished"]
    assert one["answer"] is None
    assert "unfinished" in left("log", "--failed")
    assert "never closed" in left("show", one["id"])
    app = ["--app", str(left.file)]
    assert "never closed" in errors("replay", one["id"], *app, "--store", str(left.store))
    every = left.json("replay", "--all", *app)
    assert every["ok"]
    assert every["unfinished"] == 1
    assert every["exact"] == 8


def test_show_tells_everything_that_is_recorded(left: Left, bob: str) -> None:
    text = left("show", bob)
    for part in (bob, "__main__:grant", "prudent", "[bob, income]", "Salem", "time.time"):
        assert part in text
    assert "__main__:points" in text
    document = left.json("show", bob[:8])
    assert document["id"] == bob
    assert document["arguments"] == ["bob"]
    assert document["policy"] == "prudent"
    assert document["answer"] == {"answer": "reject", "score": -8.0}
    reads = [one for one in document["inputs"] if one["kind"] == "read"]
    assert [one["value"] for one in reads] == [20.0, 14.0, "Salem", False, 8]
    (task,) = document["tasks"]
    assert (task["name"], task["ok"], task["parent"]) == ("__main__:points", True, bob)
    assert "python.version" in document["environment"]
    journal = document["journal"]
    assert all(
        journal["first_event"] < one["event"] < journal["last_event"] for one in document["inputs"]
    )


def test_show_keeps_an_error_and_named_arguments(left: Left) -> None:
    document = left.json("show", left.ids["grant", "eve"])
    assert not document["ok"]
    assert document["answer"] == ["builtins:KeyError", ["eve"]]
    assert "error: KeyError('eve')" in left("show", left.ids["grant", "eve"])
    assert left.json("show", left.ids["grant", "nan"])["named_arguments"] == {"purpose": "boat"}


def test_values_that_json_lacks_are_written_as_text(left: Left) -> None:
    answer = left.json("show", left.ids["odd", None])["answer"]
    assert answer == {
        "what": "things",
        "bytes": "AP8=",
        "infinite": "-Infinity",
        "set": [1, 2],
        "when": "2020-01-02T00:00:00+00:00",
        "3": [1, 2],
    }
    assert left.json("show", left.ids["grant", "nan"])["answer"]["score"] == "NaN"


def test_what_was_recorded_cannot_paint_on_the_terminal(left: Left) -> None:
    nan = left.ids["grant", "nan"]
    for text in (left("show", nan), left("why", nan), left("log")):
        assert "\x1b" not in text
    assert "[red]\\x1b[31mLynn" in left("show", nan)


def test_why_shows_inputs_models_and_what_those_came_from(left: Left, bob: str) -> None:
    lines = left("why", bob).splitlines()
    assert lines[0] == f"decision __main__:grant {bob}"
    assert "  input income = 20.0" in lines
    assert any(line.startswith("  used model/desk ") for line in lines)
    assert any(line.startswith("    trained_on dataset/people ") for line in lines)
    shallow = left("why", bob, "--depth", "0")
    assert "model/desk" in shallow
    assert "dataset/people" not in shallow
    document = left.json("why", bob)
    assert [one["name"] for one in document["lineage"]["nodes"]] == ["desk", "people"]
    assert document["inputs"]["town"] == "Salem"


def test_why_of_an_app_without_a_catalogue_shows_the_inputs(left: Left, tmp_path: Path) -> None:
    copy = left.copy(tmp_path / "copy")
    for path in copy.store.glob("ground.db*"):
        path.unlink()
    document = copy.json("why", left.ids["grant", "bob"])
    assert document["inputs"]["income"] == 20.0
    assert len(document["missing"]) == 1
