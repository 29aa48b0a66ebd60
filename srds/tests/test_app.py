"""The app: what is open, what decisions rest on, and what a record may run."""

import asyncio

import pytest

import srds
from timemachine.replay import Records


@pytest.fixture
def app():
    return srds.App("desk")


def test_a_decision_needs_the_app_to_be_open(app, tmp_path):
    @app.decision
    def double(n):
        return 2 * n

    with pytest.raises(srds.AppError, match="is not open"):
        double(2)
    with app.open(tmp_path / "s"):
        assert double(2) == 4
        with pytest.raises(srds.AppError, match="is open already"), app.open(tmp_path / "t"):
            pass
    assert not (tmp_path / "t").exists() or not (tmp_path / "t" / "journal").exists()


def test_subject_and_policy_are_recorded_however_the_argument_is_given(app, tmp_path):
    @app.decision(subject="who", policy="house rules")
    def admit(day, who):
        return who.islower()

    with app.open(tmp_path) as opened:
        admit(1, "ada")
        admit(2, who="Bob")
        records = list(Records(opened.store.reader()))
    assert [(one.subject, one.policy) for one in records] == [
        ("ada", "house rules"),
        ("Bob", "house rules"),
    ]


def test_an_unknown_subject_is_refused_when_the_function_is_decorated(app):
    with pytest.raises(srds.AppError, match="has no parameter 'whom'"):

        @app.decision(subject="whom")
        def admit(who):
            return True


def test_resources_belong_to_the_versions_in_force_and_are_no_inputs(app, tmp_path):
    made = []

    @app.resource
    def model(opened):
        made.append(opened.versions)
        return srds.read("disk", "model", lambda: len(made))

    @app.decision
    def ask():
        return model()

    with app.open(tmp_path) as opened:
        opened.deploy(["aa"])
        assert (ask(), ask()) == (1, 1)
        opened.deploy(["bb"])
        assert ask() == 2
        with opened.resting_on(["aa"]):
            assert ask() == 1
        records = list(Records(opened.store.reader()))
    assert made == [("aa",), ("bb",)]
    assert [one.versions for one in records] == [("aa",), ("aa",), ("bb",), ("aa",)]
    assert not any(one.inputs for one in records)


def test_a_coroutine_function_is_awaited_and_gives_its_id(app, tmp_path):
    @app.decision
    async def later(n):
        await asyncio.sleep(0)
        return n + 1

    async def go():
        assert await later(1) == 2
        return await later.decide(2)

    with app.open(tmp_path) as opened:
        made = asyncio.run(go())
        assert made.answer == 3
        assert Records(opened.store.reader()).find(made.id.hex()).outcome.value == 3


def test_only_decisions_of_the_app_are_resolved(app):
    @app.decision
    def admit(who):
        return True

    name = f"{__name__}:{admit.function.__qualname__}"
    assert app.resolve(name) is admit.function
    assert app.resolve(f"__main__:{admit.function.__qualname__}") is admit.function
    for foreign in ("os:system", f"os:{admit.function.__qualname__}", f"{__name__}:pytest", "x"):
        with pytest.raises(srds.AppError, match="is no decision of the app"):
            app.resolve(foreign)


def test_an_error_inside_the_block_still_closes_the_store(app, tmp_path):
    with pytest.raises(RuntimeError), app.open(tmp_path):
        raise RuntimeError
    with app.open(tmp_path) as opened:
        assert opened.journal.recovery.ring == "none"


def test_nothing_is_written_when_the_app_is_open_for_replays(app, tmp_path):
    with pytest.raises(srds.StoreError), app.open(tmp_path / "none", recording=False):
        pass
    with app.open(tmp_path / "s"):
        pass
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "s").rglob("*"))
    with app.open(tmp_path / "s", recording=False) as opened:
        assert opened.journal is None
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "s").rglob("*")) == before
