"""``python -m benchmarks [name ...] [--quick] [--setup] [--write-docs] [--here]``.

Prints one line of JSON for each figure. Every bench runs in a process of its own, so that none
meets what another one left behind, and one that fails, crashes or hangs stops no other.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence

from benchmarks import document, peers
from benchmarks.discovery import benches_of, module_names, modules_for
from benchmarks.measure import FULL, QUICK, Bench, Figure

QUICK_RUN_SECONDS = 570.0
ONE_BENCH_SECONDS = 1800.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 when a bench failed, 2 for a wrong command."""
    asked = _parser().parse_args(arguments)
    if asked.setup:
        built = peers.set_up(peers.ENVIRONMENTS)
        _say(f"built: {', '.join(built) or 'nothing, all are there'}")
        return 0
    if asked.write_docs and (asked.quick or asked.name):
        _say("--write-docs states a full run: give it neither a name nor --quick")
        return 2
    try:
        modules = modules_for(asked.name, module_names())
    except LookupError as error:
        _say(str(error))
        return 2

    failures = 0
    benches: list[Bench] = []
    for module in modules:
        try:
            benches += benches_of(module, asked.name)
        except Exception:
            failures += 1
            _say(f"{module}: its benches cannot be listed\n{traceback.format_exc()}")

    figures: list[Figure] = []
    deadline = time.monotonic() + (QUICK_RUN_SECONDS if asked.quick else float("inf"))
    for bench in benches:
        measured = _here(bench, asked.quick) if asked.here else _apart(bench, asked.quick, deadline)
        failures += not measured
        figures += measured
    if asked.write_docs and not failures:
        document.write(figures)
    return 1 if failures else 0


def _here(bench: Bench, quick: bool) -> list[Figure]:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            figures = list(bench.run(QUICK if quick else FULL))
    except Exception:
        _say(f"{bench.name} failed\n{traceback.format_exc()}")
        return []
    for figure in figures:
        print(figure.line(), flush=True)
    if not figures:
        _say(f"{bench.name} failed: it gave no figure")
    return figures


def _apart(bench: Bench, quick: bool, deadline: float) -> list[Figure]:
    command = [sys.executable, "-m", "benchmarks", bench.name, "--here"]
    patience = min(ONE_BENCH_SECONDS, deadline - time.monotonic())
    try:
        finished = subprocess.run(
            [*command, "--quick"] if quick else command,
            stdout=subprocess.PIPE,
            text=True,
            timeout=max(patience, 0.0),
        )
    except subprocess.TimeoutExpired:
        _say(f"{bench.name} failed: no figure after {patience:.0f} s")
        return []
    print(finished.stdout, end="", flush=True)
    if finished.returncode:
        _say(f"{bench.name} ended with status {finished.returncode}")
        return []
    return [Figure.parse(line) for line in finished.stdout.splitlines()]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help="a module or a bench: journal, kernel.thread_noop")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; ends within 10 minutes")
    parser.add_argument("--setup", action="store_true", help="build the peers' own environments")
    parser.add_argument("--write-docs", action="store_true", help="renew docs/benchmarks.md")
    parser.add_argument("--here", action="store_true", help="in this process, for a profiler")
    return parser


if __name__ == "__main__":
    sys.exit(main())
