"""A journal names code; only the user, and what is shipped, say which code is loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from srds.errors import AppError
from srds.finding_apps import AppFinder

APP = """
from srds import App

app = App("door")


@app.decision
def admit(name):
    return name.islower()


def helper():
    return None
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "door.py"
    path.write_text(APP)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "subprocess:run",
        "antigravity:fly",
        "this:d",
        "srds.apps:mortgage",
        "srds.apps.no_such_app:decide",
        "srds.apps.mortgage.inner:decide",
        "srds.apps._hidden:decide",
        "srds.apps.../evil:decide",
        "srds.app:App.open",
        "srds.cli:main",
        "__main__:main",
        ":",
        "",
        "nothing",
    ],
)
def test_what_a_journal_names_is_not_imported(name: str) -> None:
    loaded = set(sys.modules)
    with pytest.raises(AppError) as caught:
        AppFinder().find(name)
    assert "--app" in caught.value.remedy
    assert name.partition(":")[0] not in set(sys.modules) - loaded


def test_a_module_beside_the_store_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('sprung')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AppError):
        AppFinder().find("trap:decide")


def test_a_shipped_function_that_is_no_decision_is_refused() -> None:
    with pytest.raises(AppError, match="is no decision function"):
        AppFinder().find("srds.apps.mortgage:run")


def test_a_named_file_answers_for_the_script_and_for_its_module(file: Path) -> None:
    finder = AppFinder(str(file))
    found = finder.find("__main__:admit")
    assert found.function("ada")
    assert finder.find("door:admit") is found
    assert finder.function("door:admit") is found.function
    assert "door" not in sys.modules


@pytest.mark.parametrize("name", ["door:helper", "__main__:helper", "door:admit.__globals__"])
def test_only_decisions_of_the_named_app_are_found(file: Path, name: str) -> None:
    with pytest.raises(AppError, match="is no decision function"):
        AppFinder(str(file)).find(name)


@pytest.mark.parametrize("name", ["os:system", "window:admit"])
def test_a_named_app_does_not_answer_for_others(file: Path, name: str) -> None:
    with pytest.raises(AppError, match="which is not in"):
        AppFinder(str(file)).find(name)


def test_one_of_several_apps_is_picked_by_name(file: Path) -> None:
    file.write_text(APP + "\n\nother = App('other')\n\n\n@other.decision\ndef admit(name):\n"
                    "    return True\n")  # fmt: skip
    with pytest.raises(AppError, match="2 apps"):
        AppFinder(str(file)).find("door:admit")
    assert AppFinder(f"{file}:other").app_of("door:admit").name == "other"
    assert AppFinder(f"{file}:app").app_of("door:admit").name == "door"
    with pytest.raises(AppError, match="has no app"):
        AppFinder(f"{file}:nothing").find("door:admit")


def test_a_named_module_is_found_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "porch").mkdir()
    (tmp_path / "porch" / "front_door.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    finder = AppFinder("porch.front_door")
    assert finder.find("porch.front_door:admit") is finder.find("__main__:admit")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("no_such_module_here", "there is no module"),
        ("no_such_package_here.app", "there is no module"),
        ("missing.py", "there is no file"),
        ("a b", "neither a module"),
        ("json", "has no app"),
    ],
)
def test_what_cannot_be_loaded_is_named(named: str, message: str) -> None:
    with pytest.raises(AppError, match=message):
        AppFinder(named).find("door:admit")


def test_an_import_that_fails_within_the_app_is_its_own_error(file: Path) -> None:
    file.write_text("import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        AppFinder(str(file)).find("door:admit")
    assert not [name for name in sys.modules if name.startswith("_srds_app_door")]
