"""Peers in environments of their own, with a package made here: nothing is downloaded."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from benchmarks.peers import PeerEnvironment, PeerMissing, set_up, trial


def wheel_of_peer(folder: Path, version: str, speed: float) -> Path:
    """A wheel of the package ``peer_under_test`` with one constant."""
    folder.mkdir(exist_ok=True)
    path = folder / f"peer_under_test-{version}-py3-none-any.whl"
    info = f"peer_under_test-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("peer_under_test.py", f"SPEED = {speed}\n")
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: peer-under-test\nVersion: {version}\n",
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "peer_speed.py"
    path.write_text(
        "import sys, peer_under_test\n"
        "print('the peer is warming up')\n"
        "print(peer_under_test.SPEED * float(sys.argv[1]))\n"
    )
    return path


def test_a_peer_is_built_once_measured_in_its_own_python_and_renewed_when_its_pins_change(
    tmp_path: Path, script: Path
) -> None:
    folder = tmp_path / ".peers"
    first = PeerEnvironment("naive", (str(wheel_of_peer(tmp_path / "1", "1.0", 21.0)),))
    with pytest.raises(PeerMissing, match="--setup"):
        trial(first, script, "2", folder=folder)
    assert set_up([first], folder) == ["naive"]
    assert trial(first, script, "2", folder=folder) == 42.0
    assert set_up([first], folder) == []

    second = PeerEnvironment("naive", (str(wheel_of_peer(tmp_path / "2", "2.0", 50.0)),))
    with pytest.raises(PeerMissing):
        trial(second, script, "2", folder=folder)
    assert set_up([second], folder) == ["naive"]
    assert trial(second, script, "2", folder=folder) == 100.0


def test_an_environment_that_pip_cannot_fill_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = PeerEnvironment("naive", (str(tmp_path / "nowhere.whl"),))
    with pytest.raises(subprocess.CalledProcessError):
        set_up([environment], tmp_path / ".peers")
    assert not (tmp_path / ".peers" / "naive").exists()


def test_only_agreed_peers_have_environments() -> None:
    with pytest.raises(ValueError, match="redis"):
        PeerEnvironment("redis", ("redis",))
    with pytest.raises(ValueError, match="requirements"):
        PeerEnvironment("naive", ())
