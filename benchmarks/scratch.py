"""Where benches write: a folder that goes away again, and a journal of ours in it.

The folder is on the disk of the sources, for ours and the peers' alike, because the system's folder
for temporary files may be memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timemachine.journal import Journal

__all__ = ["scratch_folder", "scratch_journal"]

BUILD = Path(__file__).parents[1] / "build"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder for the time of the ``with`` block."""
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="bench-") as folder:
        yield Path(folder)


@contextmanager
def scratch_journal() -> Iterator[Journal]:
    """An open journal with the settings that an app gets, signed by a key of its own."""
    from enclave.keys import SigningKey
    from timemachine.journal import open_log

    key = SigningKey.generate("benchmarks")
    with scratch_folder() as folder, open_log(folder, key) as journal:
        yield journal
