"""What holds for all tests: nothing but a decision's own code runs within a decision."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A busy machine is no failure: what must be quick is measured in benchmarks/.
settings.register_profile("srds", deadline=None)
settings.load_profile("srds")


@pytest.fixture(autouse=True)
def _no_clock_in_the_collector() -> Iterator[None]:
    """Hypothesis reads a clock whenever the collector runs, also in the middle of a decision.

    There that reading would be an input of the decision, which no replay asks for again.
    """
    callbacks = gc.callbacks[:]
    gc.callbacks[:] = [one for one in callbacks if not one.__module__.startswith("hypothesis")]
    yield
    gc.callbacks[:] = callbacks
