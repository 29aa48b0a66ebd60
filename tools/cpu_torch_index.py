"""Prints the pip option that finds PyTorch without CUDA, when this machine has no use for CUDA.

On Linux the ``torch`` of PyPI brings 3 GB of CUDA libraries. On a machine without an NVIDIA driver
they only cost time, so ``make`` adds PyTorch's own index of CPU builds, if it can be reached: an
index that does not answer would hold pip up at each package.
"""

import platform
import shutil
import sys
import urllib.request

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
PATIENCE_SECONDS = 5.0


def reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/torch/", timeout=PATIENCE_SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    without_driver = platform.system() == "Linux" and shutil.which("nvidia-smi") is None
    if without_driver and reachable(CPU_BUILDS):
        sys.stdout.write(f"--extra-index-url {CPU_BUILDS}\n")
