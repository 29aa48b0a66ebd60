"""The counters add up, and Prometheus can read them."""

from __future__ import annotations

import gc
import math
import re
import threading
import urllib.error
import urllib.request
import weakref

import pytest

from microkernel import DeadlineMissed, Kernel, KernelClosed, KernelError, KernelSettings
from microkernel.tracing import prometheus_text

pytestmark = pytest.mark.timeout(60)

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"^({NAME})(?:\{{(.*)\}})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"')

Samples = dict[str, list[tuple[dict[str, str], float]]]


def parsed(text: str) -> Samples:
    """A strict reading of the exposition format 0.0.4: each family with HELP, TYPE, samples."""
    assert text.endswith("\n")
    families: Samples = {}
    lines = iter(text.splitlines())
    family = ""
    for line in lines:
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert re.fullmatch(NAME, family)
            assert family not in families, "the lines of a family stand together"
            families[family] = []
            kind = next(lines).split(" ")
            assert kind[:3] == ["#", "TYPE", family]
            assert kind[3] in ("counter", "gauge")
            assert (kind[3] == "counter") == family.endswith("_total")
            continue
        match = SAMPLE.match(line)
        assert match, line
        name, inner, value = match.groups()
        assert name == family
        labels = dict(LABEL.findall(inner or ""))
        assert ",".join(f'{a}="{b}"' for a, b in LABEL.findall(inner or "")) == (inner or "")
        assert math.isfinite(float(value))
        assert labels not in [one for one, _ in families[family]]
        families[family].append((labels, float(value)))
    return families


def test_they_count_what_was_submitted_and_how_it_ended() -> None:
    begun, gate = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        gate.wait(30)

    with Kernel(KernelSettings(placement="thread", threads=1)) as kernel:
        kernel.get([kernel.submit(int) for _ in range(10)])
        with pytest.raises(ValueError, match="invalid"):
            kernel.get(kernel.submit(int, "x"))
        running = kernel.submit(wait)
        assert begun.wait(30)
        queued = kernel.submit(int)
        cancelled = kernel.submit(int)
        assert kernel.cancel(cancelled)
        with pytest.raises(DeadlineMissed):
            kernel.get(kernel.options(deadline=0.001).submit(int))
        inline = kernel.options(placement="inline").submit(int)
        now = kernel.counters()
        gate.set()
        kernel.get([running, queued, inline])
        later = kernel.counters()
    thread = now.places["thread"]
    assert (thread.submitted, thread.finished, thread.failed) == (15, 10, 1)
    assert (thread.cancelled, thread.missed) == (1, 1)
    assert (thread.running, thread.queued) == (1, 1)
    assert now.places["inline"].queued == 1
    assert (later.submitted, later.ended, later.running, later.queued) == (16, 16, 0, 0)
    worker = next(one for one in later.workers if one.name == "srds-worker-0")
    assert worker.tasks == 13
    assert worker.busy_seconds > 0
    assert worker.running is None


def test_decisions_are_counted() -> None:
    with Kernel() as kernel:
        kernel.decision(abs, -2)
        with pytest.raises(TypeError):
            kernel.decision(abs, "x")
        inline = kernel.counters().places["inline"]
    assert (inline.submitted, inline.finished, inline.failed, inline.running) == (2, 1, 1, 0)


def test_what_a_thread_runs_is_shown_while_it_runs() -> None:
    begun, gate = threading.Event(), threading.Event()

    def busy() -> None:
        begun.set()
        gate.wait(30)

    with Kernel(KernelSettings(placement="thread", threads=1)) as kernel:
        ref = kernel.submit(busy)
        assert begun.wait(30)
        (worker,) = kernel.counters().workers
        assert worker.running is not None
        assert worker.running.endswith("busy")
        assert worker.running_seconds > 0
        gate.set()
        kernel.get(ref)


def test_the_text_is_what_prometheus_reads() -> None:
    name = 'thread "with" odd \\ name\n'

    def task() -> None:
        pass

    with Kernel() as kernel:
        thread = threading.Thread(target=lambda: kernel.get(kernel.submit(task)), name=name)
        thread.start()
        thread.join()
        text = prometheus_text(kernel.counters())
    families = parsed(text)
    assert ({"placement": "inline"}, 1.0) in families["srds_tasks_submitted_total"]
    ended = families["srds_tasks_ended_total"]
    assert ({"placement": "inline", "status": "finished"}, 1.0) in ended
    (labels, count), *_ = families["srds_worker_tasks_total"]
    assert count == 1
    assert labels["worker"].replace(r"\"", '"').replace(r"\n", "\n").replace("\\\\", "\\") == name


def test_its_own_client_library_reads_the_text() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    with Kernel() as kernel:
        kernel.get(kernel.submit(int))
        text = prometheus_text(kernel.counters())
    theirs = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    ours = {
        (name, *sorted(labels.items())): value
        for name, samples in parsed(text).items()
        for labels, value in samples
    }
    assert theirs == ours


def fetch(url: str) -> tuple[int, str, str]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def test_metrics_are_served_while_the_kernel_is_open() -> None:
    with Kernel() as kernel:
        server = kernel.serve_metrics()
        kernel.get(kernel.submit(int))
        status, kind, text = fetch(server.url)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert ({"placement": "inline"}, 1.0) in parsed(text)["srds_tasks_submitted_total"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(server.url.replace("/metrics", "/"))
        with pytest.raises(KernelError, match="cannot be served"):
            kernel.serve_metrics(server.port)
        with pytest.raises(KernelError, match="cannot be served"):
            kernel.serve_metrics(70000)
    with pytest.raises(urllib.error.URLError):
        fetch(server.url)
    with pytest.raises(KernelClosed):
        kernel.serve_metrics()


def test_many_may_ask_at_once() -> None:
    with Kernel() as kernel:
        url = kernel.serve_metrics().url
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(fetch(url)[0])) for _ in range(30)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [200] * 30


def test_serving_does_not_keep_a_kernel_alive() -> None:
    kernel = Kernel()
    server = kernel.serve_metrics()
    gone = weakref.ref(kernel)
    del kernel
    gc.collect()
    assert gone() is None
    with pytest.raises(urllib.error.HTTPError, match="503"):
        fetch(server.url)
    server.close()
