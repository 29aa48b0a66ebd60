"""An actor in the process that it has for itself.

Its calls are run as a worker runs tasks, one after the other in the main thread. Calls that are not
to wait for others run on an actor of this process's kernel, on an event loop or in threads, and are
answered when they end.
"""
import logging

from libc.stdint cimport uint32_t

from microkernel.function cimport Function
from microkernel.ids cimport name_hash
from microkernel.mailbox cimport Method
from microkernel.pending cimport monotonic_ns
from microkernel.processes.station cimport (
    SRDS_CANCEL,
    SRDS_ERROR,
    SRDS_OK,
    Handler,
    Station,
    srds_message,
)
from microkernel.scheduler cimport cancelled_error
from microkernel.task cimport DONE, WAITING, Ref
from microkernel.tracing.trace cimport SRDS_SENT

from microkernel.actors.options import ActorOptions, has_async_methods, method_names
from microkernel.actors.threads import CoroutineActor, ThreadActor as Threads

cdef enum:
    UNLIMITED = 1 << 20         # the driver counts

cdef object _log = logging.getLogger("microkernel")


cdef class Host(Handler):
    """The instance and its methods."""

    def __init__(self, Station station not None, cls, instance):
        self.station = station
        self.engine = station.engine
        self.cls = cls
        self.instance = instance
        self.open = {}
        self.functions = [None]
        for name in method_names(cls):
            function = Function(getattr(cls, name))
            function.name = f"{cls.__module__}:{cls.__qualname__}.{name}"
            function.hash = name_hash(function.name)
            function.call = getattr(instance, name)
            self.functions.append(function)
        station.handle(SRDS_CANCEL, self)

    cdef Function function(self, uint32_t number):
        return <Function>self.functions[number & 0xffffff]

    cdef int begin(self, Ref call, int sender, uint32_t slot) except -1:
        """Run a call beside others."""
        cdef Reply reply = Reply.__new__(Reply)
        cdef Method method
        cdef tuple args = call.args
        cdef dict kwargs = call.kwargs
        if self.concurrent is None:
            make = CoroutineActor if has_async_methods(self.cls) else Threads
            self.concurrent = make(self.engine, self.cls, ActorOptions(), None, None,
                                   concurrency=UNLIMITED)
            self.concurrent.instance = self.instance
            self.concurrent.place = SRDS_SENT       # the sender notes the call
        method = self.concurrent.method(call.function.name.rpartition(".")[2])
        call.function = method
        call.state = WAITING
        reply.station = self.station
        reply.open = self.open
        reply.call = call
        reply.to = sender
        reply.slot = slot
        reply.begun_ns = monotonic_ns()
        self.open[sender, slot] = call
        call.waiters = [reply]
        self.concurrent.submit(call, args, kwargs or {}, None)
        return 0

    cdef int message(self, int sender, srds_message *message) except -1:
        """A call that runs beside others is given up."""
        cdef Ref call = self.open.get((sender, message.slot))
        if call is not None:
            self.engine.give_up(call, cancelled_error(call))
        return 0


cdef class Reply:
    """Called when the call has ended: answers it."""

    def __call__(self):
        cdef Ref call = self.call
        if self.open is not None:
            self.open.pop((self.to, self.slot), None)
        try:
            if call.state == DONE:
                self.station.answer(self.to, self.slot, SRDS_OK, call.result, self.begun_ns,
                                    monotonic_ns())
            else:
                self.station.answer(self.to, self.slot, SRDS_ERROR, call.result[0], self.begun_ns,
                                    monotonic_ns())
        except Exception as error:
            _log.warning("the answer of %s was not sent: %s", call.function.name, error)
