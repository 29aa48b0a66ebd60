from microkernel.event_sink import EventSink

class Recording:
    mode: str
    def __init__(self, sink: EventSink) -> None: ...

def describe_error(error: BaseException) -> list[object]: ...
