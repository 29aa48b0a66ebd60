"""The errors of the face, and the list of all packages' roots, which the command line reports.

Each root carries ``what`` was wrong, what was ``expected`` and the ``remedy``.
"""

from __future__ import annotations

__all__ = ["AppError", "SrdsError", "StoreError", "UsageError", "reported"]


class SrdsError(Exception):
    """Root of the face's errors."""

    def __init__(
        self, message: str, *, what: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message)
        self.what = what
        self.expected = expected
        self.remedy = remedy


class StoreError(SrdsError):
    """A directory is no store, or one that this program cannot open."""


class AppError(SrdsError):
    """A decision app is used in a way that it cannot be."""


class UsageError(SrdsError):
    """A command was given something that it cannot use."""


def reported() -> tuple[type[Exception], ...]:
    """The roots of all packages' error trees: what a command reports instead of a traceback."""
    from enclave.errors import EnclaveError
    from frameworks.serving.errors import ServingError
    from ground.errors import GroundError
    from microkernel.errors import KernelError
    from timemachine.errors import TimeMachineError

    return (SrdsError, EnclaveError, GroundError, KernelError, ServingError, TimeMachineError)
