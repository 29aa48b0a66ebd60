"""The store that the tests of the command line share; who alters it, copies it."""

from __future__ import annotations

import pytest

from srds.tests.desk import Left, make


@pytest.fixture(scope="session")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    return make(tmp_path_factory.mktemp("desk"))


@pytest.fixture
def bob(left: Left) -> str:
    """The id of the decision that rejected bob."""
    return left.ids["grant", "bob"]
