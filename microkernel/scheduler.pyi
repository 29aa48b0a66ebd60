from microkernel.settings import KernelSettings

class Scheduler:
    @property
    def settings(self) -> KernelSettings: ...
    @property
    def run_id(self) -> bytes: ...
