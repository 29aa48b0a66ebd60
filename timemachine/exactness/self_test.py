"""The self-test: call a model in many ways and compare the bits of its answers row by row."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import threadpoolctl

from timemachine.errors import ModelNotTestable
from timemachine.exactness.classes import Evidence, ExactnessClass, ExactnessReport, Factor
from timemachine.exactness.plan import ExactnessSettings, Probe, probes
from timemachine.ulps import bit_view, ulps_between

__all__ = ["aligned", "classify"]

Array = np.ndarray[Any, Any]

_BOUNDARY = 64
_FEWEST_REFERENCE_ROWS = 128


def classify(
    predict: Callable[[Array], Array],
    rows: Array,
    *,
    settings: ExactnessSettings | None = None,
) -> ExactnessReport:
    """Measure the exactness class of ``predict``, which maps rows (n, d) to answers (n, ...).

    ``rows`` are real inputs, at least 2 and better 1,024: a model has other bits on zeros than on
    data. The model is called with a fresh copy each time and, within this call, with BLAS and
    OpenMP set to the thread counts of the settings; they are restored afterwards. Whatever
    ``predict`` raises is passed on.

    Raises ``ModelNotTestable`` when the rows or the answers have no shape that can be compared.

    >>> import numpy as np
    >>> rows = np.random.default_rng(0).normal(size=(64, 3))
    >>> classify(lambda x: x.sum(axis=1), rows).exactness.value
    'invariant'
    """
    settings = settings or ExactnessSettings()
    rows = np.asarray(rows)
    if rows.ndim != 2 or len(rows) < 2 or rows.dtype.hasobject:
        raise ModelNotTestable(
            f"the self-test got rows of shape {rows.shape} and type {rows.dtype}",
            what="rows",
            expected="a numeric matrix of at least 2 rows",
            remedy="pass a sample of the model's real inputs",
        )
    return _SelfTest(predict, rows[: settings.max_rows], settings).run()


def aligned(rows: Array, offset: int = 0) -> Array:
    """Copy ``rows`` into a C-contiguous buffer that begins ``offset`` elements past 64 bytes."""
    size = rows.dtype.itemsize
    buffer = np.empty(rows.nbytes + _BOUNDARY + offset * size, np.uint8)
    start = -buffer.__array_interface__["data"][0] % _BOUNDARY + offset * size
    copy = buffer[start : start + rows.nbytes].view(rows.dtype).reshape(rows.shape)
    copy[...] = rows
    return copy


class _Tally:
    """Counts the comparisons of one factor."""

    def __init__(self) -> None:
        self.compared = 0
        self.differing = 0
        self.max_ulps: int | None = 0
        self.example = ""

    def compare(self, earlier: Array, later: Array, probe: Probe, picked: Array | None) -> None:
        rows = probe.rows if picked is None else probe.rows[picked]
        self.compared += len(rows)
        if earlier.tobytes() == later.tobytes():
            return
        differ = (bit_view(earlier) != bit_view(later)).reshape(len(rows), -1).any(axis=1)
        if not differ.any():
            return
        if not self.differing:
            self.example = (
                f"row {int(rows[int(np.argmax(differ))])} in a batch of {len(probe.rows)}, "
                f"{probe.threads} thread(s), buffer offset {probe.offset}"
            )
        self.differing += int(differ.sum())
        ulps = ulps_between(earlier[differ], later[differ])
        if self.max_ulps is not None:
            self.max_ulps = None if ulps is None else max(self.max_ulps, ulps)


class _SelfTest:
    def __init__(
        self, predict: Callable[[Array], Array], rows: Array, settings: ExactnessSettings
    ) -> None:
        self.predict = predict
        self.rows = rows
        self.settings = settings
        self.tallies = {factor: _Tally() for factor in Factor}
        self.shape: tuple[int, ...] | None = None
        self.dtype: np.dtype[Any] | None = None
        self.bases: dict[tuple[int, int, int], tuple[Probe, Array]] = {}

    def run(self) -> ExactnessReport:
        settings = self.settings
        plan = list(probes(len(self.rows), settings))
        asked = {probe.asks for probe in plan if probe.asks} | {Factor.BATCH_SIZE}
        if len(set(settings.threads)) > 1:
            asked.add(Factor.THREADS)
        began = time.perf_counter()
        deadline = began + settings.budget_s
        controller = threadpoolctl.ThreadpoolController()
        covered: set[tuple[int, int]] = set()
        touched = np.zeros(len(self.rows), dtype=bool)
        calls = 0
        limits = None
        held: list[bytearray] = []
        try:
            for probe in plan:
                if limits is None or limits[0] != probe.threads:
                    if limits is not None:
                        limits[1].restore_original_limits()
                    limits = (probe.threads, controller.limit(limits=probe.threads))
                if not calls:
                    self._warm_up()
                    reference = self._reference()
                if probe.asks is Factor.REPEAT:
                    # The model's own temporaries must not find the same holes in the heap again:
                    # another process will not have them either.
                    held.append(bytearray(24 + 40 * (calls % 97)))
                answer = self._call(probe.rows, probe.offset)
                calls += 1
                touched[probe.rows] = True
                covered.add((probe.threads, len(probe.rows)))
                self._judge(probe, answer, reference)
                if self.tallies[Factor.REPEAT].differing:
                    break
                if time.perf_counter() > deadline:
                    asked = {factor for factor in asked if not self.tallies[factor].compared}
                    if not asked:
                        break
        finally:
            if limits is not None:
                limits[1].restore_original_limits()
        return ExactnessReport(
            exactness=self._class(),
            evidence=tuple(
                Evidence(factor, seen.compared, seen.differing, seen.max_ulps, seen.example)
                for factor, seen in self.tallies.items()
            ),
            rows=int(touched.sum()),
            batch_sizes=tuple(sorted({size for _, size in covered})),
            threads=tuple(sorted({threads for threads, _ in covered})),
            calls=calls,
            planned=len(plan),
            seconds=time.perf_counter() - began,
        )

    def _warm_up(self) -> None:
        self._call(np.zeros(1, dtype=np.intp), 0)

    def _reference(self) -> Array:
        """All rows in one call, or as many as a fifth of the budget pays for."""
        few = np.arange(min(32, len(self.rows)))
        began = time.perf_counter()
        self._call(few, 0)
        per_row = (time.perf_counter() - began) / len(few)
        affordable = int(self.settings.budget_s / 5 / per_row)
        count = min(len(self.rows), max(_FEWEST_REFERENCE_ROWS, affordable))
        return self._call(np.arange(count), 0)

    def _call(self, picked: Array, offset: int) -> Array:
        answer = np.asarray(self.predict(aligned(self.rows[picked], offset)))
        if answer.ndim < 1 or len(answer) != len(picked) or answer.dtype.hasobject:
            raise ModelNotTestable(
                f"the model answered {len(picked)} rows with shape {answer.shape} "
                f"and type {answer.dtype}",
                what="predict",
                expected=f"a numeric or text array of {len(picked)} answers",
                remedy="give the self-test the function that returns one answer a row",
            )
        if self.shape is None:
            self.shape, self.dtype = answer.shape[1:], answer.dtype
        elif answer.shape[1:] != self.shape or answer.dtype != self.dtype:
            raise ModelNotTestable(
                f"the model answered with shape {answer.shape[1:]} and type {answer.dtype} a row, "
                f"before with {self.shape} and {self.dtype}",
                what="predict",
                expected="one shape and type for every batch",
                remedy="fix the model's output shape and type",
            )
        # A model may hand out a view of a buffer that its next call overwrites.
        return np.array(answer, order="C", copy=True)

    def _judge(self, probe: Probe, answer: Array, reference: Array) -> None:
        key = (probe.threads, *probe.group)
        if probe.asks is None:
            self.bases[key] = (probe, answer)
            first = self.settings.threads[0]
            if probe.threads != first:
                alike = self.bases[first, *probe.group][1]
                self._compare(Factor.THREADS, alike, answer, probe)
            elif len(reference) != len(probe.rows):
                known = probe.rows < len(reference)
                alike = reference[probe.rows[known]]
                self._compare(Factor.BATCH_SIZE, alike, answer, probe, known)
            return
        base, earlier = self.bases[key]
        if probe.asks is Factor.POSITION:
            place = {int(row): index for index, row in enumerate(base.rows)}
            earlier = earlier[[place[int(row)] for row in probe.rows]]
            self._compare(probe.asks, earlier, answer, probe)
        elif probe.asks is Factor.COMPANIONS:
            stayed = base.rows == probe.rows
            self._compare(probe.asks, earlier[stayed], answer, probe, stayed)
        else:
            self._compare(probe.asks, earlier, answer, probe)

    def _compare(
        self,
        factor: Factor,
        earlier: Array,
        answer: Array,
        probe: Probe,
        picked: Array | None = None,
    ) -> None:
        later = answer if picked is None else answer[picked]
        self.tallies[factor].compare(np.ascontiguousarray(earlier), later, probe, picked)

    def _class(self) -> ExactnessClass:
        def differs(*factors: Factor) -> bool:
            return any(self.tallies[factor].differing for factor in factors)

        if differs(Factor.REPEAT):
            return ExactnessClass.UNSTABLE
        if differs(Factor.COMPANIONS, Factor.POSITION):
            return ExactnessClass.BATCH_BOUND
        if differs(Factor.BATCH_SIZE, Factor.ALIGNMENT, Factor.THREADS):
            return ExactnessClass.SHAPE_STABLE
        return ExactnessClass.INVARIANT
