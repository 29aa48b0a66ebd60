"""Builds the Cython modules: every ``.pyx`` below a package is an extension of the same name.

Everything else about the project stands in ``pyproject.toml``. The C that Cython writes goes to
``build/``, so that the source tree holds only what people wrote. No ``-march=native``: a wheel
must run on any machine of its architecture; code for newer instructions is chosen at run time.

``SRDS_CYTHON_TRACE=1`` rebuilds all modules with line tracing, for coverage and debuggers.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PACKAGES = ("enclave", "frameworks", "ground", "microkernel", "srds", "timemachine")
TRACE = os.environ.get("SRDS_CYTHON_TRACE") == "1"
JOBS = min(2, os.cpu_count() or 1)


def extension(source: Path) -> Extension:
    folder = source.parent
    return Extension(
        ".".join(source.with_suffix("").parts),
        [source.as_posix()],
        include_dirs=[".", folder.as_posix()],
        # Headers include one another, which Cython does not see.
        depends=sorted(header.as_posix() for header in folder.glob("*.h")),
        define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
        # A header serves several modules, and none of them uses all of it.
        extra_compile_args=["-O3", "-fvisibility=hidden", "-Wno-unused-function"],
    )


if __name__ == "__main__":
    sources = sorted(path for name in PACKAGES for path in Path(name).rglob("*.pyx"))
    setup(
        ext_modules=cythonize(
            [extension(source) for source in sources],
            build_dir="build/cython-trace" if TRACE else "build/cython",
            nthreads=JOBS,
            annotate=False,
            force=TRACE,
            compiler_directives={
                "language_level": 3,
                "boundscheck": False,
                "initializedcheck": False,
                "cdivision": True,
                "linetrace": TRACE,
            },
        ),
        options={"build_ext": {"parallel": JOBS, "force": TRACE}},
    )
