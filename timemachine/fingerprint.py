"""The environment that a computation ran in, as far as it decides the bits of its results.

A replay on another processor, BLAS or library version may honestly give other bits; the
fingerprint lets it say so before it runs instead of reporting a divergence afterwards. It names no
host, user or path, and imports nothing that the process does not use: versions come from package
metadata.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Difference", "differences", "fingerprint"]

_PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "onnxruntime",
    "torch",
    "lightgbm",
    "xgboost",
    "threadpoolctl",
)

# Each of these changes which kernel a numeric library picks, how many threads it uses, or the order
# of sets and dict keys built from strings.
_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "NPY_DISABLE_CPU_FEATURES",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
)

# The other flags (mitigations, virtualisation, timers) come and go with the operating system's
# version and decide no arithmetic.
_ARITHMETIC_FLAG = re.compile(r"^(sse|ssse|avx|fma|f16c|amx|neon|asimd|sve|fp|sha_ni)")

_LOADED = "loaded."
_DETAILS = ("architecture", "threading_layer")


@dataclass(frozen=True)
class Difference:
    """One entry that differs: its key, and its value then and now; None where there was none."""

    key: str
    recorded: str | None
    present: str | None

    def __str__(self) -> str:
        return f"{self.key}: was {self.recorded or 'absent'}, is {self.present or 'absent'}"


def fingerprint() -> dict[str, str]:
    """Describe this process's environment as a flat mapping of texts, keys in sorted order.

    Keys under ``loaded.`` are the BLAS and OpenMP libraries in the process *now*, with their
    kernels and thread counts: take the fingerprint after the model is loaded to have them.
    """
    found = {
        "python.version": platform.python_version(),
        "python.implementation": platform.python_implementation(),
        "python.hash_randomization": str(sys.flags.hash_randomization),
        "libc": " ".join(platform.libc_ver()).strip(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads.available": str(_available_processors()),
    }
    found.update(_processor())
    for name in _PACKAGES:
        try:
            found[f"version.{name}"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name in _VARIABLES:
        if name in os.environ:
            found[f"env.{name}"] = os.environ[name]
    found.update(_loaded_libraries())
    return dict(sorted(found.items()))


def differences(recorded: Mapping[str, str], present: Mapping[str, str]) -> tuple[Difference, ...]:
    """The entries in which two fingerprints differ, by key.

    A library that was loaded on one side only is no difference: its version, the processor and the
    environment variables, which decide what it computes, are compared in any case.

    >>> differences({"env.MKL_CBWR": "AVX2"}, {})[0].present is None
    True
    """
    found = []
    for key in sorted({*recorded, *present}):
        was, now = recorded.get(key), present.get(key)
        if was == now or (key.startswith(_LOADED) and None in (was, now)):
            continue
        found.append(Difference(key, was, now))
    return tuple(found)


def _available_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _processor() -> dict[str, str]:
    """Model and arithmetic flags of the first processor; all are taken to be alike."""
    fields: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if not name.strip():
                    break
                fields[name.strip()] = value.strip()
    except OSError:
        return {"cpu.model": platform.processor() or platform.machine()}
    flags = fields.get("flags") or fields.get("Features") or ""
    model = (fields.get("cpu family"), fields.get("model"), fields.get("stepping"))
    return {
        "cpu.model": fields.get("model name") or fields.get("CPU part") or platform.machine(),
        "cpu.vendor": fields.get("vendor_id") or fields.get("CPU implementer") or "",
        "cpu.family": "/".join(part for part in model if part),
        "cpu.flags": " ".join(sorted(filter(_ARITHMETIC_FLAG.match, flags.split()))),
    }


def _loaded_libraries() -> dict[str, str]:
    import threadpoolctl

    found: dict[str, set[str]] = {}
    # Paths stay out: they differ between machines that compute the same.
    for library in threadpoolctl.threadpool_info():
        key = f"{_LOADED}{library['internal_api']}"
        if library.get("version"):
            key += f" {library['version']}"
        details = [str(library[name]) for name in _DETAILS if library.get(name)]
        details.append(f"threads={library['num_threads']}")
        found.setdefault(key, set()).add(" ".join(details))
    return {key: "; ".join(sorted(texts)) for key, texts in found.items()}
