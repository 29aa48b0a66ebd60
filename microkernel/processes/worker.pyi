from typing import NoReturn

from microkernel.event_sink import EventSink
from microkernel.processes.station import Station

class Gathering(EventSink): ...
class Worker(Station): ...

def work(
    control: int, objects: int, station: int, trace_memory: int = -1, trace_file: int = -1
) -> NoReturn: ...
