from microkernel.engine import Engine
from microkernel.processes.launcher import WorkerLauncher
from microkernel.processes.station import Station

class Fabric(Station):
    def __init__(self, engine: Engine, launcher: WorkerLauncher | None = None) -> None: ...
    @property
    def crashes(self) -> int: ...
    @property
    def awaited(self) -> int: ...
