"""Worker processes: where tasks run side by side on one machine."""

from microkernel.processes.launcher import ForkServer, WorkerLauncher

__all__ = ["ForkServer", "WorkerLauncher"]
