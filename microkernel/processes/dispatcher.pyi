from microkernel.processes.station import Station
from microkernel.ready_queue import ReadyQueue

class Dispatcher(Station):
    @property
    def queue(self) -> ReadyQueue: ...
