"""Peers whose requirements clash with ours live in environments of their own: ``.peers/<name>``.

``python -m benchmarks --setup`` builds them. A trial of such a peer is a script that its own Python
runs and that prints the measurement, one number, as its last line.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import PEERS

__all__ = ["ENVIRONMENTS", "FOLDER", "PeerEnvironment", "PeerMissing", "set_up", "trial"]

FOLDER = Path(__file__).parents[1] / ".peers"


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


ENVIRONMENTS: tuple[PeerEnvironment, ...] = ()


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


def trial(
    environment: PeerEnvironment,
    script: Path,
    *arguments: str,
    folder: Path = FOLDER,
    timeout_s: float = 120.0,
) -> float:
    """Run ``script`` with the peer's own Python and return the number on its last line.

    Raises ``PeerMissing`` before ``--setup``, ``subprocess.CalledProcessError`` when the script
    fails, ``subprocess.TimeoutExpired`` after ``timeout_s`` seconds.
    """
    if not _is_current(environment, folder):
        raise PeerMissing(
            f"{environment.peer} is not set up: run `python -m benchmarks --setup` first"
        )
    python = folder / environment.peer / "bin" / "python"
    finished = subprocess.run(
        [python, script, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout_s,
    )
    return float(finished.stdout.strip().splitlines()[-1])


def _stamp(environment: PeerEnvironment, folder: Path) -> Path:
    return folder / environment.peer / "requirements.sha256"


def _is_current(environment: PeerEnvironment, folder: Path) -> bool:
    stamp = _stamp(environment, folder)
    return stamp.is_file() and stamp.read_text() == environment.fingerprint
