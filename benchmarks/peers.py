"""Peers whose requirements clash with ours live in environments of their own: ``.peers/<name>``.

``python -m benchmarks --setup`` builds them. A trial of such a peer is a script that its own Python
runs and that prints the measurement, one number, as its last line.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import PEERS
from benchmarks.process_tree import with_variable

__all__ = [
    "DASK",
    "ENVIRONMENTS",
    "FOLDER",
    "LOKY",
    "RAY",
    "SCRIPTS",
    "PeerEnvironment",
    "PeerMissing",
    "set_up",
    "there",
    "trial",
]

PROJECT = Path(__file__).parents[1]
FOLDER = PROJECT / ".peers"
SCRIPTS = Path(__file__).parent / "peer_scripts"
MARK = "SRDS_PEER_TRIAL"
PATIENCE_SECONDS = 10.0
_REMEDY = "run `python -m benchmarks --setup` first"


@dataclass(frozen=True)
class PeerEnvironment:
    """A peer and what pip installs for it, pinned, apart from everything else."""

    peer: str
    requirements: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.peer not in PEERS:
            raise ValueError(f"peer {self.peer!r} is none of {sorted(PEERS)}")
        if not self.requirements:
            raise ValueError(f"{self.peer}: no requirements to install")

    @property
    def fingerprint(self) -> str:
        """Changes with the requirements: an environment with another one is built again."""
        return hashlib.sha256("\n".join(self.requirements).encode()).hexdigest()


class PeerMissing(Exception):
    """The peer's environment has not been built, or was built for other requirements."""


RAY = PeerEnvironment("ray", ("ray==2.60.0", "numpy==2.4.6"))
DASK = PeerEnvironment("dask", ("distributed==2026.8.0", "dask==2026.8.0"))
LOKY = PeerEnvironment("loky", ("loky==3.7.0", "cloudpickle==3.1.2"))
ENVIRONMENTS: tuple[PeerEnvironment, ...] = (RAY, DASK, LOKY)


def set_up(environments: Iterable[PeerEnvironment], folder: Path = FOLDER) -> list[str]:
    """Build the environments that are missing or out of date; returns the peers built.

    Raises ``subprocess.CalledProcessError`` when pip fails; what it had begun is removed.
    """
    built = []
    for environment in environments:
        if _is_current(environment, folder):
            continue
        home = folder / environment.peer
        shutil.rmtree(home, ignore_errors=True)
        try:
            venv.create(home, with_pip=True)
            pip = (home / "bin" / "python", "-m", "pip", "--disable-pip-version-check")
            subprocess.run([*pip, "install", "-q", *environment.requirements], check=True)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        _stamp(environment, folder).write_text(environment.fingerprint)
        built.append(environment.peer)
    return built


def there(environment: PeerEnvironment, folder: Path = FOLDER) -> bool:
    """Whether the peer can be measured; says on standard error what to do about it if not."""
    if _is_current(environment, folder):
        return True
    print(f"{environment.peer} is left out: {_REMEDY}", file=sys.stderr)
    return False


def trial(
    environment: PeerEnvironment,
    script: Path,
    *arguments: str,
    folder: Path = FOLDER,
    timeout_s: float = 120.0,
) -> float:
    """Run ``script`` with the peer's own Python and return the number on its last line.

    The script can import ``benchmarks``. No process that it started outlives it, daemons included,
    and no file that it put into the system's temporary folder, which is another one for it.
    Raises ``PeerMissing`` before ``--setup``, ``subprocess.CalledProcessError`` when the script
    fails, ``subprocess.TimeoutExpired`` after ``timeout_s`` seconds.
    """
    if not _is_current(environment, folder):
        raise PeerMissing(f"{environment.peer} is not set up: {_REMEDY}")
    python = folder / environment.peer / "bin" / "python"
    mark = os.urandom(16).hex()
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as scratch:
        try:
            finished = subprocess.run(
                [python, script, *arguments],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                timeout=timeout_s,
                env=os.environ | {"PYTHONPATH": str(PROJECT), "TMPDIR": scratch, MARK: mark},
            )
        finally:
            _end_all(mark)
    return float(finished.stdout.strip().splitlines()[-1])


def _end_all(mark: str) -> None:
    """Kill what a trial has left running, and wait until it is gone."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while (processes := with_variable(MARK, mark)) and time.monotonic() < patience:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def _stamp(environment: PeerEnvironment, folder: Path) -> Path:
    return folder / environment.peer / "requirements.sha256"


def _is_current(environment: PeerEnvironment, folder: Path) -> bool:
    stamp = _stamp(environment, folder)
    return stamp.is_file() and stamp.read_text() == environment.fingerprint
